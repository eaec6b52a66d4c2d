use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::index::Index;
use super::reading::Reading;
use crate::domain::record::{CacheEntry, Digest, EntryId, Sweep};
use crate::domain::{Language, Tenant, Timestamp};

/// Withdrawn ids that are remembered, so that a put which arrives after its own removal brings nothing back.
const REMEMBERED: usize = 65_536;

/// What an entry holds beside its texts, roughly: its record, its vector, its places in the tables. `benches/cache.rs` prints
/// what is counted beside what is taken.
const BESIDE: usize = 2_560;

/// Uses that count when room is made. More prove nothing, and what was popular once must be able to go.
const USES: u64 = 16;

/// All live entries. Plain data behind the cache's one lock; nothing here takes long.
pub(super) struct Entries {
    slots: HashMap<EntryId, Slot>,
    exact: HashMap<Digest, EntryId>,
    scopes: HashMap<Digest, Scope>,
    /// What goes first when room is needed stands first.
    by_rank: BTreeMap<Rank, EntryId>,
    /// The rank of what went last. What comes and what is used stands above it, so whatever is not used sinks.
    floor: u64,
    uses: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    /// Own entries that wanted a vector when they came, oldest first.
    own_bare: VecDeque<EntryId>,
    gone: HashSet<EntryId>,
    gone_in_order: VecDeque<EntryId>,
}

/// How much is lost with an entry, above the floor of its last use; among equals the least recently used goes first.
type Rank = (u64, u64);

struct Slot {
    /// Its vector is in the scope's index alone.
    entry: Arc<CacheEntry>,
    /// What its task says, read when a lookup first comes near; most entries never are.
    reading: Arc<OnceLock<Box<Reading>>>,
    own: bool,
    rank: Rank,
    hits: u64,
    bytes: usize,
}

/// An entry that a lookup came near to.
pub(super) struct Near {
    pub(super) entry: Arc<CacheEntry>,
    reading: Arc<OnceLock<Box<Reading>>>,
    pub(super) similarity: f32,
}

#[derive(Default)]
struct Scope {
    live: usize,
    index: Arc<RwLock<Index>>,
    /// Live, but without a vector.
    bare: HashSet<EntryId>,
}

impl Near {
    /// `language` is that of the scope, so the same at each call.
    pub(super) fn read(&self, language: &Language) -> &Reading {
        self.reading.get_or_init(|| Box::new(Reading::of(&self.entry.task, Some(language))))
    }
}

impl Entries {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            slots: HashMap::new(),
            exact: HashMap::new(),
            scopes: HashMap::new(),
            by_rank: BTreeMap::new(),
            floor: 0,
            uses: 0,
            bytes: 0,
            max_entries,
            max_bytes,
            own_bare: VecDeque::new(),
            gone: HashSet::new(),
            gone_in_order: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<CacheEntry>> {
        self.slots.values().map(|slot| &slot.entry)
    }

    /// A live entry, by key. What has expired is none.
    pub(super) fn by_exact(&self, exact: &Digest, now: Timestamp) -> Option<&Arc<CacheEntry>> {
        self.by_id(*self.exact.get(exact)?, now)
    }

    pub(super) fn by_id(&self, id: EntryId, now: Timestamp) -> Option<&Arc<CacheEntry>> {
        self.slots.get(&id).map(|slot| &slot.entry).filter(|entry| now < entry.expires)
    }

    pub(super) fn near(&self, id: EntryId, similarity: f32, now: Timestamp) -> Option<Near> {
        let slot = self.slots.get(&id).filter(|slot| now < slot.entry.expires)?;
        Some(Near { entry: slot.entry.clone(), reading: slot.reading.clone(), similarity })
    }

