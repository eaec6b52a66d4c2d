//! What is deleted, and when: by age for everybody, or a tenant's all on request. Always in small transactions, so that
//! no writer waits long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::record::EntryId;
use crate::domain::{Tenant, Timestamp};

use super::learning;
use super::rows::{decode, entry_bytes, entry_id};
use super::sums::DAY_MS;
use super::{Error, Store, Tx, entries, on};

/// How long what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionOptions {
    /// For how many days an execution is kept, and can be judged. Sums over them (`execution.stats`) are kept for ever.
    /// 90: a quarter to look back on, some 350 bytes a request. 0: for ever. At least as long as a cached answer lives,
    /// or a verdict on it can't find what it came from.
    pub executions_days: u32,
    /// For how many days an attempt at asking a model is kept, some 250 bytes each. Sums over them (`llm.stats`, budgets) are
    /// kept for ever. 90, as for executions. 0: for ever.
    pub attempts_days: u32,
    /// For how many days a verdict is kept, and with it the template that it blocks for its task. 0, for ever: a
    /// wrong answer does not become right by waiting, and a verdict is one small row.
    pub feedback_days: u32,
    /// For how many hours the text of a withdrawn answer is kept, for those who look into why it was wrong. What
    /// remains of it until it would have expired is its number, by which workers learn that it is withdrawn.
    pub withdrawn_texts_hours: u32,
    /// For how many days a workflow is kept that is over, with its outputs, history and events. 90: what later runs of the same
    /// graph learn from. 0: for ever.
    pub workflows_days: u32,
    /// How often a worker looks for what is too old, in milliseconds. 0: never, another worker does it.
    pub check_every_ms: u64,
    /// Rows in one transaction, at most: some milliseconds for which other writers wait.
    pub batch: u32,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            executions_days: 90,
            attempts_days: 90,
            feedback_days: 0,
            withdrawn_texts_hours: 24,
            workflows_days: 90,
            check_every_ms: 10 * 60 * 1000,
            batch: 500,
        }
    }
}

/// Rows of a tenant, or of all where retention deleted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Rows {
    /// Requests and their parts.
    pub executions: u64,
    /// Attempts at asking models.
    #[serde(default)]
    pub attempts: u64,
    /// Daily sums of requests, and of attempts at asking models.
    pub days: u64,
    /// Verdicts.
    pub feedback: u64,
    /// Templates that verdicts blocked for a task.
    pub blocks: u64,
    /// Replies kept for a client's `id`.
    pub replies: u64,
    /// Cached answers, live or withdrawn: emptied of every text.
    pub cache_entries: u64,
    /// Workflows, each with all that belongs to it, and goals that were taken apart.
    #[serde(default)]
    pub workflows: u64,
}

impl Rows {
    /// By name, as the metrics have them.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("executions", self.executions),
            ("attempts", self.attempts),
            ("days", self.days),
            ("feedback", self.feedback),
            ("blocks", self.blocks),
            ("replies", self.replies),
            ("cache_entries", self.cache_entries),
            ("workflows", self.workflows),
        ]
    }

    pub fn is_empty(&self) -> bool {
        self.named().iter().all(|(_, rows)| *rows == 0)
    }

    pub fn add(&mut self, other: &Self) {
        self.executions += other.executions;
        self.attempts += other.attempts;
        self.days += other.days;
        self.feedback += other.feedback;
        self.blocks += other.blocks;
        self.replies += other.replies;
        self.cache_entries += other.cache_entries;
        self.workflows += other.workflows;
    }
}

/// Which of a tenant's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Made then or before.
    pub until: Timestamp,
    /// Also the sums of the day that `until` is in: where all is meant, not all before some day.
    pub whole: bool,
}

impl Reach {
    /// A reply is dated by the end of the lease under which it was made, some seconds ahead: where all is meant, none
    /// is too new. What is being done has no reply yet and keeps its claim.
    fn last_reply(self) -> i64 {
        if self.whole { i64::MAX } else { self.until.0 }
    }

    /// The first day whose sums stay.
    fn first_day_kept(self) -> i64 {
        if self.whole { i64::MAX } else { self.until.day() }
    }
}

