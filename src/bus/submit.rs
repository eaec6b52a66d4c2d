//! Durable work: takes submits from the stream, as many as there are free permits, and sees each to its end.
//!
//! On a connection of its own: a frame that the client library can't read makes it reconnect, and those who wait for a
//! reply must not notice. What happens to one submit is in `job`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::job::{self, Job};
use super::reply::Allowed;
use super::streams::{self, SUBMIT, WORKERS};
use super::wire::Causes;
use super::{Connection, Error, Options, connect, endpoints, weed};
use crate::domain::Timestamp;
use crate::pipeline::{ComponentHealth, Pipeline, Status};
use crate::telemetry::Figures;

/// Without a tenant.
pub const SUBJECT: &str = "execution.submit";
/// Below these are submits, what is told of them, and events.
const DURABLE: [&str; 5] = [SUBJECT, "execution.result", "execution.progress", "execution.dead", "event"];

/// What this service listens on or speaks on by itself, without tenants: nobody is answered there.
pub(super) fn own_subjects() -> Vec<&'static str> {
    endpoints::TABLE.iter().map(|e| e.subject).chain([super::sync::SUBJECT]).chain(DURABLE).collect()
}

/// How long one pull waits for work before it is renewed.
const PULL: Duration = Duration::from_secs(10);
/// A pull whose end is not told by then is lost.
const SILENCE: Duration = Duration::from_secs(12);
/// After the server refused a pull.
const PAUSE: Duration = Duration::from_millis(250);
/// Between looks for streams that are not there: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// Between looks for a database that is away: at first, and at most.
const PROBE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// For the last acknowledgements.
const FAREWELL: Duration = Duration::from_secs(1);

/// The worker's part in durable work. Dropping it is a crash; [`Submits::stop`] is the way out.
pub struct Submits {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// How durable work stands, for health and statistics. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Shared>);

/// What became of submits at this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counted {
    /// Results published; an error is one too.
    pub done: u64,
    /// Set aside as dead letters.
    pub dead: u64,
    /// Deliveries that were not the first of their submit.
    pub redelivered: u64,
    /// Attempts that failed by a fault of this worker and are tried again.
    pub retried: u64,
    /// Work whose claim another worker had taken over: neither answered nor acknowledged here.
    pub superseded: u64,
    /// Wishes for an answer on a subject that is not allowed.
    pub refused_replies: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) done: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) refused_replies: AtomicU64,
}

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) pipeline: Pipeline,
    pub(super) allowed: Allowed,
    pub(super) counts: Counts,
    pub(super) clock: fn() -> Timestamp,
    /// Nothing more is begun.
    pub(super) stopping: CancellationToken,
    /// What still runs is given back.
    pub(super) give_up: CancellationToken,
    pub(super) hand: Hand,
    permits: Arc<Semaphore>,
    /// For what may be poison: one at a time.
    suspects: Arc<Semaphore>,
    standing: watch::Sender<Standing>,
    away: watch::Sender<bool>,
    /// Up to where the stream was searched for what can't be read.
    pub(super) searched: tokio::sync::Mutex<u64>,
    /// How many results wait for a stream that does not take them.
    pub(super) unpublished: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Off,
    Starting,
    Serving,
    /// Not served, and why; tried again.
    Down(String),
}

/// What jobs do their work with, as long as one connection and its streams stand.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) context: Context,
    pub(super) ack_wait: Duration,
    pub(super) progress: mpsc::Sender<(Subject, Vec<u8>)>,
}

/// The submits that this worker has in hand, by their place in the stream, with the subject that the newest delivery is
/// acknowledged on: one that is delivered again while it is being done is not done twice.
#[derive(Default)]
pub(super) struct Hand(Mutex<HashMap<Place, Subject>>);

/// A message's place in the stream. The time tells it from that of a stream that was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) published: i64,
}

impl Hand {
    /// False where it is in hand already.
    pub(super) fn take(&self, place: Place, acknowledge: Subject) -> bool {
        self.lock().insert(place, acknowledge).is_none()
    }

    pub(super) fn acknowledge(&self, place: Place) -> Option<Subject> {
        self.lock().get(&place).cloned()
    }

