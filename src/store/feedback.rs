use std::collections::BTreeSet;

use crate::domain::record::{Block, CacheVerdict, EdgeKey, EntryId, Execution, Verdict};
use crate::domain::{CorrelationId, Method, TemplateId, Tenant, Tier, Timestamp};

use super::rows::{
    EXECUTIONS, ExecutionRow, decode, digest, entry_bytes, entry_id, label, tier_name, vector, verdict_name,
};
use super::{Error, Store, Tx, claims, entries, learning, on, repeats};

/// What a verdict did. All but `changed` tells how things stand, so that a verdict sent again (its first reply was
/// lost) can be told to the other workers again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Whether the verdict is new or another one than before.
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
    /// The same verdict again changes nothing; another one replaces it. The first verdict on what a template made moves
    /// the score of its edge, whether it was given on that answer or on one that the cache served from it; later ones
    /// do not, since a moving average can't be taken back and turns of opinion would move it for ever.
    ///
    /// `Wrong` withdraws the entries that the answer and its parts were served from or stored as, forgets replies kept
    /// for a client's id that gave the same text, and blocks each template that made the answer, a part of it, or a
    /// part of the answer that was served again, for that task of this tenant. `Good` after `Wrong` takes the blocks
    /// of that verdict back; entries stay withdrawn.
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
            let mut executions = executions(&mut tx, tenant, id).await?;
            if executions.is_empty()
                && let Some(first) = repeats::first_of(&mut tx, tenant, id).await?
            {
                let like = self::executions(&mut tx, tenant, &first).await?.into_iter();
                executions = like.map(|like| Execution { correlation_id: id.clone(), ..like }).collect();
            }
            if executions.is_empty() {
                return Ok(None);
            }
            let changed = note(&mut tx, tenant, id, verdict, comment, now).await?;
            let lineage = lineage(&mut tx, tenant, id, executions).await?;
            let edges: BTreeSet<EdgeKey> = lineage.made.iter().filter_map(|e| Some(e.sample()?.0)).collect();
            let mut judgement = Judgement { changed, edges: edges.into_iter().collect(), ..Judgement::default() };
            score(&mut tx, &lineage.made, verdict).await?;
            match verdict {
                Verdict::Good => judgement.unblocked = unblock(&mut tx, tenant, id).await?,
                Verdict::Wrong => {
                    for (e, template) in lineage.judged.iter().filter_map(|e| Some((e, rules(e)?))) {
                        let block = Block { tenant: tenant.clone(), task_key: e.task_key, template: template.clone() };
                        if !judgement.blocked.contains(&block) {
                            insert_block(&mut tx, &block, id).await?;
                            judgement.blocked.push(block);
                        }
                    }
                    judgement.withdrawn = entries_of(&mut tx, tenant, &lineage).await?;
                    entries::withdraw(&mut tx, &judgement.withdrawn, now).await?;
                    claims::forget(&mut tx, tenant, id, &judgement.withdrawn, now).await?;
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

    /// What users said of answers that the semantic tier gave, of all tenants, the newest first. A verdict is known as
    /// long as the row of the entry that was given, withdrawn or not.
    pub async fn cache_verdicts(&self, limit: u32) -> Result<Vec<CacheVerdict>, Error> {
        let run = async {
            // SQLite takes the tables of a CROSS JOIN in this order: verdicts are few, executions are not.
            let sql = "SELECT c.scope, c.vector, f.verdict FROM feedback f
                       CROSS JOIN executions e CROSS JOIN cache_entries c
                       WHERE f.verdict IS NOT NULL
                           AND e.correlation_id = f.correlation_id AND e.tenant = f.tenant AND e.tier = $1
                           AND c.id = e.entry AND c.tenant = f.tenant AND c.vector IS NOT NULL
                       ORDER BY f.at_ms DESC, f.correlation_id LIMIT $2";
            let tier = tier_name(Tier::Semantic);
            let rows: Vec<(Vec<u8>, Vec<u8>, String)> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tier).bind(i64::from(limit)).fetch_all(pool).await
            })?;
            let read = |(scope, bytes, verdict): (Vec<u8>, Vec<u8>, String)| {
                let good = verdict == verdict_name(Verdict::Good);
                Ok(CacheVerdict { scope: digest(scope)?, vector: vector(&bytes)?, good })
            };
            rows.into_iter().map(read).collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read verdicts on cached answers"))
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

/// What a verdict on one answer is about.
struct Lineage {
    /// The answer and its parts; where it was served from another answer's entry, that one's parts too.
    judged: Vec<Execution>,
    /// What rules made of it, now or back then, each once.
    made: Vec<Execution>,
    /// The requests whose stored answers all hold it.
    stored_by: Vec<CorrelationId>,
}

/// Follows what was served from the cache to where it was made.
async fn lineage(
    tx: &mut Tx,
    tenant: &Tenant,
    id: &CorrelationId,
    executions: Vec<Execution>,
) -> Result<Lineage, sqlx::Error> {
    let mut found = Lineage { judged: vec![], made: vec![], stored_by: vec![id.clone()] };
    let mut seen = BTreeSet::from([id.clone()]);
    let mut open = executions;
    while let Some(execution) = open.pop() {
        if let Some(origin) = execution.origin.clone().filter(|origin| !seen.contains(origin)) {
            let (whole, parts): (Vec<_>, Vec<_>) =
                self::executions(tx, tenant, &origin).await?.into_iter().partition(|e| e.part.is_empty());
            // Of a compound answer, one part may have been served: then the others have nothing to do with it.
            if parts.is_empty() || whole.iter().any(|w| w.entry == execution.entry) {
                seen.insert(origin.clone());
                found.stored_by.push(origin);
                // Its task may be another than that which was asked, and right for it; its parts are parts of both.
                found.made.extend(whole);
                open.extend(parts);
            }
        }
        found.made.push(execution.clone());
        found.judged.push(execution);
    }
    found.made.retain(|e| e.sample().is_some());
    // One order for all, so that two verdicts never wait for each other.
    found.made.sort_by(|a, b| (&a.correlation_id, &a.part).cmp(&(&b.correlation_id, &b.part)));
    Ok(found)
}

/// Moves the scores of the edges of what was not judged before.
async fn score(tx: &mut Tx, made: &[Execution], verdict: Verdict) -> Result<(), sqlx::Error> {
    let mut edges = BTreeSet::new();
    for execution in made {
        let sql = "UPDATE executions SET scored = TRUE WHERE correlation_id = $1 AND part = $2 AND NOT scored";
        let first = on!(&mut *tx, tx => {
            let query = sqlx::query(sql).bind(execution.correlation_id.as_str()).bind(label(&execution.part));
            query.execute(&mut **tx).await?.rows_affected()
        });
        if first == 1 {
            edges.extend(execution.sample().map(|(key, _)| key));
        }
    }
    for key in &edges {
        if let Some(mut stats) = learning::lock_edge(tx, key).await? {
            stats.judge(verdict == Verdict::Good);
            learning::write_edge(tx, key, &stats).await?;
        }
    }
    Ok(())
}

async fn executions(tx: &mut Tx, tenant: &Tenant, id: &CorrelationId) -> Result<Vec<Execution>, sqlx::Error> {
    let rows: Vec<ExecutionRow> = on!(tx, tx => {
        sqlx::query_as(EXECUTIONS).bind(id.as_str()).bind(tenant.as_str()).fetch_all(&mut **tx).await
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
async fn entries_of(tx: &mut Tx, tenant: &Tenant, lineage: &Lineage) -> Result<Vec<EntryId>, sqlx::Error> {
    let mut ids = BTreeSet::new();
    for origin in &lineage.stored_by {
        let sql = "SELECT id FROM cache_entries WHERE tenant = $1 AND origin = $2";
        let stored: Vec<(Vec<u8>,)> = on!(&mut *tx, tx => {
            sqlx::query_as(sql).bind(tenant.as_str()).bind(origin.as_str()).fetch_all(&mut **tx).await
        })?;
        for (id,) in stored {
            ids.insert(entry_id(&id)?);
        }
    }
    for entry in lineage.judged.iter().filter_map(|e| e.entry) {
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
