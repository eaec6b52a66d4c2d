//! One semantic cache for whole requests and for parts of goals.
//!
//! The exact tier knows a task by its normalised text and costs microseconds. The semantic tier embeds the task,
//! takes the nearest entries of the same [scope](Key::scope) above a calibrated similarity, and serves the first that
//! no [guard](Guard) refuses. What changes is handed out as [`Change`]s; `app` connects them to the store and the bus.

mod align;
mod coarse;
mod entries;
mod evidence;
pub mod fit;
mod flight;
mod frames;
mod guards;
mod index;
mod key;
mod lease;
mod lexicon;
mod options;
mod packed;
mod reading;
mod stats;
mod verifier;
mod words;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use flight::{Flight, Flights, Follower, Joined};
pub use guards::{Guard, Refusal, compare};
pub use key::Key;
pub(crate) use lexicon::is_english;
pub use options::{Options, Order};
pub use stats::Stats;
pub use verifier::{Threshold, Verifier, VerifierError};

use crate::domain::record::{CacheEntry, CacheVerdict, EntryId, EntryKind, Sweep};
use crate::domain::{Answer, CorrelationId, Goal, Hit, Method, NanoUsd, Part, Tenant, Tier, Timestamp, Usage};
use crate::embed::{self, Embedder};
use crate::telemetry::meters;
use entries::{Entries, Held};
use evidence::Evidence;
use guards::Bar;
use lease::Lease;
use reading::Reading;
use stats::Counters;

/// After each vector that nobody waits for, the embedding thread is left alone for so many times as long: requests need
/// the machine more.
const BACKGROUND_PAUSE: u32 = 4;

/// Vectors of just stored entries that one lookup waits for.
const AWAITED: usize = 8;

/// Bytes of readings that are kept, beside `max_bytes`: those of some ten thousand short tasks.
const READINGS: u64 = 16 * 1024 * 1024;

/// An entry without a vector that is older than this lost the worker that was computing it.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// What happened to the cache, to be stored and told to other workers. [`Cache::apply`] takes them there.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new entry, without its vector. It takes the place of any older one with the same exact key.
    Put(Arc<CacheEntry>),
    /// The vector of an entry that was put before.
    Vector(EntryId, Arc<[f32]>),
    /// Found wrong: not to be served any more, anywhere. What only had to make room here is no change.
    Removed(Vec<EntryId>),
}

/// An answer that was there.
#[derive(Debug, Clone)]
pub struct Found {
    /// As it was made: method, template and model of the original.
    pub answer: Arc<Answer>,
    pub hit: Hit,
}

impl Found {
    /// The stored answer as it is given now: with the original's template and model, for nothing. So are its parts.
    pub fn into_answer(self) -> Answer {
        let given = |answer: Answer| Answer {
            method: Method::Cached,
            usage: Usage::default(),
            cost: NanoUsd::ZERO,
            unknown: NanoUsd::ZERO,
            hit: Some(self.hit.clone()),
            ..answer
        };
        let mut answer = given(Arc::unwrap_or_clone(self.answer));
        let part = |part: Part| Part { answer: Answer { parts: vec![], ..given(part.answer) }, ..part };
        answer.parts = answer.parts.into_iter().map(part).collect();
        answer
    }
}

/// A stored task near to one that was asked about, and why it is or is not served.
#[derive(Debug, Clone)]
pub struct Neighbour {
    pub id: EntryId,
    pub task: Arc<str>,
    pub similarity: f64,
    /// Whether it is near enough to be considered.
    pub near_enough: bool,
    pub refusal: Option<Refusal>,
    /// How sure the verifier is that both want the same, 0 to 1; `None` where a guard forbids sharing before it is asked.
    pub sure: Option<f64>,
    /// How sure it must be here. Above 1 where the calibration can't promise what is asked of it.
    pub needed: f64,
    pub age: Duration,
    pub method: Method,
    pub origin: CorrelationId,
}

/// Why the semantic tier could not say. A caller goes on as with a miss.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the semantic cache has no embedder")]
    NoEmbedder,
    #[error("embed the task for the semantic cache")]
    Unavailable(#[from] embed::Error),
}

/// Takes what is to be stored and spread, without waiting. False where it can't.
type Changes = dyn Fn(Change) -> bool + Send + Sync;

