//! Durable graphs: what is started here comes to its end on some worker, whatever happens to the others.
//!
//! The database is the truth. A worker claims steps under a lease, does them, and commits each end together with all that
//! follows from it. `docs/decisions/0013-workflows.md` says why nothing is dispatched over JetStream.

mod announce;
mod compose;
pub mod draw;
mod engine;
mod learn;
pub mod optimize;
mod options;
mod policy;
pub mod rules;
mod step;
mod subjects;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use announce::Announce;
pub use compose::{Aim, Wish};
pub use learn::is_given;
pub use options::Options;
pub use policy::Failure;
pub use step::{Given, Native, Question, Service};
pub use subjects::allowed;

use crate::coordinator::Coordinator;
use crate::domain::record::{Digest, hex};
use crate::domain::workflow::{Command, Event, Graph, GraphError, NotAllowed, RunOptions, State, Step, WorkflowId};
use crate::domain::{Language, RequestId, TaskId, Tenant, Timestamp};
use crate::store::workflows::{
    self, Attempts, Filter, Listed, Noticed, Publication, Start, Started, Status, StepStatus,
};
use crate::store::{self, Recorder, Store};
use engine::{Hands, Word};
use step::Runner;

/// Why a workflow could not be started, looked at or commanded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("this tenant has no workflow '{id}'")]
    Unknown { id: WorkflowId },
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("the id '{id}' was used to start something else; a new workflow needs a new id")]
    IdConflict { id: RequestId },
    #[error("this goal can't be made a workflow: {why}")]
    InvalidGoal { why: String },
    #[error("the goal could not be taken apart now: {why}")]
    NoDecomposer { why: String },
    #[error("this workflow keeps no events: it was started with 'monitoring' false")]
    NotMonitored,
    #[error(transparent)]
    NotOptimized(#[from] optimize::Refused),
    #[error("no step called '{name}' is built into this worker")]
    NoNative { task: TaskId, name: String },
    #[error("the database can't be asked now; try again")]
    Unavailable(#[source] Arc<store::Error>),
    #[error("this worker stops; try again")]
    Stopping,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Order {
    pub tenant: Tenant,
    /// The client's own id, with the hash of what it asks for: the same again is the same workflow.
    pub request: Option<(RequestId, Digest)>,
    pub goal: Option<Arc<str>>,
    pub graph: Arc<Graph>,
    pub options: RunOptions,
    /// Where the goal was taken apart for it: from when until when.
    pub decomposed: Option<(Timestamp, Timestamp)>,
    /// What records of earlier runs say of it.
    pub optimized: Option<Optimized>,
    /// It begins when this workflow of the same tenant is over, however that ends.
    pub follows: Option<WorkflowId>,
}

/// A workflow as it stands.
#[derive(Debug, Clone)]
pub struct Seen {
    pub listed: Listed,
    pub graph: Arc<Graph>,
    pub options: RunOptions,
    pub steps: Vec<StepStatus>,
}

/// What a workflow is, as long as it lives.
#[derive(Debug)]
struct Definition {
    id: WorkflowId,
    tenant: Tenant,
    options: RunOptions,
    graph: Arc<Graph>,
}

impl Definition {
    /// Limits may have been larger when it was started.
    fn read(found: Status, options: &Options) -> Result<Self, GraphError> {
        let mut limits = options.limits();
        limits.tasks = limits.tasks.max(found.nodes.len());
        limits.depth = usize::MAX;
        let Status { id, tenant, options, nodes } = found;
        Ok(Self { id, tenant, options, graph: Graph::new(nodes, &limits)?.into() })
    }

    fn key(&self, position: u32, task: &TaskId) -> String {
        format!("{}/{task}/{}", self.id, hex(&self.graph.definition(position)[..16]))
    }
}

/// The workflows of this worker and of all others on its database. Cheap to clone.
#[derive(Clone)]
pub struct Workflows {
    shared: Shared,
}

/// Clones are the same.
#[derive(Clone)]
struct Shared(Arc<Inner>);

impl Deref for Shared {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

struct Inner {
    worker: String,
    options: Options,
    store: Store,
    runner: Runner,
    workshop: Handle,
    definitions: moka::sync::Cache<i64, Arc<Definition>>,
    /// Of steps that ended here and have dependants: what the database has, too.
    outputs: moka::sync::Cache<(i64, u32), Arc<str>>,
    often_run: learn::OftenRun,
    plans: moka::future::Cache<learn::PlanKey, Arc<learn::Decided>>,
    hands: Hands,
    words: mpsc::UnboundedSender<Word>,
    /// There may be something to claim.
    wake: Notify,
    /// Transactions by which workflows went on or failed to, each with all that followed from it here.
    rounds: AtomicU64,
    /// Other workflows than those at hand may have steps to claim.
    others: AtomicBool,
    /// What this worker does is to be compared with the database.
    look: Notify,
    /// A pause is over.
    due: Notify,
    /// There may be events to publish.
    announced: Notify,
    /// Counts what other workers should look at.
    news: watch::Sender<u64>,
    /// Counts moments at which workflows of this worker ended.
    over: watch::Sender<u64>,
    /// When the last sign of life was given, in milliseconds after `begun`.
    beaten: AtomicU64,
    begun: Instant,
    stopping: CancellationToken,
    finished: CancellationToken,
}

impl Inner {
    /// Looks for steps to claim, whoever started their workflows.
    fn look_around(&self) {
        self.others.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn since_beat(&self) -> Duration {
        let last = Duration::from_millis(self.beaten.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }

    fn beaten(&self, at: Instant) {
        let ms = at.saturating_duration_since(self.begun).as_millis();
        self.beaten.fetch_max(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Tasks of workflows that are known without asking the database.
const KNOWN_TASKS: u64 = 500_000;
/// Bytes of outputs that are known without asking the database, what an entry takes beside its text, and for how long.
const KNOWN_OUTPUTS: u64 = 32 << 20;
const BESIDE: usize = 200;
const OUTPUT_KNOWN: Duration = Duration::from_secs(60);

impl Workflows {
    /// Begins to carry workflows on, by tasks among `tasks`. `worker` is this one's name among all; steps are done on
    /// `workshop`.
    #[allow(clippy::too_many_arguments, reason = "each is another room's")]
    pub fn start(
        tasks: &mut JoinSet<()>,
        worker: &str,
        options: Options,
        store: Store,
        coordinator: Coordinator,
        recorder: Recorder,
        default_language: Language,
        workshop: Handle,
    ) -> Self {
        let (words, heard) = mpsc::unbounded_channel();
        let definitions = moka::sync::Cache::builder()
            .weigher(|_, of: &Arc<Definition>| u32::try_from(of.graph.len()).unwrap_or(u32::MAX))
            .max_capacity(KNOWN_TASKS)
            .build();
        let outputs = moka::sync::Cache::builder()
            .weigher(|_, output: &Arc<str>| u32::try_from(output.len() + BESIDE).unwrap_or(u32::MAX))
            .max_capacity(KNOWN_OUTPUTS)
            .time_to_live(OUTPUT_KNOWN)
            .build();
        let shared = Shared(Arc::new(Inner {
            worker: worker.to_owned(),
            options,
            store,
            runner: Runner::new(coordinator, recorder, default_language),
            workshop,
            definitions,
            outputs,
            often_run: learn::often_run(),
            plans: learn::plans(),
            hands: Hands::default(),
            words,
            wake: Notify::new(),
            rounds: AtomicU64::new(0),
            others: AtomicBool::new(true),
            look: Notify::new(),
            due: Notify::new(),
            announced: Notify::new(),
            news: watch::Sender::new(0),
            over: watch::Sender::new(0),
            // Nothing is claimed before the first sign.
            beaten: AtomicU64::new(0),
            begun: Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or_else(Instant::now),
            stopping: CancellationToken::new(),
            finished: CancellationToken::new(),
        }));
        tasks.spawn(Box::pin(engine::write(shared.clone(), heard)));
        tasks.spawn(engine::live(shared.clone()));
        tasks.spawn(engine::sweep(shared.clone()));
        Self { shared }
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// How services of the user's are asked.
    pub fn serve(&self, service: Arc<dyn Service>) {
        self.shared.runner.serve(service);
    }

    /// Gives a name to a closure, for steps of the kind `native`. Every worker that may get such a step needs it.
    pub fn register<F>(&self, name: &str, native: impl Fn(Given) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<String, Failure>> + Send + 'static,
    {
        let native = move |given| -> BoxFuture<'static, Result<String, Failure>> { Box::pin(native(given)) };
        self.shared.runner.register(name, Arc::new(native));
    }

    /// When this returns, the workflow is in the database, and comes to its end.
    pub async fn launch(&self, order: Order) -> Result<WorkflowId, Error> {
        for node in order.graph.nodes() {
            if let Step::Native { name } = &node.step
                && !self.shared.runner.knows(name)
            {
                return Err(Error::NoNative { task: node.task.id.clone(), name: name.clone() });
            }
        }
        let Order { tenant, request, goal, graph, options, decomposed, optimized, follows } =
            self.learnt(order).await?;
        let id = WorkflowId::generate();
        let start =
            Start { id, tenant, request: request.clone(), goal, graph, options, decomposed, optimized, follows };
        let (told, outcome) = oneshot::channel();
        let stopping = |_| Error::Stopping;
        if self.shared.stopping.is_cancelled() {
            return Err(Error::Stopping);
        }
        self.shared.words.send(Word::Start(Box::new(start), told)).map_err(|_| Error::Stopping)?;
        match (outcome.await.map_err(stopping)??, request) {
            (Started::New(_), _) => Ok(id),
            (Started::Known(known), _) => Ok(known),
            (Started::Conflict, Some((id, _))) => Err(Error::IdConflict { id }),
            (Started::Conflict, None) => Err(Error::Stopping),
        }
    }

    pub async fn status(&self, tenant: &Tenant, id: WorkflowId) -> Result<Seen, Error> {
        let listed = self.find(tenant, id).await?;
        let steps = self.shared.store.workflow_steps(listed.number).await?;
        let definition = self.definition(listed.number, id).await?;
        // Looked at once more where it moved meanwhile: the steps may be newer than the whole, never older.
        Ok(Seen { listed, graph: definition.graph.clone(), options: definition.options.clone(), steps })
    }

    /// The workflow without its tasks.
    pub async fn find(&self, tenant: &Tenant, id: WorkflowId) -> Result<Listed, Error> {
        self.shared.store.find_workflow(tenant, id).await?.ok_or(Error::Unknown { id })
    }

    /// Outputs of these tasks, as JSON.
    pub async fn outputs(&self, number: i64, positions: &[u32]) -> Result<Vec<(u32, Arc<str>)>, Error> {
        Ok(self.shared.store.workflow_outputs(number, positions).await?)
    }

    pub async fn attempts(&self, number: i64) -> Result<Vec<Attempts>, Error> {
        Ok(self.shared.store.workflow_attempts(number).await?)
    }

    pub async fn list(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Listed>, Error> {
        Ok(self.shared.store.list_workflows(tenant, filter).await?)
    }

    /// Cancels, pauses, resumes or retries. What runs of a cancelled workflow is broken off, on every worker.
    pub async fn command(&self, tenant: &Tenant, id: WorkflowId, command: Command) -> Result<State, Error> {
        let done = self.shared.store.command_workflow(tenant, id, command).await?;
        let state = done.ok_or(Error::Unknown { id })??;
        self.heard();
        self.shared.announced.notify_one();
        self.shared.news.send_modify(|count| *count += 1);
        Ok(state)
    }

    /// Keeps a user's own event among the workflow's, and tells it to those who listen. Returns its number.
    pub async fn notify(&self, tenant: &Tenant, id: WorkflowId, notice: &Notice<'_>) -> Result<u64, Error> {
        match self.shared.store.notify_workflow(tenant, id, notice).await? {
            Some(Noticed::Kept(number)) => {
                self.shared.announced.notify_one();
                Ok(number)
            }
            Some(Noticed::NotMonitored) => Err(Error::NotMonitored),
            None => Err(Error::Unknown { id }),
        }
    }

    /// A workflow's events after a number, or the tenant's newest.
    pub async fn events(
        &self,
        tenant: &Tenant,
        id: Option<WorkflowId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let number = match id {
            Some(id) => Some(self.find(tenant, id).await?.number),
            None => None,
        };
        let found = self.shared.store.workflow_events(tenant, number, after, limit).await?;
        let mut events = Vec::with_capacity(found.len());
        for event in found {
            events.push(self.named(event).await);
        }
        Ok(events)
    }

    /// An event with the name of its task.
    async fn named(&self, found: Publication) -> Event {
        let Publication { of, workflow, tenant, number, at, kind, position, attempt, message, payload } = found;
        let task = match position {
            Some(position) => {
                let definition = self.definition(of, workflow).await.ok();
                definition.and_then(|d| d.graph.node(position).map(|node| node.task.id.clone()))
            }
            None => None,
        };
        Event { workflow, tenant, number, at, kind, task, attempt, message, payload }
    }

    async fn definition(&self, number: i64, id: WorkflowId) -> Result<Arc<Definition>, Error> {
        if let Some(known) = self.shared.definitions.get(&number) {
            return Ok(known);
        }
        let found = self.shared.store.workflow(number).await?.ok_or(Error::Unknown { id })?;
        let read = Definition::read(found, &self.shared.options);
        let definition = Arc::new(read.map_err(|_| Error::Unknown { id })?);
        self.shared.definitions.insert(number, definition.clone());
        Ok(definition)
    }

    /// Somebody says that there is something to do or to look at.
    pub fn heard(&self) {
        self.shared.look_around();
        self.shared.look.notify_one();
    }

    /// Changes when other workers should be told to look.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// Waits until a workflow is over, whichever worker ends it.
    pub async fn wait(&self, tenant: &Tenant, id: WorkflowId) -> Result<Summary, Error> {
        let mut over = self.shared.over.subscribe();
        loop {
            let found = self.find(tenant, id).await?;
            if found.state.is_over() {
                return Ok(found);
            }
            // What others end is not heard of.
            let _either = tokio::time::timeout(self.shared.options.pause(), over.changed()).await;
        }
    }

    /// Steps that are being done here.
    pub fn running(&self) -> usize {
        self.shared.hands.len()
    }

    /// Takes no more steps, ends those that run, and gives back what does not end within `grace`.
    pub async fn stop(&self, grace: Duration) {
        engine::end(&self.shared, grace).await;
    }
}

pub use workflows::{
    Attempts as Attempt, Filter as ListFilter, Listed as Summary, Notice, Optimized, StepStatus as StepState,
};
