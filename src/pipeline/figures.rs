//! What the worker can say of itself: statistics from the records, health from the parts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::{Error, Pipeline};
use crate::coordinator::analyze::{Analysis, analyze};
use crate::domain::record::Totals;
use crate::domain::{Method, NanoUsd, Tenant, Timestamp};
use crate::llm::{self, Circuit};
use crate::store;

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

/// Of the newest executions, by the time between a request's decoding and its answer. Exact hits on one answer that were
/// written down together count as one.
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
    /// Entries of all tenants in this worker's memory, and what they take there, roughly, of the `max_bytes` allowed.
    pub held: usize,
    pub bytes: usize,
    pub max_bytes: usize,
    /// Whether memory is served from: false where neither the other workers nor the database can be reached.
    pub in_step: bool,
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
        self.written().await?;
        let totals = self.store.totals(tenant).await.map_err(Error::Unavailable)?;
        let latencies = self.store.latencies(tenant, self.options.sample).await.map_err(Error::Unavailable)?;
        let running = self.running.load(Ordering::Relaxed);
        Ok(stats(&totals, latencies, running))
    }

    pub async fn analyze(&self, now: Timestamp) -> Result<Analysis, Error> {
        self.written().await?;
        let edges = self.store.edges().await.map_err(Error::Unavailable)?;
        let qualities = self.store.qualities(self.options.sample).await.map_err(Error::Unavailable)?;
        let qualities: Vec<f64> = qualities.into_iter().map(|(_, quality)| quality).collect();
        let mut analysis = analyze(self.coordinator.agent().library().len(), &edges, &qualities, now);
        for performer in &mut analysis.top_performers {
            performer.score = rounded(performer.score);
            performer.success_rate = rounded(performer.success_rate);
            performer.quality = performer.quality.map(rounded);
            performer.time_ms = rounded(performer.time_ms);
        }
        analysis.usage_distribution.iter_mut().for_each(|share| share.share = rounded(share.share));
        let trends = &mut analysis.quality_trends;
        trends.average_quality = trends.average_quality.map(rounded);
        trends.improvement_rate = trends.improvement_rate.map(rounded);
        Ok(analysis)
    }

    pub fn cache_stats(&self, tenant: &Tenant) -> CacheStats {
        let stats = self.cache.stats(tenant);
        let hits = stats.exact_hits + stats.semantic_hits;
        let lookups = hits + stats.misses;
        CacheStats {
            entries: stats.entries,
            held: stats.held,
            bytes: stats.bytes,
            max_bytes: self.cache.options().max_bytes,
            in_step: self.cache.is_in_step(),
            exact_hits: stats.exact_hits,
            semantic_hits: stats.semantic_hits,
            misses: stats.misses,
            hit_rate: (lookups > 0).then(|| rounded(hits as f64 / lookups as f64)),
            refused: stats.refused.iter().map(|(guard, n)| (guard.as_str().to_owned(), *n)).collect(),
            changes_lost: stats.changes_lost,
        }
    }

    pub async fn health(&self) -> Health {
        let mut components = BTreeMap::new();
        let recording = self.recording();
        let ping = tokio::time::timeout(PATIENCE, self.store.ping());
        let (ping, (recording, recorded)) = tokio::join!(ping, recording);
        let mut say = |name: &str, status, message: Option<String>| {
            components.insert(name.to_owned(), ComponentHealth { status, message });
        };
        match ping {
            Ok(Ok(())) => say("database", Status::Ok, Some(format!("{:?}", self.store.backend()).to_lowercase())),
            Ok(Err(error)) => say("database", Status::Down, Some(error.to_string())),
            Err(_) => say("database", Status::Down, Some("no answer within 2 s".to_owned())),
        }
        match (&self.embedder, &self.embedding_problem) {
            (Some(embedder), _) => say("embedding", Status::Ok, Some(embedder.version().to_owned())),
            (None, problem) => say("embedding", Status::Degraded, problem.as_deref().map(str::to_owned)),
        }
        let library = self.coordinator.agent().library();
        let left_out = library.left_out();
        let templates = if library.is_empty() || !left_out.is_empty() { Status::Degraded } else { Status::Ok };
        let first = left_out.first().map_or_else(String::new, |problem| {
            format!("; {} left out, the first because of {problem}", left_out.len())
        });
        say("templates", templates, Some(format!("{} templates{first}", library.len())));
        let models = self.coordinator.agent().llm().health();
        let ill = models.iter().any(|model| model.circuit != Circuit::Closed);
        match models.as_slice() {
            [] => say(
                "model",
                Status::Off,
                Some("no model is configured; what the rules decline is a fallback".to_owned()),
            ),
            models => {
                let shown: Vec<String> = models.iter().map(shown).collect();
                say("model", if ill { Status::Degraded } else { Status::Ok }, Some(shown.join(", ")));
            }
        }
        say("recording", recording, recorded);
        Health::of(components)
    }

    /// Waits until what was recorded before is in the database, but not for a database that is away.
    pub(super) async fn written(&self) -> Result<(), Error> {
        match tokio::time::timeout(WRITTEN, self.recorder.flush()).await {
            Ok(written) => written.map_err(Error::Unavailable),
            Err(_) => {
                let late = store::Error::Timeout { action: "write down what was answered before", limit: WRITTEN };
                Err(Error::Unavailable(late))
            }
        }
    }

    /// What waits must get on: a write that fails is tried again for ever, without an error anywhere but in the log.
    async fn recording(&self) -> (Status, Option<String>) {
        let mut commits = self.recorder.commits();
        commits.mark_unchanged();
        let stuck = self.recorder.waiting() > 0
            && tokio::time::timeout(PATIENCE, commits.changed()).await.is_err()
            && self.recorder.waiting() > 0;
        let (waiting, failures) = (self.recorder.waiting(), self.recorder.failures());
        let (dropped, refused) = (self.recorder.dropped(), self.recorder.refused());
        let said = [
            stuck.then(|| format!("{waiting} records wait and none was written for 2 s; {failures} attempts failed")),
            (dropped > 0).then(|| format!("{dropped} records were dropped: the queue was full")),
            (refused > 0).then(|| format!("{refused} records were refused by the database")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        if said.is_empty() { (Status::Ok, None) } else { (Status::Degraded, Some(said.join("; "))) }
    }
}

/// As long as a query waits for a connection by default.
const WRITTEN: Duration = Duration::from_secs(5);
/// How long a component may take to show that it is well.
const PATIENCE: Duration = Duration::from_secs(2);

impl Health {
    /// As well as its worst component, but never down: whoever says this can still answer.
    pub fn of(components: BTreeMap<String, ComponentHealth>) -> Self {
        let worst = components.values().map(|c| c.status).max().unwrap_or(Status::Ok);
        let status = match worst {
            Status::Off => Status::Ok,
            // Without its database a worker still answers by rules and from memory.
            Status::Down => Status::Degraded,
            other => other,
        };
        Self { status, version: env!("CARGO_PKG_VERSION").to_owned(), components }
    }

    /// With one more component.
    pub fn with(mut self, name: &str, component: ComponentHealth) -> Self {
        self.components.insert(name.to_owned(), component);
        Self::of(self.components)
    }
}

/// A share, a quality or a similarity as it is told: four decimals. More are the noise of floats.
pub fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn stats(totals: &Totals, mut latencies: Vec<Duration>, running: u64) -> Stats {
    latencies.sort_unstable();
    let share = |n: u64| (totals.executions > 0).then(|| rounded(n as f64 / totals.executions as f64));
    let counted = |m: Method| totals.by_method.iter().find(|(method, _)| *method == m).map_or(0, |(_, n)| *n);
    let method = |m: Method| MethodShare { executions: counted(m), share: share(counted(m)).unwrap_or(0.0) };
    Stats {
        current_execution: CurrentExecution { running },
        total_executions: totals.executions,
        average_time_ms: totals.mean_time.map(ms),
        success_rate: share(totals.successes),
        average_quality: totals.mean_quality.map(rounded),
        template_usage: totals.by_template.iter().map(|(id, n)| (id.to_string(), *n)).collect(),
        methods: Method::ALL.into_iter().map(|m| (m.as_str().to_owned(), method(m))).collect(),
        tokens_used: totals.tokens.input.saturating_add(totals.tokens.output),
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
        all_model.filter(|_| totals.cost > NanoUsd::ZERO).map(|all| rounded(all.as_usd() / totals.cost.as_usd()));
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

/// A model of the route, whether it is asked, and whether calls wait for its limit.
fn shown(model: &llm::Health) -> String {
    let ms = model.opens_in.unwrap_or_default().as_millis();
    let circuit = match model.circuit {
        Circuit::Closed => None,
        Circuit::Open => Some(format!("it failed and is not asked for {ms} ms")),
        Circuit::HalfOpen => Some("it failed; the next call finds out".to_owned()),
    };
    let waiting = model.limit.filter(|limit| limit.waiting > 0);
    let limit = waiting.map(|limit| format!("its limit is used up: {} calls of this worker wait", limit.waiting));
    let said: Vec<String> = [circuit, limit].into_iter().flatten().collect();
    if said.is_empty() { model.model.clone() } else { format!("{} ({})", model.model, said.join("; ")) }
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
    fn figures_are_told_without_the_noise_of_floats() {
        assert_eq!([0.999_999_999_999_999_9, 0.998_848_654_785, -0.000_01, 0.8].map(rounded), [1.0, 0.9988, 0.0, 0.8]);
    }

    #[test]
    fn health_is_that_of_the_worst_component_but_never_down() {
        let component = |status| ComponentHealth { status, message: None };
        let health = Health::of([("model".to_owned(), component(Status::Off))].into());
        assert_eq!(health.status, Status::Ok);
        assert_eq!(health.clone().with("nats", component(Status::Degraded)).status, Status::Degraded);
        assert_eq!(health.with("database", component(Status::Down)).status, Status::Degraded);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.95), Some(95.0));
        assert_eq!(percentile(&times[..1], 0.99), Some(1.0));
    }
}
