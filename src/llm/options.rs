use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Error, breaker, budget};

/// How models are called. Keys and addresses are no part of it: see [`Credentials`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The models to ask, as `provider/model`, the preferred one first; providers are `anthropic`, `openai` and
    /// `google`. `openai` stands for every OpenAI-compatible address too, `OPENAI_BASE_URL` names it. A model whose
    /// provider has no key is left out. Empty: `anthropic/claude-sonnet-4-5`, `openai/gpt-5-mini` and
    /// `google/gemini-2.5-flash`, as far as there are keys.
    pub route: Vec<String>,
    /// The longest that one call may take, in milliseconds, with all its attempts and the pauses between them. A request's
    /// own deadline can only shorten it.
    pub timeout_ms: u64,
    /// The longest that connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The longest that an answer that is no stream may take to begin, in milliseconds: nearly all of the model's time. With
    /// what is silent for longer the next model is asked.
    pub response_timeout_ms: u64,
    /// The longest that a stream may take to its first token, in milliseconds. Some models think before it for long.
    pub first_token_timeout_ms: u64,
    /// The longest silence in the middle of an answer, in milliseconds.
    pub idle_timeout_ms: u64,
    /// So many requests to models are under way at a time, of all calls of this worker together. The others wait, within
    /// their own deadline.
    pub max_concurrent: usize,
    /// Attempts on one model after the first, where another one can help: rate limits, overload, faults of the provider,
    /// broken connections.
    pub max_retries: u32,
    /// The first pause between two attempts is anything up to this, in milliseconds; the next up to twice as long, and so
    /// on. What a provider asks for (Retry-After) is kept instead.
    pub backoff_ms: u64,
    /// The longest such pause, in milliseconds. Who asks for a longer one is left for the next model of the route.
    pub longest_backoff_ms: u64,
    /// Whether a model that takes longer than for 95 of 100 answers before is asked a second time beside the first; the
    /// faster answer counts, and both are paid. Never while a circuit is open, and not for streams.
    pub hedge: bool,
    /// So many requests a minute are made of each model, of all workers on one database together; attempts that failed
    /// count too. In no sixty seconds is there one more: who comes then waits, or the next model is asked. 0: no limit.
    pub requests_per_minute: u64,
    /// So many tokens a minute, input and output, counted like the requests. Before it is asked a request counts with the
    /// most that it can take: its bytes, and `max_output_tokens`. 0: no limit.
    pub tokens_per_minute: u64,
    /// Limits of single models by `provider/model`, instead of the two above. In the file
    /// `[llm.limits."openai/gpt-5-mini"]`; in the environment all of them as JSON or as an inline table of TOML:
    /// `{"openai/gpt-5-mini": {"requests_per_minute": 500, "tokens_per_minute": 200000}}`.
    pub limits: BTreeMap<String, LimitOverride>,
    /// When a model that fails is left alone.
    pub breaker: breaker::Options,
    /// What models may cost, over all workers on one database.
    pub budget: budget::Options,
    /// Queries beside each other (`llm.parallel`), and after each other (`llm.pipeline`).
    pub batch: Batch,
    /// The most tokens that one answer may have; with a model that thinks first, its thoughts count too.
    pub max_output_tokens: u32,
    /// Sampling temperature, 0 to 2. Left out of the request unless set: some models refuse it.
    pub temperature: Option<f32>,
    /// Prices by `provider/model`, instead of the built-in table (genai-prices). A model that neither of the two
    /// knows is refused. A model that costs nothing (one of your own) is listed with zeros. In the
    /// file `[llm.prices."openai/my-model"]`; in the environment all of them as JSON or as an inline table of TOML,
    /// which adds to those of the file: `{"openai/my-model": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}`.
    pub prices: BTreeMap<String, PriceOverride>,
    /// The `provider/model` that says what answers would have cost, had a model written them all. Empty: no such
    /// figure.
    pub reference_model: String,
}

/// What holds for queries that come together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// How many of them run at a time, where the sender does not say.
    pub max_concurrent: usize,
    /// How long all of them may take together, in milliseconds, where the sender does not say.
    pub timeout_ms: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_concurrent: 5, timeout_ms: 300_000 }
    }
}

