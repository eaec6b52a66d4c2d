//! Receives, sheds, answers and stops.
//!
//! One task per subscription reads. It decodes, gives what is known at once, and starts the rest under a permit; with
//! no permit left the sender is told so at once. Where more comes than it can read, the server is told to send it
//! elsewhere (`window.rs`), so the library's buffer, which drops without a word, never overflows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::Message;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, info_span, warn};

use super::endpoints::{self, Call, Endpoint, Lane, Reply, Served};
use super::objects;
use super::permits::{self, Permits};
use super::reply::{Allowed, Back, Unsent};
use super::service::{self, Tally};
use super::streams::Provision;
use super::window::Window;
use super::wire::{self, Code, Envelope, Refusal};
use super::{Connection, Desk, Error, Instance, NAME, Options};
use crate::domain::Timestamp;
use crate::telemetry::{Figures, meters, trace};

/// What an endpoint's own deadline gets before the door speaks for it.
const GRACE: Duration = Duration::from_millis(100);
/// For telling senders that their request is given up when the door closes.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a shed sender is told while nothing was measured yet.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// The open door. Dropping it stops reading without draining; [`Door::stop`] is the way out that loses nothing.
pub struct Door {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    closing: CancellationToken,
}

/// How a door closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that were given up at the deadline; their senders were told 503.
    pub given_up: usize,
    /// False where the deadline passed before all subscriptions were drained or all replies sent.
    pub drained: bool,
}

/// What a door counts. It keeps nothing open.
#[derive(Clone)]
pub struct DoorCounts(Arc<Shared>);

impl DoorCounts {
    /// As of now, into `figures`.
    pub fn write(&self, figures: &mut Figures) {
        let Shared { counts, connection, work, queries, .. } = &*self.0;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.work = work.taken();
        figures.queries = queries.taken();
        figures.shed = of(&counts.shed);
        figures.over_share = of(&counts.over_share);
        figures.refused_replies = of(&counts.refused_replies);
        figures.panics = of(&counts.panics);
        figures.unsent = of(&counts.unsent);
        figures.dropped = connection.signs.dropped();
        // The first connect is none that was made anew.
        figures.nats_reconnects = connection.client.statistics().connects.load(Ordering::Relaxed).saturating_sub(1);
    }
}

pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) instance: Instance,
    pub(super) endpoints: Vec<(Endpoint, Tally)>,
    /// What `$SRV.INFO` tells, from the first time that it is asked.
    pub(super) info: OnceLock<Vec<service::EndpointInfo>>,
    pub(super) counts: Counts,
    /// What `$SRV.STATS` tells of durable work.
    pub(super) desk: OnceLock<Desk>,
    pub(super) opened: Timestamp,
    workshop: Handle,
    allowed: Allowed,
    clock: fn() -> Timestamp,
    max_body: usize,
    provision: Provision,
    pub(super) work: Permits,
    pub(super) queries: Permits,
    give_up: CancellationToken,
}

/// What happened at this door beside answering.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) shed: AtomicU64,
    /// Of them: those that another tenant would have been served.
    pub(super) over_share: AtomicU64,
    pub(super) refused_replies: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) unsent: AtomicU64,
}

impl Door {
    /// Subscribes to everything in `endpoints`; when this returns, the server knows all subscriptions. `clock` is asked
    /// once per message.
    pub async fn open(
        connection: Connection,
        instance: Instance,
        endpoints: Vec<Endpoint>,
        options: &Options,
        clock: fn() -> Timestamp,
    ) -> Result<Self, Error> {
        Self::open_with(connection, instance, endpoints, options, clock, Handle::current()).await
    }

