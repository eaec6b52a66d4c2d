use std::collections::BTreeSet;

use crate::domain::record::{Block, EdgeKey, EntryId, Execution, Verdict};
use crate::domain::{CorrelationId, Method, TemplateId, Tenant, Timestamp};

use super::rows::{ExecutionRow, decode, digest, entry_bytes, entry_id, verdict_name};
use super::{Error, Store, Tx, entries, learning, on};

/// What a verdict did. All but `changed` tells how things stand, so that a verdict sent again (its first reply was
/// lost) can be told to the other workers again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Whether the verdict is new or another one than before. Only then scores have moved.
    pub changed: bool,
    /// Entries that must not be served any more.
    pub withdrawn: Vec<EntryId>,
    pub blocked: Vec<Block>,
    /// No longer blocked by any verdict.
    pub unblocked: Vec<Block>,
    /// Whose success the verdict is about.
    pub edges: Vec<EdgeKey>,
}

impl Store {
    /// Takes down a user's verdict on an answer and does what follows from it, in one transaction. `None` where this
    /// tenant has no such execution.
    ///
    /// The same verdict again changes nothing; another one replaces it and moves the scores. `Wrong` withdraws the
    /// entries that the answer was served from or stored as, and blocks each template that made it, a part of it, or
    /// the answer that was served again, for that task of this tenant. `Good` after `Wrong` takes the blocks of that
    /// verdict back; entries stay withdrawn.
    pub async fn judge(
        &self,
        tenant: &Tenant,
        id: &CorrelationId,
        verdict: Verdict,
        comment: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Judgement>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let executions = executions(&mut tx, tenant, id).await?;
            if executions.is_empty() {
                return Ok(None);
            }
            let changed = note(&mut tx, tenant, id, verdict, comment, now).await?;
            let by_rules = || executions.iter().filter_map(|e| Some((e, rules(e)?)));

            let edges: BTreeSet<EdgeKey> = by_rules()
                .map(|(e, template)| EdgeKey {
                    task_type: e.task_type,
                    language: e.language.clone(),
                    template: template.clone(),
                })
                .collect();
            let mut judgement = Judgement { changed, edges: edges.into_iter().collect(), ..Judgement::default() };
            if changed {
                for key in &judgement.edges {
                    if let Some(mut stats) = learning::lock_edge(&mut tx, key).await? {
                        stats.judge(verdict == Verdict::Good);
                        learning::write_edge(&mut tx, key, &stats).await?;
                    }
                }
            }
            match verdict {
                Verdict::Good => judgement.unblocked = unblock(&mut tx, tenant, id).await?,
                Verdict::Wrong => {
                    for (e, template) in by_rules() {
                        let block = Block { tenant: tenant.clone(), task_key: e.task_key, template: template.clone() };
                        if !judgement.blocked.contains(&block) {
                            insert_block(&mut tx, &block, id).await?;
                            judgement.blocked.push(block);
                        }
                    }
                    judgement.withdrawn = entries_of(&mut tx, tenant, id, &executions).await?;
                    entries::withdraw(&mut tx, &judgement.withdrawn, now).await?;
                }
            }
            tx.commit().await?;
            Ok(Some(judgement))
        };
        run.await.map_err(Error::during("take down a verdict"))
    }

    /// Every template that some tenant found wrong for some task.
    pub async fn blocks(&self) -> Result<Vec<Block>, Error> {
        let run = async {
            let sql = "SELECT DISTINCT tenant, task_key, template FROM template_blocks ORDER BY 1, 2, 3";
            let rows: Vec<(String, Vec<u8>, String)> =
                on!(&self.read, pool => sqlx::query_as(sql).fetch_all(pool).await)?;
            rows.into_iter()
                .map(|(tenant, task_key, template)| block(Tenant::parse(&tenant).map_err(decode)?, task_key, &template))
                .collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read blocked templates"))
    }
}

/// The template that made this answer, now or when it was first given.
fn rules(execution: &Execution) -> Option<&TemplateId> {
    let by_rules = match execution.method {
        Method::Autonomous => true,
        Method::Cached => execution.model.is_none(),
        Method::LlmAssisted | Method::Fallback => false,
    };
    execution.template.as_ref().filter(|_| by_rules)
}

