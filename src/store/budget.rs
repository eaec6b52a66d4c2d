//! Budgets: what may be spent, what is taken of it, and what workers have leased.
//!
//! At every moment what is taken of a budget is what the ledger says, what nobody knows at its worst, and what is leased.
//! A lease is the database's word that a worker may spend so much without asking again. What it spent is taken off it when
//! it is written into the ledger; what it does not need it gives back; what it had when it died counts as spent. So a
//! worker that was only thought dead can do no harm with what it still has.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::domain::{NanoUsd, Tenant, Timestamp};

use super::ledger::whole;
use super::rows::{decode, signed, unsigned};
use super::{Error, Store, Tx, ledger, on};

/// What a budget bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    AllTotal,
    AllDay,
    TenantTotal,
    TenantDay,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllTotal => "the budget of all tenants",
            Self::AllDay => "today's budget of all tenants",
            Self::TenantTotal => "this tenant's budget",
            Self::TenantDay => "this tenant's budget for today",
        })
    }
}

impl Scope {
    /// In the order of their keys.
    pub const ALL: [Self; 4] = [Self::AllTotal, Self::AllDay, Self::TenantTotal, Self::TenantDay];

    fn key(self, tenant: &Tenant, day: i64) -> (&str, i64) {
        match self {
            Self::AllTotal => (EVERYBODY, EVER),
            Self::AllDay => (EVERYBODY, day),
            Self::TenantTotal => (tenant.as_str(), EVER),
            Self::TenantDay => (tenant.as_str(), day),
        }
    }
}

const EVERYBODY: &str = "";
const EVER: i64 = -1;

/// The most that may be taken of each budget; `None`: as much as there is.
pub type Caps = [Option<NanoUsd>; 4];

/// A lease to ask for, or to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseId {
    pub id: Uuid,
    pub tenant: Tenant,
    /// Since 1970, in UTC.
    pub day: i64,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    Granted(NanoUsd),
    /// This budget does not have what is needed.
    Short {
        scope: Scope,
        left: NanoUsd,
    },
    /// It is settled: its worker was thought dead. A new one is needed.
    Gone,
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Spent, what nobody knows at its worst.
    pub used: NanoUsd,
    /// That part of it which nobody knows.
    pub unknown: NanoUsd,
    /// What workers have set aside.
    pub leased: NanoUsd,
}

/// All that is needed, or nothing; beyond it what is wanted, but no more than an eighth of what is left, so that others
/// find some.
pub fn grant(left: NanoUsd, need: NanoUsd, want: NanoUsd) -> Option<NanoUsd> {
    (need <= left).then(|| want.min(NanoUsd(left.0 / 8)).max(need))
}

