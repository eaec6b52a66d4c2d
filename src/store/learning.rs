use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sqlx::QueryBuilder;

use crate::domain::record::{EdgeKey, EdgeStats, Execution, Sample, Totals};
use crate::domain::{CorrelationId, NanoUsd, TemplateId, Tenant, Timestamp, Usage};

use super::rows::{
    EXECUTIONS, EdgeRow, ExecutionRow, StatsRow, decode, entry_bytes, label, method, nanos, signed, tier_name, unsigned,
};
use super::{Error, Store, Tx, on};

impl Store {
    /// Writes executions and folds the sample of each new one into its edge, in one transaction. An execution that is
    /// there already, by correlation id and part, is ignored and not folded again. All workers' samples are folded
    /// one after the other, under the edge's lock.
    pub async fn record(&self, batch: &[Execution]) -> Result<(), Error> {
        self.write_both("record executions", batch.iter().collect(), Vec::new()).await.map(drop)
    }

    /// Every edge of the template graph, sorted by task type, language and template.
    pub async fn edges(&self) -> Result<Vec<(EdgeKey, EdgeStats)>, Error> {
        let run = async {
            let sql = "SELECT task_type, language, template, uses, success, quality, time_ms, last_used_ms
                       FROM template_edges ORDER BY task_type, language, template";
            let rows: Vec<EdgeRow> = on!(&self.read, pool => sqlx::query_as(sql).fetch_all(pool).await)?;
            rows.into_iter().map(TryInto::try_into).collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read the template graph"))
    }

    /// What is recorded under a correlation id: the request first, then its parts. Empty for another tenant's.
    pub async fn execution(&self, tenant: &Tenant, id: &CorrelationId) -> Result<Vec<Execution>, Error> {
        let run = async {
            let rows: Vec<ExecutionRow> = on!(&self.read, pool => {
                sqlx::query_as(EXECUTIONS).bind(id.as_str()).bind(tenant.as_str()).fetch_all(pool).await
            })?;
            rows.into_iter().map(TryInto::try_into).collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read an execution"))
    }

    /// Sums over a tenant's requests. `by_template` counts every request answered from a template, hits included; the
    /// most used first.
    pub async fn totals(&self, tenant: &Tenant) -> Result<Totals, Error> {
        let run = async {
            let groups: Vec<Group> = on!(&self.read, pool => {
                sqlx::query_as(TOTALS).bind(tenant.as_str()).fetch_all(pool).await
            })?;
            sum(groups)
        };
        run.await.map_err(Error::during("sum up a tenant's executions"))
    }

    /// The times taken by a tenant's newest requests, the newest first.
    pub async fn latencies(&self, tenant: &Tenant, newest: u32) -> Result<Vec<Duration>, Error> {
        let sql = "SELECT time_ns FROM executions WHERE tenant = $1 AND part = ''
                   ORDER BY at_ms DESC, correlation_id DESC LIMIT $2";
        let rows: Result<Vec<(i64,)>, _> = on!(&self.read, pool => {
            sqlx::query_as(sql).bind(tenant.as_str()).bind(i64::from(newest)).fetch_all(pool).await
        });
        let rows = rows.map_err(Error::during("read latencies"))?;
        Ok(rows.into_iter().map(|(time,)| Duration::from_nanos(unsigned(time))).collect())
    }

    /// The newest measured qualities of what templates and models made, of all tenants, the oldest first.
    pub async fn qualities(&self, newest: u32) -> Result<Vec<(Timestamp, f64)>, Error> {
        let sql = "SELECT at_ms, quality FROM executions
                   WHERE quality IS NOT NULL AND method IN ('autonomous', 'llm_assisted')
                   ORDER BY at_ms DESC, correlation_id DESC, part DESC LIMIT $1";
        let rows: Result<Vec<(i64, f64)>, _> =
            on!(&self.read, pool => sqlx::query_as(sql).bind(i64::from(newest)).fetch_all(pool).await);
        let rows = rows.map_err(Error::during("read qualities"))?;
        Ok(rows.into_iter().rev().map(|(at, quality)| (Timestamp(at), quality)).collect())
    }
}

/// Rows of one INSERT: 21 values each, and SQLite takes 32,766 in one statement.
const ROWS_PER_INSERT: usize = 500;

pub(super) async fn record(tx: &mut Tx, mut batch: Vec<&Execution>) -> Result<(), sqlx::Error> {
    // Two workers that write the same two rows would otherwise wait for each other.
    batch.sort_by_key(|e| (&e.correlation_id, &e.part));
    let mut samples: Vec<&Execution> = Vec::new();
    for rows in batch.chunks(ROWS_PER_INSERT) {
        let mut new: HashSet<(String, String)> = insert(tx, rows).await?.into_iter().collect();
        samples.extend(rows.iter().filter(|e| new.remove(&(e.correlation_id.as_str().to_owned(), label(&e.part)))));
    }
    // Within one worker, samples are folded in the order in which they were made.
    samples.sort_by_key(|e| e.at);
    let mut by_edge: BTreeMap<EdgeKey, Vec<Sample>> = BTreeMap::new();
    for (key, sample) in samples.into_iter().filter_map(|e| e.sample()) {
        by_edge.entry(key).or_default().push(Sample { quality: measured(sample.quality), ..sample });
    }
    for (key, samples) in by_edge {
        fold(tx, &key, &samples).await?;
    }
    Ok(())
}

/// Locks an edge for the rest of the transaction; `None` where there is none.
pub(super) async fn lock_edge(tx: &mut Tx, key: &EdgeKey) -> Result<Option<EdgeStats>, sqlx::Error> {
    // An UPDATE that changes nothing locks in both dialects.
    let sql = "UPDATE template_edges SET uses = uses WHERE task_type = $1 AND language = $2 AND template = $3
               RETURNING uses, success, quality, time_ms, last_used_ms";
    let row: Option<StatsRow> = on!(tx, tx => {
        sqlx::query_as(sql)
            .bind(key.task_type.as_str())
            .bind(label(key.language.as_str()))
            .bind(key.template.as_str())
            .fetch_optional(&mut **tx)
            .await
    })?;
    Ok(row.map(EdgeStats::from))
}

pub(super) async fn write_edge(tx: &mut Tx, key: &EdgeKey, stats: &EdgeStats) -> Result<(), sqlx::Error> {
    let sql = "UPDATE template_edges SET uses = $4, success = $5, quality = $6, time_ms = $7, last_used_ms = $8
               WHERE task_type = $1 AND language = $2 AND template = $3";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(key.task_type.as_str())
            .bind(label(key.language.as_str()))
            .bind(key.template.as_str())
            .bind(signed(stats.uses))
            .bind(stats.success)
            .bind(stats.quality)
            .bind(stats.time_ms)
            .bind(stats.last_used.0)
            .execute(&mut **tx)
            .await
            .map(drop)
    })
}

