use std::time::Duration;

use crate::domain::record::{Digest, EntryId};
use crate::domain::{CorrelationId, RequestId, Tenant, Timestamp};

use super::rows::{decode, entry_bytes};
use super::{Error, Store, Tx, on};

/// Who may answer a request that carries a client's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The caller; others wait until `settle`, `release` or the end of the lease.
    Won,
    /// Nobody any more: this is the reply.
    Answered(String),
    /// Somebody else, until then.
    Running { until: Timestamp },
    /// Nobody: the id stands for another body.
    Conflict,
}

/// One delivery of one submit, as the stream counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The message's place in the stream.
    pub sequence: u64,
    /// The how manieth time it is delivered.
    pub count: u64,
}

/// A write about one id. Those of many callers share a commit: see `group`.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) tenant: Tenant,
    pub(super) id: RequestId,
    holder: CorrelationId,
    does: Does,
}

#[derive(Debug)]
enum Does {
    Claim { body_hash: Digest, delivery: Option<Delivery>, now: Timestamp, until: Timestamp },
    Settle { reply: String },
    Renew { until: Timestamp },
    Release,
}

/// What came of a [`Call`].
#[derive(Debug)]
pub(super) struct Outcome {
    /// The caller held the id, or holds it now.
    held: bool,
    /// Attempts at a submit that were begun.
    attempts: u32,
    /// How the id stands that could not be claimed.
    stands: Option<Claim>,
}

impl Store {
    /// Claims a submit's id, as [`Store::claim`] does, for one delivery of it. A later delivery of the same message
    /// takes over at once, whatever the lease says: the server makes one only after the earlier one's worker was silent
    /// for the ack wait or gave it back. Won comes with the number of the attempt. The same holder may claim again: its
    /// first commit may have gone unanswered.
    #[allow(clippy::too_many_arguments, reason = "each is a column")]
    pub async fn claim_submit(
        &self,
        tenant: &Tenant,
        id: &RequestId,
        body_hash: &Digest,
        holder: &CorrelationId,
        delivery: Delivery,
        now: Timestamp,
        lease: Duration,
    ) -> Result<(Claim, u32), Error> {
        let does = Does::Claim { body_hash: *body_hash, delivery: Some(delivery), now, until: now.plus(lease) };
        let outcome = self.grouped("claim a submit's id", Call::new(tenant, id, holder, does)).await?;
        Ok((outcome.stands.unwrap_or(Claim::Won), outcome.attempts))
    }

    /// Claims a client's id for `holder`. The unique key in the database is what makes once mean once: whichever
    /// worker asks, one wins. A lease that ran out may be taken over, for the same body.
    pub async fn claim(
        &self,
        tenant: &Tenant,
        id: &RequestId,
        body_hash: &Digest,
        holder: &CorrelationId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Claim, Error> {
        let does = Does::Claim { body_hash: *body_hash, delivery: None, now, until: now.plus(lease) };
        let outcome = self.grouped("claim a request id", Call::new(tenant, id, holder, does)).await?;
        Ok(outcome.stands.unwrap_or(Claim::Won))
    }

    /// Keeps the reply for whoever sends the same id and body again. False where the lease was lost to another: then
    /// that one's reply counts.
    pub async fn settle(
        &self,
        tenant: &Tenant,
        id: &RequestId,
        holder: &CorrelationId,
        reply: &str,
    ) -> Result<bool, Error> {
        let does = Does::Settle { reply: reply.to_owned() };
        Ok(self.grouped("keep a reply", Call::new(tenant, id, holder, does)).await?.held)
    }

    /// How a client's id stands, without claiming it; `None` where nobody holds it. Locks nothing.
    pub async fn claimed(&self, tenant: &Tenant, id: &RequestId, body_hash: &Digest) -> Result<Option<Claim>, Error> {
        let run = async {
            let row: Option<ClaimRow> = on!(&self.read, pool => {
                sqlx::query_as(CLAIM).bind(tenant.as_str()).bind(id.as_str()).fetch_optional(pool).await
            })?;
            row.map(|row| stands(row, body_hash)).transpose()
        };
        run.await.map_err(Error::during("look at a request id"))
    }

    /// Prolongs the lease of a request that is still at work. False where it was lost to another or is answered.
    pub async fn renew(
        &self,
        tenant: &Tenant,
        id: &RequestId,
        holder: &CorrelationId,
        until: Timestamp,
    ) -> Result<bool, Error> {
        Ok(self.grouped("hold a request id", Call::new(tenant, id, holder, Does::Renew { until })).await?.held)
    }

    /// Frees an id whose request failed, so that it can be tried again. Does nothing, and is false, where another holds
    /// it or it is answered.
    pub async fn release(&self, tenant: &Tenant, id: &RequestId, holder: &CorrelationId) -> Result<bool, Error> {
        Ok(self.grouped("free a request id", Call::new(tenant, id, holder, Does::Release)).await?.held)
    }
}

impl Call {
    /// What frees the id again that a request claimed; nothing where it claimed none. A submit's claim stays: its next
    /// delivery takes it over.
    pub(super) fn undoing(&self, outcome: &Outcome) -> Option<Self> {
        let claimed = matches!(self.does, Does::Claim { delivery: None, .. }) && outcome.held;
        claimed.then(|| Self::new(&self.tenant, &self.id, &self.holder, Does::Release))
    }

