//! Reads what is to be started, and which workflows are meant. Every complaint names its field.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::fields::{Fields, item_object, not_blank, quoted, text, wrong_type};
use super::model::{bad_schema, build, id, number, whole};
use super::workflow::{
    LONGEST_MS, MOST_DEPTH, MOST_GOALS, MOST_LISTED, MOST_MESSAGE, MOST_PARALLEL, MOST_PAYLOAD, MOST_RETRIES,
};
use super::{Code, Refusal};
use crate::domain::workflow::{
    Decomposer, EventKind, GoalType, Graph, GraphError, ModelStep, Node, OptimizationLevel, Policy, RunOptions, State,
    Step, WorkflowId,
};
use crate::domain::{Complexity, DagError, Language, Limits, RequestId, Task, TaskId};
use crate::llm::Schema;
use crate::workflow::{self, Aim, ListFilter, Wish};

/// What is to be started, checked but for its [schemas](Self::schemas).
#[derive(Debug)]
pub(crate) struct Asked {
    pub what: What,
    pub id: Option<RequestId>,
}

#[derive(Debug)]
pub(crate) enum What {
    Goal(Aim),
    Goals { aims: Vec<Aim>, parallel: bool },
    Graph(Box<Graph>, RunOptions),
}

/// Schemas of model steps in one order that differ, at most: each is built, which takes its time.
const MOST_SCHEMAS: usize = 100;

impl Asked {
    /// The schemas of its steps, and where they stand: still to be [built](super::build).
    pub(crate) fn schemas(&self) -> Result<Vec<(String, Schema)>, Refusal> {
        match &self.what {
            What::Graph(graph, _) => {
                schemas(graph.nodes().iter().enumerate().map(|(i, node)| (in_graph(i), &node.step)))
            }
            What::Goal(aim) => schemas(aim.steps.iter().map(|(id, step)| (format!("steps.{id}"), step))),
            What::Goals { aims, .. } => {
                schemas(aims.iter().enumerate().flat_map(|(i, aim)| {
                    aim.steps.iter().map(move |(id, step)| (format!("goals[{i}].steps.{id}"), step))
                }))
            }
        }
    }
}

fn in_graph(position: usize) -> String {
    format!("graph.tasks[{position}].step")
}

fn schemas<'a>(steps: impl Iterator<Item = (String, &'a Step)>) -> Result<Vec<(String, Schema)>, Refusal> {
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for (path, step) in steps {
        if let Step::Model(ModelStep { schema: Some(json), .. }) = step {
            found.entry(json).or_insert_with(|| format!("{path}.schema"));
        }
    }
    if found.len() > MOST_SCHEMAS {
        let message = format!("its steps have {} different schemas; at most {MOST_SCHEMAS} are allowed", found.len());
        return Err(Refusal::at(Code::TooLarge, found.into_values().next().unwrap_or_default(), message));
    }
    let read = |(json, path): (&str, String)| match Schema::parse(json) {
        Ok(schema) => Ok((path, schema)),
        Err(error) => Err(bad_schema(&path, &error)),
    };
    found.into_iter().map(read).collect()
}

