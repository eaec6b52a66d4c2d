use std::time::Duration;

use super::Provider;

/// Why there is no completion. Never holds a key, a prompt or a body; what a provider said is bounded and redacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "no model is configured: set ANTHROPIC_API_KEY, OPENAI_API_KEY, GOOGLE_AI_STUDIO_API_KEY or OPENAI_BASE_URL"
    )]
    NotConfigured,
    #[error("{model} has no price, so it is not asked: give it one under llm.prices.\"{model}\"")]
    Unpriced { model: String },
    #[error("{entry:?} is no model: {problem}")]
    Model { entry: String, problem: &'static str },
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
    #[error("write the request to {model}")]
    Encode { model: String, source: serde_json::Error },
    #[error("{model} did not answer in time")]
    Timeout { model: String },
    /// Nothing was sent.
    #[error("connect to {model}")]
    Connect { model: String, source: reqwest::Error },
    /// Broken off while sending or reading: the provider may have done, and may bill, the work.
    #[error("the connection to {model} broke")]
    Interrupted { model: String, source: reqwest::Error },
    #[error("{model} answered {status}: {message}")]
    Status {
        model: String,
        status: u16,
        /// The provider's own word for it: `rate_limit_error`, `insufficient_quota`, `RESOURCE_EXHAUSTED`.
        code: Option<String>,
        message: String,
        retry_after: Option<Duration>,
    },
    /// Answered, but not in the provider's format.
    #[error("{model} answered something unreadable: {problem}")]
    Malformed { model: String, problem: String },
    #[error("{model} answered more than {limit} bytes")]
    TooLarge { model: String, limit: usize },
}

impl Error {
    /// Whether asking again, later or elsewhere, can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connect { .. } | Self::Interrupted { .. } => true,
            // Said with 429, but waiting does not fill an account.
            Self::Status { code: Some(code), .. } if code == "insufficient_quota" => false,
            Self::Status { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}