    pub(super) fn put_down(&self, place: Place) -> Option<Subject> {
        self.lock().remove(&place)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Subject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submits {
    /// Begins to take submits as soon as the streams are there. Comes back when that is known, or after two seconds: a
    /// worker serves requests whether or not there is durable work.
    pub async fn open(pipeline: Pipeline, options: &Options, clock: fn() -> Timestamp) -> Self {
        let permits = options.max_concurrent_submits;
        let standing = if permits == 0 { Standing::Off } else { Standing::Starting };
        let shared = Arc::new(Shared {
            options: Options { name: format!("{}-submits", options.name), ..options.clone() },
            pipeline,
            allowed: Allowed::new(options.reply_prefixes.clone(), own_subjects()),
            counts: Counts::default(),
            clock,
            stopping: CancellationToken::new(),
            give_up: CancellationToken::new(),
            hand: Hand::default(),
            permits: Arc::new(Semaphore::new(permits)),
            suspects: Arc::new(Semaphore::new(1)),
            standing: watch::Sender::new(standing),
            away: watch::Sender::new(false),
            searched: tokio::sync::Mutex::new(0),
            unpublished: AtomicUsize::new(0),
        });
        let task = (permits > 0).then(|| tokio::spawn(run(shared.clone())));
        let mut known = shared.standing.subscribe();
        let _ = tokio::time::timeout(Duration::from_secs(2), known.wait_for(|s| *s != Standing::Starting)).await;
        Self { shared, task }
    }

    pub fn desk(&self) -> Desk {
        Desk(self.shared.clone())
    }

    /// Begins nothing more, finishes what runs, and gives back at once what was not begun. What still runs at the
    /// deadline is given back too.
    pub async fn stop(mut self, deadline: Duration) {
        self.shared.stopping.cancel();
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            warn!("submits were still running at the deadline; other workers take them over");
            self.shared.give_up.cancel();
            if tokio::time::timeout(2 * FAREWELL, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for Submits {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Desk {
    pub fn health(&self) -> ComponentHealth {
        let shared = &self.0;
        let say = |status, message: String| ComponentHealth { status, message: Some(message) };
        let unpublished = shared.unpublished.load(Ordering::Relaxed);
        match &*shared.standing.borrow() {
            Standing::Off => say(Status::Off, "nats.max_concurrent_submits is 0".to_owned()),
            Standing::Starting => say(Status::Degraded, "looking for the streams".to_owned()),
            Standing::Down(why) => say(Status::Down, why.clone()),
            Standing::Serving if *shared.away.borrow() => {
                say(Status::Degraded, "submits wait: the database is away".to_owned())
            }
            Standing::Serving if unpublished > 0 => {
                say(Status::Degraded, format!("{unpublished} results could not be published yet"))
            }
            Standing::Serving => ComponentHealth { status: Status::Ok, message: None },
        }
    }

    /// Adds what operators see of it.
    pub fn write(&self, figures: &mut Figures) {
        let Counted { done, dead, redelivered, retried, superseded, refused_replies } = self.counted();
        figures.submits = [done, dead, redelivered, retried, superseded, refused_replies];
    }

    pub fn counted(&self) -> Counted {
        let counts = &self.0.counts;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            done: load(&counts.done),
            dead: load(&counts.dead),
            redelivered: load(&counts.redelivered),
            retried: load(&counts.retried),
            superseded: load(&counts.superseded),
            refused_replies: load(&counts.refused_replies),
        }
    }
}

impl Shared {
    /// Waits while the database is away. The first that finds it so sees to it that it is asked for.
    pub(super) async fn wait_for_database(self: &Arc<Self>, found_away: bool) {
        if found_away && self.away.send_if_modified(|away| !std::mem::replace(away, true)) {
            warn!("submits wait: the database is away");
            tokio::spawn(probe(self.clone()));
        }
        // The sender is in `self`.
        let _ = self.away.subscribe().wait_for(|away| !*away).await;
    }

    fn down(&self, why: String) {
        if *self.standing.borrow() != Standing::Down(why.clone()) {
            error!("submits are not served, and are tried again: {why}");
            self.standing.send_replace(Standing::Down(why));
        }
    }

    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().acquire_owned().await.ok()
    }

    pub(super) async fn alone(&self) -> Option<OwnedSemaphorePermit> {
        self.suspects.clone().acquire_owned().await.ok()
    }
}

async fn probe(shared: Arc<Shared>) {
    let mut pause = PROBE.0;
    loop {
        tokio::select! {
            () = shared.give_up.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))) => {}
        }
        if shared.pipeline.database_answers().await.is_ok() {
            info!("the database is back; submits go on");
            shared.away.send_replace(false);
            return;
        }
        pause = (pause * 2).min(PROBE.1);
    }
}

/// Why serving came to an end.
enum Left {
    Stopping,
    Lost(String),
}

/// Looks for the streams, serves while they are there, and looks again.
async fn run(shared: Arc<Shared>) {
    let mut jobs = JoinSet::new();
    let mut connection: Option<Connection> = None;
    let mut broken = false;
    let mut pause = LOOK.0;
    loop {
        if connection.take_if(|connection| connection.signs.has_ended()).is_some() {
            // What it was sent may be what ended it.
            broken = true;
        }
        let tried = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => break,
            tried = prepare(&shared, &mut connection) => tried,
        };
        match tried {
            Ok(lane) => {
                pause = LOOK.0;
                if std::mem::take(&mut broken) {
                    jobs.spawn(weed::weed(lane.clone()));
                }
                match serve(&lane, &mut jobs).await {
                    Left::Stopping => break,
                    Left::Lost(why) => shared.down(why),
                }
            }
            Err(error) => shared.down(Causes(&error).to_string()),
        }
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => break,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..1.3))) => {}
        }
        pause = (pause * 2).min(LOOK.1);
    }
    while jobs.join_next().await.is_some() {}
    if let Some(Connection { client, .. }) = connection {
        let _ = tokio::time::timeout(FAREWELL, client.flush()).await;
    }
    info!(submits = ?Desk(shared).counted(), "no more submits are taken");
}

