//! Every figure that a scrape shows: its name, unit and meaning, in one [`TABLE`]; and the handles that count.
//!
//! Handles are registered once, so that counting is an atomic addition. What a room counts for itself anyway
//! ([`Figures`]) is only read when somebody asks. Labels have few possible values: never a tenant, a text or an id.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::{Answer, Attempt, Language, Method, Tier};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// As in the name's end; empty where a number of things is counted.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const REQUESTS: &str = "tandem_requests_total";
const REQUEST_SECONDS: &str = "tandem_request_seconds";
const ERRORS: &str = "tandem_errors_total";
const IN_FLIGHT: &str = "tandem_in_flight";
const SHED: &str = "tandem_shed_total";
const REFUSED_REPLIES: &str = "tandem_refused_replies_total";
const DROPPED: &str = "tandem_dropped_messages_total";
const UNSENT: &str = "tandem_unsent_replies_total";
const PANICS: &str = "tandem_panics_total";
const ATTEMPTS: &str = "tandem_model_attempts_total";
const ATTEMPT_SECONDS: &str = "tandem_model_attempt_seconds";
const FIRST_TOKEN_SECONDS: &str = "tandem_model_first_token_seconds";
const CIRCUIT: &str = "tandem_model_circuit";
const LIMIT_WAITING: &str = "tandem_model_limit_waiting";
const LIMIT_LEASED: &str = "tandem_model_limit_leased";
const COST: &str = "tandem_model_cost_nanodollars_total";
const UNKNOWN_COST: &str = "tandem_model_unknown_cost_nanodollars_total";
const TOKENS: &str = "tandem_model_tokens_total";
const CACHE_LOOKUPS: &str = "tandem_cache_lookups_total";
const CACHE_HITS: &str = "tandem_cache_hits_total";
const CACHE_ENTRIES: &str = "tandem_cache_entries";
const EMBEDDING_SECONDS: &str = "tandem_embedding_seconds";
const RECORDER_WAITING: &str = "tandem_recorder_waiting";
const RECORDER_DROPPED: &str = "tandem_recorder_dropped_total";
const RECORDER_REFUSED: &str = "tandem_recorder_refused_total";
const DATABASE_ERRORS: &str = "tandem_database_errors_total";
const NATS_RECONNECTS: &str = "tandem_nats_reconnects_total";
const PURGED: &str = "tandem_purged_rows_total";
const STEPS: &str = "tandem_workflow_steps_total";
const STEP_SECONDS: &str = "tandem_workflow_step_seconds";
const STEPS_RUNNING: &str = "tandem_workflow_steps_running";
const READY: &str = "tandem_ready";
const BUILD: &str = "tandem_build_info";
const OVER_SHARE: &str = "tandem_over_share_total";
const SUBMITS: &str = "tandem_submits_total";
/// What can become of a submit.
const OUTCOMES: [&str; 6] = ["done", "dead", "redelivered", "retried", "superseded", "refused_reply"];

