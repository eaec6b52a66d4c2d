//! The table of what this service does on NATS. Subscriptions, `$SRV.INFO` and the AsyncAPI document come from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use tracing::{Span, debug, debug_span, info, warn};

use super::models;
use super::repeats::{Known, Repeats};
use super::wire::{self, Code, Envelope, Refusal, Response};
use super::workflows;
use super::{Connection, Desk, Error, Options, Sync};
use crate::domain::record::Sweep;
use crate::domain::workflow::Command;
use crate::domain::{Request, Timestamp};
use crate::pipeline::{self, ComponentHealth, Pipeline, Status};
use crate::store::Reach;
use crate::telemetry::trace;
use crate::workflow::Workflows;

/// How long a purge deletes before it says that there is more to do.
const PURGE_TIME: Duration = Duration::from_secs(20);
/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// One subject (and the same with a `.<tenant>`), and what is done there. `Endpoint<()>` is a row of the [`TABLE`]: known
/// without anybody to serve it.
pub struct Endpoint<S = Serve> {
    /// As NATS micro allows: letters, digits, `-` and `_`.
    pub name: &'static str,
    pub subject: &'static str,
    /// For people, in `$SRV.INFO` and the documents.
    pub summary: &'static str,
    pub lane: Lane,
    /// The body's JSON Schema.
    pub takes: Shape,
    /// The answer's JSON Schema.
    pub gives: Shape,
    pub serve: S,
}

pub type Serve = Box<dyn Fn(Call) -> Served + Send + std::marker::Sync>;

/// Makes a JSON Schema.
pub type Shape = fn() -> Schema;

/// Everything that a worker serves.
pub const TABLE: [Endpoint<()>; 31] = [
    REQUEST,
    FEEDBACK,
    PURGE,
    STATS,
    HEALTH,
    TEMPLATE_LIST,
    TEMPLATE_SHOW,
    TEMPLATE_SELECT,
    TEMPLATE_ANALYZE,
    TEMPLATE_CHECK,
    CACHE_STATS,
    CACHE_EXPLAIN,
    CACHE_INVALIDATE,
    LLM_QUERY,
    LLM_PARALLEL,
    LLM_PIPELINE,
    LLM_STATS,
    LLM_RESET,
    LLM_BUDGET,
    WORKFLOW_START,
    WORKFLOW_DECOMPOSE,
    WORKFLOW_STATUS,
    WORKFLOW_LIST,
    WORKFLOW_SHOW,
    WORKFLOW_PAUSE,
    WORKFLOW_RESUME,
    WORKFLOW_CANCEL,
    WORKFLOW_RETRY,
    WORKFLOW_RECOMMEND,
    WORKFLOW_NOTIFY,
    WORKFLOW_EVENTS,
];

const REQUEST: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::Request, Response>("request", "execution.request", "Do a task: by the cache, by rules, by a model.")
};
const FEEDBACK: Endpoint<()> = row::<wire::Feedback, wire::FeedbackAnswer>(
    "feedback",
    "execution.feedback",
    "Take a user's verdict on an answer.",
);
const PURGE: Endpoint<()> =
    row::<wire::Purge, wire::PurgeAnswer>("purge", "execution.purge", "Delete what a tenant has, or what is older.");
const STATS: Endpoint<()> =
    row::<wire::Nothing, pipeline::Stats>("stats", "execution.stats", "Figures of a tenant's executions.");
const HEALTH: Endpoint<()> =
    row::<wire::Nothing, pipeline::Health>("health", "execution.health", "Health of this worker, per component.");
