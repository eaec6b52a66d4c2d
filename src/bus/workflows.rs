//! Workflows on NATS: `workflow.*`, and the line to services of the user's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use futures::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::endpoints::{Call, Endpoint, Reply, Served};
use super::reply::{ERROR_CODE, most};
use super::wire::{self, Code, Refusal, What, WorkflowStatus};
use super::{Connection, Options, Provision, streams};
use crate::domain::workflow::{Command, Event, FailureKind, GoalType, Node, WorkflowId};
use crate::domain::{TaskId, Tenant};
use crate::workflow::{self, Announce, Error, Failure, Given, Notice, Order, Question, Service, Workflows};

/// On a step's request: the same for every attempt at the same thing.
pub(super) const KEY: &str = "Idempotency-Key";
/// How long starting may take, beyond taking a goal apart.
const STARTING: Duration = Duration::from_secs(15);
/// How much of a service's words is kept, in characters.
const WORDS: usize = 500;

/// Takes a goal, several, or a graph.
pub(super) fn start(row: Endpoint<()>, workflows: Workflows, options: &Options) -> Endpoint {
    let bounds = allowed(workflows.options(), options);
    row.served(move |call| {
        let (workflows, bounds) = (workflows.clone(), bounds.clone());
        let longest = STARTING + workflows.options().longest_decomposition();
        let timeout = call.envelope.within(longest, call.now);
        // A large graph takes longer to read than the receive loop has time.
        let work = async move { begin(&workflows, &bounds, &call, timeout).await };
        Served::Later { work: Box::pin(work), timeout }
    })
}

/// Takes a goal apart, and starts nothing.
pub(super) fn decompose(row: Endpoint<()>, workflows: Workflows, options: &Options) -> Endpoint {
    let bounds = allowed(workflows.options(), options);
    row.served(move |call| {
        let aim = match wire::workflow_decompose(call.body(), &bounds) {
            Ok(aim) => aim,
            Err(refusal) => return refusal.into(),
        };
        let workflows = workflows.clone();
        let longest = STARTING + workflows.options().longest_decomposition();
        let timeout = call.envelope.within(longest, call.now);
        let work = async move {
            let goal = aim.goal.clone();
            let order = workflows.compose(&call.envelope.tenant, aim, timeout.saturating_sub(STARTING / 2)).await?;
            let at = order.decomposed.map_or(call.now, |(_, to)| to);
            Reply::json(&wire::WorkflowDecomposed::new(&goal, &order.graph, at))
        };
        Served::Later { work: Box::pin(work), timeout }
    })
}

fn allowed(own: &workflow::Options, options: &Options) -> wire::Allowed {
    let (limits, step_subjects) = (own.limits(), own.step_subjects.clone());
    wire::Allowed { limits, step_subjects, max_text: options.max_task_bytes, defaults: own.terms() }
}

async fn begin(
    workflows: &Workflows,
    bounds: &wire::Allowed,
    call: &Call,
    timeout: Duration,
) -> Result<Reply, Refusal> {
    let asked = wire::workflow_start(call.body(), bounds)?;
    let schemas = asked.schemas()?;
    if !schemas.is_empty() {
        let built = tokio::task::spawn_blocking(move || wire::build(&schemas)).await;
        built.map_err(|error| Refusal::new(Code::Internal, error.to_string()))??;
    }
    let wire::Asked { what, id } = asked;
    let tenant = &call.envelope.tenant;
    let hash = || Sha256::digest(call.body()).into();
    let request = id.map(|id| (id, hash()));
    let one = |id: WorkflowId| wire::WorkflowStarted { workflow_id: Some(id.to_string()), workflows: None };
    let composed = |aim| workflows.compose(tenant, aim, timeout.saturating_sub(STARTING / 2));
    match what {
        What::Graph(graph, options) => {
            let (tenant, graph, goal, decomposed) = (tenant.clone(), (*graph).into(), None, None);
            let (optimized, follows) = (None, None);
            let order = Order { tenant, request, goal, graph, options, decomposed, optimized, follows };
            Reply::json(&one(workflows.launch(order).await?))
        }
        What::Goal(aim) => {
            let order = composed(aim).await?;
            Reply::json(&one(workflows.launch(Order { request, ..order }).await?))
        }
        What::Goals { aims, parallel } => {
            let goals: Vec<String> = aims.iter().map(|aim| aim.goal.clone()).collect();
            let orders = futures::future::join_all(aims.into_iter().map(composed)).await;
            let started = match parallel {
                true => side_by_side(workflows, orders).await,
                false => in_turn(workflows, orders).await,
            };
            let each = goals.into_iter().zip(started).map(|(goal, started)| {
                let (workflow_id, error) = match started {
                    Ok(id) => (Some(id.to_string()), None),
                    Err(error) => (None, Some(error.to_string())),
                };
                wire::GoalStarted { goal, workflow_id, error }
            });
            Reply::json(&wire::WorkflowStarted { workflow_id: None, workflows: Some(each.collect()) })
        }
    }
}

