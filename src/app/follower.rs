//! Keeps this worker's memory in step with the database, whoever changed it.
//!
//! The database numbers every change. A word from another worker only says that there is news; what it is, and what
//! was missed while nobody could be heard, is read by number.
//!
//! Memory is served from while it is known to be in step: every other worker was heard, or the database was read, within
//! the cache's lease. Both say up to which moment nothing is missing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

use crate::bus::{Change, Heard, Repeats, Sync};
use crate::cache;
use crate::domain::Timestamp;
use crate::pipeline::{Error, Pipeline};
use crate::store::{Recorder, Sequence, Store, Write};
use crate::workflow::Workflows;

/// The changes of the cache are read at most this often, however much is written.
const PAUSE: Duration = Duration::from_millis(20);
/// After each reading it is left alone for at least so many times as long.
const READ_PAUSE: u32 = 4;
/// And the figures of templates, which nobody waits for.
const FIGURES: Duration = Duration::from_millis(100);
/// And at least this often, should a word be lost.
const REPAIR: Duration = Duration::from_secs(5);
/// How often the lease of the cache is seen to.
const TOUCH: Duration = Duration::from_millis(250);
/// How long a start waits for the cache to be read.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// For writing what waits of a tenant that is being purged.
const FORGETTING: Duration = Duration::from_secs(5);
/// Changes read at a time.
const PAGE: u32 = 1_000;

/// What this worker has seen of the database.
#[derive(Clone)]
pub struct Follower {
    pipeline: Pipeline,
    store: Store,
    sync: Sync,
    repeats: Repeats,
    seen: Arc<Mutex<Sequence>>,
    rows: Arc<AtomicU64>,
    workflows: Arc<OnceLock<Workflows>>,
}

impl Follower {
    pub fn new(pipeline: Pipeline, store: Store, sync: Sync, repeats: Repeats) -> Self {
        Self { pipeline, store, sync, repeats, seen: Arc::default(), rows: Arc::default(), workflows: Arc::default() }
    }

    /// Who is told of words about workflows.
    pub fn tells(&self, workflows: Workflows) {
        // Said once, by whoever wires the worker.
        let _ = self.workflows.set(workflows);
    }

    /// Takes over figures of templates, blocks and what the cache's table holds. What takes longer is read by [`Self::run`]
    /// while this worker serves already; until then exact answers that are not here yet are looked for in the database.
    pub async fn begin(&self) -> Result<(), Error> {
        self.pipeline.reload_figures().await?;
        self.pipeline.reload_blocks().await?;
        self.pipeline.cache().set_loading(true);
        self.read_changes(FIRST_LOOK).await
    }

    /// Rows of the cache that were read since the start.
    pub fn rows_read(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    async fn read_changes(&self, limit: Duration) -> Result<(), Error> {
        let mut seen = self.seen.lock().await;
        let (gaps, begun) = (self.sync.gaps(), Instant::now());
        loop {
            let changes = self.store.changes_since(*seen, Timestamp::now(), PAGE).await.map_err(Error::Unavailable)?;
            self.rows.fetch_add((changes.withdrawn.len() + changes.put.len()) as u64, Ordering::Relaxed);
            if !changes.withdrawn.is_empty() {
                self.pipeline.cache().apply(cache::Change::Removed(changes.withdrawn));
            }
            self.pipeline.cache().load(changes.put);
            *seen = changes.seen;
            if changes.complete {
                self.sync.mended(gaps);
                self.pipeline.cache().set_loading(false);
                self.pipeline.cache().confirm(begun);
                return Ok(());
            }
            if begun.elapsed() >= limit {
                return Ok(());
            }
        }
    }

    /// Listens to the other workers and to this one's recorder, for ever. Reading waits for nobody who speaks, and hearing
    /// for no database.
    pub async fn run(self, heard: mpsc::Receiver<Heard>, commits: watch::Receiver<u64>) {
        let (changes, figures) = (Notify::new(), Notify::new());
        tokio::select! {
            () = self.listen(heard, commits, &changes, &figures) => {}
            () = self.follow_changes(&changes) => {}
            () = self.follow_figures(&figures) => {}
        }
    }

    /// Reads at once when there is news, but not more often than once in a pause.
    async fn follow_changes(&self, news: &Notify) {
        loop {
            news.notified().await;
            let begun = Instant::now();
            note(self.read_changes(Duration::MAX).await);
            // Where reading is slow the machine is busy: requests need it more.
            tokio::time::sleep(PAUSE.max(begun.elapsed() * READ_PAUSE)).await;
        }
    }

    /// Verdicts come with a word of their own; reading them at every commit would be for nothing.
    async fn follow_figures(&self, news: &Notify) {
        let mut repair = every(REPAIR);
        loop {
            note(tokio::select! {
                () = news.notified() => self.pipeline.reload_figures().await,
                _ = repair.tick() => self.pipeline.reload_blocks().await,
            });
            tokio::time::sleep(FIGURES).await;
        }
    }

    async fn listen(
        &self,
        mut heard: mpsc::Receiver<Heard>,
        mut commits: watch::Receiver<u64>,
        changes: &Notify,
        figures: &Notify,
    ) {
        let (mut repair, mut touch) = (every(REPAIR), every(TOUCH));
        let mut was_in_step = true;
        loop {
            let news = tokio::select! {
                word = heard.recv() => match word {
                    Some(word) => self.take(word).await,
                    None => return,
                },
                changed = commits.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Err(error) = self.sync.publish(&Change::Committed).await {
                        warn!(%error, "the other workers were not told of a commit");
                    }
                    true
                }
                _ = repair.tick() => true,
                _ = touch.tick() => {
                    if !self.keep_in_touch(&heard) {
                        changes.notify_one();
                    }
                    let in_step = self.pipeline.cache().is_in_step();
                    if !in_step && was_in_step {
                        warn!("neither the other workers nor the database can be reached; memory serves nothing");
                    } else if in_step && !was_in_step {
                        info!("in step with the other workers again: memory serves");
                    }
                    was_in_step = in_step;
                    false
                }
            };
            if news {
                changes.notify_one();
                figures.notify_one();
            }
        }
    }

