//! Exact prices: the dated table of genai-prices, read into integers. `config/prices.json` is that table without the
//! providers that nobody here asks: `scripts/prices` writes it.
//!
//! The table hands out sums in floating dollars, not its prices. So it is asked for the price of tokens of one kind
//! alone, and the sum divided by their number: rounded to nano-dollars per million tokens, that is the table's price
//! again (its finest has five decimals). Money is then added up in integers only.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use genai_prices::{Calculator, PriceRequest, Usage, UsageKey};

use super::provider::{self, Target};
use super::{Error, PriceOverride, Provider, Tokens};
use crate::domain::{NanoUsd, Timestamp};

static TABLE: LazyLock<Result<Calculator, String>> = LazyLock::new(|| {
    let json = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prices.json"));
    Calculator::from_json(json).map_err(|error| error.to_string())
});

pub(super) struct Prices {
    overrides: BTreeMap<(Provider, String), Rates>,
    table: &'static Calculator,
}

/// Nano-dollars per million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_1h: u64,
    output: u64,
    reasoning: u64,
}

impl Prices {
    pub(super) fn new(overrides: &BTreeMap<String, PriceOverride>) -> Result<Self, Error> {
        let mut rates = BTreeMap::new();
        for (name, price) in overrides {
            let rate = |usd| match NanoUsd::from_usd(usd) {
                Some(NanoUsd(nanos)) => Ok(nanos),
                None => Err(Error::Option { key: "prices", problem: format!("has no valid price for {name:?}") }),
            };
            let flat = Rates::flat(rate(price.input_usd_per_mtok)?, rate(price.output_usd_per_mtok)?);
            rates.insert(provider::parse(name)?, flat);
        }
        let table = TABLE.as_ref().map_err(|problem| Error::PriceTable { problem: problem.clone() })?;
        Ok(Self { overrides: rates, table })
    }

    /// Refuses a model that can't be priced, at whatever time.
    pub(super) fn require(&self, target: &Target) -> Result<(), Error> {
        match self.rates(target.provider, &target.model, None, 0, Timestamp::default()) {
            Some(_) => Ok(()),
            None => Err(Error::Unpriced { model: target.name.clone() }),
        }
    }

    /// What a call costs at `now` with this much input (long input is dearer with some models). The configuration comes
    /// first; then the table, by the model that answered, else by the one asked for.
    pub(super) fn rates(
        &self,
        provider: Provider,
        asked: &str,
        answered: Option<&str>,
        input_tokens: u64,
        now: Timestamp,
    ) -> Option<Rates> {
        let own = |model: &str| self.overrides.get(&(provider, model.to_owned())).copied();
        let listed = |model| self.listed(provider, model, input_tokens, now);
        own(asked).or_else(|| answered.and_then(own)).or_else(|| answered.and_then(listed)).or_else(|| listed(asked))
    }

    fn listed(&self, provider: Provider, model: &str, input_tokens: u64, now: Timestamp) -> Option<Rates> {
        // One token at least, to have something to divide by; far above every tier, a double still holds it exactly.
        let input = input_tokens.clamp(1, 1 << 40) as f64;
        const OUTPUT: f64 = 1e6;
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
        let rate = |count: f64, kinds: &[UsageKey]| {
            let mut usage = Usage::from([(UsageKey::INPUT_TOKENS, input)]);
            usage.extend(kinds.iter().map(|kind| (kind.clone(), count)));
            let request = PriceRequest::new(model, &usage).with_provider_id(provider.as_str()).with_timestamp(at);
            let price = self.table.calculate(&request).ok()?;
            let usd = if kinds.contains(&UsageKey::OUTPUT_TOKENS) { price.output_price } else { price.input_price };
            NanoUsd::from_usd(usd / count * 1e6).map(|NanoUsd(nanos)| nanos)
        };
        let rates = Rates {
            input: rate(input, &[])?,
            cache_read: rate(input, &[UsageKey::CACHE_READ_TOKENS])?,
            cache_write: rate(input, &[UsageKey::CACHE_WRITE_TOKENS])?,
            cache_write_1h: rate(input, &[UsageKey::CACHE_WRITE_TOKENS, UsageKey::CACHE_WRITE_1H_TOKENS])?,
            output: rate(OUTPUT, &[UsageKey::OUTPUT_TOKENS])?,
            reasoning: rate(OUTPUT, &[UsageKey::OUTPUT_TOKENS, UsageKey::OUTPUT_REASONING_TOKENS])?,
        };
        // The table lists models whose prices it does not know, and some that make no text: both read as zero.
        (rates.input > 0 && rates.output > 0).then_some(rates)
    }
}

impl Rates {
    fn flat(input: u64, output: u64) -> Self {
        Self { input, cache_read: input, cache_write: input, cache_write_1h: input, output, reasoning: output }
    }

