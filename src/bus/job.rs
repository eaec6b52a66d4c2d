//! One submit, from its delivery to its acknowledgement.
//!
//! Commit first, then the result, then the acknowledgement: whatever dies in between is done again by another worker,
//! which finds the kept reply. Whoever lost the claim says nothing and acknowledges nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, Subject, jetstream};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{Instrument, error, info, info_span, warn};

use super::dead;
use super::reply::{Back, ERROR_CODE, HEADER_ROOM};
use super::streams::{LAST_DELIVERY, RESULT};
use super::submit::{Lane, Place, SUBJECT};
use super::wire::{self, Causes, Code, Envelope, Progress, Refusal, Response, State};
use crate::domain::{CorrelationId, Request, RequestId, Stage, Tenant, Timestamp, Watcher};
use crate::pipeline::{self, Attempt, Reply, Submission};
use crate::store::Delivery;
use crate::telemetry::trace;

/// The id that a submit is sent again under; stands before `Nats-Msg-Id`.
pub(super) const ID: &str = "Execution-Id";
/// On a result: the place in the stream of the submit that it is of.
pub(super) const SEQUENCE: &str = "Execution-Sequence";
/// From this delivery on a submit is done alone. One more than what a single crash makes of it.
const SUSPECT: u64 = 3;
/// An acknowledgement that is not confirmed by then is sent again.
const CONFIRM: Duration = Duration::from_secs(2);
const CONFIRMS: u32 = 3;
/// Between tries of what must succeed: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// A delivered submit.
pub(super) struct Job {
    lane: Arc<Lane>,
    message: Message,
    place: Place,
    delivered: u64,
    now: Timestamp,
    received: Instant,
    /// The attempt that is made; 0 before the claim.
    attempt: AtomicU32,
}

/// What the server is told at the end.
enum End {
    Done,
    /// To be delivered again, at once or later.
    Again(Option<Duration>),
    /// Nothing: it is another worker's.
    Silence,
}

/// Whose submit it is.
struct Sender {
    tenant: Tenant,
    id: RequestId,
    /// Where the result goes.
    back: Back,
}

impl Job {
    /// `None` for what is no delivery, and for what is in hand already: then the newest delivery is the one that will be
    /// acknowledged.
    pub(super) fn new(lane: &Arc<Lane>, message: Message) -> Option<Self> {
        let shared = &lane.shared;
        let message = jetstream::Message { message, context: lane.context.clone() };
        let info = message.info().ok()?;
        let place = Place { sequence: info.stream_sequence, published: info.published.unix_timestamp_nanos() as i64 };
        let delivered = u64::try_from(info.delivered).unwrap_or(1);
        if delivered > 1 {
            shared.counts.redelivered.fetch_add(1, Ordering::Relaxed);
        }
        let acknowledge = message.message.reply.clone()?;
        if !shared.hand.take(place, acknowledge) {
            return None;
        }
        let message = message.message;
        Some(Self {
            lane: lane.clone(),
            message,
            place,
            delivered,
            now: (shared.clock)(),
            received: Instant::now(),
            attempt: AtomicU32::new(0),
        })
    }

    /// Sees it to its end. Without a permit it waits for one.
    pub(super) async fn run(self, permit: Option<OwnedSemaphorePermit>) {
        let shared = self.lane.shared.clone();
        let (envelope, checked) =
            Envelope::read(SUBJECT, &self.message.subject, self.message.headers.as_ref(), self.now);
        let span = info_span!(
            "submit",
            correlation.id = %envelope.correlation_id,
            trace.id = envelope.traceparent.as_deref().and_then(wire::trace_id),
            tenant = %envelope.tenant,
            submit.sequence = self.place.sequence,
            submit.delivered = self.delivered,
        );
        trace::adopt(&span, envelope.traceparent.as_deref());
        trace::received(&span, envelope.traceparent.as_deref());
        let own = trace::traceparent(&span);
        let work = async {
            let Some(_permit) = self.admitted(permit).await else { return End::Again(None) };
            let (sender, identified) = self.sender(&envelope, own);
            let carried = self.carry(&sender, &envelope, checked.and(identified));
            match AssertUnwindSafe(carried).catch_unwind().await {
                Ok(end) => end,
                Err(_) => self.fault(&sender, "a fault of this worker; its log has more").await,
            }
        };
        let all = async {
            let end = tokio::select! {
                biased;
                () = shared.give_up.cancelled() => End::Again(None),
                // Nothing can be said over it any more; the submit is delivered again over the next.
                () = self.lane.connection.signs.ended() => End::Again(None),
                end = work => end,
                never = self.signs_of_life() => never,
            };
            self.end(end).await;
        };
        Box::pin(all.instrument(span)).await;
    }