    fn new(tenant: &Tenant, id: &RequestId, holder: &CorrelationId, does: Does) -> Self {
        Self { tenant: tenant.clone(), id: id.clone(), holder: holder.clone(), does }
    }

    pub(super) async fn run(&self, tx: &mut Tx) -> Result<Outcome, sqlx::Error> {
        let (tenant, id, holder) = self.key();
        let rows = match &self.does {
            Does::Claim { body_hash, delivery, now, until } => {
                return self.claim(tx, body_hash, *delivery, *now, *until).await;
            }
            Does::Settle { reply } => {
                // The same reply again is fine: the first commit may have gone unanswered.
                let sql = "UPDATE claims SET reply = $4
                           WHERE tenant = $1 AND id = $2 AND holder = $3 AND (reply IS NULL OR reply = $4)";
                on!(tx, tx => sqlx::query(sql).bind(tenant).bind(id).bind(holder).bind(reply.as_bytes()).execute(&mut **tx).await?.rows_affected())
            }
            Does::Renew { until } => {
                let sql = "UPDATE claims SET until_ms = $4
                           WHERE tenant = $1 AND id = $2 AND holder = $3 AND reply IS NULL";
                on!(tx, tx => sqlx::query(sql).bind(tenant).bind(id).bind(holder).bind(until.0).execute(&mut **tx).await?.rows_affected())
            }
            Does::Release => {
                let sql = "DELETE FROM claims WHERE tenant = $1 AND id = $2 AND holder = $3 AND reply IS NULL";
                on!(tx, tx => sqlx::query(sql).bind(tenant).bind(id).bind(holder).execute(&mut **tx).await?.rows_affected())
            }
        };
        Ok(Outcome { held: rows == 1, attempts: 0, stands: None })
    }

