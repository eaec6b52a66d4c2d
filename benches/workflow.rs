//! Workflows of steps that do nothing: what carrying them on costs, by durability class.
//!
//!   scripts/bench workflow                     on SQLite and PostgreSQL
//!   scripts/bench workflow --peers             also DBOS on PostgreSQL, in the same minutes
//!   scripts/bench workflow 0.1                 a tenth of it
//!   scripts/bench workflow latency             a part of it: rates, latency, large
//!
//! One worker, in this process, that takes as many steps at a time as there are in flight. History and events are on. A rate counts
//! what is completed in the database at the end. PostgreSQL has its own settings as they come.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

#[allow(dead_code, unreachable_pub, reason = "the tests take more of it")]
#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem::app::Worker;
use tandem::app::nats_server::NatsServer;
use tandem::config::{Config, Paths};
use tandem::domain::workflow::{Graph, Node, Policy, RunOptions, State, Step};
use tandem::domain::{Limits, Task, TaskId, Tenant};
use tandem::llm::Credentials;
use tandem::store::Durability;
use tandem::workflow::{ListFilter, Order};
use tokio::sync::Semaphore;

const IN_FLIGHT: usize = 32;
const WIDE: usize = 10;

/// A worker with its own server and database.
struct Place {
    worker: Worker,
    server: NatsServer,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn new(database: Option<&str>, durability: Durability) -> Self {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
        let folder = tempfile::tempdir().unwrap();
        let server = NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None).await.unwrap();
        let mut config = Config::default();
        config.nats.urls = vec![server.url().to_owned()];
        config.database.url =
            database.map_or_else(|| format!("sqlite:{}", folder.path().join("bench.db").display()), str::to_owned);
        config.database.durability = durability;
        config.http.listen = String::new();
        config.workflow.max_concurrent = IN_FLIGHT * WIDE;
        let at = |name: &str| folder.path().join(name);
        // Without a model: nothing here is looked for by its meaning.
        let paths = Paths { data: at("data"), state: at("state"), assets: at("assets") };
        let worker = Worker::start(config, &paths, Credentials::default()).await.unwrap();
        Self { worker, server, _folder: folder }
    }

    async fn end(self) {
        self.worker.stop(Duration::from_secs(10)).await;
        self.server.stop().await.unwrap();
    }

    /// Waits until the database has no workflow that is running.
    async fn idle(&self) {
        let filter = ListFilter { state: Some(State::Running), limit: 1, ..ListFilter::default() };
        while !self.worker.workflows.list(&Tenant::default(), &filter).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn node(id: String, depends_on: &[String], step: &str) -> Node {
    let task = Task {
        description: format!("do {id}"),
        id: TaskId::new(&id),
        parent: None,
        depends_on: depends_on.iter().map(|id| TaskId::new(id)).collect(),
    };
    Node { task, step: Step::Native { name: step.to_owned() }, policy: Policy::default() }
}

fn order(nodes: Vec<Node>, max_parallel: u32) -> Order {
    let graph = Arc::new(Graph::new(nodes, &Limits { tasks: 100_000, depth: 16 }).unwrap());
    let options = RunOptions { max_parallel, ..RunOptions::default() };
    Order {
        tenant: Tenant::default(),
        request: None,
        goal: None,
        graph,
        options,
        decomposed: None,
        optimized: None,
        follows: None,
    }
}

fn in_a_row() -> Order {
    let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
    order(vec![node(a.clone(), &[], "nothing"), node(b.clone(), &[a], "nothing"), node(c, &[b], "last")], 10)
}

/// Ten steps side by side; each says that it is done.
fn wide() -> Order {
    order((0..WIDE).map(|n| node(format!("n{n}"), &[], "tenth")).collect(), 10)
}

/// Workflows a second, with so many in flight.
async fn rate(place: &Place, make: fn() -> Order, each: u32, count: usize) -> f64 {
    let room = Arc::new(Semaphore::new(IN_FLIGHT * each as usize));
    let workflows = &place.worker.workflows;
    workflows.register("nothing", |_| async { Ok("1".to_owned()) });
    for name in ["last", "tenth"] {
        let room = room.clone();
        workflows.register(name, move |_| {
            room.add_permits(1);
            async { Ok("1".to_owned()) }
        });
    }
    let begun = Instant::now();
    let mut launching = tokio::task::JoinSet::new();
    for _ in 0..count {
        room.acquire_many(each).await.unwrap().forget();
        let workflows = workflows.clone();
        launching.spawn(async move { workflows.launch(make()).await.unwrap() });
    }
    while launching.join_next().await.is_some() {}
    place.idle().await;
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Of one at a time, from the start to where its end is known.
async fn latency(place: &Place, count: usize) -> Vec<Duration> {
    let workflows = &place.worker.workflows;
    for name in ["nothing", "last"] {
        workflows.register(name, |_| async { Ok("1".to_owned()) });
    }
    let mut times = vec![];
    for _ in 0..count {
        let begun = Instant::now();
        let id = workflows.launch(in_a_row()).await.unwrap();
        workflows.wait(&Tenant::default(), id).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times
}

async fn classes(size: f64, url: &str) {
    println!("| {IN_FLIGHT} in flight | three in a row | ten wide |\n|---|---|---|");
    let scaled = |count: usize| ((count as f64 * size) as usize).max(50);
    for (name, database, durability, count) in [
        ("SQLite, survives kill -9", None, Durability::Process, 10_000),
        ("SQLite, survives a loss of power", None, Durability::Power, 5_000),
        ("PostgreSQL, survives a loss of power", Some(url), Durability::Power, 5_000),
    ] {
        let place = Place::new(database, durability).await;
        rate(&place, in_a_row, 1, scaled(500)).await;
        let row = rate(&place, in_a_row, 1, scaled(count)).await;
        let steps = rate(&place, wide, 10, scaled(count / 4)).await * 10.0;
        println!("| {name} | {row:.0} workflows/s | {steps:.0} steps/s |");
        place.end().await;
    }
}

async fn one_at_a_time(size: f64) {
    let place = Place::new(None, Durability::Process).await;
    let times = latency(&place, ((2_000.0 * size) as usize).max(50)).await;
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("\n| one in flight, three in a row, SQLite, survives kill -9 | p50 | p99 |\n|---|---|---|");
    println!("| | {:?} | {:?} |", at(0.5), at(0.99));
    place.end().await;
}

async fn large() {
    let nodes: Vec<Node> = (0..100_000)
        .map(|n: usize| {
            node(
                format!("n{n}"),
                &[n.saturating_sub(7), n / 2]
                    .into_iter()
                    .filter(|d| *d < n)
                    .map(|d| format!("n{d}"))
                    .collect::<Vec<_>>(),
                "nothing",
            )
        })
        .collect();
    let begun = Instant::now();
    let graph = Graph::new(nodes, &Limits { tasks: 100_000, depth: 16 }).unwrap();
    println!("\n100,000 nodes are validated in {:?}", begun.elapsed());
    drop(graph);
    let place = Place::new(None, Durability::Process).await;
    place.worker.workflows.register("nothing", |_| async { Ok("1".to_owned()) });
    let nodes = (0..10_000).map(|n| node(format!("n{n}"), &[], "nothing")).collect();
    let begun = Instant::now();
    let id = place.worker.workflows.launch(order(nodes, 1_000)).await.unwrap();
    place.worker.workflows.wait(&Tenant::default(), id).await.unwrap();
    println!("10,000 nodes that do nothing are run in {:?}", begun.elapsed());
    place.end().await;
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let size: f64 = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let named = |part: &str| words.iter().any(|word| word == part);
    let all = !["rates", "latency", "large"].into_iter().any(named);
    let database = postgres::Postgres::start_with(&[]);
    runtime.block_on(async {
        if all || named("rates") {
            classes(size, &database.url()).await;
        }
        if all || named("latency") {
            one_at_a_time(size).await;
        }
        if all || named("large") {
            large().await;
        }
    });
    drop(database);
    if named("--peers") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers-workflow");
        assert!(std::process::Command::new(script).status().unwrap().success());
    }
}
