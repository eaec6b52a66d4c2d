//! What models were asked and paid: statistics from the ledger, and how the budgets stand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Pipeline, rounded};
use crate::domain::{Counted, NanoUsd, Outcome, Tally, Tenant, Timestamp};
use crate::store::{Scope, Standing};

/// What a tenant's attempts at asking models came to, on all workers, since it reset its statistics.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelStats {
    /// When they were reset last, in milliseconds since 1970; null where they never were.
    pub since_ms: Option<i64>,
    pub total: ModelFigures,
    /// By provider and model.
    pub models: Vec<Sums>,
    /// How often an attempt ended how: `done`, `rate_limited`, `cut`, …
    pub outcomes: BTreeMap<String, u64>,
    /// Parts of budgets that workers had when they died: nobody knows what was sent for them. They are no attempts; what they
    /// can have cost at most is in `total.unknown_nanodollars`.
    pub abandoned: u64,
}

/// The figures of one model.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sums {
    pub provider: String,
    pub model: String,
    #[serde(flatten)]
    pub figures: ModelFigures,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelFigures {
    /// Requests that were sent, or tried to be; a call may make several.
    pub attempts: u64,
    /// Those that may have reached the provider.
    pub sent: u64,
    /// Those whose model said all that it had to say.
    pub successes: u64,
    pub failures: u64,
    /// 0 to 1; null where there is no attempt.
    pub success_rate: Option<f64>,
    /// What is known to have been paid, in US dollars.
    pub cost_usd: f64,
    /// The same, exact, in billionths of a US dollar.
    pub cost_nanodollars: u64,
    /// Attempts of which nobody knows what they cost: sent, and cut off.
    pub unknown: u64,
    /// What these can have cost at most, in billionths of a US dollar.
    pub unknown_nanodollars: u64,
    /// Mean over the attempts whose cost is known and that were sent; null where there is none.
    pub average_cost_usd: Option<f64>,
    /// Of all attempts together, in milliseconds.
    pub time_ms: f64,
    /// Mean over the attempts; null where there is none.
    pub average_time_ms: Option<f64>,
    /// As the providers counted them, where they did.
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
}

/// How the budgets stand that bound a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Budgets {
    /// None where nothing bounds this tenant.
    pub budgets: Vec<BudgetState>,
    /// The least that any of them leaves, in US dollars; null where there is none.
    pub left_usd: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BudgetState {
    pub scope: BudgetScope,
    pub period: BudgetPeriod,
    pub limit_usd: f64,
    /// In billionths of a US dollar, as all below.
    pub limit_nanodollars: u64,
    /// Spent; what nobody knows counts at its worst.
    pub used_nanodollars: u64,
    /// That part of it which nobody knows.
    pub unknown_nanodollars: u64,
    /// Set aside by workers for what runs and what comes next.
    pub reserved_nanodollars: u64,
    pub left_nanodollars: u64,
}

/// Whose calls a budget bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// Those of all tenants together.
    All,
    /// Those of this tenant.
    Tenant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// For ever.
    Total,
    /// Today, in UTC.
    Day,
}

impl Pipeline {
    pub async fn model_stats(&self, tenant: &Tenant, now: Timestamp) -> Result<ModelStats, Error> {
        self.written().await?;
        self.store.settle_abandoned(now).await.map_err(Error::Unavailable)?;
        let (tallies, since) = self.store.tallies(tenant).await.map_err(Error::Unavailable)?;
        Ok(stats(&tallies, since))
    }

    /// Begins a tenant's statistics anew; what they were comes back. Budgets are not touched.
    pub async fn reset_model_stats(&self, tenant: &Tenant, now: Timestamp) -> Result<ModelStats, Error> {
        let before = self.model_stats(tenant, now).await?;
        self.store.reset_tallies(tenant, now).await.map_err(Error::Unavailable)?;
        Ok(before)
    }

    pub async fn model_budgets(&self, tenant: &Tenant, now: Timestamp) -> Result<Budgets, Error> {
        self.written().await?;
        let caps = self.coordinator.agent().llm().caps(tenant);
        if caps.iter().all(Option::is_none) {
            return Ok(Budgets { budgets: vec![], left_usd: None });
        }
        self.store.settle_abandoned(now).await.map_err(Error::Unavailable)?;
        let standings = self.store.standings(tenant, now.day()).await.map_err(Error::Unavailable)?;
        let bounded =
            standings.into_iter().zip(caps).filter_map(|((scope, standing), cap)| Some((scope, standing, cap?)));
        let budgets: Vec<BudgetState> = bounded.map(|(scope, standing, cap)| state(scope, standing, cap)).collect();
        let left = budgets.iter().map(|budget| NanoUsd(budget.left_nanodollars)).min();
        Ok(Budgets { budgets, left_usd: left.map(NanoUsd::as_usd) })
    }
}

fn state(scope: Scope, standing: Standing, cap: NanoUsd) -> BudgetState {
    let (of, period) = match scope {
        Scope::AllTotal => (BudgetScope::All, BudgetPeriod::Total),
        Scope::AllDay => (BudgetScope::All, BudgetPeriod::Day),
        Scope::TenantTotal => (BudgetScope::Tenant, BudgetPeriod::Total),
        Scope::TenantDay => (BudgetScope::Tenant, BudgetPeriod::Day),
    };
    BudgetState {
        scope: of,
        period,
        limit_usd: cap.as_usd(),
        limit_nanodollars: cap.0,
        used_nanodollars: standing.used.0,
        unknown_nanodollars: standing.unknown.0,
        reserved_nanodollars: standing.leased.0,
        left_nanodollars: cap.0.saturating_sub(standing.taken().0),
    }
}

