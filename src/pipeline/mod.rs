//! One request from start to end: cache → coordinator → record.

mod figures;
mod flight;
mod models;
mod purge;
mod queries;
mod spending;
mod submit;
mod sweep;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use tracing::{Instrument, debug_span, warn};

pub use crate::coordinator::analyze::Analysis;
pub use figures::{CacheStats, ComponentHealth, Health, Percentiles, Stats, Status, rounded};
pub use models::{ModelAnswer, ModelAnswers, ModelError, ModelSteps};
pub use purge::Purged;
pub use queries::{Neighbour, Selection, TemplateCheck, TemplateDetail, TemplateFilter, TemplateInfo, check};
pub use spending::{BudgetPeriod, BudgetScope, BudgetState, Budgets, ModelFigures, ModelStats, Sums};
pub use submit::{Attempt, Submission};
pub use sweep::Swept;

use crate::cache::{Cache, Flights, Found, Key, Order};
use crate::coordinator::agent::likeliest_type;
use crate::coordinator::{Bounds, Coordinator, Plan, language_of, language_said, task_key};
use crate::domain::record::{Digest, EntryId, EntryKind, Execution, Verdict};
use crate::domain::{
    Answer, CacheMode, CorrelationId, Goal, Language, Method, Request, RequestId, Stage, TemplateId, Tenant, Timestamp,
    Watcher,
};
use crate::embed::Embedder;
use crate::store::{Claim, Recorder, Store, Write};
use crate::telemetry::meters;
use flight::{Landed, Made, Way};

/// What holds for every request.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The language of a task that names none. `elixir`, as in the source.
    pub default_language: Language,
    /// How many of the newest executions percentiles and trends look at.
    pub sample: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { default_language: Language::Elixir, sample: 10_000 }
    }
}

/// Why a request has no answer. A task that nothing could do has one: a fallback.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the id '{id}' was used for another request; take a new id, or send the same body")]
    IdConflict { id: RequestId },
    #[error("the time allowed is over; allow more with timeout_ms")]
    DeadlineExceeded,
    /// Another worker took this submit over. What this one made counts for nothing.
    #[error("another worker has taken this over")]
    Superseded,
    #[error("no answer with the correlation id '{id}' is known to this tenant")]
    UnknownCorrelationId { id: CorrelationId },
    #[error("the database can't be asked now; try again")]
    Unavailable(#[source] crate::store::Error),
    /// A paid answer that nobody could account for would be given for nothing after a crash.
    #[error("what the models were paid can't be written down, so their answer is not given: the database is away")]
    Unwritten(#[source] crate::store::Error),
    #[error("the embedding model is needed for this and is not there")]
    NoEmbedding(#[source] crate::cache::Error),
    #[error("a stored answer can't be read")]
    Damaged(#[source] serde_json::Error),
}

/// An answer with what its sender is told beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request that the answer was made for: a repeated `id` gets the first one's.
    pub correlation_id: CorrelationId,
    pub answer: Answer,
}

/// What a request is known by, in the cache and among what was found wrong. Costs more to make than a hit to serve.
#[derive(Debug, Clone)]
pub struct Name {
    key: Key,
    task_key: Digest,
}

/// What a verdict changed.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Judged {
    /// False where the same verdict was given before.
    pub changed: bool,
    /// Cache entries that no longer serve.
    #[schemars(with = "Vec<String>")]
    pub withdrawn: Vec<EntryId>,
    /// Templates that no longer answer this task for this tenant.
    pub blocked: Vec<TemplateId>,
}

/// The rooms that a request passes through. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    options: Arc<Options>,
    cache: Cache,
    coordinator: Coordinator,
    store: Store,
    recorder: Recorder,
    embedder: Option<Embedder>,
    /// Why there is no embedder, for health.
    embedding_problem: Option<Arc<str>>,
    running: Arc<std::sync::atomic::AtomicU64>,
    flights: Flights<Landed>,
    company: Arc<OnceLock<Box<Company>>>,
}

/// Whether there are other workers on the same database.
type Company = dyn Fn() -> bool + Send + Sync;

