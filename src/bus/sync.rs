//! What workers tell each other: `tandem.sync.<kind>`, plain NATS messages.
//!
//! They only say that the database has changed; the database says how. A message that was lost (a reconnect) is mended
//! by [`Change::Resync`], which asks for a reload.
//!
//! A withdrawal is acknowledged: [`Sync::withdraw`] comes back when every worker that gave a sign of life within
//! [`LEASE`] has confirmed that it no longer serves these answers, or names those that did not in time. A worker that is
//! cut off cannot be heard here. It finds that out by itself: [`Sync::in_touch`] says up to when it has heard everybody, and
//! its cache serves no longer than a lease after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subject};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Connection, Error, Instance, Options, WIRE};
use crate::domain::record::{EntryId, Sweep};
use crate::domain::{Tag, TaskType, TemplateId, Tenant, Timestamp};

/// Everything below belongs to the workers; no reply goes there.
pub(super) const SUBJECT: &str = "tandem.sync";
/// How often a worker gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// How long a worker counts as alive after its last sign.
pub const LEASE: Duration = Duration::from_millis(3500);
/// How long a worker that fell silent without a goodbye may still be alive where it can't be heard. Until then only the
/// database can tell what it withdrew.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Changes that wait to be applied. When it is full, what more comes becomes one resync.
const WAITING: usize = 1024;
/// The most entries in one message: 1,000 ids are 40 KB.
const IDS: usize = 1000;

/// What changed in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A batch was written: there may be new figures of templates and new cache entries.
    Committed,
    /// Cache entries were withdrawn.
    Removed(Vec<EntryId>),
    /// A template was blocked for a task.
    Blocks,
    /// What a tenant had before that moment is to be forgotten, and what waits to be written of it to be written, so
    /// that it can be deleted.
    Purged { tenant: Tenant, until: Timestamp },
    /// Those of a tenant's cached answers that a sweep takes, of what was stored until that moment, are not to be served any
    /// more, and what waits to be written is to be written, so that they can be withdrawn.
    Swept { tenant: Tenant, until: Timestamp, what: Sweep },
    /// There are workflows to carry on, or others than before.
    Workflows,
    /// Messages may have been lost: everything is to be compared with the database. Never sent, only heard.
    Resync,
}

/// A change that another worker made, to be applied here.
#[derive(Debug)]
pub struct Heard {
    pub change: Change,
    /// Where the sender waits for it: to be called once the change is applied.
    pub confirm: Option<Confirm>,
}

/// Tells the sender of a change that it was applied.
#[derive(Debug)]
pub struct Confirm {
    client: Client,
    instance: Instance,
    to: Subject,
}

/// For saying goodbye to the others. Without a server the client may take nothing more.
const GOODBYE: Duration = Duration::from_secs(1);

/// Which workers applied a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    pub by: BTreeSet<Instance>,
    /// Alive by their last sign, but silent.
    pub missing: BTreeSet<Instance>,
}

/// This worker's line to the others. Clones are the same line.
#[derive(Clone)]
pub struct Sync {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    instance: Instance,
    confirm_timeout: Duration,
    /// Confirmations go only below these.
    inboxes: Vec<String>,
    ears: Mutex<Ears>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What was heard, and when.
#[derive(Debug, Default)]
struct Ears {
    /// The other workers' last signs of life.
    others: BTreeMap<Instance, Instant>,
    /// When the oldest own sign of life was sent that has not come back yet.
    sent: Option<Instant>,
    /// When the last own one was sent that came back: what others had said before, on the same line, came first.
    echoed: Option<Instant>,
    /// How often words may have been lost, and up to which of these times the database has been asked since.
    gaps: u64,
    mended: u64,
}

impl Ears {
    fn in_touch(&self) -> Option<Instant> {
        let others = self.others.values().copied().filter(|heard| heard.elapsed() < FORGOTTEN);
        self.echoed.filter(|_| self.gaps == self.mended).map(|echoed| others.fold(echoed, Instant::min))
    }
}

/// As it crosses the bus; `from` lets a worker pass over its own words.
#[derive(Debug, Serialize)]
struct Told<'a> {
    from: &'a Instance,
    wire: u32,
    #[serde(flatten)]
    word: Word,
}

