//! What the worker can say of itself: statistics from the records, health from the parts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::{Error, Pipeline};
use crate::coordinator::analyze::{Analysis, analyze};
use crate::domain::record::Totals;
use crate::domain::{Method, NanoUsd, Tenant, Timestamp};

/// A tenant's figures: the source's `get_stats`, and what the answers cost. All from the database, of all workers.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Stats {
    pub current_execution: CurrentExecution,
    pub total_executions: u64,
    /// Mean over all executions, in milliseconds; null where there is none.
    pub average_time_ms: Option<f64>,
    /// 0 to 1; null where there is no execution.
    pub success_rate: Option<f64>,
    pub average_quality: Option<f64>,
    /// How often each template served.
    pub template_usage: BTreeMap<String, u64>,
    /// How often each method answered, and its share.
    pub methods: BTreeMap<String, MethodShare>,
    pub tokens_used: u64,
    pub cost: Cost,
    pub latency_ms: Percentiles,
}

/// What this worker does right now.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct CurrentExecution {
    /// Requests in work on the worker that answers.
    pub running: u64,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct MethodShare {
    pub executions: u64,
    /// Of all executions, 0 to 1.
    pub share: f64,
}

/// What was spent, against an estimate of what it would have cost had the reference model written every answer.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Cost {
    pub spent_usd: f64,
    /// Estimated from the lengths of task and answer at the price table; null without a reference model.
    pub all_model_usd: Option<f64>,
    /// How many times less was spent; null where nothing was spent or nothing is known of the other.
    pub times_cheaper: Option<f64>,
}

/// Of the newest executions, by the time between a request's decoding and its answer.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Percentiles {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    /// How many executions were looked at.
    pub executions: usize,
}

/// Whether the worker can do its work.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Health {
    pub status: Status,
    pub version: String,
    pub components: BTreeMap<String, ComponentHealth>,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct ComponentHealth {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It was left out by its configuration.
    Off,
    /// Something is missing; the rest serves.
    Degraded,
    Down,
}

/// What the cache holds for a tenant and did for it since the worker that answers was started.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct CacheStats {
    pub entries: usize,
    pub exact_hits: u64,
    pub semantic_hits: u64,
    /// Lookups that neither tier could answer.
    pub misses: u64,
    /// Share of lookups that were answered, 0 to 1; null where nothing was looked up.
    pub hit_rate: Option<f64>,
    /// Near entries that a guard refused, by guard.
    pub refused: BTreeMap<String, u64>,
    /// Changes of all tenants that could not be stored because the queue was full.
    pub changes_lost: u64,
}

impl Pipeline {
    pub async fn stats(&self, tenant: &Tenant) -> Result<Stats, Error> {
        self.recorder.flush().await.map_err(Error::Unavailable)?;
        let totals = self.store.totals(tenant).await.map_err(Error::Unavailable)?;
        let latencies = self.store.latencies(tenant, self.options.sample).await.map_err(Error::Unavailable)?;
        let running = self.running.load(Ordering::Relaxed);
        Ok(stats(&totals, latencies, running))
    }

    pub async fn analyze(&self, now: Timestamp) -> Result<Analysis, Error> {
        self.recorder.flush().await.map_err(Error::Unavailable)?;
        let edges = self.store.edges().await.map_err(Error::Unavailable)?;
        let qualities = self.store.qualities(self.options.sample).await.map_err(Error::Unavailable)?;
        let qualities: Vec<f64> = qualities.into_iter().map(|(_, quality)| quality).collect();
        Ok(analyze(self.coordinator.agent().library().len(), &edges, &qualities, now))
    }

    pub fn cache_stats(&self, tenant: &Tenant) -> CacheStats {
        let stats = self.cache.stats(tenant);
        let hits = stats.exact_hits + stats.semantic_hits;
        let lookups = hits + stats.misses;
        CacheStats {
            entries: stats.entries,
            exact_hits: stats.exact_hits,
            semantic_hits: stats.semantic_hits,
            misses: stats.misses,
            hit_rate: (lookups > 0).then(|| hits as f64 / lookups as f64),
            refused: stats.refused.iter().map(|(guard, n)| (guard.as_str().to_owned(), *n)).collect(),
            changes_lost: stats.changes_lost,
        }
    }

