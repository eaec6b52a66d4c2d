//! A workflow as it is meant: what is to be done, in which order, under which terms, and which states there are. Pure.

mod event;
mod graph;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use event::{Event, EventKind};
pub use graph::{Graph, GraphError, Node};
pub use state::{Command, Happening, NotAllowed, State, TaskState};

use super::{Complexity, IdError, Language, TaskId};

/// Made by the worker that took a workflow; ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(with = "String")]
#[serde(try_from = "String", into = "String")]
pub struct WorkflowId(Uuid);

impl WorkflowId {
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    pub fn parse(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| IdError)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| IdError)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl TryFrom<String> for WorkflowId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<WorkflowId> for String {
    fn from(id: WorkflowId) -> Self {
        id.to_string()
    }
}

/// Who does a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Step {
    /// Rules, then the cache, then a model.
    Agent {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<Language>,
        #[serde(default)]
        complexity: Complexity,
    },
    /// One question for a model.
    Model(ModelStep),
    /// A service of the user's, in any language: a NATS request.
    Nats { subject: String },
    /// A closure of the program that this crate is built into.
    Native { name: String },
}

impl Step {
    /// Whether doing it twice does no more than doing it once: services and closures are given a key to know it by. An agent or a
    /// model may be paid twice.
    pub fn is_keyed(&self) -> bool {
        matches!(self, Self::Nats { .. } | Self::Native { .. })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::Model(_) => "model",
            Self::Nats { .. } => "nats",
            Self::Native { .. } => "native",
        }
    }
}

impl Default for Step {
    fn default() -> Self {
        Self::Agent { language: None, complexity: Complexity::default() }
    }
}

/// How a model is asked; what is `None` is as configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelStep {
    /// `None`: the task's description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// One model of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// A JSON Schema, as JSON, that the answer must fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// What of a workflow's terms a task has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_attempts: Option<u32>,
    /// The pause before the second attempt after failures of a kind, where records say which helps; it doubles with each further
    /// one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backoff: BTreeMap<FailureKind, Duration>,
    /// Begun by the hand that ended the task before it, and committed together with that.
    #[serde(skip_serializing_if = "is_false")]
    pub follows: bool,
    /// A second attempt is begun beside one that takes longer. The first to do well counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_after: Option<Duration>,
    /// By its author's word it changes nothing, and what it comes to follows from its inputs alone.
    #[serde(skip_serializing_if = "is_false")]
    pub pure: bool,
    /// What it comes to is taken from an equal one before it, where there is one.
    #[serde(skip_serializing_if = "is_false")]
    pub recalls: bool,
    /// The outputs that it takes, by its author's word. `None`: those of all that it depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<TaskId>>,
    /// What it need not wait for by name, though it depends on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub free_of: Vec<TaskId>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How an attempt was made: what its time says of the step depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "AttemptManner")]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    #[default]
    Alone,
    /// In the hand that ended the task before it: nobody dispatched it.
    Followed,
    /// Its output was taken from an equal step's: nothing was done.
    Recalled,
    /// A second try beside it was first: it would have taken longer.
    Overtaken,
}

impl Manner {
    pub const ALL: [Self; 4] = [Self::Alone, Self::Followed, Self::Recalled, Self::Overtaken];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Followed => "followed",
            Self::Recalled => "recalled",
            Self::Overtaken => "overtaken",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manner| manner.as_str() == text)
    }
}

/// How far the optimizer may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizationLevel {
    #[default]
    Basic,
    Advanced,
    Aggressive,
}

/// Who takes goals apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decomposer {
    /// Rules; then your own service, where there is one; then a model, where there is one.
    #[default]
    Hybrid,
    /// Rules alone.
    Rules,
    /// A model.
    Model,
    /// Your own service, at `workflow.decomposer.subject`.
    Remote,
}

impl Decomposer {
    pub const ALL: [Self; 4] = [Self::Hybrid, Self::Rules, Self::Model, Self::Remote];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Rules => "rules",
            Self::Model => "model",
            Self::Remote => "remote",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == text)
    }
}

/// What kind of goal it is: each has bounds of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GoalType {
    #[default]
    Simple,
    Microservices,
    DataPipeline,
    MlPipeline,
}

impl GoalType {
    pub const ALL: [Self; 4] = [Self::Simple, Self::Microservices, Self::DataPipeline, Self::MlPipeline];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Microservices => "microservices",
            Self::DataPipeline => "data_pipeline",
            Self::MlPipeline => "ml_pipeline",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The terms of one workflow, with the source's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    pub optimization_level: OptimizationLevel,
    /// Events are kept, and can be read.
    pub monitoring: bool,
    /// Events are published as they happen. Needs `monitoring`.
    pub real_time_notifications: bool,
    /// What must come before what is as it was given.
    pub preserve_structure: bool,
    /// Tasks of this workflow that run at a time, on all workers together.
    pub max_parallel: u32,
    /// From the start to the end; pauses are left out.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retry_attempts: u32,
    /// The longest pause before the second attempt; it doubles with each further one, and any part of it may be taken.
    pub retry_delay: Duration,
    /// For one attempt at one task.
    pub task_timeout: Duration,
    /// Each point counts as a minute that the workflow has waited longer than it has.
    pub priority: i32,
}

impl RunOptions {
    /// Thirty days: no time is longer, in milliseconds.
    pub const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
    pub const MOST_PARALLEL: u64 = 10_000;
    pub const MOST_RETRIES: u64 = 20;
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            optimization_level: OptimizationLevel::Basic,
            monitoring: true,
            real_time_notifications: false,
            preserve_structure: true,
            max_parallel: 10,
            timeout: Duration::from_secs(300),
            retry_attempts: 3,
            retry_delay: Duration::from_secs(1),
            task_timeout: Duration::from_secs(30),
            priority: 0,
        }
    }
}

/// Why an attempt at a task came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No answer within the task's time.
    TimedOut,
    /// Nobody was there to do it, or had no time.
    Unavailable,
    /// Whoever did it failed.
    Failed,
    /// It was refused: what was asked is wrong, and will be.
    Refused,
    /// What came back is no output: no JSON, or too large.
    BadOutput,
    /// Rules, cache and model could not do it. Models have been asked as often as makes sense.
    Undone,
    /// The step broke this worker's code.
    Panicked,
    /// Each worker that was at it died.
    WorkerLost,
}

impl FailureKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::BadOutput => "bad_output",
            Self::Undone => "undone",
            Self::Panicked => "panicked",
            Self::WorkerLost => "worker_lost",
        }
    }

    /// Whether another attempt may fare better.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::TimedOut | Self::Unavailable | Self::Failed | Self::Panicked)
    }
}
