//! Calls that share a commit.
//!
//! A commit costs more than what it commits. So calls about ids that come while another transaction runs wait for its end
//! and go into the next one together. Nobody waits for company: with nothing under way, a call is a transaction of its
//! own. Each caller gets its own outcome, after the commit. Where a call spoils the transaction for the others, each is
//! done alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::claims::{Call, Outcome};
use super::{Error, Store};

/// Calls in one transaction, at most: its locks are held until the last is done.
const MOST: usize = 128;
/// After this a transaction counts as failed. Above SQLite's own wait for another process.
const LIMIT: Duration = Duration::from_secs(10);

/// What waits for the next transaction. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Group(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    side_by_side: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Tasks that write what waits.
    writers: usize,
}

#[derive(Debug)]
struct Waiting {
    action: &'static str,
    call: Call,
    done: oneshot::Sender<Result<Outcome, Error>>,
}

impl Group {
    /// With so many transactions at a time.
    pub(super) fn new(side_by_side: usize) -> Self {
        Self(Arc::new(Shared { side_by_side, queue: Mutex::default() }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Does a call in a transaction that others may share. A caller that goes away before it was begun takes it along.
    pub(super) async fn grouped(&self, action: &'static str, call: Call) -> Result<Outcome, Error> {
        let (done, outcome) = oneshot::channel();
        let writer = {
            let mut queue = self.group.queue();
            queue.waiting.push(Waiting { action, call, done });
            let wanted = queue.writers < self.group.0.side_by_side;
            queue.writers += usize::from(wanted);
            wanted.then(|| Writer { group: self.group.clone(), counted: true })
        };
        if let Some(writer) = writer {
            // A task: what others wait for must not end with this caller.
            tokio::spawn(writer.run(self.clone()));
        }
        outcome.await.unwrap_or(Err(Error::Stopped))
    }

    /// Each in its own transaction where one spoils it for the others.
    async fn write_group(&self, mut calls: Vec<Waiting>) {
        // PostgreSQL locks each row until the end: in one order, so that no two transactions wait for each other.
        calls.sort_by(|a, b| {
            (a.call.tenant.as_str(), a.call.id.as_str()).cmp(&(b.call.tenant.as_str(), b.call.id.as_str()))
        });
        let failed = match self.write_once(&calls).await {
            Ok(outcomes) => {
                let mut abandoned = vec![];
                for (waiting, outcome) in calls.into_iter().zip(outcomes) {
                    let undoing = waiting.call.undoing(&outcome);
                    if waiting.done.send(Ok(outcome)).is_err() {
                        abandoned.extend(undoing);
                    }
                }
                self.undo(abandoned).await;
                return;
            }
            Err(error) => error,
        };
        if calls.len() > 1 && failed.may_be_of_one() {
            for waiting in calls {
                let alone = self.write_once(std::slice::from_ref(&waiting)).await;
                let outcome = alone.and_then(|mut outcomes| outcomes.pop().ok_or(Error::Stopped));
                let _gone = waiting.done.send(outcome);
            }
            return;
        }
        let failed = Arc::new(failed);
        for waiting in calls {
            let error = Error::Shared { action: waiting.action, source: failed.clone() };
            let _gone = waiting.done.send(Err(error));
        }
    }

    /// Who went away while his claim was written holds it without knowing; his own release may have come before it.
    async fn undo(&self, abandoned: Vec<Call>) {
        for call in abandoned {
            let (done, _) = oneshot::channel();
            let free = Waiting { action: "free an abandoned id", call, done };
            if let Err(error) = self.write_once(std::slice::from_ref(&free)).await {
                tracing::warn!(%error, "an abandoned id could not be freed; its lease will lapse");
            }
        }
    }

    async fn write_once(&self, calls: &[Waiting]) -> Result<Vec<Outcome>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let mut outcomes = Vec::with_capacity(calls.len());
            for waiting in calls {
                outcomes.push(waiting.call.run(&mut tx).await?);
            }
            tx.commit().await?;
            Ok(outcomes)
        };
        let action = "write about request ids";
        match tokio::time::timeout(LIMIT, run).await {
            Ok(written) => written.map_err(Error::during(action)),
            Err(_) => Err(Error::Timeout { action, limit: LIMIT }),
        }
    }
}

/// Writes until nothing waits.
struct Writer {
    group: Group,
    /// In `writers`.
    counted: bool,
}

impl Writer {
    async fn run(mut self, store: Store) {
        while let Some(calls) = self.next() {
            store.write_group(calls).await;
        }
    }

    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut queue = self.group.queue();
        queue.waiting.retain(|waiting| !waiting.done.is_closed());
        let count = queue.waiting.len().min(MOST);
        if count == 0 {
            // Under the same lock: who comes now must find that nobody writes.
            queue.writers -= 1;
            self.counted = false;
            return None;
        }
        Some(queue.waiting.drain(..count).collect())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.counted {
            // Its runtime ends, or it panicked. Who waits is told, and who comes next begins anew.
            let mut queue = self.group.queue();
            queue.writers -= 1;
            queue.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CorrelationId, RequestId, Tenant, Timestamp};
    use crate::store::{Claim, Options};

    #[tokio::test]
    async fn a_claim_whose_caller_went_away_in_the_middle_is_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tandem.db").display());
        let store = Store::open(&Options { url, ..Options::default() }).await.unwrap();
        let (tenant, id) = (Tenant::default(), RequestId::parse("order-17").unwrap());
        let now = Timestamp::now();
        let claim = async |store: &Store| {
            let holder = CorrelationId::generate();
            store.claim(&tenant, &id, &[7; 32], &holder, now, Duration::from_secs(60)).await
        };

        // SQLite has one writer: while this one is open, the claim is with its group and not written.
        let other = store.begin().await.unwrap();
        {
            let mut first = std::pin::pin!(claim(&store));
            assert!(futures::poll!(first.as_mut()).is_pending());
            while !store.group.queue().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        other.commit().await.unwrap();
        assert_eq!(claim(&store).await.unwrap(), Claim::Won);
    }
}
