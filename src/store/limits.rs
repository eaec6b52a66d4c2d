//! The limits of models: how many requests and tokens a minute all workers together may use.
//!
//! Every unit of a limit is at one of three places: it was used less than a window ago, it is leased by a worker, or it is
//! free. Workers come here to say what they used and to lease what they will use next: a call itself waits for no commit.
//! Who comes is served alone, by the database's own clock. See `docs/decisions/0010-limits.md`.

use std::time::Duration;

use super::{Error, Store, Tx, on};

/// Of a limit: requests, and tokens. Zero in all amounts of a kind that is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub requests: u64,
    pub tokens: u64,
}

/// What a worker says and asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What all workers together may use in a window.
    pub limit: Amount,
    /// How long what was used counts.
    pub window: Duration,
    /// For how long what is leased here may be used.
    pub lease: Duration,
    /// What is new of what it used.
    pub uses: Vec<Use>,
    /// What it has leased and will go on to hold.
    pub held: Amount,
    pub want: Want,
}

/// What was used at about one moment. Said again under the same number, it replaces what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The worker's own number for the moment.
    pub slot: i64,
    /// Before the report was written, at least.
    pub ago: Duration,
    pub amount: Amount,
}

/// What a worker would lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// For the first caller that waits.
    pub head: Amount,
    /// For all of them.
    pub all: Amount,
    /// For those that may come soon; only where there is plenty.
    pub spare: Amount,
}

/// What it was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    pub granted: Amount,
    /// Somebody waits here or elsewhere, or little is left: nobody should hold what he does not need now.
    pub scarce: bool,
    /// What is free, or leased by others, who may give it back.
    pub soon: Amount,
    /// In how long what was used comes free again, at the earliest; in order.
    pub releases: Vec<(Duration, Amount)>,
}

/// A worker that waits and was silent for so long is dead.
const SILENCE_MS: i64 = 3_000;
/// What comes free within so many milliseconds is told as one.
const STEP_MS: i64 = 250;

/// A worker as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Share {
    pub(crate) worker: String,
    /// Leased and not used.
    pub(crate) held: Amount,
    pub(crate) head: Amount,
    pub(crate) wants: Amount,
    /// When it last had its turn, or began to wait.
    pub(crate) since: i64,
    pub(crate) seen: i64,
    /// Until then what it held may count.
    pub(crate) until: i64,
}

/// All that is known of one limit.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// When what was used comes free, and what.
    pub(crate) uses: Vec<(i64, Amount)>,
    pub(crate) shares: Vec<Share>,
}

impl Amount {
    pub const NONE: Self = Self { requests: 0, tokens: 0 };

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Of both kinds at least as much.
    pub fn covers(self, other: Self) -> bool {
        self.requests >= other.requests && self.tokens >= other.tokens
    }

    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    pub fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    pub fn min(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    pub fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    pub(crate) fn over(self, parts: u64) -> Self {
        self.with(self, |all, _| all / parts.max(1))
    }

    fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self { requests: f(self.requests, other.requests), tokens: f(self.tokens, other.tokens) }
    }
}

impl Want {
    /// Requests without their tokens, or tokens without a request, are of no use here, and may be elsewhere.
    fn matched(&self, got: Amount) -> Amount {
        let scaled = |count: u64, part: u64, whole: u64| match whole {
            0 => count,
            _ => u64::try_from((u128::from(count) * u128::from(part)).div_ceil(whole.into())).unwrap_or(count),
        };
        let fitting = Amount {
            requests: scaled(self.all.requests, got.tokens, self.all.tokens),
            tokens: scaled(self.all.tokens, got.requests, self.all.requests),
        };
        got.min(fitting.max(self.head))
    }
}

