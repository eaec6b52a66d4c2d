//! What the optimizer proposes: changes, each with its reason and what it is expected to bring.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::graph::{Backoff, Graph};
use super::history::Failure;
use super::predict::Forecast;
use super::replay::Replayed;
use super::{Level, Resources};
use crate::domain::{Dag, DagError, Limits, Task, TaskId};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub level: Level,
    /// How many recorded runs it is made from.
    pub runs: usize,
    pub changes: Vec<Change>,
    /// What was not done and why, for a person.
    pub notes: Vec<String>,
    /// The recorded runs before and after; `None` where none could be replayed.
    pub replayed: Option<Replayed>,
    /// Predicts durations from what is known before a step begins, for the tasks where that was better than their mean.
    pub forecast: Option<Forecast>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    #[serde(flatten)]
    pub edit: Edit,
    pub reason: String,
    /// `None` where the records can't say.
    pub gain: Option<Gain>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Edit {
    Timeout {
        task: TaskId,
        from: Duration,
        to: Duration,
    },
    Attempts {
        task: TaskId,
        from: u32,
        to: u32,
    },
    Backoff {
        task: TaskId,
        failure: Failure,
        from: Backoff,
        to: Backoff,
    },
    /// The task need not wait for that dependency by name.
    DropEdge {
        task: TaskId,
        dependency: TaskId,
    },
    /// What has the longest way to the end goes first. `path` is the critical one.
    Order {
        path: Vec<TaskId>,
        ways: BTreeMap<TaskId, Duration>,
    },
    /// A chain that one worker does in one go. Each step is kept as its own.
    Fuse {
        chain: Vec<TaskId>,
    },
    /// Like steps that one worker does in one go, in so many batches.
    Split {
        batches: Vec<Vec<TaskId>>,
    },
    MaxParallel {
        from: u32,
        to: u32,
    },
    /// Its output is taken from an earlier one with equal inputs.
    Memoise {
        task: TaskId,
    },
    Resources {
        task: TaskId,
        needs: Resources,
    },
    /// A second try is begun beside one that takes longer than `after`, which `typical` ones don't.
    Speculate {
        task: TaskId,
        #[serde(flatten)]
        speculation: Speculation,
    },
    /// How many slots are wanted from when on.
    Allot {
        slots: Vec<(Duration, u32)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speculation {
    pub after: Duration,
    pub typical: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gain {
    /// A run ends earlier by this, by replay of the recorded ones.
    RunTime(Duration),
    /// Work that a run is spared, whether or not anything waits for it.
    Work(Duration),
    /// By how much the share of runs of the step that end in failure falls.
    Failures(f64),
    /// A step that hangs is noticed this much earlier.
    Notice(Duration),
    /// Slots that are not held for nothing.
    Slots(u32),
}

/// How a run is carried out: the graph, and what beyond it.
#[derive(Debug, Clone)]
pub struct Arrangement {
    pub graph: Graph,
    /// The larger goes first where slots are short. Empty: first come, first served.
    pub priority: HashMap<TaskId, Duration>,
    /// Steps that follow each other on one worker without a dispatch between them. None is in two lists.
    pub together: Vec<Vec<TaskId>>,
    pub memoised: HashSet<TaskId>,
    pub speculate: HashMap<TaskId, Speculation>,
    /// What is in `together`.
    joined: HashSet<TaskId>,
}

impl Arrangement {
    /// The graph as it is.
    pub fn of(graph: Graph) -> Self {
        Self {
            graph,
            priority: HashMap::new(),
            together: vec![],
            memoised: HashSet::new(),
            speculate: HashMap::new(),
            joined: HashSet::new(),
        }
    }

    /// Carries out a change. Fails only if the change is of another graph.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), DagError> {
        match edit {
            Edit::Timeout { task, to, .. } => self.policy(task, |p| p.timeout = *to),
            Edit::Attempts { task, to, .. } => self.policy(task, |p| p.attempts = *to),
            Edit::Backoff { task, failure, to, .. } => {
                self.policy(task, |p| _ = p.backoff_by_kind.insert(*failure, *to));
            }
            Edit::DropEdge { .. } => self.drop_edges([edit])?,
            Edit::Order { ways, .. } => {
                self.priority = ways.iter().map(|(task, way)| (task.clone(), *way)).collect();
            }
            Edit::Fuse { chain } => self.join(chain),
            Edit::Split { batches } => batches.iter().for_each(|batch| self.join(batch)),
            Edit::MaxParallel { to, .. } => self.graph.max_parallel = *to,
            Edit::Memoise { task } => _ = self.memoised.insert(task.clone()),
            Edit::Speculate { task, speculation } => _ = self.speculate.insert(task.clone(), *speculation),
            // Where a step is done and how many workers stand ready: for whoever starts workers.
            Edit::Resources { .. } | Edit::Allot { .. } => {}
        }
        Ok(())
    }

    /// Carries out those of the changes that drop an edge, together.
    pub(super) fn drop_edges<'a>(&mut self, edits: impl IntoIterator<Item = &'a Edit>) -> Result<(), DagError> {
        let dropped = edits.into_iter().filter_map(|edit| match edit {
            Edit::DropEdge { task, dependency } => Some((task, dependency)),
            _ => None,
        });
        self.graph.dag = without(&self.graph.dag, &dropped.collect())?;
        Ok(())
    }

    /// A step is in one list at most: in two, they could wait for each other.
    fn join(&mut self, steps: &[TaskId]) {
        let list: Vec<TaskId> = steps.iter().filter(|step| self.joined.insert((*step).clone())).cloned().collect();
        if list.len() > 1 {
            self.together.push(list);
        }
    }

    fn policy(&mut self, task: &TaskId, change: impl FnOnce(&mut super::Policy)) {
        change(self.graph.policies.entry(task.clone()).or_default());
    }
}

impl Plan {
    /// The graph under the plan. Fails only if the plan is of another graph.
    pub fn apply(&self, graph: &Graph) -> Result<Arrangement, DagError> {
        let mut arrangement = Arrangement::of(graph.clone());
        arrangement.drop_edges(self.changes.iter().map(|change| &change.edit))?;
        for change in self.changes.iter().filter(|c| !matches!(c.edit, Edit::DropEdge { .. })) {
            arrangement.apply(&change.edit)?;
        }
        Ok(arrangement)
    }
}

fn without(dag: &Dag, dropped: &HashSet<(&TaskId, &TaskId)>) -> Result<Dag, DagError> {
    if dropped.is_empty() {
        return Ok(dag.clone());
    }
    let tasks: Vec<Task> = dag
        .tasks()
        .iter()
        .map(|task| {
            let mut task = task.clone();
            let id = task.id.clone();
            task.depends_on.retain(|dependency| !dropped.contains(&(&id, dependency)));
            task
        })
        .collect();
    // It was a graph before: limits were checked then.
    Dag::new(tasks, &Limits { tasks: usize::MAX, depth: usize::MAX })
}

/// The plan as a difference of two documents.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "--- as it is ({} recorded runs)", self.runs)?;
        writeln!(f, "+++ level {}", self.level.name())?;
        for change in &self.changes {
            writeln!(f, "@@ {} @@", change.edit.topic())?;
            change.edit.lines(f)?;
            writeln!(f, "   {}", change.reason)?;
            if let Some(gain) = &change.gain {
                writeln!(f, "   {gain}")?;
            }
        }
        if self.changes.is_empty() {
            writeln!(f, "   nothing to change")?;
        }
        for note in &self.notes {
            writeln!(f, "   note: {note}")?;
        }
        for (task, model) in self.forecast.iter().flat_map(|forecast| &forecast.durations) {
            let share = 100.0 * (1.0 - (model.error / model.error_of_mean.max(1e-12)).sqrt());
            writeln!(
                f,
                "   learnt: {task}: its time is predicted {share:.0} % better than by its mean ({} attempts)",
                model.samples
            )?;
        }
        if let Some(Replayed { runs, before, after }) = &self.replayed {
            let share = 100.0 * (after.as_secs_f64() / before.as_secs_f64().max(1e-9) - 1.0);
            writeln!(
                f,
                "   {runs} recorded runs replayed: {} before, {} after ({share:+.1} %)",
                span(*before),
                span(*after)
            )?;
        }
        Ok(())
    }
}

