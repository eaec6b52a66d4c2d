//! What is known of past runs. The optimizer reads nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stats;
use crate::domain::TaskId;
use crate::domain::workflow::Manner;

/// A time beyond this is a fault of the record. Sums of what is below it can't overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The recorded runs of one graph, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    pub runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// How many steps could run at the same time.
    pub slots: u32,
    pub completed: bool,
    /// It ran under a plan that changed more than timeouts.
    #[serde(default)]
    pub planned: bool,
    /// In any order.
    pub attempts: Vec<Attempt>,
}

/// One attempt at a step. Times are counted from the start of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub task: TaskId,
    /// From 1.
    pub number: u32,
    /// When it could have begun: what it waits for had ended, and the pause before a retry was over.
    pub queued: Duration,
    pub started: Duration,
    pub ended: Duration,
    pub outcome: Outcome,
    pub worker: Option<Arc<str>>,
    pub input_bytes: u64,
    pub output_bytes: u64,
    /// The size of what the step works on beside its inputs, such as its description or prompt.
    pub content_bytes: u64,
    /// Whose outputs the step looked at; `None` where that can't be known.
    pub read: Option<Vec<TaskId>>,
    /// A digest of all that it was given, to know equal inputs again.
    pub input: Option<u64>,
    #[serde(default)]
    pub manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed(Failure),
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Cut by the step's timeout: how long it would have taken is unknown.
    Timeout,
    /// Nobody was there to do it, or the connection broke.
    Unavailable,
    /// It was told to come back later.
    Overloaded,
    /// Its worker died or lost its lease.
    WorkerLost,
    /// It was refused for what it is: another try can't help.
    Rejected,
    Other,
}

impl Failure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::WorkerLost => "worker_lost",
            Self::Rejected => "rejected",
            Self::Other => "other",
        }
    }

    /// Whether trying again can help.
    pub fn is_transient(self) -> bool {
        self != Self::Rejected
    }
}

impl Attempt {
    pub fn duration(&self) -> Duration {
        self.ended.saturating_sub(self.started).min(LONGEST)
    }

    pub fn wait(&self) -> Duration {
        self.started.saturating_sub(self.queued).min(LONGEST)
    }

    /// From the end of the attempt before this one.
    pub(super) fn pause_after(&self, before: &Self) -> Duration {
        self.queued.saturating_sub(before.ended).min(LONGEST)
    }

    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    /// Whether its step was done in it: else its time says nothing of the step.
    pub fn is_own(&self) -> bool {
        self.manner != Manner::Recalled
    }

    pub fn failed(&self, kind: Failure) -> bool {
        self.outcome == Outcome::Failed(kind)
    }
}

impl Run {
    pub fn makespan(&self) -> Duration {
        self.attempts.iter().map(|a| a.ended).max().unwrap_or_default().min(LONGEST)
    }

    /// Attempts by task, in the order in which they were made.
    pub(super) fn by_task(&self) -> HashMap<&TaskId, Vec<&Attempt>> {
        let mut found: HashMap<&TaskId, Vec<&Attempt>> = HashMap::new();
        for attempt in &self.attempts {
            found.entry(&attempt.task).or_default().push(attempt);
        }
        found.values_mut().for_each(|list| list.sort_by_key(|a| a.number));
        found
    }

    /// What each attempt waited although a slot was free, in the order of `attempts`. An attempt that was queued while
    /// all were taken waited for them, and one in the hand of another was not dispatched: how long that takes is not known from it.
    pub(super) fn dispatch(&self) -> Vec<Option<Duration>> {
        // +1 at a start, -1 at an end; ends first, so that a slot handed on counts once.
        let mut changes: Vec<(Duration, i64)> =
            self.attempts.iter().flat_map(|a| [(a.started, 1), (a.ended, -1)]).collect();
        changes.sort_unstable();
        let mut running = Vec::with_capacity(changes.len());
        let mut count = 0;
        for (at, change) in changes {
            count += change;
            running.push((at, count));
        }
        let at = |when: Duration| {
            let behind = running.partition_point(|(at, _)| *at <= when);
            behind.checked_sub(1).map_or(0, |i| running[i].1)
        };
        let slots = i64::from(self.slots.max(1));
        self.attempts.iter().map(|a| (a.manner != Manner::Followed && at(a.queued) < slots).then(|| a.wait())).collect()
    }

    /// The dispatch of a typical step of this run.
    pub(super) fn typical_dispatch(&self) -> Duration {
        let known: Vec<Duration> = self.dispatch().into_iter().flatten().collect();
        stats::median(&known).unwrap_or_default()
    }
}

impl History {
    /// All attempts at each task, oldest first.
    pub(super) fn by_task(&self) -> HashMap<&TaskId, Vec<&Attempt>> {
        let mut found: HashMap<&TaskId, Vec<&Attempt>> = HashMap::new();
        for run in &self.runs {
            for (task, mut attempts) in run.by_task() {
                found.entry(task).or_default().append(&mut attempts);
            }
        }
        found
    }

    /// The mean time that a task takes in a run that does it: all of its attempts together.
    pub fn mean_times(&self) -> HashMap<TaskId, Duration> {
        let mut sums: HashMap<&TaskId, (Duration, u32)> = HashMap::new();
        for run in &self.runs {
            for (task, attempts) in run.by_task() {
                if attempts.last().is_some_and(|a| a.is_done() && a.is_own()) {
                    let sum = sums.entry(task).or_default();
                    sum.0 += attempts.iter().map(|a| a.duration()).sum::<Duration>();
                    sum.1 += 1;
                }
            }
        }
        sums.into_iter().map(|(task, (sum, count))| (task.clone(), sum / count)).collect()
    }
}