type Ordered = Result<Order, Error>;

async fn side_by_side(workflows: &Workflows, orders: Vec<Ordered>) -> Vec<Result<WorkflowId, Error>> {
    let each = orders.into_iter().map(|order| async { workflows.launch(order?).await });
    futures::future::join_all(each).await
}

/// Each begins when the one before it that could be started is over.
async fn in_turn(workflows: &Workflows, orders: Vec<Ordered>) -> Vec<Result<WorkflowId, Error>> {
    let (mut all, mut before) = (Vec::with_capacity(orders.len()), None);
    for order in orders {
        let started = match order {
            Ok(order) => workflows.launch(Order { follows: before, ..order }).await,
            Err(error) => Err(error),
        };
        before = started.as_ref().ok().copied().or(before);
        all.push(started);
    }
    all
}

pub(super) async fn status(
    workflows: Workflows,
    client: Client,
    wanted: wire::Wanted,
    tenant: &Tenant,
) -> Result<Reply, Refusal> {
    let (id, only, outputs) = wanted;
    let seen = workflows.status(tenant, id).await?;
    let position = |task: &TaskId| {
        let missing = || Refusal::at(Code::NotFound, "tasks", format!("this workflow has no task '{task}'"));
        seen.graph.position(task).ok_or_else(missing)
    };
    let only: Option<Vec<u32>> = only.map(|only| only.iter().map(position).collect()).transpose()?;
    let outputs = match (outputs, &only) {
        (false, _) => vec![],
        (true, Some(only)) => workflows.outputs(seen.listed.number, only).await?,
        (true, None) => {
            let all: Vec<u32> = (0..seen.graph.len() as u32).collect();
            workflows.outputs(seen.listed.number, &all).await?
        }
    };
    let status = WorkflowStatus::new(&seen, only.as_deref(), outputs);
    Reply::json_or_shorter(status, most(&client), WorkflowStatus::shorten)
}

pub(super) async fn show(workflows: Workflows, id: WorkflowId, tenant: &Tenant) -> Result<Reply, Refusal> {
    let seen = workflows.status(tenant, id).await?;
    let attempts = workflows.attempts(seen.listed.number).await?;
    Reply::json(&wire::WorkflowDetail::new(&seen, attempts))
}

/// What records of past runs say of a workflow's graph.
pub(super) async fn recommend(
    workflows: Workflows,
    (id, level, preserve): wire::Recommended,
    tenant: &Tenant,
) -> Result<Reply, Refusal> {
    let seen = workflows.status(tenant, id).await?;
    let mut options = seen.options;
    options.optimization_level = level.unwrap_or(options.optimization_level);
    options.preserve_structure = preserve.unwrap_or(options.preserve_structure);
    let plan = workflows.plan(tenant, &seen.graph, &options).await?;
    let found = workflows.recommendations(tenant, &seen.graph, &options).await?;
    Reply::json(&wire::WorkflowAdvice::new(id, found, &plan))
}

