//! Workflows: what is started, and how they stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::{Fields, ID, SAYS, item_object, not_blank, quoted, text, wrong_type};
use super::model::{id, number, whole};
use super::{Code, Refusal};
use crate::domain::workflow::{
    Event, Graph, GraphError, ModelStep, Node, OptimizationLevel, Policy, RunOptions, State, Step, TaskState,
    WorkflowId,
};
use crate::domain::{Complexity, DagError, Language, Limits, RequestId, Task, TaskId};
use crate::workflow::{self, Attempt, ListFilter, Seen, Summary};

/// What is to be done: a goal, several, or a graph.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowStart {
    /// To be taken apart into tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYS))]
    pub goal: Option<String>,
    /// A workflow for each, side by side; one that can't be started keeps no other from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MOST_GOALS))]
    pub goals: Option<Vec<String>>,
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
    },
    /// A NATS request to a service of yours. `workflow.step_subjects` of the configuration must allow the subject.
    Nats { subject: String },
    /// A closure that is built into the worker.
    Native { name: String },
}

/// The terms of a workflow; what is left out is as here.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkflowOptions {
    /// `basic`, the default. The others are refused as long as there is no optimizer.
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
}

const TASK_ID: &str = r"^[A-Za-z0-9_.-]{1,128}$";
const MOST_GOALS: usize = 100;
const MOST_RETRIES: u64 = 20;
const MOST_PARALLEL: u64 = 10_000;
/// Thirty days.
const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
const MOST_LISTED: u32 = 1_000;

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
    /// `execution_started`, `task_completed`, …
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
        });
        Self {
            workflow_id: seen.listed.id.to_string(),
            status: seen.listed.state,
            goal: seen.listed.goal.clone(),
            shape: seen.listed.shape.iter().map(|byte| format!("{byte:02x}")).collect(),
            tasks: tasks.collect(),
            attempts: attempts.collect(),
        }
    }
}

/// What is to be started, checked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub what: What,
    pub options: RunOptions,
    pub id: Option<RequestId>,
}

#[derive(Debug)]
pub(crate) enum What {
    Goal(String),
    Goals(Vec<String>),
    Graph(Box<Graph>),
}

/// Within which bounds.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub limits: Limits,
    pub step_subjects: Vec<String>,
    pub max_text: usize,
}

pub(crate) fn workflow_start(body: &[u8], allowed: &Allowed) -> Result<Asked, Refusal> {
    let hint = r#"{"goal": "..."} or {"graph": {"tasks": [{"id": "a", "description": "..."}]}}"#;
    let mut fields = Fields::parse(body, hint)?;
    let goal = match fields.text("goal")? {
        Some(goal) => Some(bounded(goal, "goal", allowed)?),
        None => None,
    };
    let goals = fields.list("goals")?;
    let graph = fields.object("graph")?;
    let options = options(&mut fields)?;
    let id = id(&mut fields, "id")?;
    fields.nothing_else()?;
    let given = [goal.is_some(), !goals.is_empty(), graph.is_some()].into_iter().filter(|given| *given).count();
    if given > 1 {
        let message = "only one of 'goal', 'goals' and 'graph' can be given";
        return Err(Refusal::at(Code::InvalidField, if graph.is_some() { "graph" } else { "goals" }, message));
    }
    let what = match (goal, graph) {
        (Some(goal), _) => What::Goal(goal),
        (None, Some(graph)) => What::Graph(Box::new(read_graph(graph, allowed)?)),
        (None, None) if goals.is_empty() => {
            let message = "the field 'goal' is missing; send a 'goal', several 'goals', or a 'graph'";
            return Err(Refusal::at(Code::MissingField, "goal", message));
        }
        (None, None) if goals.len() > MOST_GOALS => {
            let message = format!("'goals' has {} goals; at most {MOST_GOALS} are allowed", goals.len());
            return Err(Refusal::at(Code::TooLarge, "goals", message));
        }
        (None, None) if id.is_some() => {
            return Err(Refusal::at(Code::InvalidField, "id", "'id' names one workflow; 'goals' are several"));
        }
        (None, None) => {
            let read = |(path, item): (String, Value)| bounded(text(item, &path)?, &path, allowed);
            What::Goals(goals.into_iter().map(read).collect::<Result<_, _>>()?)
        }
    };
    Ok(Asked { what, options, id })
}

