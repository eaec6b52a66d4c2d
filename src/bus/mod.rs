//! The door on NATS: what may come in, who does it, and that every sender gets an answer.
//!
//! [`Door`] serves a table of [`Endpoint`]s; [`endpoints::all`] is that table over the pipeline. [`wire`] is the shape
//! of what crosses. [`Sync`] spreads changes between workers. Nothing outside this room and `app` knows of NATS.

pub mod asyncapi;
pub mod client;
pub mod connection;
mod dead;
pub mod door;
pub mod endpoints;
mod job;
pub mod login;
mod models;
pub mod objects;
pub mod options;
mod permits;
mod repeats;
mod reply;
mod service;
pub mod streams;
pub mod submit;
mod submitting;
pub mod sync;
mod weed;
mod window;
pub mod wire;
mod workflows;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use connection::{Connection, connect, shown};
pub use door::{Door, DoorCounts, Stopped};
pub use endpoints::{Call, Endpoint, Lane, Reply, Served};
pub use options::Options;
pub use repeats::Repeats;
pub use streams::Provision;
pub use submit::{Desk, Submits};
pub use submitting::{DeadLetter, Followed, Submitted};
pub use sync::{Change, Confirmed, Heard, LEASE, Sync};
pub use workflows::{Events, Services};

/// The service's name and its queue group: workers in it share the requests.
pub const NAME: &str = "tandem";

/// The version of what workers tell each other. It rises when a word of this version would be misread, and only then;
/// docs/upgrading.md has the rule.
pub const WIRE: u32 = 1;

/// One running worker's id, in `$SRV` and in what workers tell each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Instance(Arc<str>);

impl Instance {
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the bus could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("nats.{key}: {why}")]
    Option { key: &'static str, why: String },
    #[error("nats.{key}: {} can't be read; name a file that this user may read", path.display())]
    File {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("connect to NATS at {urls}: {mend}")]
    Connect {
        /// Without credentials.
        urls: String,
        mend: &'static str,
        #[source]
        source: async_nats::ConnectError,
    },
    #[error("subscribe to {subject}")]
    Subscribe {
        subject: String,
        #[source]
        source: async_nats::SubscribeError,
    },
    #[error("publish to {subject}")]
    Publish {
        subject: String,
        #[source]
        source: async_nats::client::PublishError,
    },
    #[error("the NATS server did not send back a message to oneself within {seconds} s")]
    NoEcho { seconds: u64 },
    #[error("nobody listens on {subject}: no worker is running on this NATS server, or all are overrun")]
    NoWorker { subject: String },
    #[error("no answer on {subject} within {seconds} s")]
    NoAnswer { subject: String, seconds: f64 },
    #[error("ask on {subject}")]
    Ask {
        subject: String,
        #[source]
        source: async_nats::RequestError,
    },
    #[error("{action}")]
    JetStream {
        action: String,
        #[source]
        source: async_nats::Error,
    },
    /// What is missing or is not what durable work rests on.
    #[error("{wrong}; run `tandem provision` with an administrator's credentials")]
    Streams { wrong: String },
    #[error("the server does not let this user do that ({said}); log in as an administrator")]
    Denied { said: String },
    #[error(
        "the server does not let this user fetch kept results ({said}); `tandem request` with the same words and --id \
         has the answer"
    )]
    MayNotFetch { said: String },
    #[error("durable work needs nats-server {oldest} or newer, and this is {version}")]
    OldServer { version: String, oldest: String },
    #[error("an answer that is too large for a message")]
    Fetch(#[from] objects::Error),
    #[error("write a message as JSON")]
    Encode(#[from] serde_json::Error),
}

impl Error {
    /// Whether the same may work later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Option { .. } | Self::File { .. } | Self::Denied { .. } | Self::MayNotFetch { .. } | Self::Encode(_)
        )
    }
}
