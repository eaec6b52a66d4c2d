//! How fast the door is, beside echo services under the same load in the same minute.
//! `scripts/bench door` prints the table: each goal with its figure, reached or not.
//!
//! The services and the worker are processes of their own; this one makes the load. Rounds of all services are
//! interleaved, and what counts is the median of the rounds' ratios: on a shared machine, single figures wander.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

mod durable;
mod load;
mod services;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::Client;
use tandem::app::nats_server::NatsServer;
use tokio_util::bytes::Bytes;

use table::{Goal, Table};

/// Says that this process is a service and no bench; its shape, its server and the length of its answers follow.
const SERVICE: &str = "--service";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);

const BODY: &str = r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir"}"#;
/// Work each time: by the rules.
const WORK: &str =
    r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir", "cache": "off"}"#;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [SERVICE, shape, server, answer] = &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let answer = answer.parse().unwrap();
        return match *shape {
            "durable" => runtime.block_on(durable::serve(server, answer)),
            shape => runtime.block_on(services::echo(shape, server, answer)),
        };
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
    let load =
        |subject: &'static str, in_flight: usize| load::closed(clients.to_vec(), subject, BODY, in_flight, ROUND);
    let durable = start_echo("durable", server.url(), answer.len());

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

        let peak = load::closed(clients.to_vec(), "execution.request", WORK, 64, ROUND).await;
        let flood = load::open(clients[0].clone(), "execution.request", WORK, 2.0 * peak.rate(), ROUND).await;
        assert_eq!(flood.lost, 0, "every sender is answered");
        let good = flood.good as f64 / flood.took.as_secs_f64();
        table.add("goodput at twice the peak / peak, work by rules", Goal::AtLeast(0.9), good / peak.rate(), "");
        table.add("(peak of work by rules at 64 in flight)", Goal::None, peak.rate(), "/s");
        if let Some(waited) = flood.shed.get(flood.shed.len() * 99 / 100) {
            table.add("p99 of a 503 at twice the peak", Goal::AtMost(10.0), waited.as_secs_f64() * 1e3, "ms");
        }

        let alone = durable::round_trips(server.url(), "bench.durable", 64, ROUND).await;
        let whole = durable::round_trips(server.url(), "execution.submit", 64, ROUND).await;
        let commits = durable::commits(folder.path(), 64, ROUND).await;
        table.add("durable round trips at 64 in flight / JetStream alone", Goal::AtLeast(0.7), whole / alone, "");
        table.add("durable round trips / what the database alone commits", Goal::None, whole / commits, "");
        table.add("(durable round trips at 64 in flight)", Goal::None, whole, "/s");
        table.add("(JetStream alone at 64 in flight)", Goal::None, alone, "/s");
        table.add("(ids that the database alone claims and settles)", Goal::None, commits, "/s");
    }
    drop(worker);
    let idle = start_worker(server.url(), &folder.path().join("idle"), Path::new("/nowhere"));
    answered(&clients[0], "execution.request").await;
    table.add("idle worker without the model", Goal::AtMost(40.0), resident(idle.0.id()), "MiB");
    table.print();
    drop((idle, shaped, bare, durable, clients));
    let _ = server.stop().await;
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
    std::fs::create_dir_all(folder).unwrap();
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
    Process(Command::new(me).args([SERVICE, shape, server, &answer.to_string()]).spawn().unwrap())
}

/// MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 =
        stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