fn bounded(text: String, path: &str, allowed: &Allowed) -> Result<String, Refusal> {
    not_blank(&text, path)?;
    if text.len() > allowed.max_text {
        let (found, most) = (text.len(), allowed.max_text);
        let message = format!("'{path}' has {found} bytes; at most {most} are allowed (nats.max_task_bytes)");
        return Err(Refusal::at(Code::TooLarge, path, message));
    }
    Ok(text)
}

fn options(fields: &mut Fields) -> Result<RunOptions, Refusal> {
    let mut found = RunOptions::default();
    let Some(mut fields) = fields.object("options")? else { return Ok(found) };
    if let Some(value) = fields.take("optimization_level") {
        let path = fields.path("optimization_level");
        let level = serde_json::from_value(value).map_err(|_| {
            Refusal::at(Code::InvalidField, &path, format!("'{path}' must be basic, advanced or aggressive"))
        })?;
        if level != OptimizationLevel::Basic {
            let message = format!("'{path}' can only be basic: nothing of the others is there yet");
            return Err(Refusal::at(Code::InvalidField, path, message));
        }
        found.optimization_level = level;
    }
    for (name, place) in [
        ("monitoring", &mut found.monitoring),
        ("real_time_notifications", &mut found.real_time_notifications),
        ("preserve_structure", &mut found.preserve_structure),
    ] {
        if let Some(value) = fields.take(name) {
            *place = value.as_bool().ok_or_else(|| wrong_type(&fields.path(name), "true or false", &value))?;
        }
    }
    if found.real_time_notifications && !found.monitoring {
        let path = fields.path("real_time_notifications");
        let message = format!("'{path}' publishes what 'monitoring' keeps: leave that on");
        return Err(Refusal::at(Code::InvalidField, path, message));
    }
    if let Some(n) = whole(&mut fields, "max_parallel", 1, MOST_PARALLEL)? {
        found.max_parallel = n as u32;
    }
    if let Some(n) = whole(&mut fields, "retry_attempts", 0, MOST_RETRIES)? {
        found.retry_attempts = n as u32;
    }
    for (name, least, place) in [
        ("timeout_ms", 1, &mut found.timeout),
        ("retry_delay_ms", 0, &mut found.retry_delay),
        ("task_timeout_ms", 1, &mut found.task_timeout),
    ] {
        if let Some(ms) = whole(&mut fields, name, least, LONGEST_MS)? {
            *place = Duration::from_millis(ms);
        }
    }
    if let Some(value) = fields.take("priority") {
        let path = fields.path("priority");
        let read = value.as_i64().filter(|n| (-1000..=1000).contains(n));
        let refusal =
            || Refusal::at(Code::InvalidField, &path, format!("'{path}' must be a whole number from -1000 to 1000"));
        found.priority = read.ok_or_else(refusal)? as i32;
    }
    fields.nothing_else()?;
    Ok(found)
}

fn read_graph(mut graph: Fields, allowed: &Allowed) -> Result<Graph, Refusal> {
    let items = graph.list("tasks")?;
    graph.nothing_else()?;
    let (found, limit) = (items.len(), allowed.limits.tasks);
    if found > limit {
        let message = format!("'graph.tasks' has {found} tasks; at most {limit} are allowed (workflow.max_tasks)");
        return Err(Refusal::at(Code::TooLarge, "graph.tasks", message));
    }
    let mut nodes = Vec::with_capacity(found);
    for (path, item) in items {
        nodes.push(read_task(item_object(path, item)?, allowed)?);
    }
    let ids: Vec<TaskId> = nodes.iter().map(|node| node.task.id.clone()).collect();
    let needs: Vec<Vec<TaskId>> = nodes.iter().map(|node| node.task.depends_on.clone()).collect();
    Graph::new(nodes, &allowed.limits).map_err(|error| misshapen(&error, &ids, &needs))
}

