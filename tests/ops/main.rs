//! What an operator does and sees: health, figures, traces, what is deleted and when, copies, the files for systemd,
//! Grafana and Prometheus. On real parts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test")]

#[macro_use]
#[path = "../support/both.rs"]
mod both;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "other tests take more of it")]
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/provider.rs"]
mod provider;
#[path = "../support/worker.rs"]
mod worker;

mod backup;
mod files;
mod money;
mod page;
mod purge;
mod retention;
mod traces;

use std::time::{Duration, Instant};

use async_nats::Client;
use serde_json::{Value, json};

/// The request that the source shows.
fn example() -> Value {
    json!({"task": "Create a NATS consumer for processing user events", "language": "elixir"})
}

/// A task that no template accounts for: a model's, or nobody's.
fn declined() -> Value {
    json!({"task": "Write a function to find the minimum cost path in a matrix", "language": "rust"})
}

async fn ask(client: &Client, subject: &str, body: &Value) -> Value {
    let message = client.request(subject.to_owned(), body.to_string().into()).await;
    nats::json(&message.unwrap_or_else(|error| panic!("{subject} {body}: {error}")))
}

/// Status and body.
async fn get(address: &str, path: &str) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{address}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Looks until there is something to see; says what was missed after ten seconds.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One sample of a scrape, by its name with its labels.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