impl Standing {
    /// Decides: what the worker gets, and how it stands from now on. The worker's own uses are among `uses` already.
    pub(crate) fn turn(&self, worker: &str, report: &Report, now: i64) -> (Turn, Share) {
        let others: Vec<&Share> = self.shares.iter().filter(|share| share.worker != worker).collect();
        let waiting: Vec<&Share> =
            others.iter().filter(|o| !o.wants.is_none() && now - o.seen < SILENCE_MS).copied().collect();
        let sum = |amounts: &mut dyn Iterator<Item = Amount>| amounts.fold(Amount::NONE, Amount::plus);
        let used = sum(&mut self.uses.iter().map(|(_, amount)| *amount));
        let leased = sum(&mut others.iter().map(|other| other.held));
        let free = report.limit.minus(used).minus(leased).minus(report.held);

        let before = self.shares.iter().find(|share| share.worker == worker && !share.wants.is_none());
        let since = before.map_or(now, |share| share.since);
        let needed = report.want.matched(due(free, report.want, (since, worker), &waiting));
        let left = free.minus(needed);
        // A reserve is nobody's right: the last tenth of the limit is for those who wait.
        let spare =
            if waiting.is_empty() { left.minus(report.limit.over(10)).min(report.want.spare) } else { Amount::NONE };
        let granted = needed.plus(spare);

        let lacks = report.want.all.minus(needed);
        let (lease, window) = (millis(report.lease), millis(report.window));
        let share = Share {
            worker: worker.to_owned(),
            held: report.held.plus(granted),
            head: report.want.head.minus(needed).max(lacks.min(Amount { requests: 1, tokens: 0 })),
            wants: lacks,
            // Who was served goes behind the others.
            since: if needed.covers(report.want.head) { now } else { since },
            seen: now,
            until: now.saturating_add(lease).saturating_add(window),
        };
        let mut releases: Vec<(Duration, Amount)> = vec![];
        let mut step = i64::MIN;
        for (until, amount) in &self.uses {
            match releases.last_mut() {
                Some((_, sum)) if until.div_euclid(STEP_MS) == step => *sum = sum.plus(*amount),
                _ => releases.push((Duration::from_millis(u64::try_from(until - now).unwrap_or(0)), *amount)),
            }
            step = until.div_euclid(STEP_MS);
        }
        let scarce = !waiting.is_empty() || !granted.covers(report.want.all.plus(report.want.spare));
        let turn = Turn { granted, scarce, soon: left.minus(spare).plus(leased), releases };
        (turn, share)
    }
}

/// What a worker may take for those that wait. Workers take turns: who waited longest since its last turn gets what its first
/// caller needs before anybody else gets anything. The rest is for all who wait in equal parts; what does not divide is
/// his who comes for it.
fn due(free: Amount, want: Want, (since, worker): (i64, &str), waiting: &[&Share]) -> Amount {
    let part = free.over(waiting.len() as u64 + 1);
    let is_before = |other: &Share| (other.since, other.worker.as_str()) < (since, worker);
    let of_others = waiting.iter().map(|other| {
        let part = other.wants.min(part);
        if is_before(other) { part.max(other.head) } else { part }
    });
    want.all.min(free.minus(of_others.fold(Amount::NONE, Amount::plus)))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    /// Notes what a worker used of a model's limit and leases it more. May be said again where no answer came: what it
    /// says is how things are, not how they changed.
    pub async fn limit(&self, model: &str, worker: &str, report: &Report) -> Result<Turn, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let now = alone(&mut tx, model).await?;
            note(&mut tx, model, worker, report, now).await?;
            let (turn, share) = standing(&mut tx, model).await?.turn(worker, report, now);
            keep(&mut tx, model, &share).await?;
            tx.commit().await?;
            Ok(turn)
        };
        run.await.map_err(Error::during("take from a model's limit"))
    }
}

/// Waits for its turn, and tells the database's time then: who comes later reads a later one.
async fn alone(tx: &mut Tx, model: &str) -> Result<i64, sqlx::Error> {
    let (now,): (i64,) = match tx {
        // The transaction is the only one that writes.
        Tx::Sqlite(tx) => {
            sqlx::query_as("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)").fetch_one(&mut **tx).await?
        }
        Tx::Postgres(tx) => {
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended('tandem.limit ' || $1, 0))";
            sqlx::query(lock).bind(model).execute(&mut **tx).await?;
            let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            sqlx::query_as(now).fetch_one(&mut **tx).await?
        }
    };
    Ok(now)
}

/// Forgets what no longer counts, and writes down what was used.
async fn note(tx: &mut Tx, model: &str, worker: &str, report: &Report, now: i64) -> Result<(), sqlx::Error> {
    for sql in [
        "DELETE FROM limit_uses WHERE model = $1 AND until_ms <= $2",
        "DELETE FROM limit_shares WHERE model = $1 AND until_ms <= $2",
    ] {
        on!(&mut *tx, tx => sqlx::query(sql).bind(model).bind(now).execute(&mut **tx).await.map(drop))?;
    }
    for Use { slot, ago, amount } in &report.uses {
        let until = now.saturating_sub(millis(*ago)).saturating_add(millis(report.window));
        if amount.is_none() || until <= now {
            let sql = "DELETE FROM limit_uses WHERE model = $1 AND worker = $2 AND slot = $3";
            on!(&mut *tx, tx => {
                sqlx::query(sql).bind(model).bind(worker).bind(slot).execute(&mut **tx).await.map(drop)
            })?;
            continue;
        }
        let sql =
            "INSERT INTO limit_uses (model, worker, slot, until_ms, requests, tokens) VALUES ($1, $2, $3, $4, $5, $6)
                   ON CONFLICT (model, worker, slot) DO UPDATE SET
                       until_ms = excluded.until_ms, requests = excluded.requests, tokens = excluded.tokens";
        let [requests, tokens] = columns(*amount);
        on!(&mut *tx, tx => {
            let query = sqlx::query(sql).bind(model).bind(worker).bind(slot).bind(until).bind(requests).bind(tokens);
            query.execute(&mut **tx).await.map(drop)
        })?;
    }
    Ok(())
}

