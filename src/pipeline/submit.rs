//! A submit from its claim to its kept reply: the same work as a request, but what came out is final once it is kept,
//! and whoever lost the claim must not say anything.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::warn;

use super::{Error, LEASE, Pipeline, Reply, Running};
use crate::domain::{CorrelationId, Request, RequestId, Stage, Tenant, Timestamp, Watcher};
use crate::store::{Claim, Delivery};

/// For which delivery a submit is carried out, and how often it may be.
#[derive(Debug, Clone, Copy)]
pub struct Submission {
    pub delivery: Delivery,
    /// How long the server waits for a sign before it delivers the submit again.
    pub ack_wait: Duration,
    pub max_attempts: u32,
}

impl Submission {
    /// Lapses before the server can deliver again, so that whoever gets the submit then need not wait for it.
    fn lease(&self) -> Duration {
        LEASE.min(self.ack_wait / 2)
    }
}

/// What an attempt at a submit came to.
#[derive(Debug)]
pub enum Attempt {
    /// It was done before: this reply is kept.
    Kept(Reply),
    /// Done now, to be kept by [`Pipeline::keep`].
    Made(Reply),
    /// This would be one attempt more than allowed; nothing was begun. The claim is held.
    Worn { attempts: u32 },
}

impl Pipeline {
    /// Claims a submit's id and does the work. A fallback is an answer like any other here: nobody waits to try again.
    ///
    /// `attempt` is set to the number of this attempt as soon as it is known.
    pub async fn attempt(
        &self,
        id: &RequestId,
        request: &Request,
        submission: Submission,
        attempt: &AtomicU32,
        watcher: &Watcher,
        now: Timestamp,
    ) -> Result<Attempt, Error> {
        let deadline = Instant::now() + request.timeout;
        let _running = Running::count(&self.running);
        let work = self.attempted(id, request, submission, attempt, watcher, deadline, now);
        timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
            // The claim stays until the caller lets it go: it is what says that the caller may speak of the deadline.
            self.note_expired(request, now);
            Err(Error::DeadlineExceeded)
        })
    }

    #[allow(clippy::too_many_arguments, reason = "what attempt() got, and its deadline")]
    async fn attempted(
        &self,
        id: &RequestId,
        request: &Request,
        submission: Submission,
        attempt: &AtomicU32,
        watcher: &Watcher,
        deadline: Instant,
        now: Timestamp,
    ) -> Result<Attempt, Error> {
        let (tenant, holder, lease) = (&request.tenant, &request.correlation_id, submission.lease());
        let begun = Instant::now();
        let clock = || now.plus(begun.elapsed());
        let claim = || async {
            let (hash, delivery) = (&request.body_hash, submission.delivery);
            let (claim, attempts) = self.store.claim_submit(tenant, id, hash, holder, delivery, clock(), lease).await?;
            attempt.store(attempts, Ordering::Relaxed);
            Ok::<Claim, crate::store::Error>(claim)
        };
        if let Some(reply) = self.win(id, request, clock, claim, watcher).await? {
            return Ok(Attempt::Kept(reply));
        }
        let attempt = attempt.load(Ordering::Relaxed);
        if attempt > submission.max_attempts {
            return Ok(Attempt::Worn { attempts: attempt - 1 });
        }
        watcher.tell(Stage::Started { attempt });
        let lost = async {
            loop {
                tokio::time::sleep(lease.mul_f64(0.3)).await;
                match self.store.renew(tenant, id, holder, clock().plus(lease)).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => warn!(%error, "a submit's lease could not be prolonged"),
                }
            }
        };
        tokio::select! {
            outcome = self.answer(request, deadline, now, watcher) => outcome.map(Attempt::Made),
            () = lost => Err(Error::Superseded),
        }
    }

    /// Keeps what an attempt made. False where another worker took the submit over meanwhile: its reply counts. May be
    /// called again until it succeeds.
    pub async fn keep(&self, id: &RequestId, request: &Request, reply: &Reply) -> Result<bool, Error> {
        let text = serde_json::to_string(reply).map_err(Error::Damaged)?;
        let kept = self.store.settle(&request.tenant, id, &request.correlation_id, &text).await;
        kept.map_err(Error::Unavailable)
    }

    /// Gives up the claim of a submit without a reply. False where it is another's: then nothing may be said of it.
    pub async fn let_go(&self, tenant: &Tenant, id: &RequestId, holder: &CorrelationId) -> Result<bool, Error> {
        let released = self.store.release(tenant, id, holder).await;
        released.map_err(Error::Unavailable)
    }

    /// Whether the database answers.
    pub async fn database_answers(&self) -> Result<(), Error> {
        self.store.ping().await.map_err(Error::Unavailable)
    }
}
