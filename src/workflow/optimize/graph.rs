//! A workflow as the optimizer sees it: the checked graph, what each step may do, and what must come before what.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::Failure;
use crate::domain::{Dag, TaskId};

#[derive(Debug, Clone)]
pub struct Graph {
    pub dag: Dag,
    /// A task that is not named has the default.
    pub policies: HashMap<TaskId, Policy>,
    pub max_parallel: u32,
}

/// How a step is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub timeout: Duration,
    /// How often it is tried in all.
    pub attempts: u32,
    pub backoff: Backoff,
    /// Where a kind of failure has its own.
    pub backoff_by_kind: BTreeMap<Failure, Backoff>,
    /// Doing it twice does no more than doing it once, and costs little.
    pub idempotent: bool,
    /// It changes nothing, and its output follows from its inputs alone.
    pub pure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// How much longer each next pause is.
    pub factor: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 3,
            backoff: Backoff { first: Duration::from_secs(1), factor: 2.0 },
            backoff_by_kind: BTreeMap::new(),
            idempotent: false,
            pure: false,
        }
    }
}

impl Graph {
    pub fn policy(&self, task: &TaskId) -> Policy {
        self.policies.get(task).cloned().unwrap_or_default()
    }
}

/// What must come before what. Each task has two moments, its start (`2i`) and its end (`2i + 1`), as in `domain::dag`.
pub(super) struct Net<'a> {
    pub(super) index: HashMap<&'a TaskId, usize>,
    pub(super) group: Vec<bool>,
    /// Tasks that name a task in `depends_on`.
    pub(super) dependants: Vec<Vec<usize>>,
    pub(super) dependencies: Vec<Vec<usize>>,
    pub(super) parent: Vec<Option<usize>>,
    pub(super) after: Vec<Vec<usize>>,
    pub(super) before: Vec<Vec<usize>>,
    /// Moments, each after all that come before it.
    pub(super) order: Vec<usize>,
    /// Where a moment stands in `order`.
    pub(super) place: Vec<usize>,
}

pub(super) fn start(task: usize) -> usize {
    2 * task
}

pub(super) fn end(task: usize) -> usize {
    2 * task + 1
}

impl<'a> Net<'a> {
    pub(super) fn new(dag: &'a Dag) -> Self {
        let tasks = dag.tasks();
        let n = tasks.len();
        let index: HashMap<&TaskId, usize> = tasks.iter().enumerate().map(|(i, t)| (&t.id, i)).collect();
        let mut net = Self {
            group: (0..n).map(|i| dag.is_group(i)).collect(),
            dependants: vec![vec![]; n],
            dependencies: vec![vec![]; n],
            parent: tasks.iter().map(|t| t.parent.as_ref().and_then(|p| index.get(p).copied())).collect(),
            after: vec![vec![]; 2 * n],
            before: vec![vec![]; 2 * n],
            order: Vec::with_capacity(2 * n),
            place: vec![0; 2 * n],
            index,
        };
        for (i, task) in tasks.iter().enumerate() {
            let mut dependencies: Vec<usize> =
                task.depends_on.iter().filter_map(|d| net.index.get(d).copied()).collect();
            dependencies.sort_unstable();
            dependencies.dedup();
            net.edge(start(i), end(i));
            for &d in &dependencies {
                net.edge(end(d), start(i));
                net.dependants[d].push(i);
            }
            if let Some(p) = net.parent[i] {
                net.edge(start(p), start(i));
                net.edge(end(i), end(p));
            }
            net.dependencies[i] = dependencies;
        }
        let mut waits: Vec<usize> = net.before.iter().map(Vec::len).collect();
        let mut free: Vec<usize> = (0..2 * n).filter(|&m| waits[m] == 0).collect();
        while let Some(moment) = free.pop() {
            net.place[moment] = net.order.len();
            net.order.push(moment);
            for &next in &net.after[moment] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    free.push(next);
                }
            }
        }
        net
    }

    fn edge(&mut self, first: usize, then: usize) {
        self.after[first].push(then);
        self.before[then].push(first);
    }

    /// How long it takes from each task's start to the end of the run if nothing waits for a slot.
    pub(super) fn ways_to_the_end(&self, takes: impl Fn(usize) -> Duration) -> Vec<Duration> {
        let mut way = vec![Duration::ZERO; self.after.len()];
        for &moment in self.order.iter().rev() {
            let own = if moment % 2 == 0 && !self.group[moment / 2] { takes(moment / 2) } else { Duration::ZERO };
            let rest = self.after[moment].iter().map(|&next| {
                let through = moment % 2 == 0 && next == moment + 1;
                way[next] + if through { own } else { Duration::ZERO }
            });
            way[moment] = rest.max().unwrap_or_default();
        }
        (0..self.group.len()).map(|task| way[start(task)]).collect()
    }

    /// Which of `wanted` come before one of `from` (which are looked at themselves), found going backwards; no farther
    /// back than the earliest of them. `None` once `budget` moments were looked at.
    pub(super) fn come_before(&self, from: &[usize], wanted: &[usize], budget: &mut usize) -> Option<Vec<usize>> {
        let earliest = wanted.iter().map(|&m| self.place[m]).min()?;
        let mut seen = std::collections::HashSet::new();
        let mut open = from.to_vec();
        while let Some(moment) = open.pop() {
            if self.place[moment] < earliest || !seen.insert(moment) {
                continue;
            }
            *budget = budget.checked_sub(1)?;
            open.extend(&self.before[moment]);
        }
        Some(wanted.iter().copied().filter(|m| seen.contains(m)).collect())
    }
}
