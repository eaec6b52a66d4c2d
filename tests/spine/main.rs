//! The whole path on real parts: nats-server, SQLite, PostgreSQL, the embedding model, providers over HTTP. Each test
//! names what a user gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test")]

#[path = "../support/llmock.rs"]
mod llmock;
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

mod ask;
mod compound;
mod damage;
mod example;
mod ids;
mod input;
mod lineage;
mod meaning;
mod model;
mod operate;
mod out;
mod share;
mod verdict;
mod whole;

use std::time::{Duration, Instant};

use async_nats::{Client, Message};
use serde_json::{Value, json};

use nats::{Nats, header};

/// The request that the source shows.
fn example() -> Value {
    json!({
        "task": "Create a NATS consumer for processing user events",
        "language": "elixir",
        "complexity": "medium",
        "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex"}
    })
}

/// A task that no template accounts for: a model's, or nobody's.
fn declined() -> Value {
    json!({"task": "Write a function to find the minimum cost path in a matrix", "language": "rust"})
}

/// `body` with some fields put in place.
fn with(body: &Value, fields: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// A stranger's client.
#[derive(Clone)]
struct Asker(Client);

impl Asker {
    async fn of(nats: &Nats) -> Self {
        Self(nats.client().await)
    }

    async fn message(&self, subject: &str, body: &Value) -> Message {
        let asked = self.0.request(subject.to_owned(), body.to_string().into()).await;
        asked.unwrap_or_else(|error| panic!("{subject} {body}: {error}"))
    }

    /// An answer that is no error.
    async fn ask(&self, subject: &str, body: &Value) -> Value {
        let message = self.message(subject, body).await;
        let answer = nats::json(&message);
        assert_eq!(header(&message, "Nats-Service-Error-Code"), None, "{subject} {body}: {answer}");
        answer
    }

    async fn request(&self, body: &Value) -> Value {
        self.ask("execution.request", body).await
    }

    /// An error: its status and the whole of it.
    async fn refused(&self, subject: &str, body: &Value) -> (String, Value) {
        let message = self.message(subject, body).await;
        let error = nats::json(&message);
        let status = header(&message, "Nats-Service-Error-Code");
        (status.unwrap_or_else(|| panic!("{subject} {body} was not refused: {error}")).to_owned(), error)
    }

    async fn judge(&self, subject: &str, answer: &Value, verdict: &str) -> Value {
        self.ask(subject, &json!({"correlation_id": answer["correlation_id"], "verdict": verdict})).await
    }
}

/// Looks until there is something to see; says what was missed after ten seconds.
async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(10), what, look).await
}

async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn names(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_else(|| panic!("no text '{field}' in {object}"))
}
