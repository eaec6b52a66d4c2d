//! The one way in which anything in Tandem calls a model.
//!
//! A call goes `ask` (along the route, one deadline over all) → `retry::run` (attempts on one model) → `attempt` (limit, breaker,
//! worst case, request, true cost, row) → `http` (one exchange, at once or as a stream) → the provider's `Wire` format.
//! Nothing else in Tandem speaks HTTP to a model.

mod anthropic;
mod ask;
mod breaker;
mod budget;
mod call;
mod error;
mod gemini;
mod http;
mod journal;
mod lease;
mod limit;
mod limit_share;
#[cfg(test)]
mod limit_tests;
mod openai;
mod options;
mod pace;
mod price;
mod provider;
mod query;
mod schema;
mod sse;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::debug;

pub use ask::{Listener, Terms};
pub use breaker::{Circuit, Options as BreakerOptions};
pub use budget::{Options as BudgetOptions, TenantOptions as TenantBudget};
pub use call::{Completion, Finish, Prompt, Tokens};
pub use error::{Error, Failed, Reason, Remedy, Spent};
pub use limit::Limit;
pub use options::{Batch, Credentials, Key, LimitOverride, Options, PriceOverride};
pub use provider::Provider;
pub use query::{Answered, Query, Steps};
pub use schema::Schema;

use crate::domain::{Attempt, NanoUsd, Tenant, Timestamp};
use crate::retry::Policy;
use crate::store::{Caps, Entry, Recorder, Store, Write};
use crate::telemetry::meters;
use budget::Budget;
use call::Call;
use http::Bounds;
use price::{Prices, Rates};
use provider::Target;

/// Asks models. Cloning shares connections, prices and route.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// Where calls are written down, and where what all workers share of them is kept.
#[derive(Debug, Clone)]
pub struct Books {
    pub store: Store,
    pub recorder: Recorder,
    /// A folder of this machine for what workers on this database have leased of budgets: what one leaves that is killed, the
    /// next one gives back. `None`: it counts as spent.
    pub journal: Option<PathBuf>,
}

struct Inner {
    /// `None`: nothing is kept, and nothing is shared with other workers.
    books: Option<Books>,
    budget: Arc<Budget>,
    /// What can really be asked, in order.
    route: Vec<Target>,
    prices: Prices,
    /// Of a "provider/model" that estimates are made with.
    reference: Option<(Provider, String)>,
    /// Its rates, by tokens of input and hour: the table takes some 10 µs to tell them, and every answer is estimated.
    reference_rates: moka::sync::Cache<(u64, i64), Option<Rates>>,
    timeout: Duration,
    retry: Policy,
    /// Of each attempt; the deadline is the call's own.
    pace: Bounds,
    hedge: bool,
    /// One for each request under way.
    turns: Semaphore,
    batch: Batch,
    max_output_tokens: u32,
    temperature: Option<f32>,
}

/// A model of the route, as it does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `provider/model`.
    pub model: String,
    pub circuit: Circuit,
    /// How long it is left alone still.
    pub opens_in: Option<Duration>,
    /// `None`: there is none.
    pub limit: Option<Limit>,
}

impl Client {
    /// Checks everything that can be checked without asking: the form and price of each model of the route, base
    /// URLs, keys. A model of the route whose provider has no credentials is left out, with a warning.
    pub fn new(options: Options, credentials: Credentials, books: Option<Books>) -> Result<Self, Error> {
        options.check()?;
        let prices = Prices::new(&options.prices)?;
        let route = provider::route(&options, &credentials, books.as_ref())?;
        for target in &route {
            prices.require(target)?;
        }
        let reference = match options.reference_model.as_str() {
            "" => None,
            name => Some(provider::parse(name)?),
        };
        let ms = Duration::from_millis;
        let store = books.as_ref().map(|books| books.store.clone());
        let journal = books.as_ref().and_then(|books| books.journal.clone());
        Ok(Self(Arc::new(Inner {
            books,
            budget: Arc::new(Budget::new(options.budget, store, journal.as_deref())),
            route,
            prices,
            reference,
            reference_rates: moka::sync::Cache::new(1_000),
            timeout: ms(options.timeout_ms),
            retry: Policy {
                retries: options.max_retries,
                backoff: ms(options.backoff_ms),
                longest: ms(options.longest_backoff_ms),
            },
            pace: Bounds {
                deadline: Instant::now(),
                response: ms(options.response_timeout_ms),
                first_token: ms(options.first_token_timeout_ms),
                idle: ms(options.idle_timeout_ms),
            },
            hedge: options.hedge,
            turns: Semaphore::new(options.max_concurrent),
            batch: options.batch,
            max_output_tokens: options.max_output_tokens,
            temperature: options.temperature,
        })))
    }