/// All of them, as `docs/metrics.md` shows them.
pub const TABLE: &[Metric] = &[
    count(
        REQUESTS,
        &["method", "language"],
        "Answers given, by how they came about. `language` is one with templates, or `other`.",
    ),
    Metric {
        name: REQUEST_SECONDS,
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &["method"],
        help: "Time between the decoding of a request and its answer.",
    },
    count(ERRORS, &["code"], "Requests of any endpoint that were answered with an error, by its code."),
    level(IN_FLIGHT, &["lane"], "Requests (`work`) and queries (`query`) that are being done now."),
    count(SHED, &[], "Requests that were told 503 because this worker was full."),
    count(OVER_SHARE, &[], "Requests that were told 503 because their tenant had its share of this worker."),
    count(
        SUBMITS,
        &["outcome"],
        "Durable work: results published (`done`), dead letters (`dead`), deliveries that were not the first \
         (`redelivered`), attempts that are tried again (`retried`), work that another worker had taken over \
         (`superseded`), answers wished for where none may go (`refused_reply`).",
    ),
    count(REFUSED_REPLIES, &[], "Requests not served, for their reply subject was missing or is not allowed."),
    count(DROPPED, &[], "Messages that the NATS client library dropped unread, at least. Above zero is an alarm."),
    count(UNSENT, &[], "Replies that could not be sent."),
    count(PANICS, &[], "Requests that ended in a fault of the worker."),
    Metric {
        name: COST,
        kind: Kind::Counter,
        unit: "nanodollars",
        labels: &[],
        help: "What requests to models cost, exact, in billionths of a US dollar: divide by 1e9. Those whose cost nobody \
               knows (`cut`, `timed_out`, …) are not in it.",
    },
    Metric {
        name: UNKNOWN_COST,
        kind: Kind::Counter,
        unit: "nanodollars",
        labels: &[],
        help: "The most that requests to models can have cost whose cost nobody knows, in billionths of a US dollar. The bill \
               is between the other sum and both together.",
    },
    count(TOKENS, &["direction"], "Tokens that models counted, `input` and `output`."),
    count(
        ATTEMPTS,
        &["provider", "model", "outcome"],
        "Requests to models, each attempt by itself, by how it ended (`done`, `rate_limited`, `cut`, …).",
    ),
    Metric {
        name: ATTEMPT_SECONDS,
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &["provider", "model"],
        help: "Time that one attempt took.",
    },
    Metric {
        name: FIRST_TOKEN_SECONDS,
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &["provider", "model"],
        help: "Time to the first token of a stream.",
    },
    level(
        CIRCUIT,
        &["model"],
        "The circuit breaker of a model of the route: 0 closed, 1 open (it is not asked), 2 half-open (one call finds out).",
    ),
    level(
        LIMIT_WAITING,
        &["model"],
        "Calls of this worker that wait for the limit of a model (requests or tokens a minute).",
    ),
    level(LIMIT_LEASED, &["model"], "Requests that this worker may make of a model without asking the others."),
    count(CACHE_LOOKUPS, &[], "Lookups in the semantic cache, of requests and of parts of them."),
    count(CACHE_HITS, &["tier"], "Lookups that were answered, by tier: `exact` or `semantic`."),
    level(CACHE_ENTRIES, &[], "Answers that this worker holds in memory, of all tenants."),
    Metric {
        name: EMBEDDING_SECONDS,
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &[],
        help: "Time that the model took for one text.",
    },
    level(RECORDER_WAITING, &[], "Records that wait to be written to the database."),
    count(RECORDER_DROPPED, &[], "Records that were lost because the queue was full. Above zero is an alarm."),
    count(RECORDER_REFUSED, &[], "Records that the database refused for what they held."),
    count(DATABASE_ERRORS, &[], "Database calls that failed."),
    count(NATS_RECONNECTS, &[], "Times that the connection to NATS was made anew."),
    count(
        STEPS,
        &["kind", "outcome", "manner"],
        "Attempts at steps of workflows that this worker committed, by who did them, how they ended (`completed`, \
         `retried`, `failed`), and how they were made (`alone`, `followed`, `recalled`, `overtaken`: see docs/workflows.md).",
    ),
    Metric {
        name: STEP_SECONDS,
        kind: Kind::Histogram,
        unit: "seconds",
        labels: &["kind"],
        help: "Time that one attempt at a step took.",
    },
    level(STEPS_RUNNING, &[], "Steps of workflows that this worker is at now."),
    count(PURGED, &["table"], "Rows that retention or a purge deleted or emptied, by table."),
    level(READY, &[], "1 where `/readyz` says yes, else 0."),
    level(BUILD, &["version"], "Always 1; its label is the version of this worker."),
];

const fn count(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: "", labels, help }
}

const fn level(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: "", labels, help }
}

/// From an exact hit (microseconds) to a model that takes its minute, in seconds.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const MODEL_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];
const EMBEDDING_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// The handles. One set per process; made at the first use.
pub struct Meters {
    handle: PrometheusHandle,
    /// By method, then by language; the last language is every other one.
    requests: Vec<(Vec<Counter>, Histogram)>,
    cost: Counter,
    unknown_cost: Counter,
    input_tokens: Counter,
    output_tokens: Counter,
    lookups: Counter,
    exact_hits: Counter,
    semantic_hits: Counter,
    pub database_errors: Counter,
    embedding: Histogram,
    work: Gauge,
    queries: Gauge,
    shed: Counter,
    refused_replies: Counter,
    dropped: Counter,
    unsent: Counter,
    panics: Counter,
    entries: Gauge,
    waiting: Gauge,
    recorder_dropped: Counter,
    recorder_refused: Counter,
    reconnects: Counter,
    ready: Gauge,
    over_share: Counter,
    /// In the order of [`OUTCOMES`].
    submits: [Counter; 6],
    workflow_steps: Gauge,
}

