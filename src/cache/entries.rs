use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::index::Index;
use crate::domain::Timestamp;
use crate::domain::record::{CacheEntry, Digest, EntryId};

/// Withdrawn ids that are remembered, so that a put which arrives after its own removal brings nothing back.
const REMEMBERED: usize = 65_536;

/// All live entries. Plain data behind the cache's one lock; nothing here takes long.
pub(super) struct Entries {
    slots: HashMap<EntryId, Slot>,
    exact: HashMap<Digest, EntryId>,
    scopes: HashMap<Digest, Scope>,
    /// Oldest use first.
    by_use: BTreeMap<u64, EntryId>,
    uses: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    gone: HashSet<EntryId>,
    gone_in_order: VecDeque<EntryId>,
}

struct Slot {
    entry: Arc<CacheEntry>,
    used: u64,
    bytes: usize,
}

#[derive(Default)]
struct Scope {
    live: usize,
    index: Arc<RwLock<Index>>,
    /// Live, but without a vector.
    bare: HashSet<EntryId>,
    /// Of those, the ones that are being computed; the channel closes when that has ended.
    pending: HashMap<EntryId, watch::Receiver<()>>,
}

impl Entries {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            slots: HashMap::new(),
            exact: HashMap::new(),
            scopes: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            max_entries,
            max_bytes,
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

    /// Marks it as just used.
    pub(super) fn touch(&mut self, id: EntryId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.by_use.remove(&slot.used);
            self.uses += 1;
            slot.used = self.uses;
            self.by_use.insert(self.uses, id);
        }
    }

    pub(super) fn has_scope(&self, scope: &Digest) -> bool {
        self.scopes.get(scope).is_some_and(|scope| scope.live > 0)
    }

    /// The scope's vectors, to be searched without the lock.
    pub(super) fn index(&self, scope: &Digest) -> Option<Arc<RwLock<Index>>> {
        self.scopes.get(scope).map(|scope| scope.index.clone())
    }

    /// What will close once the vectors that are being computed in this scope are there.
    pub(super) fn pending(&self, scope: &Digest) -> Vec<watch::Receiver<()>> {
        self.scopes.get(scope).map(|scope| scope.pending.values().cloned().collect()).unwrap_or_default()
    }

    /// Entries of the scope that have no vector and for which nobody here is computing one.
    pub(super) fn forgotten(&self, scope: &Digest, made_before: Timestamp) -> Vec<Arc<CacheEntry>> {
        let Some(scope) = self.scopes.get(scope) else { return vec![] };
        let idle = scope.bare.iter().filter(|id| !scope.pending.contains_key(id));
        idle.filter_map(|id| self.slots.get(id)).map(|s| s.entry.clone()).filter(|e| e.created <= made_before).collect()
    }

    /// Takes an entry in, in the place of an older one with its key and, where there is no room, of those that were
    /// not used for the longest time. False where it may not come in, because it was removed before, a newer one has
    /// its key, or it is too large.
    pub(super) fn insert(&mut self, entry: Arc<CacheEntry>) -> bool {
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
            let Some((_, &oldest)) = self.by_use.first_key_value() else { break };
            self.remove(oldest);
        }
        self.add(entry, bytes);
        true
    }

    fn add(&mut self, entry: Arc<CacheEntry>, bytes: usize) {
        let id = entry.id;
        let scope = self.scopes.entry(entry.scope).or_default();
        scope.live += 1;
        let has_vector = entry.vector.as_ref().is_some_and(|vector| write(&scope.index).insert(id, vector));
        if !has_vector {
            scope.bare.insert(id);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.exact.insert(entry.exact, id);
        self.by_use.insert(self.uses, id);
        self.slots.insert(id, Slot { entry, used: self.uses, bytes });
    }

    /// Notes that a vector is being computed. `None` if the entry has gone, has one, or somebody else computes it.
    pub(super) fn begin(&mut self, entry: &CacheEntry) -> Option<watch::Sender<()>> {
        let scope = self.scopes.get_mut(&entry.scope).filter(|scope| scope.bare.contains(&entry.id))?;
        if scope.pending.contains_key(&entry.id) {
            return None;
        }
        let (ends, ended) = watch::channel(());
        scope.pending.insert(entry.id, ended);
        Some(ends)
    }

    /// Ends what [`Self::begin`] began. True if the vector was taken.
    pub(super) fn finish(&mut self, id: EntryId, vector: Option<&Arc<[f32]>>) -> bool {
        let taken = vector.is_some_and(|vector| self.set_vector(id, vector));
        if let Some(scope) = self.slots.get(&id).and_then(|slot| self.scopes.get_mut(&slot.entry.scope)) {
            scope.pending.remove(&id);
        }
        taken
    }

    /// Gives a live entry its vector.
    pub(super) fn set_vector(&mut self, id: EntryId, vector: &Arc<[f32]>) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else { return false };
        let Some(scope) = self.scopes.get_mut(&slot.entry.scope) else { return false };
        if !scope.bare.contains(&id) || !write(&scope.index).insert(id, vector) {
            return false;
        }
        scope.bare.remove(&id);
        Arc::make_mut(&mut slot.entry).vector = Some(vector.clone());
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

    pub(super) fn expired(&self, now: Timestamp) -> Vec<EntryId> {
        self.iter().filter(|entry| now >= entry.expires).map(|entry| entry.id).collect()
    }

    fn remove(&mut self, id: EntryId) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        self.by_use.remove(&slot.used);
        self.bytes -= slot.bytes;
        if self.exact.get(&slot.entry.exact) == Some(&id) {
            self.exact.remove(&slot.entry.exact);
        }
        if let Some(scope) = self.scopes.get_mut(&slot.entry.scope) {
            write(&scope.index).remove(id);
            scope.bare.remove(&id);
            scope.pending.remove(&id);
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
    entry.task.len() + answer(&entry.answer) + 4096
}

fn write(index: &RwLock<Index>) -> std::sync::RwLockWriteGuard<'_, Index> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}