impl Pipeline {
    pub fn new(
        options: Options,
        coordinator: Coordinator,
        store: Store,
        recorder: Recorder,
        embedder: Result<Embedder, String>,
    ) -> Self {
        let (embedder, problem) = match embedder {
            Ok(embedder) => (Some(embedder), None),
            Err(problem) => (None, Some(problem.into())),
        };
        Self {
            options: Arc::new(options),
            cache: coordinator.agent().cache().clone(),
            coordinator,
            store,
            recorder,
            embedder,
            embedding_problem: problem,
            running: Arc::default(),
            flights: Flights::default(),
            company: Arc::default(),
        }
    }

    /// Says how to know whether other workers live. Where they do, they are asked before a model is.
    pub fn has_company(&self, others: impl Fn() -> bool + Send + Sync + 'static) {
        // Said once, by whoever wires the worker.
        let _ = self.company.set(Box::new(others));
    }

    /// The language of a task: as written, by any of its names; a misspelt one by its nearest name; else the one that
    /// the task's words name; else the configured one. A language that the task asks for by its name comes first. What was read otherwise than written is noted.
    pub fn read_language(&self, written: Option<&str>, task: &str, notes: &mut Vec<String>) -> Language {
        let Some(written) = written.map(str::trim).filter(|w| !w.is_empty()) else {
            return language_of(task).unwrap_or_else(|| self.options.default_language.clone());
        };
        if let Some(known) = Language::named(written) {
            let Some(said) = language_said(task, &known) else { return known };
            notes.push(format!("the task asks for {said}, so language '{}' was passed over", shown(written)));
            return said;
        }
        if let Some(nearest) = Language::nearest(written) {
            notes.push(format!("language '{}' was read as {nearest}", shown(written)));
            return nearest;
        }
        notes.push(format!(
            "there are no rules for language '{}'; only universal templates, the cache and a model can serve it",
            shown(written)
        ));
        Language::from(shown(written))
    }

    /// What a request is known by: the same for the same tenant, goal and configuration.
    pub fn name(&self, request: &Request) -> Name {
        Name {
            key: self.cache.key(&request.tenant, EntryKind::Request, &request.goal),
            task_key: task_key(&request.tenant, &request.goal),
        }
    }

    /// The answer if it is known without waiting for anything: an exact hit.
    pub fn known(&self, request: &Request, name: &Name, now: Timestamp) -> Option<Reply> {
        if request.id.is_some() || request.cache != CacheMode::Use {
            return None;
        }
        let started = Instant::now();
        let _looking = debug_span!("lookup", tier = "exact").entered();
        let found = self.cache.known_if(&name.key, now, |answer| self.may_serve(request, name, answer))?;
        Some(self.hit(request, name, found, started, now))
    }

