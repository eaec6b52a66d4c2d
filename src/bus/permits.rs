//! Who may work at a time. Nobody queues: a permit is there or it is not.
//!
//! A tenant may hold permits in proportion to those that are still free. Alone it gets its quota; with others at work
//! all that ask for more come to hold the same, and some permits stay free for whoever comes next. So a loud tenant
//! never has to be stopped, and a quiet one finds room at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::Tenant;

/// The permits of one lane. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Permits(Arc<Shared>);

struct Shared {
    all: usize,
    quota: usize,
    held: Mutex<Held>,
    idle: Notify,
}

/// A tenant is in the map only while it holds something, so hostile names can't make it grow beyond the permits.
#[derive(Default)]
struct Held {
    taken: usize,
    by: HashMap<Tenant, usize>,
}

/// The right to work; given back when dropped.
pub(super) struct Permit {
    of: Permits,
    tenant: Tenant,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum None {
    /// All are taken, by whomever.
    Full,
    /// Some are free, but the tenant has its share: this many.
    Share(usize),
}

impl Permits {
    /// `quota` is what a tenant may hold alone: from 1 to `all`. With all of them nothing is kept for others.
    pub(super) fn new(all: usize, quota: usize) -> Self {
        let quota = quota.clamp(1, all.max(1));
        Self(Arc::new(Shared { all, quota, held: Mutex::default(), idle: Notify::new() }))
    }

    pub(super) fn take(&self, tenant: &Tenant) -> Result<Permit, None> {
        let Shared { all, quota, .. } = &*self.0;
        let mut held = self.held();
        let free = all.saturating_sub(held.taken);
        if free == 0 {
            return Err(None::Full);
        }
        let own = held.by.get(tenant).copied().unwrap_or(0);
        // Alone, own + free = all, and this holds until own = quota.
        if own * (all - quota) >= free * quota {
            return Err(None::Share(own));
        }
        held.taken += 1;
        *held.by.entry(tenant.clone()).or_default() += 1;
        Ok(Permit { of: self.clone(), tenant: tenant.clone() })
    }

    pub(super) fn taken(&self) -> usize {
        self.held().taken
    }

    /// How many tenants are at work, and how much the busiest of them holds. No names: whoever may see the figures of
    /// a worker need not know whom it serves.
    pub(super) fn shares(&self) -> (usize, usize) {
        let held = self.held();
        (held.by.len(), held.by.values().copied().max().unwrap_or(0))
    }

    /// Waits until nothing is taken.
    pub(super) async fn all_free(&self) {
        loop {
            let mut idle = std::pin::pin!(self.0.idle.notified());
            // Before looking: what is given back meanwhile must not be missed.
            idle.as_mut().enable();
            if self.taken() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.of.held();
        held.taken = held.taken.saturating_sub(1);
        // Taken out with the last one: an idle tenant leaves nothing behind.
        if let Entry::Occupied(mut own) = held.by.entry(self.tenant.clone()) {
            match own.get().checked_sub(1) {
                Some(left @ 1..) => *own.get_mut() = left,
                _ => drop(own.remove()),
            }
        }
        let idle = held.taken == 0;
        drop(held);
        if idle {
            self.of.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    /// All that a tenant can get now.
    fn grab(permits: &Permits, name: &str) -> Vec<Permit> {
        std::iter::from_fn(|| permits.take(&tenant(name)).ok()).collect()
    }

    #[test]
    fn alone_a_tenant_gets_its_quota_and_another_finds_room() {
        for (all, quota) in [(256, 128), (256, 1), (256, 200), (3, 2), (2, 1), (7, 3)] {
            let permits = Permits::new(all, quota);
            let loud = grab(&permits, "loud");
            assert_eq!(loud.len(), quota, "{all} {quota}");
            assert_eq!(permits.take(&tenant("loud")).err(), Some(None::Share(quota)));
            assert!(permits.take(&tenant("quiet")).is_ok(), "{all} {quota}");
        }
        let all = Permits::new(256, 256);
        let loud = grab(&all, "loud");
        assert_eq!(loud.len(), 256, "nothing is kept where the quota is everything");
        assert_eq!(all.take(&tenant("quiet")).err(), Some(None::Full));
    }

    #[test]
    fn tenants_that_want_all_come_to_hold_the_same_whoever_came_first() {
        let permits = Permits::new(256, 128);
        let mut held: Vec<(String, Vec<Permit>)> =
            (0..4).map(|n| (format!("t{n}"), grab(&permits, &format!("t{n}")))).collect();
        assert_eq!(held[0].1.len(), 128);
        // Each gives back one in turn and takes what it can get.
        for _ in 0..200 {
            for (name, own) in &mut held {
                own.pop();
                own.extend(grab(&permits, name));
            }
        }
        let shares: Vec<usize> = held.iter().map(|(_, own)| own.len()).collect();
        assert!(shares.iter().all(|share| share.abs_diff(256 / 5) <= 1), "{shares:?}");
        assert_eq!(permits.shares().0, 4);
        assert!(permits.take(&tenant("newcomer")).is_ok());
    }

    #[test]
    fn what_is_given_back_leaves_nothing_of_its_tenant() {
        let permits = Permits::new(8, 4);
        for n in 0..1_000 {
            drop(permits.take(&tenant(&format!("t{n}"))).ok());
        }
        assert_eq!((permits.taken(), permits.held().by.len()), (0, 0));
        let some: Vec<Permit> = (0..1_000).filter_map(|n| permits.take(&tenant(&format!("t{n}"))).ok()).collect();
        assert_eq!((some.len(), permits.shares()), (8, (8, 1)));
        assert!(permits.all_free().now_or_never().is_none());
        drop(some);
        assert!(permits.all_free().now_or_never().is_some());
    }
}