    /// Waits for a permit, where it came without one. What was delivered this often may be what kills workers: it is done
    /// alone, so that the next death is counted against no other. `None` where the worker stops first.
    async fn admitted(&self, permit: Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
        let shared = &self.lane.shared;
        let admitted = async {
            if self.delivered >= SUSPECT {
                // Others may be done while this one waits for its turn.
                drop(permit);
                return shared.alone().await;
            }
            match permit {
                Some(permit) => Some(permit),
                None => shared.permit().await,
            }
        };
        tokio::select! {
            biased;
            admitted = admitted => admitted,
            () = shared.stopping.cancelled() => None,
        }
    }

    /// Was not begun.
    pub(super) async fn give_back(self) {
        self.end(End::Again(None)).await;
    }

    async fn end(&self, end: End) {
        let shared = &self.lane.shared;
        // First of all: what is delivered again from here on is another job.
        let Some(subject) = shared.hand.put_down(self.place) else { return };
        let client = &self.lane.connection.client;
        match end {
            End::Silence => {
                shared.counts.superseded.fetch_add(1, Ordering::Relaxed);
                info!("another worker has taken this submit over; what was made here counts for nothing");
            }
            End::Again(delay) => {
                if let Err(error) = client.publish(subject, AckKind::Nak(delay).into()).await {
                    warn!(%error, "a submit could not be given back; it is delivered again after the ack wait");
                }
            }
            End::Done => {
                for _ in 0..CONFIRMS {
                    let asked = client.request(subject.clone(), AckKind::Ack.into());
                    if matches!(tokio::time::timeout(CONFIRM, asked).await, Ok(Ok(_))) {
                        return;
                    }
                }
                warn!("an acknowledgement was not confirmed; the submit may be delivered again, and has its reply");
            }
        }
    }

    /// Tells the server that the work goes on, until it is dropped.
    async fn signs_of_life(&self) -> End {
        loop {
            tokio::time::sleep(self.lane.ack_wait / 3).await;
            let Some(subject) = self.lane.shared.hand.acknowledge(self.place) else { continue };
            if let Err(error) = self.lane.connection.client.publish(subject, AckKind::Progress.into()).await {
                warn!(%error, "the server could not be told that a submit is being worked on");
            }
        }
    }