/// The shared handle; cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    options: Options,
    embedder: Option<Embedder>,
    verifier: Verifier,
    evidence: RwLock<Evidence>,
    changes: Box<Changes>,
    lost: AtomicU64,
    /// Vectors are being computed that nobody waits for.
    computing: AtomicBool,
    lease: Lease,
    /// What the store holds is still being read.
    loading: AtomicBool,
    state: Mutex<State>,
    /// Of entries that lookups came near to.
    readings: moka::sync::Cache<EntryId, Arc<Reading>>,
}

struct State {
    entries: Entries,
    counters: Counters,
}

impl Cache {
    /// `changes` takes what is to be stored and spread, before the call that changed it returns; false where it can't.
    /// Then the change is counted and logged, and this worker goes on serving from memory.
    pub fn new(
        options: Options,
        embedder: Option<Embedder>,
        changes: impl Fn(Change) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::with_verifier(options, embedder, Verifier::shipped().clone(), changes)
    }

    /// [`Self::new`] with a verifier of one's own.
    pub fn with_verifier(
        options: Options,
        embedder: Option<Embedder>,
        verifier: Verifier,
        changes: impl Fn(Change) -> bool + Send + Sync + 'static,
    ) -> Self {
        let entries = Entries::new(options.max_entries, options.max_bytes);
        Self(Arc::new(Inner {
            embedder,
            verifier,
            evidence: RwLock::default(),
            changes: Box::new(changes),
            lost: AtomicU64::new(0),
            computing: AtomicBool::new(false),
            lease: Lease::new(options.lease()),
            loading: AtomicBool::new(false),
            state: Mutex::new(State { entries, counters: Counters::default() }),
            readings: moka::sync::Cache::builder()
                .max_capacity(READINGS)
                .weigher(|_, reading: &Arc<Reading>| u32::try_from(reading.bytes()).unwrap_or(u32::MAX))
                .build(),
            options,
        }))
    }

    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The key of a goal under this cache's options. Without an embedder it is that of the model that ships, so that
    /// entries made meanwhile find their neighbours once it is back.
    pub fn key(&self, tenant: &Tenant, kind: EntryKind, goal: &Goal) -> Key {
        let version = self.0.embedder.as_ref().map_or(embed::MODEL_VERSION, Embedder::version);
        Key::new(tenant, kind, goal, &self.0.options.context_fields, version)
    }

    /// The exact tier: microseconds, no embedding. What it does not have counts as a miss, until [`Self::semantic`]
    /// says otherwise.
    pub fn exact(&self, key: &Key, now: Timestamp) -> Option<Found> {
        self.exact_if(key, now, |_| true)
    }

    /// [`Self::exact`] for whoever takes only answers that `may` be served.
    pub fn exact_if(&self, key: &Key, now: Timestamp, may: impl Fn(&Answer) -> bool) -> Option<Found> {
        let found = self.known_if(key, now, may);
        if found.is_none() && self.0.options.enabled {
            self.missed(key);
        }
        found
    }

    /// Counts what the exact tier did not have, for whoever asked with [`Self::known_if`].
    pub fn missed(&self, key: &Key) {
        self.0.state().counters.count(&key.tenant, |stats| stats.misses += 1);
        meters().missed();
    }

    /// Whether what was found a moment ago may still be given to somebody else.
    pub fn still_serves(&self, found: &Found, now: Timestamp) -> bool {
        self.is_in_step() && self.0.state().entries.serves(found.hit.entry, now)
    }

    /// Everything that others changed before that moment is known here. From the first time on, nothing is served that was
    /// not confirmed within `lease_ms`.
    pub fn confirm(&self, at: Instant) {
        self.0.lease.confirm(at);
    }

    /// Something that others changed may be unknown here: nothing is served until the next confirmation.
    pub fn break_off(&self) {
        self.0.lease.break_off();
    }

    /// Says whether the store is still being read, for the first time.
    pub fn set_loading(&self, loading: bool) {
        self.0.loading.store(loading, Ordering::Release);
    }

    /// Whether the store may hold what is not here only because it was not read yet.
    pub fn is_loading(&self) -> bool {
        self.0.loading.load(Ordering::Acquire)
    }

    /// Whether this memory may be served from.
    pub fn is_in_step(&self) -> bool {
        self.0.lease.holds()
    }

