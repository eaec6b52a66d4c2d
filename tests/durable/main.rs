//! Durable work on real servers: a submit survives workers, servers, databases and its sender, and has one effect.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test")]

#[path = "../support/fault.rs"]
mod fault;
#[path = "../support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "other tests take more of it")]
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/worker.rs"]
mod worker;

mod command;
mod database;
mod faults;
mod frames;
mod model;
mod streams;
mod submits;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::bus::streams::{DEAD, RESULT, SUBMIT, WORKERS};
use tandem::config::Config;

use nats::Nats;
use worker::Place;

/// The request that the source shows, with an id.
fn example(id: &str) -> Value {
    json!({"task": "Create a NATS consumer for processing user events", "language": "elixir", "cache": "off", "id": id})
}

/// A task that no template accounts for: a model's, or nobody's.
fn declined(id: &str) -> Value {
    let task = "Write a function to find the minimum cost path in a matrix";
    json!({"task": task, "language": "rust", "cache": "off", "id": id})
}

fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// What a test does not wait for 30 seconds for.
const ACK_WAIT: Duration = Duration::from_secs(2);

fn quick(place: &Place, nats: &Nats) -> Config {
    let mut config = place.config(nats);
    config.nats.ack_wait_ms = u64::try_from(ACK_WAIT.as_millis()).unwrap();
    config.nats.retry_delay_ms = 20;
    config
}

/// Submits, and looks at what becomes of it.
#[derive(Clone)]
struct Sender {
    client: Client,
    context: Context,
}

impl Sender {
    async fn of(nats: &Nats) -> Self {
        let client = nats.client().await;
        Self { context: jetstream::new(client.clone()), client }
    }

    /// Its place in the stream.
    async fn submit(&self, body: &Value) -> u64 {
        self.publish("execution.submit", &[], body.to_string().as_bytes()).await
    }

    async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> u64 {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        let sent = self.context.publish_with_headers(subject.to_owned(), map, body.to_vec().into()).await.unwrap();
        sent.await.unwrap().sequence
    }

    /// The kept result, once it is there.
    async fn result(&self, id: &str) -> Value {
        self.result_within(Duration::from_secs(20), id).await
    }

    async fn result_within(&self, limit: Duration, id: &str) -> Value {
        let stream = self.context.get_stream_no_info(RESULT).await.unwrap();
        let subject = format!("execution.result.{id}");
        let kept = within(limit, &subject, async || stream.direct_get_last_for_subject(subject.as_str()).await.ok());
        serde_json::from_slice(&kept.await.payload).unwrap()
    }

    /// Every kept result by its subject.
    async fn results(&self) -> BTreeMap<String, Value> {
        self.kept(RESULT)
            .await
            .into_iter()
            .map(|m| (m.subject.to_string(), serde_json::from_slice(&m.payload).unwrap()))
            .collect()
    }

    async fn dead(&self) -> Vec<StreamMessage> {
        self.kept(DEAD).await
    }

    async fn kept(&self, stream: &str) -> Vec<StreamMessage> {
        let stream = self.context.get_stream_no_info(stream).await.unwrap();
        let (mut all, mut next) = (vec![], 1);
        while let Ok(message) = stream.direct_get_next_for_subject(">", Some(next)).await {
            next = message.sequence + 1;
            all.push(message);
        }
        all
    }

    /// Waits until nothing is left of the submits.
    async fn all_done(&self, limit: Duration) {
        let stream = self.context.get_stream(SUBMIT).await.unwrap();
        let left = async || stream.get_info().await.ok().filter(|info| info.state.messages == 0);
        within(limit, "the stream of submits is empty", left).await;
    }

    async fn in_hand(&self) -> usize {
        let stream = self.context.get_stream_no_info(SUBMIT).await.unwrap();
        stream.consumer_info(WORKERS).await.map_or(0, |info| info.num_ack_pending)
    }

    /// Hears everything below a subject from now on.
    async fn hears(&self, subject: &str) -> Heard {
        let heard = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        Heard(heard)
    }

    async fn health(&self) -> Value {
        let said = self.client.request("execution.health", "{}".into()).await.unwrap();
        nats::json(&said)["components"]["submits"].clone()
    }

    async fn counted(&self) -> Value {
        let said = self.client.request("$SRV.STATS.tandem", "".into()).await.unwrap();
        nats::json(&said)["data"]["submits"].clone()
    }
}

struct Heard(async_nats::Subscriber);

impl Heard {
    async fn next(&mut self) -> async_nats::Message {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
        next.expect("nothing was heard within 20 s").unwrap()
    }

    /// The same answer may be told again: a delivery to a worker that stood still finds the kept reply.
    async fn nothing_but(&mut self, answer: &Value, time: Duration) {
        while let Ok(Some(message)) = tokio::time::timeout(time, self.0.next()).await {
            assert_eq!(nats::json(&message)["correlation_id"], answer["correlation_id"], "{message:?}");
        }
    }

    async fn silent(&mut self, time: Duration) {
        if let Ok(Some(message)) = tokio::time::timeout(time, self.0.next()).await {
            panic!("heard {message:?}");
        }
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
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}
