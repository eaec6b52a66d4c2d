use std::time::Duration;

use crate::domain::record::Digest;
use crate::domain::{CorrelationId, RequestId, Tenant, Timestamp};

use super::rows::decode;
use super::{Error, Store, on};

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

impl Store {
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
            let sql = "SELECT body_hash, until_ms, reply FROM claims WHERE tenant = $1 AND id = $2";
            let (hash, until, reply): (Vec<u8>, i64, Option<Vec<u8>>) = on!(&mut tx, tx => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(id.as_str()).fetch_one(&mut **tx).await
            })?;
            tx.commit().await?;
            Ok(match reply {
                _ if hash != body_hash => Claim::Conflict,
                Some(reply) => Claim::Answered(String::from_utf8(reply).map_err(decode)?),
                None => Claim::Running { until: Timestamp(until) },
            })
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

    /// Frees an id whose request failed, so that it can be tried again. Does nothing where another holds it or it is
    /// answered.
    pub async fn release(&self, tenant: &Tenant, id: &RequestId, holder: &CorrelationId) -> Result<(), Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM claims WHERE tenant = $1 AND id = $2 AND holder = $3 AND reply IS NULL";
            on!(&mut tx, tx => {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(id.as_str()).bind(holder.as_str());
                query.execute(&mut **tx).await.map(drop)
            })?;
            tx.commit().await
        };
        run.await.map_err(Error::during("free a request id"))
    }
}
