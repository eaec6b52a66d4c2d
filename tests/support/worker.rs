//! A worker in this process, wired as `tandem serve` wires it, and the folders that it may use.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tandem::app::Worker;
use tandem::config::{Config, Paths};
use tandem::llm::Credentials;

use crate::nats::Nats;

/// Where `scripts/setup` put the model and the runtime.
pub fn assets() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tandem")
}

/// The folders of one or more workers. Clones are the same place: workers there share its SQLite file.
#[derive(Clone)]
pub struct Place {
    folder: Arc<tempfile::TempDir>,
    assets: PathBuf,
}

impl Place {
    /// Without an embedding model: what does not need one starts in no time.
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let assets = folder.path().join("assets");
        Self { folder, assets }
    }

    pub fn with_model() -> Self {
        Self { assets: assets(), ..Self::new() }
    }

    pub fn with_assets(assets: &Path) -> Self {
        Self { assets: assets.to_owned(), ..Self::new() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn database(&self) -> String {
        format!("sqlite:{}", self.path().join("data/tandem.db").display())
    }

    pub fn config(&self, nats: &Nats) -> Config {
        self.config_at(nats.server.url())
    }

    /// Of a worker on the server at this address.
    pub fn config_at(&self, nats_url: &str) -> Config {
        let mut config = Config::default();
        config.nats.urls = vec![nats_url.to_owned()];
        config.database.url = self.database();
        // Who looks at the page gives it a port.
        config.http.listen = String::new();
        // A test asks as often as it likes; `tests/faults/limits.rs` is about the limit.
        config.llm.requests_per_minute = 0;
        // Which template answers is to be the same each time.
        config.agent.choice.explore = 0.0;
        config
    }

    pub async fn worker(&self, nats: &Nats) -> Running {
        self.worker_with(self.config(nats), Credentials::default()).await
    }

    pub async fn worker_with(&self, config: Config, credentials: Credentials) -> Running {
        let paths =
            Paths { data: self.path().join("data"), state: self.path().join("state"), assets: self.assets.clone() };
        let worker = Worker::start(config, &paths, credentials).await.unwrap();
        Running { worker, _place: self.clone() }
    }
}

/// A worker at work. Dropping it is its crash; [`Running::stop`] is its orderly end.
pub struct Running {
    worker: Worker,
    _place: Place,
}

impl Running {
    pub async fn stop(self) {
        self.worker.stop(std::time::Duration::from_secs(10)).await;
    }
}

impl Deref for Running {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}
