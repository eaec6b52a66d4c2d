//! One attempt at asking a model. It is logged and counted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CorrelationId, NanoUsd, Tenant, Timestamp};

/// What was sent to a provider, what came of it, and what it cost. Every attempt is one, failed and cut ones too.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    pub tenant: Tenant,
    /// Of the call that it was made for; a call's retries share it.
    pub correlation_id: CorrelationId,
    pub provider: String,
    /// As it was asked for.
    pub model: String,
    pub outcome: Outcome,
    /// False where the request provably never reached the provider.
    pub sent: bool,
    pub counted: Counted,
    /// `None` where nobody knows: it was sent, and how it ended was not told.
    pub cost: Option<NanoUsd>,
    /// The most that it can have cost.
    pub worst: NanoUsd,
    pub duration: Duration,
    /// From sending to the first token; only a stream shows it.
    pub first_token: Option<Duration>,
}

impl Attempt {
    /// What it counts as against a budget: what nobody knows counts at its worst.
    pub fn most(&self) -> NanoUsd {
        self.cost.unwrap_or(self.worst)
    }
}

/// Tokens as the provider counted them; null is what it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "TokenCounts")]
pub struct Counted {
    /// All input, what went through the provider's cache included.
    pub input: Option<u64>,
    /// All output, thoughts included.
    pub output: Option<u64>,
    pub cached: Option<u64>,
    pub cache_write: Option<u64>,
    pub reasoning: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model said all that it had to say.
    Done,
    /// It ran into the limit of output tokens.
    Truncated,
    /// It, or a filter of the provider, would not answer.
    Refused,
    /// It stopped for a reason that Tandem does not know.
    UnknownFinish,
    /// What it said is not what the schema asks for.
    Mismatch,
    RateLimited,
    Overloaded,
    /// The provider said that the fault is its own.
    ServerError,
    /// The provider said that the request is wrong.
    Rejected,
    /// The key is wrong or may not do this.
    Unauthorized,
    UnknownModel,
    /// The account with the provider is empty or has reached its limit.
    AccountLimit,
    /// The prompt is longer than the model can read.
    TooLong,
    /// No connection was made.
    Unreachable,
    /// The connection broke.
    Interrupted,
    /// The stream ended before the answer did.
    Cut,
    /// Nothing came for too long.
    Stalled,
    /// The time given to the call was over.
    TimedOut,
    /// What came is no JSON, or nothing came.
    Garbled,
    /// What came has another form than the provider's.
    Malformed,
    TooLarge,
    /// Given up by whoever asked, or because another attempt was faster.
    Cancelled,
    /// Its worker died. What that one had of a budget and had not accounted for is one entry: nobody knows how many
    /// attempts it stands for.
    Abandoned,
}

/// What attempts that ended alike come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub provider: String,
    pub model: String,
    pub outcome: Outcome,
    pub attempts: u64,
    /// Those that may have reached the provider.
    pub sent: u64,
    /// What is known of the cost.
    pub cost: NanoUsd,
    /// Attempts of unknown cost, and the most that they can have cost together.
    pub unknown: u64,
    pub unknown_cost: NanoUsd,
    /// Of those whose provider counted them.
    pub tokens: Counted,
    pub time: Duration,
}

impl Outcome {
    pub const ALL: [Self; 23] = [
        Self::Done,
        Self::Truncated,
        Self::Refused,
        Self::UnknownFinish,
        Self::Mismatch,
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::Rejected,
        Self::Unauthorized,
        Self::UnknownModel,
        Self::AccountLimit,
        Self::TooLong,
        Self::Unreachable,
        Self::Interrupted,
        Self::Cut,
        Self::Stalled,
        Self::TimedOut,
        Self::Garbled,
        Self::Malformed,
        Self::TooLarge,
        Self::Cancelled,
        Self::Abandoned,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::UnknownFinish => "unknown_finish",
            Self::Mismatch => "mismatch",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Rejected => "rejected",
            Self::Unauthorized => "unauthorized",
            Self::UnknownModel => "unknown_model",
            Self::AccountLimit => "account_limit",
            Self::TooLong => "too_long",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
            Self::Cut => "cut",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed_out",
            Self::Garbled => "garbled",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
        }
    }
}