    /// Marks it as just used.
    pub(super) fn touch(&mut self, id: EntryId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.by_rank.remove(&slot.rank);
            self.uses += 1;
            slot.hits += 1;
            slot.rank = (self.floor + value(&slot.entry, slot.hits, slot.bytes), self.uses);
            self.by_rank.insert(slot.rank, id);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has_scope(&self, scope: &Digest) -> bool {
        self.scopes.get(scope).is_some_and(|scope| scope.live > 0)
    }

    /// The scope's vectors, to be searched without the lock.
    pub(super) fn index(&self, scope: &Digest) -> Option<Arc<RwLock<Index>>> {
        self.scopes.get(scope).map(|scope| scope.index.clone())
    }

    /// Up to `most` entries of the scope that want a vector, the newest first: own ones, and those that the worker which
    /// made them should have given one by `late`.
    pub(super) fn bare(&self, scope: &Digest, late: Timestamp, most: usize) -> Vec<Arc<CacheEntry>> {
        let Some(scope) = self.scopes.get(scope) else { return vec![] };
        let slots = scope.bare.iter().filter_map(|id| self.slots.get(id));
        let mut due: Vec<_> = slots.filter(|s| s.own || s.entry.created <= late).map(|s| s.entry.clone()).collect();
        due.sort_unstable_by_key(|entry| Reverse((entry.created, entry.id)));
        due.truncate(most);
        due
    }

    /// The newest own entry that was not asked for here before and still wants a vector.
    pub(super) fn next_bare(&mut self) -> Option<Arc<CacheEntry>> {
        while let Some(id) = self.own_bare.pop_back() {
            let Some(slot) = self.slots.get(&id) else { continue };
            if self.scopes.get(&slot.entry.scope).is_some_and(|scope| scope.bare.contains(&id)) {
                return Some(slot.entry.clone());
            }
        }
        None
    }

    pub(super) fn has_own_bare(&self) -> bool {
        !self.own_bare.is_empty()
    }

    /// Takes an entry in, in the place of an older one with its key and, where there is no room, of those that are missed
    /// least. False where it may not come in, because it was removed before, a newer one has
    /// its key, or it is too large.
    ///
    /// `own`: it was made here, so its vector is to be computed here.
    pub(super) fn insert(&mut self, entry: Arc<CacheEntry>, own: bool) -> bool {
        let bytes = size(&entry);
        if self.gone.contains(&entry.id) || bytes > self.max_bytes / 8 || self.max_entries == 0 {
            return false;
        }
        if let Some(&holder) = self.exact.get(&entry.exact) {
            let held = self.slots.get(&holder).map(|slot| (slot.entry.created, slot.entry.id));
            if holder == entry.id {
                // Known, but its vector may be news.
                entry.vector.as_ref().inspect(|vector| _ = self.set_vector(holder, vector));
                return false;
            }
            // The same winner on every worker, whatever the order of arrival.
            if held > Some((entry.created, entry.id)) {
                return false;
            }
            self.remove(holder);
        }
        while self.slots.len() >= self.max_entries || self.bytes + bytes > self.max_bytes {
            let Some((&(rank, _), &least)) = self.by_rank.first_key_value() else { break };
            self.floor = rank;
            self.remove(least);
        }
        self.add(entry, bytes, own);
        true
    }

    fn add(&mut self, mut entry: Arc<CacheEntry>, bytes: usize, own: bool) {
        let id = entry.id;
        let scope = self.scopes.entry(entry.scope).or_default();
        scope.live += 1;
        let has_vector = entry.vector.as_ref().is_some_and(|vector| write(&scope.index).insert(id, vector));
        if entry.vector.is_some() {
            Arc::make_mut(&mut entry).vector = None;
        }
        if !has_vector {
            scope.bare.insert(id);
            if own {
                self.own_bare.push_back(id);
            }
            // The oldest are the next to make room, or have.
            if self.own_bare.len() > self.max_entries {
                self.own_bare.pop_front();
            }
        }
        self.uses += 1;
        self.bytes += bytes;
        self.exact.insert(entry.exact, id);
        let rank = (self.floor + value(&entry, 1, bytes), self.uses);
        self.by_rank.insert(rank, id);
        self.slots.insert(id, Slot { entry, own, reading: Arc::default(), rank, hits: 1, bytes });
    }

    /// Gives a live entry its vector; false where it has gone or has one.
    pub(super) fn set_vector(&mut self, id: EntryId, vector: &Arc<[f32]>) -> bool {
        let Some(slot) = self.slots.get(&id) else { return false };
        let Some(scope) = self.scopes.get_mut(&slot.entry.scope) else { return false };
        if !scope.bare.contains(&id) || !write(&scope.index).insert(id, vector) {
            return false;
        }
        scope.bare.remove(&id);
        true
    }

    /// Takes entries out for good: they can't come back under the same id. Returns those that were here.
    pub(super) fn withdraw(&mut self, ids: &[EntryId]) -> Vec<EntryId> {
        for &id in ids {
            if self.gone.insert(id) {
                self.gone_in_order.push_back(id);
            }
        }
        while self.gone_in_order.len() > REMEMBERED {
            if let Some(oldest) = self.gone_in_order.pop_front() {
                self.gone.remove(&oldest);
            }
        }
        ids.iter().copied().filter(|&id| self.remove(id)).collect()
    }

    /// Those of a tenant that a sweep takes.
    pub(super) fn swept(&self, tenant: &Tenant, until: Timestamp, what: &Sweep) -> Vec<EntryId> {
        let theirs = |entry: &&Arc<CacheEntry>| entry.tenant == *tenant && entry.created <= until;
        self.iter().filter(theirs).filter(|entry| what.takes(&entry.answer)).map(|entry| entry.id).collect()
    }

    pub(super) fn expired(&self, now: Timestamp) -> Vec<EntryId> {
        self.iter().filter(|entry| now >= entry.expires).map(|entry| entry.id).collect()
    }

    fn remove(&mut self, id: EntryId) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        self.by_rank.remove(&slot.rank);
        self.bytes -= slot.bytes;
        if self.exact.get(&slot.entry.exact) == Some(&id) {
            self.exact.remove(&slot.entry.exact);
        }
        if let Some(scope) = self.scopes.get_mut(&slot.entry.scope) {
            write(&scope.index).remove(id);
            scope.bare.remove(&id);
            scope.live -= 1;
            if scope.live == 0 {
                self.scopes.remove(&slot.entry.scope);
            }
        }
        true
    }
}

/// What an entry holds in memory, roughly: its texts (those of its parts too), its vector, its places in the tables.
fn size(entry: &CacheEntry) -> usize {
    fn answer(a: &crate::domain::Answer) -> usize {
        a.text.len() + a.parts.iter().map(|p| p.description.len() + answer(&p.answer)).sum::<usize>()
    }
    entry.task.len() + answer(&entry.answer) + BESIDE
}

/// What is lost when an entry goes: what it costs to make it again, for each use that it had, by the room that it takes. A
/// rule's answer is made in a millisecond, a model's costs seconds and money: some fifteen times as much, and no more, or
/// what was dear once would never go.
fn value(entry: &CacheEntry, hits: u64, bytes: usize) -> u64 {
    let answer = &entry.answer;
    let (milliseconds, micro_dollars) = (answer.time.as_secs_f64() * 1e3, answer.cost.0 as f64 / 1e3);
    let again = 1.0 + (1.0 + milliseconds + micro_dollars).log2();
    // In 1,024ths for each KiB, so that whole numbers are fine enough.
    (again * hits.min(USES) as f64 * 1_024.0 * 1_024.0 / bytes.max(1) as f64) as u64
}

fn write(index: &RwLock<Index>) -> std::sync::RwLockWriteGuard<'_, Index> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}
