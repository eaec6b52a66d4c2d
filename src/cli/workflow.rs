//! `tandem workflow`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::client::{Answered, Common, connect, ended, show, table};
use super::workflow_views::{self as views, Format, RecommendArguments};
use super::{Ended, Error, PIPE_CLOSED};
use crate::bus::client::{Client, Said};
use crate::bus::wire::{
    EventList, EventQuery, TaskDetail, TaskStatus, WorkflowCommanded, WorkflowDecompose, WorkflowDecomposed,
    WorkflowDetail, WorkflowEvent, WorkflowFilter, WorkflowGoal, WorkflowGraph, WorkflowList, WorkflowNotified,
    WorkflowNotify, WorkflowOptions, WorkflowQuery, WorkflowRef, WorkflowStart, WorkflowStarted, WorkflowStatus,
};
use crate::config::Variables;
use crate::domain::Timestamp;
use crate::domain::workflow::{Decomposer, GoalType, OptimizationLevel, State, TaskState};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(StartArguments),
    Start(StartArguments),
    /// Take a goal apart and print the graph, as `--graph` takes it. Nothing is started.
    Decompose(DecomposeArguments),
    /// How a workflow and its tasks stand, with their outputs.
    Status(StatusArguments),
    /// List workflows, the newest first.
    List(ListArguments),
    /// Watch a workflow until it is over. Exit code 1 where it does not come to a good end.
    Watch(OneArguments),
    /// A workflow's graph, and what happened to each attempt; as tables or as a picture.
    Show(ShowArguments),
    /// What records of past runs say of a workflow, and what the next run would be given.
    Recommend(RecommendArguments),
    /// End a workflow; what runs of it is broken off.
    Cancel(OneArguments),
    /// Begin nothing more of a workflow until it is resumed.
    Pause(OneArguments),
    /// Carry a paused workflow on.
    Resume(OneArguments),
    /// Do again what failed of a workflow; what is done stays done.
    Retry(OneArguments),
    /// Add an event of your own to a workflow's.
    Notify(NotifyArguments),
    /// What happened in a workflow, or what is newest.
    Events(EventsArguments),
}

/// Start a workflow; with `run`, watch it until it is over and print what it came to (exit code 1 where it failed).
///
///   tandem workflow run "Create a REST API for orders and tests for it in rust"
///   tandem workflow start --graph order.json --max-parallel 4
///   tandem workflow start --goal "Build the user service API" --goal "Build the order service API"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StartArguments {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    options: Options,
    /// A file that says who does which of a goal's tasks, {"id": {"kind": "nats", "subject": "orders.reserve"}}.
    #[arg(long, value_name = "FILE", conflicts_with = "graph")]
    steps: Option<PathBuf>,
    /// Several goals one after the other: each begins when the one before it is over.
    #[arg(long, requires = "goals")]
    in_turn: bool,
    /// An id of your own: the same again is the same workflow.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A goal, in plain words.
    #[arg(value_name = "GOAL")]
    words: Option<String>,
    /// A goal of several: each becomes a workflow.
    #[arg(long = "goal", value_name = "GOAL")]
    goals: Vec<String>,
    /// A file with a graph, {"tasks": [{"id", "description", "depends_on"?, "step"?}]}; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DecomposeArguments {
    /// A goal, in plain words.
    goal: String,
    #[command(flatten)]
    wish: Wish,
    #[command(flatten)]
    common: Common,
}

/// How a goal is taken apart.
#[derive(Debug, Args)]
struct Wish {
    /// Who takes a goal apart: hybrid, rules, model or remote.
    #[arg(long, value_parser = parse_decomposer)]
    decomposer: Option<Decomposer>,
    /// What kind of goal it is, which bounds its graph: simple, microservices, data_pipeline or ml_pipeline.
    #[arg(long = "type", value_parser = parse_type)]
    kind: Option<GoalType>,
    /// Levels of groups that a goal's graph may have.
    #[arg(long)]
    max_depth: Option<u32>,
}

