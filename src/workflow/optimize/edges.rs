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
    if tasks.len() > super::REPLAYED_TASKS {
        draft.notes.push(format!("unread edges are looked for in graphs of up to {} tasks", super::REPLAYED_TASKS));
        return;
    }
    let mut candidates = candidates(draft);
    let mut budget = BUDGET;
    loop {
        // Changes that were made already count, so after each the graph is looked at anew.
        let dag = draft.now.graph.dag.clone();
        let net = Net::new(&dag);
        let found = candidates.iter().position(|&(task, dependency, _)| {
            let same_group = net.parent[task].is_none() || net.parent[task] == net.parent[dependency];
            same_group
                && net.dependants[task].iter().all(|&next| comes_before(&net, dependency, next, task, &mut budget))
        });
        let Some(found) = found else { break };
        let (task, dependency, known) = candidates.swap_remove(found);
        let reason = format!(
            "in {known} attempts its output was never looked at, {} has no effects, and what comes after stays in order",
            tasks[task].id
        );
        let edit = Edit::DropEdge { task: tasks[task].id.clone(), dependency: tasks[dependency].id.clone() };
        draft.push_replayed(edit, reason);
    }
}

/// Edges into pure steps over which nothing is read: task, dependency, and in how many attempts that was seen.
fn candidates(draft: &Draft<'_>) -> Vec<(usize, usize, usize)> {
    let net = Net::new(&draft.now.graph.dag);
    let mut found = vec![];
    for (task, node) in draft.graph.dag.tasks().iter().enumerate() {
        if net.group[task] || net.dependencies[task].is_empty() || !draft.graph.policy(&node.id).pure {
            continue;
        }
        let (unread, known) = unread(draft, &net, task);
        // The rule of succession: what was never seen in n cases happens in one of n + 2.
        let sure = (known + 1) as f64 / (known + 2) as f64;
        if known >= Level::Aggressive.runs() && sure >= draft.options.pattern_confidence_threshold {
            found.extend(unread.into_iter().map(|dependency| (task, dependency, known)));
        }
    }
    found
}

/// Whether `first` ends before `then` starts whatever `without` waits for.
fn comes_before(net: &Net<'_>, first: usize, then: usize, without: usize, budget: &mut usize) -> bool {
    let others = net.before[start(then)].iter().copied().filter(|&moment| moment != end(without));
    let found = net.come_before(&others.collect::<Vec<_>>(), &[end(first)], budget);
    found.is_some_and(|found| !found.is_empty())
}
