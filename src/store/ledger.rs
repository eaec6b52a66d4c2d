//! The ledger: a row for every attempt at asking a model, and sums of them by day. What a lease of a budget was used for
//! is taken off it in the same transaction: see `budget`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::domain::{Attempt, CorrelationId, Counted, NanoUsd, Outcome, Tally, Tenant, Timestamp};

use super::budget::{self, Guard, Taken};
use super::rows::{decode, label, nanos, signed, unsigned};
use super::sums::{DAY_MS, added, saturated, split};
use super::{Error, Store, Tx, on};

/// One attempt on its way into the ledger. It may be written twice, and counts once.
#[derive(Debug, Clone)]
pub struct Entry {
    id: Uuid,
    pub attempt: Attempt,
    /// What it was paid from; `None` where nothing bounds it.
    pub lease: Option<Uuid>,
}

impl Entry {
    pub fn new(attempt: Attempt, lease: Option<Uuid>) -> Self {
        Self { id: Uuid::now_v7(), attempt, lease }
    }
}

impl Store {
    /// What a tenant's attempts since its last reset came to, by provider, model and outcome, and when that was.
    pub async fn tallies(&self, tenant: &Tenant) -> Result<(Vec<Tally>, Option<Timestamp>), Error> {
        let run = async {
            let rows: Vec<TallyRow> = on!(&self.read, pool => {
                sqlx::query_as(TALLIES).bind(tenant.as_str()).fetch_all(pool).await
            })?;
            let sql = "SELECT at_ms FROM model_resets WHERE tenant = $1";
            let since: Option<(i64,)> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(tenant.as_str()).fetch_optional(pool).await)?;
            let tallies = rows.into_iter().map(Tally::try_from).collect::<Result<_, sqlx::Error>>()?;
            Ok((tallies, since.map(|(at,)| Timestamp(at))))
        };
        run.await.map_err(Error::during("sum up a tenant's model calls"))
    }

    /// Begins a tenant's statistics anew. What was spent stays spent: budgets still count it.
    pub async fn reset_tallies(&self, tenant: &Tenant, now: Timestamp) -> Result<(), Error> {
        let run = async {
            let mut tx = self.begin().await?;
            // What is written meanwhile would be deleted without being moved.
            budget::guard(&mut tx, Guard::Exclusive).await?;
            let moved = format!(
                "INSERT INTO model_days ({KEY}, {SUMS}) SELECT tenant, day, provider, model, outcome, TRUE, {SUMS}
                 FROM model_days WHERE tenant = $1 AND NOT past {}",
                added("model_days", KEY, SUMS)
            );
            let since = "INSERT INTO model_resets (tenant, at_ms) VALUES ($1, $2)
                         ON CONFLICT (tenant) DO UPDATE SET at_ms = excluded.at_ms";
            on!(&mut tx, tx => {
                sqlx::query(sqlx::AssertSqlSafe(moved)).bind(tenant.as_str()).execute(&mut **tx).await?;
                let gone = "DELETE FROM model_days WHERE tenant = $1 AND NOT past";
                sqlx::query(gone).bind(tenant.as_str()).execute(&mut **tx).await?;
                sqlx::query(since).bind(tenant.as_str()).bind(now.0).execute(&mut **tx).await?;
            });
            tx.commit().await
        };
        run.await.map_err(Error::during("reset a tenant's statistics"))
    }

    /// Takes what is left of leases whose workers gave no sign for too long as spent: what of it was sent, nobody knows.
    /// Returns how many there were.
    pub async fn settle_abandoned(&self, now: Timestamp) -> Result<u64, Error> {
        let run = async {
            let sql = "SELECT COUNT(*) FROM budget_leases WHERE until_ms <= $1";
            let (lapsed,): (i64,) = on!(&self.read, pool => sqlx::query_as(sql).bind(now.0).fetch_one(pool).await)?;
            if lapsed == 0 {
                return Ok(0);
            }
            let mut tx = self.begin().await?;
            budget::guard(&mut tx, Guard::Shared).await?;
            let mut entries = vec![];
            for lease in budget::take_lapsed(&mut tx, now).await? {
                let attempt = abandoned(lease.id, lease.tenant, lease.day, lease.until, lease.amount)?;
                entries.push(Entry { id: lease.id, attempt, lease: None });
            }
            let entries: Vec<&Entry> = entries.iter().collect();
            insert(&mut tx, &entries).await?;
            let mut sums = Sums::new();
            entries.iter().for_each(|entry| add(&mut sums, &entry.attempt));
            add_up(&mut tx, sums).await?;
            tx.commit().await?;
            Ok(entries.len() as u64)
        };
        run.await.map_err(Error::during("settle what dead workers had of a budget"))
    }
}