#[derive(Debug, Args)]
struct Options {
    /// Tasks that run at a time.
    #[arg(long)]
    max_parallel: Option<u32>,
    /// For all of it, in milliseconds.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// For one attempt at a task, in milliseconds.
    #[arg(long)]
    task_timeout_ms: Option<u64>,
    /// Attempts at a task after the first.
    #[arg(long)]
    retry_attempts: Option<u32>,
    /// The longest pause before the second attempt, in milliseconds.
    #[arg(long)]
    retry_delay_ms: Option<u64>,
    /// Each point counts as a minute that the workflow has waited longer.
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Publish its events as they happen.
    #[arg(long)]
    notify: bool,
    /// What records of earlier runs may change: basic, advanced, or aggressive with --restructure.
    #[arg(long, value_parser = views::level)]
    optimization_level: Option<OptimizationLevel>,
    /// What waits for what may change: see `tandem workflow recommend`.
    #[arg(long)]
    restructure: bool,
    #[command(flatten)]
    wish: Wish,
}

#[derive(Debug, Args)]
pub(super) struct OneArguments {
    /// As `tandem workflow start` printed it.
    workflow: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// As `tandem workflow start` printed it.
    workflow: String,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    workflow: String,
    /// Only these tasks.
    tasks: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// waiting, running, paused, completed, failed or cancelled.
    #[arg(long, value_parser = parse_state)]
    status: Option<State>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Those that were started before this one.
    #[arg(long, value_name = "WORKFLOW")]
    before: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct NotifyArguments {
    /// As `tandem workflow start` printed it.
    workflow: String,
    /// What it is called: A-Z a-z 0-9 _ . and -, and none of Tandem's own.
    event: String,
    /// For a person.
    #[arg(long)]
    message: Option<String>,
    /// For programs: JSON.
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    payload: Option<serde_json::Value>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// Without it: the newest events of the newest workflows.
    workflow: Option<String>,
    /// Those with a higher number.
    #[arg(long)]
    after: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Go on until the workflow is over. None is missed, whatever happens to servers and workers meanwhile.
    #[arg(long, requires = "workflow", conflicts_with = "json")]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

fn parse_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn parse_decomposer(text: &str) -> Result<Decomposer, String> {
    Decomposer::named(text).ok_or_else(|| "must be hybrid, rules, model or remote".to_owned())
}

fn parse_type(text: &str) -> Result<GoalType, String> {
    GoalType::named(text).ok_or_else(|| "must be simple, microservices, data_pipeline or ml_pipeline".to_owned())
}

fn parse_state(text: &str) -> Result<State, String> {
    State::named(text).ok_or_else(|| "must be waiting, running, paused, completed, failed or cancelled".to_owned())
}

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Run(arguments) => start(arguments, variables, true).await,
        Command::Start(arguments) => start(arguments, variables, false).await,
        Command::Decompose(arguments) => decompose(arguments, variables).await,
        Command::Status(arguments) => status(arguments, variables).await,
        Command::List(arguments) => list(arguments, variables).await,
        Command::Watch(arguments) => {
            let client = connect(variables).await?;
            watch(&client, &arguments.common, &arguments.workflow).await
        }
        Command::Show(arguments) => details(arguments, variables).await,
        Command::Recommend(arguments) => views::recommend(arguments, variables).await,
        Command::Cancel(arguments) => command_one(arguments, "workflow.cancel", variables).await,
        Command::Pause(arguments) => command_one(arguments, "workflow.pause", variables).await,
        Command::Resume(arguments) => command_one(arguments, "workflow.resume", variables).await,
        Command::Retry(arguments) => command_one(arguments, "workflow.retry", variables).await,
        Command::Notify(arguments) => notify(arguments, variables).await,
        Command::Events(arguments) => events(arguments, variables).await,
    }
}

