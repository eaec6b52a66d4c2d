//! How fast the door is, beside echo services under the same load in the same minute.
//! `scripts/bench door` prints the table: each goal with its figure, reached or not.
//!
//! The services and the worker are processes of their own; this one makes the load. Rounds of all services are
//! interleaved, and what counts is the median of the rounds' ratios: on a shared machine, single figures wander.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tandem::app::nats_server::NatsServer;
use tokio::sync::Semaphore;
use tokio_util::bytes::Bytes;

/// Set in a child: it is an echo service of this shape and no bench.
const SHAPE: &str = "TANDEM_BENCH_SHAPE";
const SERVER: &str = "TANDEM_BENCH_SERVER";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);

const BODY: &str = r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir"}"#;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let (Ok(shape), Ok(server)) = (std::env::var(SHAPE), std::env::var(SERVER)) {
        return runtime.block_on(echo(&shape, &server));
    }
    runtime.block_on(bench());
}

async fn bench() {
    let folder = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
    let server = NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None).await.unwrap();
    let clients = [async_nats::connect(server.url()).await.unwrap(), async_nats::connect(server.url()).await.unwrap()];
    let worker = start_worker(server.url(), folder.path(), &assets);
    answered(&clients[0], "execution.request").await;
    // Learnt, stored and embedded: from here on it is an exact hit.
    let answer = answered(&clients[0], "execution.request").await;
    let shaped = start_echo("shaped", server.url(), answer.len());
    let bare = start_echo("bare", server.url(), answer.len());
    answered(&clients[0], "bench.shaped").await;
    answered(&clients[0], "bench.bare").await;
    let load = |subject: &'static str, in_flight: usize| run(clients.to_vec(), subject, in_flight, ROUND);

    let mut table = Table::default();
    println!("answers of {} bytes, {ROUNDS} rounds of {:.1} s each\n", answer.len(), ROUND.as_secs_f64());
    for _ in 0..ROUNDS {
        let [b, s] = [load("bench.bare", 256).await, load("bench.shaped", 256).await];
        let before = cpu(worker.0.id());
        let w = load("execution.request", 256).await;
        let spent = cpu(worker.0.id()) - before;
        table.add("exact hits at 256 in flight / bare echo", Goal::AtLeast(0.55), w.rate() / b.rate(), "");
        table.add("exact hits at 256 in flight / echo of the same shape", Goal::AtLeast(0.9), w.rate() / s.rate(), "");
        table.add("worker CPU for an exact hit", Goal::AtMost(8.0), spent.as_secs_f64() * 1e6 / w.done() as f64, "µs");
        table.add("(exact hits at 256 in flight)", Goal::None, w.rate(), "/s");
        table.add("(bare echo at 256 in flight)", Goal::None, b.rate(), "/s");
        let [s, w] = [load("bench.shaped", 16).await, load("execution.request", 16).await];
        let ratio = w.percentile(0.99).as_secs_f64() / s.percentile(0.99).as_secs_f64();
        table.add("p99 at 16 in flight / echo of the same shape", Goal::AtMost(1.5), ratio, "");
        let [b, w] = [load("bench.bare", 1).await, load("execution.request", 1).await];
        let added = w.percentile(0.5).as_secs_f64() - b.percentile(0.5).as_secs_f64();
        table.add("p50 added at one in flight", Goal::AtMost(30.0), added * 1e6, "µs");
    }
    table.print();
    drop((worker, shaped, bare, clients));
    let _ = server.stop().await;
}

/// What one round of load saw.
struct Round {
    took: Duration,
    latencies: Vec<Duration>,
}

impl Round {
    fn done(&self) -> usize {
        self.latencies.len()
    }

    fn rate(&self) -> f64 {
        self.done() as f64 / self.took.as_secs_f64()
    }

    fn percentile(&self, share: f64) -> Duration {
        self.latencies[((self.latencies.len() - 1) as f64 * share) as usize]
    }
}