async fn standing(tx: &mut Tx, model: &str) -> Result<Standing, sqlx::Error> {
    let uses = "SELECT MIN(until_ms), CAST(SUM(requests) AS BIGINT), CAST(SUM(tokens) AS BIGINT)
                FROM limit_uses WHERE model = $1 GROUP BY until_ms / $2 ORDER BY 1";
    let uses: Vec<(i64, i64, i64)> =
        on!(&mut *tx, tx => sqlx::query_as(uses).bind(model).bind(STEP_MS).fetch_all(&mut **tx).await)?;
    let shares = "SELECT worker, held_requests, held_tokens, head_requests, head_tokens, wants_requests, wants_tokens,
                      since_ms, seen_ms, until_ms
                  FROM limit_shares WHERE model = $1 ORDER BY worker";
    type Row = (String, i64, i64, i64, i64, i64, i64, i64, i64, i64);
    let shares: Vec<Row> = on!(&mut *tx, tx => sqlx::query_as(shares).bind(model).fetch_all(&mut **tx).await)?;
    let uses = uses.into_iter().map(|(until, requests, tokens)| (until, amount(requests, tokens)));
    let shares = shares.into_iter().map(|(worker, hr, ht, fr, ft, wr, wt, since, seen, until)| {
        let (held, head, wants) = (amount(hr, ht), amount(fr, ft), amount(wr, wt));
        Share { worker, held, head, wants, since, seen, until }
    });
    Ok(Standing { uses: uses.collect(), shares: shares.collect() })
}

async fn keep(tx: &mut Tx, model: &str, share: &Share) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO limit_shares
                   (model, worker, held_requests, held_tokens, head_requests, head_tokens, wants_requests, wants_tokens,
                    since_ms, seen_ms, until_ms)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
               ON CONFLICT (model, worker) DO UPDATE SET
                   held_requests = excluded.held_requests, held_tokens = excluded.held_tokens,
                   head_requests = excluded.head_requests, head_tokens = excluded.head_tokens,
                   wants_requests = excluded.wants_requests, wants_tokens = excluded.wants_tokens,
                   since_ms = excluded.since_ms, seen_ms = excluded.seen_ms, until_ms = excluded.until_ms";
    on!(tx, tx => {
        let mut query = sqlx::query(sql).bind(model).bind(&share.worker);
        for number in [share.held, share.head, share.wants].into_iter().flat_map(columns) {
            query = query.bind(number);
        }
        let query = query.bind(share.since).bind(share.seen).bind(share.until);
        query.execute(&mut **tx).await.map(drop)
    })
}

fn columns(amount: Amount) -> [i64; 2] {
    [amount.requests, amount.tokens].map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

fn amount(requests: i64, tokens: i64) -> Amount {
    let [requests, tokens] = [requests, tokens].map(|number| u64::try_from(number).unwrap_or(0));
    Amount { requests, tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_with_their_tokens_and_tokens_with_a_request() {
        let amount = |requests, tokens| Amount { requests, tokens };
        let want = Want { head: amount(1, 500), all: amount(10, 5_000), spare: Amount::NONE };
        assert_eq!(want.matched(amount(10, 5_000)), amount(10, 5_000));
        assert_eq!(want.matched(amount(10, 1_000)), amount(2, 1_000));
        assert_eq!(want.matched(amount(2, 5_000)), amount(2, 1_000));
        // The first one gathers what he needs.
        assert_eq!(want.matched(amount(0, 5_000)), amount(0, 500));
        assert_eq!(want.matched(amount(10, 0)), amount(1, 0));
        // Where only one kind is limited, nothing is missing.
        let want = Want { all: amount(10, 0), ..Want::default() };
        assert_eq!(want.matched(amount(7, 0)), amount(7, 0));
    }
}