impl Store {
    /// Leases at least `need`, and up to `want`. `fresh`: there is no such lease yet.
    pub async fn lease(
        &self,
        lease: &LeaseId,
        fresh: bool,
        caps: &Caps,
        need: NanoUsd,
        want: NanoUsd,
        until: Timestamp,
    ) -> Result<Leased, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            guard(&mut tx, Guard::Shared).await?;
            let mut rows = lock(&mut tx, lease).await?;
            let capped = || Scope::ALL.into_iter().zip(caps).filter_map(|(scope, cap)| Some((scope, (*cap)?)));
            if capped().any(|(scope, _)| !rows.contains_key(&owned(scope.key(&lease.tenant, lease.day)))) {
                drop(tx);
                self.begin_budgets(lease, capped().map(|(scope, _)| scope)).await?;
                tx = self.begin().await?;
                guard(&mut tx, Guard::Shared).await?;
                rows = lock(&mut tx, lease).await?;
            }
            let left = |(scope, cap): (Scope, NanoUsd)| {
                let taken = rows.get(&owned(scope.key(&lease.tenant, lease.day))).copied().unwrap_or(i64::MAX);
                (NanoUsd(cap.0.saturating_sub(unsigned(taken))), scope)
            };
            let Some((left, scope)) = capped().map(left).min() else { return Ok(Leased::Granted(want.max(need))) };
            let Some(granted) = grant(left, need, want) else { return Ok(Leased::Short { scope, left }) };
            let amount = signed(granted.0);
            let sql = if fresh {
                "INSERT INTO budget_leases (id, tenant, day, amount_nanos, until_ms) VALUES ($1, $2, $3, $4, $5)"
            } else {
                "UPDATE budget_leases SET amount_nanos = amount_nanos + $4, until_ms = $5
                 WHERE id = $1 AND tenant = $2 AND day = $3"
            };
            let key = (lease.tenant.as_str().to_owned(), lease.day);
            take(&mut tx, &[(key, amount)].into()).await?;
            let written = on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(lease.id.as_bytes().to_vec())
                    .bind(lease.tenant.as_str())
                    .bind(lease.day)
                    .bind(amount)
                    .bind(until.0)
                    .execute(&mut **tx)
                    .await?
                    .rows_affected()
            });
            if written == 0 {
                return Ok(Leased::Gone);
            }
            tx.commit().await?;
            Ok(Leased::Granted(granted))
        };
        run.await.map_err(Error::during("lease a part of a budget"))
    }

    /// Gives a part of a lease back. Where the lease is settled already, so much less of it is unknown.
    pub async fn give_back(&self, lease: &LeaseId, amount: NanoUsd) -> Result<(), Error> {
        let run = async {
            let mut tx = self.begin().await?;
            guard(&mut tx, Guard::Shared).await?;
            let (key, amount) = ((lease.tenant.as_str().to_owned(), lease.day), signed(amount.0));
            // The rows of budgets first, as everybody locks them.
            take(&mut tx, &[(key.clone(), -amount)].into()).await?;
            if !use_up(&mut tx, lease.id, amount).await? {
                let given = ledger::give_back(&mut tx, lease.id, amount).await?;
                take(&mut tx, &[(key, amount - given)].into()).await?;
            }
            tx.commit().await
        };
        run.await.map_err(Error::during("give a part of a budget back"))
    }

    /// Prolongs leases; false for each that is settled.
    pub async fn hold(&self, leases: &[Uuid], until: Timestamp) -> Result<Vec<bool>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let mut held = vec![false; leases.len()];
            let mut sorted: Vec<(usize, &Uuid)> = leases.iter().enumerate().collect();
            sorted.sort_by_key(|(_, id)| **id);
            for (place, id) in sorted {
                let sql = "UPDATE budget_leases SET until_ms = $2 WHERE id = $1";
                held[place] = on!(&mut tx, tx => {
                    let query = sqlx::query(sql).bind(id.as_bytes().to_vec()).bind(until.0);
                    query.execute(&mut **tx).await?.rows_affected() == 1
                });
            }
            tx.commit().await?;
            Ok(held)
        };
        run.await.map_err(Error::during("hold what is leased of a budget"))
    }

    /// How each of the four budgets stands, whether it is bounded or not.
    pub async fn standings(&self, tenant: &Tenant, day: i64) -> Result<[(Scope, Standing); 4], Error> {
        let run = async {
            let mut tx = self.begin().await?;
            // Sums, rows and leases of one moment.
            guard(&mut tx, Guard::Exclusive).await?;
            let mut all = Scope::ALL.map(|scope| (scope, Standing::NONE));
            for (scope, standing) in &mut all {
                let (of, on) = scope.key(tenant, day);
                let row: Option<(i64,)> = on!(&mut tx, tx => {
                    let sql = "SELECT taken_nanos FROM budgets WHERE tenant = $1 AND day = $2";
                    sqlx::query_as(sql).bind(of).bind(on).fetch_optional(&mut **tx).await?
                });
                let sums = sums(&mut tx, of, on).await?;
                // After a purge the sums know less than was spent.
                let used = row.map(|(taken,)| NanoUsd(unsigned(taken).saturating_sub(sums.leased.0)));
                *standing = Standing { used: used.unwrap_or(sums.used), ..sums };
            }
            Ok(all)
        };
        run.await.map_err(Error::during("look at a tenant's budgets"))
    }

    /// Makes the rows of budgets that were never asked for, with what was spent until now.
    async fn begin_budgets(&self, lease: &LeaseId, scopes: impl Iterator<Item = Scope>) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        // What is spent and not in the sums yet would be in neither of the two.
        guard(&mut tx, Guard::Exclusive).await?;
        for scope in scopes {
            let (tenant, day) = scope.key(&lease.tenant, lease.day);
            let sums = sums(&mut tx, tenant, day).await?;
            let sql = "INSERT INTO budgets (tenant, day, taken_nanos) VALUES ($1, $2, $3)
                       ON CONFLICT (tenant, day) DO NOTHING";
            on!(&mut tx, tx => {
                let query = sqlx::query(sql).bind(tenant).bind(day).bind(signed((sums.used + sums.leased).0));
                query.execute(&mut **tx).await.map(drop)
            })?;
        }
        tx.commit().await
    }
}