    async fn carry(&self, sender: &Sender, envelope: &Envelope, checked: Result<(), Refusal>) -> End {
        let shared = &self.lane.shared;
        if i64::try_from(self.delivered).is_ok_and(|n| n >= LAST_DELIVERY) {
            let message = format!("delivered {} times, and never came to its end", self.delivered);
            return self.bury(sender, &Refusal::new(Code::Internal, message)).await;
        }
        let mut request = match checked.and_then(|()| self.decode(envelope)) {
            Ok(request) => request,
            // Nothing is wrong with it but the hour.
            Err(refusal) if refusal.code == Code::DeadlineExceeded => return self.refuse(sender, &refusal).await,
            Err(refusal) => return self.bury(sender, &refusal).await,
        };
        request.id = Some(sender.id.clone());
        self.note_reply_to(&mut request);
        // The header's deadline bounds all attempts together, the body's timeout each.
        let until = envelope.deadline.map(|at| self.received + at.since(self.now));
        let timeout = request.timeout;
        let submission = Submission {
            delivery: Delivery { sequence: self.place.sequence, count: self.delivered },
            ack_wait: self.lane.ack_wait,
            max_attempts: shared.options.max_deliver,
        };
        let watcher = self.watcher(sender);
        let mut pause = AGAIN.0;
        let reply = loop {
            let may_begin = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => false,
                () = shared.wait_for_database(false) => true,
            };
            if !may_begin {
                return End::Again(None);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            request.timeout = left.map_or(timeout, |left| left.min(timeout));
            let pipeline = &shared.pipeline;
            let attempted = pipeline.attempt(&sender.id, &request, submission, &self.attempt, &watcher, self.now).await;
            let begun = self.attempt.load(Ordering::Relaxed) > 0;
            let why = match attempted {
                Ok(Attempt::Kept(reply)) => break reply,
                Ok(Attempt::Made(reply)) => match self.keep(sender, &request, &reply).await {
                    true => break reply,
                    false => return End::Silence,
                },
                Ok(Attempt::Worn { attempts }) => {
                    self.attempt.store(attempts, Ordering::Relaxed);
                    let message = format!("{attempts} attempts were begun, and none came to its end");
                    return self.bury(sender, &Refusal::new(Code::Internal, message)).await;
                }
                Err(pipeline::Error::Superseded) => return End::Silence,
                Err(expired @ pipeline::Error::DeadlineExceeded) => {
                    let (tenant, holder) = (&sender.tenant, &sender.back.correlation_id);
                    match pipeline.let_go(tenant, &sender.id, holder).await {
                        // Begun, and lost since.
                        Ok(false) if begun => return End::Silence,
                        // The time went by in waiting for the database; a deadline of the sender's own may be later.
                        Err(error) if !begun && left.is_none_or(|left| left > timeout) => error,
                        _ => return self.refuse(sender, &expired.into()).await,
                    }
                }
                Err(error @ pipeline::Error::IdConflict { .. }) => return self.bury(sender, &error.into()).await,
                Err(error) => error,
            };
            match &why {
                pipeline::Error::Unavailable(cause) if !cause.is_refusal() => {
                    warn!(error = %Causes(&why), "a submit waits for the database");
                }
                _ => return self.fault(sender, &Refusal::from(why).message).await,
            }
            watcher.tell(Stage::Queued);
            tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return End::Again(None),
                () = self.hold(&mut pause) => {}
            }
        };
        self.answer(sender, &request, reply).await
    }

    fn decode(&self, envelope: &Envelope) -> Result<Request, Refusal> {
        let options = &self.lane.shared.options;
        let (found, most) = (self.message.payload.len(), options.max_body_bytes);
        if found > most {
            let message = format!("the body has {found} bytes; at most {most} are allowed");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let pipeline = &self.lane.shared.pipeline;
        let read =
            |written: Option<&str>, task: &str, notes: &mut Vec<String>| pipeline.read_language(written, task, notes);
        wire::decode(&self.message.payload, envelope, options.max_task_bytes, read)
    }

    /// Whose it is, even where nothing else in it can be read: the error must find its sender.
    fn sender(&self, envelope: &Envelope, own: Option<String>) -> (Sender, Result<(), Refusal>) {
        let (id, refused) = self.id(&envelope.tenant);
        let to = Subject::from(result_subject(&envelope.tenant, &id));
        (Sender { tenant: envelope.tenant.clone(), back: Back::new(to, envelope, own), id }, refused)
    }

    /// The body's `id`, else a header's, else one made of the place in the stream.
    fn id(&self, tenant: &Tenant) -> (RequestId, Result<(), Refusal>) {
        #[derive(serde::Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let body = &self.message.payload;
        let small = body.len() <= self.lane.shared.options.max_body_bytes;
        let named = small.then(|| serde_json::from_slice::<Named>(body).ok()).flatten().and_then(|named| named.id);
        // One that is wrong is said by `decode`.
        if let Some(id) = named.and_then(|id| RequestId::parse(&id).ok()) {
            return (id, Ok(()));
        }
        let header = |name| self.message.headers.as_ref().and_then(|h| h.get_last(name)).map(|v| v.as_str());
        if let Some(id) = header(ID).and_then(|id| RequestId::parse(id).ok()) {
            return (id, Ok(()));
        }
        let made = || {
            let ms = self.place.published / 1_000_000;
            RequestId::numbered(self.place.sequence, u64::try_from(ms).unwrap_or(0))
        };
        let Some(given) = header("Nats-Msg-Id") else { return (made(), Ok(())) };
        let bare = given.strip_prefix(tenant.as_str()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(given);
        match RequestId::parse(bare) {
            Ok(id) => (id, Ok(())),
            Err(error) => {
                let message = format!("the header Nats-Msg-Id {error}, or the body must have an 'id'");
                (made(), Err(Refusal::at(Code::InvalidField, "Nats-Msg-Id", message)))
            }
        }
    }

    fn note_reply_to(&self, request: &mut Request) {
        let shared = &self.lane.shared;
        let Some(to) = &request.reply_to else { return };
        if !shared.allowed.permits(&Subject::from(to.as_str())) {
            request.reply_to = None;
            shared.counts.refused_replies.fetch_add(1, Ordering::Relaxed);
            request.notes.push("the answer was not sent to 'reply_to': that subject is not allowed".to_owned());
            warn!("a 'reply_to' that is not allowed was left unserved");
        }
    }

    /// Commits, however long the database takes to come back. False where the claim is another's.
    async fn keep(&self, sender: &Sender, request: &Request, reply: &Reply) -> bool {
        let mut pause = AGAIN.0;
        loop {
            match self.lane.shared.pipeline.keep(&sender.id, request, reply).await {
                Ok(kept) => return kept,
                Err(error) => warn!(error = %Causes(&error), "an answer could not be kept; it is tried again"),
            }
            self.hold(&mut pause).await;
        }
    }

    /// Waits for the database, and a little longer each time: one that can be read but not written is away too.
    async fn hold(&self, pause: &mut Duration) {
        self.lane.shared.wait_for_database(true).await;
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        *pause = (*pause * 2).min(AGAIN.1);
    }

    async fn answer(&self, sender: &Sender, request: &Request, mut reply: Reply) -> End {
        // A kept reply has the notes of its first request; what is said of this one's `reply_to` is new.
        for note in &request.notes {
            if !reply.answer.notes.contains(note) {
                reply.answer.notes.push(note.clone());
            }
        }
        let response = Response::new(reply.answer, &reply.correlation_id, self.received.elapsed());
        let (method, success) = (response.method, response.metrics.success);
        let body = match serde_json::to_vec(&response) {
            Ok(body) => body,
            Err(error) => return self.fault(sender, &format!("write the answer as JSON: {error}")).await,
        };
        let most = self.lane.connection.client.max_payload().saturating_sub(HEADER_ROOM);
        if body.len() > most {
            let message = format!("the answer has {} bytes and this NATS server carries at most {most}", body.len());
            return self.refuse(sender, &Refusal::new(Code::TooLarge, message)).await;
        }
        let headers = self.result_headers(sender.back.headers(), &reply.correlation_id);
        self.publish(&sender.back.to, headers.clone(), &body, None).await;
        if let Some(to) = &request.reply_to {
            self.send(to, headers, body).await;
        }
        self.lane.shared.counts.done.fetch_add(1, Ordering::Relaxed);
        trace::note("method", method.as_str());
        info!(method = method.as_str(), success, "answered");
        self.tell(
            sender,
            |progress| Progress { method: Some(method), success: Some(success), ..progress },
            State::Done,
        );
        End::Done
    }

    /// An error as the result. It is final.
    async fn refuse(&self, sender: &Sender, refusal: &Refusal) -> End {
        self.publish_error(sender, refusal).await;
        self.lane.shared.counts.done.fetch_add(1, Ordering::Relaxed);
        let error = Some(refusal.code);
        self.tell(sender, |progress| Progress { error, success: Some(false), ..progress }, State::Done);
        End::Done
    }

    /// A fault of ours: tried again, and set aside after too many attempts.
    async fn fault(&self, sender: &Sender, message: &str) -> End {
        let shared = &self.lane.shared;
        let attempts = self.attempts();
        if attempts >= shared.options.max_deliver {
            return self.bury(sender, &Refusal::new(Code::Internal, message)).await;
        }
        error!(attempt = attempts, "an attempt at a submit failed and is made again: {message}");
        shared.counts.retried.fetch_add(1, Ordering::Relaxed);
        self.tell(sender, |progress| Progress { attempt: Some(attempts), ..progress }, State::Retrying);
        let first = Duration::from_millis(shared.options.retry_delay_ms);
        let delay = first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_DELAY);
        End::Again(Some(delay.mul_f64(rand::random_range(0.5..1.5))))
    }

    /// Sets it aside: the dead letter first, then the error as its result.
    async fn bury(&self, sender: &Sender, refusal: &Refusal) -> End {
        let shared = &self.lane.shared;
        let attempts = self.attempts();
        let letter = dead::Letter {
            tenant: &sender.tenant,
            id: &sender.id,
            correlation_id: &sender.back.correlation_id,
            reason: refusal.code,
            message: &refusal.message,
            at: (shared.clock)(),
            attempts,
            sequence: self.place.sequence,
            published: self.place.published,
        };
        let most = self.lane.connection.client.max_payload();
        let (subject, headers, body) = letter.of(&self.message, most);
        if self.attempt.load(Ordering::Relaxed) > 0 && !self.free(sender).await {
            return End::Silence;
        }
        self.publish(&subject, headers, &body, None).await;
        self.publish_error(sender, refusal).await;
        shared.counts.dead.fetch_add(1, Ordering::Relaxed);
        warn!(code = %refusal.code, attempts, "a submit was set aside as a dead letter: {}", refusal.message);
        let error = Some(refusal.code);
        self.tell(sender, |progress| Progress { error, attempt: Some(attempts), ..progress }, State::Dead);
        End::Done
    }

    /// Lets go of the claim, so that the submit can be sent again one day. False where it is another's.
    async fn free(&self, sender: &Sender) -> bool {
        let mut pause = AGAIN.0;
        loop {
            let (tenant, holder) = (&sender.tenant, &sender.back.correlation_id);
            match self.lane.shared.pipeline.let_go(tenant, &sender.id, holder).await {
                Ok(held) => return held,
                Err(error) => warn!(error = %Causes(&error), "a claim could not be let go; it is tried again"),
            }
            self.hold(&mut pause).await;
        }
    }

    /// Those that were begun; of one that never came so far, the deliveries.
    fn attempts(&self) -> u32 {
        match self.attempt.load(Ordering::Relaxed) {
            0 => u32::try_from(self.delivered).unwrap_or(u32::MAX),
            attempts => attempts,
        }
    }

    async fn publish_error(&self, sender: &Sender, refusal: &Refusal) {
        trace::failed(refusal.code.as_str());
        let error = refusal.to_error(&sender.back.correlation_id);
        let Ok(body) = serde_json::to_vec(&error) else { return };
        let headers = self.result_headers(sender.back.error_headers(refusal), &sender.back.correlation_id);
        // An error takes the place of no answer: the id may have been used by somebody who got one. Whoever listens hears
        // it, though the stream does not take it.
        let expected = self.replaceable(&sender.back.to).await;
        self.publish(&sender.back.to, headers, &body, Some(expected)).await;
    }

    fn result_headers(&self, mut headers: HeaderMap, correlation_id: &CorrelationId) -> HeaderMap {
        headers.insert(wire::CORRELATION_ID, correlation_id.as_str());
        headers.insert(SEQUENCE, self.place.sequence.to_string());
        headers
    }

    /// The sequence of the error that stands there; 0, which no message has, where an answer does or nothing.
    async fn replaceable(&self, subject: &Subject) -> u64 {
        let Ok(stream) = self.lane.context.get_stream_no_info(RESULT).await else { return 0 };
        match stream.direct_get_last_for_subject(subject.as_str()).await {
            Ok(last) if last.headers.get(ERROR_CODE).is_some() => last.sequence,
            _ => 0,
        }
    }

    /// Publishes to a stream, again and again until it has it: what is not published is not acknowledged either.
    async fn publish(&self, subject: &Subject, mut headers: HeaderMap, body: &[u8], expected: Option<u64>) {
        if let Some(sequence) = expected {
            headers.insert("Nats-Expected-Last-Subject-Sequence", sequence.to_string());
        }
        let mut pause = AGAIN.0;
        let mut waits = None;
        loop {
            let (headers, body) = (headers.clone(), body.to_vec().into());
            let sent = self.lane.context.publish_with_headers(subject.clone(), headers, body).await;
            let error = match sent {
                Ok(acknowledged) => match acknowledged.await {
                    Ok(_) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                return;
            }
            if waits.is_none() {
                error!("a stream does not take what is published, and is tried again: {error}");
            }
            waits.get_or_insert_with(|| Waiting::count(&self.lane));
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    async fn send(&self, to: &str, headers: HeaderMap, body: Vec<u8>) {
        let sent = self.lane.connection.client.publish_with_headers(to.to_owned(), headers, body.into()).await;
        if let Err(error) = sent {
            warn!(%error, "an answer could not be sent to its 'reply_to'; it is kept as the result");
        }
    }

    fn watcher(&self, sender: &Sender) -> Watcher {
        let subject = Subject::from(progress_subject(&sender.tenant, &sender.id));
        let progress = self.lane.progress.clone();
        let (id, correlation_id) = (sender.id.clone(), sender.back.correlation_id.clone());
        let clock = self.lane.shared.clock;
        Watcher::new(move |stage| {
            let told = Progress::new(id.as_str(), correlation_id.as_str(), clock().0, State::Queued).at(stage);
            let Ok(body) = serde_json::to_vec(&told) else { return };
            // What finds no room is not told: nobody's work waits for it.
            let _ = progress.try_send((subject.clone(), body));
        })
    }

    fn tell(&self, sender: &Sender, fill: impl FnOnce(Progress) -> Progress, state: State) {
        let correlation_id = sender.back.correlation_id.as_str();
        let told = fill(Progress::new(sender.id.as_str(), correlation_id, (self.lane.shared.clock)().0, state));
        let subject = Subject::from(progress_subject(&sender.tenant, &sender.id));
        if let Ok(body) = serde_json::to_vec(&told) {
            let _ = self.lane.progress.try_send((subject, body));
        }
    }
}

/// Counts a result that waits for its stream, for health.
struct Waiting(Arc<Lane>);

impl Waiting {
    fn count(lane: &Arc<Lane>) -> Self {
        lane.shared.unpublished.fetch_add(1, Ordering::Relaxed);
        Self(lane.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared.unpublished.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Publishes what is told of the progress, in its order.
pub(super) async fn tell(client: Client, mut told: mpsc::Receiver<(Subject, Vec<u8>)>) {
    while let Some((subject, body)) = told.recv().await {
        // Kept nowhere and sent once: the result does not depend on it.
        let _ = client.publish(subject, body.into()).await;
    }
}

/// `execution.result.<id>`, of another tenant `execution.result.<tenant>.<id>`.
pub(super) fn result_subject(tenant: &Tenant, id: &RequestId) -> String {
    of_tenant("execution.result", tenant, id)
}

/// `execution.progress.<id>`, of another tenant `execution.progress.<tenant>.<id>`.
pub(super) fn progress_subject(tenant: &Tenant, id: &RequestId) -> String {
    of_tenant("execution.progress", tenant, id)
}

fn of_tenant(base: &str, tenant: &Tenant, id: &RequestId) -> String {
    if *tenant == Tenant::default() { format!("{base}.{id}") } else { format!("{base}.{tenant}.{id}") }
}
