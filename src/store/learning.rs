use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sqlx::QueryBuilder;

use crate::domain::record::{EdgeKey, EdgeStats, Execution, Sample, Totals};
use crate::domain::{CorrelationId, NanoUsd, TemplateId, Tenant, Timestamp, Usage};

use super::rows::{
    EXECUTIONS, EdgeRow, ExecutionRow, StatsRow, decode, entry_bytes, label, method, nanos, signed, tier_name, unsigned,
};
use super::sums::{added, saturated, split};
use super::{Error, Store, Tx, on, repeats};

impl Store {
    /// Writes executions and folds the sample of each new one into its edge, in one transaction. An execution that is
    /// there already, by correlation id and part, is ignored and not folded again. All workers' samples are folded
    /// one after the other, under the edge's lock.
    pub async fn record(&self, batch: &[Execution]) -> Result<(), Error> {
        self.write_all("record executions", batch.iter().collect(), Vec::new(), Vec::new()).await.map(drop)
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

    /// Sums over a tenant's requests, also over those that were deleted since. `by_template` counts every request answered
    /// from a template, hits included; the most used first. As many rows are read as the tenant had days, times its
    /// templates.
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

/// Rows of one INSERT: 22 values each, and SQLite takes 32,766 in one statement.
const ROWS_PER_INSERT: usize = 500;

pub(super) async fn record(tx: &mut Tx, mut batch: Vec<&Execution>) -> Result<(), sqlx::Error> {
    // Two workers that write the same two rows would otherwise wait for each other.
    batch.sort_by_key(|e| (&e.correlation_id, &e.part));
    let mut samples: Vec<&Execution> = Vec::new();
    let mut sums = Sums::new();
    let mut groups = repeats::group(&batch);
    while !groups.is_empty() {
        let firsts: Vec<&Execution> = groups.iter().map(|group| group[0]).collect();
        let mut new: HashSet<(String, String)> = HashSet::new();
        for rows in firsts.chunks(ROWS_PER_INSERT) {
            new.extend(insert(tx, rows).await?);
        }
        let (fresh, known): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| new.remove(&(group[0].correlation_id.as_str().to_owned(), label(&group[0].part))));
        for execution in fresh.iter().flatten().filter(|e| e.part.is_empty()) {
            let (key, sum) = Sum::of(execution);
            sums.entry(key).and_modify(|known| known.add(&sum)).or_insert(sum);
        }
        let repeated: Vec<_> = fresh.iter().filter(|group| group.len() > 1).collect();
        repeats::insert(tx, &repeated).await?;
        samples.extend(fresh.iter().map(|group| group[0]));
        // A batch whose commit went unanswered is written again, perhaps with more in it than before.
        groups = vec![];
        for group in known.iter().filter(|group| group.len() > 1) {
            let written = repeats::of(tx, &group[0].correlation_id).await?;
            let rest: Vec<_> =
                group[1..].iter().filter(|e| !written.contains(e.correlation_id.as_str())).copied().collect();
            groups.extend((!rest.is_empty()).then_some(rest));
        }
    }
    add_up(tx, sums).await?;
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
             made_ns, tier, entry, origin, counted) ",
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
                .push_bind(e.origin.as_ref().map(CorrelationId::as_str))
                .push_bind(e.part.is_empty());
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

/// By tenant, day since 1970, method and template (empty for none): sorted, as they are locked.
type Sums = BTreeMap<(String, i64, String, String), Sum>;

/// Sums of requests.
#[derive(Default)]
struct Sum {
    executions: i64,
    successes: i64,
    cost: [i64; 2],
    priced: i64,
    all_model: [i64; 2],
    input: [i64; 2],
    output: [i64; 2],
    time: [i64; 2],
    measured: i64,
    quality: f64,
}

impl Sum {
    /// Of one request, and where it belongs.
    fn of(e: &Execution) -> ((String, i64, String, String), Self) {
        let template = e.template.as_ref().map_or(String::new(), |id| id.as_str().to_owned());
        let key = (e.tenant.as_str().to_owned(), e.at.day(), e.method.as_str().to_owned(), template);
        let quality = measured(e.quality);
        let sum = Self {
            executions: 1,
            successes: i64::from(e.success),
            cost: split(signed(e.cost.0)),
            priced: i64::from(e.all_model_cost.is_some()),
            all_model: split(e.all_model_cost.map_or(0, |cost| signed(cost.0))),
            input: split(signed(e.usage.input)),
            output: split(signed(e.usage.output)),
            time: split(nanos(e.time)),
            measured: i64::from(quality.is_some()),
            quality: quality.unwrap_or(0.0),
        };
        (key, sum)
    }

