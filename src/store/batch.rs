use std::sync::Arc;

use crate::domain::Timestamp;
use crate::domain::record::{CacheEntry, EntryId, Execution};

use super::{Entry, Error, Store, entries, learning, ledger};

/// One thing to write. Several go into one transaction, in their order.
#[derive(Debug, Clone)]
pub enum Write {
    Execution(Execution),
    Entry(CacheEntry),
    /// The vector of an entry that was put without one.
    Vector(EntryId, Arc<[f32]>),
    /// Entries that are not to be served any more. Ids that are unknown are passed over.
    Withdrawal(Vec<EntryId>, Timestamp),
    /// An attempt at asking a model.
    Attempt(Entry),
}

impl Store {
    /// Writes all in one transaction. What was written before (the same execution, the same entry) is left alone, so
    /// a batch whose commit went unanswered may be written again.
    /// Returns the entries that must not be served any more: see [`Store::put_entries`].
    pub async fn write(&self, batch: &[&Write]) -> Result<Vec<EntryId>, Error> {
        let executions = batch.iter().filter_map(|write| if let Write::Execution(e) = write { Some(e) } else { None });
        let puts = batch.iter().filter_map(|write| match write {
            Write::Execution(_) | Write::Attempt(_) => None,
            Write::Entry(entry) => Some(entries::Put::Entry(entry)),
            Write::Vector(id, vector) => Some(entries::Put::Vector(*id, vector)),
            Write::Withdrawal(ids, now) => Some(entries::Put::Withdrawal(ids, *now)),
        });
        let attempts = batch.iter().filter_map(|write| if let Write::Attempt(a) = write { Some(a) } else { None });
        self.write_all("write a batch", executions.collect(), attempts.collect(), puts.collect()).await
    }

    pub(super) async fn write_all(
        &self,
        action: &'static str,
        executions: Vec<&Execution>,
        attempts: Vec<&Entry>,
        puts: Vec<entries::Put<'_>>,
    ) -> Result<Vec<EntryId>, Error> {
        if executions.is_empty() && attempts.is_empty() && puts.is_empty() {
            return Ok(Vec::new());
        }
        let run = async {
            let mut tx = self.begin().await?;
            learning::record(&mut tx, executions).await?;
            ledger::record(&mut tx, attempts).await?;
            let replaced = entries::put(&mut tx, &puts).await?;
            tx.commit().await?;
            Ok(replaced)
        };
        run.await.map_err(Error::during(action))
    }
}
