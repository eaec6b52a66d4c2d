//! A hierarchical task graph that can't be wrong once it exists.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A task's name within its graph.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Arc<str>);

impl TaskId {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node. A task with children is a group: it has no work of its own and ends when its children have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub description: String,
    /// The group it belongs to. Waiting for a group is waiting for all that is in it.
    pub parent: Option<TaskId>,
    pub depends_on: Vec<TaskId>,
}

/// How large a graph may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub tasks: usize,
    /// Levels of grouping; a task without a parent is on level 1.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tasks: 100_000, depth: 16 }
    }
}

/// Why a list of tasks is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    #[error("the graph has no tasks")]
    Empty,
    #[error("the graph has {found} tasks; at most {limit} are allowed")]
    TooLarge { found: usize, limit: usize },
    #[error("task '{task}' lies {limit} levels deep or deeper than allowed")]
    TooDeep { task: TaskId, limit: usize },
    #[error("two tasks are called '{0}'; ids must differ")]
    Duplicate(TaskId),
    #[error("task '{task}' depends on '{missing}', which is not in the graph")]
    UnknownDependency { task: TaskId, missing: TaskId },
    #[error("task '{task}' belongs to '{missing}', which is not in the graph")]
    UnknownParent { task: TaskId, missing: TaskId },
    #[error("these tasks wait for each other: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<TaskId>),
}

/// A checked graph: ids differ, what is named exists, nothing waits for itself.
#[derive(Debug, Clone)]
pub struct Dag {
    tasks: Vec<Task>,
    /// The graph of moments that the schedule walks; see [`Moments`].
    moments: Moments,
}

/// Each task has two moments, its start (`2i`) and its end (`2i + 1`). What must be in order is an edge between
/// moments, so that grouping and depending are one relation and one search finds every cycle.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) after: Vec<Vec<u32>>,
    pub(super) waits_for: Vec<u32>,
    pub(super) is_group: Vec<bool>,
}

pub(super) fn start(task: usize) -> usize {
    2 * task
}

pub(super) fn end(task: usize) -> usize {
    2 * task + 1
}

impl Dag {
    /// Checks in time linear in tasks and dependencies.
    pub fn new(tasks: Vec<Task>, limits: &Limits) -> Result<Self, DagError> {
        if tasks.is_empty() {
            return Err(DagError::Empty);
        }
        if tasks.len() > limits.tasks {
            return Err(DagError::TooLarge { found: tasks.len(), limit: limits.tasks });
        }
        let mut index = HashMap::with_capacity(tasks.len());
        for (i, task) in tasks.iter().enumerate() {
            if index.insert(&task.id, i).is_some() {
                return Err(DagError::Duplicate(task.id.clone()));
            }
        }
        let mut moments = Moments {
            after: vec![Vec::new(); 2 * tasks.len()],
            waits_for: vec![0; 2 * tasks.len()],
            is_group: vec![false; tasks.len()],
        };
        let mut parents = vec![None; tasks.len()];
        for (i, task) in tasks.iter().enumerate() {
            moments.order(start(i), end(i));
            for dependency in &task.depends_on {
                let Some(&d) = index.get(dependency) else {
                    return Err(DagError::UnknownDependency { task: task.id.clone(), missing: dependency.clone() });
                };
                moments.order(end(d), start(i));
            }
            if let Some(parent) = &task.parent {
                let Some(&p) = index.get(parent) else {
                    return Err(DagError::UnknownParent { task: task.id.clone(), missing: parent.clone() });
                };
                parents[i] = Some(p);
                moments.is_group[p] = true;
                moments.order(start(p), start(i));
                moments.order(end(i), end(p));
            }
        }
        if let Some(cycle) = moments.cycle() {
            let mut names: Vec<TaskId> = cycle.into_iter().map(|m| tasks[m / 2].id.clone()).collect();
            names.dedup();
            if names.len() > 1 && names.first() == names.last() {
                names.pop();
            }
            names.push(names[0].clone());
            return Err(DagError::Cycle(names));
        }
        check_depth(&tasks, &parents, limits.depth)?;
        Ok(Self { tasks, moments })
    }

    /// A goal that is not taken apart.
    pub fn atomic(description: &str) -> Self {
        let task =
            Task { id: TaskId::new("root"), description: description.to_owned(), parent: None, depends_on: vec![] };
        let mut moments = Moments { after: vec![vec![]; 2], waits_for: vec![0; 2], is_group: vec![false] };
        moments.order(start(0), end(0));
        Self { tasks: vec![task], moments }
    }

    /// All tasks, groups too, in the order in which they were given.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The tasks that are work.
    pub fn leaves(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().enumerate().filter(|(i, _)| !self.is_group(*i)).map(|(_, task)| task)
    }

    pub fn is_group(&self, task: usize) -> bool {
        self.moments.is_group[task]
    }

    pub(super) fn moments(&self) -> &Moments {
        &self.moments
    }
}

impl Moments {
    fn order(&mut self, first: usize, then: usize) {
        // u32 is enough: a graph has at most `Limits::tasks` nodes, and a Vec of 2^32 of them would not fit memory.
        self.after[first].push(then as u32);
        self.waits_for[then] += 1;
    }

    /// Moments that wait for each other, in order, if any do.
    fn cycle(&self) -> Option<Vec<usize>> {
        let mut waits_for = self.waits_for.clone();
        let mut free: Vec<usize> = (0..waits_for.len()).filter(|&m| waits_for[m] == 0).collect();
        let mut passed = 0;
        while let Some(moment) = free.pop() {
            passed += 1;
            for &next in &self.after[moment] {
                waits_for[next as usize] -= 1;
                if waits_for[next as usize] == 0 {
                    free.push(next as usize);
                }
            }
        }
        if passed == waits_for.len() {
            return None;
        }
        // Every stuck moment waits for a stuck one: walking backwards must come round.
        let mut before = vec![None; waits_for.len()];
        for (moment, nexts) in self.after.iter().enumerate().filter(|(m, _)| waits_for[*m] > 0) {
            for &next in nexts {
                before[next as usize] = Some(moment);
            }
        }
        let mut seen = vec![false; waits_for.len()];
        let mut at = waits_for.iter().position(|&w| w > 0)?;
        while !seen[at] {
            seen[at] = true;
            at = before[at]?;
        }
        let mut cycle = vec![at];
        let mut step = before[at]?;
        while step != at {
            cycle.push(step);
            step = before[step]?;
        }
        Some(cycle)
    }
}

fn check_depth(tasks: &[Task], parents: &[Option<usize>], limit: usize) -> Result<(), DagError> {
    let mut depths = vec![0usize; tasks.len()];
    for i in 0..tasks.len() {
        let mut path = vec![];
        let mut at = i;
        while depths[at] == 0 {
            path.push(at);
            match parents[at] {
                Some(parent) => at = parent,
                None => break,
            }
        }
        let mut depth = depths[at];
        for &task in path.iter().rev() {
            depth += 1;
            depths[task] = depth;
            if depth > limit {
                return Err(DagError::TooDeep { task: tasks[task].id.clone(), limit });
            }
        }
    }
    Ok(())
}
