//! From a graph and its recorded runs to a plan that makes it faster and surer. Pure: it reads records and returns
//! changes with their reasons. Where the records are too few, the change is absent.
//!
//! What must come before what stays so. A step that may have effects keeps its place behind all that it came behind;
//! only a `pure` step, whose output follows from what it reads alone, may be freed from waiting for what it doesn't read
//! (at `aggressive`, without `preserve_structure`).

mod advanced;
mod aggressive;
mod basic;
mod edges;
mod graph;
mod history;
mod live;
mod plan;
mod predict;
mod recommend;
mod replay;
#[cfg(test)]
mod sample;
mod stats;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use graph::{Backoff, Graph, Policy};
pub use history::{Attempt, Failure, History, Outcome, Run};
pub use live::{Verdict, judge};
pub use plan::{Arrangement, Change, Edit, Gain, Plan, Speculation};
pub use predict::{Forecast, Given, Model, learn};
pub use recommend::{Pair, PairReason, Pattern, Recommendations, Warning, recommend};
pub use replay::{Replayed, Try, replay, simulate};

use crate::domain::{Dag, TaskId};
use graph::Net;
use replay::Recorded;

/// How far the optimizer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Basic,
    Advanced,
    Aggressive,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Advanced => "advanced",
            Self::Aggressive => "aggressive",
        }
    }

    /// Recorded runs that it needs.
    pub fn runs(self) -> usize {
        match self {
            Self::Basic => 20,
            Self::Advanced => 50,
            Self::Aggressive => 100,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    pub level: Level,
    pub preserve_structure: bool,
    /// Never more steps at the same time than this.
    pub max_parallel: u32,
    /// The timeout of a step that was never seen to take this long is left alone.
    pub timeout_threshold: Duration,
    /// Whether a model may be learnt from the records.
    pub learning_enabled: bool,
    /// How sure a pattern in the records must be to count.
    pub pattern_confidence_threshold: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: Level::Basic,
            preserve_structure: true,
            max_parallel: 10,
            timeout_threshold: Duration::from_secs(30),
            learning_enabled: true,
            pattern_confidence_threshold: 0.85,
        }
    }
}

/// Why a level is not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "optimization_level 'aggressive' needs at least {needed} recorded runs of this workflow, and there are {found}: \
         run it {} more times with 'basic' or 'advanced'", needed - found
    )]
    TooFewRuns { found: usize, needed: usize },
    #[error(
        "optimization_level 'aggressive' changes what waits for what, and preserve_structure is true: set \
         preserve_structure to false, or use 'advanced'"
    )]
    StructureKept,
}

/// What a step needs, by what it was seen to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub class: Class,
    /// The 95th percentile of its time.
    pub time: Duration,
    /// The most bytes that it took in and gave out.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Under 100 ms and 64 KiB: many fit on one worker.
    Light,
    Standard,
    /// Over 30 s or 8 MiB: it wants a worker of its own.
    Heavy,
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Light => "light",
            Class::Standard => "standard",
            Class::Heavy => "heavy",
        };
        write!(f, "{class}: {} at p95, {} bytes at most", plan::span(self.time), self.bytes)
    }
}

/// The plan for a graph out of its recorded runs.
pub fn optimize(graph: &Graph, history: &History, options: &Options) -> Result<Plan, Refused> {
    let runs = history.runs.len();
    if options.level == Level::Aggressive {
        if options.preserve_structure {
            return Err(Refused::StructureKept);
        }
        if runs < Level::Aggressive.runs() {
            return Err(Refused::TooFewRuns { found: runs, needed: Level::Aggressive.runs() });
        }
    }
    let mut draft = Draft::new(graph, history, options);
    for (level, step) in [
        (Level::Basic, basic::propose as fn(&mut Draft<'_>)),
        (Level::Advanced, advanced::propose),
        (Level::Aggressive, aggressive::propose),
    ] {
        if level > options.level {
            break;
        }
        if runs < level.runs() {
            let text = format!("'{}' needs {} recorded runs; there are {runs}", level.name(), level.runs());
            draft.notes.push(text);
            break;
        }
        step(&mut draft);
    }
    // Steps are joined once all edges that go are gone, and slots are counted once it is known what is joined.
    let advanced = options.level >= Level::Advanced && runs >= Level::Advanced.runs();
    let aggressive = options.level == Level::Aggressive;
    if advanced {
        advanced::fuse(&mut draft);
    }
    if aggressive {
        aggressive::split(&mut draft);
    }
    if advanced {
        advanced::slots(&mut draft);
    }
    if aggressive {
        aggressive::allot(&mut draft);
    }
    Ok(draft.done())
}

/// The order of steps by the longest way to the end: for a run whose times are known or guessed.
pub fn ways_to_the_end(dag: &Dag, takes: impl Fn(&TaskId) -> Duration) -> HashMap<TaskId, Duration> {
    let net = Net::new(dag);
    let tasks = dag.tasks();
    let ways = net.ways_to_the_end(|task| takes(&tasks[task].id));
    tasks.iter().zip(ways).map(|(task, way)| (task.id.clone(), way)).collect()
}

/// The largest graph whose changes are each replayed, and on how many runs: replaying is linear in both.
const REPLAYED_TASKS: usize = 2_000;
const REPLAYED_RUNS: usize = 25;
/// Steps that are replayed for one plan, all changes together; some seconds. Later changes have no gain.
const REPLAYED_STEPS: usize = 2_000_000;

/// The attempts in which something was done.
fn by_task(history: &History) -> HashMap<&TaskId, Rc<[&Attempt]>> {
    let all = history.by_task().into_iter();
    all.map(|(task, attempts)| (task, attempts.into_iter().filter(|attempt| attempt.is_own()).collect())).collect()
}

/// A plan that grows.
struct Draft<'a> {
    graph: &'a Graph,
    history: &'a History,
    options: &'a Options,
    by_task: HashMap<&'a TaskId, Rc<[&'a Attempt]>>,
    /// The graph with all changes so far.
    now: Arrangement,
    /// The recorded runs that changes are tried on, and how long they take as of now.
    tried_on: Vec<Recorded<'a>>,
    takes: Option<Duration>,
    steps_left: Cell<usize>,
    changes: Vec<Change>,
    notes: Vec<String>,
    forecast: Option<Forecast>,
}

