//! Workflows: what is started, and how they stand. `order` reads what comes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fields::{ID, PLAIN, SAYS};
use super::{Code, Refusal};
use crate::domain::record::hex;
use crate::domain::workflow::{
    Decomposer, Event, GoalType, Graph, Manner, Node, OptimizationLevel, RunOptions, State, Step, TaskState,
};
use crate::domain::{Complexity, TaskId, Timestamp};
use crate::workflow::{self, Attempt, Seen, Summary};

/// What is to be done: a goal, several, or a graph.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowStart {
    /// To be taken apart into tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYS))]
    pub goal: Option<String>,
    /// Who does which of the goal's tasks, by their ids, in the place of whom its graph names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<BTreeMap<String, WorkflowStep>>,
    /// A workflow for each, side by side, or in turn with `options.parallel` false; one that can't be started, or fails, keeps no
    /// other from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MOST_GOALS))]
    pub goals: Option<Vec<WorkflowGoal>>,
    /// The tasks themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<WorkflowGraph>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<WorkflowOptions>,
    /// The sender's own id: the same again is the same workflow. Not with `goals`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub id: Option<String>,
}

/// One of several goals: its words, or these with steps and options of its own.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum WorkflowGoal {
    Words(#[schemars(regex(pattern = SAYS))] String),
    Own(OwnGoal),
}

/// A goal with steps and options of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OwnGoal {
    #[schemars(regex(pattern = SAYS))]
    pub goal: String,
    /// Who does which of its tasks, by their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<BTreeMap<String, WorkflowStep>>,
    /// Where they differ from those of all. `parallel` is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<WorkflowOptions>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowGraph {
    #[schemars(length(min = 1))]
    pub tasks: Vec<WorkflowTask>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowTask {
    /// Unique in the graph.
    #[schemars(regex(pattern = TASK_ID))]
    pub id: String,
    #[schemars(regex(pattern = SAYS))]
    pub description: String,
    /// What must be completed before. Their outputs are this task's inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The group that it belongs to: another task of the graph, which ends when all in it have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Who does it. Default: the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<WorkflowStep>,
    /// For one attempt, in milliseconds, where it is not `options.task_timeout_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub timeout_ms: Option<u64>,
    /// Attempts after the first, where it is not `options.retry_attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MOST_RETRIES))]
    pub retry_attempts: Option<u32>,
    /// It changes nothing, and its output follows from its inputs alone: what an equal one came to may be taken for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pure: bool,
    /// The outputs that it takes, of what it depends on. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
}

/// Who does a task.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkflowStep {
    /// Rules, then the cache, then a model.
    Agent {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        complexity: Option<Complexity>,
    },
    /// One question for a model.
    Model {
        /// Default: the task's description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// One model of `llm.route`, as `provider/model`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature: Option<f64>,
        /// A JSON Schema that the answer must fit, as for `llm.query`: at most 16 KiB, without recursion. What fits it is `json` of
        /// the output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Map<String, Value>>,
    },
    /// A NATS request to a service of yours. `workflow.step_subjects` of the configuration must allow the subject.
    Nats { subject: String },
    /// A closure that is built into the worker.
    Native { name: String },
}

/// A goal that is only to be taken apart.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowDecompose {
    #[schemars(regex(pattern = SAYS))]
    pub goal: String,
    /// `decomposer`, `type` and `max_depth` count here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<WorkflowOptions>,
}

/// What a goal was taken apart into: a graph, as `workflow.start` takes one. Nothing was started.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowDecomposed {
    /// The same for the same tasks, and for workflows of them: `shape` in `workflow.show`.
    pub id: String,
    pub goal: String,
    pub tasks: Vec<WorkflowTask>,
    pub decomposed_at_ms: i64,
}