/// What the rooms count for themselves, read when somebody asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub work: usize,
    pub queries: usize,
    pub shed: u64,
    pub refused_replies: u64,
    pub dropped: u64,
    pub unsent: u64,
    pub panics: u64,
    pub cache_entries: usize,
    pub recorder_waiting: u64,
    pub recorder_dropped: u64,
    pub recorder_refused: u64,
    pub nats_reconnects: u64,
    pub over_share: u64,
    /// Done, dead, redelivered, retried, superseded, with a reply that was refused.
    pub submits: [u64; 6],
    pub workflow_steps: usize,
}

static METERS: LazyLock<Meters> = LazyLock::new(Meters::register);

/// This process's meters.
pub fn meters() -> &'static Meters {
    &METERS
}

impl Meters {
    fn register() -> Self {
        let buckets = |builder: PrometheusBuilder, name: &str, values: &[f64]| {
            // It fails only where there are no values.
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), values).unwrap_or_default()
        };
        let builder = buckets(PrometheusBuilder::new(), REQUEST_SECONDS, REQUEST_BUCKETS);
        let builder = buckets(builder, ATTEMPT_SECONDS, MODEL_BUCKETS);
        let builder = buckets(builder, FIRST_TOKEN_SECONDS, MODEL_BUCKETS);
        let builder = buckets(builder, STEP_SECONDS, REQUEST_BUCKETS);
        let recorder = buckets(builder, EMBEDDING_SECONDS, EMBEDDING_BUCKETS).build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            for row in TABLE {
                match row.kind {
                    Kind::Counter => metrics::describe_counter!(row.name, row.help),
                    Kind::Gauge => metrics::describe_gauge!(row.name, row.help),
                    Kind::Histogram => metrics::describe_histogram!(row.name, row.help),
                }
            }
            gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        });
        let made = metrics::with_local_recorder(&recorder, || Self::handles(handle));
        // For what is registered while the worker runs: codes of errors, names of tables.
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics was installed first: errors and purges are not counted");
        }
        made
    }

    fn handles(handle: PrometheusHandle) -> Self {
        let languages = || Language::known().map(|l| l.as_str().to_owned()).chain(["other".to_owned()]);
        let of_method = |method: Method| {
            let name = method.as_str();
            let counted = languages().map(|language| counter!(REQUESTS, "method" => name, "language" => language));
            (counted.collect(), histogram!(REQUEST_SECONDS, "method" => name))
        };
        Self {
            handle,
            requests: Method::ALL.into_iter().map(of_method).collect(),
            cost: counter!(COST),
            unknown_cost: counter!(UNKNOWN_COST),
            input_tokens: counter!(TOKENS, "direction" => "input"),
            output_tokens: counter!(TOKENS, "direction" => "output"),
            lookups: counter!(CACHE_LOOKUPS),
            exact_hits: counter!(CACHE_HITS, "tier" => "exact"),
            semantic_hits: counter!(CACHE_HITS, "tier" => "semantic"),
            database_errors: counter!(DATABASE_ERRORS),
            embedding: histogram!(EMBEDDING_SECONDS),
            work: gauge!(IN_FLIGHT, "lane" => "work"),
            queries: gauge!(IN_FLIGHT, "lane" => "query"),
            shed: counter!(SHED),
            refused_replies: counter!(REFUSED_REPLIES),
            dropped: counter!(DROPPED),
            unsent: counter!(UNSENT),
            panics: counter!(PANICS),
            entries: gauge!(CACHE_ENTRIES),
            waiting: gauge!(RECORDER_WAITING),
            recorder_dropped: counter!(RECORDER_DROPPED),
            recorder_refused: counter!(RECORDER_REFUSED),
            reconnects: counter!(NATS_RECONNECTS),
            ready: gauge!(READY),
            over_share: counter!(OVER_SHARE),
            workflow_steps: gauge!(STEPS_RUNNING),
            submits: OUTCOMES.map(|outcome| counter!(SUBMITS, "outcome" => outcome)),
        }
    }

    /// A request was answered, whichever door it came by.
    pub fn answered(&self, answer: &Answer) {
        let Some((languages, seconds)) = self.requests.get(answer.method as usize) else { return };
        let language = match answer.language {
            Language::Elixir => 0,
            Language::Rust => 1,
            Language::TypeScript => 2,
            Language::Go => 3,
            Language::Python => 4,
            Language::JavaScript => 5,
            Language::Sql => 6,
            Language::Other(_) => 7,
        };
        if let Some(counter) = languages.get(language) {
            counter.increment(1);
        }
        seconds.record(answer.time.as_secs_f64());
    }

    /// `code` is one of the few that errors have.
    pub fn error(&self, code: &'static str) {
        counter!(ERRORS, "code" => code).increment(1);
    }

    /// A lookup in the cache that no tier answered yet.
    pub fn missed(&self) {
        self.lookups.increment(1);
    }

    /// A lookup that was answered. By the semantic tier: one that was told to [`Self::missed`] before.
    pub fn hit(&self, tier: Tier) {
        match tier {
            Tier::Exact => {
                self.lookups.increment(1);
                self.exact_hits.increment(1);
            }
            Tier::Semantic => self.semantic_hits.increment(1),
        }
    }

    pub fn embedded(&self, time: Duration) {
        self.embedding.record(time.as_secs_f64());
    }

    /// An attempt at asking a model ended. Models are those of the route: few.
    pub fn attempted(&self, attempt: &Attempt) {
        let labels = [("provider", attempt.provider.clone()), ("model", attempt.model.clone())];
        let (provider, model) = (attempt.provider.clone(), attempt.model.clone());
        let outcome = attempt.outcome.as_str();
        counter!(ATTEMPTS, "provider" => provider, "model" => model, "outcome" => outcome).increment(1);
        histogram!(ATTEMPT_SECONDS, &labels).record(attempt.duration.as_secs_f64());
        match attempt.cost {
            Some(cost) => self.cost.increment(cost.0),
            None => self.unknown_cost.increment(attempt.worst.0),
        }
        self.input_tokens.increment(attempt.counted.input.unwrap_or(0));
        self.output_tokens.increment(attempt.counted.output.unwrap_or(0));
        if let Some(first) = attempt.first_token {
            histogram!(FIRST_TOKEN_SECONDS, &labels).record(first.as_secs_f64());
        }
    }

    /// `model` is one of the route; `state` as the table says.
    pub fn circuit(&self, model: &str, state: u8) {
        gauge!(CIRCUIT, "model" => model.to_owned()).set(f64::from(state));
    }

    /// Calls that wait for a model's limit, and requests that are leased of it.
    pub fn limit(&self, model: &str, waiting: usize, leased: u64) {
        gauge!(LIMIT_WAITING, "model" => model.to_owned()).set(waiting as f64);
        gauge!(LIMIT_LEASED, "model" => model.to_owned()).set(leased as f64);
    }

    /// An attempt at a step of a workflow has ended. All three names are ours.
    pub fn step(&self, kind: &'static str, outcome: &'static str, manner: &'static str, took: Duration) {
        counter!(STEPS, "kind" => kind, "outcome" => outcome, "manner" => manner).increment(1);
        // What was taken from before says nothing of how long steps take.
        if manner != "recalled" {
            histogram!(STEP_SECONDS, "kind" => kind).record(took.as_secs_f64());
        }
    }

    /// `table` is a name of ours.
    pub fn purged(&self, table: &'static str, rows: u64) {
        if rows > 0 {
            counter!(PURGED, "table" => table).increment(rows);
        }
    }

    /// The text that Prometheus reads, with what is only looked at now.
    pub fn render(&self, figures: &Figures, ready: bool) -> String {
        self.work.set(figures.work as f64);
        self.queries.set(figures.queries as f64);
        self.workflow_steps.set(figures.workflow_steps as f64);
        self.shed.absolute(figures.shed);
        self.refused_replies.absolute(figures.refused_replies);
        self.dropped.absolute(figures.dropped);
        self.unsent.absolute(figures.unsent);
        self.panics.absolute(figures.panics);
        self.entries.set(figures.cache_entries as f64);
        self.waiting.set(figures.recorder_waiting as f64);
        self.recorder_dropped.absolute(figures.recorder_dropped);
        self.recorder_refused.absolute(figures.recorder_refused);
        self.reconnects.absolute(figures.nats_reconnects);
        self.over_share.absolute(figures.over_share);
        for (counter, count) in self.submits.iter().zip(figures.submits) {
            counter.absolute(count);
        }
        self.ready.set(f64::from(u8::from(ready)));
        self.handle.render()
    }

    /// Sorts what was measured into its buckets; call it every second or so, or samples pile up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// The table as Markdown: `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the table in `src/telemetry/metrics.rs` by `TANDEM_BLESS=1 cargo test --test docs`; do not edit.\n\n\
         `GET /metrics` at `http.listen` gives them in the text format of Prometheus. All are of this one worker since its start: sum\n\
         them over workers. A label has few possible values; none holds a tenant, a text or an id.\n\n\
         | name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let labels = row.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "| `{}` | {} | {} | {labels} | {} |\n",
            row.name,
            row.kind.as_str(),
            row.unit,
            row.help
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{CorrelationId, Counted, NanoUsd, Outcome, TaskType, Tenant, Timestamp};

    fn answer(method: Method, language: Language) -> Answer {
        Answer::new(method, TaskType::General, &language, String::new(), Timestamp(0))
    }

    fn attempt() -> Attempt {
        Attempt {
            at: Timestamp(0),
            tenant: Tenant::default(),
            correlation_id: CorrelationId::generate(),
            provider: "openai".into(),
            model: "gpt-5-mini".into(),
            outcome: Outcome::Done,
            sent: true,
            counted: Counted { input: Some(10), output: Some(5), ..Counted::default() },
            cost: Some(NanoUsd(1_500)),
            worst: NanoUsd(9_000),
            duration: Duration::from_millis(300),
            first_token: Some(Duration::from_millis(100)),
        }
    }

    #[test]
    fn a_scrape_has_every_name_of_the_table_with_help_type_and_its_labels() {
        let meters = meters();
        meters.error("internal");
        meters.purged("executions", 1);
        meters.step("agent", "completed", "alone", Duration::from_millis(1));
        meters.missed();
        meters.embedded(Duration::from_millis(3));
        meters.circuit("openai/gpt-5-mini", 0);
        meters.limit("openai/gpt-5-mini", 0, 1);
        meters.attempted(&attempt());
        meters.answered(&answer(Method::Cached, Language::Rust));
        let text = meters.render(&Figures::default(), true);
        for row in TABLE {
            assert!(text.contains(&format!("# HELP {} ", row.name)), "{}: {text}", row.name);
            assert!(text.contains(&format!("# TYPE {} {}\n", row.name, row.kind.as_str())), "{}: {text}", row.name);
            let sample = text.lines().find(|l| l.starts_with(row.name)).unwrap();
            for label in row.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{label}: {sample}");
            }
            assert!((row.kind == Kind::Counter) == row.name.ends_with("_total"), "{}", row.name);
        }
        let known: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        for line in text.lines().filter(|l| l.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(known.contains(name), "{name} is not in the table");
        }
    }

    #[test]
    fn an_answer_is_counted_by_its_method_and_language_and_what_it_cost() {
        let meters = meters();
        let made_up = Language::Other("a tenant's made-up name".into());
        meters.attempted(&attempt());
        meters.attempted(&Attempt { outcome: Outcome::Cut, cost: None, counted: Counted::default(), ..attempt() });
        meters.answered(&answer(Method::LlmAssisted, made_up));
        for (language, name) in
            Language::known().zip(["elixir", "rust", "typescript", "go", "python", "javascript", "sql"])
        {
            meters.answered(&answer(Method::Fallback, language));
            let text = meters.render(&Figures::default(), true);
            let line = format!("tandem_requests_total{{method=\"fallback\",language=\"{name}\"}} 1");
            assert!(text.contains(&line), "{line}: {text}");
        }
        let text = meters.render(&Figures { shed: 7, work: 3, ..Figures::default() }, false);
        for line in [
            "tandem_requests_total{method=\"llm_assisted\",language=\"other\"} 1",
            "tandem_model_cost_nanodollars_total 1500",
            "tandem_model_unknown_cost_nanodollars_total 9000",
            "tandem_model_attempts_total{provider=\"openai\",model=\"gpt-5-mini\",outcome=\"cut\"} 1",
            "tandem_model_tokens_total{direction=\"output\"} 5",
            "tandem_shed_total 7",
            "tandem_in_flight{lane=\"work\"} 3",
            "tandem_ready 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("made-up"));
    }
}