fn read_task(mut task: Fields, allowed: &Allowed) -> Result<Node, Refusal> {
    let id = task_id(&mut task, "id")?.ok_or_else(|| missing(&task.path("id"), "a string"))?;
    let path = task.path("description");
    let description = bounded(task.needed_text("description")?, &path, allowed)?;
    let mut depends_on = vec![];
    for (path, item) in task.list("depends_on")? {
        let need = read_id(text(item, &path)?, &path)?;
        if need == id {
            let message = format!("'{path}': the task '{id}' can't wait for itself");
            return Err(Refusal::at(Code::InvalidField, path, message));
        }
        depends_on.push(need);
    }
    let parent = task_id(&mut task, "parent")?;
    let step = match task.object("step")? {
        Some(step) => read_step(step, allowed)?,
        None => Step::default(),
    };
    let policy = Policy {
        timeout: whole(&mut task, "timeout_ms", 1, LONGEST_MS)?.map(Duration::from_millis),
        retry_attempts: whole(&mut task, "retry_attempts", 0, MOST_RETRIES)?.map(|n| n as u32),
    };
    task.nothing_else()?;
    Ok(Node { task: Task { id, description, parent, depends_on }, step, policy })
}

fn missing(path: &str, wanted: &str) -> Refusal {
    Refusal::at(Code::MissingField, path, format!("the field '{path}' is missing; it must be {wanted}"))
}

fn task_id(fields: &mut Fields, name: &str) -> Result<Option<TaskId>, Refusal> {
    let path = fields.path(name);
    fields.text(name)?.map(|id| read_id(id, &path)).transpose()
}

