//! Taking cached answers back: by what they are, not one by one.

use std::time::{Duration, Instant};

use super::{Error, Pipeline};
use crate::domain::record::Sweep;
use crate::domain::{Tenant, Timestamp};
use crate::store::Sequence;

/// Entries looked at in one transaction.
const BATCH: u32 = 500;

/// What a sweep came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    pub withdrawn: usize,
    /// False where the time was over first: ask again.
    pub complete: bool,
}

impl Pipeline {
    /// Drops from memory what a sweep takes, and writes what waits, so that it can be withdrawn in the database.
    pub async fn sweep_memory(&self, tenant: &Tenant, until: Timestamp, what: &Sweep) -> Result<(), Error> {
        self.cache.sweep(tenant, until, what);
        self.recorder.flush().await.map_err(Error::Unavailable)
    }

    /// Withdraws in the database what a sweep takes, for at most `time`. Call [`Self::sweep_memory`] first, on every worker.
    pub async fn sweep(
        &self,
        tenant: &Tenant,
        until: Timestamp,
        what: &Sweep,
        now: Timestamp,
        time: Duration,
    ) -> Result<Swept, Error> {
        let (begun, mut withdrawn, mut from) = (Instant::now(), 0, Some(Sequence::default()));
        while let Some(seen) = from {
            if begun.elapsed() >= time {
                return Ok(Swept { withdrawn, complete: false });
            }
            let swept = self.store.sweep(tenant, until, what, seen, now, BATCH).await;
            let (taken, next) = swept.map_err(Error::Unavailable)?;
            withdrawn += taken.len();
            from = next;
        }
        Ok(Swept { withdrawn, complete: true })
    }
}
