//! Edges that can go: those that other edges imply, and those that no data crosses.

use std::collections::HashSet;

use super::graph::{Net, end, start};
use super::plan::Edit;
use super::{Draft, Level};
use crate::domain::TaskId;

/// How many moments are looked at before the search for edges is given up; some seconds on a slow machine.
const BUDGET: usize = 20_000_000;

/// Over which edges of `task` no data ever went, and in how many attempts that was seen.
fn unread(draft: &Draft<'_>, net: &Net<'_>, task: usize) -> (Vec<usize>, usize) {
    let id = &draft.graph.dag.tasks()[task].id;
    let Some(attempts) = draft.by_task.get(id) else { return (vec![], 0) };
    let mut read: HashSet<&TaskId> = HashSet::new();
    let mut known = 0;
    for attempt in attempts.iter().filter(|a| a.is_done()) {
        // One attempt of which it is not known could have read anything.
        let Some(list) = &attempt.read else { return (vec![], 0) };
        read.extend(list);
        known += 1;
    }
    if known < Level::Basic.runs() {
        return (vec![], 0);
    }
    let tasks = draft.graph.dag.tasks();
    // A group has no output of its own, so what is read of it has another name: it is not judged.
    let free = net.dependencies[task].iter().copied().filter(|&d| !net.group[d] && !read.contains(&tasks[d].id));
    (free.collect(), known)
}

/// Drops edges that others imply and over which nothing is read. The order does not change.
pub(super) fn drop_redundant(draft: &mut Draft<'_>) {
    let graph = draft.graph;
    let net = Net::new(&graph.dag);
    let tasks = graph.dag.tasks();
    let mut budget = BUDGET;
    let mut found = vec![];
    for (task, node) in tasks.iter().enumerate() {
        if net.group[task] || net.dependencies[task].len() < 2 && net.parent[task].is_none() {
            continue;
        }
        let (unread, known) = unread(draft, &net, task);
        if unread.is_empty() {
            continue;
        }
        let ends: Vec<usize> = unread.iter().map(|&d| end(d)).collect();
        // What comes before one of the dependencies, or before the group that the task is in, comes before the task.
        let mut from: Vec<usize> =
            net.dependencies[task].iter().flat_map(|&d| net.before[end(d)].iter().copied()).collect();
        from.extend(net.parent[task].map(start));
        let Some(implied) = net.come_before(&from, &ends, &mut budget) else {
            draft.notes.push("edges: the graph is too large to look at all of them".to_owned());
            break;
        };
        for moment in implied {
            let dependency = tasks[moment / 2].id.clone();
            let reason = format!("other edges say so already, and in {known} attempts its output was never looked at");
            found.push((Edit::DropEdge { task: node.id.clone(), dependency }, reason));
        }
    }
    draft.push_all(found);
}

/// Drops edges over which nothing is read and which keep nothing in order but a pure step: whoever comes after that
/// step must come after the dependency by another way too.
pub(super) fn drop_unread(draft: &mut Draft<'_>) {
    let graph = draft.graph;
    let tasks = graph.dag.tasks();
    let mut budget = BUDGET;
    // Changes that were made already count, so each is looked at on the graph as it is by then.
    for node in tasks.iter().filter(|t| graph.policy(&t.id).pure) {
        loop {
            let dag = draft.now.graph.dag.clone();
            let net = Net::new(&dag);
            let Some(&task) = net.index.get(&node.id) else { break };
            if net.group[task] {
                break;
            }
            let (unread, known) = unread(draft, &net, task);
            // The rule of succession: what was never seen in n cases happens in one of n + 2.
            let sure = (known + 1) as f64 / (known + 2) as f64;
            if known < Level::Aggressive.runs() || sure < draft.options.pattern_confidence_threshold {
                break;
            }
            let found = unread.into_iter().find(|&dependency| {
                let same_group = net.parent[task].is_none() || net.parent[task] == net.parent[dependency];
                same_group
                    && net.dependants[task].iter().all(|&next| {
                        let others = net.before[start(next)].iter().copied().filter(|&m| m != end(task));
                        let from: Vec<usize> = others.collect();
                        net.come_before(&from, &[end(dependency)], &mut budget).is_some_and(|found| !found.is_empty())
                    })
            });
            let Some(dependency) = found else { break };
            let reason = format!(
                "in {known} attempts its output was never looked at, {} has no effects, and what comes after stays in order",
                node.id
            );
            let edit = Edit::DropEdge { task: node.id.clone(), dependency: tasks[dependency].id.clone() };
            draft.push_replayed(edit, reason);
        }
    }
}