fn read_id(id: String, path: &str) -> Result<TaskId, Refusal> {
    let sound = (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !sound {
        let message = format!("'{path}' must be 1 to 128 of the characters A-Z a-z 0-9 _ . and -");
        return Err(Refusal::at(Code::InvalidField, path, message));
    }
    Ok(TaskId::new(&id))
}

fn read_step(mut step: Fields, allowed: &Allowed) -> Result<Step, Refusal> {
    let path = step.path("kind");
    let kind = step.needed_text("kind")?;
    let read = match kind.as_str() {
        "agent" => {
            let language = step.text("language")?;
            let language = match language {
                Some(name) if name.len() > 64 => {
                    let path = step.path("language");
                    return Err(Refusal::at(Code::InvalidField, &path, format!("'{path}' is longer than 64 bytes")));
                }
                Some(name) => {
                    Some(Language::named(&name).or_else(|| Language::nearest(&name)).unwrap_or_else(|| name.into()))
                }
                None => None,
            };
            let path = step.path("complexity");
            let complexity =
                step.text("complexity")?.map(|text| text.parse::<Complexity>()).transpose().map_err(|()| {
                    Refusal::at(Code::InvalidField, &path, format!("'{path}' must be simple, medium or complex"))
                })?;
            Step::Agent { language, complexity: complexity.unwrap_or_default() }
        }
        "model" => {
            let long = |text: Option<String>, path: String| text.map(|t| bounded(t, &path, allowed)).transpose();
            let prompt = long(step.text("prompt")?, step.path("prompt"))?;
            let system = long(step.text("system")?, step.path("system"))?;
            let model = step.text("model")?;
            let max_tokens = whole(&mut step, "max_tokens", 1, u32::MAX.into())?.map(|n| n as u32);
            let temperature = number(&mut step, "temperature", 0.0..=2.0, "a number from 0 to 2")?.map(|t| t as f32);
            Step::Model(ModelStep { prompt, system, model, max_tokens, temperature })
        }
        "nats" => {
            let path = step.path("subject");
            let subject = step.needed_text("subject")?;
            workflow::allowed(&subject, &allowed.step_subjects).map_err(|why| {
                Refusal::at(Code::InvalidField, &path, format!("'{path}': {} {why}", quoted(&subject)))
            })?;
            Step::Nats { subject }
        }
        "native" => {
            let path = step.path("name");
            let name = read_id(step.needed_text("name")?, &path)?.to_string();
            Step::Native { name }
        }
        other => {
            let message = format!("'{path}' must be agent, model, nats or native, not {}", quoted(other));
            return Err(Refusal::at(Code::InvalidField, path, message));
        }
    };
    step.nothing_else()?;
    Ok(read)
}

/// Says where in the body it is that a graph is none.
fn misshapen(error: &GraphError, ids: &[TaskId], needs: &[Vec<TaskId>]) -> Refusal {
    let at = |id: &TaskId| ids.iter().position(|other| other == id).unwrap_or(0);
    let (code, field) = match error {
        GraphError::TooManyDependencies { .. } => (Code::TooLarge, "graph.tasks".to_owned()),
        GraphError::Dag(error) => match error {
            DagError::Empty => (Code::MissingField, "graph.tasks".to_owned()),
            DagError::TooLarge { .. } => (Code::TooLarge, "graph.tasks".to_owned()),
            DagError::TooDeep { task, .. } => (Code::InvalidField, format!("graph.tasks[{}].parent", at(task))),
            DagError::Duplicate(id) => {
                let last = ids.iter().rposition(|other| other == id).unwrap_or(0);
                (Code::InvalidField, format!("graph.tasks[{last}].id"))
            }
            DagError::UnknownDependency { task, missing } => {
                let task = at(task);
                let need = needs.get(task).and_then(|needs| needs.iter().position(|need| need == missing)).unwrap_or(0);
                (Code::InvalidField, format!("graph.tasks[{task}].depends_on[{need}]"))
            }
            DagError::UnknownParent { task, .. } => (Code::InvalidField, format!("graph.tasks[{}].parent", at(task))),
            DagError::Cycle(of) => {
                let first = of.first().map_or(0, at);
                (Code::InvalidField, format!("graph.tasks[{first}].depends_on"))
            }
        },
    };
    let words = error.to_string();
    // A cycle may go through every task.
    let message: String = words.chars().take(1_000).collect();
    let message = if message.len() < words.len() { format!("{message} …") } else { message };
    Refusal::at(code, field, message)
}

fn workflow_id(fields: &mut Fields, name: &str) -> Result<Option<WorkflowId>, Refusal> {
    let path = fields.path(name);
    let read = fields.text(name)?.map(|text| WorkflowId::parse(&text)).transpose();
    read.map_err(|_| {
        Refusal::at(Code::InvalidField, &path, format!("'{path}' is no id of a workflow, as workflow.start gives it"))
    })
}

pub(crate) fn workflow_ref(body: &[u8]) -> Result<WorkflowId, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "..."}"#)?;
    let id = workflow_id(&mut fields, "workflow_id")?.ok_or_else(|| missing("workflow_id", "a string"))?;
    fields.nothing_else()?;
    Ok(id)
}

/// Which workflow, which of its tasks, and whether with outputs.
pub(crate) type Wanted = (WorkflowId, Option<Vec<TaskId>>, bool);

pub(crate) fn workflow_query(body: &[u8]) -> Result<Wanted, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "..."}"#)?;
    let id = workflow_id(&mut fields, "workflow_id")?.ok_or_else(|| missing("workflow_id", "a string"))?;
    let only = fields.list("tasks")?;
    let read = |(path, item): (String, Value)| read_id(text(item, &path)?, &path);
    let only: Vec<TaskId> = only.into_iter().map(read).collect::<Result<_, _>>()?;
    let outputs = match fields.take("outputs") {
        None => true,
        Some(value) => value.as_bool().ok_or_else(|| wrong_type("outputs", "true or false", &value))?,
    };
    fields.nothing_else()?;
    Ok((id, (!only.is_empty()).then_some(only), outputs))
}

