use std::time::Duration;

use super::Provider;
use crate::domain::{NanoUsd, Outcome};
use crate::store::{self, Scope};

/// Why there is no completion. Never holds a key, a prompt or a body; what a provider said is bounded and redacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "no model is configured: set ANTHROPIC_API_KEY, OPENAI_API_KEY, GOOGLE_AI_STUDIO_API_KEY or OPENAI_BASE_URL"
    )]
    NotConfigured,
    #[error("{model:?} is not in the route; there are: {route}")]
    NotInRoute { model: String, route: String },
    #[error("{model} has no price, so it is not asked: give it one under llm.prices.\"{model}\"")]
    Unpriced { model: String },
    #[error("{entry:?} is no model: {problem}")]
    Model { entry: String, problem: &'static str },
    #[error("the price table in this program can't be read: {problem}")]
    PriceTable { problem: String },
    #[error("llm.{key} {problem}")]
    Option { key: &'static str, problem: String },
    #[error("the key of {provider} can't be sent in a header: it holds a line break or a character that is not ASCII")]
    Key { provider: Provider },
    #[error("the base URL of {provider} {problem}")]
    BaseUrl { provider: Provider, problem: &'static str },
    #[error("set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    #[error("the prompt {problem}")]
    Prompt { problem: &'static str },
    #[error("the schema can't be used: {problem}")]
    Schema { problem: String },
    #[error("write the request to {model}")]
    Encode { model: String, source: serde_json::Error },
    /// Nothing was sent.
    #[error("the time given was over before this began")]
    NotBegun,
    /// Nothing was sent.
    #[error("asking {model} may cost {worst}, and max_cost_usd leaves {left}")]
    OverCost { model: String, worst: NanoUsd, left: NanoUsd },
    /// Nothing was sent.
    #[error("over budget: asking {model} may cost {worst}, and {scope} leaves {left}")]
    OverBudget { model: String, worst: NanoUsd, scope: Scope, left: NanoUsd },
    /// Nothing was sent.
    #[error("{model} is not asked while the database can't say what the budget leaves")]
    NoBudget { model: String, source: Option<store::Error> },
    /// Nothing was sent: it failed several times in a row.
    #[error("{model} is not asked for {} ms more: it failed several times in a row", after.as_millis())]
    CircuitOpen { model: String, after: Duration },
    /// Nothing was sent.
    #[error("{model} was asked as often as its limit allows{}", room(*after))]
    Limited { model: String, after: Option<Duration> },
    /// Nothing was sent.
    #[error(
        "asking {model} may take {tokens} tokens, and its limit allows {limit} a minute: ask for less, or raise llm.tokens_per_minute"
    )]
    OverLimit { model: String, tokens: u64, limit: u64 },
    /// Nothing was sent, and what was leased of the limit is used up.
    #[error("how much of the limit of {model} is free can't be told: the database does not answer")]
    LimitUnknown { model: String },
    /// The time given to the whole call is over.
    #[error("{model} did not answer in time")]
    Timeout { model: String },
    #[error("{model} was silent for {} ms: no {awaited} came", after.as_millis())]
    Stalled { model: String, awaited: &'static str, after: Duration },
    /// Nothing was sent.
    #[error("connect to {model}")]
    Connect { model: String, source: reqwest::Error },
    /// Broken off while sending or reading: the provider may have done, and may bill, the work.
    #[error("the connection to {model} broke")]
    Interrupted { model: String, source: reqwest::Error },
    /// The stream ended in good order, and the answer had not.
    #[error("the stream of {model} ended without {lacks}")]
    Cut { model: String, lacks: &'static str },
    /// Said with the status, or in the middle of an answer whose status was 200.
    #[error("{model} answered {status}: {message}")]
    Status {
        model: String,
        status: u16,
        reason: Reason,
        /// The provider's own word for it: `rate_limit_error`, `insufficient_quota`, `RESOURCE_EXHAUSTED`.
        code: Option<String>,
        message: String,
        retry_after: Option<Duration>,
    },
    /// No JSON, or nothing: something on the way, or half an answer.
    #[error("{model} answered something unreadable: {problem}")]
    Garbled { model: String, problem: String },
    /// Readable, but not in the provider's format: it will not be next time either.
    #[error("{model} answered in another format: {problem}")]
    Malformed { model: String, problem: String },
    #[error("{model} answered more than {limit} bytes")]
    TooLarge { model: String, limit: usize },
    #[error("{model} stopped for a reason that is not known: {word}")]
    UnknownFinish { model: String, word: String },
    /// The answer is complete, and not what the schema asks for.
    #[error("the answer of {model} does not fit the schema: {problem}")]
    Mismatch { model: String, problem: String },
}

/// What a provider refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    RateLimited,
    Overloaded,
    /// The fault is the provider's own.
    Server,
    /// The key is wrong, or may not do this.
    Unauthorized,
    UnknownModel,
    /// The account is empty, or has reached its limit.
    AccountLimit,
    /// The prompt is longer than the model can read.
    TooLong,
    /// The request is wrong.
    Rejected,
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same model may answer later, else the next one.
    Retry,
    /// Another model may answer now; where there is none, the same one later.
    Elsewhere,
    /// Only another model may answer.
    NextModel,
    /// Only another provider may answer: it is about the key or the account.
    NextProvider,
    /// Nothing.
    Never,
}

impl Reason {
    /// From what a provider says: its status, its word and its message. The status is 200 where it is said in the middle
    /// of a stream.
    pub(super) fn of(status: u16, code: Option<&str>, message: &str) -> Self {
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        // Some say these with 400 and a general word: only the message tells them apart.
        if says(&["credit balance is too low", "specified API usage limits"]) {
            return Self::AccountLimit;
        }
        if says(&["prompt is too long", "maximum context length", "exceed context limit", "input token count"]) {
            return Self::TooLong;
        }
        if says(&["API key not valid", "API key expired"]) {
            return Self::Unauthorized;
        }
        match (code.unwrap_or_default(), status) {
            ("insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" | "billing_error", _)
            | (_, 402) => Self::AccountLimit,
            ("context_length_exceeded" | "request_too_large", _) | (_, 413) => Self::TooLong,
            ("overloaded_error" | "overloaded" | "server_overloaded" | "engine_overloaded" | "UNAVAILABLE", _)
            | (_, 503 | 529) => Self::Overloaded,
            ("rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED", _) | (_, 429) => Self::RateLimited,
            ("authentication_error" | "permission_error" | "invalid_api_key" | "PERMISSION_DENIED", _)
            | ("UNAUTHENTICATED", _)
            | (_, 401 | 403) => Self::Unauthorized,
            ("model_not_found" | "not_found_error" | "NOT_FOUND", _) | (_, 404) => Self::UnknownModel,
            (_, 408 | 409 | 425 | 500..=599) => Self::Server,
            ("invalid_request_error" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION", _) => Self::Rejected,
            (_, 200..=299) => Self::Server,
            _ => Self::Rejected,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::RateLimited => Outcome::RateLimited,
            Self::Overloaded => Outcome::Overloaded,
            Self::Server => Outcome::ServerError,
            Self::Unauthorized => Outcome::Unauthorized,
            Self::UnknownModel => Outcome::UnknownModel,
            Self::AccountLimit => Outcome::AccountLimit,
            Self::TooLong => Outcome::TooLong,
            Self::Rejected => Outcome::Rejected,
        }
    }

    fn remedy(self) -> Remedy {
        match self {
            Self::RateLimited | Self::Server => Remedy::Retry,
            Self::Overloaded => Remedy::Elsewhere,
            Self::UnknownModel => Remedy::NextModel,
            Self::Unauthorized | Self::AccountLimit => Remedy::NextProvider,
            Self::TooLong | Self::Rejected => Remedy::Never,
        }
    }
}

impl Error {
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Stalled { .. }
            | Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::Cut { .. }
            | Self::Garbled { .. } => Remedy::Retry,
            Self::CircuitOpen { .. } | Self::Limited { .. } | Self::LimitUnknown { .. } => Remedy::Elsewhere,
            // Another one may be cheaper.
            Self::Malformed { .. } | Self::OverCost { .. } | Self::OverBudget { .. } | Self::OverLimit { .. } => {
                Remedy::NextModel
            }
            Self::Status { reason, .. } => reason.remedy(),
            _ => Remedy::Never,
        }
    }

    /// Whether asking the same again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::NotBegun | Self::NoBudget { .. })
            || matches!(self.remedy(), Remedy::Retry | Remedy::Elsewhere)
    }

    /// How long whoever answered wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::CircuitOpen { after, .. } => Some(*after),
            Self::Limited { after, .. } => *after,
            _ => None,
        }
    }

    /// With all its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// For programs: a word that does not change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::NotInRoute { .. } => "not_in_route",
            Self::Unpriced { .. } => "unpriced",
            Self::Prompt { .. } => "prompt",
            Self::Schema { .. } => "schema",
            Self::NotBegun => "not_begun",
            Self::OverCost { .. } => "over_cost",
            Self::OverBudget { .. } => "over_budget",
            Self::NoBudget { .. } => "no_budget",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Limited { .. } => "limited",
            Self::OverLimit { .. } => "over_limit",
            Self::LimitUnknown { .. } => "limit_unknown",
            other => other.outcome().map_or("internal", Outcome::as_str),
        }
    }

    /// How an attempt ended that ended like this; `None` where none was made.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        Some(match self {
            Self::Status { reason, .. } => reason.outcome(),
            Self::Timeout { .. } => Outcome::TimedOut,
            Self::Stalled { .. } => Outcome::Stalled,
            Self::Connect { .. } => Outcome::Unreachable,
            Self::Interrupted { .. } => Outcome::Interrupted,
            Self::Cut { .. } => Outcome::Cut,
            Self::Garbled { .. } => Outcome::Garbled,
            Self::Malformed { .. } => Outcome::Malformed,
            Self::TooLarge { .. } => Outcome::TooLarge,
            Self::UnknownFinish { .. } => Outcome::UnknownFinish,
            Self::Mismatch { .. } => Outcome::Mismatch,
            _ => return None,
        })
    }

    /// Whether it says that the provider is ill. Who is asked too much, or wrongly, is well.
    pub(super) fn is_illness(&self) -> bool {
        match self {
            Self::Stalled { .. }
            | Self::Timeout { .. }
            | Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::Cut { .. }
            | Self::Garbled { .. } => true,
            Self::Status { reason, .. } => matches!(reason, Reason::Overloaded | Reason::Server),
            _ => false,
        }
    }
}

/// When there is room in a limit, where that is known.
fn room(after: Option<Duration>) -> String {
    after
        .map_or_else(|| ", and others came first".to_owned(), |after| format!(": no room for {} ms", after.as_millis()))
}

/// A call that came to nothing, and what it cost nevertheless.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Of the last attempt; where none was made, why.
    #[source]
    pub error: Error,
    pub spent: Spent,
}

impl From<Error> for Failed {
    /// Before anything was sent.
    fn from(error: Error) -> Self {
        Self { error, spent: Spent::default() }
    }
}

/// What a call's attempts cost together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// What is known of it.
    pub cost: NanoUsd,
    /// The most that attempts whose cost nobody knows can have cost beside.
    pub unknown: NanoUsd,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Requests that were sent, or tried to be.
    pub attempts: u32,
}

impl Spent {
    /// The most that it can be.
    pub fn most(&self) -> NanoUsd {
        self.cost + self.unknown
    }
}