/// `in_flight` senders, each with its next request as soon as the last one is answered.
async fn run(clients: Vec<Client>, subject: &'static str, in_flight: usize, time: Duration) -> Round {
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let senders: Vec<_> = (0..in_flight)
        .map(|i| {
            let (client, over) = (clients[i % clients.len()].clone(), over.clone());
            tokio::spawn(async move {
                let mut latencies = vec![];
                while !over.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    let reply = client.request(subject, Bytes::from_static(BODY.as_bytes())).await.unwrap();
                    assert!(reply.payload.len() > 500, "{}", String::from_utf8_lossy(&reply.payload));
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut latencies: Vec<Duration> = vec![];
    for sender in senders {
        latencies.extend(sender.await.unwrap());
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    Round { took, latencies }
}

async fn answered(client: &Client, subject: &'static str) -> Bytes {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match client.request(subject, Bytes::from_static(BODY.as_bytes())).await {
            Ok(reply) => return reply.payload,
            Err(error) if Instant::now() > until => panic!("{subject}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_worker(server: &str, folder: &Path, assets: &Path) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .arg("serve")
        .env("NATS_URL", server)
        .env("DATABASE_URL", format!("sqlite://{}", folder.join("door.db").display()))
        .env("TANDEM_ASSETS", assets)
        .env("TANDEM__LOG__FORMAT", "json")
        .stderr(Stdio::from(std::fs::File::create(folder.join("worker.log")).unwrap()))
        .spawn();
    Process(child.unwrap())
}

fn start_echo(shape: &str, server: &str, answer: usize) -> Process {
    let me: PathBuf = std::env::current_exe().unwrap();
    let child =
        Command::new(me).env(SHAPE, shape).env(SERVER, server).env("TANDEM_BENCH_ANSWER", answer.to_string()).spawn();
    Process(child.unwrap())
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 =
        stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "read as a service would")]
struct Asked {
    task: String,
    language: Option<String>,
}

#[derive(Serialize)]
struct Told<'a> {
    result: &'a str,
    correlation_id: String,
    method: &'static str,
}

/// `bare`: sends a ready answer back from its receive loop. `shaped`: a semaphore, a task for each request, JSON in and
/// out.
async fn echo(shape: &str, server: &str) {
    let client = async_nats::connect(server).await.unwrap();
    let length: usize = std::env::var("TANDEM_BENCH_ANSWER").unwrap().parse().unwrap();
    let mut messages = client.queue_subscribe(format!("bench.{shape}"), "bench".to_owned()).await.unwrap();
    let text: Arc<str> = "x".repeat(length.saturating_sub(100)).into();
    let ready = Bytes::from(vec![b'x'; length]);
    let permits = Arc::new(Semaphore::new(256));
    let served = Arc::new(AtomicU64::new(0));
    while let Some(message) = messages.next().await {
        let Some(to) = message.reply else { continue };
        if shape == "bare" {
            client.publish(to, ready.clone()).await.unwrap();
            continue;
        }
        let permit = permits.clone().acquire_owned().await.unwrap();
        let (client, text, served) = (client.clone(), text.clone(), served.clone());
        tokio::spawn(async move {
            let asked: Asked = serde_json::from_slice(&message.payload).unwrap();
            let number = served.fetch_add(1, Ordering::Relaxed);
            let told = Told { result: &text, correlation_id: format!("{}-{number}", asked.task.len()), method: "echo" };
            client.publish(to, serde_json::to_vec(&told).unwrap().into()).await.unwrap();
            drop(permit);
        });
    }
}

#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// Rows in the order in which they were first added, each with the figure of every round.
#[derive(Default)]
struct Table(Vec<(&'static str, Goal, Vec<f64>, &'static str)>);

impl Table {
    fn add(&mut self, name: &'static str, goal: Goal, figure: f64, unit: &'static str) {
        match self.0.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.2.push(figure),
            None => self.0.push((name, goal, vec![figure], unit)),
        }
    }

    fn print(&mut self) {
        println!("{:<56} {:>10} {:>22} {:>10}", "", "median", "least … most", "goal");
        for (name, goal, figures, unit) in &mut self.0 {
            figures.sort_by(f64::total_cmp);
            let (least, median, most) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
            let (wanted, reached) = match *goal {
                Goal::AtLeast(x) => (format!("≥ {x}"), if median >= x { "reached" } else { "MISSED" }),
                Goal::AtMost(x) => (format!("≤ {x}"), if median <= x { "reached" } else { "MISSED" }),
                Goal::None => (String::new(), ""),
            };
            println!(
                "{name:<56} {median:>7.2} {unit:<3} {:>21} {wanted:>10} {reached}",
                format!("{least:.2} … {most:.2}")
            );
        }
    }
}