/// Within which bounds.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub limits: Limits,
    pub step_subjects: Vec<String>,
    pub max_text: usize,
    /// Of what is not said.
    pub defaults: RunOptions,
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
    let given = [goal.is_some(), !goals.is_empty(), graph.is_some()].into_iter().filter(|given| *given).count();
    if given > 1 {
        let message = "only one of 'goal', 'goals' and 'graph' can be given";
        return Err(Refusal::at(Code::InvalidField, if graph.is_some() { "graph" } else { "goals" }, message));
    }
    let terms = terms(&mut fields, &Terms { options: allowed.defaults.clone(), ..Terms::default() })?;
    let steps = steps(&mut fields, allowed)?;
    let id = id(&mut fields, "id")?;
    fields.nothing_else()?;
    let Terms { options, wish, parallel } = terms;
    let only = |field: &str, of: &str| Err(Refusal::at(Code::InvalidField, field, format!("'{field}' is for {of}")));
    if parallel.is_some() && goals.is_empty() {
        return only("options.parallel", "several 'goals'");
    }
    if !steps.is_empty() && goal.is_none() {
        return only("steps", "a 'goal'; each of several 'goals' has its own, and so has each task of a 'graph'");
    }
    if let (Some(name), Some(_)) = (wish_says(&wish), &graph) {
        return only(name, "goals; a graph is apart already");
    }
    let what = match (goal, graph) {
        (Some(goal), _) => What::Goal(Aim { goal, wish, steps, options }),
        (None, Some(graph)) => What::Graph(Box::new(read_graph(graph, allowed)?), options),
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
            let base = Terms { options, wish, parallel: None };
            let aims = goals.into_iter().map(|(path, item)| one_of_several(path, item, &base, allowed));
            What::Goals { aims: aims.collect::<Result<_, _>>()?, parallel: parallel.unwrap_or(true) }
        }
    };
    Ok(Asked { what, id })
}

/// A goal's words, or these with steps and options of its own.
fn one_of_several(path: String, item: Value, base: &Terms, allowed: &Allowed) -> Result<Aim, Refusal> {
    if !item.is_object() {
        let goal = bounded(text(item, &path)?, &path, allowed)?;
        return Ok(Aim { goal, wish: base.wish, steps: BTreeMap::new(), options: base.options.clone() });
    }
    let mut fields = item_object(path, item)?;
    let path = fields.path("goal");
    let goal = bounded(fields.needed_text("goal")?, &path, allowed)?;
    let (path, terms) = (fields.path("options.parallel"), terms(&mut fields, base)?);
    if terms.parallel.is_some() {
        return Err(Refusal::at(Code::InvalidField, &path, format!("'{path}' is for all of the goals")));
    }
    let steps = steps(&mut fields, allowed)?;
    fields.nothing_else()?;
    Ok(Aim { goal, wish: terms.wish, steps, options: terms.options })
}

/// Steps by the ids of tasks.
fn steps(fields: &mut Fields, allowed: &Allowed) -> Result<BTreeMap<TaskId, Step>, Refusal> {
    let path = fields.path("steps");
    let Some(named) = fields.object("steps")? else { return Ok(BTreeMap::new()) };
    let rest = named.rest();
    if rest.len() > allowed.limits.tasks {
        let message = format!("'{path}' has {} steps; a graph has at most {} tasks", rest.len(), allowed.limits.tasks);
        return Err(Refusal::at(Code::TooLarge, path, message));
    }
    let read = |(id, step): (String, Value)| {
        let id = read_id(id, &path)?;
        let step = read_step(item_object(format!("{path}.{id}"), step)?, allowed)?;
        Ok((id, step))
    };
    rest.into_iter().map(read).collect()
}

/// A goal that is only to be taken apart.
pub(crate) fn workflow_decompose(body: &[u8], allowed: &Allowed) -> Result<Aim, Refusal> {
    let mut fields = Fields::parse(body, r#"{"goal": "..."}"#)?;
    let goal = bounded(fields.needed_text("goal")?, "goal", allowed)?;
    let Terms { options, wish, parallel } =
        terms(&mut fields, &Terms { options: allowed.defaults.clone(), ..Terms::default() })?;
    if parallel.is_some() {
        let message = "'options.parallel' is for several 'goals'";
        return Err(Refusal::at(Code::InvalidField, "options.parallel", message));
    }
    fields.nothing_else()?;
    Ok(Aim { goal, wish, steps: BTreeMap::new(), options })
}

/// The first field that is about taking goals apart.
fn wish_says(wish: &Wish) -> Option<&'static str> {
    let Wish { decomposer, kind, max_depth } = wish;
    [
        (decomposer.is_some(), "options.decomposer"),
        (kind.is_some(), "options.type"),
        (max_depth.is_some(), "options.max_depth"),
    ]
    .into_iter()
    .find_map(|(says, name)| says.then_some(name))
}

