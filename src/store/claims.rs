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
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "INSERT INTO claims (tenant, id, body_hash, holder, until_ms, submission, delivery, attempts)
                       VALUES ($1, $2, $3, $4, $5, $7, $8, 1)
                       ON CONFLICT (tenant, id) DO UPDATE SET
                           holder = excluded.holder, until_ms = excluded.until_ms,
                           submission = excluded.submission, delivery = excluded.delivery,
                           attempts = claims.attempts + CASE WHEN claims.holder = excluded.holder THEN 0 ELSE 1 END
                       WHERE claims.reply IS NULL AND claims.body_hash = excluded.body_hash
                           AND (claims.until_ms <= $6 OR claims.holder = excluded.holder
                               OR (claims.submission = excluded.submission AND claims.delivery < excluded.delivery))
                       RETURNING attempts";
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let won: Option<(i64,)> = on!(&mut tx, tx => {
                sqlx::query_as(sql)
                    .bind(tenant.as_str())
                    .bind(id.as_str())
                    .bind(&body_hash[..])
                    .bind(holder.as_str())
                    .bind(now.plus(lease).0)
                    .bind(now.0)
                    .bind(number(delivery.sequence))
                    .bind(number(delivery.count))
                    .fetch_optional(&mut **tx)
                    .await?
            });
            if let Some((attempts,)) = won {
                tx.commit().await?;
                return Ok((Claim::Won, u32::try_from(attempts).unwrap_or(u32::MAX)));
            }
            let row: ClaimRow = on!(&mut tx, tx => {
                sqlx::query_as(CLAIM).bind(tenant.as_str()).bind(id.as_str()).fetch_one(&mut **tx).await
            })?;
            tx.commit().await?;
            Ok((stands(row, body_hash)?, 0))
        };
        run.await.map_err(Error::during("claim a submit's id"))
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
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "INSERT INTO claims (tenant, id, body_hash, holder, until_ms) VALUES ($1, $2, $3, $4, $5)
                       ON CONFLICT (tenant, id) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
                       WHERE claims.reply IS NULL AND claims.until_ms <= $6 AND claims.body_hash = excluded.body_hash";
            let won = on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(tenant.as_str())
                    .bind(id.as_str())
                    .bind(&body_hash[..])
                    .bind(holder.as_str())
                    .bind(now.plus(lease).0)
                    .bind(now.0)
                    .execute(&mut **tx)
                    .await?
                    .rows_affected()
            });
            if won == 1 {
                tx.commit().await?;
                return Ok(Claim::Won);
            }
            // The INSERT has locked the row, so it is still there.
            let row: ClaimRow = on!(&mut tx, tx => {
                sqlx::query_as(CLAIM).bind(tenant.as_str()).bind(id.as_str()).fetch_one(&mut **tx).await
            })?;
            tx.commit().await?;
            stands(row, body_hash)
        };
        run.await.map_err(Error::during("claim a request id"))
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
        let run = async {
            let mut tx = self.begin().await?;
            // The same reply again is fine: the first commit may have gone unanswered.
            let sql = "UPDATE claims SET reply = $4
                       WHERE tenant = $1 AND id = $2 AND holder = $3 AND (reply IS NULL OR reply = $4)";
            let rows = on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(tenant.as_str())
                    .bind(id.as_str())
                    .bind(holder.as_str())
                    .bind(reply.as_bytes())
                    .execute(&mut **tx)
                    .await?
                    .rows_affected()
            });
            tx.commit().await?;
            Ok(rows == 1)
        };
        run.await.map_err(Error::during("keep a reply"))
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
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE claims SET until_ms = $4 WHERE tenant = $1 AND id = $2 AND holder = $3 AND reply IS NULL";
            let rows = on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(tenant.as_str())
                    .bind(id.as_str())
                    .bind(holder.as_str())
                    .bind(until.0)
                    .execute(&mut **tx)
                    .await?
                    .rows_affected()
            });
            tx.commit().await?;
            Ok(rows == 1)
        };
        run.await.map_err(Error::during("hold a request id"))
    }

    /// Frees an id whose request failed, so that it can be tried again. Does nothing, and is false, where another holds
    /// it or it is answered.
    pub async fn release(&self, tenant: &Tenant, id: &RequestId, holder: &CorrelationId) -> Result<bool, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM claims WHERE tenant = $1 AND id = $2 AND holder = $3 AND reply IS NULL";
            let rows = on!(&mut tx, tx => {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(id.as_str()).bind(holder.as_str());
                query.execute(&mut **tx).await?.rows_affected()
            });
            tx.commit().await?;
            Ok(rows == 1)
        };
        run.await.map_err(Error::during("free a request id"))
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