async fn start(arguments: StartArguments, variables: &Variables, then_watch: bool) -> Result<Ended, Error> {
    let StartArguments { what, options, steps, in_turn, id, common } = arguments;
    let graph = what.graph.as_deref().map(|path| read_json("--graph", path)).transpose()?;
    let steps = steps.as_deref().map(|path| read_json("--steps", path)).transpose()?;
    let (goal, goals) = match (what.words, what.goals) {
        (Some(goal), _) => (Some(goal), None),
        (None, goals) if goals.len() == 1 => (goals.into_iter().next(), None),
        (None, goals) => (None, (!goals.is_empty()).then_some(goals)),
    };
    let goals = goals.map(|goals| goals.into_iter().map(WorkflowGoal::Words).collect());
    let options = WorkflowOptions { parallel: in_turn.then_some(false), ..options.wire() };
    let body = WorkflowStart { goal, steps, goals, graph, options: Some(options), id };
    let client = connect(variables).await?;
    let said = client.ask("workflow.start", &common.tenant, &body, wait(&common)).await?;
    // `run` prints what came of it.
    let json = common.json && (!then_watch || said.is_error);
    let Answered::Ok(started) = show::<WorkflowStarted>(&said, json)? else { return Ok(Ended::Refused) };
    let mut ids: Vec<String> = started.workflow_id.into_iter().collect();
    let mut all_started = true;
    for one in started.workflows.into_iter().flatten() {
        match (one.workflow_id, one.error) {
            (Some(id), _) => {
                if !common.json {
                    eprintln!("{id}  {}", plain(&one.goal));
                }
                ids.push(id);
            }
            (None, why) => {
                all_started = false;
                eprintln!("tandem: not started: {}: {}", plain(&one.goal), plain(&why.unwrap_or_default()));
            }
        }
    }
    let mut whole = if all_started { Ended::Well } else { Ended::Refused };
    for id in ids {
        if then_watch {
            if !common.json {
                eprintln!("{id}");
            }
            if watch(&client, &common, &id).await? != Ended::Well {
                whole = Ended::Refused;
            }
        } else if !common.json {
            say!("{id}");
        }
    }
    Ok(whole)
}

async fn decompose(arguments: DecomposeArguments, variables: &Variables) -> Result<Ended, Error> {
    let DecomposeArguments { goal, wish, common } = arguments;
    let body = WorkflowDecompose { goal, options: Some(wish.wire()) };
    let answered: Answered<WorkflowDecomposed> = common.ask(variables, "workflow.decompose", &body).await?;
    if let (Answered::Ok(found), false) = (&answered, common.json) {
        let graph = WorkflowGraph { tasks: found.tasks.clone() };
        say!("{}", serde_json::to_string_pretty(&graph).unwrap_or_default());
    }
    Ok(ended(&answered))
}

fn read_json<T: serde::de::DeserializeOwned>(option: &str, path: &Path) -> Result<T, Error> {
    let wrong = |error: String| Error::Usage(format!("{option} {}: {error}", path.display()));
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    serde_json::from_str(&text.map_err(|error| wrong(error.to_string()))?).map_err(|error| wrong(error.to_string()))
}

impl Wish {
    fn wire(self) -> WorkflowOptions {
        let Self { decomposer, kind, max_depth } = self;
        WorkflowOptions { decomposer, kind, max_depth, ..WorkflowOptions::default() }
    }
}

impl Options {
    fn wire(self) -> WorkflowOptions {
        WorkflowOptions {
            real_time_notifications: self.notify.then_some(true),
            optimization_level: self.optimization_level,
            preserve_structure: self.restructure.then_some(false),
            max_parallel: self.max_parallel,
            timeout_ms: self.timeout_ms,
            retry_attempts: self.retry_attempts,
            retry_delay_ms: self.retry_delay_ms,
            task_timeout_ms: self.task_timeout_ms,
            priority: self.priority,
            ..self.wish.wire()
        }
    }
}

fn wait(common: &Common) -> Duration {
    Duration::from_secs_f64(common.wait)
}

async fn status(arguments: StatusArguments, variables: &Variables) -> Result<Ended, Error> {
    let StatusArguments { workflow, tasks, common } = arguments;
    let query =
        WorkflowQuery { workflow_id: workflow, tasks: (!tasks.is_empty()).then_some(tasks), outputs: Some(true) };
    let answered: Answered<WorkflowStatus> = common.ask(variables, "workflow.status", &query).await?;
    if let (Answered::Ok(status), false) = (&answered, common.json) {
        let reason = status.reason.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
        say!("{}  {}{reason}", status.workflow_id, status.status);
        let rows: Vec<Vec<String>> = status.tasks.iter().map(|(id, task)| row(id, task)).collect();
        table(&["task", "status", "attempts", "ms", "output or error"], &rows);
    }
    Ok(ended(&answered))
}

fn row(id: &str, task: &TaskStatus) -> Vec<String> {
    let took = match (task.started_ms, task.ended_ms) {
        (Some(from), Some(to)) => (to - from).to_string(),
        _ => "-".to_owned(),
    };
    let words = match (&task.output, &task.error) {
        (Some(output), _) => output.get().to_owned(),
        (None, Some(error)) if task.status != TaskState::Completed => format!("{}: {}", error.kind, error.message),
        _ => String::new(),
    };
    vec![id.to_owned(), task.status.as_str().to_owned(), task.attempts.to_string(), took, cut(&plain(&words), 100)]
}