/// The graph that a decomposer answers: the same as in [`workflow_start`], its schemas built. Not for an asynchronous thread.
pub(crate) fn answered_graph(body: &[u8], allowed: &Allowed) -> Result<Graph, Refusal> {
    let fields = Fields::parse(body, r#"{"tasks": [{"id": "a", "description": "..."}]}"#)?;
    let graph = read_graph(fields.within("graph"), allowed)?;
    build(&schemas(graph.nodes().iter().enumerate().map(|(i, node)| (in_graph(i), &node.step)))?)?;
    Ok(graph)
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

pub(super) fn optimization_level(fields: &mut Fields) -> Result<Option<OptimizationLevel>, Refusal> {
    let path = fields.path("optimization_level");
    let read = fields.take("optimization_level").map(serde_json::from_value).transpose();
    read.map_err(|_| Refusal::at(Code::InvalidField, &path, format!("'{path}' must be basic, advanced or aggressive")))
}

pub(super) fn flag(fields: &mut Fields, name: &str) -> Result<Option<bool>, Refusal> {
    let path = fields.path(name);
    let read = |value: Value| value.as_bool().ok_or_else(|| wrong_type(&path, "true or false", &value));
    fields.take(name).map(read).transpose()
}

/// One of the names that there are.
fn one_of<T>(fields: &mut Fields, name: &str, named: fn(&str) -> Option<T>, all: &str) -> Result<Option<T>, Refusal> {
    let path = fields.path(name);
    let refusal = || Refusal::at(Code::InvalidField, &path, format!("'{path}' must be {all}"));
    fields.text(name)?.map(|text| named(&text).ok_or_else(refusal)).transpose()
}

/// What `options` say.
#[derive(Debug, Clone, Default)]
struct Terms {
    options: RunOptions,
    wish: Wish,
    /// Of several goals.
    parallel: Option<bool>,
}

/// `base` stands where they say nothing.
fn terms(fields: &mut Fields, base: &Terms) -> Result<Terms, Refusal> {
    let Terms { options: mut found, mut wish, .. } = base.clone();
    let Some(mut fields) = fields.object("options")? else { return Ok(Terms { options: found, wish, parallel: None }) };
    let parallel = flag(&mut fields, "parallel")?;
    let own = one_of(&mut fields, "decomposer", Decomposer::named, "hybrid, rules, model or remote")?;
    wish.decomposer = own.or(wish.decomposer);
    let types = "simple, microservices, data_pipeline or ml_pipeline";
    wish.kind = one_of(&mut fields, "type", GoalType::named, types)?.or(wish.kind);
    wish.max_depth = whole(&mut fields, "max_depth", 1, MOST_DEPTH)?.map(|n| n as usize).or(wish.max_depth);
    if let Some(level) = optimization_level(&mut fields)? {
        found.optimization_level = level;
    }
    for (name, place) in [
        ("monitoring", &mut found.monitoring),
        ("real_time_notifications", &mut found.real_time_notifications),
        ("preserve_structure", &mut found.preserve_structure),
    ] {
        if let Some(value) = flag(&mut fields, name)? {
            *place = value;
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
    Ok(Terms { options: found, wish, parallel })
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
        pure: flag(&mut task, "pure")?.unwrap_or(false),
        inputs: match task.take("inputs") {
            Some(Value::Array(items)) => Some(names(items, &task.path("inputs"))?),
            None => None,
            Some(_) => {
                let path = task.path("inputs");
                return Err(Refusal::at(Code::InvalidField, &path, format!("'{path}' must be a list of tasks")));
            }
        },
        ..Policy::default()
    };
    task.nothing_else()?;
    Ok(Node { task: Task { id, description, parent, depends_on }, step, policy })
}

fn names(items: Vec<Value>, path: &str) -> Result<Vec<TaskId>, Refusal> {
    let name = |(i, item)| {
        let path = format!("{path}[{i}]");
        read_id(text(item, &path)?, &path)
    };
    items.into_iter().enumerate().map(name).collect()
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
            let path = step.path("schema");
            let schema = match step.take("schema") {
                None => None,
                Some(schema) => {
                    let json = schema.to_string();
                    Schema::read(schema).map_err(|error| bad_schema(&path, &error))?;
                    Some(json)
                }
            };
            Step::Model(ModelStep { prompt, system, model, max_tokens, temperature, schema })
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
        GraphError::UnknownInput { task, .. } => (Code::InvalidField, format!("graph.tasks[{}].inputs", at(task))),
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

pub(super) fn the_workflow(fields: &mut Fields) -> Result<WorkflowId, Refusal> {
    workflow_id(fields, "workflow_id")?.ok_or_else(|| missing("workflow_id", "a string"))
}

/// An event of a user's own.
pub(crate) struct Noted {
    pub id: WorkflowId,
    pub kind: EventKind,
    pub message: Option<String>,
    /// JSON.
    pub payload: Option<String>,
}

pub(crate) fn workflow_notify(body: &[u8]) -> Result<Noted, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "...", "event": "deployed", "payload"?: {...}}"#)?;
    let id = the_workflow(&mut fields)?;
    let name = fields.needed_text("event")?;
    let kind = EventKind::custom(&name)
        .map_err(|why| Refusal::at(Code::InvalidField, "event", format!("'event' {why}; it is {}", quoted(&name))))?;
    let message = fields.text("message")?;
    if message.as_ref().is_some_and(|text| text.chars().count() > MOST_MESSAGE) {
        let message = format!("'message' is longer than {MOST_MESSAGE} characters; programs' data is for 'payload'");
        return Err(Refusal::at(Code::TooLarge, "message", message));
    }
    let payload = fields.take("payload").map(|value| value.to_string());
    if let Some(found) = payload.as_ref().map(String::len).filter(|found| *found > MOST_PAYLOAD) {
        let message = format!("'payload' has {found} bytes; at most {MOST_PAYLOAD} are allowed");
        return Err(Refusal::at(Code::TooLarge, "payload", message));
    }
    fields.nothing_else()?;
    Ok(Noted { id, kind, message, payload })
}

pub(crate) fn workflow_ref(body: &[u8]) -> Result<WorkflowId, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "..."}"#)?;
    let id = the_workflow(&mut fields)?;
    fields.nothing_else()?;
    Ok(id)
}