impl Standing {
    const NONE: Self = Self { used: NanoUsd::ZERO, unknown: NanoUsd::ZERO, leased: NanoUsd::ZERO };

    /// Spent or set aside.
    pub fn taken(&self) -> NanoUsd {
        self.used + self.leased
    }
}

/// Keeps what moves money (shared) and what looks at all of it (exclusive) apart. SQLite has one writer in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Shared,
    Exclusive,
}

pub(super) async fn guard(tx: &mut Tx, guard: Guard) -> Result<(), sqlx::Error> {
    let Tx::Postgres(tx) = tx else { return Ok(()) };
    // A number of Tandem's own among the locks of this database.
    let sql = match guard {
        Guard::Shared => "SELECT pg_advisory_xact_lock_shared(8418320145)",
        Guard::Exclusive => "SELECT pg_advisory_xact_lock(8418320145)",
    };
    sqlx::query(sql).execute(&mut **tx).await.map(drop)
}

/// By tenant and day.
pub(super) type Taken = BTreeMap<(String, i64), i64>;

/// Counts into each budget that there is; a negative amount takes out.
pub(super) async fn take(tx: &mut Tx, amounts: &Taken) -> Result<(), sqlx::Error> {
    // All tenants' rows first, then each tenant's: as `lock` locks them.
    let mut rows: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    for ((tenant, day), amount) in amounts {
        for key in [(EVERYBODY, EVER), (EVERYBODY, *day), (tenant.as_str(), EVER), (tenant.as_str(), *day)] {
            let sum = rows.entry(key).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }
    // It stays below what a column holds: one absurd bill must not stop all others.
    let sql = "UPDATE budgets SET taken_nanos = CASE WHEN taken_nanos > 9223372036854775807 - $3
                   THEN 9223372036854775807 ELSE taken_nanos + $3 END
               WHERE tenant = $1 AND day = $2";
    let less = "UPDATE budgets SET taken_nanos = taken_nanos - $3 WHERE tenant = $1 AND day = $2";
    for ((tenant, day), amount) in rows.into_iter().filter(|(_, amount)| *amount != 0) {
        let sql = if amount > 0 { sql } else { less };
        on!(&mut *tx, tx => {
            sqlx::query(sql).bind(tenant).bind(day).bind(amount.saturating_abs()).execute(&mut **tx).await.map(drop)
        })?;
    }
    Ok(())
}

/// Takes what was spent off its lease. False where there is no such lease any more.
pub(super) async fn use_up(tx: &mut Tx, lease: Uuid, used: i64) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE budget_leases SET amount_nanos = amount_nanos - $2 WHERE id = $1";
    on!(tx, tx => {
        let query = sqlx::query(sql).bind(lease.as_bytes().to_vec()).bind(used);
        Ok(query.execute(&mut **tx).await?.rows_affected() == 1)
    })
}

/// A lease whose worker gave no sign until `until`, and what was left of it.
pub(super) struct Lapsed {
    pub(super) id: Uuid,
    pub(super) tenant: Tenant,
    pub(super) day: i64,
    pub(super) amount: NanoUsd,
    pub(super) until: Timestamp,
}