async fn list(arguments: ListArguments, variables: &Variables) -> Result<Ended, Error> {
    let ListArguments { status, limit, before, common } = arguments;
    let filter = WorkflowFilter { status, before, limit: Some(limit) };
    let answered: Answered<WorkflowList> = common.ask(variables, "workflow.list", &filter).await?;
    if let (Answered::Ok(list), false) = (&answered, common.json) {
        let rows: Vec<Vec<String>> = list
            .workflows
            .iter()
            .map(|of| {
                let done = format!("{}/{}", of.completed, of.tasks);
                let goal = of.reason.as_deref().or(of.goal.as_deref()).unwrap_or_default();
                vec![of.workflow_id.clone(), of.status.as_str().to_owned(), done, cut(&plain(goal), 80)]
            })
            .collect();
        table(&["workflow", "status", "done", "goal or reason"], &rows);
    }
    Ok(ended(&answered))
}

async fn details(arguments: ShowArguments, variables: &Variables) -> Result<Ended, Error> {
    let ShowArguments { workflow, format, common } = arguments;
    let body = WorkflowRef { workflow_id: workflow };
    let answered: Answered<WorkflowDetail> = common.ask(variables, "workflow.show", &body).await?;
    if let (Answered::Ok(detail), false) = (&answered, common.json) {
        if format != Format::Table {
            say!("{}", views::draw(detail, format, Timestamp::now())?.trim_end());
            return Ok(Ended::Well);
        }
        say!("{}  {}", detail.workflow_id, detail.status);
        let rows: Vec<Vec<String>> = detail
            .tasks
            .iter()
            .map(|task| {
                let needs = task.depends_on.join(",");
                let status = task.status.as_str().to_owned();
                vec![task.id.clone(), task.kind.clone(), status, cut(&needs, 40), cut(&plain(&task.description), 60)]
            })
            .collect();
        table(&["task", "step", "status", "depends on", "description"], &rows);
        let rows: Vec<Vec<String>> = detail
            .attempts
            .iter()
            .map(|of| {
                let waited = (of.started_ms - of.queued_ms).to_string();
                let took = (of.ended_ms - of.started_ms).to_string();
                let failure = of.failure.clone().unwrap_or_default();
                let worker: String = of.worker.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
                vec![of.task.clone(), of.outcome.clone(), waited, took, worker, failure]
            })
            .collect();
        if !rows.is_empty() {
            say!("");
            table(&["attempt at", "outcome", "waited ms", "took ms", "worker", "failure"], &rows);
        }
    }
    Ok(ended(&answered))
}

async fn command_one(arguments: OneArguments, subject: &str, variables: &Variables) -> Result<Ended, Error> {
    let common = &arguments.common;
    let body = WorkflowRef { workflow_id: arguments.workflow };
    let answered: Answered<WorkflowCommanded> = common.ask(variables, subject, &body).await?;
    if let (Answered::Ok(done), false) = (&answered, common.json) {
        say!("{}  {}", done.workflow_id, done.status);
    }
    Ok(ended(&answered))
}

async fn notify(arguments: NotifyArguments, variables: &Variables) -> Result<Ended, Error> {
    let NotifyArguments { workflow, event, message, payload, common } = arguments;
    let body = WorkflowNotify { workflow_id: workflow, event, message, payload };
    let answered: Answered<WorkflowNotified> = common.ask(variables, "workflow.notify", &body).await?;
    if let (Answered::Ok(kept), false) = (&answered, common.json) {
        say!("{}  {}", kept.workflow_id, kept.number);
    }
    Ok(ended(&answered))
}

