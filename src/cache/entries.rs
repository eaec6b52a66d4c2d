use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;

use super::index::Index;
use super::packed::Packed;
use crate::domain::record::{CacheEntry, Digest, EntryId};
use crate::domain::{Answer, Tenant, Timestamp};

/// Withdrawn ids that are remembered, so that a put which arrives after its own removal brings nothing back.
const REMEMBERED: usize = 65_536;

/// What an entry takes beside its packed form and its vector: its slot, its places in the tables, what the allocator adds.
/// Measured with the next one: the tests below hold what is counted against what the process takes.
const BESIDE: usize = 400;

/// What a scope takes beside the vectors in it. Many have one entry: each conversation is a scope of its own.
const SCOPE: usize = 640;

/// Uses that count when room is made. More prove nothing, and what was popular once must be able to go.
const USES: u32 = 16;

/// All live entries. Plain data behind the cache's one lock; nothing here takes long.
pub(super) struct Entries {
    slots: HashMap<EntryId, Box<Slot>>,
    /// By exact key, which only the slot holds.
    exact: HashTable<EntryId>,
    hasher: RandomState,
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

/// What lookups and tables need of an entry. Its vector is in the scope's index alone.
struct Slot {
    packed: Packed,
    exact: Digest,
    scope: Digest,
    created: Timestamp,
    expires: Timestamp,
    rank: Rank,
    /// What it costs to make it again, in the unit of [`again`].
    again: f32,
    hits: u32,
    own: bool,
}

/// A live entry, as a lookup takes it away from the lock.
pub(super) struct Held {
    pub(super) id: EntryId,
    pub(super) packed: Packed,
    pub(super) created: Timestamp,
}

#[derive(Default)]
struct Scope {
    /// Of all its entries: it is part of the scope.
    tenant: Tenant,
    live: usize,
    index: Arc<RwLock<Index>>,
    /// Live, but without a vector.
    bare: HashSet<EntryId>,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.packed.len() + BESIDE
    }

    /// What is lost when it goes: what it costs to make it again, for each use that it had, by the room that it takes.
    fn value(&self) -> u64 {
        // In 1,024ths for each KiB, so that whole numbers are fine enough.
        let uses = f64::from(self.hits.min(USES));
        (f64::from(self.again) * uses * 1_024.0 * 1_024.0 / self.bytes() as f64) as u64
    }

    fn held(&self, id: EntryId) -> Held {
        Held { id, packed: self.packed.clone(), created: self.created }
    }
}

impl Entries {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            slots: HashMap::new(),
            exact: HashTable::new(),
            hasher: RandomState::new(),
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

    /// How many a tenant has.
    pub(super) fn count(&self, tenant: &Tenant) -> usize {
        self.scopes.values().filter(|scope| scope.tenant == *tenant).map(|scope| scope.live).sum()
    }

    /// A live entry, by key. What has expired is none.
    pub(super) fn by_exact(&self, exact: &Digest, now: Timestamp) -> Option<Held> {
        self.by_id(self.holder(exact)?, now)
    }

    pub(super) fn by_id(&self, id: EntryId, now: Timestamp) -> Option<Held> {
        self.slots.get(&id).filter(|slot| now < slot.expires).map(|slot| slot.held(id))
    }

    pub(super) fn serves(&self, id: EntryId, now: Timestamp) -> bool {
        self.slots.get(&id).is_some_and(|slot| now < slot.expires)
    }