    async fn claim(
        &self,
        tx: &mut Tx,
        body_hash: &Digest,
        delivery: Option<Delivery>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Outcome, sqlx::Error> {
        let (tenant, id, holder) = self.key();
        let won: Option<(i64,)> = match delivery {
            None => {
                let sql = "INSERT INTO claims (tenant, id, holder, body_hash, until_ms) VALUES ($1, $2, $3, $4, $5)
                           ON CONFLICT (tenant, id) DO UPDATE SET
                               holder = excluded.holder, until_ms = excluded.until_ms
                           WHERE claims.reply IS NULL AND claims.until_ms <= $6
                               AND claims.body_hash = excluded.body_hash
                           RETURNING attempts";
                on!(&mut *tx, tx => {
                    let query = sqlx::query_as(sql).bind(tenant).bind(id).bind(holder).bind(&body_hash[..]).bind(until.0).bind(now.0);
                    query.fetch_optional(&mut **tx).await?
                })
            }
            Some(delivery) => {
                let sql = "INSERT INTO claims
                               (tenant, id, holder, body_hash, until_ms, submission, delivery, attempts)
                           VALUES ($1, $2, $3, $4, $5, $7, $8, 1)
                           ON CONFLICT (tenant, id) DO UPDATE SET
                               holder = excluded.holder, until_ms = excluded.until_ms,
                               submission = excluded.submission, delivery = excluded.delivery,
                               attempts = claims.attempts
                                   + CASE WHEN claims.holder = excluded.holder THEN 0 ELSE 1 END
                           WHERE claims.reply IS NULL AND claims.body_hash = excluded.body_hash
                               AND (claims.until_ms <= $6 OR claims.holder = excluded.holder
                                   OR (claims.submission = excluded.submission
                                       AND claims.delivery < excluded.delivery))
                           RETURNING attempts";
                let [sequence, count] =
                    [delivery.sequence, delivery.count].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
                on!(&mut *tx, tx => {
                    let query = sqlx::query_as(sql).bind(tenant).bind(id).bind(holder).bind(&body_hash[..]).bind(until.0).bind(now.0);
                    query.bind(sequence).bind(count).fetch_optional(&mut **tx).await?
                })
            }
        };
        if let Some((attempts,)) = won {
            return Ok(Outcome { held: true, attempts: u32::try_from(attempts).unwrap_or(u32::MAX), stands: None });
        }
        // The INSERT has locked the row, so it is still there.
        let row: ClaimRow = on!(tx, tx => {
            sqlx::query_as(CLAIM).bind(tenant).bind(id).fetch_one(&mut **tx).await
        })?;
        Ok(Outcome { held: false, attempts: 0, stands: Some(stands(row, body_hash)?) })
    }

    fn key(&self) -> (&str, &str, &str) {
        (self.tenant.as_str(), self.id.as_str(), self.holder.as_str())
    }
}

const CLAIM: &str = "SELECT body_hash, until_ms, reply FROM claims WHERE tenant = $1 AND id = $2";

type ClaimRow = (Vec<u8>, i64, Option<Vec<u8>>);

fn stands((hash, until, reply): ClaimRow, body_hash: &Digest) -> Result<Claim, sqlx::Error> {
    Ok(match reply {
        _ if hash != body_hash => Claim::Conflict,
        Some(reply) => Claim::Answered(String::from_utf8(reply).map_err(decode)?),
        None => Claim::Running { until: Timestamp(until) },
    })
}

/// Drops the kept replies that are this answer or were served from one of these entries: the same id is executed anew.
pub(super) async fn forget(
    tx: &mut Tx,
    tenant: &Tenant,
    answer: &CorrelationId,
    entries: &[EntryId],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    // All of them in the order of `group`, before any is written: PostgreSQL locks rows as it comes to them.
    if let Tx::Postgres(tx) = tx {
        let sql = "SELECT id FROM claims WHERE tenant = $1 AND reply IS NOT NULL AND (holder = $2 OR EXISTS (
                       SELECT 1 FROM executions WHERE correlation_id = claims.holder AND entry = ANY($3)))
                   ORDER BY id COLLATE \"C\" FOR UPDATE";
        let entries: Vec<_> = entries.iter().map(|entry| entry_bytes(*entry)).collect();
        sqlx::query(sql).bind(tenant.as_str()).bind(answer.as_str()).bind(entries).execute(&mut **tx).await?;
    }
    // A reply's holder is its correlation id.
    let sql = "UPDATE claims SET reply = NULL, until_ms = $3
               WHERE tenant = $1 AND reply IS NOT NULL AND holder = $2";
    on!(&mut *tx, tx => {
        sqlx::query(sql).bind(tenant.as_str()).bind(answer.as_str()).bind(now.0).execute(&mut **tx).await.map(drop)
    })?;
    for entry in entries {
        let sql = "UPDATE claims SET reply = NULL, until_ms = $3
                   WHERE tenant = $1 AND reply IS NOT NULL AND EXISTS (
                       SELECT 1 FROM executions WHERE correlation_id = claims.holder AND entry = $2)";
        on!(&mut *tx, tx => {
            let query = sqlx::query(sql).bind(tenant.as_str()).bind(entry_bytes(*entry)).bind(now.0);
            query.execute(&mut **tx).await.map(drop)
        })?;
    }
    Ok(())
}