/// What one model is limited to; what is left out is as for all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOverride {
    /// Requests a minute. 0: no limit.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute. 0: no limit.
    pub tokens_per_minute: Option<u64>,
}

/// What a model costs, in US dollars per million tokens. Cached input and thoughts cost what input and output cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceOverride {
    /// US dollars per million input tokens.
    pub input_usd_per_mtok: f64,
    /// US dollars per million output tokens.
    pub output_usd_per_mtok: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            route: Vec::new(),
            // A long answer of a thinking model takes a minute and more; requests bring their own, shorter deadline.
            timeout_ms: 120_000,
            connect_timeout_ms: 5_000,
            response_timeout_ms: 60_000,
            first_token_timeout_ms: 60_000,
            idle_timeout_ms: 30_000,
            max_concurrent: 64,
            max_retries: 3,
            backoff_ms: 1_000,
            longest_backoff_ms: 30_000,
            hedge: false,
            requests_per_minute: 60,
            tokens_per_minute: 0,
            limits: BTreeMap::new(),
            breaker: breaker::Options::default(),
            budget: budget::Options::default(),
            batch: Batch::default(),
            max_output_tokens: 8_192,
            temperature: None,
            prices: BTreeMap::new(),
            reference_model: "anthropic/claude-sonnet-4-5".to_owned(),
        }
    }
}

/// Far above what anybody sells, and far below what sums of it can't hold.
const MOST_A_MINUTE: u64 = 1_000_000_000_000;

impl Options {
    /// What all workers together may use of a model in a minute: requests and tokens.
    pub(super) fn limit(&self, model: &str) -> (u64, u64) {
        let own = self.limits.get(model).copied().unwrap_or_default();
        let requests = own.requests_per_minute.unwrap_or(self.requests_per_minute);
        (requests, own.tokens_per_minute.unwrap_or(self.tokens_per_minute))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |key: &'static str, problem: &str| Err(Error::Option { key, problem: problem.to_owned() });
        for (key, value) in [
            ("timeout_ms", self.timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("response_timeout_ms", self.response_timeout_ms),
            ("first_token_timeout_ms", self.first_token_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("batch.timeout_ms", self.batch.timeout_ms),
            ("batch.max_concurrent", self.batch.max_concurrent as u64),
        ] {
            if value == 0 {
                return wrong(key, "must be more than 0");
            }
        }
        for (key, limit) in [
            ("requests_per_minute", Some(self.requests_per_minute)),
            ("tokens_per_minute", Some(self.tokens_per_minute)),
        ]
        .into_iter()
        .chain(
            self.limits
                .values()
                .flat_map(|limit| [("limits", limit.requests_per_minute), ("limits", limit.tokens_per_minute)]),
        ) {
            if limit.is_some_and(|limit| limit > MOST_A_MINUTE) {
                return wrong(key, "must be at most 1000000000000");
            }
        }
        if !(1..=10_000).contains(&self.max_concurrent) {
            return wrong("max_concurrent", "must be from 1 to 10000");
        }
        if self.max_retries > 20 {
            return wrong("max_retries", "must be at most 20");
        }
        if self.max_output_tokens == 0 {
            return wrong("max_output_tokens", "must be more than 0");
        }
        if self.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return wrong("temperature", "must be from 0 to 2");
        }
        self.budget.check()
    }
}

/// Where each provider is reached and what opens it. `None`: the provider can't be asked.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub anthropic: Option<Key>,
    /// OpenAI, or any address that speaks its format.
    pub openai: Option<Key>,
    pub google: Option<Key>,
}

/// A provider's key and address. `Debug` shows the address only.
#[derive(Debug, Clone)]
pub struct Key {
    /// Sent in a header, never in a URL. Empty: no such header is sent (a local server).
    pub secret: SecretString,
    /// With or without a trailing slash; with or without the version (`/v1`, `/v1beta`). Empty: the provider's own.
    pub base_url: String,
}