impl Edit {
    /// What it is about, in a few words.
    pub fn topic(&self) -> String {
        match self {
            Self::Timeout { task, .. } => format!("{task}: timeout"),
            Self::Attempts { task, .. } => format!("{task}: attempts"),
            Self::Backoff { task, failure, .. } => format!("{task}: pause after {}", failure.name()),
            Self::DropEdge { task, .. } => format!("{task}: depends_on"),
            Self::Order { .. } => "order".to_owned(),
            Self::Fuse { .. } => "chain".to_owned(),
            Self::Split { .. } => "batches".to_owned(),
            Self::MaxParallel { .. } => "max_parallel".to_owned(),
            Self::Memoise { task } => format!("{task}: output"),
            Self::Resources { task, .. } => format!("{task}: resources"),
            Self::Speculate { task, .. } => format!("{task}: stragglers"),
            Self::Allot { .. } => "slots over the run".to_owned(),
        }
    }

    fn lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { from, to, .. } => writeln!(f, "-  {}\n+  {}", span(*from), span(*to)),
            Self::Attempts { from, to, .. } | Self::MaxParallel { from, to } => writeln!(f, "-  {from}\n+  {to}"),
            Self::Backoff { from, to, .. } => writeln!(f, "-  {}\n+  {}", pause(from), pause(to)),
            Self::DropEdge { dependency, .. } => writeln!(f, "-  {dependency}"),
            Self::Order { path, .. } => writeln!(f, "-  first come, first served\n+  first: {}", list(path, " -> ")),
            Self::Fuse { chain } => writeln!(f, "-  {}\n+  {} on one worker", list(chain, " | "), list(chain, " -> ")),
            Self::Split { batches } => {
                let count: usize = batches.iter().map(Vec::len).sum();
                writeln!(f, "-  {count} steps, each dispatched")?;
                batches.iter().try_for_each(|batch| writeln!(f, "+  {}", list(batch, ", ")))
            }
            Self::Memoise { .. } => writeln!(f, "-  made anew\n+  taken from an equal input's"),
            Self::Resources { needs, .. } => writeln!(f, "+  {needs}"),
            Self::Speculate { speculation, .. } => {
                writeln!(f, "-  waited for\n+  a second one after {}", span(speculation.after))
            }
            Self::Allot { slots } => {
                slots.iter().try_for_each(|(from, count)| writeln!(f, "+  {count} from {}", span(*from)))
            }
        }
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunTime(time) => write!(f, "expected: a run ends {} earlier", span(*time)),
            Self::Work(time) => write!(f, "expected: {} less work a run", span(*time)),
            Self::Failures(share) => write!(f, "expected: {:.2} % fewer failures of the step", 100.0 * share),
            Self::Notice(time) => write!(f, "expected: a hung step is noticed {} earlier", span(*time)),
            Self::Slots(1) => f.write_str("expected: 1 slot is free for others"),
            Self::Slots(count) => write!(f, "expected: {count} slots are free for others"),
        }
    }
}

fn list(tasks: &[TaskId], between: &str) -> String {
    const SHOWN: usize = 12;
    let mut text = tasks.iter().take(SHOWN).map(TaskId::as_str).collect::<Vec<_>>().join(between);
    if tasks.len() > SHOWN {
        text.push_str(&format!("{between}and {} more", tasks.len() - SHOWN));
    }
    text
}

fn pause(backoff: &Backoff) -> String {
    format!("{}, then {:.1} times as long each", span(backoff.first), backoff.factor)
}

/// A time with as many digits as a person reads.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.2} ms", s * 1e3),
    }
}