    /// Marks it as just used.
    pub(super) fn touch(&mut self, id: EntryId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.by_rank.remove(&slot.rank);
            self.uses += 1;
            slot.hits = slot.hits.saturating_add(1);
            slot.rank = (self.floor + slot.value(), self.uses);
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
    pub(super) fn bare(&self, scope: &Digest, late: Timestamp, most: usize) -> Vec<Held> {
        let Some(scope) = self.scopes.get(scope) else { return vec![] };
        let slots = scope.bare.iter().filter_map(|id| Some((*id, self.slots.get(id)?)));
        let due = slots.filter(|(_, slot)| slot.own || slot.created <= late);
        let mut due: Vec<Held> = due.map(|(id, slot)| slot.held(id)).collect();
        due.sort_unstable_by_key(|held| Reverse((held.created, held.id)));
        due.truncate(most);
        due
    }

    /// The newest own entry that was not asked for here before and still wants a vector.
    pub(super) fn next_bare(&mut self) -> Option<Held> {
        while let Some(id) = self.own_bare.pop_back() {
            let Some(slot) = self.slots.get(&id) else { continue };
            if self.scopes.get(&slot.scope).is_some_and(|scope| scope.bare.contains(&id)) {
                return Some(slot.held(id));
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
    pub(super) fn insert(&mut self, entry: &CacheEntry, own: bool) -> bool {
        if self.gone.contains(&entry.id) || self.max_entries == 0 {
            return false;
        }
        let holder = self.holder(&entry.exact);
        if holder == Some(entry.id) {
            // Known, but its vector may be news.
            entry.vector.as_ref().inspect(|vector| _ = self.set_vector(entry.id, vector));
            return false;
        }
        let held = holder.and_then(|id| Some((self.slots.get(&id)?.created, id)));
        // The same winner on every worker, whatever the order of arrival.
        if held > Some((entry.created, entry.id)) {
            return false;
        }
        let Some(packed) = Packed::of(entry).filter(|packed| packed.len() + BESIDE <= self.max_bytes / 8) else {
            return false;
        };
        if let Some(holder) = holder {
            self.remove(holder);
        }
        self.make_room(packed.len() + BESIDE, 1);
        self.add(entry, packed, own);
        // Its scope took some, too.
        self.make_room(0, 0);
        true
    }

    fn make_room(&mut self, bytes: usize, entries: usize) {
        while self.slots.len() + entries > self.max_entries || self.bytes + bytes > self.max_bytes {
            let Some((&(rank, _), &least)) = self.by_rank.first_key_value() else { break };
            self.floor = rank;
            self.remove(least);
        }
    }

    fn add(&mut self, entry: &CacheEntry, packed: Packed, own: bool) {
        let id = entry.id;
        self.uses += 1;
        let mut slot = Slot {
            packed,
            exact: entry.exact,
            scope: entry.scope,
            created: entry.created,
            expires: entry.expires,
            rank: (0, 0),
            again: again(&entry.answer),
            hits: 1,
            own,
        };
        slot.rank = (self.floor + slot.value(), self.uses);
        self.bytes += slot.bytes();
        self.by_rank.insert(slot.rank, id);
        self.slots.insert(id, Box::new(slot));
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = |id: &EntryId| slots.get(id).map_or(0, |slot| hasher.hash_one(slot.exact));
        self.exact.insert_unique(hasher.hash_one(entry.exact), id, hash);

        let scope = self.scopes.entry(entry.scope).or_insert_with(|| {
            self.bytes += SCOPE;
            Scope { tenant: entry.tenant.clone(), ..Scope::default() }
        });
        scope.live += 1;
        scope.bare.insert(id);
        let has_vector = entry.vector.as_ref().is_some_and(|vector| self.set_vector(id, vector));
        if own && !has_vector {
            self.own_bare.push_back(id);
            // The oldest are the next to make room, or have.
            if self.own_bare.len() > self.max_entries {
                self.own_bare.pop_front();
            }
        }
    }

    /// Gives a live entry its vector; false where it has gone or has one.
    pub(super) fn set_vector(&mut self, id: EntryId, vector: &[f32]) -> bool {
        let Some(scope) = self.slots.get(&id).and_then(|slot| self.scopes.get_mut(&slot.scope)) else { return false };
        let taken = scope.bare.contains(&id) && in_index(&mut self.bytes, scope, |index| index.insert(id, vector));
        if taken {
            scope.bare.remove(&id);
            self.make_room(0, 0);
        }
        taken
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

    /// Those of a tenant that were stored until then.
    pub(super) fn of_tenant(&self, tenant: &Tenant, until: Timestamp) -> Vec<Held> {
        let theirs = |slot: &Slot| self.scopes.get(&slot.scope).is_some_and(|scope| scope.tenant == *tenant);
        let slots = self.slots.iter().filter(|(_, slot)| slot.created <= until && theirs(slot));
        slots.map(|(id, slot)| slot.held(*id)).collect()
    }

    pub(super) fn expired(&self, now: Timestamp) -> Vec<EntryId> {
        self.slots.iter().filter(|(_, slot)| now >= slot.expires).map(|(id, _)| *id).collect()
    }

    fn holder(&self, exact: &Digest) -> Option<EntryId> {
        let is_its = |id: &EntryId| self.slots.get(id).is_some_and(|slot| slot.exact == *exact);
        self.exact.find(self.hasher.hash_one(exact), is_its).copied()
    }

    fn remove(&mut self, id: EntryId) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        self.by_rank.remove(&slot.rank);
        self.bytes -= slot.bytes();
        if let Ok(place) = self.exact.find_entry(self.hasher.hash_one(slot.exact), |other| *other == id) {
            place.remove();
        }
        if let Some(scope) = self.scopes.get_mut(&slot.scope) {
            in_index(&mut self.bytes, scope, |index| index.remove(id));
            scope.bare.remove(&id);
            scope.live -= 1;
            if scope.live == 0 {
                self.scopes.remove(&slot.scope);
                self.bytes -= SCOPE;
            }
        }
        true
    }
}

/// Changes a scope's vectors, and counts what they take.
fn in_index<T>(bytes: &mut usize, scope: &Scope, change: impl FnOnce(&mut Index) -> T) -> T {
    let mut index = scope.index.write().unwrap_or_else(PoisonError::into_inner);
    let before = index.bytes();
    let changed = change(&mut index);
    *bytes = *bytes + index.bytes() - before;
    changed
}

/// What it costs to make an answer again. A rule's is made in a millisecond, a model's costs seconds and money: some fifteen
/// times as much, and no more, or what was dear once would never go.
fn again(answer: &Answer) -> f32 {
    let (milliseconds, micro_dollars) = (answer.time.as_secs_f64() * 1e3, answer.cost.0 as f64 / 1e3);
    (1.0 + (1.0 + milliseconds + micro_dollars).log2()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::EntryKind;
    use crate::domain::{CorrelationId, Language, Method, TaskType};

    /// Of this process, which no other test shares.
    fn taken() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn digest(label: u8, n: usize) -> Digest {
        let mut digest = [label; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        digest
    }

    fn entry(n: usize, scope: Digest) -> CacheEntry {
        let text = format!("defmodule Made{n} do\n{}end\n", "  def run(event), do: {:ok, event}\n".repeat(12));
        let answer = Answer::new(Method::Autonomous, TaskType::General, &Language::Elixir, text, Timestamp(0));
        let mut state = n as u64;
        let vector = std::array::from_fn::<f32, 384, _>(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) * 0.088
        });
        CacheEntry {
            id: EntryId(uuid::Uuid::now_v7()),
            tenant: Tenant::default(),
            kind: EntryKind::Request,
            scope,
            exact: digest(2, n),
            task: format!("Create a NATS consumer for processing events of kind {n}").into(),
            answer: Arc::new(answer),
            vector: Some(vector.as_slice().into()),
            origin: CorrelationId::generate(),
            created: Timestamp(0),
            expires: Timestamp(1),
        }
    }

    /// What is counted for each byte that so many entries take.
    fn counted(count: usize, scope: impl Fn(usize) -> Digest) -> f64 {
        let before = taken();
        let mut entries = Entries::new(usize::MAX, usize::MAX);
        for n in 0..count {
            assert!(entries.insert(&entry(n, scope(n)), false));
        }
        let share = entries.bytes() as f64 / (taken() - before) as f64;
        println!("{} counted for each entry, {share:.3} of what is taken", entries.bytes() / count);
        share
    }

    #[test]
    fn what_is_counted_is_what_a_large_scope_takes() {
        let share = counted(30_000, |_| digest(1, 0));
        assert!((0.85..1.15).contains(&share), "{share}");
    }

    #[test]
    fn what_is_counted_is_what_many_small_scopes_take() {
        let share = counted(10_000, |n| digest(1, n));
        assert!((0.85..1.15).contains(&share), "{share}");
    }

    #[test]
    fn vectors_that_come_later_keep_to_the_room_that_there_is() {
        let mut entries = Entries::new(usize::MAX, 100 * 1024);
        let all: Vec<CacheEntry> = (0..60).map(|n| entry(n, digest(1, 0))).collect();
        for entry in &all {
            assert!(entries.insert(&CacheEntry { vector: None, ..entry.clone() }, false));
        }
        assert_eq!(entries.len(), 60, "without vectors there is room for all");
        for entry in &all {
            entries.set_vector(entry.id, entry.vector.as_ref().unwrap());
            assert!(entries.bytes() <= 100 * 1024);
        }
        assert!((30..60).contains(&entries.len()), "{}", entries.len());
    }

    #[test]
    fn what_goes_leaves_nothing_counted() {
        let mut entries = Entries::new(usize::MAX, usize::MAX);
        let all: Vec<CacheEntry> = (0..40).map(|n| entry(n, digest(1, n / 10))).collect();
        for entry in &all {
            assert!(entries.insert(entry, false));
        }
        for entry in all.iter().rev() {
            assert_eq!(entries.by_exact(&entry.exact, Timestamp(0)).map(|held| held.id), Some(entry.id));
            assert_eq!(entries.withdraw(&[entry.id]), [entry.id]);
            assert!(entries.by_exact(&entry.exact, Timestamp(0)).is_none());
        }
        assert_eq!((entries.len(), entries.bytes()), (0, 0));
    }
}
