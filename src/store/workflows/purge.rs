//! Deletes workflows that are over.

use super::{Sql, each_of, given};
use crate::domain::{Tenant, Timestamp};
use crate::store::{Error, Store, on};

impl Store {
    /// Deletes a batch of a tenant's workflows (of all tenants' without one) that ended then or before. Returns how many. What
    /// still runs stays: cancel it first.
    pub async fn delete_workflows(&self, tenant: Option<&Tenant>, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM workflows WHERE number IN
                       (SELECT number FROM workflows WHERE ended_ms <= $1 AND ($2 = '' OR tenant = $2)
                            AND state IN ('completed', 'failed', 'cancelled') ORDER BY number LIMIT $3)
                       RETURNING number";
            let gone: Vec<(i64,)> = on!(&mut tx, tx => {
                sqlx::query_as(sql)
                    .bind(until.0)
                    .bind(tenant.map_or("", Tenant::as_str))
                    .bind(i64::from(batch.clamp(1, 100)))
                    .fetch_all(&mut **tx)
                    .await
            })?;
            if !gone.is_empty() {
                for sql in [
                    given!(
                        "DELETE FROM workflow_graphs WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ",
                        ")"
                    ),
                    given!("DELETE FROM workflow_steps WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
                    given!(
                        "DELETE FROM workflow_outputs WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ",
                        ")"
                    ),
                    given!(
                        "DELETE FROM workflow_history WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ",
                        ")"
                    ),
                    given!(
                        "DELETE FROM workflow_events WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ",
                        ")"
                    ),
                ] {
                    let sql: Sql = sql;
                    each_of(&mut tx, &sql, &gone).await?;
                }
            }
            tx.commit().await?;
            Ok(gone.len() as u64)
        };
        run.await.map_err(Error::during("delete workflows"))
    }

    /// What a tenant's goals were taken apart into is forgotten.
    pub async fn forget_goals(&self, tenant: &Tenant, until: Timestamp) -> Result<u64, Error> {
        let sql = "DELETE FROM workflow_goals WHERE tenant = $1 AND created_ms <= $2";
        let done = on!(&self.write, pool => {
            let query = sqlx::query(sql).bind(tenant.as_str()).bind(until.0);
            query.execute(pool).await.map(|done| done.rows_affected())
        });
        done.map_err(Error::during("forget goals"))
    }
}