/// Ends all such leases. Those of which nothing is left leave nothing; what more was spent than was leased is counted.
pub(super) async fn take_lapsed(tx: &mut Tx, now: Timestamp) -> Result<Vec<Lapsed>, sqlx::Error> {
    let sql = "DELETE FROM budget_leases WHERE until_ms <= $1 RETURNING id, tenant, day, amount_nanos, until_ms";
    let rows: Vec<(Vec<u8>, String, i64, i64, i64)> =
        on!(&mut *tx, tx => sqlx::query_as(sql).bind(now.0).fetch_all(&mut **tx).await)?;
    let (mut lapsed, mut overspent) = (vec![], Taken::new());
    for (id, tenant, day, amount, until) in rows {
        if amount < 0 {
            *overspent.entry((tenant, day)).or_default() -= amount;
        } else if amount > 0 {
            let (id, tenant) = (Uuid::from_slice(&id).map_err(decode)?, Tenant::parse(&tenant).map_err(decode)?);
            lapsed.push(Lapsed { id, tenant, day, amount: NanoUsd(unsigned(amount)), until: Timestamp(until) });
        }
    }
    take(tx, &overspent).await?;
    Ok(lapsed)
}

/// What is taken of each budget of a lease that has a row, and their locks.
async fn lock(tx: &mut Tx, lease: &LeaseId) -> Result<BTreeMap<(String, i64), i64>, sqlx::Error> {
    let sqlite = "SELECT tenant, day, taken_nanos FROM budgets
                  WHERE tenant IN ('', $1) AND day IN (-1, $2) ORDER BY tenant, day";
    let postgres = "SELECT tenant, day, taken_nanos FROM budgets
                    WHERE tenant IN ('', $1) AND day IN (-1, $2) ORDER BY tenant, day FOR UPDATE";
    let sql = if matches!(tx, Tx::Sqlite(_)) { sqlite } else { postgres };
    let rows: Vec<(String, i64, i64)> = on!(tx, tx => {
        sqlx::query_as(sql).bind(lease.tenant.as_str()).bind(lease.day).fetch_all(&mut **tx).await
    })?;
    Ok(rows.into_iter().map(|(tenant, day, taken)| ((tenant, day), taken)).collect())
}

/// From the ledger's sums and the leases.
async fn sums(tx: &mut Tx, tenant: &str, day: i64) -> Result<Standing, sqlx::Error> {
    let sql = "SELECT CAST(COALESCE(SUM(cost_high), 0) AS BIGINT), CAST(COALESCE(SUM(cost_low), 0) AS BIGINT),
                   CAST(COALESCE(SUM(unknown_high), 0) AS BIGINT), CAST(COALESCE(SUM(unknown_low), 0) AS BIGINT)
               FROM model_days WHERE (tenant = $1 OR $1 = '') AND (day = $2 OR $2 = -1)";
    let (high, low, unknown_high, unknown_low): (i64, i64, i64, i64) =
        on!(&mut *tx, tx => sqlx::query_as(sql).bind(tenant).bind(day).fetch_one(&mut **tx).await)?;
    let sql = "SELECT CAST(COALESCE(SUM(amount_nanos), 0) AS BIGINT) FROM budget_leases
               WHERE (tenant = $1 OR $1 = '') AND (day = $2 OR $2 = -1)";
    let (leased,): (i64,) = on!(tx, tx => sqlx::query_as(sql).bind(tenant).bind(day).fetch_one(&mut **tx).await)?;
    let unknown = whole(unknown_high, unknown_low);
    Ok(Standing { used: whole(high, low) + unknown, unknown, leased: NanoUsd(unsigned(leased)) })
}

fn owned((tenant, day): (&str, i64)) -> (String, i64) {
    (tenant.to_owned(), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_needed_or_nothing_and_no_more_than_an_eighth_beyond_it() {
        let granted = |left, need, want| grant(NanoUsd(left), NanoUsd(need), NanoUsd(want)).map(|amount| amount.0);
        assert_eq!(granted(800, 10, 50), Some(50));
        assert_eq!(granted(800, 10, 500), Some(100));
        assert_eq!(granted(800, 300, 500), Some(300), "what is needed is given whole");
        assert_eq!(granted(10, 10, 500), Some(10), "to the last nano-dollar");
        assert_eq!(granted(9, 10, 500), None);
        assert_eq!(granted(0, 0, 500), Some(0));
    }
}