const TEMPLATE_LIST: Endpoint<()> = row::<wire::TemplateQuery, wire::TemplateList>(
    "template-list",
    "template.list",
    "The templates, all or those of a language and task type.",
);
const TEMPLATE_SHOW: Endpoint<()> = row::<wire::TemplateRef, pipeline::TemplateDetail>(
    "template-show",
    "template.show",
    "One template: its text and its figures.",
);
const TEMPLATE_SELECT: Endpoint<()> = row::<wire::TemplateChoice, pipeline::Selection>(
    "template-select",
    "template.select",
    "Which template a task would get, and why.",
);
const TEMPLATE_ANALYZE: Endpoint<()> = row::<wire::Nothing, pipeline::Analysis>(
    "template-analyze",
    "template.analyze",
    "How the templates do, from the recorded executions.",
);
const TEMPLATE_CHECK: Endpoint<()> = row::<wire::Nothing, wire::TemplateChecks>(
    "template-check",
    "template.check",
    "Whether each template's output parses.",
);
const CACHE_STATS: Endpoint<()> =
    row::<wire::Nothing, pipeline::CacheStats>("cache-stats", "cache.stats", "Figures of a tenant's cache.");
const CACHE_EXPLAIN: Endpoint<()> = row::<wire::Request, wire::CacheExplanation>(
    "cache-explain",
    "cache.explain",
    "The cached answers nearest to a request, and why each would be given or not.",
);
const CACHE_INVALIDATE: Endpoint<()> = row::<wire::Invalidate, wire::InvalidateAnswer>(
    "cache-invalidate",
    "cache.invalidate",
    "Take cached answers back, on all workers: by template, by task type, or all.",
);
const LLM_QUERY: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::ModelQuery, pipeline::ModelAnswer>("llm-query", "llm.query", "Ask a model.")
};
const LLM_PARALLEL: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::ModelBatch, pipeline::ModelAnswers>(
        "llm-parallel",
        "llm.parallel",
        "Ask models several questions at a time; failures stand beside successes.",
    )
};
const LLM_PIPELINE: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::ModelPipeline, pipeline::ModelSteps>(
        "llm-pipeline",
        "llm.pipeline",
        "Ask models questions after each other, each with the answer before it; the first failure ends it.",
    )
};

const LLM_STATS: Endpoint<()> = row::<wire::Nothing, pipeline::ModelStats>(
    "llm-stats",
    "llm.stats",
    "What a tenant's model calls came to: successes, failures, cost, time, tokens; by provider and model.",
);
const LLM_RESET: Endpoint<()> = row::<wire::Nothing, pipeline::ModelStats>(
    "llm-reset",
    "llm.reset",
    "Begin a tenant's statistics of model calls anew; what they were is the answer.",
);
const LLM_BUDGET: Endpoint<()> =
    row::<wire::Nothing, pipeline::Budgets>("llm-budget", "llm.budget", "How the budgets stand that bound a tenant.");

