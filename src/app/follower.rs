//! Keeps this worker's memory in step with the database, whoever changed it.
//!
//! The database numbers every change. A word from another worker only says that there is news; what it is, and what
//! was missed while nobody could be heard, is read by number.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::bus::{Change, Heard, Repeats, Sync};
use crate::cache;
use crate::domain::Timestamp;
use crate::pipeline::{Error, Pipeline};
use crate::store::{Recorder, Sequence, Store, Write};

/// The database is read at most this often, however much is written.
const PAUSE: Duration = Duration::from_millis(100);
/// And at least this often, should a word be lost.
const REPAIR: Duration = Duration::from_secs(5);
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
}

impl Follower {
    pub fn new(pipeline: Pipeline, store: Store, sync: Sync, repeats: Repeats) -> Self {
        Self { pipeline, store, sync, repeats, seen: Arc::default() }
    }

    /// Takes over figures of templates, blocks and changes of the cache since the last time; at first, all of them.
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.pipeline.reload_figures().await?;
        self.pipeline.reload_blocks().await?;
        let mut seen = self.seen.lock().await;
        loop {
            let changes = self.store.changes_since(*seen, Timestamp::now(), PAGE).await.map_err(Error::Unavailable)?;
            if !changes.withdrawn.is_empty() {
                self.pipeline.cache().apply(cache::Change::Removed(changes.withdrawn));
            }
            self.pipeline.cache().load(changes.put);
            *seen = changes.seen;
            if changes.complete {
                return Ok(());
            }
        }
    }

    /// Listens to the other workers and to this one's recorder, for ever.
    pub async fn run(self, mut heard: mpsc::Receiver<Heard>, mut commits: watch::Receiver<u64>) {
        let mut repair = tokio::time::interval(REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: Option<Instant> = None;
        loop {
            let news = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                word = heard.recv() => {
                    let Some(word) = word else { return };
                    if self.take(word).await {
                        due.get_or_insert_with(|| Instant::now() + PAUSE);
                    }
                }
                changed = commits.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Err(error) = self.sync.publish(&Change::Committed).await {
                        warn!(%error, "the other workers were not told of a commit");
                    }
                    due.get_or_insert_with(|| Instant::now() + PAUSE);
                }
                _ = repair.tick() => { due.get_or_insert_with(Instant::now); }
                () = news => {
                    due = None;
                    if let Err(error) = self.catch_up().await {
                        warn!(%error, "the database can't be followed now; it is tried again");
                    }
                }
            }
        }
    }

    /// True where the database is to be read.
    async fn take(&self, word: Heard) -> bool {
        let read = match word.change {
            Change::Committed => true,
            Change::Removed(ids) => {
                self.pipeline.cache().apply(cache::Change::Removed(ids));
                true
            }
            Change::Purged { tenant, until } => {
                self.repeats.forget();
                let forgotten = tokio::time::timeout(FORGETTING, self.pipeline.forget(&tenant, until)).await;
                if !matches!(forgotten, Ok(Ok(()))) {
                    warn!("a tenant's records can't be written now; they will have to be purged again");
                    // Not confirmed: it is not so.
                    return true;
                }
                true
            }
            Change::Blocks | Change::Resync => {
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