async fn prepare(shared: &Arc<Shared>, connected: &mut Option<Connection>) -> Result<Arc<Lane>, Error> {
    let options = &shared.options;
    let connection = match connected {
        Some(connection) => connection.clone(),
        None => connected.insert(connect(options).await?).clone(),
    };
    let client = &connection.client;
    let standing = streams::provide(client, options.provision, &options.streams, options.ack_wait()).await?;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(Duration::from_secs(5));
    let (progress, told) = mpsc::channel(1024);
    tokio::spawn(job::tell(client.clone(), told));
    let ack_wait = standing.ack_wait;
    Ok(Arc::new(Lane { shared: shared.clone(), connection, context, ack_wait, progress }))
}

/// Pulls and starts jobs, until it is to stop or the consumer is lost.
async fn serve(lane: &Arc<Lane>, jobs: &mut JoinSet<()>) -> Left {
    let shared = &lane.shared;
    let client = &lane.connection.client;
    let inbox = client.new_inbox();
    let mut messages = match client.subscribe(inbox.clone()).await {
        Ok(messages) => messages,
        Err(error) => return Left::Lost(format!("listen for submits: {error}")),
    };
    let mut pulls = Pulls::new(lane, inbox);
    let mut connected = lane.connection.signs.connected();
    connected.mark_unchanged();
    let mut away = shared.away.subscribe();
    shared.standing.send_replace(Standing::Serving);
    info!("submits are served");
    let left = loop {
        let may_pull = !*away.borrow_and_update() && pulls.wanted();
        let silent = pulls.silent_at();
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => break Left::Stopping,
            message = messages.next() => match message {
                None => break Left::Lost("the subscription ended".to_owned()),
                Some(message) if message.subject.as_str() == pulls.inbox => {
                    if let Some(why) = pulls.told(&message) {
                        break Left::Lost(why);
                    }
                }
                Some(message) => {
                    let permit = pulls.reserved.pop();
                    if let Some(job) = Job::new(lane, message) {
                        jobs.spawn(job.run(permit));
                    }
                }
            },
            Some(permit) = shared.permit(), if may_pull => {
                if let Err(error) = pulls.pull(permit).await {
                    break Left::Lost(format!("ask for submits: {error}"));
                }
            }
            Some(_) = jobs.join_next(), if !jobs.is_empty() => {}
            _ = away.changed() => {}
            changed = connected.changed() => {
                if changed.is_err() {
                    break Left::Lost("the connection ended".to_owned());
                }
                // The server has forgotten what was asked for. And what it sent may be what broke the connection.
                pulls.forget();
                jobs.spawn(weed::weed(lane.clone()));
            }
            () = tokio::time::sleep_until(silent) => {
                if pulls.silence() {
                    break Left::Lost("the server does not answer when it is asked for submits".to_owned());
                }
            }
        }
    };
    pulls.forget();
    give_back(lane, messages).await;
    left
}