const WORKFLOW_START: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::WorkflowStart, wire::WorkflowStarted>(
        "workflow-start",
        "workflow.start",
        "Start a goal, several, or a graph of tasks; it goes on whatever happens to workers.",
    )
};
const WORKFLOW_DECOMPOSE: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::WorkflowDecompose, wire::WorkflowDecomposed>(
        "workflow-decompose",
        "workflow.decompose",
        "Take a goal apart into a graph of tasks, and start nothing.",
    )
};
const WORKFLOW_STATUS: Endpoint<()> = row::<wire::WorkflowQuery, wire::WorkflowStatus>(
    "workflow-status",
    "workflow.status",
    "How a workflow and its tasks stand, with their outputs.",
);
const WORKFLOW_LIST: Endpoint<()> = row::<wire::WorkflowFilter, wire::WorkflowList>(
    "workflow-list",
    "workflow.list",
    "A tenant's workflows, the newest first.",
);
const WORKFLOW_SHOW: Endpoint<()> = row::<wire::WorkflowRef, wire::WorkflowDetail>(
    "workflow-show",
    "workflow.show",
    "A workflow's graph, and what happened to each attempt.",
);
const WORKFLOW_CANCEL: Endpoint<()> = row::<wire::WorkflowRef, wire::WorkflowCommanded>(
    "workflow-cancel",
    "workflow.cancel",
    "End a workflow; what runs of it is broken off.",
);
const WORKFLOW_PAUSE: Endpoint<()> = row::<wire::WorkflowRef, wire::WorkflowCommanded>(
    "workflow-pause",
    "workflow.pause",
    "Begin nothing more of a workflow until it is resumed.",
);
const WORKFLOW_RESUME: Endpoint<()> = row::<wire::WorkflowRef, wire::WorkflowCommanded>(
    "workflow-resume",
    "workflow.resume",
    "Carry a paused workflow on.",
);
const WORKFLOW_RETRY: Endpoint<()> = row::<wire::WorkflowRef, wire::WorkflowCommanded>(
    "workflow-retry",
    "workflow.retry",
    "Do again what failed of a workflow; what is done stays done.",
);
const WORKFLOW_RECOMMEND: Endpoint<()> = Endpoint {
    lane: Lane::Work,
    ..row::<wire::RecommendQuery, wire::WorkflowAdvice>(
        "workflow-recommend",
        "workflow.recommend",
        "What records of past runs say of a workflow, and what the next run would be given.",
    )
};
const WORKFLOW_NOTIFY: Endpoint<()> = row::<wire::WorkflowNotify, wire::WorkflowNotified>(
    "workflow-notify",
    "workflow.notify",
    "Add an event of one's own to a workflow's; who listens hears of it in its place.",
);
const WORKFLOW_EVENTS: Endpoint<()> = row::<wire::EventQuery, wire::EventList>(
    "workflow-events",
    "workflow.events",
    "What happened in a workflow, after a number; or what is newest.",
);

const fn row<T: JsonSchema, G: JsonSchema>(
    name: &'static str,
    subject: &'static str,
    summary: &'static str,
) -> Endpoint<()> {
    Endpoint { name, subject, summary, lane: Lane::Query, takes: taken::<T>, gives: given::<G>, serve: () }
}

impl Endpoint<()> {
    pub(super) fn served(self, serve: impl Fn(Call) -> Served + Send + std::marker::Sync + 'static) -> Endpoint {
        let Self { name, subject, summary, lane, takes, gives, serve: () } = self;
        Endpoint { name, subject, summary, lane, takes, gives, serve: Box::new(serve) }
    }
}

/// Whose permits an endpoint takes: a worker that is full of work still answers queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Work,
    Query,
}

/// One message that may be answered.
pub struct Call {
    pub envelope: Envelope,
    pub now: Timestamp,
    /// For measuring; `now` is the same moment on the clock.
    pub received: Instant,
    message: async_nats::Message,
}

impl Call {
    pub(super) fn new(envelope: Envelope, now: Timestamp, received: Instant, message: async_nats::Message) -> Self {
        Self { envelope, now, received, message }
    }

    pub fn body(&self) -> &[u8] {
        &self.message.payload
    }
}

/// An answer's bytes; never empty.
pub struct Reply {
    pub(super) body: Vec<u8>,
    /// What can go in its place where the server can't carry it.
    pub(super) shorter: Option<Vec<u8>>,
}

impl Reply {
    pub fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        let bytes = serde_json::to_vec(value);
        let body = bytes.map_err(|error| Refusal::new(Code::Internal, format!("write the answer as JSON: {error}")))?;
        Ok(Self { body, shorter: None })
    }

    /// Where it has more bytes than `most`, with the shortened one at hand.
    pub(super) fn json_or_shorter<T: Serialize>(
        mut value: T,
        most: usize,
        shorten: impl FnOnce(&mut T),
    ) -> Result<Self, Refusal> {
        let reply = Self::json(&value)?;
        if reply.body.len() <= most {
            return Ok(reply);
        }
        shorten(&mut value);
        Ok(Self { shorter: Some(Self::json(&value)?.body), ..reply })
    }
}