/// What a lease that lapsed leaves in the ledger.
fn abandoned(lease: Uuid, tenant: Tenant, day: i64, until: Timestamp, amount: NanoUsd) -> Result<Attempt, sqlx::Error> {
    let last = (day + 1).saturating_mul(DAY_MS) - 1;
    Ok(Attempt {
        at: Timestamp(until.0.min(last)),
        tenant,
        correlation_id: CorrelationId::parse(&format!("lease_{}", lease.simple())).map_err(decode)?,
        provider: String::new(),
        model: String::new(),
        outcome: Outcome::Abandoned,
        sent: true,
        counted: Counted::default(),
        cost: None,
        worst: amount,
        duration: Duration::ZERO,
        first_token: None,
    })
}

/// Writes what is new of these, adds it to the sums, and takes it off its lease or counts it into the budgets.
pub(super) async fn record(tx: &mut Tx, mut entries: Vec<&Entry>) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    budget::guard(tx, Guard::Shared).await?;
    entries.sort_by_key(|entry| entry.id);
    let new = insert(tx, &entries).await?;
    entries.retain(|entry| new.contains(&entry.id));
    let (mut sums, mut leased, mut unbounded) = (Sums::new(), BTreeMap::<Uuid, i64>::new(), Taken::new());
    for Entry { attempt, lease, .. } in entries {
        add(&mut sums, attempt);
        let used = signed(attempt.most().0);
        let used_so_far = match lease {
            Some(lease) => leased.entry(*lease).or_default(),
            None => unbounded.entry((attempt.tenant.as_str().to_owned(), attempt.at.day())).or_default(),
        };
        *used_so_far = used_so_far.saturating_add(used);
    }
    budget::take(tx, &unbounded).await?;
    let mut unforeseen = Taken::new();
    for (lease, used) in leased {
        if !budget::use_up(tx, lease, used).await?
            && let Some((tenant, day, known)) = unmark(tx, lease, used, &mut sums).await?
        {
            *unforeseen.entry((tenant, day)).or_default() += used - known;
        }
    }
    budget::take(tx, &unforeseen).await?;
    add_up(tx, sums).await
}

/// A worker that was thought dead accounts for so much of its lease after all: that is no longer unknown. Returns how much
/// of it was; `None` where there is no row, because all of it was accounted for.
async fn unmark(
    tx: &mut Tx,
    lease: Uuid,
    amount: i64,
    sums: &mut Sums,
) -> Result<Option<(String, i64, i64)>, sqlx::Error> {
    let id = || lease.as_bytes().to_vec();
    // An UPDATE that changes nothing locks in both dialects.
    let sql = "UPDATE model_attempts SET sent = sent WHERE id = $1 RETURNING tenant, at_ms, worst_nanos";
    let row: Option<(String, i64, i64)> =
        on!(&mut *tx, tx => sqlx::query_as(sql).bind(id()).fetch_optional(&mut **tx).await)?;
    let Some((tenant, at, worst)) = row else { return Ok(None) };
    let (known, day) = (amount.min(worst), Timestamp(at).day());
    let sql = if known == worst {
        "DELETE FROM model_attempts WHERE id = $1 AND worst_nanos = $2"
    } else {
        "UPDATE model_attempts SET worst_nanos = worst_nanos - $2 WHERE id = $1"
    };
    on!(&mut *tx, tx => sqlx::query(sql).bind(id()).bind(known).execute(&mut **tx).await.map(drop))?;
    let key = (tenant.clone(), day, String::new(), String::new(), Outcome::Abandoned.as_str());
    let sum = sums.entry(key).or_default();
    sum.unknown_cost.iter_mut().zip(split(known)).for_each(|(sum, known)| *sum -= known);
    if known == worst {
        sum.attempts -= 1;
        sum.sent -= 1;
        sum.unknown -= 1;
    }
    Ok(Some((tenant, day, known)))
}

