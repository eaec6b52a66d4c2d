//! PyPI's llmock, which plays the providers and judges its client. `scripts/setup --tests` installs it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Llmock {
    child: Child,
    port: u16,
}

impl Llmock {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(options: &[&str]) -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tandem/venv/bin/llmock");
        assert!(program.is_file(), "there is no {}: run scripts/setup --tests", program.display());
        // Somebody else may take the free port first: the server then ends at once.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(&program);
            command.args(["serve", "--host", "127.0.0.1", "--log-level", "error", "--port", &port.to_string()]);
            command.args(options);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut llmock = Self { child, port };
            if llmock.is_ready().await {
                return llmock;
            }
        }
        panic!("llmock did not start on five free ports");
    }

    /// The base URL of one provider's format: `v1`, `anthropic` or `gemini`.
    pub fn url(&self, format: &str) -> String {
        format!("http://127.0.0.1:{}/{format}", self.port)
    }

    /// Says this to every request from now on; what was scripted before is forgotten.
    pub async fn says(&self, text: &str) {
        self.http("DELETE", "/_llmock/scenario", "").await.unwrap();
        self.scripts(&json!({"type": "reply", "text": text, "times": null})).await;
    }

    /// Does this at the next request that it fits.
    pub async fn scripts(&self, behavior: &Value) {
        let behaviors = json!({"behaviors": [behavior]});
        let (status, body) = self.http("POST", "/_llmock/scenario", &behaviors.to_string()).await.unwrap();
        assert_eq!(status, 201, "{body}");
    }

    /// What was asked of it, oldest first.
    pub async fn requests(&self) -> Value {
        let (_, body) = self.http("GET", "/_llmock/requests", "").await.unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// How well its client behaved, for people.
    pub async fn verdict(&self) -> String {
        self.http("GET", "/_llmock/verdict?format=text", "").await.unwrap().1
    }

    async fn is_ready(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.http("GET", "/health", "").await.is_some_and(|(status, _)| status == 200) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "llmock is not ready after 30 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn http(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: llmock\r\nconnection: close\r\ncontent-length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
