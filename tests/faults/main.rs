//! What a stranger, a crash or an absent neighbour can do to the door of request/reply, on real servers. Each test says
//! its figure and the limit; `scripts/test --faults` runs them at full size and shows the table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test"
)]

#[path = "../support/fault.rs"]
mod fault;
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

mod clock;
mod coherence;
mod database;
mod flight;
mod flood;
mod hostile;
mod large;
mod limits;
mod model;
mod money;
mod proxy;
mod server;
mod tenants;
mod workers;

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{Client, Message};
use serde_json::{Value, json};

use nats::{Nats, header};
use process::{Served, tandem};

/// The rules are sure of it.
const TASK: &str = "Create a NATS consumer for processing user events";

/// Done by rules each time, or known from the second time on.
fn task(cache: &str) -> Value {
    json!({"task": TASK, "language": "elixir", "cache": cache})
}

/// A task that only a model can do.
fn for_a_model(n: usize) -> Value {
    json!({"task": format!("Write a function to find the minimum cost path number {n} in a matrix"), "language": "rust"})
}

async fn ask(client: &Client, subject: &str, body: &Value) -> Message {
    let asked = client.request(subject.to_owned(), body.to_string().into()).await;
    asked.unwrap_or_else(|error| panic!("{subject} {body}: {error}"))
}

/// The status of an error; `None` is an answer.
fn status(message: &Message) -> Option<&str> {
    header(message, "Nats-Service-Error-Code")
}

async fn answer(client: &Client, subject: &str, body: &Value) -> Value {
    let message = ask(client, subject, body).await;
    let answer = nats::json(&message);
    assert_eq!(status(&message), None, "{subject} {body}: {answer}");
    answer
}

/// A worker as a process, with its database in `folder` and without an embedding model.
async fn serve(nats: &Nats, folder: &Path, more: &[(&str, &str)]) -> Served {
    let database = format!("sqlite:{}", folder.join("tandem.db").display());
    let none = folder.join("none").display().to_string();
    let mut variables = vec![
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", database.as_str()),
        ("TANDEM_ASSETS", none.as_str()),
        ("TANDEM__LOG__LEVEL", "warn,tandem::app=info"),
        // `limits.rs` is about it.
        ("TANDEM__LLM__REQUESTS_PER_MINUTE", "0"),
    ];
    variables.extend(more);
    let mut served = Served::start(tandem(folder, &variables, &["serve"]));
    served.ready().await;
    served
}

/// Looks until there is something to see; says after `limit` what was missed, else how long it took.
async fn until<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return (seen, begun.elapsed());
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks anew every few milliseconds until there is an answer, and says how long that took.
async fn until_served(client: &Client, limit: Duration) -> Duration {
    let served = async || {
        let asked = client.request("execution.request", task("use").to_string().into());
        let reply = tokio::time::timeout(Duration::from_millis(250), asked).await;
        matches!(reply, Ok(Ok(message)) if status(&message).is_none()).then_some(())
    };
    until(limit, "a request is served", served).await.1
}

/// What a process has used: time on a core, and memory in MiB.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // The kernel shows hundredths of a second, whatever its own clock.
    Duration::from_millis(ticks * 10)
}

fn memory_mib(pid: u32, which: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// What `$SRV.STATS` of the only worker has under `data`.
async fn counted(client: &Client, what: &str) -> u64 {
    let stats = client.request("$SRV.STATS.tandem", "".into()).await.unwrap();
    nats::json(&stats)["data"][what].as_u64().unwrap()
}
