//! Deleting what a tenant has.

use std::time::{Duration, Instant};

use super::{Error, Pipeline};
use crate::domain::{Tenant, Timestamp};
use crate::store::{Reach, Rows};
use crate::telemetry::meters;

/// Rows of one kind in one transaction.
const BATCH: u32 = 500;
/// Between two transactions, so that others get theirs.
const PAUSE: Duration = Duration::from_millis(10);

/// What a purge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    pub rows: Rows,
    /// False where the time was over first: ask again.
    pub complete: bool,
}

impl Pipeline {
    /// Drops from memory what a tenant had until then, and writes what waits of it, so that it can be deleted.
    pub async fn forget(&self, tenant: &Tenant, until: Timestamp) -> Result<(), Error> {
        self.cache.forget(tenant, until);
        if let Some(embedder) = &self.embedder {
            embedder.forget();
        }
        self.recorder.flush().await.map_err(Error::Unavailable)
    }

    /// What a purge would reach.
    pub async fn purgeable(&self, tenant: &Tenant, reach: Reach) -> Result<Rows, Error> {
        self.recorder.flush().await.map_err(Error::Unavailable)?;
        self.store.reached(tenant, reach).await.map_err(Error::Unavailable)
    }

    /// Deletes a tenant's rows, in batches, for at most `time`. Call [`Self::forget`] first, on every worker.
    pub async fn purge(&self, tenant: &Tenant, reach: Reach, now: Timestamp, time: Duration) -> Result<Purged, Error> {
        let begun = Instant::now();
        let mut rows = Rows::default();
        let complete = loop {
            let gone = self.store.purge(tenant, reach, now, BATCH).await.map_err(Error::Unavailable)?;
            if gone.is_empty() {
                break true;
            }
            rows.add(&gone);
            if begun.elapsed() >= time {
                break false;
            }
            tokio::time::sleep(PAUSE).await;
        };
        rows.named().into_iter().for_each(|(table, count)| meters().purged(table, count));
        self.reload_blocks().await?;
        Ok(Purged { rows, complete })
    }
}