/// What can be read of every version's words. Those of before `wire` was written are of the first.
#[derive(Debug, Deserialize)]
struct Head {
    from: Instance,
    #[serde(default)]
    wire: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Word {
    Committed,
    Removed {
        ids: Vec<EntryId>,
    },
    Blocks,
    Workflows,
    Purged {
        tenant: String,
        until_ms: i64,
    },
    Swept {
        tenant: String,
        until_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task_type: Option<TaskType>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<Tag>,
    },
    /// A worker began: the others answer with `Alive`, so that it knows them at once.
    Hello,
    Alive,
    Bye,
    /// What only a newer worker says.
    #[serde(other)]
    Unknown,
}

impl Word {
    /// A word of another worker, of this version or another; `None` for what is no word at all.
    ///
    /// What isn't understood is [`Word::Unknown`]: a kind or a shape that only a newer worker writes, and everything but
    /// signs of life of a version above this one, whose words may mean something else by the same name.
    fn read(body: &[u8]) -> Result<(Instance, Self), serde_json::Error> {
        let head: Head = serde_json::from_slice(body)?;
        let word = serde_json::from_slice(body).unwrap_or(Self::Unknown);
        let of_all_versions = matches!(word, Self::Hello | Self::Alive | Self::Bye);
        Ok((head.from, if head.wire > WIRE && !of_all_versions { Self::Unknown } else { word }))
    }

    fn purged(tenant: &Tenant, until: Timestamp) -> Self {
        Self::Purged { tenant: tenant.as_str().to_owned(), until_ms: until.0 }
    }