pub(crate) fn workflow_filter(body: &[u8]) -> Result<ListFilter, Refusal> {
    let mut fields = Fields::parse(body, r#"{"status"?: "running"}"#)?;
    let state = fields.text("status")?.map(|text| {
        State::named(&text).ok_or_else(|| {
            let message = "'status' must be running, paused, completed, failed or cancelled";
            Refusal::at(Code::InvalidField, "status", message)
        })
    });
    let before = workflow_id(&mut fields, "before")?;
    let limit = whole(&mut fields, "limit", 1, MOST_LISTED.into())?.unwrap_or(50) as u32;
    fields.nothing_else()?;
    Ok(ListFilter { state: state.transpose()?, before, limit })
}

pub(crate) fn event_query(body: &[u8]) -> Result<(Option<WorkflowId>, u64, u32), Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id"?: "...", "after"?: 0}"#)?;
    let id = workflow_id(&mut fields, "workflow_id")?;
    let after = whole(&mut fields, "after", 0, i64::MAX as u64)?.unwrap_or(0);
    let limit = whole(&mut fields, "limit", 1, MOST_LISTED.into())?.unwrap_or(100) as u32;
    fields.nothing_else()?;
    Ok((id, after, limit))
}

impl From<workflow::Error> for Refusal {
    fn from(error: workflow::Error) -> Self {
        use workflow::Error as E;
        let message = error.to_string();
        match &error {
            E::Unknown { .. } => Self::at(Code::NotFound, "workflow_id", message),
            E::NotAllowed(_) => Self::at(Code::NotAllowed, "workflow_id", message),
            E::IdConflict { .. } => Self::at(Code::IdConflict, "id", message),
            E::InvalidGoal { .. } => Self::at(Code::InvalidGoal, "goal", message),
            E::NoNative { task, .. } => {
                Self::at(Code::InvalidField, "graph.tasks", format!("the task '{task}': {message}"))
            }
            E::Unavailable(_) => {
                tracing::warn!(error = %super::Causes(&error), "a workflow could not be served");
                Self::new(Code::Unavailable, message)
            }
            _ => Self::new(Code::Unavailable, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        let limits = Limits { tasks: 5, depth: 2 };
        Allowed { limits, step_subjects: vec!["orders.*".to_owned()], max_text: 100 }
    }

    fn refused(body: &str) -> (String, String) {
        let refusal = workflow_start(body.as_bytes(), &allowed()).unwrap_err();
        (refusal.field.unwrap_or_default(), refusal.message)
    }

    #[test]
    fn a_graph_is_read_with_its_steps_and_terms() {
        let body = br#"{"graph": {"tasks": [{"id": "a", "description": "A"},
            {"id": "b", "description": "B", "depends_on": ["a"], "timeout_ms": 5, "retry_attempts": 0,
             "step": {"kind": "nats", "subject": "orders.reserve"}},
            {"id": "c", "description": "C", "step": {"kind": "model", "prompt": "why?", "temperature": 0.5}},
            {"id": "d", "description": "D", "step": {"kind": "agent", "language": "pyton"}}]},
            "options": {"max_parallel": 2, "timeout_ms": 1000, "retry_delay_ms": 0, "priority": -3}, "id": "x-1"}"#;
        let Asked { what: What::Graph(graph), options, id } = workflow_start(body, &allowed()).unwrap() else {
            panic!()
        };
        assert_eq!(graph.needs(1), [0]);
        let b = graph.node(1).unwrap();
        assert_eq!(b.step, Step::Nats { subject: "orders.reserve".to_owned() });
        assert_eq!(b.policy, Policy { timeout: Some(Duration::from_millis(5)), retry_attempts: Some(0) });
        assert!(matches!(&graph.node(3).unwrap().step, Step::Agent { language: Some(Language::Python), .. }));
        assert_eq!((options.max_parallel, options.priority, options.retry_delay), (2, -3, Duration::ZERO));
        assert_eq!((options.timeout, options.task_timeout), (Duration::from_secs(1), Duration::from_secs(30)));
        assert_eq!(id.unwrap().as_str(), "x-1");
    }

    #[test]
    fn each_wrong_field_of_a_graph_is_named_where_it_stands() {
        let task = |more: &str| format!(r#"{{"graph": {{"tasks": [{{"id": "a", "description": "A"}}, {more}]}}}}"#);
        for (more, field, says) in [
            (r#"{"id": "b", "description": "B", "depends_on": ["a", "x"]}"#, "graph.tasks[1].depends_on[1]", "'x'"),
            (r#"{"id": "b", "description": "B", "depends_on": ["b"]}"#, "graph.tasks[1].depends_on[0]", "itself"),
            (r#"{"id": "a", "description": "B"}"#, "graph.tasks[1].id", "two tasks"),
            (r#"{"id": "b c", "description": "B"}"#, "graph.tasks[1].id", "characters"),
            (r#"{"description": "B"}"#, "graph.tasks[1].id", "missing"),
            (r#"{"id": "b"}"#, "graph.tasks[1].description", "missing"),
            (r#"{"id": "b", "description": "B", "parent": "x"}"#, "graph.tasks[1].parent", "'x'"),
            (r#"{"id": "b", "description": "B", "dependson": []}"#, "graph.tasks[1].dependson", "not known"),
            (r#"{"id": "b", "description": "B", "step": {"kind": "magic"}}"#, "graph.tasks[1].step.kind", "magic"),
            (
                r#"{"id": "b", "description": "B", "step": {"kind": "nats", "subject": "$JS.API.INFO"}}"#,
                "graph.tasks[1].step.subject",
                "belongs to the server",
            ),
            (
                r#"{"id": "b", "description": "B", "step": {"kind": "nats", "subject": "other"}}"#,
                "graph.tasks[1].step.subject",
                "workflow.step_subjects",
            ),
            (r#"{"id": "b", "description": "B", "timeout_ms": 0}"#, "graph.tasks[1].timeout_ms", "from 1"),
            (r#"7"#, "graph.tasks[1]", "an object"),
        ] {
            let (found, message) = refused(&task(more));
            assert!(found == field && message.contains(says), "{more}: {found}: {message}");
        }
        let cycle = r#"{"id": "b", "description": "B", "depends_on": ["c"]}, {"id": "c", "description": "C", "depends_on": ["b"]}"#;
        let (field, message) = refused(&task(cycle));
        assert!(field.ends_with(".depends_on") && message.contains("b -> c") | message.contains("c -> b"), "{message}");
        let many: Vec<String> = (0..5).map(|i| format!(r#"{{"id": "t{i}", "description": "T"}}"#)).collect();
        assert!(refused(&task(&many.join(","))).1.contains("workflow.max_tasks"));
        assert_eq!(refused(r#"{"graph": {"tasks": []}}"#).0, "graph.tasks");
    }

    #[test]
    fn what_is_to_be_done_is_said_once_and_with_terms_that_can_be_kept() {
        for (body, field) in [
            (r#"{}"#, "goal"),
            (r#"{"goal": " "}"#, "goal"),
            (r#"{"goal": "x", "goals": ["y"]}"#, "goals"),
            (r#"{"goals": ["x", 7]}"#, "goals[1]"),
            (r#"{"goals": ["x"], "id": "a"}"#, "id"),
            (r#"{"goal": "x", "option": {}}"#, "option"),
            (r#"{"goal": "x", "options": {"max_parallel": 0}}"#, "options.max_parallel"),
            (r#"{"goal": "x", "options": {"priority": 1.5}}"#, "options.priority"),
            (r#"{"goal": "x", "options": {"optimization_level": "aggressive"}}"#, "options.optimization_level"),
            (
                r#"{"goal": "x", "options": {"monitoring": false, "real_time_notifications": true}}"#,
                "options.real_time_notifications",
            ),
        ] {
            assert_eq!(refused(body).0, field, "{body}");
        }
        assert_eq!(refused(&format!(r#"{{"goal": "{}"}}"#, "x".repeat(101))).0, "goal");
        assert_eq!(workflow_ref(br#"{"workflow_id": "x"}"#).unwrap_err().field.unwrap(), "workflow_id");
        assert_eq!(workflow_filter(br#"{"status": "done"}"#).unwrap_err().field.unwrap(), "status");
        assert_eq!(event_query(br#"{"after": -1}"#).unwrap_err().field.unwrap(), "after");
    }
}