    /// [`Self::open`], with the work done on another runtime: where work keeps every thread busy, those that read must
    /// still get their turn, or a full worker says so late.
    pub async fn open_with(
        connection: Connection,
        instance: Instance,
        endpoints: Vec<Endpoint>,
        options: &Options,
        clock: fn() -> Timestamp,
        workshop: Handle,
    ) -> Result<Self, Error> {
        options.check()?;
        endpoints::check(&endpoints)?;
        let own = endpoints.iter().map(|e| e.subject).chain(super::submit::own_subjects()).collect();
        let shared = Arc::new(Shared {
            workshop,
            allowed: Allowed::new(options.reply_prefixes.clone(), own),
            endpoints: endpoints.into_iter().map(|endpoint| (endpoint, Tally::default())).collect(),
            info: OnceLock::new(),
            counts: Counts::default(),
            desk: OnceLock::new(),
            opened: clock(),
            clock,
            max_body: options.max_body_bytes,
            provision: options.provision,
            work: Permits::new(options.max_concurrent, options.max_concurrent_per_tenant),
            queries: Permits::new(options.max_concurrent_queries, options.max_queries_per_tenant()),
            give_up: CancellationToken::new(),
            connection,
            instance,
        });
        let mut door = Self { shared: shared.clone(), readers: vec![], closing: CancellationToken::new() };
        for (index, (endpoint, _)) in shared.endpoints.iter().enumerate() {
            for subject in [endpoint.subject.to_owned(), format!("{}.*", endpoint.subject)] {
                let window = Window::open(&shared.connection, subject, NAME.to_owned(), options.subscription_capacity);
                door.read(window.await?, move |shared, message| async move { shared.receive(index, message).await });
            }
        }
        for (verb, subject) in service::subjects(&shared.instance) {
            // Every worker answers: the group is its own.
            let group = shared.instance.to_string();
            let window = Window::open(&shared.connection, subject, group, options.subscription_capacity);
            door.read(window.await?, move |shared, message| async move { shared.describe(verb, message).await });
        }
        shared.connection.echo().await?;
        info!(instance = %shared.instance, endpoints = shared.endpoints.len(), "the door is open");
        Ok(door)
    }

    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// Tells of durable work too, in `$SRV.STATS`.
    pub fn tells_of(&self, desk: Desk) {
        // Said once, by whoever wires the worker.
        let _ = self.shared.desk.set(desk);
    }

    /// How many requests and queries are being done now.
    pub fn in_flight(&self) -> usize {
        self.shared.work.taken() + self.shared.queries.taken()
    }

    /// What this door counts, for whoever asks later.
    pub fn counts(&self) -> DoorCounts {
        DoorCounts(self.shared.clone())
    }

    /// Takes no more requests, answers those that came before, and flushes. What still runs at the deadline is given up
    /// and its senders are told. The connection stays open; close it afterwards.
    pub async fn stop(mut self, deadline: Duration) -> Stopped {
        let end = tokio::time::Instant::now() + deadline;
        // Subscriptions first: draining the client before its work was done lost replies.
        self.closing.cancel();
        let readers = futures::future::join_all(self.readers.drain(..));
        let drained = tokio::time::timeout_at(end, readers).await.is_ok();
        let shared = &self.shared;
        let idle = tokio::time::timeout_at(end, shared.idle()).await.is_ok();
        let given_up = if idle { 0 } else { self.in_flight() };
        if !idle {
            warn!(door.given_up = given_up, "requests were still running at the deadline");
            shared.give_up.cancel();
            let told = tokio::time::timeout(FAREWELL, shared.idle()).await;
            if told.is_err() {
                error!("some senders could not be told that their request was given up");
            }
        }
        let flushed = tokio::time::timeout(FAREWELL, shared.connection.client.flush()).await;
        let drained = drained && matches!(flushed, Ok(Ok(())));
        info!(door.drained = drained, door.given_up = given_up, "the door is closed");
        Stopped { given_up, drained }
    }