    /// What a tenant's calls may cost, in the order of [`crate::store::Scope::ALL`].
    pub fn caps(&self, tenant: &Tenant) -> Caps {
        self.0.budget.caps(tenant)
    }

    /// To be called several times a second: what is leased of the budgets follows what is needed.
    pub async fn keep_budget(&self, now: Timestamp) {
        self.0.budget.keep(now).await;
    }

    /// Gives back what was leased of budgets and limits and is not needed, at the end.
    pub async fn let_go(&self) {
        self.0.budget.let_go().await;
        for limiter in self.0.route.iter().filter_map(|target| target.limiter.as_ref()) {
            limiter.close().await;
        }
    }

    /// False where no model can be asked: no key, no address.
    pub fn is_configured(&self) -> bool {
        !self.0.route.is_empty()
    }

    /// What can be asked, as `provider/model`, in order.
    pub fn models(&self) -> Vec<String> {
        self.0.route.iter().map(|target| target.name.clone()).collect()
    }

    /// The most that asking the first model of the route can cost: as many input tokens as the prompt has bytes (and
    /// some for its frame), as many output tokens as are allowed, at the dearest rate that applies.
    pub fn worst_case(&self, prompt: &Prompt, now: Timestamp) -> Result<NanoUsd, Error> {
        let target = self.0.route.first().ok_or(Error::NotConfigured)?;
        self.0.worst(target, &self.0.call(target, prompt)?, now)
    }

    /// What the reference model would cost for texts of this length, at four characters a token (usual for English and
    /// code). An estimate for comparisons, never for a bill. `None` where there is no reference model or no price for it.
    pub fn estimate(&self, input_chars: usize, output_chars: usize, now: Timestamp) -> Option<NanoUsd> {
        const CHARS_PER_TOKEN: usize = 4;
        let (provider, model) = self.0.reference.as_ref()?;
        let tokens = |chars: usize| chars.div_ceil(CHARS_PER_TOKEN) as u64;
        let tokens = Tokens { input: tokens(input_chars), output: tokens(output_chars), ..Tokens::default() };
        let hour = now.0 / 3_600_000;
        let rates = || self.0.prices.rates(*provider, model, None, tokens.input, now);
        let rates = self.0.reference_rates.get_with((tokens.input, hour), rates)?;
        Some(rates.cost(&tokens))
    }

    /// What holds for queries that come together.
    pub fn batch(&self) -> &Batch {
        &self.0.batch
    }

    /// The longest that one call may take.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The models of the route, in order.
    pub fn health(&self) -> Vec<Health> {
        let now = Instant::now();
        let of = |target: &Target| Health {
            model: target.name.clone(),
            circuit: target.breaker.circuit(now),
            opens_in: target.breaker.opens_in(now),
            limit: target.limiter.as_ref().map(|limiter| limiter.limit()),
        };
        self.0.route.iter().map(of).collect()
    }
}

impl Inner {
    fn call<'a>(&self, target: &'a Target, prompt: &'a Prompt) -> Result<Call<'a>, Error> {
        let most = prompt.max_output_tokens.unwrap_or(self.max_output_tokens);
        Call::new(&target.model, prompt, most, prompt.temperature.or(self.temperature))
    }

    /// The most that one attempt can cost.
    fn worst(&self, target: &Target, call: &Call<'_>, now: Timestamp) -> Result<NanoUsd, Error> {
        let input = call.most_input_tokens();
        let rates = self.prices.rates(target.provider, &target.model, None, input, now);
        let rates = rates.ok_or_else(|| Error::Unpriced { model: target.name.clone() })?;
        Ok(rates.worst_case(input, call.max_output_tokens.into()))
    }

    /// Every attempt ends here.
    fn note(&self, attempt: Attempt, lease: Option<uuid::Uuid>) {
        debug!(
            correlation.id = %attempt.correlation_id,
            llm.model = attempt.model,
            outcome = attempt.outcome.as_str(),
            cost = attempt.cost.map(|cost| cost.0),
            time_ms = attempt.duration.as_millis() as u64,
            "asked a model"
        );
        meters().attempted(&attempt);
        if let Some(books) = &self.books {
            books.recorder.keep(Write::Attempt(Entry::new(attempt, lease)));
        }
    }
}