fn stats(tallies: &[Tally], since: Option<Timestamp>) -> ModelStats {
    let (abandoned, attempts): (Vec<&Tally>, Vec<&Tally>) =
        tallies.iter().partition(|tally| tally.outcome == Outcome::Abandoned);
    let mut outcomes = BTreeMap::new();
    let mut models: BTreeMap<(&str, &str), Vec<&Tally>> = BTreeMap::new();
    for tally in &attempts {
        *outcomes.entry(tally.outcome.as_str().to_owned()).or_default() += tally.attempts;
        models.entry((&tally.provider, &tally.model)).or_default().push(tally);
    }
    let model = |((provider, model), tallies): ((&str, &str), Vec<&Tally>)| Sums {
        provider: provider.to_owned(),
        model: model.to_owned(),
        figures: figures(&tallies),
    };
    let mut total = figures(&attempts);
    total.unknown_nanodollars += abandoned.iter().map(|tally| tally.unknown_cost).sum::<NanoUsd>().0;
    ModelStats {
        since_ms: since.map(|at| at.0),
        total,
        models: models.into_iter().map(model).collect(),
        outcomes,
        abandoned: abandoned.iter().map(|tally| tally.attempts).sum(),
    }
}

fn figures(tallies: &[&Tally]) -> ModelFigures {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(|tally| of(tally)).fold(0, u64::saturating_add);
    let tokens = |of: fn(&Counted) -> Option<u64>| {
        tallies.iter().filter_map(|tally| of(&tally.tokens)).fold(0, u64::saturating_add)
    };
    let attempts = sum(|tally| tally.attempts);
    let successes = tallies.iter().filter(|tally| tally.outcome == Outcome::Done).map(|tally| tally.attempts).sum();
    let (sent, unknown) = (sum(|tally| tally.sent), sum(|tally| tally.unknown));
    let cost: NanoUsd = tallies.iter().map(|tally| tally.cost).sum();
    let time: Duration = tallies.iter().map(|tally| tally.time).sum();
    let time_ms = rounded(time.as_secs_f64() * 1e3);
    let mean = |sum: f64, of: u64| (of > 0).then(|| sum / of as f64);
    ModelFigures {
        attempts,
        sent,
        successes,
        failures: attempts.saturating_sub(successes),
        success_rate: mean(successes as f64, attempts).map(rounded),
        cost_usd: cost.as_usd(),
        cost_nanodollars: cost.0,
        unknown,
        unknown_nanodollars: tallies.iter().map(|tally| tally.unknown_cost).sum::<NanoUsd>().0,
        // To the nano-dollar.
        average_cost_usd: mean(cost.as_usd(), sent.saturating_sub(unknown)).map(|usd| (usd * 1e9).round() / 1e9),
        time_ms,
        average_time_ms: mean(time_ms, attempts).map(rounded),
        input_tokens: tokens(|counted| counted.input),
        output_tokens: tokens(|counted| counted.output),
        cached_tokens: tokens(|counted| counted.cached),
        cache_write_tokens: tokens(|counted| counted.cache_write),
        reasoning_tokens: tokens(|counted| counted.reasoning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(model: &str, outcome: Outcome, attempts: u64, cost: u64, unknown: u64) -> Tally {
        Tally {
            provider: "openai".to_owned(),
            model: model.to_owned(),
            outcome,
            attempts,
            sent: attempts,
            cost: NanoUsd(cost),
            unknown,
            unknown_cost: NanoUsd(unknown * 100),
            tokens: Counted { input: Some(attempts), ..Counted::default() },
            time: Duration::from_millis(10 * attempts),
        }
    }

    #[test]
    fn what_was_abandoned_is_no_attempt_and_may_have_cost_its_worst() {
        let tallies = [
            tally("", Outcome::Abandoned, 2, 0, 2),
            tally("a", Outcome::Done, 3, 30, 0),
            tally("a", Outcome::Cut, 1, 0, 1),
            tally("b", Outcome::Done, 4, 2, 0),
        ];
        let stats = stats(&tallies, None);
        let ModelFigures { attempts, successes, failures, cost_nanodollars, unknown, unknown_nanodollars, .. } =
            stats.total;
        assert_eq!((attempts, successes, failures, cost_nanodollars), (8, 7, 1, 32));
        assert_eq!((unknown, unknown_nanodollars, stats.abandoned), (1, 300, 2));
        assert_eq!(
            stats.models.iter().map(|m| (m.model.as_str(), m.figures.attempts)).collect::<Vec<_>>(),
            [("a", 4), ("b", 4)]
        );
        assert_eq!(stats.outcomes, [("cut".to_owned(), 1), ("done".to_owned(), 7)].into());
    }

    #[test]
    fn nothing_asked_is_unknown_not_zero() {
        let total = stats(&[], None).total;
        assert_eq!((total.success_rate, total.average_cost_usd, total.average_time_ms), (None, None, None));
    }
}