async fn events(arguments: EventsArguments, variables: &Variables) -> Result<Ended, Error> {
    let EventsArguments { workflow, after, limit, follow, common } = arguments;
    let mut query = EventQuery { workflow_id: workflow, after, limit: Some(limit) };
    let client = connect(variables).await?;
    loop {
        let said = match follow {
            true => patiently(&client, &common, "workflow.events", &query).await?,
            false => client.ask("workflow.events", &common.tenant, &query, wait(&common)).await?,
        };
        let Answered::Ok(list) = show::<EventList>(&said, common.json)? else { return Ok(Ended::Refused) };
        if !common.json {
            list.events.iter().for_each(print_event);
        }
        let ends = ["execution_completed", "execution_failed", "execution_cancelled"];
        // Events of one's own may follow the end.
        let state = list.events.iter().rfind(|event| event.kind.starts_with("execution_"));
        if !follow || state.is_some_and(|event| ends.contains(&event.kind.as_str())) {
            return Ok(Ended::Well);
        }
        query.after = list.events.last().map(|event| event.number).or(query.after);
        tokio::time::sleep(LOOK).await;
    }
}

fn print_event(event: &WorkflowEvent) {
    let words: Vec<String> = [
        Some(event.workflow_id.clone()),
        Some(event.number.to_string()),
        Some(clock(event.at_ms)),
        Some(event.kind.clone()),
        event.task.clone(),
        event.attempt.filter(|n| *n > 1).map(|n| format!("(attempt {n})")),
        event.message.as_deref().map(plain),
        event.payload.as_ref().map(|json| cut(&plain(json.get()), 200)),
    ]
    .into_iter()
    .flatten()
    .collect();
    say!("{}", words.join("  "));
}

/// Between two looks; larger graphs are looked at less often.
const LOOK: Duration = Duration::from_millis(200);
/// Tasks that a terminal shows at a time.
const SHOWN: usize = 30;
/// How long a worker or a server may be away while somebody watches.
const AWAY: Duration = Duration::from_secs(60);

/// Watches until it is over: a live tree on a terminal, a line per change elsewhere.
async fn watch(client: &Client, common: &Common, workflow: &str) -> Result<Ended, Error> {
    let reference = WorkflowRef { workflow_id: workflow.to_owned() };
    let said = patiently(client, common, "workflow.show", &reference).await?;
    let json_error = common.json && said.is_error;
    let Answered::Ok(detail) = show::<WorkflowDetail>(&said, json_error)? else { return Ok(Ended::Refused) };
    let tree = tree(&detail.tasks);
    let query = |outputs| WorkflowQuery { workflow_id: workflow.to_owned(), tasks: None, outputs: Some(outputs) };
    let mut screen = Screen { live: std::io::stderr().is_terminal() && !common.json, drawn: 0 };
    let mut known: BTreeMap<String, TaskState> = BTreeMap::new();
    let pause = LOOK * u32::try_from(1 + detail.tasks.len() / 500).unwrap_or(10).min(10);
    let status = loop {
        let said = patiently(client, common, "workflow.status", &query(false)).await?;
        let Answered::Ok(status) = show::<WorkflowStatus>(&said, false)? else { return Ok(Ended::Refused) };
        if screen.live {
            screen.draw(&lines(&tree, &status));
        } else if !common.json {
            for (id, task) in &status.tasks {
                if known.insert(id.clone(), task.status) != Some(task.status) && task.status != TaskState::Waiting {
                    eprintln!("{id}  {}", task.status.as_str());
                }
            }
        }
        if status.status.is_over() {
            break status;
        }
        tokio::time::sleep(pause).await;
    };
    let said = patiently(client, common, "workflow.status", &query(true)).await?;
    let Answered::Ok(whole) = show::<WorkflowStatus>(&said, common.json)? else { return Ok(Ended::Refused) };
    if !common.json {
        let reason = status.reason.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
        eprintln!("{workflow}  {}{reason}", status.status);
        print_outputs(&detail.tasks, &whole);
    }
    Ok(if status.status == State::Completed { Ended::Well } else { Ended::Refused })
}

/// Asks again while nobody is there, for a while: a workflow goes on without who watches it.
async fn patiently(
    client: &Client,
    common: &Common,
    subject: &str,
    body: &impl serde::Serialize,
) -> Result<Said, Error> {
    let begun = Instant::now();
    loop {
        match client.ask(subject, &common.tenant, body, wait(common)).await {
            Err(error) if error.is_transient() && begun.elapsed() < AWAY => {
                tokio::time::sleep(LOOK).await;
            }
            said => return Ok(said?),
        }
    }
}