/// Which workflow, which of its tasks, and whether with outputs.
pub(crate) type Wanted = (WorkflowId, Option<Vec<TaskId>>, bool);

pub(crate) fn workflow_query(body: &[u8]) -> Result<Wanted, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "..."}"#)?;
    let id = the_workflow(&mut fields)?;
    let only = fields.list("tasks")?;
    let read = |(path, item): (String, Value)| read_id(text(item, &path)?, &path);
    let only: Vec<TaskId> = only.into_iter().map(read).collect::<Result<_, _>>()?;
    let outputs = flag(&mut fields, "outputs")?.unwrap_or(true);
    fields.nothing_else()?;
    Ok((id, (!only.is_empty()).then_some(only), outputs))
}

pub(crate) fn workflow_filter(body: &[u8]) -> Result<ListFilter, Refusal> {
    let mut fields = Fields::parse(body, r#"{"status"?: "running"}"#)?;
    let state = fields.text("status")?.map(|text| {
        State::named(&text).ok_or_else(|| {
            let message = "'status' must be waiting, running, paused, completed, failed or cancelled";
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

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        let limits = Limits { tasks: 5, depth: 2 };
        Allowed { limits, step_subjects: vec!["orders.*".to_owned()], max_text: 100, defaults: RunOptions::default() }
    }

    fn refused(body: &str) -> (String, String) {
        let refusal = workflow_start(body.as_bytes(), &allowed()).unwrap_err();
        (refusal.field.unwrap_or_default(), refusal.message)
    }

    #[test]
    fn a_task_says_what_it_takes_and_that_it_is_pure() {
        let read = |task: &str| {
            let body = format!(r#"{{"graph": {{"tasks": [{{"id": "a", "description": "A"}}, {task}]}}}}"#);
            workflow_start(body.as_bytes(), &allowed()).map(|asked| match asked.what {
                What::Graph(graph, _) => graph.nodes()[1].policy.clone(),
                _ => panic!("{body}"),
            })
        };
        let policy =
            read(r#"{"id": "b", "description": "B", "depends_on": ["a"], "pure": true, "inputs": []}"#).unwrap();
        assert_eq!((policy.pure, policy.inputs), (true, Some(vec![])));
        let policy = read(r#"{"id": "b", "description": "B", "depends_on": ["a"], "inputs": ["a"]}"#).unwrap();
        assert_eq!((policy.pure, policy.inputs), (false, Some(vec![TaskId::new("a")])));
        for (wrong, field) in [
            (r#""inputs": ["a"]"#, "graph.tasks[1].inputs"),
            (r#""inputs": "a""#, "graph.tasks[1].inputs"),
            (r#""depends_on": ["a"], "inputs": [7]"#, "graph.tasks[1].inputs[0]"),
            (r#""depends_on": ["a"], "inputs": ["a", "c"]"#, "graph.tasks[1].inputs"),
            (r#""pure": "yes""#, "graph.tasks[1].pure"),
        ] {
            let refused = read(&format!(r#"{{"id": "b", "description": "B", {wrong}}}"#)).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some(field), "{wrong}: {}", refused.message);
        }
    }

    #[test]
    fn a_graph_is_read_with_its_steps_and_terms() {
        let body = br#"{"graph": {"tasks": [{"id": "a", "description": "A"},
            {"id": "b", "description": "B", "depends_on": ["a"], "timeout_ms": 5, "retry_attempts": 0,
             "step": {"kind": "nats", "subject": "orders.reserve"}},
            {"id": "c", "description": "C", "step": {"kind": "model", "prompt": "why?", "temperature": 0.5}},
            {"id": "d", "description": "D", "step": {"kind": "agent", "language": "pyton"}}]},
            "options": {"max_parallel": 2, "timeout_ms": 1000, "retry_delay_ms": 0, "priority": -3}, "id": "x-1"}"#;
        let Asked { what: What::Graph(graph, options), id } = workflow_start(body, &allowed()).unwrap() else {
            panic!()
        };
        assert_eq!(graph.needs(1), [0]);
        let b = graph.node(1).unwrap();
        assert_eq!(b.step, Step::Nats { subject: "orders.reserve".to_owned() });
        assert_eq!(
            b.policy,
            Policy { timeout: Some(Duration::from_millis(5)), retry_attempts: Some(0), ..Policy::default() }
        );
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
            (
                r#"{"id": "b", "description": "B", "step": {"kind": "model", "schema": {"$ref": "https://x"}}}"#,
                "graph.tasks[1].step.schema",
                "schema",
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
    fn each_of_several_goals_may_have_steps_and_options_of_its_own() {
        let body = br#"{"goals": ["A", {"goal": "B", "options": {"max_parallel": 2, "type": "simple"},
            "steps": {"tests": {"kind": "nats", "subject": "orders.test"}}}],
            "options": {"parallel": false, "max_parallel": 7, "priority": 3, "max_depth": 4}}"#;
        let Asked { what: What::Goals { aims, parallel }, .. } = workflow_start(body, &allowed()).unwrap() else {
            panic!()
        };
        assert!(!parallel);
        let [a, b] = &aims[..] else { panic!("{aims:?}") };
        assert_eq!((a.options.max_parallel, a.options.priority, a.wish.max_depth, a.wish.kind), (7, 3, Some(4), None));
        assert_eq!((b.options.max_parallel, b.options.priority, b.wish.max_depth), (2, 3, Some(4)));
        assert_eq!(b.wish.kind, Some(GoalType::Simple));
        let step = Step::Nats { subject: "orders.test".to_owned() };
        assert_eq!((a.steps.len(), b.steps.get(&TaskId::new("tests"))), (0, Some(&step)));
        for (body, field) in [
            (r#"{"goals": [{"goal": "B", "options": {"parallel": true}}]}"#, "goals[0].options.parallel"),
            (r#"{"goals": [{"goal": "B", "options": {"max_parallel": 0}}]}"#, "goals[0].options.max_parallel"),
            (r#"{"goals": ["A", {"goal": " "}]}"#, "goals[1].goal"),
            (r#"{"goals": [{"goal": "B", "steps": {"t": {"kind": "magic"}}}]}"#, "goals[0].steps.t.kind"),
            (r#"{"goals": [{"goal": "B", "id": "x"}]}"#, "goals[0].id"),
            (r#"{"goals": ["A"], "steps": {"t": {"kind": "agent"}}}"#, "steps"),
            (r#"{"goal": "A", "steps": {"a b": {"kind": "agent"}}}"#, "steps"),
            (r#"{"goal": "A", "options": {"parallel": true}}"#, "options.parallel"),
            (r#"{"goal": "A", "options": {"type": "tiny"}}"#, "options.type"),
            (r#"{"goal": "A", "options": {"decomposer": "magic"}}"#, "options.decomposer"),
        ] {
            assert_eq!(refused(body).0, field, "{body}");
        }
    }

    /// A decomposer's answer is a stranger's.
    #[test]
    fn a_graph_of_a_hundred_thousand_tasks_and_one_is_refused() {
        let tasks: Vec<String> = (0..100_001).map(|i| format!(r#"{{"id":"{i}","description":"t"}}"#)).collect();
        let allowed = Allowed { limits: Limits { tasks: 100_000, depth: 20 }, ..allowed() };
        let graph =
            |tasks: &[String]| answered_graph(format!(r#"{{"tasks":[{}]}}"#, tasks.join(",")).as_bytes(), &allowed);
        assert_eq!(graph(&tasks[..2_000]).unwrap().len(), 2_000);
        let refusal = graph(&tasks).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::TooLarge, Some("graph.tasks")));
        let cycle = br#"{"tasks": [{"id": "a", "description": "A", "depends_on": ["b"]}, {"id": "b", "description": "B", "depends_on": ["a"]}]}"#;
        let refusal = answered_graph(cycle, &allowed).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some("graph.tasks[0].depends_on"));
    }

    #[test]
    fn an_event_of_one_s_own_is_bounded() {
        let id = WorkflowId::generate();
        let note = |more: &str| workflow_notify(format!(r#"{{"workflow_id": "{id}"{more}}}"#).as_bytes());
        let noted = note(r#", "event": "deployed", "message": "to all", "payload": {"n": [1, null]}"#).unwrap();
        assert_eq!((noted.id, noted.kind), (id, EventKind::Custom("deployed".into())));
        assert_eq!((noted.message.as_deref(), noted.payload.as_deref()), (Some("to all"), Some(r#"{"n":[1,null]}"#)));
        let long = format!(r#", "event": "x", "message": "{}""#, "m".repeat(2_001));
        let large = format!(r#", "event": "x", "payload": "{}""#, "p".repeat(65_536));
        for (more, field) in [
            ("", "event"),
            (r#", "event": "task_completed""#, "event"),
            (r#", "event": "a b""#, "event"),
            (r#", "event": "x", "message": 7"#, "message"),
            (long.as_str(), "message"),
            (large.as_str(), "payload"),
            (r#", "event": "x", "task": "a""#, "task"),
        ] {
            assert_eq!(note(more).err().unwrap().field.unwrap(), field, "{more:.60}");
        }
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
            (r#"{"goal": "x", "options": {"optimization_level": "fast"}}"#, "options.optimization_level"),
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
