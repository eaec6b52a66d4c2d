//! The door on a real nats-server: what strangers may send, what they get, and that nobody waits for nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/worker.rs"]
mod worker;

mod input;
mod load;
mod reply;
mod server;
mod service;
mod sync;

use std::time::Duration;

use futures::future::BoxFuture;
use schemars::schema_for;
use tandem::bus::wire::Refusal;
use tandem::bus::{Call, Door, Endpoint, Instance, Lane, Options, Reply, Served};
use tandem::domain::Timestamp;

use nats::Nats;
use worker::{Place, Running};

/// A task that the rules are sure of.
const TASK: &str = r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir"}"#;

/// A worker with a database of its own and without an embedding model.
async fn worker(nats: &Nats) -> Running {
    Place::new().worker(nats).await
}

async fn open(nats: &Nats, endpoints: Vec<Endpoint>, options: &Options) -> Door {
    let connection = nats.connection().await;
    Door::open(connection, Instance::generate(), endpoints, options, Timestamp::now).await.unwrap()
}

/// An endpoint on `test.work` that does `work` under a permit.
fn work(work: impl Fn(Call) -> BoxFuture<'static, Result<Reply, Refusal>> + Send + Sync + 'static) -> Endpoint {
    endpoint("work", Lane::Work, move |call| Served::Later { work: work(call), timeout: Duration::from_secs(30) })
}

fn endpoint(name: &'static str, lane: Lane, serve: impl Fn(Call) -> Served + Send + Sync + 'static) -> Endpoint {
    Endpoint {
        name,
        subject: match name {
            "work" => "test.work",
            _ => "test.query",
        },
        summary: "For a test.",
        lane,
        takes: || schema_for!(String),
        gives: || schema_for!(String),
        serve: Box::new(serve),
    }
}
