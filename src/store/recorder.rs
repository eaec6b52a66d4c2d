use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::domain::record::Execution;

use super::{Error, Store, Write};

/// How writes are grouped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecorderOptions {
    /// How long a write may wait for company, in milliseconds. The most that a killed worker loses.
    pub flush_interval_ms: u64,
    /// Writes in one transaction, at most.
    pub max_batch: usize,
    /// Writes that wait while the database is slow or away, at most; what comes then is dropped and counted.
    pub queue: usize,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        // A full queue is some 10 MB, and minutes of a worker's usual load.
        Self { flush_interval_ms: 50, max_batch: 2_000, queue: 20_000 }
    }
}

/// What other workers are to see soon waits no longer than this for company.
const NEWS: Duration = Duration::from_millis(10);
/// After this a write counts as failed and is tried again. Above SQLite's own wait for another process.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Warnings of one kind come at most this often.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// A bounded queue in front of the database: whoever records does not wait, and many writes share one commit.
///
/// What was accepted is written while the process lives and the database comes back; a batch that failed is kept and
/// tried again at the next interval. An entry must be recorded before the execution that names it: then a verdict on
/// the one finds the other.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::UnboundedSender<Message>,
    /// The most that may wait of what can be dropped.
    room: u64,
    counters: Arc<Counters>,
    commits: watch::Receiver<u64>,
    stop: CancellationToken,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Recorder {
    /// Starts the writing task on the current runtime.
    pub fn start(store: Store, options: &RecorderOptions) -> Self {
        let (queue, messages) = mpsc::unbounded_channel();
        let room = options.queue.max(1) as u64;
        let (committed, commits) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        let writer = Writer {
            store,
            messages,
            committed,
            counters: counters.clone(),
            stop: stop.clone(),
            interval: Duration::from_millis(options.flush_interval_ms),
            max_batch: options.max_batch.max(1),
            pending: Vec::new(),
            due: Instant::now(),
            took: Duration::ZERO,
            failing: false,
            warned: Instant::now(),
            dropped: 0,
        };
        let task = tokio::spawn(Box::pin(writer.run()));
        Self { queue, room, counters, commits, stop, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// Queues a write and returns at once. Where the queue is full the write is dropped and counted, and this is
    /// false.
    pub fn record(&self, write: Write) -> bool {
        self.accept(write, self.waiting() < self.room)
    }

    /// Queues what must not be dropped, and returns at once: what was paid, by callers that wait for [`Self::flush`] before
    /// they go on, so that there are never many.
    pub fn keep(&self, write: Write) {
        self.accept(write, true);
    }

    fn accept(&self, write: Write, has_room: bool) -> bool {
        // Counted first: the writer may be done with it at once.
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let accepted = has_room && self.queue.send(Message { write: Some(write), done: None }).is_ok();
        if !accepted {
            self.counters.accepted.fetch_sub(1, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Writes an execution that must not be lost (money was spent) and returns after the commit. Does not wait for
    /// the interval; while the database is away it waits for it, so bound it with the request's own deadline.
    pub async fn record_durably(&self, execution: Execution) -> Result<(), Error> {
        self.send(Some(Write::Execution(execution))).await
    }

    /// Returns once everything that was accepted before is committed.
    pub async fn flush(&self) -> Result<(), Error> {
        self.send(None).await
    }

    /// Takes nothing more, writes what was accepted, and ends; gives up after `grace`. Returns how many accepted
    /// writes are lost: 0 but for a database that stayed away.
    pub async fn stop(&self, grace: Duration) -> u64 {
        self.stop.cancel();
        if let Some(mut task) = self.task.lock().await.take()
            && tokio::time::timeout(grace, &mut task).await.is_err()
        {
            task.abort();
        }
        self.waiting()
    }

    /// Writes that were refused since the start, because the queue was full or the recorder had stopped.
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }

    /// Accepted writes that the database refused for what they held. Each was logged.
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Attempts to write a batch that failed.
    pub fn failures(&self) -> u64 {
        self.counters.failures.load(Ordering::Relaxed)
    }

    /// Accepted writes that are not yet committed.
    pub fn waiting(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed).saturating_sub(self.counters.done.load(Ordering::Relaxed))
    }

    /// Changes after every commit, so that other workers can be told that there is news.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    async fn send(&self, write: Option<Write>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let counted = u64::from(write.is_some());
        self.counters.accepted.fetch_add(counted, Ordering::Relaxed);
        if self.queue.send(Message { write, done: Some(done) }).is_err() {
            self.counters.accepted.fetch_sub(counted, Ordering::Relaxed);
            return Err(Error::Stopped);
        }
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    done: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
}

/// A write, somebody who waits for the commit, or both.
struct Message {
    write: Option<Write>,
    done: Option<oneshot::Sender<Result<(), Error>>>,
}

struct Writer {
    store: Store,
    messages: mpsc::UnboundedReceiver<Message>,
    committed: watch::Sender<u64>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    interval: Duration,
    max_batch: usize,
    /// Not yet committed, in order.
    pending: Vec<Message>,
    /// When `pending` is written at the latest.
    due: Instant,
    /// How long the last writing took.
    took: Duration,
    failing: bool,
    warned: Instant,
    /// Of `counters.dropped`, those that were warned about.
    dropped: u64,
}

impl Writer {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut open = true;
        while open || !self.pending.is_empty() {
            // What failed is tried again as it was: with more in it, other hits would share a row than before.
            let room = open && !self.failing && self.pending.len() < self.max_batch;
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.messages.is_closed() => self.messages.close(),
                () = tokio::time::sleep_until(self.due), if !self.pending.is_empty() => self.write().await,
                message = self.messages.recv(), if room => match message {
                    Some(message) => self.take(message),
                    None => {
                        open = false;
                        self.hurry();
                    }
                },
            }
            self.warn_of_drops();
        }
    }

    fn take(&mut self, message: Message) {
        if self.pending.is_empty() {
            self.due = Instant::now() + self.interval;
        }
        if matches!(message.write, Some(Write::Entry(_) | Write::Withdrawal(..))) && !self.failing {
            // Where writing is slow the machine is busy, and company saves more than haste.
            self.due = self.due.min(Instant::now() + NEWS.max(self.took * 4));
        }
        let awaited = message.done.is_some();
        self.pending.push(message);
        if awaited || self.pending.len() >= self.max_batch {
            // Who waits takes along whatever else is there.
            while self.pending.len() < self.max_batch
                && let Ok(message) = self.messages.try_recv()
            {
                self.pending.push(message);
            }
            self.hurry();
        }
    }

    /// Writes at once, unless the last attempt failed: then the next one is due when it is due.
    fn hurry(&mut self) {
        if !self.failing {
            self.due = Instant::now();
        }
    }

    async fn write(&mut self) {
        let begun = Instant::now();
        self.write_pending().await;
        self.took = begun.elapsed();
    }

    async fn write_pending(&mut self) {
        let batch: Vec<&Write> = self.pending.iter().filter_map(|message| message.write.as_ref()).collect();
        match limited(&self.store, &batch).await {
            Ok(()) => {
                let all = self.pending.len();
                self.finish(all);
            }
            Err(error) if error.is_refusal() => self.write_singly().await,
            Err(error) => self.failed(&error),
        }
    }

    /// One bad write must not keep the others from the database.
    async fn write_singly(&mut self) {
        while let Some(message) = self.pending.first() {
            let Some(write) = &message.write else {
                self.finish(1);
                continue;
            };
            match limited(&self.store, &[write]).await {
                Ok(()) => self.finish(1),
                Err(error) if error.is_refusal() => {
                    error!(error = error.in_full(), "the database refused a record");
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    self.counters.done.fetch_add(1, Ordering::Relaxed);
                    if let Some(done) = self.pending.remove(0).done {
                        let _gone = done.send(Err(error));
                    }
                }
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// The first `count` of `pending` are committed.
    fn finish(&mut self, count: usize) {
        let writes = self.pending.iter().take(count).filter(|message| message.write.is_some()).count();
        self.counters.done.fetch_add(writes as u64, Ordering::Relaxed);
        if writes > 0 {
            self.committed.send_modify(|commits| *commits += 1);
        }
        // Last: who waited may look at the counters.
        for done in self.pending.drain(..count).filter_map(|message| message.done) {
            let _gone = done.send(Ok(()));
        }
        if std::mem::take(&mut self.failing) {
            info!("records are written again");
        }
    }

    fn failed(&mut self, error: &Error) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing || self.may_warn() {
            self.warned = Instant::now();
            let waiting = self.pending.len() + self.messages.len();
            let error = error.in_full();
            warn!(error, recorder.waiting = waiting, "records can't be written; they are kept and tried again");
        }
        self.failing = true;
        self.due = Instant::now() + self.interval;
    }

    fn warn_of_drops(&mut self) {
        let dropped = self.counters.dropped.load(Ordering::Relaxed);
        if dropped > self.dropped && self.may_warn() {
            self.warned = Instant::now();
            warn!(recorder.dropped = dropped - self.dropped, "the queue of records was full; some were dropped");
            self.dropped = dropped;
        }
    }

    fn may_warn(&self) -> bool {
        self.warned.elapsed() >= WARN_EVERY
    }
}

async fn limited(store: &Store, batch: &[&Write]) -> Result<(), Error> {
    match tokio::time::timeout(WRITE_LIMIT, store.write(batch)).await {
        Ok(written) => written.map(drop),
        Err(_) => Err(Error::Timeout { action: "write a batch", limit: WRITE_LIMIT }),
    }
}