async fn executions(tx: &mut Tx, tenant: &Tenant, id: &CorrelationId) -> Result<Vec<Execution>, sqlx::Error> {
    let sql = "SELECT * FROM executions WHERE correlation_id = $1 AND tenant = $2 ORDER BY part";
    let rows: Vec<ExecutionRow> = on!(tx, tx => {
        sqlx::query_as(sql).bind(id.as_str()).bind(tenant.as_str()).fetch_all(&mut **tx).await
    })?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Returns whether this is news.
async fn note(
    tx: &mut Tx,
    tenant: &Tenant,
    id: &CorrelationId,
    verdict: Verdict,
    comment: Option<&str>,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    // Makes the row or changes nothing, and locks it either way: a second verdict waits here for the first.
    let sql = "INSERT INTO feedback (tenant, correlation_id, at_ms) VALUES ($1, $2, $3)
               ON CONFLICT (tenant, correlation_id) DO UPDATE SET at_ms = feedback.at_ms RETURNING verdict";
    let (before,): (Option<String>,) = on!(&mut *tx, tx => {
        sqlx::query_as(sql).bind(tenant.as_str()).bind(id.as_str()).bind(now.0).fetch_one(&mut **tx).await
    })?;
    if before.as_deref() == Some(verdict_name(verdict)) {
        return Ok(false);
    }
    let sql = "UPDATE feedback SET verdict = $3, comment = $4, at_ms = $5 WHERE tenant = $1 AND correlation_id = $2";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(tenant.as_str())
            .bind(id.as_str())
            .bind(verdict_name(verdict))
            .bind(comment.map(str::as_bytes))
            .bind(now.0)
            .execute(&mut **tx)
            .await
            .map(drop)
    })?;
    Ok(true)
}

async fn insert_block(tx: &mut Tx, block: &Block, id: &CorrelationId) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO template_blocks (tenant, task_key, template, correlation_id) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(block.tenant.as_str())
            .bind(&block.task_key[..])
            .bind(block.template.as_str())
            .bind(id.as_str())
            .execute(&mut **tx)
            .await
            .map(drop)
    })
}

async fn unblock(tx: &mut Tx, tenant: &Tenant, id: &CorrelationId) -> Result<Vec<Block>, sqlx::Error> {
    let sql = "DELETE FROM template_blocks WHERE tenant = $1 AND correlation_id = $2 RETURNING task_key, template";
    let rows: Vec<(Vec<u8>, String)> = on!(&mut *tx, tx => {
        sqlx::query_as(sql).bind(tenant.as_str()).bind(id.as_str()).fetch_all(&mut **tx).await
    })?;
    let mut freed = Vec::new();
    for (task_key, template) in rows {
        let sql = "SELECT COUNT(*) FROM template_blocks WHERE tenant = $1 AND task_key = $2 AND template = $3";
        let (others,): (i64,) = on!(&mut *tx, tx => {
            let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(task_key.as_slice()).bind(template.as_str());
            query.fetch_one(&mut **tx).await
        })?;
        if others == 0 {
            freed.push(block(tenant.clone(), task_key, &template)?);
        }
    }
    Ok(freed)
}

/// Entries of this tenant that the answer or a part of it was served from or stored as.
async fn entries_of(
    tx: &mut Tx,
    tenant: &Tenant,
    id: &CorrelationId,
    executions: &[Execution],
) -> Result<Vec<EntryId>, sqlx::Error> {
    let sql = "SELECT id FROM cache_entries WHERE tenant = $1 AND origin = $2";
    let stored: Vec<(Vec<u8>,)> = on!(&mut *tx, tx => {
        sqlx::query_as(sql).bind(tenant.as_str()).bind(id.as_str()).fetch_all(&mut **tx).await
    })?;
    let mut ids = BTreeSet::new();
    for (id,) in stored {
        ids.insert(entry_id(&id)?);
    }
    for entry in executions.iter().filter_map(|e| e.entry) {
        // Its row may come after the execution's, and must not be served then either.
        let sql = "SELECT COUNT(*) FROM cache_entries WHERE id = $1 AND tenant <> $2";
        let (foreign,): (i64,) = on!(&mut *tx, tx => {
            sqlx::query_as(sql).bind(entry_bytes(entry)).bind(tenant.as_str()).fetch_one(&mut **tx).await
        })?;
        if foreign == 0 {
            ids.insert(entry);
        }
    }
    Ok(ids.into_iter().collect())
}

fn block(tenant: Tenant, task_key: Vec<u8>, template: &str) -> Result<Block, sqlx::Error> {
    Ok(Block { tenant, task_key: digest(task_key)?, template: TemplateId::parse(template).map_err(decode)? })
}
