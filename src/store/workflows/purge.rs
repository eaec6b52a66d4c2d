//! Deletes workflows, each with all that belongs to it.

use super::{Sql, Tx, each_of, given};
use crate::domain::{Tenant, Timestamp};
use crate::store::{Error, Store, on};

/// In one transaction, at most: one may have a hundred thousand tasks.
const MOST: u32 = 20;

impl Store {
    /// Deletes a batch of what ended then or before, and of what steps came to then or before, of all tenants. Returns how many.
    pub async fn prune_workflows(&self, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM workflows WHERE number IN
                       (SELECT number FROM workflows WHERE ended_ms <= $1
                            AND state IN ('completed', 'failed', 'cancelled') ORDER BY number LIMIT $2)
                       RETURNING number";
            let gone: Vec<(i64,)> = on!(&mut tx, tx => {
                sqlx::query_as(sql).bind(until.0).bind(i64::from(batch.min(MOST))).fetch_all(&mut **tx).await
            })?;
            empty(&mut tx, &gone).await?;
            let sql = "DELETE FROM workflow_memos WHERE (tenant, definition, inputs) IN
                       (SELECT tenant, definition, inputs FROM workflow_memos WHERE created_ms <= $1 LIMIT $2)";
            let memos = on!(&mut tx, tx => {
                sqlx::query(sql).bind(until.0).bind(i64::from(batch)).execute(&mut **tx).await?.rows_affected()
            });
            tx.commit().await?;
            Ok(gone.len() as u64 + memos)
        };
        run.await.map_err(Error::during("delete old workflows"))
    }

    /// Deletes a batch of what a tenant started then or before, what its goals were taken apart into and its steps came to. What still runs is
    /// broken off: its steps find nothing to commit to. Returns how many.
    pub async fn purge_workflows(&self, tenant: &Tenant, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM workflows WHERE number IN
                       (SELECT number FROM workflows WHERE tenant = $1 AND created_ms <= $2 ORDER BY number LIMIT $3)
                       RETURNING number";
            let goals = "DELETE FROM workflow_goals WHERE tenant = $1 AND created_ms <= $2";
            let memos = "DELETE FROM workflow_memos WHERE tenant = $1 AND created_ms <= $2";
            let batch = i64::from(batch.min(MOST));
            let (gone, others): (Vec<(i64,)>, u64) = on!(&mut tx, tx => (
                sqlx::query_as(sql).bind(tenant.as_str()).bind(until.0).bind(batch).fetch_all(&mut **tx).await?,
                sqlx::query(goals).bind(tenant.as_str()).bind(until.0).execute(&mut **tx).await?.rows_affected()
                    + sqlx::query(memos).bind(tenant.as_str()).bind(until.0).execute(&mut **tx).await?.rows_affected(),
            ));
            empty(&mut tx, &gone).await?;
            tx.commit().await?;
            Ok(gone.len() as u64 + others)
        };
        run.await.map_err(Error::during("purge a tenant's workflows"))
    }
}

/// What belongs to workflows that are gone.
async fn empty(tx: &mut Tx, gone: &[(i64,)]) -> Result<(), sqlx::Error> {
    const BELOW: [Sql; 5] = [
        given!("DELETE FROM workflow_graphs WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
        given!("DELETE FROM workflow_steps WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
        given!("DELETE FROM workflow_outputs WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
        given!("DELETE FROM workflow_history WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
        given!("DELETE FROM workflow_events WHERE workflow IN (SELECT CAST(value->>0 AS BIGINT) FROM ", ")"),
    ];
    if gone.is_empty() {
        return Ok(());
    }
    for sql in &BELOW {
        each_of(tx, sql, &gone).await?;
    }
    Ok(())
}