async fn fold(tx: &mut Tx, key: &EdgeKey, samples: &[Sample]) -> Result<(), sqlx::Error> {
    // A row that is not there can't be locked: two workers would both see the first sample. So it is made, or changed
    // in nothing, and locked either way.
    let sql = "INSERT INTO template_edges (task_type, language, template, uses, success, time_ms, last_used_ms)
               VALUES ($1, $2, $3, 0, 0, 0, 0)
               ON CONFLICT (task_type, language, template) DO UPDATE SET uses = template_edges.uses
               RETURNING uses, success, quality, time_ms, last_used_ms";
    let row: StatsRow = on!(&mut *tx, tx => {
        sqlx::query_as(sql)
            .bind(key.task_type.as_str())
            .bind(label(key.language.as_str()))
            .bind(key.template.as_str())
            .fetch_one(&mut **tx)
            .await
    })?;
    let known = Some(EdgeStats::from(row)).filter(|stats| stats.uses > 0);
    let folded = samples.iter().fold(known, |stats, sample| match stats {
        None => Some(EdgeStats::first(sample)),
        Some(mut stats) => {
            stats.learn(sample);
            Some(stats)
        }
    });
    match folded {
        Some(stats) => write_edge(tx, key, &stats).await,
        None => Ok(()),
    }
}

/// Returns correlation id and part of the rows that are new.
async fn insert(tx: &mut Tx, rows: &[&Execution]) -> Result<Vec<(String, String)>, sqlx::Error> {
    on!(tx, tx => {
        let mut sql = QueryBuilder::new(
            "INSERT INTO executions (correlation_id, part, tenant, at_ms, task_key, task_type, language, method,
             template, model, input_tokens, output_tokens, cost_nanos, all_model_nanos, quality, success, time_ns,
             made_ns, tier, entry, origin) ",
        );
        sql.push_values(rows, |mut row, e| {
            row.push_bind(e.correlation_id.as_str())
                .push_bind(label(&e.part))
                .push_bind(e.tenant.as_str())
                .push_bind(e.at.0)
                .push_bind(&e.task_key[..])
                .push_bind(e.task_type.as_str())
                .push_bind(label(e.language.as_str()))
                .push_bind(e.method.as_str())
                .push_bind(e.template.as_ref().map(TemplateId::as_str))
                .push_bind(e.model.as_deref().map(label))
                .push_bind(signed(e.usage.input))
                .push_bind(signed(e.usage.output))
                .push_bind(signed(e.cost.0))
                .push_bind(e.all_model_cost.map(|cost| signed(cost.0)))
                .push_bind(measured(e.quality))
                .push_bind(e.success)
                .push_bind(nanos(e.time))
                .push_bind(nanos(e.made_in))
                .push_bind(e.tier.map(tier_name))
                .push_bind(e.entry.map(entry_bytes))
                .push_bind(e.origin.as_ref().map(CorrelationId::as_str));
        });
        sql.push(" ON CONFLICT (correlation_id, part) DO NOTHING RETURNING correlation_id, part");
        // Every number of rows is another statement: not worth keeping.
        sql.build_query_as().persistent(false).fetch_all(&mut **tx).await
    })
}