    /// [`Self::exact_if`] for whoever asks that next where this has nothing: that is one miss, not two.
    pub fn known_if(&self, key: &Key, now: Timestamp, may: impl Fn(&Answer) -> bool) -> Option<Found> {
        if !self.0.options.enabled {
            return None;
        }
        let mut held = self.0.state().entries.by_exact(&key.exact, now)?;
        loop {
            let found = found(&held, Tier::Exact, 1.0, now).filter(|found| may(&found.answer))?;
            let mut state = self.0.state();
            if !self.0.lease.holds() {
                return None;
            }
            // While it was read, without the lock, it may have been withdrawn or replaced.
            let latest = state.entries.by_exact(&key.exact, now)?;
            if latest.id == held.id {
                state.entries.touch(held.id);
                state.counters.count(&key.tenant, |stats| stats.exact_hits += 1);
                meters().hit(Tier::Exact);
                return Some(found);
            }
            held = latest;
        }
    }

    /// Whether [`Self::semantic`] could find anything: the scope has entries, be it that their vectors are still
    /// being computed, and the task can be embedded. Where not, no embedding is needed on the request's way.
    pub fn has_neighbours(&self, key: &Key) -> bool {
        self.0.semantic_applies(key) && self.0.state().entries.has_scope(&key.scope)
    }

    /// The semantic tier. Call it after [`Self::exact`] said no.
    pub async fn semantic(&self, key: &Key, now: Timestamp) -> Result<Option<Found>, Error> {
        self.semantic_if(key, now, |_| true).await
    }

    /// [`Self::semantic`] for whoever takes only answers that `may` be served.
    pub async fn semantic_if(
        &self,
        key: &Key,
        now: Timestamp,
        may: impl Fn(&Answer) -> bool,
    ) -> Result<Option<Found>, Error> {
        if !self.has_neighbours(key) {
            return if self.0.embedder.is_none() { Err(Error::NoEmbedder) } else { Ok(None) };
        }
        let options = &self.0.options;
        let nearest = self.nearest(key, options.candidates, options.similarity_threshold, now);
        // The first queues the embedding, which has a thread of its own; the task is read meanwhile.
        let (nearest, asked) = tokio::join!(nearest, async { Reading::of(&key.task, Some(&key.language)) });
        let (vector, near) = nearest?;
        let bar = self.0.bar(key, &vector);
        let mut refused = vec![];
        let chosen = near.into_iter().find_map(|(held, similarity)| {
            match guards::check(&asked, &self.read(&held, key), f64::from(similarity), &bar).result {
                Ok(()) => found(&held, Tier::Semantic, similarity, now).filter(|found| may(&found.answer)),
                Err(refusal) => {
                    refused.push(refusal.guard);
                    None
                }
            }
        });
        let mut state = self.0.state();
        // It may have been withdrawn while the guards read it.
        let chosen = chosen.filter(|found| self.is_in_step() && state.entries.serves(found.hit.entry, now));
        if let Some(found) = &chosen {
            state.entries.touch(found.hit.entry);
        }
        state.counters.count(&key.tenant, |stats| {
            refused.into_iter().for_each(|guard| *stats.refused.entry(guard).or_default() += 1);
            if chosen.is_some() {
                stats.semantic_hits += 1;
                stats.misses = stats.misses.saturating_sub(1);
            }
        });
        drop(state);
        if chosen.is_some() {
            meters().hit(Tier::Semantic);
        }
        Ok(chosen)
    }

    /// Stores an answer under `key`, in the place of what was there. It is served by the exact tier at once; its
    /// vector follows in the background. `None` if it was not stored: it may not be given to others, the cache is
    /// off, or it is too large.
    pub fn put(&self, key: &Key, mut answer: Arc<Answer>, origin: CorrelationId, now: Timestamp) -> Option<EntryId> {
        if !self.0.options.enabled || !answer.cacheable() {
            return None;
        }
        if !key.tags.is_empty() {
            Arc::make_mut(&mut answer).tags.clone_from(&key.tags);
        }
        let entry = Arc::new(CacheEntry {
            id: EntryId(uuid::Uuid::now_v7()),
            tenant: key.tenant.clone(),
            kind: key.kind,
            scope: key.scope,
            exact: key.exact,
            task: key.task.clone(),
            answer,
            vector: None,
            origin,
            created: now,
            expires: now.plus(Duration::from_millis(self.0.options.ttl_ms)),
        });
        if !self.0.state().entries.insert(&entry, true) {
            return None;
        }
        self.0.tell(Change::Put(entry.clone()));
        if self.0.semantic_applies(key) {
            self.compute_in_background();
        }
        Some(entry.id)
    }