/// The terms of a workflow; what is left out is as the worker is configured (`workflow.execution`, `workflow.optimization`,
/// `workflow.notifications`), or else as here.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowOptions {
    /// What records of earlier runs may change: `basic` (the default), `advanced`, or `aggressive`, which needs a hundred of
    /// them and `preserve_structure` false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimization_level: Option<OptimizationLevel>,
    /// Events are kept. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<bool>,
    /// Events are published as they happen. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_time_notifications: Option<bool>,
    /// What must come before what is as it was given. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_structure: Option<bool>,
    /// Tasks that run at a time. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_PARALLEL))]
    pub max_parallel: Option<u32>,
    /// For all of it, pauses left out, in milliseconds. Default: 300000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub timeout_ms: Option<u64>,
    /// Attempts at a task after the first. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MOST_RETRIES))]
    pub retry_attempts: Option<u32>,
    /// The longest pause before the second attempt, in milliseconds; it doubles with each further one. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = LONGEST_MS))]
    pub retry_delay_ms: Option<u64>,
    /// For one attempt at a task, in milliseconds. Default: 30000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub task_timeout_ms: Option<u64>,
    /// Each point counts as a minute that the workflow has waited longer than it has. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Of several goals: whether they run side by side (the default), or each begins when the one before it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<bool>,
    /// Who takes a goal apart. Default: `workflow.decomposer.kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decomposer: Option<Decomposer>,
    /// What kind of goal it is: how deep its groups may go, and how long taking it apart may take. Default: as a rule says that
    /// fits it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<GoalType>,
    /// Levels of groups that a goal's graph may have. Default: those of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_DEPTH))]
    pub max_depth: Option<u32>,
}

const EVENT: &str = r"^[A-Za-z0-9_.-]{1,64}$";
/// In characters.
pub(super) const MOST_MESSAGE: usize = 2_000;
pub(super) const MOST_PAYLOAD: usize = 64 << 10;
const TASK_ID: &str = r"^[A-Za-z0-9_.-]{1,128}$";
pub(super) const MOST_GOALS: usize = 100;
pub(super) const MOST_RETRIES: u64 = RunOptions::MOST_RETRIES;
pub(super) const MOST_PARALLEL: u64 = RunOptions::MOST_PARALLEL;
pub(super) const MOST_DEPTH: u64 = 100;
pub(super) const LONGEST_MS: u64 = RunOptions::LONGEST_MS;
pub(super) const MOST_LISTED: u32 = 1_000;

/// What was started: `workflow_id`, or for `goals` the list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowStarted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<GoalStarted>>,
}

/// One of several goals.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GoalStarted {
    pub goal: String,
    pub workflow_id: Option<String>,
    /// Why it was not started.
    pub error: Option<String>,
}

/// One workflow.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowRef {
    pub workflow_id: String,
}

/// What a command came to.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowCommanded {
    pub workflow_id: String,
    pub status: State,
}

/// How a workflow stands.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowSummary {
    pub workflow_id: String,
    pub status: State,
    pub goal: Option<String>,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// Tasks, groups among them.
    pub tasks: u64,
    pub completed: u64,
    pub failed: u64,
    pub created_ms: i64,
    pub ended_ms: Option<i64>,
}

/// How a workflow stands, with its tasks.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowStatus {
    pub workflow_id: String,
    pub status: State,
    pub goal: Option<String>,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    pub created_ms: i64,
    pub ended_ms: Option<i64>,
    /// By their ids.
    pub tasks: BTreeMap<String, TaskStatus>,
    /// True where the outputs would be too much for a message: ask for the tasks one by one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outputs_left_out: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskStatus {
    pub status: TaskState,
    /// Attempts that have ended.
    pub attempts: u32,
    /// What it came to, as its step gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub output: Option<Box<RawValue>>,
    /// Of the last attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<i64>,
    /// The worker that has or had it.
    pub worker: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskError {
    /// `timed_out`, `unavailable`, `failed`, `refused`, `bad_output`, `undone`, `panicked`, `worker_lost`.
    pub kind: String,
    pub message: String,
}

/// Which workflows, and what of them.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowQuery {
    pub workflow_id: String,
    /// Only these tasks. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// Whether outputs are shown. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<bool>,
}

/// Which workflows to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<State>,
    /// Those that were started before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_LISTED))]
    pub limit: Option<u32>,
}

/// The newest first.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowList {
    pub workflows: Vec<WorkflowSummary>,
}