    /// Rounded once, to the nearest nano-dollar.
    pub(super) fn cost(&self, tokens: &Tokens) -> NanoUsd {
        let none = |count: Option<u64>| count.unwrap_or(0);
        let (cache_read, cache_write) = (none(tokens.cache_read), none(tokens.cache_write));
        let (cache_write_1h, reasoning) = (none(tokens.cache_write_1h), none(tokens.reasoning));
        let plain = tokens.input.saturating_sub(cache_read).saturating_sub(cache_write);
        let said = tokens.output.saturating_sub(reasoning);
        let sum = [
            (plain, self.input),
            (cache_read, self.cache_read),
            (cache_write.saturating_sub(cache_write_1h), self.cache_write),
            (cache_write_1h.min(cache_write), self.cache_write_1h),
            (said, self.output),
            (reasoning, self.reasoning),
        ];
        nanos(sum.into_iter().map(|(count, rate)| u128::from(count) * u128::from(rate)).fold(0, u128::saturating_add))
    }

    pub(super) fn worst_case(&self, input: u64, output: u64) -> NanoUsd {
        // Some providers fill their cache unasked.
        let input = u128::from(input) * u128::from(self.input.max(self.cache_write).max(self.cache_read));
        let output = u128::from(output) * u128::from(self.output.max(self.reasoning));
        nanos(input.saturating_add(output))
    }
}

/// From billionths of a dollar times a million.
fn nanos(sum: u128) -> NanoUsd {
    const MTOK: u128 = 1_000_000;
    NanoUsd(u64::try_from(sum.saturating_add(MTOK / 2) / MTOK).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the crate ships it.
    fn published() -> Calculator {
        let metadata = std::process::Command::new(env!("CARGO"))
            // Of this platform: nothing else need have been fetched.
            .args(["metadata", "--locked", "--offline", "--filter-platform", "host-tuple", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let published = packages.iter().find(|package| package["name"] == "genai-prices").unwrap();
        let manifest = std::path::Path::new(published["manifest_path"].as_str().unwrap());
        Calculator::from_json(std::fs::read(manifest.with_file_name("data/prices.json")).unwrap()).unwrap()
    }

    /// Every model of the table that can be asked, at several sizes: our integers against the sum of the crate's table,
    /// which also says when `scripts/prices` was forgotten.
    #[test]
    fn costs_equal_the_tables_own_sums() {
        let prices = Prices::new(&BTreeMap::new()).unwrap();
        let published = &published();
        let now = Timestamp(1_791_936_000_000);
        let at = UNIX_EPOCH + Duration::from_millis(now.0 as u64);
        let mut priced = 0;
        for provider in Provider::ALL {
            let listed = published.find_provider(Some(provider.as_str()), None).unwrap().unwrap();
            for (model, scale) in listed.models().flat_map(|model| [1, 77, 12_345, 300_001].map(|scale| (model, scale)))
            {
                let tokens = Tokens {
                    input: 10 * scale,
                    cache_read: Some(3 * scale),
                    cache_write: Some(2 * scale),
                    cache_write_1h: Some(scale),
                    output: 7 * scale,
                    reasoning: Some(5 * scale),
                };
                let Some(rates) = prices.rates(provider, model.id(), None, tokens.input, now) else { continue };
                let usage = Usage::from([
                    (UsageKey::INPUT_TOKENS, tokens.input as f64),
                    (UsageKey::CACHE_READ_TOKENS, 3.0 * scale as f64),
                    (UsageKey::CACHE_WRITE_TOKENS, 2.0 * scale as f64),
                    (UsageKey::CACHE_WRITE_1H_TOKENS, scale as f64),
                    (UsageKey::OUTPUT_TOKENS, tokens.output as f64),
                    (UsageKey::OUTPUT_REASONING_TOKENS, 5.0 * scale as f64),
                ]);
                let request =
                    PriceRequest::new(model.id(), &usage).with_provider_id(provider.as_str()).with_timestamp(at);
                let table = published.calculate(&request).unwrap().total_price * 1e9;
                let ours = rates.cost(&tokens);
                assert!((ours.0 as f64 - table).abs() <= 0.5001, "{} at {scale}: {ours} against {table}", model.id());
                assert!(rates.worst_case(tokens.input, tokens.output) >= ours);
                priced += 1;
            }
        }
        assert!(priced > 400, "{priced}");
    }

    #[test]
    fn rates_are_the_tables_own_numbers() {
        let prices = Prices::new(&BTreeMap::new()).unwrap();
        let rates = |model, input| prices.rates(Provider::Google, model, None, input, Timestamp(1_764_547_200_000));
        let flash = rates("gemini-1.5-flash", 128_000).unwrap();
        assert_eq!((flash.input, flash.cache_read, flash.output), (75_000_000, 18_750_000, 300_000_000));
        let flash = rates("gemini-1.5-flash", 128_001).unwrap();
        assert_eq!((flash.input, flash.cache_read, flash.output), (150_000_000, 37_500_000, 600_000_000));
        assert_eq!(rates("gemma-3", 1), None, "listed without a price");
        // 1 × 18.75 + 1 × 75: rounded once.
        let tokens = Tokens { input: 2, cache_read: Some(1), ..Tokens::default() };
        assert_eq!(rates("gemini-1.5-flash", 2).unwrap().cost(&tokens), NanoUsd(94));
    }
}