    /// Takes over what the bus knows. False where the database must say it, because the bus does not or not any more.
    fn keep_in_touch(&self, heard: &mpsc::Receiver<Heard>) -> bool {
        let cache = self.pipeline.cache();
        let fresh = cache.options().lease() / 2;
        match self.sync.in_touch() {
            // What was heard and not yet done says nothing.
            Some(at) if heard.is_empty() => {
                cache.confirm(at);
                fresh.is_zero() || at.elapsed() < fresh
            }
            _ => fresh.is_zero(),
        }
    }

    fn wake_workflows(&self) {
        if let Some(workflows) = self.workflows.get() {
            workflows.heard();
        }
    }

    /// True where the database is to be read.
    async fn take(&self, word: Heard) -> bool {
        let read = match &word.change {
            Change::Committed => true,
            Change::Workflows => {
                self.wake_workflows();
                return false;
            }
            Change::Removed(ids) => {
                self.pipeline.cache().apply(cache::Change::Removed(ids.clone()));
                true
            }
            Change::Purged { tenant, until } => {
                self.repeats.forget();
                let forgotten = tokio::time::timeout(FORGETTING, self.pipeline.forget(tenant, *until)).await;
                if !matches!(forgotten, Ok(Ok(()))) {
                    warn!("a tenant's records can't be written now; they will have to be purged again");
                    // Not confirmed: it is not so.
                    return true;
                }
                true
            }
            Change::Swept { tenant, until, what } => {
                let swept = tokio::time::timeout(FORGETTING, self.pipeline.sweep_memory(tenant, *until, what)).await;
                if !matches!(swept, Ok(Ok(()))) {
                    warn!("what waits to be written can't be written now; it will have to be swept again");
                    // Not confirmed: it is not so.
                    return true;
                }
                true
            }
            Change::Blocks | Change::Resync => {
                self.wake_workflows();
                // What was withdrawn while nobody was heard is known when the database has been read.
                if word.change == Change::Resync && self.sync.in_touch().is_none() {
                    self.pipeline.cache().break_off();
                }
                if let Err(error) = self.pipeline.reload_blocks().await {
                    warn!(%error, "verdicts can't be read now; they are tried again");
                    // Not confirmed: it is not so.
                    return true;
                }
                true
            }
        };
        if let Some(confirm) = word.confirm {
            confirm.send().await;
        }
        read
    }
}

fn note(read: Result<(), Error>) {
    if let Err(error) = read {
        warn!(%error, "the database can't be followed now; it is tried again");
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Writes down what the cache hands out, in its order; false where it can't.
///
/// At once: an entry must be in the recorder's queue before the execution that it comes from, or a verdict on that
/// execution does not find it.
pub fn keep(recorder: &Recorder, change: cache::Change) -> bool {
    recorder.record(match change {
        cache::Change::Put(entry) => Write::Entry(entry.as_ref().clone()),
        cache::Change::Vector(id, vector) => Write::Vector(id, vector),
        cache::Change::Removed(ids) => Write::Withdrawal(ids, Timestamp::now()),
    })
}