impl<'a> Draft<'a> {
    fn new(graph: &'a Graph, history: &'a History, options: &'a Options) -> Self {
        let mut tried_on: Vec<Recorded<'_>> = vec![];
        if graph.dag.tasks().len() <= REPLAYED_TASKS {
            let newest = history.runs.iter().rev().filter_map(|run| Recorded::of(run, &graph.dag));
            tried_on = newest.take(REPLAYED_RUNS).collect();
            tried_on.reverse();
        }
        let now = Arrangement::of(graph.clone());
        let steps_left = Cell::new(REPLAYED_STEPS);
        let mut draft = Self {
            graph,
            history,
            options,
            by_task: by_task(history),
            now,
            tried_on,
            takes: None,
            steps_left,
            changes: vec![],
            notes: vec![],
            forecast: None,
        };
        draft.takes = draft.replayed(&draft.now);
        draft
    }

    /// How long the recorded runs would take; `None` where there are none, or too much was replayed already.
    fn replayed(&self, arrangement: &Arrangement) -> Option<Duration> {
        let steps = self.tried_on.len() * self.graph.dag.tasks().len();
        self.steps_left.set(self.steps_left.get().checked_sub(steps)?);
        replay::mean(&self.tried_on, arrangement)
    }

    /// The attempts at each step of the graph that was tried often enough for `level`, in the graph's order.
    fn seen(&self, level: Level) -> Vec<(TaskId, Rc<[&'a Attempt]>)> {
        let steps = self.graph.dag.leaves();
        let seen = steps.filter_map(|task| Some((task.id.clone(), Rc::clone(self.by_task.get(&task.id)?))));
        seen.filter(|(_, attempts)| attempts.len() >= level.runs()).collect()
    }

    fn push(&mut self, edit: Edit, reason: String, gain: Option<Gain>) {
        match self.now.apply(&edit) {
            Ok(()) => self.changes.push(Change { edit, reason, gain }),
            Err(error) => self.notes.push(format!("{}: left out: {error}", edit.topic())),
        }
    }

    /// Takes over many edges at once: the graph is built anew once.
    fn push_all(&mut self, edges: Vec<(Edit, String)>) {
        match self.now.drop_edges(edges.iter().map(|(edit, _)| edit)) {
            Ok(()) => {
                self.changes.extend(edges.into_iter().map(|(edit, reason)| Change { edit, reason, gain: None }));
            }
            Err(error) => self.notes.push(format!("edges: left out: {error}")),
        }
    }

    /// How long the recorded runs would take with this on top, and how much less that is than now.
    fn saves(&self, edit: &Edit) -> Option<Duration> {
        let takes = self.takes?;
        let mut then = self.now.clone();
        then.apply(edit).ok()?;
        Some(takes.saturating_sub(self.replayed(&then)?))
    }

    /// Takes a change over whose worth is in how long a run takes.
    fn push_replayed(&mut self, edit: Edit, reason: String) {
        let saved = self.saves(&edit);
        self.push(edit, reason, saved.filter(|time| !time.is_zero()).map(Gain::RunTime));
        self.takes = self.replayed(&self.now);
    }

    fn done(self) -> Plan {
        let replayed = if self.graph.dag.tasks().len() <= REPLAYED_TASKS {
            replay(self.history, self.graph, &self.now)
        } else {
            None
        };
        Plan {
            level: self.options.level,
            runs: self.history.runs.len(),
            changes: self.changes,
            notes: self.notes,
            replayed,
            forecast: self.forecast,
        }
    }
}