/// What nothing depends on is what the workflow was for.
fn print_outputs(tasks: &[TaskDetail], status: &WorkflowStatus) {
    let needed: std::collections::BTreeSet<&str> =
        tasks.iter().flat_map(|task| task.depends_on.iter().map(String::as_str)).collect();
    let last: Vec<&TaskDetail> =
        tasks.iter().filter(|task| task.kind != "group" && !needed.contains(task.id.as_str())).collect();
    for task in &last {
        let Some(output) = status.tasks.get(&task.id).and_then(|task| task.output.as_ref()) else { continue };
        let value: Option<serde_json::Value> = serde_json::from_str(output.get()).ok();
        let text = value.as_ref().and_then(|value| value.get("text")?.as_str().or(value.as_str()));
        let text = text.unwrap_or(output.get());
        if last.len() > 1 {
            say!("## {}\n", task.id);
        }
        say!("{}", text.trim_end_matches('\n'));
    }
}

/// A task in the tree: under the last of those that it depends on.
struct Branch {
    id: String,
    depth: usize,
}

fn tree(tasks: &[TaskDetail]) -> Vec<Branch> {
    let mut below: BTreeMap<Option<&str>, Vec<&TaskDetail>> = BTreeMap::new();
    for task in tasks {
        let above = task.depends_on.last().or(task.parent.as_ref()).map(String::as_str);
        below.entry(above).or_default().push(task);
    }
    let mut branches = vec![];
    let mut open: Vec<(&TaskDetail, usize)> =
        below.remove(&None).unwrap_or_default().into_iter().rev().map(|task| (task, 0)).collect();
    while let Some((task, depth)) = open.pop() {
        branches.push(Branch { id: task.id.clone(), depth });
        let next = below.remove(&Some(task.id.as_str())).unwrap_or_default();
        open.extend(next.into_iter().rev().map(|task| (task, depth + 1)));
    }
    branches
}

fn lines(tree: &[Branch], status: &WorkflowStatus) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    status.tasks.values().for_each(|task| *counts.entry(task.status.as_str()).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let mut lines = vec![format!("{}: {}", status.status, counts.join(", "))];
    let all = tree.len() <= SHOWN;
    let shown = tree.iter().filter_map(|branch| Some((branch, status.tasks.get(&branch.id)?)));
    // Of a large graph, what moves.
    let moving = |state| matches!(state, TaskState::Running | TaskState::Failed);
    for (branch, task) in shown.filter(|(_, task)| all || moving(task.status)).take(SHOWN) {
        let mark = match task.status {
            TaskState::Completed => "✓",
            TaskState::Failed => "✗",
            TaskState::Running => "●",
            TaskState::Ready => "◌",
            TaskState::Waiting => "○",
            TaskState::Cancelled | TaskState::Skipped => "–",
        };
        let indent = "  ".repeat(if all { branch.depth.min(12) } else { 0 });
        let took = match (task.status, task.started_ms, task.ended_ms) {
            (TaskState::Completed | TaskState::Failed, Some(from), Some(to)) => format!("  {} ms", to - from),
            (TaskState::Running, Some(from), _) => {
                format!("  {:.1} s", Timestamp::now().since(Timestamp(from)).as_secs_f64())
            }
            _ => String::new(),
        };
        let again = if task.attempts > 1 { format!("  attempt {}", task.attempts) } else { String::new() };
        let why = task.error.as_ref().filter(|_| task.status != TaskState::Completed);
        let why = why.map(|error| format!("  {}", cut(&plain(&error.message), 60))).unwrap_or_default();
        lines.push(format!("{indent}{mark} {}{took}{again}{why}", branch.id));
    }
    lines
}

/// Lines that are drawn over each other.
struct Screen {
    live: bool,
    drawn: usize,
}

impl Screen {
    fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            text.push_str("\x1b[2K");
            text.push_str(&cut(line, 110));
            text.push('\n');
        }
        // What was longer before.
        for _ in lines.len()..self.drawn {
            text.push_str("\x1b[2K\n");
        }
        self.drawn = self.drawn.max(lines.len());
        if std::io::stderr().write_all(text.as_bytes()).is_err() {
            std::process::exit(PIPE_CLOSED);
        }
    }
}