pub(super) async fn command(
    workflows: Workflows,
    id: WorkflowId,
    tenant: &Tenant,
    command: Command,
) -> Result<Reply, Refusal> {
    let status = workflows.command(tenant, id, command).await?;
    tracing::info!(workflow.id = %id, command = command.as_str(), "commanded");
    Reply::json(&wire::WorkflowCommanded { workflow_id: id.to_string(), status })
}

pub(super) async fn notify(workflows: Workflows, noted: wire::Noted, tenant: &Tenant) -> Result<Reply, Refusal> {
    let wire::Noted { id, kind, message, payload } = noted;
    let notice = Notice { kind: &kind, message: message.as_deref(), payload: payload.as_deref() };
    let number = workflows.notify(tenant, id, &notice).await?;
    Reply::json(&wire::WorkflowNotified { workflow_id: id.to_string(), number })
}

/// Asks services of the user's, wherever they are on this NATS.
pub struct Services {
    client: Client,
    /// What a decomposer may answer.
    allowed: wire::Allowed,
    max_answer: usize,
}

/// What a decomposer is asked.
#[derive(Serialize)]
struct Asking<'a> {
    goal: &'a str,
    #[serde(rename = "type")]
    kind: Option<GoalType>,
    max_depth: usize,
    limits: AskingLimits,
}

#[derive(Serialize)]
struct AskingLimits {
    max_tasks: usize,
    max_bytes: usize,
    timeout_ms: u64,
}

impl Services {
    pub fn new(connection: &Connection, own: &workflow::Options, options: &Options) -> Self {
        let (client, allowed) = (connection.client.clone(), allowed(own, options));
        Self { client, allowed, max_answer: options.max_body_bytes }
    }

    async fn send(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let most = self.client.server_info().max_payload;
        if body.len() > most {
            let message = format!("the inputs have {} bytes; the server carries {most}", body.len());
            return Err(Failure::new(FailureKind::Refused, message));
        }
        let request = Request::new().payload(body.into()).headers(headers).timeout(Some(timeout));
        // One inbox for one question: a second answer, or a late one, finds nobody.
        let answer = self.client.send_request(subject.to_owned(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                Failure::new(FailureKind::Unavailable, format!("nobody listens on {subject}"))
            }
            RequestErrorKind::TimedOut => {
                let ms = timeout.as_millis();
                Failure::new(FailureKind::TimedOut, format!("no answer on {subject} within {ms} ms"))
            }
            _ => Failure::new(FailureKind::Unavailable, format!("{subject} can't be asked now")),
        })?;
        let header = |name| answer.headers.as_ref().and_then(|h| h.get(name)).map(|value| value.as_str());
        match header(ERROR_CODE) {
            None => Ok(answer.payload.to_vec()),
            Some(code) => Err(failed(subject, code, header("Nats-Service-Error"), header("Retry-After-Ms"))),
        }
    }
}

impl Service for Services {
    fn ask<'a>(&'a self, subject: &'a str, given: &'a Given, body: Vec<u8>) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, given.key.as_str());
        Box::pin(self.send(subject, headers, body, given.timeout))
    }

    fn take_apart<'a>(&'a self, subject: &'a str, asked: &'a Question) -> BoxFuture<'a, Result<Vec<Node>, Failure>> {
        Box::pin(async move {
            let bad = |why: String| Failure::new(FailureKind::BadOutput, format!("{subject} answered no graph: {why}"));
            let limits = AskingLimits {
                max_tasks: asked.limits.tasks,
                max_bytes: self.max_answer,
                timeout_ms: u64::try_from(asked.timeout.as_millis()).unwrap_or(u64::MAX),
            };
            let asking = Asking { goal: &asked.goal, kind: asked.kind, max_depth: asked.limits.depth, limits };
            let body = serde_json::to_vec(&asking).map_err(|error| bad(error.to_string()))?;
            let answer = self.send(subject, HeaderMap::new(), body, asked.timeout).await?;
            if answer.len() > self.max_answer {
                let (found, most) = (answer.len(), self.max_answer);
                return Err(bad(format!("it has {found} bytes; at most {most} are allowed (nats.max_body_bytes)")));
            }
            let allowed = wire::Allowed { limits: asked.limits, ..self.allowed.clone() };
            // A large one takes a while to read.
            let read = tokio::task::spawn_blocking(move || wire::answered_graph(&answer, &allowed)).await;
            let graph = read.map_err(|error| bad(error.to_string()))?.map_err(|refusal| bad(refusal.message))?;
            Ok(graph.nodes().to_vec())
        })
    }
}