    fn read<F>(&mut self, window: Window, each: impl Fn(Arc<Shared>, Message) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (shared, closing) = (self.shared.clone(), self.closing.clone());
        let each = move |message| each(shared.clone(), message);
        self.readers.push(tokio::spawn(read(window, closing, each)));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

/// Reads until `closing` is cancelled, then drains.
async fn read<F: Future<Output = ()>>(mut window: Window, closing: CancellationToken, each: impl Fn(Message) -> F) {
    {
        let mut closed = std::pin::pin!(closing.cancelled());
        while window.refill().await {
            tokio::select! {
                biased;
                () = &mut closed => break,
                message = window.next() => if let Some(message) = message {
                    each(message).await;
                },
            }
        }
    }
    window.drain(each).await;
}

impl Shared {
    /// All permits are free: nothing runs and every reply is on its way.
    async fn idle(&self) {
        self.work.all_free().await;
        self.queries.all_free().await;
    }

    async fn receive(self: Arc<Self>, index: usize, message: Message) {
        let received = Instant::now();
        let (endpoint, tally) = &self.endpoints[index];
        tally.request();
        let Some(to) = self.reply_of(&message) else { return tally.error("no subject to reply to that is allowed") };
        let now = (self.clock)();
        let (envelope, checked) = Envelope::read(endpoint.subject, &message.subject, message.headers.as_ref(), now);
        let (tenant, correlation_id) = (envelope.tenant.clone(), envelope.correlation_id.clone());
        let sender = envelope.traceparent.clone();
        let span = || {
            let span = info_span!(
                "request",
                correlation.id = %correlation_id,
                trace.id = sender.as_deref().and_then(wire::trace_id),
                tenant = %tenant,
                endpoint = endpoint.name
            );
            trace::adopt(&span, sender.as_deref());
            span
        };
        // Where no traces are sent, what is known at once needs no span: making one costs more than the answer.
        let early = trace::is_on().then(&span);
        let back = Back::new(to, &envelope, early.as_ref().and_then(trace::traceparent));

        let call = Call::new(envelope, now, received, message);
        let served = match checked.and_then(|()| self.body_fits(&call)) {
            Err(refusal) => refusal.into(),
            Ok(()) => {
                let _entered = early.as_ref().map(Span::enter);
                let served = catch_unwind(AssertUnwindSafe(|| (endpoint.serve)(call)));
                served.unwrap_or_else(|_| self.panicked().into())
            }
        };
        let served = match served {
            // Storing asks the server and waits: not on the loop.
            Served::Now(Ok(reply)) if back.must_store(&self.connection.client, &reply.body) => {
                Served::Later { work: Box::pin(std::future::ready(Ok(reply))), timeout: objects::LIMIT }
            }
            served => served,
        };
        let span = match (early, &served) {
            (None, Served::Now(Ok(_))) => Span::none(),
            (early, _) => early.unwrap_or_else(span),
        };
        match served {
            Served::Now(outcome) => self.finish(tally, &back, outcome, received).instrument(span).await,
            Served::Later { work, timeout } => match self.permits(endpoint.lane).take(&tenant) {
                Err(none) => self.shed(tally, &back, none).instrument(span).await,
                Ok(permit) => {
                    if endpoint.lane == Lane::Work {
                        trace::received(&span, sender.as_deref());
                    }
                    let shared = self.clone();
                    let task = async move {
                        let outcome = shared.run(work, timeout).await;
                        let (_, tally) = &shared.endpoints[index];
                        tally.worked(received.elapsed());
                        shared.finish(tally, &back, outcome, received).await;
                        drop(permit);
                    };
                    self.workshop.spawn(task.instrument(span));
                }
            },
        }
    }

    async fn run(&self, work: BoxFuture<'static, Result<Reply, Refusal>>, timeout: Duration) -> Result<Reply, Refusal> {
        tokio::select! {
            biased;
            outcome = AssertUnwindSafe(work).catch_unwind() => outcome.unwrap_or_else(|_| Err(self.panicked())),
            () = self.give_up.cancelled() => {
                Err(Refusal::new(Code::Unavailable, "this worker stops before it could finish; send the request again"))
            }
            () = tokio::time::sleep(timeout + GRACE) => {
                let message = format!("not finished within {} ms", timeout.as_millis());
                Err(Refusal::new(Code::DeadlineExceeded, message))
            }
        }
    }

    async fn finish(&self, tally: &Tally, back: &Back, outcome: Result<Reply, Refusal>, received: Instant) {
        let client = &self.connection.client;
        let sent = match outcome {
            Ok(Reply { body, shorter }) => {
                let mut sent = back.answer(client, body, self.provision).await;
                if let (Err(Unsent::TooLarge(_)), Some(shorter)) = (&sent, shorter) {
                    sent = back.answer(client, shorter, self.provision).await;
                }
                match sent {
                    Err(Unsent::TooLarge(refusal)) => self.refuse(tally, back, &refusal).await,
                    sent => sent,
                }
            }
            Err(refusal) => self.refuse(tally, back, &refusal).await,
        };
        tally.took(received.elapsed());
        self.note(sent);
    }

    async fn refuse(&self, tally: &Tally, back: &Back, refusal: &Refusal) -> Result<(), Unsent> {
        tally.error(&format!("{}:{}", refusal.code.status(), refusal.message));
        match refusal.code {
            Code::Internal => error!(code = %refusal.code, "refused: {}", refusal.message),
            _ => info!(code = %refusal.code, field = refusal.field.as_deref(), "refused"),
        }
        meters().error(refusal.code.as_str());
        trace::failed(refusal.code.as_str());
        back.refuse(&self.connection.client, refusal, None).await
    }

    /// No line in the log: being full must not cost more than the answer that says so.
    async fn shed(&self, tally: &Tally, back: &Back, none: permits::None) {
        self.counts.shed.fetch_add(1, Ordering::Relaxed);
        let message = match none {
            permits::None::Full => {
                tally.error("503:this worker is full");
                "this worker is full; send the request again after Retry-After-Ms".to_owned()
            }
            permits::None::Share(own) => {
                self.counts.over_share.fetch_add(1, Ordering::Relaxed);
                tally.error("503:a tenant has its share");
                format!(
                    "this tenant has {own} calls under way and no room for more beside the others' \
                     (nats.max_concurrent_per_tenant); send the request again after Retry-After-Ms"
                )
            }
        };
        let refusal = Refusal::new(Code::Overloaded, message);
        meters().error(Code::Overloaded.as_str());
        // About as long as a piece of work takes; spread, so that those who were shed together do not come together.
        let usual = tally.usual_work().unwrap_or(FIRST_RETRY).clamp(Duration::from_millis(5), Duration::from_secs(2));
        let retry = usual.mul_f64(rand::random_range(0.5..1.5));
        let ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1);
        self.note(back.refuse(&self.connection.client, &refusal, Some(ms)).await);
    }

    async fn describe(self: Arc<Self>, verb: service::Verb, message: Message) {
        let Some(to) = self.reply_of(&message) else { return };
        let (envelope, _) = Envelope::read(message.subject.as_str(), &message.subject, None, (self.clock)());
        match service::describe(verb, &self) {
            Ok(body) => {
                self.note(Back::new(to, &envelope, None).answer(&self.connection.client, body, self.provision).await)
            }
            Err(error) => error!("describe this service: {error}"),
        }
    }

    fn reply_of(&self, message: &Message) -> Option<async_nats::Subject> {
        let allowed = message.reply.as_ref().filter(|subject| self.allowed.permits(subject));
        if allowed.is_none() {
            let refused = self.counts.refused_replies.fetch_add(1, Ordering::Relaxed) + 1;
            // One line for each doubling, and never the subject: both are the sender's to choose.
            if refused.is_power_of_two() {
                let given = message.reply.is_some();
                warn!(
                    replies.refused = refused,
                    reply.given = given,
                    "requests without an allowed reply subject are not served"
                );
            }
        }
        allowed.cloned()
    }

    fn body_fits(&self, call: &Call) -> Result<(), Refusal> {
        let (found, most) = (call.body().len(), self.max_body);
        if found > most {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("the body has {found} bytes; at most {most} are allowed"),
            ));
        }
        Ok(())
    }

    fn panicked(&self) -> Refusal {
        self.counts.panics.fetch_add(1, Ordering::Relaxed);
        Refusal::new(Code::Internal, "a fault of this worker; its log has more under the correlation id")
    }

    fn permits(&self, lane: Lane) -> &Permits {
        match lane {
            Lane::Work => &self.work,
            Lane::Query => &self.queries,
        }
    }

    fn note(&self, sent: Result<(), Unsent>) {
        let Err(unsent) = sent else { return };
        self.counts.unsent.fetch_add(1, Ordering::Relaxed);
        let why = match unsent {
            Unsent::TooLarge(refusal) => refusal.message,
            Unsent::Failed(why) => why,
        };
        error!("a reply could not be sent: {why}");
    }
}