    /// One request from start to end. Always ends by the request's deadline.
    pub async fn run(&self, request: Request, now: Timestamp) -> Result<Reply, Error> {
        let deadline = Instant::now() + request.timeout;
        let _running = Running::count(&self.running);
        let work = async {
            match request.id.clone() {
                Some(id) => self.once(&id, &request, deadline, now).await,
                None => self.answer(&request, deadline, now, &Watcher::default()).await,
            }
        };
        timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
            self.gave_up(&request, now);
            Err(Error::DeadlineExceeded)
        })
    }

    /// A user's verdict on an answer. When this returns, this worker no longer serves what was found wrong;
    /// `bus::Sync` makes the others follow before the verdict is acknowledged.
    pub async fn feedback(
        &self,
        tenant: &Tenant,
        correlation_id: &CorrelationId,
        verdict: Verdict,
        comment: Option<&str>,
        now: Timestamp,
    ) -> Result<Judged, Error> {
        // The verdict may come before the answer's own record is written.
        self.written().await?;
        let begun = Instant::now();
        let judgement = loop {
            let judged = self.store.judge(tenant, correlation_id, verdict, comment, now).await;
            match judged.map_err(Error::Unavailable)? {
                Some(judgement) => break judgement,
                // Another worker may have answered just now: its record comes with its next batch.
                None if begun.elapsed() < ELSEWHERE => tokio::time::sleep(ELSEWHERE / 10).await,
                None => return Err(Error::UnknownCorrelationId { id: correlation_id.clone() }),
            }
        };
        self.cache.remove(&judgement.withdrawn);
        self.reload_figures().await?;
        self.reload_blocks().await?;
        Ok(Judged {
            changed: judgement.changed,
            withdrawn: judgement.withdrawn,
            blocked: judgement.blocked.into_iter().map(|b| b.template).collect(),
        })
    }

    /// Takes over what all workers learnt of the templates.
    pub async fn reload_figures(&self) -> Result<(), Error> {
        let edges = self.store.edges().await.map_err(Error::Unavailable)?;
        self.coordinator.agent().figures().replace(edges);
        Ok(())
    }

    /// Takes over what all tenants said of answers: the templates they found wrong, and how cached answers fitted.
    pub async fn reload_blocks(&self) -> Result<(), Error> {
        let blocks = self.store.blocks().await.map_err(Error::Unavailable)?;
        self.coordinator.agent().replace_blocks(blocks);
        let verdicts = self.store.cache_verdicts(VERDICTS).await.map_err(Error::Unavailable)?;
        self.cache.replace_evidence(verdicts);
        Ok(())
    }

    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Once means once: the database's key on (tenant, id) decides which of several equal requests does the work.
    async fn once(&self, id: &RequestId, request: &Request, deadline: Instant, now: Timestamp) -> Result<Reply, Error> {
        let holder = &request.correlation_id;
        let tenant = &request.tenant;
        let begun = Instant::now();
        let clock = || now.plus(begun.elapsed());
        let claim = || self.store.claim(tenant, id, &request.body_hash, holder, clock(), LEASE);
        if let Some(reply) = self.win(id, request, clock, claim, &Watcher::default()).await? {
            return Ok(reply);
        }
        let renewing = async {
            loop {
                tokio::time::sleep(LEASE.mul_f64(0.3)).await;
                if let Err(error) = self.store.renew(tenant, id, holder, clock().plus(LEASE)).await {
                    warn!(%error, "an id's lease could not be prolonged");
                }
            }
        };
        let nobody = Watcher::default();
        let outcome = tokio::select! {
            outcome = self.answer(request, deadline, now, &nobody) => outcome,
            never = renewing => never,
        };
        // A fallback or an error leaves the id free: the next try may fare better.
        let kept = match &outcome {
            Ok(reply) if reply.answer.success => serde_json::to_string(reply).ok(),
            _ => None,
        };
        let settled = match kept {
            Some(reply) => self.store.settle(tenant, id, holder, &reply).await.map(|_| ()),
            None => self.store.release(tenant, id, holder).await.map(|_| ()),
        };
        if let Err(error) = settled {
            warn!(%error, "an id could not be settled; its lease will lapse");
        }
        outcome
    }

    /// Claims until this one wins, or another's reply is there. Where another worker is at it, its answer is this one's
    /// too: it is asked for until the caller's deadline.
    async fn win<F: Future<Output = Result<Claim, crate::store::Error>>>(
        &self,
        id: &RequestId,
        request: &Request,
        clock: impl Fn() -> Timestamp,
        claim: impl Fn() -> F,
        watcher: &Watcher,
    ) -> Result<Option<Reply>, Error> {
        let mut pause = Duration::from_millis(25);
        let mut standing = claim().await.map_err(Error::Unavailable)?;
        let mut waits = false;
        loop {
            match standing {
                Claim::Won => return Ok(None),
                Claim::Answered(reply) => return serde_json::from_str(&reply).map(Some).map_err(Error::Damaged),
                Claim::Conflict => return Err(Error::IdConflict { id: id.clone() }),
                Claim::Running { .. } => {}
            }
            if !std::mem::replace(&mut waits, true) {
                watcher.tell(Stage::Queued);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
            let seen = self.store.claimed(&request.tenant, id, &request.body_hash).await.map_err(Error::Unavailable)?;
            standing = match seen {
                Some(Claim::Running { until }) if until <= clock() => claim().await.map_err(Error::Unavailable)?,
                Some(standing) => standing,
                None => claim().await.map_err(Error::Unavailable)?,
            };
        }
    }

    async fn answer(
        &self,
        request: &Request,
        deadline: Instant,
        now: Timestamp,
        watcher: &Watcher,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        let name = self.name(request);
        let key = &name.key;
        let mut flight = None;
        if request.cache == CacheMode::Use {
            match self.join(request, &name, now).await {
                Way::Known(found) => {
                    watcher.tell(Stage::Deciding { method: Method::Cached });
                    return Ok(self.hit(request, &name, found, started, now));
                }
                Way::Shared(answer) => {
                    watcher.tell(Stage::Deciding { method: answer.method });
                    return Ok(self.shared(request, &name, *answer, started, now));
                }
                Way::Leads(lead) => flight = lead,
            }
        }
        let bounds = Bounds {
            tenant: request.tenant.clone(),
            correlation_id: request.correlation_id.clone(),
            cache: request.cache,
            max_cost: request.max_cost,
            // What is done by then is put together, stored and recorded in time.
            deadline: deadline - (request.timeout / 20).min(Duration::from_millis(50)),
        };
        let (plan, found) = self.look_up_and_plan(request, &name, now).await;
        if let Some(found) = found {
            watcher.tell(Stage::Deciding { method: Method::Cached });
            if let Some(flight) = flight {
                flight.land(Landed::Near(found.clone()));
            }
            return Ok(self.hit(request, &name, found, started, now));
        }
        let mut leading = None;
        if flight.is_some() && !plan.is_complete() {
            match self.lead(request, &name, now).await {
                Ok(lead) => leading = lead,
                Err(found) => {
                    watcher.tell(Stage::Deciding { method: Method::Cached });
                    if let Some(flight) = flight {
                        flight.land(Landed::Stored);
                    }
                    return Ok(self.hit(request, &name, found, started, now));
                }
            }
        }
        let method = if plan.is_complete() { Method::Autonomous } else { Method::LlmAssisted };
        watcher.tell(Stage::Deciding { method });
        let mut answer = self.coordinator.carry_out(&request.goal, plan, &bounds, now).await;
        answer.notes.splice(0..0, request.notes.iter().cloned());
        let made_in = std::mem::replace(&mut answer.time, started.elapsed());
        let entry = if request.cache != CacheMode::Off && answer.cacheable() {
            // Notes are about how this request was written, not about the answer.
            let stored = Answer { notes: vec![], ..answer.clone() };
            self.cache.put(key, Arc::new(stored), request.correlation_id.clone(), now)
        } else {
            None
        };
        if let Some(flight) = flight {
            flight.land(match entry {
                Some(_) => Landed::Stored,
                None => Landed::Made(Arc::new(Made::new(&answer, request, bounds.deadline))),
            });
        }
        meters().answered(&answer);
        self.record(request, &name, &answer, made_in, entry, now).await;
        if let Some(leading) = leading {
            leading.land(self);
        }
        Ok(Reply { correlation_id: request.correlation_id.clone(), answer })
    }

    /// The semantic tier and the rules side by side: the embedding has its own thread, the rules use this one.
    /// A scope without entries needs no embedding; nor does a sure rule where the order says `rules_first`.
    async fn look_up_and_plan(&self, request: &Request, name: &Name, now: Timestamp) -> (Plan, Option<Found>) {
        let plan = || debug_span!("plan").in_scope(|| self.coordinator.plan(&request.goal, &request.tenant, now));
        if request.cache != CacheMode::Use || !self.cache.has_neighbours(&name.key) {
            return (plan(), None);
        }
        let may = |answer: &Answer| self.may_serve(request, name, answer);
        let looking = self.cache.semantic_if(&name.key, now, may).instrument(debug_span!("lookup", tier = "semantic"));
        // A text that breaks the lookup costs the hit and nothing else.
        let looking = AssertUnwindSafe(looking).catch_unwind().map(|found| {
            found.unwrap_or_else(|_| {
                warn!("a lookup ended badly");
                Ok(None)
            })
        });
        let mut looking = Box::pin(looking);
        let (plan, found) = match self.cache.options().order {
            Order::CacheFirst => {
                // The first look queues the embedding, which has a thread of its own; the rules use this one meanwhile.
                let begun = futures::poll!(looking.as_mut());
                let plan = plan();
                let found = match begun {
                    Poll::Ready(found) => found,
                    Poll::Pending => looking.await,
                };
                (plan, found)
            }
            Order::RulesFirst => {
                let plan = plan();
                if plan.is_complete() {
                    return (plan, None);
                }
                (plan, looking.await)
            }
        };
        match found {
            Ok(found) => (plan, found),
            Err(error) => {
                warn!(%error, "the semantic tier can't be asked; the rest serves");
                (plan, None)
            }
        }
    }

    /// False where what made an answer, or a part of it, was changed since, or found wrong for what is asked now. (It may be
    /// right for the task that it was made for.)
    fn may_serve(&self, request: &Request, name: &Name, answer: &Answer) -> bool {
        let agent = self.coordinator.agent();
        !agent.is_outdated(answer) && !agent.is_found_wrong(answer, &request.goal, name.task_key, &request.tenant)
    }

    /// A request without an answer counts, too, and its id is free again.
    fn gave_up(&self, request: &Request, now: Timestamp) {
        self.note_expired(request, now);
        if let Some(id) = request.id.clone() {
            let (store, tenant, holder) = (self.store.clone(), request.tenant.clone(), request.correlation_id.clone());
            tokio::spawn(async move {
                if let Err(error) = store.release(&tenant, &id, &holder).await {
                    warn!(%error, "an id could not be freed; its lease will lapse");
                }
            });
        }
    }

    fn note_expired(&self, request: &Request, now: Timestamp) {
        let (task_type, language) = (likeliest_type(&request.goal), &request.goal.language);
        let reason = Error::DeadlineExceeded.to_string();
        let answer = Answer::new(Method::Fallback, task_type, language, String::new(), now).failed(reason);
        let answer = Answer { time: request.timeout, ..answer };
        meters().answered(&answer);
        let task_key = task_key(&request.tenant, &request.goal);
        let execution = self.execution(request, &request.goal, task_key, &answer, now);
        self.recorder.record(Write::Execution(execution));
    }

    /// An answer that was made for an equal request and could not be stored.
    fn shared(&self, request: &Request, name: &Name, answer: Answer, started: Instant, now: Timestamp) -> Reply {
        let mut answer = Answer { time: started.elapsed(), ..answer };
        answer.notes.extend(request.notes.iter().cloned());
        meters().answered(&answer);
        let execution = self.execution(request, &request.goal, name.task_key, &answer, now);
        self.recorder.record(Write::Execution(execution));
        Reply { correlation_id: request.correlation_id.clone(), answer }
    }

    fn hit(&self, request: &Request, name: &Name, found: Found, started: Instant, now: Timestamp) -> Reply {
        let mut answer = found.into_answer();
        answer.notes.clone_from(&request.notes);
        answer.time = started.elapsed();
        meters().answered(&answer);
        let execution = self.execution(request, &request.goal, name.task_key, &answer, now);
        self.recorder.record(Write::Execution(execution));
        Reply { correlation_id: request.correlation_id.clone(), answer }
    }

    /// The request and each of its parts. Where money was spent, or may have been, the record is written before the answer leaves.
    async fn record(
        &self,
        request: &Request,
        name: &Name,
        answer: &Answer,
        made_in: Duration,
        stored: Option<EntryId>,
        now: Timestamp,
    ) {
        for part in &answer.parts {
            let goal = Goal { description: part.description.clone(), ..(*request.goal).clone() };
            let execution = self.execution(request, &goal, task_key(&request.tenant, &goal), &part.answer, now);
            let execution = Execution { part: part.id.clone(), ..execution };
            self.recorder.record(Write::Execution(execution));
        }
        let whole = self.execution(request, &request.goal, name.task_key, answer, now);
        let whole = Execution { made_in, entry: whole.entry.or(stored), ..whole };
        if answer.cost.0 == 0 && answer.unknown.0 == 0 {
            self.recorder.record(Write::Execution(whole));
        } else if let Err(error) = self.recorder.record_durably(whole).instrument(debug_span!("commit")).await {
            warn!(%error, cost = %answer.cost, unknown = %answer.unknown, "what a model call cost could not be written down");
        }
    }

    /// Of the request as a whole; `goal` is its own or that of one of its parts.
    fn execution(
        &self,
        request: &Request,
        goal: &Goal,
        task_key: Digest,
        answer: &Answer,
        now: Timestamp,
    ) -> Execution {
        let id = &request.correlation_id;
        let whole = self.coordinator.execution(&request.tenant, id, goal, task_key, answer, now);
        Execution { kept: request.id.is_some(), ..whole }
    }
}

/// Verdicts on cached answers that are weighed, the newest.
const VERDICTS: u32 = 1_000;

/// How long an id stays taken after its worker's last sign of life.
const LEASE: Duration = Duration::from_secs(10);
/// How long a verdict waits for the record of its answer: ten times the default interval of another worker's recorder.
const ELSEWHERE: Duration = Duration::from_millis(500);

/// Counts what is being executed, whichever way it ends.
struct Running(Arc<std::sync::atomic::AtomicU64>);

impl Running {
    fn count(counter: &Arc<std::sync::atomic::AtomicU64>) -> Self {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