impl Store {
    /// Adds to the daily sums what is not in them yet: what was there before there were sums, and what an older worker
    /// wrote. Returns how many; at most `batch`.
    pub async fn count_in(&self, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let counted = learning::count_in(&mut tx, batch).await?;
            tx.commit().await?;
            Ok(counted)
        };
        run.await.map_err(Error::during("count executions in"))
    }

    /// Deletes a batch of what all tenants have kept long enough. Returns what; nothing where there is no more.
    pub async fn prune(&self, options: &RetentionOptions, now: Timestamp) -> Result<Rows, Error> {
        let ago = |days: u32| now.0.saturating_sub(i64::from(days).saturating_mul(DAY_MS));
        let mut gone = Rows::default();
        if options.executions_days > 0 {
            for tenant in self.tenants("SELECT DISTINCT tenant FROM execution_days ORDER BY tenant").await? {
                let until = Timestamp(ago(options.executions_days));
                gone.executions += self.delete_requests(&tenant, until, options.batch, true).await?;
            }
        }
        if options.attempts_days > 0 {
            for tenant in self.tenants("SELECT DISTINCT tenant FROM model_days ORDER BY tenant").await? {
                let until = Timestamp(ago(options.attempts_days));
                gone.attempts += self.delete_attempts(&tenant, until, options.batch).await?;
            }
        }
        if options.feedback_days > 0 {
            let sql = "SELECT DISTINCT tenant FROM feedback WHERE at_ms <= $1";
            let until = Timestamp(ago(options.feedback_days));
            let tenants: Result<Vec<(String,)>, _> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(until.0).fetch_all(pool).await);
            for (tenant,) in tenants.map_err(Error::during("look for old verdicts"))? {
                let tenant = Tenant::parse(&tenant).map_err(decode).map_err(Error::during("look for old verdicts"))?;
                let (feedback, blocks) = self.delete_feedback(&tenant, until, options.batch).await?;
                gone.feedback += feedback;
                gone.blocks += blocks;
            }
        }
        let hours = Duration::from_secs(u64::from(options.withdrawn_texts_hours) * 3600);
        let until = now.0.saturating_sub(i64::try_from(hours.as_millis()).unwrap_or(i64::MAX));
        gone.cache_entries += self.empty_withdrawn(Timestamp(until), options.batch).await?;
        if options.workflows_days > 0 {
            gone.workflows += self.prune_workflows(Timestamp(ago(options.workflows_days)), options.batch).await?;
        }
        Ok(gone)
    }

    /// How many rows of a tenant are in reach.
    pub async fn reached(&self, tenant: &Tenant, reach: Reach) -> Result<Rows, Error> {
        let count = async |sql: &'static str, until: i64| -> Result<u64, sqlx::Error> {
            let (rows,): (i64,) = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(until).fetch_one(pool).await
            })?;
            Ok(u64::try_from(rows).unwrap_or(0))
        };
        let replies = async || -> Result<u64, sqlx::Error> {
            let sql = "SELECT COUNT(*) FROM claims WHERE tenant = $1
                       AND until_ms <= CASE WHEN reply IS NULL THEN $2 ELSE $3 END";
            let (rows,): (i64,) = on!(&self.read, pool => {
                let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(reach.until.0).bind(reach.last_reply());
                query.fetch_one(pool).await
            })?;
            Ok(u64::try_from(rows).unwrap_or(0))
        };
        let until = reach.until.0;
        let run = async {
            Ok(Rows {
                executions: count("SELECT COUNT(*) FROM executions WHERE tenant = $1 AND at_ms <= $2", until).await?,
                attempts: count("SELECT COUNT(*) FROM model_attempts WHERE tenant = $1 AND at_ms <= $2", until).await?,
                days: count(
                    "SELECT (SELECT COUNT(*) FROM execution_days WHERE tenant = $1 AND day < $2)
                          + (SELECT COUNT(*) FROM model_days WHERE tenant = $1 AND day < $2)",
                    reach.first_day_kept(),
                )
                .await?,
                feedback: count("SELECT COUNT(*) FROM feedback WHERE tenant = $1 AND at_ms <= $2", until).await?,
                blocks: count(
                    "SELECT COUNT(*) FROM template_blocks WHERE tenant = $1 AND correlation_id IN
                     (SELECT correlation_id FROM feedback WHERE tenant = $1 AND at_ms <= $2)",
                    until,
                )
                .await?,
                replies: replies().await?,
                cache_entries: count(
                    "SELECT COUNT(*) FROM cache_entries WHERE tenant = $1 AND created_ms <= $2
                     AND (withdrawn_ms IS NULL OR length(task) > 0)",
                    until,
                )
                .await?,
                workflows: count(
                    "SELECT (SELECT COUNT(*) FROM workflows WHERE tenant = $1 AND created_ms <= $2)
                          + (SELECT COUNT(*) FROM workflow_goals WHERE tenant = $1 AND created_ms <= $2)
                          + (SELECT COUNT(*) FROM workflow_memos WHERE tenant = $1 AND created_ms <= $2)",
                    until,
                )
                .await?,
            })
        };
        run.await.map_err(Error::during("count a tenant's rows"))
    }

    /// Deletes a batch of a tenant's rows, of each kind at most `batch`. Returns what; nothing where there is no more.
    pub async fn purge(&self, tenant: &Tenant, reach: Reach, now: Timestamp, batch: u32) -> Result<Rows, Error> {
        let mut gone =
            Rows { cache_entries: self.empty_entries(tenant, reach.until, now, batch).await?, ..Rows::default() };
        gone.executions = self.delete_requests(tenant, reach.until, batch, false).await?;
        if gone.executions == 0 {
            gone.executions = self.delete_parts(tenant, reach.until, batch).await?;
        }
        gone.attempts = self.delete_attempts(tenant, reach.until, batch).await?;
        (gone.feedback, gone.blocks) = self.delete_feedback(tenant, reach.until, batch).await?;
        gone.workflows = self.purge_workflows(tenant, reach.until, batch).await?;
        let run = async {
            let mut tx = self.begin().await?;
            let days = "DELETE FROM execution_days WHERE tenant = $1 AND day < $2";
            // What is taken of budgets stays: a purge makes no money.
            let model_days = "DELETE FROM model_days WHERE tenant = $1 AND day < $2";
            let replies = "DELETE FROM claims WHERE tenant = $1 AND id IN
                           (SELECT id FROM claims WHERE tenant = $1
                            AND until_ms <= CASE WHEN reply IS NULL THEN $2 ELSE $3 END LIMIT $4)";
            let gone = on!(&mut tx, tx => (
                sqlx::query(days)
                    .bind(tenant.as_str())
                    .bind(reach.first_day_kept())
                    .execute(&mut **tx)
                    .await?
                    .rows_affected()
                    + sqlx::query(model_days)
                        .bind(tenant.as_str())
                        .bind(reach.first_day_kept())
                        .execute(&mut **tx)
                        .await?
                        .rows_affected(),
                sqlx::query(replies)
                    .bind(tenant.as_str())
                    .bind(reach.until.0)
                    .bind(reach.last_reply())
                    .bind(i64::from(batch))
                    .execute(&mut **tx)
                    .await?
                    .rows_affected(),
            ));
            tx.commit().await?;
            Ok(gone)
        };
        (gone.days, gone.replies) = run.await.map_err(Error::during("purge a tenant's sums and replies"))?;
        Ok(gone)
    }

    /// Everybody who was ever served, by the sums.
    async fn tenants(&self, sql: &'static str) -> Result<Vec<Tenant>, Error> {
        let run = async {
            let rows: Vec<(String,)> = on!(&self.read, pool => sqlx::query_as(sql).fetch_all(pool).await)?;
            rows.into_iter().map(|(tenant,)| Tenant::parse(&tenant).map_err(decode)).collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("list the tenants"))
    }

    /// Old requests with their parts; `counted`: only those that stand in the sums.
    async fn delete_requests(
        &self,
        tenant: &Tenant,
        until: Timestamp,
        batch: u32,
        counted: bool,
    ) -> Result<u64, Error> {
        let sql = if counted {
            "DELETE FROM executions WHERE tenant = $1 AND correlation_id IN
             (SELECT correlation_id FROM executions WHERE tenant = $1 AND part = '' AND at_ms <= $2 AND counted
              ORDER BY at_ms LIMIT $3)"
        } else {
            "DELETE FROM executions WHERE tenant = $1 AND correlation_id IN
             (SELECT correlation_id FROM executions WHERE tenant = $1 AND part = '' AND at_ms <= $2
              ORDER BY at_ms LIMIT $3)"
        };
        let run = async {
            let mut tx = self.begin().await?;
            // Each of them stands behind an execution of its time, so a batch of these goes with a batch of those.
            let repeats = "DELETE FROM repeats WHERE tenant = $1 AND correlation_id IN
                (SELECT correlation_id FROM repeats WHERE tenant = $1 AND from_ms <= $2 AND to_ms <= $2
                 ORDER BY from_ms LIMIT $3)";
            let delete = async |tx: &mut Tx, sql: &'static str| -> Result<u64, sqlx::Error> {
                Ok(on!(tx, tx => {
                    let query = sqlx::query(sql).bind(tenant.as_str()).bind(until.0).bind(i64::from(batch));
                    query.execute(&mut **tx).await?.rows_affected()
                }))
            };
            let rows = delete(&mut tx, sql).await?;
            delete(&mut tx, repeats).await?;
            tx.commit().await?;
            Ok(rows)
        };
        run.await.map_err(Error::during("delete executions"))
    }

    async fn delete_attempts(&self, tenant: &Tenant, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM model_attempts WHERE id IN
                       (SELECT id FROM model_attempts WHERE tenant = $1 AND at_ms <= $2 ORDER BY at_ms LIMIT $3)";
            let rows = on!(&mut tx, tx => {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(until.0).bind(i64::from(batch));
                query.execute(&mut **tx).await?.rows_affected()
            });
            tx.commit().await?;
            Ok(rows)
        };
        run.await.map_err(Error::during("delete attempts at asking models"))
    }

    /// Parts whose request was never written. No index finds them, so they are looked for without a lock.
    async fn delete_parts(&self, tenant: &Tenant, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let sql = "SELECT correlation_id, part FROM executions WHERE tenant = $1 AND at_ms <= $2 LIMIT $3";
            let left: Vec<(String, String)> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(until.0).bind(i64::from(batch)).fetch_all(pool).await
            })?;
            if left.is_empty() {
                return Ok(0);
            }
            let mut tx = self.begin().await?;
            for (id, part) in &left {
                let sql = "DELETE FROM executions WHERE correlation_id = $1 AND part = $2";
                on!(&mut tx, tx => sqlx::query(sql).bind(id).bind(part).execute(&mut **tx).await.map(drop))?;
            }
            tx.commit().await?;
            Ok(left.len() as u64)
        };
        run.await.map_err(Error::during("delete parts of executions"))
    }

    async fn delete_feedback(&self, tenant: &Tenant, until: Timestamp, batch: u32) -> Result<(u64, u64), Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "DELETE FROM feedback WHERE tenant = $1 AND correlation_id IN
                       (SELECT correlation_id FROM feedback WHERE tenant = $1 AND at_ms <= $2 LIMIT $3)
                       RETURNING correlation_id";
            let gone: Vec<(String,)> = on!(&mut tx, tx => {
                let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(until.0).bind(i64::from(batch));
                query.fetch_all(&mut **tx).await
            })?;
            let mut blocks = 0;
            for (id,) in &gone {
                let sql = "DELETE FROM template_blocks WHERE tenant = $1 AND correlation_id = $2";
                blocks += on!(&mut tx, tx => {
                    sqlx::query(sql).bind(tenant.as_str()).bind(id).execute(&mut **tx).await?.rows_affected()
                });
            }
            tx.commit().await?;
            Ok((gone.len() as u64, blocks))
        };
        run.await.map_err(Error::during("delete verdicts"))
    }

    /// Withdraws entries and takes their texts out. The rest stays until it would have expired: by its number each
    /// worker learns that it is withdrawn, also one that was away.
    async fn empty_entries(&self, tenant: &Tenant, until: Timestamp, now: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let sql = "SELECT id FROM cache_entries WHERE tenant = $1 AND created_ms <= $2
                       AND (withdrawn_ms IS NULL OR length(task) > 0) LIMIT $3";
            let mut tx = self.begin().await?;
            let found: Vec<(Vec<u8>,)> = on!(&mut tx, tx => {
                let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(until.0).bind(i64::from(batch));
                query.fetch_all(&mut **tx).await
            })?;
            let ids = found.iter().map(|(id,)| entry_id(id)).collect::<Result<Vec<EntryId>, _>>()?;
            entries::withdraw(&mut tx, &ids, now).await?;
            for id in &ids {
                let sql = "UPDATE cache_entries SET task = $2, answer = $2, vector = NULL WHERE id = $1";
                on!(&mut tx, tx => {
                    let query = sqlx::query(sql).bind(entry_bytes(*id)).bind(Vec::<u8>::new());
                    query.execute(&mut **tx).await.map(drop)
                })?;
            }
            tx.commit().await?;
            Ok(ids.len() as u64)
        };
        run.await.map_err(Error::during("empty a tenant's cache entries"))
    }

    async fn empty_withdrawn(&self, until: Timestamp, batch: u32) -> Result<u64, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE cache_entries SET task = $3, answer = $3, vector = NULL WHERE id IN
                       (SELECT id FROM cache_entries WHERE withdrawn_ms <= $1 AND length(task) > 0 LIMIT $2)";
            let rows = on!(&mut tx, tx => {
                let query = sqlx::query(sql).bind(until.0).bind(i64::from(batch)).bind(Vec::<u8>::new());
                query.execute(&mut **tx).await?.rows_affected()
            });
            tx.commit().await?;
            Ok(rows)
        };
        run.await.map_err(Error::during("empty withdrawn cache entries"))
    }
}