/// SQLite keeps no NaN, and one in a moving average would stay there for ever.
fn measured(quality: Option<f64>) -> Option<f64> {
    quality.filter(|q| q.is_finite())
}

/// Sums are taken in halves of 32 bits: SQLite fails where a sum overflows, and one absurd row must not take a
/// tenant's figures away.
const TOTALS: &str = "
    SELECT method, template, COUNT(*) AS executions, COUNT(*) FILTER (WHERE success) AS successes,
        CAST(SUM(cost_nanos >> 32) AS BIGINT) AS cost_high,
        CAST(SUM(cost_nanos & 4294967295) AS BIGINT) AS cost_low,
        COUNT(all_model_nanos) AS priced,
        CAST(COALESCE(SUM(all_model_nanos >> 32), 0) AS BIGINT) AS all_model_high,
        CAST(COALESCE(SUM(all_model_nanos & 4294967295), 0) AS BIGINT) AS all_model_low,
        CAST(SUM(input_tokens >> 32) AS BIGINT) AS input_high,
        CAST(SUM(input_tokens & 4294967295) AS BIGINT) AS input_low,
        CAST(SUM(output_tokens >> 32) AS BIGINT) AS output_high,
        CAST(SUM(output_tokens & 4294967295) AS BIGINT) AS output_low,
        CAST(SUM(time_ns >> 32) AS BIGINT) AS time_high,
        CAST(SUM(time_ns & 4294967295) AS BIGINT) AS time_low,
        COUNT(quality) AS measured, SUM(quality) AS quality
    FROM executions WHERE tenant = $1 AND part = '' GROUP BY method, template";

#[derive(sqlx::FromRow)]
struct Group {
    method: String,
    template: Option<String>,
    executions: i64,
    successes: i64,
    cost_high: i64,
    cost_low: i64,
    priced: i64,
    all_model_high: i64,
    all_model_low: i64,
    input_high: i64,
    input_low: i64,
    output_high: i64,
    output_low: i64,
    time_high: i64,
    time_low: i64,
    measured: i64,
    quality: Option<f64>,
}

fn sum(mut groups: Vec<Group>) -> Result<Totals, sqlx::Error> {
    // Sums of floats depend on their order.
    groups.sort_by(|a, b| (&a.method, &a.template).cmp(&(&b.method, &b.template)));
    let of = |part: fn(&Group) -> i64| groups.iter().map(|g| i128::from(part(g))).sum::<i128>();
    let halves = |high: fn(&Group) -> i64, low: fn(&Group) -> i64| saturated((of(high) << 32) + of(low));
    let mut by_method = BTreeMap::new();
    let mut by_template = BTreeMap::new();
    for group in &groups {
        *by_method.entry(method(&group.method)?).or_default() += unsigned(group.executions);
        if let Some(template) = &group.template {
            let template = TemplateId::parse(template).map_err(decode)?;
            *by_template.entry(template).or_default() += unsigned(group.executions);
        }
    }
    let mut by_template: Vec<(TemplateId, u64)> = by_template.into_iter().collect();
    by_template.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));

    let executions = saturated(of(|g| g.executions));
    let measured = of(|g| g.measured);
    let time = halves(|g| g.time_high, |g| g.time_low);
    Ok(Totals {
        executions,
        successes: saturated(of(|g| g.successes)),
        by_method: by_method.into_iter().collect(),
        by_template,
        cost: NanoUsd(halves(|g| g.cost_high, |g| g.cost_low)),
        all_model_cost: NanoUsd(halves(|g| g.all_model_high, |g| g.all_model_low)),
        all_model_priced: saturated(of(|g| g.priced)),
        tokens: Usage {
            input: halves(|g| g.input_high, |g| g.input_low),
            output: halves(|g| g.output_high, |g| g.output_low),
        },
        mean_time: time.checked_div(executions).map(Duration::from_nanos),
        mean_quality: (measured > 0).then(|| groups.iter().filter_map(|g| g.quality).sum::<f64>() / measured as f64),
    })
}

fn saturated(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}