    /// Takes in what another worker changed. Nothing of it is handed out again.
    pub fn apply(&self, change: Change) {
        let mut state = self.0.state();
        match change {
            Change::Put(entry) => {
                state.entries.insert(&entry, false);
            }
            Change::Vector(id, vector) => {
                state.entries.set_vector(id, &vector);
            }
            Change::Removed(ids) => {
                state.entries.withdraw(&ids);
            }
        }
    }

    /// Withdraws entries: from this call on none of them is served here, not even by a lookup that had begun. They
    /// are withdrawn elsewhere too, also those that this worker does not hold.
    pub fn remove(&self, ids: &[EntryId]) {
        self.0.state().entries.withdraw(ids);
        if !ids.is_empty() {
            self.0.tell(Change::Removed(ids.to_vec()));
        }
    }

    /// Fills the memory from the store at start. Entries without a vector get one when somebody looks near them.
    pub fn load(&self, entries: impl IntoIterator<Item = CacheEntry>) {
        for entry in entries {
            // One by one: who is asked meanwhile must not wait for all of them.
            self.0.state().entries.insert(&entry, false);
        }
    }

    /// Drops what a tenant had stored until then, for good. Nothing is handed out: whoever purges a tenant deletes it in
    /// the store too.
    pub fn forget(&self, tenant: &Tenant, until: Timestamp) -> usize {
        self.sweep(tenant, until, &Sweep::default())
    }

    /// Drops those of a tenant's entries that were stored until then and that a sweep takes, for good. Nothing is handed
    /// out: whoever sweeps withdraws them in the store too.
    pub fn sweep(&self, tenant: &Tenant, until: Timestamp, what: &Sweep) -> usize {
        self.0.readings.invalidate_all();
        let theirs = self.0.state().entries.of_tenant(tenant, until);
        // Read without the lock: they may be many.
        let takes = |held: &Held| *what == Sweep::default() || held.packed.unpack().is_none_or(|(_, a)| what.takes(&a));
        let ids: Vec<EntryId> = theirs.iter().filter(|held| takes(held)).map(|held| held.id).collect();
        self.0.state().entries.withdraw(&ids).len()
    }

    /// Drops what has expired; call it now and then. (No expired entry is ever served, dropped or not.) Nothing is
    /// handed out: every worker and the store know the time themselves.
    pub fn expire(&self, now: Timestamp) -> usize {
        let mut state = self.0.state();
        let expired = state.entries.expired(now);
        state.entries.withdraw(&expired);
        expired.len()
    }

