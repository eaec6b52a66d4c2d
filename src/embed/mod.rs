//! All embedding: texts become unit vectors whose dot product says how near their meanings are.
//!
//! [`Embedder`] is the handle that everybody shares; behind it one thread owns one [`Embed`] and takes what waits in turn.

mod assets;
mod embedder;
mod fast;
mod hashed;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use embedder::Embedder;
pub use fast::FastEmbed;
pub use hashed::Hashed;

/// Names the model that ships, with all that changes its vectors (weights, pooling, length). It is known without
/// loading the model, so that scopes stay the same while the assets are missing.
pub const MODEL_VERSION: &str = "all-MiniLM-L6-v2-int8/1a773b9f/mean/256";

/// Something that turns texts into vectors.
pub trait Embed: Send {
    /// Vectors of one version never meet those of another.
    fn version(&self) -> &str;

    /// A vector, of one length for all texts.
    fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error>;
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Threads that one embedding may use. One, so that a lookup leaves the other cores to requests.
    pub threads: usize,
    /// Texts that may wait; above, an embedding is refused as busy. At some 2 ms each, 256 is half
    /// a second of work, as long as a request should wait.
    pub queue: usize,
    /// Vectors kept by text (1.5 KiB each), for lookups and puts that follow each other.
    pub recent: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, queue: 256, recent: 2048 }
    }
}

/// Why there is no vector.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("read the list of assets that is built into this binary")]
    Pins { source: Arc<toml::de::Error> },
    #[error("{} is missing; {MEND}", file.display())]
    Missing { file: PathBuf },
    #[error("{} is damaged ({why}); remove it, then {MEND}", file.display())]
    Damaged { file: PathBuf, why: String },
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: Arc<std::io::Error> },
    #[error("load the ONNX runtime from {}: {why}; {MEND}", file.display())]
    Runtime { file: PathBuf, why: String },
    #[error("load the embedding model {}", file.display())]
    Model { file: PathBuf, source: Arc<fastembed::Error> },
    #[error("embed a text")]
    Embed { source: Arc<fastembed::Error> },
    #[error("the embedding model gave {0}")]
    Unusable(&'static str),
    #[error("the embedding model panicked")]
    Panicked,
    #[error("too many texts wait to be embedded")]
    Busy,
    #[error("start the embedding thread")]
    Start { source: Arc<std::io::Error> },
    #[error("the embedding thread has stopped")]
    Stopped,
}

const MEND: &str = "run ./scripts/setup, or set TANDEM_ASSETS to the folder that holds onnxruntime/ and embedding/";

impl Error {
    /// Whether trying again later can help without anybody mending anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Panicked | Self::Embed { .. })
    }
}