/// Somebody's words on one line of a terminal, without what would command it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Hours, minutes, seconds of the day, in UTC.
fn clock(at_ms: i64) -> String {
    let ms = at_ms.rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}Z", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::wire::TaskError;

    #[test]
    fn a_task_stands_under_what_it_waits_for_and_none_is_left_out() {
        let task = |id: &str, depends_on: &[&str]| TaskDetail {
            id: id.to_owned(),
            description: String::new(),
            depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
            parent: None,
            kind: "agent".to_owned(),
            status: TaskState::Waiting,
            attempts: 0,
        };
        let tasks = [task("a", &[]), task("d", &["b", "c"]), task("b", &["a"]), task("c", &["a"])];
        let drawn: Vec<(String, usize)> = tree(&tasks).into_iter().map(|b| (b.id, b.depth)).collect();
        assert_eq!(drawn, [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 1), ("d".to_owned(), 2)]);
    }

    fn status_of(tasks: Vec<(&str, TaskStatus)>) -> WorkflowStatus {
        WorkflowStatus {
            workflow_id: "w".to_owned(),
            status: State::Running,
            goal: None,
            reason: None,
            created_ms: 0,
            ended_ms: None,
            tasks: tasks.into_iter().map(|(id, task)| (id.to_owned(), task)).collect(),
            outputs_left_out: false,
        }
    }

    fn task_in(status: TaskState) -> TaskStatus {
        TaskStatus {
            status,
            attempts: 0,
            output: None,
            error: None,
            started_ms: None,
            ended_ms: None,
            due_ms: None,
            worker: None,
        }
    }

    #[test]
    fn the_live_tree_shows_how_each_task_stands() {
        let branch = |id: &str, depth| Branch { id: id.to_owned(), depth };
        let done =
            TaskStatus { started_ms: Some(1_000), ended_ms: Some(1_250), attempts: 2, ..task_in(TaskState::Completed) };
        let error = Some(TaskError { kind: "failed".to_owned(), message: format!("no\x1b[2J {}", "x".repeat(90)) });
        let failed = TaskStatus { error, attempts: 1, ..task_in(TaskState::Failed) };
        let running = TaskStatus { started_ms: Some(Timestamp::now().0 - 3_000), ..task_in(TaskState::Running) };
        let states =
            [("c", task_in(TaskState::Ready)), ("d", task_in(TaskState::Waiting)), ("e", task_in(TaskState::Skipped))];
        let all: Vec<_> = [("a", done), ("b", running), ("f", failed)].into_iter().chain(states).collect();
        let status = status_of(all);
        let tree = [branch("a", 0), branch("b", 1), branch("c", 1), branch("d", 2), branch("e", 0), branch("f", 0)];
        let drawn = lines(&tree, &status);
        assert_eq!(drawn[0], "running: 1 completed, 1 failed, 1 ready, 1 running, 1 skipped, 1 waiting");
        assert_eq!(drawn[1], "✓ a  250 ms  attempt 2");
        let seconds: f64 = drawn[2].strip_prefix("  ● b  ").unwrap().strip_suffix(" s").unwrap().parse().unwrap();
        assert!((3.0..60.0).contains(&seconds), "{drawn:?}");
        assert_eq!(drawn[3..6], ["  ◌ c", "    ○ d", "– e"]);
        let why = drawn[6].strip_prefix("✗ f  no [2J xxx").unwrap();
        assert!(why.ends_with('…') && drawn[6].chars().count() < 80 && !drawn[6].contains('\x1b'), "{drawn:?}");
    }

    /// What is drawn anew covers what was there, and of a large graph only what moves is shown.
    #[test]
    fn a_large_tree_shows_what_moves() {
        let tree: Vec<Branch> = (0..100).map(|i| Branch { id: format!("t{i:03}"), depth: i }).collect();
        let state = |i: usize| if i >= 60 { TaskState::Running } else { TaskState::Waiting };
        let ids: Vec<String> = (0..100).map(|i| format!("t{i:03}")).collect();
        let status = status_of(ids.iter().enumerate().map(|(i, id)| (id.as_str(), task_in(state(i)))).collect());
        let drawn = lines(&tree, &status);
        assert_eq!((drawn[0].as_str(), drawn.len()), ("running: 40 running, 60 waiting", 1 + SHOWN));
        assert!(drawn[1..].iter().all(|line| line.starts_with("● t0")), "{drawn:?}");
    }

    #[test]
    fn words_of_others_command_no_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\nc"), "a [2Jb  c");
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(clock(86_400_000 + 3_661_007), "01:01:01.007Z");
    }
}