    /// All entries, of all tenants.
    pub fn len(&self) -> usize {
        self.0.state().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn stats(&self, tenant: &Tenant) -> Stats {
        let state = self.0.state();
        let entries = state.entries.count(tenant);
        let (held, bytes) = (state.entries.len(), state.entries.bytes());
        Stats { entries, held, bytes, changes_lost: self.0.lost.load(Ordering::Relaxed), ..state.counters.of(tenant) }
    }

    /// The `top` nearest entries of the task's scope, whatever their similarity, and what the guards say of each.
    /// Counts as no lookup.
    pub async fn explain(&self, key: &Key, now: Timestamp, top: usize) -> Result<Vec<Neighbour>, Error> {
        let asked = Reading::of(&key.task, Some(&key.language));
        let (vector, near) = self.nearest(key, top, -1.0, now).await?;
        let bar = self.0.bar(key, &vector);
        let neighbour = |(held, similarity): (Held, f32)| {
            let (origin, answer) = held.packed.unpack()?;
            let judged = guards::check(&asked, &self.read(&held, key), f64::from(similarity), &bar);
            Some(Neighbour {
                id: held.id,
                task: held.packed.task().into(),
                similarity: f64::from(similarity),
                near_enough: similarity >= self.0.options.similarity_threshold,
                refusal: judged.result.err(),
                sure: judged.sure,
                needed: bar.needed,
                age: now.since(held.created),
                method: answer.method,
                origin,
            })
        };
        Ok(near.into_iter().filter_map(neighbour).collect())
    }

    /// Takes over what users said of hits, of all tenants, the newest first.
    pub fn replace_evidence(&self, verdicts: Vec<CacheVerdict>) {
        *self.0.evidence.write().unwrap_or_else(PoisonError::into_inner) = Evidence::of(verdicts);
    }

    /// The task's vector and the nearest live entries of the scope, those included that were put before this call.
    async fn nearest(
        &self,
        key: &Key,
        count: usize,
        least: f32,
        now: Timestamp,
    ) -> Result<(Arc<[f32]>, Vec<(Held, f32)>), Error> {
        let embedder = self.0.embedder.as_ref().ok_or(Error::NoEmbedder)?;
        let vector = embedder.embed(&key.task);
        let late = Timestamp(now.0.saturating_sub(FORGOTTEN.as_millis() as i64));
        let bare = self.0.state().entries.bare(&key.scope, late, AWAITED);
        let others = futures::future::join_all(bare.iter().map(|entry| self.compute(embedder, entry)));
        let patience = Duration::from_millis(self.0.options.pending_wait_ms);
        let (vector, others) = tokio::join!(vector, tokio::time::timeout(patience, others));
        let vector = vector?;
        if others.is_err() {
            tracing::debug!("the semantic tier looks without vectors that are still being computed");
        }
        let Some(index) = self.0.state().entries.index(&key.scope) else { return Ok((vector, vec![])) };
        let near = index.read().unwrap_or_else(PoisonError::into_inner).nearest(&vector, count, least);
        let state = self.0.state();
        let held = |(id, similarity)| Some((state.entries.by_id(id, now)?, similarity));
        let near = near.into_iter().filter_map(held).collect();
        drop(state);
        Ok((vector, near))
    }

    /// What an entry's task says, read when a lookup first comes near to it; most never are.
    fn read(&self, held: &Held, key: &Key) -> Arc<Reading> {
        self.0.readings.get_with(held.id, || Arc::new(Reading::of(held.packed.task(), Some(&key.language))))
    }

    async fn compute(&self, embedder: &Embedder, entry: &Held) {
        let task = entry.packed.task();
        if task.len() > self.0.options.semantic_max_bytes {
            return;
        }
        match embedder.embed(task).await {
            Ok(vector) => {
                let taken = self.0.state().entries.set_vector(entry.id, &vector);
                if taken {
                    self.0.tell(Change::Vector(entry.id, vector));
                }
            }
            Err(error) => {
                tracing::warn!(cache.entry = %entry.id.0, %error, "an entry stays without a vector for now");
            }
        }
    }

    /// Computes the vectors of own entries one by one, the newest first, until all have one. Whoever looks near one
    /// before does not wait for this.
    fn compute_in_background(&self) {
        let (Some(embedder), Ok(runtime)) = (self.0.embedder.clone(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        if self.0.computing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cache = self.clone();
        runtime.spawn(async move {
            loop {
                let Some(entry) = cache.0.state().entries.next_bare() else {
                    cache.0.computing.store(false, Ordering::Release);
                    // One may have come between the two.
                    let more = cache.0.state().entries.has_own_bare();
                    if !more || cache.0.computing.swap(true, Ordering::AcqRel) {
                        return;
                    }
                    continue;
                };
                let begun = Instant::now();
                cache.compute(&embedder, &entry).await;
                tokio::time::sleep(begun.elapsed() * BACKGROUND_PAUSE).await;
            }
        });
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a hit must reach at `vector`: as calibrated, moved by what users said of hits near it.
    fn bar(&self, key: &Key, vector: &[f32]) -> Bar<'_> {
        let rate = self.options.max_false_hit_rate;
        let (needed, wrong) = (self.verifier.needed(rate), self.verifier.wrong_of_hits(rate));
        let evidence = self.evidence.read().unwrap_or_else(PoisonError::into_inner);
        Bar { verifier: &self.verifier, needed: evidence.needed(&key.scope, vector, needed, wrong) }
    }

    fn semantic_applies(&self, key: &Key) -> bool {
        self.options.enabled && self.embedder.is_some() && key.task.len() <= self.options.semantic_max_bytes
    }

    fn tell(&self, change: Change) {
        if !(self.changes)(change) {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(cache.changes_lost = lost, "a change of the cache was not handed out");
        }
    }
}

fn found(held: &Held, tier: Tier, similarity: f32, now: Timestamp) -> Option<Found> {
    let (origin, answer) = held.packed.unpack()?;
    let hit = Hit { tier, similarity: f64::from(similarity), age: now.since(held.created), entry: held.id, origin };
    Some(Found { answer: Arc::new(answer), hit })
}

#[cfg(test)]
mod tests;
