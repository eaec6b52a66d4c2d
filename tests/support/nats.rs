//! A real nats-server for one test: own port, own folder, gone with the test.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, Message};
use serde_json::Value;
use tandem::app::nats_server::NatsServer;
use tandem::bus::{self, Connection, Options};

pub struct Nats {
    pub server: NatsServer,
    folder: tempfile::TempDir,
}

/// Where `scripts/` put the pinned server.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tandem/bin/nats-server")
}

impl Nats {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = NatsServer::start(&binary(), folder.path(), None).await.unwrap();
        Self { server, folder }
    }

    /// Ends the server, and starts it again on the same port and folder.
    pub async fn restart(self) -> Self {
        let port = self.server.port();
        self.server.stop().await.unwrap();
        let server = NatsServer::start(&binary(), self.folder.path(), Some(port)).await.unwrap();
        Self { server, folder: self.folder }
    }

    /// kill -9, and started again on the same port and folder.
    pub async fn crash(self) -> Self {
        let pid = self.server.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        self.restart().await
    }

    /// kill -9, and started again without anything that JetStream had written.
    pub async fn restart_empty(self) -> Self {
        let (port, pid) = (self.server.port(), self.server.pid().to_string());
        // Under the running server.
        let kept = self.folder.path().join("jetstream");
        assert!(kept.is_dir(), "there is no {}", kept.display());
        std::fs::remove_dir_all(&kept).unwrap();
        assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        self.server.stop().await.unwrap();
        // What it wrote after that.
        let _gone = std::fs::remove_dir_all(&kept);
        let server = NatsServer::start(&binary(), self.folder.path(), Some(port)).await.unwrap();
        Self { server, folder: self.folder }
    }

    /// What the server said last.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nats-server.log")).unwrap_or_default()
    }

    pub fn options(&self) -> Options {
        Options { urls: vec![self.server.url().to_owned()], ..Options::default() }
    }

    pub async fn connection(&self) -> Connection {
        bus::connect(&self.options()).await.unwrap()
    }

    /// A stranger's client, apart from the worker's connection.
    pub async fn client(&self) -> Client {
        let options = async_nats::ConnectOptions::new().request_timeout(Some(Duration::from_secs(10)));
        options.connect(self.server.url()).await.unwrap()
    }
}

pub fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

pub fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}