    pub async fn health(&self) -> Health {
        let mut components = BTreeMap::new();
        let mut say = |name: &str, status, message: Option<String>| {
            components.insert(name.to_owned(), ComponentHealth { status, message });
        };
        match tokio::time::timeout(Duration::from_secs(2), self.store.ping()).await {
            Ok(Ok(())) => say("database", Status::Ok, Some(format!("{:?}", self.store.backend()).to_lowercase())),
            Ok(Err(error)) => say("database", Status::Down, Some(error.to_string())),
            Err(_) => say("database", Status::Down, Some("no answer within 2 s".to_owned())),
        }
        match (&self.embedder, &self.embedding_problem) {
            (Some(embedder), _) => say("embedding", Status::Ok, Some(embedder.version().to_owned())),
            (None, problem) => say("embedding", Status::Degraded, problem.as_deref().map(str::to_owned)),
        }
        let library = self.coordinator.agent().library();
        let templates = if library.is_empty() { Status::Degraded } else { Status::Ok };
        say("templates", templates, Some(format!("{} templates", library.len())));
        let models = self.coordinator.agent().llm().models();
        match models.as_slice() {
            [] => say(
                "model",
                Status::Off,
                Some("no model is configured; what the rules decline is a fallback".to_owned()),
            ),
            models => say("model", Status::Ok, Some(models.join(", "))),
        }
        let dropped = self.recorder.dropped();
        let recording = if dropped == 0 { Status::Ok } else { Status::Degraded };
        say(
            "recording",
            recording,
            (dropped > 0).then(|| format!("{dropped} records were dropped: the queue was full")),
        );
        let worst = components.values().map(|c| c.status).max().unwrap_or(Status::Ok);
        let status = match worst {
            Status::Off => Status::Ok,
            // Without its database a worker still answers by rules and from memory.
            Status::Down => Status::Degraded,
            other => other,
        };
        Health { status, version: env!("CARGO_PKG_VERSION").to_owned(), components }
    }
}

fn stats(totals: &Totals, mut latencies: Vec<Duration>, running: u64) -> Stats {
    latencies.sort_unstable();
    let share = |n: u64| (totals.executions > 0).then(|| n as f64 / totals.executions as f64);
    let counted = |m: Method| totals.by_method.iter().find(|(method, _)| *method == m).map_or(0, |(_, n)| *n);
    let method = |m: Method| MethodShare { executions: counted(m), share: share(counted(m)).unwrap_or(0.0) };
    Stats {
        current_execution: CurrentExecution { running },
        total_executions: totals.executions,
        average_time_ms: totals.mean_time.map(ms),
        success_rate: share(totals.successes),
        average_quality: totals.mean_quality,
        template_usage: totals.by_template.iter().map(|(id, n)| (id.to_string(), *n)).collect(),
        methods: Method::ALL.into_iter().map(|m| (m.as_str().to_owned(), method(m))).collect(),
        tokens_used: totals.tokens.input + totals.tokens.output,
        cost: cost(totals),
        latency_ms: Percentiles {
            p50: percentile(&latencies, 0.50),
            p95: percentile(&latencies, 0.95),
            p99: percentile(&latencies, 0.99),
            executions: latencies.len(),
        },
    }
}

fn cost(totals: &Totals) -> Cost {
    let all_model = (totals.all_model_priced > 0).then_some(totals.all_model_cost);
    let times_cheaper =
        all_model.filter(|_| totals.cost > NanoUsd::ZERO).map(|all| all.as_usd() / totals.cost.as_usd());
    Cost { spent_usd: totals.cost.as_usd(), all_model_usd: all_model.map(NanoUsd::as_usd), times_cheaper }
}

/// By nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().map(ms)
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_executed_is_unknown_not_zero() {
        let stats = stats(&Totals::default(), vec![], 0);
        assert_eq!((stats.success_rate, stats.average_time_ms, stats.latency_ms.p95), (None, None, None));
        assert_eq!((stats.cost.all_model_usd, stats.cost.times_cheaper), (None, None));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.95), Some(95.0));
        assert_eq!(percentile(&times[..1], 0.99), Some(1.0));
    }
}