    fn add(&mut self, other: &Self) {
        let both = |a: &mut [i64; 2], b: [i64; 2]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        self.executions += other.executions;
        self.successes += other.successes;
        self.priced += other.priced;
        self.measured += other.measured;
        self.quality += other.quality;
        both(&mut self.cost, other.cost);
        both(&mut self.all_model, other.all_model);
        both(&mut self.input, other.input);
        both(&mut self.output, other.output);
        both(&mut self.time, other.time);
    }
}

const KEY: &str = "tenant, day, method, template";
const SUMS: &str = "executions, successes, cost_high, cost_low, priced, all_model_high, all_model_low, input_high, \
    input_low, output_high, output_low, time_high, time_low, measured, quality";

async fn add_up(tx: &mut Tx, sums: Sums) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO execution_days ({KEY}, {SUMS})
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) {}",
        added("execution_days", KEY, SUMS)
    );
    for ((tenant, day, method, template), sum) in sums {
        on!(&mut *tx, tx => {
            sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .bind(tenant)
                .bind(day)
                .bind(method)
                .bind(template)
                .bind(sum.executions)
                .bind(sum.successes)
                .bind(sum.cost[0])
                .bind(sum.cost[1])
                .bind(sum.priced)
                .bind(sum.all_model[0])
                .bind(sum.all_model[1])
                .bind(sum.input[0])
                .bind(sum.input[1])
                .bind(sum.output[0])
                .bind(sum.output[1])
                .bind(sum.time[0])
                .bind(sum.time[1])
                .bind(sum.measured)
                .bind(sum.quality)
                .execute(&mut **tx)
                .await
                .map(drop)
        })?;
    }
    Ok(())
}

/// Puts a batch of requests that are in no sum yet into them; returns how many.
pub(super) async fn count_in(tx: &mut Tx, batch: u32) -> Result<u64, sqlx::Error> {
    // Two workers may pick the same rows: the second finds them counted.
    let sql = "UPDATE executions SET counted = TRUE WHERE part = '' AND NOT counted AND correlation_id IN
               (SELECT correlation_id FROM executions WHERE part = '' AND NOT counted
                ORDER BY correlation_id LIMIT $1)
               RETURNING correlation_id, part, tenant, at_ms, task_key, task_type, language, method, template, model,
                   input_tokens, output_tokens, cost_nanos, all_model_nanos, quality, success, time_ns, made_ns, tier,
                   entry, origin";
    let rows: Vec<ExecutionRow> =
        on!(&mut *tx, tx => sqlx::query_as(sql).bind(i64::from(batch)).fetch_all(&mut **tx).await)?;
    let mut sums = Sums::new();
    let counted = rows.len() as u64;
    for row in rows {
        let (key, sum) = Sum::of(&Execution::try_from(row)?);
        sums.entry(key).and_modify(|known| known.add(&sum)).or_insert(sum);
    }
    add_up(tx, sums).await?;
    Ok(counted)
}

/// The sums, and what is not in them yet: one statement, so one moment.
const TOTALS: &str = "
    SELECT method, NULLIF(template, '') AS template, CAST(SUM(executions) AS BIGINT) AS executions,
        CAST(SUM(successes) AS BIGINT) AS successes,
        CAST(SUM(cost_high) AS BIGINT) AS cost_high, CAST(SUM(cost_low) AS BIGINT) AS cost_low,
        CAST(SUM(priced) AS BIGINT) AS priced,
        CAST(SUM(all_model_high) AS BIGINT) AS all_model_high, CAST(SUM(all_model_low) AS BIGINT) AS all_model_low,
        CAST(SUM(input_high) AS BIGINT) AS input_high, CAST(SUM(input_low) AS BIGINT) AS input_low,
        CAST(SUM(output_high) AS BIGINT) AS output_high, CAST(SUM(output_low) AS BIGINT) AS output_low,
        CAST(SUM(time_high) AS BIGINT) AS time_high, CAST(SUM(time_low) AS BIGINT) AS time_low,
        CAST(SUM(measured) AS BIGINT) AS measured, SUM(quality) AS quality
    FROM execution_days WHERE tenant = $1 GROUP BY method, template
    UNION ALL
    SELECT method, template, COUNT(*), COUNT(*) FILTER (WHERE success),
        CAST(SUM(cost_nanos >> 32) AS BIGINT), CAST(SUM(cost_nanos & 4294967295) AS BIGINT),
        COUNT(all_model_nanos), CAST(COALESCE(SUM(all_model_nanos >> 32), 0) AS BIGINT),
        CAST(COALESCE(SUM(all_model_nanos & 4294967295), 0) AS BIGINT),
        CAST(SUM(input_tokens >> 32) AS BIGINT), CAST(SUM(input_tokens & 4294967295) AS BIGINT),
        CAST(SUM(output_tokens >> 32) AS BIGINT), CAST(SUM(output_tokens & 4294967295) AS BIGINT),
        CAST(SUM(time_ns >> 32) AS BIGINT), CAST(SUM(time_ns & 4294967295) AS BIGINT),
        COUNT(quality), SUM(quality)
    FROM executions WHERE tenant = $1 AND part = '' AND NOT counted GROUP BY method, template";

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