/// What was sent but not begun goes to another worker at once.
async fn give_back(lane: &Arc<Lane>, messages: Subscriber) {
    let each = |message: Message| async move {
        let Some(job) = Job::new(lane, message) else { return };
        job.give_back().await;
    };
    lane.connection.drain(messages, each).await;
}

/// The pulls under way: how much was asked for, and the permits that are kept for it.
struct Pulls<'a> {
    lane: &'a Lane,
    inbox: String,
    reserved: Vec<OwnedSemaphorePermit>,
    /// When the last was sent.
    asked: Instant,
    not_before: Instant,
    silences: u32,
}

impl<'a> Pulls<'a> {
    fn new(lane: &'a Lane, inbox: String) -> Self {
        let now = Instant::now();
        Self { lane, inbox, reserved: vec![], asked: now, not_before: now, silences: 0 }
    }

    /// Not for each permit that becomes free, so that many short jobs don't make as many pulls.
    fn wanted(&self) -> bool {
        let shared = &self.lane.shared;
        let enough = (shared.options.max_concurrent_submits / 4).max(1);
        Instant::now() >= self.not_before && (self.reserved.is_empty() || shared.permits.available_permits() >= enough)
    }

    /// Asks for as much as there are permits, `first` and all others that are free.
    async fn pull(&mut self, first: OwnedSemaphorePermit) -> Result<(), async_nats::PublishError> {
        let permits = &self.lane.shared.permits;
        let mut taken = vec![first];
        while let Ok(permit) = permits.clone().try_acquire_owned() {
            taken.push(permit);
        }
        let body = format!(r#"{{"batch":{},"expires":{}}}"#, taken.len(), PULL.as_nanos());
        self.reserved.append(&mut taken);
        self.asked = Instant::now();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{SUBMIT}.{WORKERS}");
        self.lane.connection.client.publish_with_reply(subject, self.inbox.clone(), body.into()).await
    }

    /// What the server says about a pull; `Some` where there is nothing to pull from any more.
    fn told(&mut self, message: &Message) -> Option<String> {
        self.silences = 0;
        let status = message.status.unwrap_or(StatusCode::OK);
        let said = message.description.as_deref().unwrap_or_default();
        match status.as_u16() {
            100 => {}
            408 => {
                let pending = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages"));
                match pending.and_then(|count| count.as_str().parse::<usize>().ok()) {
                    Some(unused) => self.reserved.truncate(self.reserved.len().saturating_sub(unused)),
                    None => self.forget(),
                }
            }
            503 => return Some(format!("the consumer {WORKERS} of the stream {SUBMIT} is not there")),
            code => {
                debug!(code, "a pull was refused: {said}");
                self.forget();
                self.not_before = Instant::now() + PAUSE;
                if said.contains("Deleted") {
                    return Some(format!("the consumer {WORKERS} of the stream {SUBMIT} was deleted"));
                }
            }
        }
        None
    }

    fn forget(&mut self) {
        self.reserved.clear();
    }

    /// When to look again: for an answer that does not come, or for the end of a pause.
    fn silent_at(&self) -> Instant {
        let now = Instant::now();
        if self.not_before > now {
            self.not_before
        } else if self.reserved.is_empty() {
            now + SILENCE
        } else {
            self.asked + SILENCE
        }
    }

    /// True where the server was silent twice.
    fn silence(&mut self) -> bool {
        if self.reserved.is_empty() || self.asked + SILENCE > Instant::now() {
            return false;
        }
        self.forget();
        self.silences += 1;
        self.silences > 1 && self.lane.connection.is_connected()
    }
}