    fn swept(tenant: &Tenant, until: Timestamp, what: &Sweep) -> Self {
        let template = what.template.as_ref().map(|id| id.as_str().to_owned());
        Self::Swept {
            tenant: tenant.as_str().to_owned(),
            until_ms: until.0,
            task_type: what.task_type,
            template,
            tag: what.tag.clone(),
        }
    }
}

impl Sync {
    /// Begins to listen, and to give signs of life. The receiver gets what other workers change.
    pub async fn open(
        connection: &Connection,
        instance: Instance,
        options: &Options,
    ) -> Result<(Self, mpsc::Receiver<Heard>), Error> {
        let shared = Arc::new(Shared {
            client: connection.client.clone(),
            instance,
            confirm_timeout: options.confirm_timeout(),
            inboxes: options.reply_prefixes.iter().cloned().chain([format!("{}.", options.inbox_prefix)]).collect(),
            ears: Mutex::default(),
            stop: CancellationToken::new(),
            task: Mutex::default(),
        });
        let subject = format!("{SUBJECT}.*");
        let words = shared.client.subscribe(subject.clone()).await;
        let mut words = words.map_err(|source| Error::Subscribe { subject, source })?;
        let mut connected = connection.signs.connected();
        let statistics = connection.client.statistics();
        let connects = move || statistics.connects.load(Ordering::Relaxed);
        let mut seen = connects();
        let (changes, heard) = mpsc::channel(WAITING);
        shared.tell(Word::Hello).await?;

        let ear = shared.clone();
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut lost = false;
            loop {
                tokio::select! {
                    () = ear.stop.cancelled() => {
                        // From the task that gives signs of life: none may follow the goodbye.
                        ear.tell_or_log(Word::Bye).await;
                        break;
                    }
                    _ = beat.tick() => ear.tell_or_log(Word::Alive).await,
                    _ = connected.changed() => {}
                    word = words.next() => {
                        let Some(message) = word else { break };
                        if let Some(change) = ear.hear(message).await {
                            let dropped = changes.try_send(change).is_err();
                            ear.ears().gaps += u64::from(dropped);
                            lost |= dropped;
                        }
                    }
                }
                if connects() != seen {
                    seen = connects();
                    ear.ears().gaps += 1;
                    ear.tell_or_log(Word::Hello).await;
                    lost = true;
                }
                if lost {
                    lost = changes.try_send(Heard { change: Change::Resync, confirm: None }).is_err();
                }
                if changes.is_closed() {
                    break;
                }
            }
        });
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok((Self { shared }, heard))
    }

    /// Tells the others that something changed. Nobody confirms it.
    pub async fn publish(&self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Committed => self.shared.tell(Word::Committed).await,
            Change::Blocks => self.shared.tell(Word::Blocks).await,
            Change::Workflows => self.shared.tell(Word::Workflows).await,
            Change::Purged { tenant, until } => self.shared.tell(Word::purged(tenant, *until)).await,
            Change::Swept { tenant, until, what } => self.shared.tell(Word::swept(tenant, *until, what)).await,
            Change::Removed(ids) => {
                for ids in ids.chunks(IDS) {
                    self.shared.tell(Word::Removed { ids: ids.to_vec() }).await?;
                }
                Ok(())
            }
            Change::Resync => Ok(()),
        }
    }

    /// Has every live worker withdraw these entries, and waits for their word, up to `bus.confirm_timeout_ms`.
    pub async fn withdraw(&self, ids: &[EntryId]) -> Result<Confirmed, Error> {
        self.confirmed(ids.chunks(IDS).map(|ids| Word::Removed { ids: ids.to_vec() }).collect()).await
    }

    /// Has every live worker read anew which templates are blocked, and waits for their word as [`Self::withdraw`].
    pub async fn block(&self) -> Result<Confirmed, Error> {
        self.confirmed(vec![Word::Blocks]).await
    }

    /// Has every live worker forget what a tenant had until then, and waits for their word as [`Self::withdraw`].
    pub async fn purge(&self, tenant: &Tenant, until: Timestamp) -> Result<Confirmed, Error> {
        self.confirmed(vec![Word::purged(tenant, until)]).await
    }

    /// Has every live worker drop what a sweep takes, and waits for their word as [`Self::withdraw`].
    pub async fn sweep(&self, tenant: &Tenant, until: Timestamp, what: &Sweep) -> Result<Confirmed, Error> {
        self.confirmed(vec![Word::swept(tenant, until, what)]).await
    }

    async fn confirmed(&self, words: Vec<Word>) -> Result<Confirmed, Error> {
        let shared = &self.shared;
        let mut done = Confirmed { by: BTreeSet::new(), missing: shared.live() };
        for word in words {
            let by = shared.confirmed(word).await?;
            done.by.extend(by);
            // Who was silent once may still serve some of them.
            done.missing.extend(shared.live());
        }
        done.missing.retain(|instance| !done.by.contains(instance));
        if !done.missing.is_empty() {
            warn!(sync.missing = done.missing.len(), "live workers did not confirm a verdict in time");
        }
        Ok(done)
    }

    /// The other workers that gave a sign of life within the lease.
    pub fn live(&self) -> BTreeSet<Instance> {
        self.shared.live()
    }

    /// Up to when every word of every other worker was heard; `None` where words may be missing. A worker that fell silent
    /// without a goodbye counts for ten minutes: it may be alive behind a broken line.
    pub fn in_touch(&self) -> Option<Instant> {
        self.shared.ears().in_touch()
    }

    /// How often words may have been lost. Whoever has read the database since says so by [`Self::mended`].
    pub fn gaps(&self) -> u64 {
        self.shared.ears().gaps
    }

    /// The database was read after so many [`Self::gaps`] were known.
    pub fn mended(&self, gaps: u64) {
        let mut ears = self.shared.ears();
        ears.mended = ears.mended.max(gaps);
    }

    /// Says goodbye, so that nobody waits for this worker any more.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(GOODBYE, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Confirm {
    pub async fn send(self) {
        let word = self.instance.as_str().to_owned();
        if let Err(error) = self.client.publish(self.to, word.into()).await {
            warn!("confirm a withdrawal: {error}");
        }
    }
}

impl Shared {
    fn live(&self) -> BTreeSet<Instance> {
        let mut ears = self.ears();
        ears.others.retain(|_, heard| heard.elapsed() < FORGOTTEN);
        ears.others.iter().filter(|(_, heard)| heard.elapsed() < LEASE).map(|(other, _)| other.clone()).collect()
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, word: Word) -> Result<(), Error> {
        let (subject, body) = self.written(word)?;
        let sent = self.client.publish(subject.clone(), body.into()).await;
        sent.map_err(|source| Error::Publish { subject, source })
    }

