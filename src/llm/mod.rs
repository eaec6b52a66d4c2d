//! The one way in which anything in Tandem calls a model.
//!
//! A call goes `ask` → `http` (one attempt under one deadline) → the provider's `Wire` format →
//! price. Nothing else in Tandem speaks HTTP to a model. What decides *whether and how often* to call (route, limits,
//! breaker, budget, retries) belongs between [`Client::ask`] and `http::attempt`, which knows nothing of it.

mod anthropic;
mod call;
mod error;
mod gemini;
mod http;
mod openai;
mod options;
mod price;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, debug_span};

pub use call::{Completion, Finish, Prompt, Tokens};
pub use error::Error;
pub use options::{Credentials, Key, Options, PriceOverride};
pub use provider::Provider;

use crate::domain::{NanoUsd, Timestamp};
use call::Call;
use price::{Prices, Rates};
use provider::Target;

/// Asks models. Cloning shares connections, prices and route.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    /// What can really be asked, in order.
    route: Vec<Target>,
    prices: Prices,
    /// Of a "provider/model" that estimates are made with.
    reference: Option<(Provider, String)>,
    /// Its rates, by tokens of input and hour: the table takes some 10 µs to tell them, and every answer is estimated.
    reference_rates: moka::sync::Cache<(u64, i64), Option<Rates>>,
    timeout: Duration,
    max_output_tokens: u32,
    temperature: Option<f32>,
}

impl Client {
    /// Checks everything that can be checked without asking: the form and price of each model of the route, base
    /// URLs, keys. A model of the route whose provider has no credentials is left out, with a warning.
    pub fn new(options: Options, credentials: Credentials) -> Result<Self, Error> {
        options.check()?;
        let prices = Prices::new(&options.prices)?;
        let route = provider::route(&options.route, &credentials)?;
        for target in &route {
            prices.require(target)?;
        }
        let reference = match options.reference_model.as_str() {
            "" => None,
            name => Some(provider::parse(name)?),
        };
        Ok(Self(Arc::new(Inner {
            route,
            prices,
            reference,
            reference_rates: moka::sync::Cache::new(1_000),
            timeout: Duration::from_millis(options.timeout_ms),
            max_output_tokens: options.max_output_tokens,
            temperature: options.temperature,
        })))
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
        let target = self.target()?;
        let call = self.call(target, prompt)?;
        let input = call.most_input_tokens();
        let rates = self.0.prices.rates(target.provider, &target.model, None, input, now);
        let rates = rates.ok_or_else(|| Error::Unpriced { model: target.name.clone() })?;
        Ok(rates.worst_case(input, call.max_output_tokens.into()))
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

    /// Asks the first model of the route once. Ends at the deadline or after the configured timeout, whichever comes
    /// first; the request is then cancelled, not left running.
    pub async fn ask(&self, prompt: &Prompt, deadline: Instant, now: Timestamp) -> Result<Completion, Error> {
        let target = self.target()?;
        let call = self.call(target, prompt)?;
        let begun = Instant::now();
        let deadline = begun.checked_add(self.0.timeout).map_or(deadline, |longest| deadline.min(longest));
        let asking = debug_span!("model", model = target.name);
        let answer = http::attempt(target, &call, deadline).instrument(asking).await?;
        let rates =
            self.0.prices.rates(target.provider, &target.model, answer.model.as_deref(), answer.tokens.input, now);
        let rates = rates.ok_or_else(|| Error::Unpriced { model: target.name.clone() })?;
        Ok(Completion {
            cost: rates.cost(&answer.tokens),
            text: answer.text,
            model: answer.model.unwrap_or_else(|| target.model.clone()),
            provider: target.provider,
            tokens: answer.tokens,
            finish: answer.finish,
            time: begun.elapsed(),
        })
    }

    fn target(&self) -> Result<&Target, Error> {
        self.0.route.first().ok_or(Error::NotConfigured)
    }

    fn call<'a>(&self, target: &'a Target, prompt: &'a Prompt) -> Result<Call<'a>, Error> {
        let most = prompt.max_output_tokens.unwrap_or(self.0.max_output_tokens);
        Call::new(&target.model, prompt, most, self.0.temperature)
    }
}