/// A workflow's graph, and what happened to each attempt.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowDetail {
    pub workflow_id: String,
    pub status: State,
    pub goal: Option<String>,
    /// The same for workflows whose tasks are all the same.
    pub shape: String,
    /// In the order in which they were given.
    pub tasks: Vec<TaskDetail>,
    /// In the order of their beginnings.
    pub attempts: Vec<AttemptDetail>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskDetail {
    pub id: String,
    pub description: String,
    pub depends_on: Vec<String>,
    pub parent: Option<String>,
    /// `agent`, `model`, `nats`, `native`, or `group`.
    pub kind: String,
    pub status: TaskState,
    pub attempts: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AttemptDetail {
    pub task: String,
    pub worker: String,
    /// Since when it was ready.
    pub queued_ms: i64,
    pub started_ms: i64,
    pub ended_ms: i64,
    /// `completed`, `retried`, `failed`, or `lost` with its worker.
    pub outcome: String,
    pub failure: Option<String>,
    pub input_bytes: Option<u64>,
    pub output_bytes: Option<u64>,
    /// `alone`; `followed`: in the hand that ended the task before it; `recalled`: taken from an equal task; `overtaken`: by a
    /// second try beside it.
    #[serde(default)]
    pub manner: Manner,
}

/// An event of one's own.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowNotify {
    pub workflow_id: String,
    /// What it is called: no name that begins with `decomposition_`, `optimization_`, `execution_` or `task_`.
    #[schemars(regex(pattern = EVENT))]
    pub event: String,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN), length(max = MOST_MESSAGE))]
    pub message: Option<String>,
    /// For programs: anything, at most 64 KiB as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// Where it stands among the workflow's events.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowNotified {
    pub workflow_id: String,
    pub number: u64,
}

/// Which events.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EventQuery {
    /// Without it: the newest events of the tenant's 200 newest workflows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    /// Those with a higher number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_LISTED))]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventList {
    pub events: Vec<WorkflowEvent>,
}

/// Something that happened in a workflow.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowEvent {
    pub workflow_id: String,
    /// Counted from 1 in each workflow, without a gap.
    pub number: u64,
    pub at_ms: i64,
    /// `execution_started`, `task_completed`, …; or a name of one's own.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What an event of one's own brings along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub payload: Option<Box<RawValue>>,
}