/// A lease that is settled gives a part back. Returns how much of it counted as spent, and does no longer.
pub(super) async fn give_back(tx: &mut Tx, lease: Uuid, amount: i64) -> Result<i64, sqlx::Error> {
    let mut sums = Sums::new();
    let unmarked = unmark(tx, lease, amount, &mut sums).await?;
    add_up(tx, sums).await?;
    Ok(unmarked.map_or(0, |(_, _, known)| known))
}

/// Rows of one INSERT: 17 values each, and SQLite takes 32,766 in one statement.
const ROWS_PER_INSERT: usize = 500;

/// Returns the ids of those that were not there yet.
async fn insert(tx: &mut Tx, entries: &[&Entry]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let mut new = HashSet::new();
    for rows in entries.chunks(ROWS_PER_INSERT) {
        let written: Vec<(Vec<u8>,)> = on!(&mut *tx, tx => {
            let mut sql = QueryBuilder::new(
                "INSERT INTO model_attempts (id, tenant, at_ms, correlation_id, provider, model, outcome, sent,
                 input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost_nanos,
                 worst_nanos, time_ns, first_token_ns) ",
            );
            sql.push_values(rows, |mut row, Entry { id, attempt: a, .. }| {
                row.push_bind(id.as_bytes().to_vec())
                    .push_bind(a.tenant.as_str())
                    .push_bind(a.at.0)
                    .push_bind(a.correlation_id.as_str())
                    .push_bind(label(&a.provider))
                    .push_bind(label(&a.model))
                    .push_bind(a.outcome.as_str())
                    .push_bind(a.sent)
                    .push_bind(a.counted.input.map(signed))
                    .push_bind(a.counted.output.map(signed))
                    .push_bind(a.counted.cached.map(signed))
                    .push_bind(a.counted.cache_write.map(signed))
                    .push_bind(a.counted.reasoning.map(signed))
                    .push_bind(a.cost.map(|cost| signed(cost.0)))
                    .push_bind(signed(a.worst.0))
                    .push_bind(nanos(a.duration))
                    .push_bind(a.first_token.map(nanos));
            });
            sql.push(" ON CONFLICT (id) DO NOTHING RETURNING id");
            // Every number of rows is another statement: not worth keeping.
            sql.build_query_as().persistent(false).fetch_all(&mut **tx).await
        })?;
        for (id,) in written {
            new.insert(Uuid::from_slice(&id).map_err(decode)?);
        }
    }
    Ok(new)
}