    async fn tell_or_log(&self, word: Word) {
        if let Err(error) = self.tell(word).await {
            debug!("tell the other workers: {error}");
        }
    }

    /// To be sent at once: its echo says that the line is alive.
    fn written(&self, word: Word) -> Result<(String, Vec<u8>), Error> {
        self.ears().sent.get_or_insert_with(Instant::now);
        let kind = match word {
            Word::Committed => "committed",
            Word::Removed { .. } => "cache",
            Word::Blocks => "blocks",
            Word::Workflows => "workflows",
            Word::Purged { .. } => "purged",
            Word::Swept { .. } => "swept",
            Word::Hello | Word::Alive | Word::Bye | Word::Unknown => "hello",
        };
        let body = serde_json::to_vec(&Told { from: &self.instance, wire: WIRE, word })?;
        Ok((format!("{SUBJECT}.{kind}"), body))
    }

    /// Waits until all live workers confirmed or the time is up; says who did.
    async fn confirmed(&self, word: Word) -> Result<BTreeSet<Instance>, Error> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|source| Error::Subscribe { subject: inbox.clone(), source })?;
        let (subject, body) = self.written(word)?;
        let sent = self.client.publish_with_reply(subject.clone(), inbox, body.into()).await;
        sent.map_err(|source| Error::Publish { subject, source })?;
        let mut by = BTreeSet::new();
        let gather = async {
            while !self.live().is_subset(&by) {
                let Some(answer) = answers.next().await else { break };
                if let Ok(name) = std::str::from_utf8(&answer.payload) {
                    by.insert(Instance(name.into()));
                }
            }
        };
        // Out of time is no error here: who is missing is the answer.
        let _ = tokio::time::timeout(self.confirm_timeout, gather).await;
        Ok(by)
    }

    /// Reads a word of another worker; some of them are answered at once.
    async fn hear(&self, message: Message) -> Option<Heard> {
        let (from, word) = match Word::read(&message.payload) {
            Ok(told) => told,
            Err(error) => {
                debug!("what came on {} is no word of a worker: {error}", message.subject);
                return None;
            }
        };
        {
            let mut ears = self.ears();
            if from == self.instance {
                ears.echoed = ears.sent.take().or(ears.echoed);
                return None;
            }
            match word {
                Word::Bye => ears.others.remove(&from),
                _ => ears.others.insert(from, Instant::now()),
            };
        }
        let to = message.reply.filter(|to| self.inboxes.iter().any(|p| to.starts_with(p.as_str())) && to.is_valid());
        let confirm = to.map(|to| Confirm { client: self.client.clone(), instance: self.instance.clone(), to });
        match word {
            Word::Committed => Some(Heard { change: Change::Committed, confirm }),
            Word::Removed { ids } => Some(Heard { change: Change::Removed(ids), confirm }),
            Word::Blocks => Some(Heard { change: Change::Blocks, confirm }),
            Word::Workflows => Some(Heard { change: Change::Workflows, confirm }),
            Word::Purged { tenant, until_ms } => match Tenant::parse(&tenant) {
                Ok(tenant) => Some(Heard { change: Change::Purged { tenant, until: Timestamp(until_ms) }, confirm }),
                Err(_) => Some(Heard { change: Change::Resync, confirm: None }),
            },
            Word::Swept { tenant, until_ms, task_type, template, tag } => {
                let template = template.map(|id| TemplateId::parse(&id)).transpose();
                match (Tenant::parse(&tenant), template) {
                    (Ok(tenant), Ok(template)) => {
                        let (until, what) = (Timestamp(until_ms), Sweep { task_type, template, tag });
                        Some(Heard { change: Change::Swept { tenant, until, what }, confirm })
                    }
                    _ => Some(Heard { change: Change::Resync, confirm: None }),
                }
            }
            Word::Hello => {
                self.tell_or_log(Word::Alive).await;
                None
            }
            // Looking at the database mends what was not understood.
            Word::Unknown => Some(Heard { change: Change::Resync, confirm: None }),
            Word::Alive | Word::Bye => None,
        }
    }
}
