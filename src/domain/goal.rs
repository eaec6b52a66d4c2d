use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CorrelationId, Language, NanoUsd, RequestId, Tag, Tenant};

/// How demanding the sender thinks the task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Complexity {
    Simple,
    #[default]
    Medium,
    Complex,
}

impl Complexity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Medium => "medium",
            Self::Complex => "complex",
        }
    }
}

impl FromStr for Complexity {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim().to_lowercase().as_str() {
            "simple" => Ok(Self::Simple),
            "medium" => Ok(Self::Medium),
            "complex" => Ok(Self::Complex),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Complexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the cache may do for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// Look up, and store after success.
    #[default]
    Use,
    /// Make the answer anew and replace what is stored.
    Refresh,
    /// Neither look up nor store.
    Off,
}

/// One message of a conversation that the task continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SaidMessage")]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    pub content: String,
}

/// What surrounds a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// Never part of a cache key and never shown to a model.
    pub workspace: Option<String>,
    /// Every other field, as its JSON text. Those that the configuration lists (`cache.context_fields`)
    /// are part of the cache key and the only ones a model is shown; the rest changes no answer.
    pub fields: BTreeMap<String, String>,
    pub messages: Vec<Message>,
}

/// What is to be done, without who asked and how long they wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    pub description: String,
    pub language: Language,
    pub complexity: Complexity,
    pub acceptance_criteria: Vec<String>,
    pub context: Context,
    /// They change no answer: what is made for the goal is stored under them.
    pub tags: Vec<Tag>,
}

/// A request that was checked at the door.
#[derive(Debug, Clone)]
pub struct Request {
    pub tenant: Tenant,
    pub correlation_id: CorrelationId,
    pub id: Option<RequestId>,
    /// SHA-256 of the body, to tell a repeated `id` from a reused one.
    pub body_hash: [u8; 32],
    pub goal: Arc<Goal>,
    pub cache: CacheMode,
    pub max_cost: Option<NanoUsd>,
    pub timeout: Duration,
    /// Where a submit's answer is also to be sent, in the sender's words.
    pub reply_to: Option<String>,
    /// What was understood otherwise than written: "language 'pyhton' was read as python".
    pub notes: Vec<String>,
}