impl From<Event> for WorkflowEvent {
    fn from(event: Event) -> Self {
        Self {
            workflow_id: event.workflow.to_string(),
            number: event.number,
            at_ms: event.at.0,
            kind: event.kind.as_str().to_owned(),
            task: event.task.map(|id| id.to_string()),
            attempt: event.attempt,
            message: event.message,
            payload: event.payload.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}

impl From<&Summary> for WorkflowSummary {
    fn from(of: &Summary) -> Self {
        Self {
            workflow_id: of.id.to_string(),
            status: of.state,
            goal: of.goal.clone(),
            reason: of.reason.clone(),
            tasks: of.tasks,
            completed: of.completed,
            failed: of.failed_tasks,
            created_ms: of.created.0,
            ended_ms: of.ended.map(|at| at.0),
        }
    }
}

impl WorkflowStatus {
    /// Of all tasks, or of some; `outputs` by position.
    pub(crate) fn new(seen: &Seen, only: Option<&[u32]>, outputs: Vec<(u32, Arc<str>)>) -> Self {
        let mut outputs: BTreeMap<u32, Arc<str>> = outputs.into_iter().collect();
        let wanted = |position: u32| only.is_none_or(|only| only.contains(&position));
        let mut tasks = BTreeMap::new();
        for step in seen.steps.iter().filter(|step| wanted(step.position)) {
            let Some(node) = seen.graph.node(step.position) else { continue };
            let output = outputs.remove(&step.position).and_then(|json| RawValue::from_string(json.to_string()).ok());
            let error = step.failure.clone().map(|kind| {
                let message = step.message.clone().unwrap_or_default();
                TaskError { kind, message }
            });
            let status = TaskStatus {
                status: step.state,
                attempts: step.attempts,
                output,
                error,
                started_ms: step.started.map(|at| at.0),
                ended_ms: step.ended.map(|at| at.0),
                due_ms: step.due.map(|at| at.0),
                worker: step.worker.clone(),
            };
            tasks.insert(node.task.id.to_string(), status);
        }
        let of = &seen.listed;
        Self {
            workflow_id: of.id.to_string(),
            status: of.state,
            goal: of.goal.clone(),
            reason: of.reason.clone(),
            created_ms: of.created.0,
            ended_ms: of.ended.map(|at| at.0),
            tasks,
            outputs_left_out: false,
        }
    }

    pub(crate) fn shorten(&mut self) {
        self.outputs_left_out = true;
        self.tasks.values_mut().for_each(|task| task.output = None);
    }
}

impl WorkflowDetail {
    pub(crate) fn new(seen: &Seen, attempts: Vec<Attempt>) -> Self {
        let name = |position: u32| seen.graph.node(position).map(|n| n.task.id.to_string()).unwrap_or_default();
        let tasks = seen.graph.nodes().iter().zip(&seen.steps).map(|(node, step)| TaskDetail {
            id: node.task.id.to_string(),
            description: node.task.description.clone(),
            depends_on: node.task.depends_on.iter().map(TaskId::to_string).collect(),
            parent: node.task.parent.as_ref().map(TaskId::to_string),
            kind: if seen.graph.is_group(step.position) { "group" } else { node.step.kind() }.to_owned(),
            status: step.state,
            attempts: step.attempts,
        });
        let attempts = attempts.into_iter().map(|attempt| AttemptDetail {
            task: name(attempt.position),
            worker: attempt.worker,
            queued_ms: attempt.queued.0,
            started_ms: attempt.started.0,
            ended_ms: attempt.ended.0,
            outcome: attempt.outcome,
            failure: attempt.failure,
            input_bytes: attempt.input_bytes,
            output_bytes: attempt.output_bytes,
            manner: attempt.manner,
        });
        Self {
            workflow_id: seen.listed.id.to_string(),
            status: seen.listed.state,
            goal: seen.listed.goal.clone(),
            shape: hex(&seen.listed.shape),
            tasks: tasks.collect(),
            attempts: attempts.collect(),
        }
    }
}

impl WorkflowDecomposed {
    pub(crate) fn new(goal: &str, graph: &Graph, at: Timestamp) -> Self {
        Self {
            id: hex(&graph.shape()),
            goal: goal.to_owned(),
            tasks: graph.nodes().iter().enumerate().map(|(i, node)| task(node, graph.is_group(i as u32))).collect(),
            decomposed_at_ms: at.0,
        }
    }
}

/// As it may be sent to be started.
fn task(node: &Node, is_group: bool) -> WorkflowTask {
    let step = match &node.step {
        Step::Agent { language, complexity } => {
            WorkflowStep::Agent { language: language.as_ref().map(ToString::to_string), complexity: Some(*complexity) }
        }
        Step::Model(of) => WorkflowStep::Model {
            prompt: of.prompt.clone(),
            system: of.system.clone(),
            model: of.model.clone(),
            max_tokens: of.max_tokens,
            temperature: of.temperature.map(f64::from),
            schema: of.schema.as_deref().and_then(|json| serde_json::from_str(json).ok()),
        },
        Step::Nats { subject } => WorkflowStep::Nats { subject: subject.clone() },
        Step::Native { name } => WorkflowStep::Native { name: name.clone() },
    };
    WorkflowTask {
        id: node.task.id.to_string(),
        description: node.task.description.clone(),
        depends_on: node.task.depends_on.iter().map(TaskId::to_string).collect(),
        parent: node.task.parent.as_ref().map(TaskId::to_string),
        step: (!is_group).then_some(step),
        timeout_ms: node.policy.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        retry_attempts: node.policy.retry_attempts,
        pure: node.policy.pure,
        inputs: node.policy.inputs.as_ref().map(|ids| ids.iter().map(TaskId::to_string).collect()),
    }
}

impl From<workflow::Error> for Refusal {
    fn from(error: workflow::Error) -> Self {
        use workflow::Error as E;
        let message = error.to_string();
        match &error {
            E::Unknown { .. } => Self::at(Code::NotFound, "workflow_id", message),
            E::NotAllowed(_) | E::NotMonitored => Self::at(Code::NotAllowed, "workflow_id", message),
            E::IdConflict { .. } => Self::at(Code::IdConflict, "id", message),
            E::InvalidGoal { .. } => Self::at(Code::InvalidGoal, "goal", message),
            E::NotOptimized(_) => Self::at(Code::NotAllowed, "optimization_level", message),
            E::NoNative { task, .. } => {
                Self::at(Code::InvalidField, "graph.tasks", format!("the task '{task}': {message}"))
            }
            E::Unavailable(_) => {
                tracing::warn!(error = %super::Causes(&error), "a workflow could not be served");
                Self::new(Code::Unavailable, message)
            }
            E::NoDecomposer { .. } => Self::at(Code::Unavailable, "goal", message),
            _ => Self::new(Code::Unavailable, message),
        }
    }
}