/// What an endpoint makes of a call. It is asked on the receive loop, so it only reads and looks up.
pub enum Served {
    /// Known without waiting.
    Now(Result<Reply, Refusal>),
    /// Begun when there is a permit, given up after `timeout`.
    Later { work: BoxFuture<'static, Result<Reply, Refusal>>, timeout: Duration },
}

impl From<Refusal> for Served {
    fn from(refusal: Refusal) -> Self {
        Self::Now(Err(refusal))
    }
}

/// The [`TABLE`], served over the pipeline. `page` is where health and metrics are, to be told.
#[allow(clippy::too_many_arguments, reason = "each serves some of the table")]
pub fn all(
    pipeline: &Pipeline,
    flows: &Workflows,
    connection: &Connection,
    sync: &Sync,
    desk: &Desk,
    options: &Options,
    page: Option<SocketAddr>,
    repeats: &Repeats,
) -> Vec<Endpoint> {
    let p = || pipeline.clone();
    vec![
        request(p(), options, repeats.clone()),
        query((p(), sync.clone()), FEEDBACK, wire::feedback, |(p, sync), given, call| async move {
            judge(&p, &sync, given, &call).await
        }),
        query((p(), sync.clone(), repeats.clone()), PURGE, wire::purge, |(p, sync, repeats), given, call| async move {
            erase(&p, &sync, &repeats, given, &call).await
        }),
        query(
            p(),
            STATS,
            wire::nothing,
            |p, (), call| async move { Reply::json(&p.stats(&call.envelope.tenant).await?) },
        ),
        query(
            (p(), connection.clone(), desk.clone(), page),
            HEALTH,
            wire::nothing,
            |(p, nats, desk, page), (), _| async move {
                let (status, message) = match page {
                    Some(address) => (Status::Ok, Some(format!("http://{address}"))),
                    None => (Status::Off, None),
                };
                let page = ComponentHealth { status, message };
                let health = p.health().await.with("nats", nats.health()).with("submits", desk.health());
                Reply::json(&health.with("http", page))
            },
        ),
        query(p(), TEMPLATE_LIST, wire::template_query, |p, filter, _| async move {
            Reply::json(&wire::TemplateList { templates: p.templates(&filter) })
        }),
        query(p(), TEMPLATE_SHOW, wire::template_ref, |p, id, call| async move {
            let missing = || Refusal::at(Code::NotFound, "id", format!("there is no template '{id}'"));
            Reply::json(&p.template(&id, call.now).ok_or_else(missing)?)
        }),
        query(p(), TEMPLATE_SELECT, wire::template_choice, |p, choice, call| async move {
            let (tenant, language) = (&call.envelope.tenant, choice.language.as_deref());
            Reply::json(&p.select(tenant, &choice.task, language, call.now))
        }),
        query(
            p(),
            TEMPLATE_ANALYZE,
            wire::nothing,
            |p, (), call| async move { Reply::json(&p.analyze(call.now).await?) },
        ),
        query(p(), TEMPLATE_CHECK, wire::nothing, |p, (), _| async move {
            Reply::json(&wire::TemplateChecks { templates: p.check_templates() })
        }),
        query(p(), CACHE_STATS, wire::nothing, |p, (), call| async move {
            Reply::json(&p.cache_stats(&call.envelope.tenant))
        }),
        explain(p(), options),
        query((p(), sync.clone()), CACHE_INVALIDATE, wire::invalidate, |(p, sync), what, call| async move {
            take_back(&p, &sync, &what, &call).await
        }),
        models::query(LLM_QUERY, p(), connection.client.clone()),
        models::parallel(LLM_PARALLEL, p(), connection.client.clone()),
        models::steps(LLM_PIPELINE, p(), connection.client.clone()),
        query(p(), LLM_STATS, wire::nothing, |p, (), call| async move {
            Reply::json(&p.model_stats(&call.envelope.tenant, call.now).await?)
        }),
        query(p(), LLM_RESET, wire::nothing, |p, (), call| async move {
            Reply::json(&p.reset_model_stats(&call.envelope.tenant, call.now).await?)
        }),
        query(p(), LLM_BUDGET, wire::nothing, |p, (), call| async move {
            Reply::json(&p.model_budgets(&call.envelope.tenant, call.now).await?)
        }),
        workflows::start(WORKFLOW_START, flows.clone(), options),
        workflows::decompose(WORKFLOW_DECOMPOSE, flows.clone(), options),
        query(
            (flows.clone(), connection.client.clone()),
            WORKFLOW_STATUS,
            wire::workflow_query,
            |(w, client), wanted, call| async move { workflows::status(w, client, wanted, &call.envelope.tenant).await },
        ),
        query(flows.clone(), WORKFLOW_LIST, wire::workflow_filter, |w, filter, call| async move {
            let found = w.list(&call.envelope.tenant, &filter).await?;
            Reply::json(&wire::WorkflowList { workflows: found.iter().map(Into::into).collect() })
        }),
        query(flows.clone(), WORKFLOW_SHOW, wire::workflow_ref, |w, id, call| async move {
            workflows::show(w, id, &call.envelope.tenant).await
        }),
        query(flows.clone(), WORKFLOW_PAUSE, wire::workflow_ref, |w, id, call| async move {
            workflows::command(w, id, &call.envelope.tenant, Command::Pause).await
        }),
        query(flows.clone(), WORKFLOW_RESUME, wire::workflow_ref, |w, id, call| async move {
            workflows::command(w, id, &call.envelope.tenant, Command::Resume).await
        }),
        query(flows.clone(), WORKFLOW_CANCEL, wire::workflow_ref, |w, id, call| async move {
            workflows::command(w, id, &call.envelope.tenant, Command::Cancel).await
        }),
        query(flows.clone(), WORKFLOW_RETRY, wire::workflow_ref, |w, id, call| async move {
            workflows::command(w, id, &call.envelope.tenant, Command::Retry).await
        }),
        query(flows.clone(), WORKFLOW_RECOMMEND, wire::recommend_query, |w, wanted, call| async move {
            workflows::recommend(w, wanted, &call.envelope.tenant).await
        }),
        query(flows.clone(), WORKFLOW_NOTIFY, wire::workflow_notify, |w, noted, call| async move {
            workflows::notify(w, noted, &call.envelope.tenant).await
        }),
        query(flows.clone(), WORKFLOW_EVENTS, wire::event_query, |w, (id, after, limit), call| async move {
            let found = w.events(&call.envelope.tenant, id, after, limit).await?;
            Reply::json(&wire::EventList { events: found.into_iter().map(Into::into).collect() })
        }),
    ]
}

/// The main job.
fn request(pipeline: Pipeline, options: &Options, repeats: Repeats) -> Endpoint {
    let max_task = options.max_task_bytes;
    let serve = move |call: Call| {
        let read = || {
            let request = decode(&pipeline, &call, max_task)?;
            let name = pipeline.name(&request);
            Ok(Known { request, name })
        };
        let known = match repeats.body(&call.envelope.tenant, call.body(), read) {
            Ok(known) => known,
            Err(refusal) => return Refusal::into(refusal),
        };
        let mut request = Request { correlation_id: call.envelope.correlation_id.clone(), ..known.request.clone() };
        if let Some(reply) = pipeline.known(&request, &known.name, call.now) {
            return Served::Now(respond_again(reply, &repeats, &call));
        }
        let timeout = call.envelope.within(request.timeout, call.now);
        request.timeout = timeout;
        let pipeline = pipeline.clone();
        let work = async move { respond(pipeline.run(request, call.now).await?, &call) };
        Served::Later { work: Box::pin(work), timeout }
    };
    REQUEST.served(serve)
}

/// A verdict is acknowledged once no live worker serves what it withdrew or uses what it blocked.
async fn judge(pipeline: &Pipeline, sync: &Sync, given: wire::Judgement, call: &Call) -> Result<Reply, Refusal> {
    let (tenant, comment) = (&call.envelope.tenant, given.comment.as_deref());
    let judged = pipeline.feedback(tenant, &given.correlation_id, given.verdict, comment, call.now).await?;
    // The database has the verdict; workers that can't be told now read it there.
    if let Err(error) = sync.block().await {
        warn!(%error, "the other workers were not told of a verdict");
    }
    if !judged.withdrawn.is_empty()
        && let Err(error) = sync.withdraw(&judged.withdrawn).await
    {
        warn!(%error, "the other workers were not told of a withdrawal");
    }
    Reply::json(&wire::FeedbackAnswer {
        correlation_id: given.correlation_id.to_string(),
        verdict: given.verdict,
        changed: judged.changed,
        withdrawn: judged.withdrawn.len(),
        blocked: judged.blocked.into_iter().map(String::from).collect(),
    })
}

/// Memory first, on every worker, so that nothing of it is served or written afterwards; then the database.
async fn erase(
    pipeline: &Pipeline,
    sync: &Sync,
    repeats: &Repeats,
    given: wire::Erasure,
    call: &Call,
) -> Result<Reply, Refusal> {
    let tenant = &call.envelope.tenant;
    let age = i64::try_from(given.older_than.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let reach = Reach { until: Timestamp(call.now.0.saturating_sub(age)), whole: given.older_than.is_none() };
    let answer = |rows, complete, unconfirmed_workers| {
        let (tenant, dry_run) = (tenant.to_string(), given.dry_run);
        Reply::json(&wire::PurgeAnswer { tenant, dry_run, complete, rows, unconfirmed_workers })
    };
    if given.dry_run {
        return answer(pipeline.purgeable(tenant, reach).await?, true, 0);
    }
    if given.confirm.as_deref() != Some(tenant.as_str()) {
        let message = format!("'confirm' must be '{tenant}', the tenant of the subject");
        return Err(Refusal::at(Code::InvalidField, "confirm", message));
    }
    let missing = match sync.purge(tenant, reach.until).await {
        Ok(confirmed) => confirmed.missing.len(),
        Err(error) => {
            warn!(%error, "the other workers were not told of a purge");
            sync.live().len()
        }
    };
    repeats.forget();
    pipeline.forget(tenant, reach.until).await?;
    let purged = pipeline.purge(tenant, reach, call.now, PURGE_TIME).await?;
    if let Err(error) = sync.block().await {
        warn!(%error, "the other workers were not told of a purge");
    }
    info!(rows = purged.rows.named().iter().map(|(_, n)| n).sum::<u64>(), complete = purged.complete, "purged");
    answer(purged.rows, purged.complete, missing)
}

/// Memory first, on every worker, so that nothing of it is served or written afterwards; then the database.
async fn take_back(pipeline: &Pipeline, sync: &Sync, what: &Sweep, call: &Call) -> Result<Reply, Refusal> {
    let tenant = &call.envelope.tenant;
    pipeline.sweep_memory(tenant, call.now, what).await?;
    let missing = match sync.sweep(tenant, call.now, what).await {
        Ok(confirmed) => confirmed.missing.len(),
        Err(error) => {
            warn!(%error, "the other workers were not told that cached answers are taken back");
            sync.live().len()
        }
    };
    let swept = pipeline.sweep(tenant, call.now, what, Timestamp::now(), PURGE_TIME).await?;
    info!(withdrawn = swept.withdrawn, complete = swept.complete, "took cached answers back");
    Reply::json(&wire::InvalidateAnswer {
        tenant: tenant.to_string(),
        withdrawn: swept.withdrawn,
        complete: swept.complete,
        unconfirmed_workers: missing,
    })
}

fn explain(pipeline: Pipeline, options: &Options) -> Endpoint {
    let max_task = options.max_task_bytes;
    let serve = move |call: Call| {
        let request = match decode(&pipeline, &call, max_task) {
            Ok(request) => request,
            Err(refusal) => return refusal.into(),
        };
        let pipeline = pipeline.clone();
        let work = async move {
            let neighbours = pipeline.explain(&request.tenant, &request.goal, call.now).await?;
            let language = request.goal.language.to_string();
            Reply::json(&wire::CacheExplanation { language, neighbours, notes: request.notes })
        };
        Served::Later { work: Box::pin(work), timeout: QUERY_TIMEOUT }
    };
    CACHE_EXPLAIN.served(serve)
}

/// An endpoint that reads its body on the loop and answers under a permit.
fn query<S, T, F>(
    served_by: S,
    row: Endpoint<()>,
    read: fn(&[u8]) -> Result<T, Refusal>,
    answer: fn(S, T, Arc<Call>) -> F,
) -> Endpoint
where
    S: Clone + Send + std::marker::Sync + 'static,
    T: Send + 'static,
    F: Future<Output = Result<Reply, Refusal>> + Send + 'static,
{
    let serve = move |call: Call| match read(call.body()) {
        Err(refusal) => refusal.into(),
        Ok(given) => {
            let served_by = served_by.clone();
            let work = async move { answer(served_by, given, Arc::new(call)).await };
            Served::Later { work: Box::pin(work), timeout: QUERY_TIMEOUT }
        }
    };
    row.served(serve)
}

fn decode(pipeline: &Pipeline, call: &Call, max_task: usize) -> Result<Request, Refusal> {
    let _decoding = debug_span!("decode").entered();
    let decoded = wire::decode(call.body(), &call.envelope, max_task, |written, task, notes| {
        pipeline.read_language(written, task, notes)
    });
    decoded.map(|mut request| {
        if request.reply_to.take().is_some() {
            let note = "'reply_to' is for execution.submit; a request is answered on its reply subject";
            request.notes.push(note.to_owned());
        }
        request
    })
}

/// Writes the answer, and the one line that a request leaves in the log.
fn respond(reply: pipeline::Reply, call: &Call) -> Result<Reply, Refusal> {
    trace::note("method", reply.answer.method.as_str());
    let response = Response::new(reply.answer, &reply.correlation_id, call.received.elapsed());
    info!(
        method = response.method.as_str(),
        template = response.template_used.as_deref(),
        time_ms = response.metrics.time_ms,
        success = response.metrics.success,
        "answered"
    );
    Reply::json(&response)
}

/// As [`respond`], for what is given again and again: its line is for those who debug.
fn respond_again(reply: pipeline::Reply, repeats: &Repeats, call: &Call) -> Result<Reply, Refusal> {
    let entry = reply.answer.hit.as_ref().map(|hit| hit.entry);
    let mut response = Response::new(reply.answer, &reply.correlation_id, call.received.elapsed());
    if let (Some(entry), wire::Text::Plain(text)) = (entry, &response.result)
        && let Ok(json) = repeats.answer(entry, text)
    {
        response.result = wire::Text::Json(json);
    }
    trace::note("method", response.method.as_str());
    // The door makes one only where traces are sent.
    let span = Some(Span::current()).filter(|span| !span.is_none()).unwrap_or_else(|| {
        debug_span!(
            "request",
            correlation.id = %reply.correlation_id,
            trace.id = call.envelope.traceparent.as_deref().and_then(wire::trace_id),
            tenant = %call.envelope.tenant,
            endpoint = REQUEST.name
        )
    });
    span.in_scope(|| debug!(method = response.method.as_str(), time_ms = response.metrics.time_ms, "answered"));
    Reply::json(&response)
}

fn taken<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>()
}

/// As it is written: a field that is always there is required.
fn given<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// Two endpoints on one subject would each answer half of the requests.
pub(super) fn check(endpoints: &[Endpoint]) -> Result<(), Error> {
    for (i, endpoint) in endpoints.iter().enumerate() {
        let twice = endpoints[..i].iter().any(|e| e.subject == endpoint.subject || e.name == endpoint.name);
        if twice || endpoint.subject.contains(['*', '>', ' ']) || endpoint.subject.starts_with('$') {
            let why = format!("'{}' on '{}' stands twice or is no plain subject", endpoint.name, endpoint.subject);
            return Err(Error::Option { key: "endpoints", why });
        }
    }
    Ok(())
}
