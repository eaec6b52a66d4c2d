use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of the characters A-Z a-z 0-9 _ and -")]
pub struct IdError;

fn check(text: &str) -> Result<(), IdError> {
    let good =
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good { Ok(()) } else { Err(IdError) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[schemars(with = "String")]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// Whose cache, limits and statistics a request touches. No suffix on the subject is [`Tenant::default`].
    Tenant
);
id!(
    /// The client's own `id`: an idempotency key within its tenant.
    RequestId
);
id!(
    /// A template's id, as in its front matter: `elixir-nats-consumer`.
    TemplateId
);
id!(
    /// A sender's own name for a kind of answers, by which they can be taken back from the cache.
    Tag
);
id!(
    /// Made by the worker, one per request; it stands in every log line, event and reply of that request.
    CorrelationId
);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl RequestId {
    /// For a sender that brings none.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }

    /// For work whose sender gave it no id: its place in a queue, and when it came there.
    pub fn numbered(sequence: u64, at_ms: u64) -> Self {
        Self(format!("submit-{sequence}-{at_ms}").into())
    }
}

impl CorrelationId {
    /// Ordered by time, so that rows written together lie together.
    pub fn generate() -> Self {
        Self(format!("exec_{}", uuid::Uuid::now_v7().simple()).into())
    }

    /// When [`Self::generate`] made it, to the millisecond; `None` for an id that somebody else made.
    pub fn made_at(&self) -> Option<Timestamp> {
        let id = uuid::Uuid::try_parse(self.0.strip_prefix("exec_")?).ok()?;
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        Some(Timestamp(i64::try_from(seconds).ok()? * 1_000 + i64::from(nanos / 1_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_be_a_subject_or_a_path() {
        for bad in ["", "a.b", "a/b", "a b", "*", ">", "ü", &"x".repeat(65)] {
            assert_eq!(Tenant::parse(bad), Err(IdError), "{bad:?}");
        }
        assert!(RequestId::parse("order-17_b").is_ok());
        assert!(CorrelationId::parse(CorrelationId::generate().as_str()).is_ok());
    }
}
