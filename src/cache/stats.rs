use std::collections::{BTreeMap, HashMap};

use super::guards::Guard;
use crate::domain::Tenant;

/// Tenants that are counted one by one; a flood of made-up names must not fill the memory.
const TENANTS: usize = 10_000;

/// A tenant's figures since this worker started; `entries` is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    pub entries: usize,
    /// Of all tenants, and what they take of `max_bytes`.
    pub held: usize,
    pub bytes: usize,
    pub exact_hits: u64,
    pub semantic_hits: u64,
    /// Lookups that neither tier could answer.
    pub misses: u64,
    /// Near entries that a guard refused.
    pub refused: BTreeMap<Guard, u64>,
    /// Changes that could not be handed out because nobody took them in time, all tenants together. What they
    /// changed is right in this worker's memory and missing elsewhere.
    pub changes_lost: u64,
}

#[derive(Default)]
pub(super) struct Counters(HashMap<Tenant, Stats>);

impl Counters {
    pub(super) fn count(&mut self, tenant: &Tenant, change: impl FnOnce(&mut Stats)) {
        if let Some(stats) = self.0.get_mut(tenant) {
            change(stats);
        } else if self.0.len() < TENANTS {
            change(self.0.entry(tenant.clone()).or_default());
        }
    }

    pub(super) fn of(&self, tenant: &Tenant) -> Stats {
        self.0.get(tenant).cloned().unwrap_or_default()
    }
}