/// Publishes events to [`EVENTS`](super::streams::EVENTS), at `event.<tenant>.workflow.<id>`.
pub struct Events {
    client: Client,
    context: jetstream::Context,
    provision: Provision,
    options: streams::Options,
    /// The stream was seen.
    there: AtomicBool,
}

impl Events {
    pub fn new(connection: &Connection, options: &Options) -> Self {
        let client = connection.client.clone();
        let context = jetstream::new(client.clone());
        let (provision, options) = (options.provision, options.streams.clone());
        Self { client, context, provision, options, there: AtomicBool::new(false) }
    }
}

/// Unless an event is kept, the stream is looked for again: also where nobody waits any more.
struct Doubt<'a> {
    there: &'a AtomicBool,
    is_kept: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.there.store(false, Ordering::Relaxed);
        }
    }
}

impl Announce for Events {
    fn announce<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if !self.there.load(Ordering::Relaxed) {
                let made = streams::provide_events(&self.client, self.provision, &self.options).await;
                made.map_err(|error| error.to_string())?;
                self.there.store(true, Ordering::Relaxed);
            }
            let body = serde_json::to_vec(&wire::WorkflowEvent::from(event.clone())).map_err(|e| e.to_string())?;
            let mut headers = HeaderMap::new();
            // The stream keeps one of each: who takes over tells again what may have been told.
            headers.insert("Nats-Msg-Id", format!("{}/{}", event.workflow, event.number));
            let subject = format!("event.{}.workflow.{}", event.tenant, event.workflow);
            // Where somebody listens, the server says nothing of a stream that is gone: whoever waits gives up.
            let mut doubt = Doubt { there: &self.there, is_kept: false };
            let told = async {
                let sent = self.context.publish_with_headers(subject, headers, body.into()).await?;
                sent.await.map(drop)
            };
            told.await.map_err(|error| error.to_string())?;
            doubt.is_kept = true;
            Ok(())
        })
    }
}

/// What a service said that failed. A wrong question stays wrong: 4xx, but for those that ask for another try.
fn failed(subject: &str, code: &str, words: Option<&str>, after: Option<&str>) -> Failure {
    let clean = |text: &str, most: usize| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
    };
    let kind = match code.trim().parse::<u16>() {
        Ok(408 | 425 | 429 | 503) => FailureKind::Unavailable,
        Ok(400..=499) => FailureKind::Refused,
        _ => FailureKind::Failed,
    };
    let message = format!("{subject} said {}: {}", clean(code, 20), clean(words.unwrap_or_default(), WORDS));
    let after = after.and_then(|ms| ms.trim().parse().ok()).map(Duration::from_millis);
    Failure { after, ..Failure::new(kind, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_decides_whether_it_is_asked_again() {
        for (code, kind) in [
            ("400", FailureKind::Refused),
            ("404", FailureKind::Refused),
            ("429", FailureKind::Unavailable),
            ("503", FailureKind::Unavailable),
            ("500", FailureKind::Failed),
            ("broken", FailureKind::Failed),
        ] {
            assert_eq!(failed("orders.reserve", code, Some("why"), None).kind, kind, "{code}");
        }
        let busy = failed("orders.reserve", "503", Some("a\r\nb\u{0}"), Some("1500"));
        assert_eq!(busy.after, Some(Duration::from_millis(1_500)));
        assert!(busy.message.ends_with("503: a  b "), "{busy:?}");
        assert!(failed("s", "500", Some(&"x".repeat(9_999)), Some("soon")).message.len() < 600);
    }
}