/// By tenant, day, provider, model and outcome: sorted, as they are locked.
type Sums = BTreeMap<(String, i64, String, String, &'static str), Sum>;

#[derive(Debug, Default)]
struct Sum {
    attempts: i64,
    sent: i64,
    cost: [i64; 2],
    unknown: i64,
    unknown_cost: [i64; 2],
    /// In, out, cached, written to the cache, thoughts.
    tokens: [i64; 5],
    time_us: i64,
}

fn add(sums: &mut Sums, attempt: &Attempt) {
    let (key, sum) = Sum::of(attempt);
    let known = sums.entry(key).or_default();
    let both = |a: &mut [i64], b: &[i64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    known.attempts += sum.attempts;
    known.sent += sum.sent;
    known.unknown += sum.unknown;
    known.time_us += sum.time_us;
    both(&mut known.cost, &sum.cost);
    both(&mut known.unknown_cost, &sum.unknown_cost);
    both(&mut known.tokens, &sum.tokens);
}

impl Sum {
    fn of(a: &Attempt) -> ((String, i64, String, String, &'static str), Self) {
        let key = (a.tenant.as_str().to_owned(), a.at.day(), label(&a.provider), label(&a.model), a.outcome.as_str());
        let Counted { input, output, cached, cache_write, reasoning } = a.counted;
        // A count above this is none: see `llm`.
        let tokens = [input, output, cached, cache_write, reasoning].map(|n| signed(n.unwrap_or(0)).min(1 << 40));
        let sum = Self {
            attempts: 1,
            sent: i64::from(a.sent),
            cost: split(signed(a.cost.unwrap_or_default().0)),
            unknown: i64::from(a.cost.is_none()),
            unknown_cost: split(if a.cost.is_none() { signed(a.worst.0) } else { 0 }),
            tokens,
            time_us: nanos(a.duration) / 1_000,
        };
        (key, sum)
    }
}

const KEY: &str = "tenant, day, provider, model, outcome, past";
const SUMS: &str = "attempts, sent, cost_high, cost_low, unknown, unknown_high, unknown_low, input, output, cached, \
    cache_write, reasoning, time_us";

async fn add_up(tx: &mut Tx, sums: Sums) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO model_days ({KEY}, {SUMS})
         VALUES ($1, $2, $3, $4, $5, FALSE, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) {}",
        added("model_days", KEY, SUMS)
    );
    for ((tenant, day, provider, model, outcome), sum) in sums {
        on!(&mut *tx, tx => {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .bind(tenant)
                .bind(day)
                .bind(provider)
                .bind(model)
                .bind(outcome)
                .bind(sum.attempts)
                .bind(sum.sent)
                .bind(sum.cost[0])
                .bind(sum.cost[1])
                .bind(sum.unknown)
                .bind(sum.unknown_cost[0])
                .bind(sum.unknown_cost[1]);
            let query = sum.tokens.into_iter().fold(query, |query, tokens| query.bind(tokens));
            query.bind(sum.time_us).execute(&mut **tx).await.map(drop)
        })?;
    }
    Ok(())
}

const TALLIES: &str = "
    SELECT provider, model, outcome, CAST(SUM(attempts) AS BIGINT) AS attempts, CAST(SUM(sent) AS BIGINT) AS sent,
        CAST(SUM(cost_high) AS BIGINT) AS cost_high, CAST(SUM(cost_low) AS BIGINT) AS cost_low,
        CAST(SUM(unknown) AS BIGINT) AS unknown, CAST(SUM(unknown_high) AS BIGINT) AS unknown_high,
        CAST(SUM(unknown_low) AS BIGINT) AS unknown_low, CAST(SUM(input) AS BIGINT) AS input,
        CAST(SUM(output) AS BIGINT) AS output, CAST(SUM(cached) AS BIGINT) AS cached,
        CAST(SUM(cache_write) AS BIGINT) AS cache_write, CAST(SUM(reasoning) AS BIGINT) AS reasoning,
        CAST(SUM(time_us) AS BIGINT) AS time_us
    FROM model_days WHERE tenant = $1 AND NOT past GROUP BY provider, model, outcome ORDER BY provider, model, outcome";

#[derive(sqlx::FromRow)]
struct TallyRow {
    provider: String,
    model: String,
    outcome: String,
    attempts: i64,
    sent: i64,
    cost_high: i64,
    cost_low: i64,
    unknown: i64,
    unknown_high: i64,
    unknown_low: i64,
    input: i64,
    output: i64,
    cached: i64,
    cache_write: i64,
    reasoning: i64,
    time_us: i64,
}

/// A sum that was kept in halves.
pub(super) fn whole(high: i64, low: i64) -> NanoUsd {
    NanoUsd(saturated((i128::from(high) << 32) + i128::from(low)))
}

fn outcome(text: &str) -> Result<Outcome, sqlx::Error> {
    Outcome::ALL.into_iter().find(|o| o.as_str() == text).ok_or_else(|| decode(format!("no outcome {text:?}")))
}

impl TryFrom<TallyRow> for Tally {
    type Error = sqlx::Error;

    fn try_from(row: TallyRow) -> Result<Self, sqlx::Error> {
        let count = |n: i64| Some(unsigned(n));
        Ok(Self {
            outcome: outcome(&row.outcome)?,
            provider: row.provider,
            model: row.model,
            attempts: unsigned(row.attempts),
            sent: unsigned(row.sent),
            cost: whole(row.cost_high, row.cost_low),
            unknown: unsigned(row.unknown),
            unknown_cost: whole(row.unknown_high, row.unknown_low),
            tokens: Counted {
                input: count(row.input),
                output: count(row.output),
                cached: count(row.cached),
                cache_write: count(row.cache_write),
                reasoning: count(row.reasoning),
            },
            time: Duration::from_micros(unsigned(row.time_us)),
        })
    }
}
