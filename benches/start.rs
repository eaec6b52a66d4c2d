//! How long a worker with 10,000 cached entries takes to be ready, and how much memory it then holds.
//! `scripts/bench start` runs the real binary; the entries are made with `Hashed` vectors, which cost as much to load.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use tandem::app::nats_server::NatsServer;
use tandem::cache::Key;
use tandem::domain::record::{CacheEntry, EntryId, EntryKind};
use tandem::domain::{Answer, Complexity, Context, CorrelationId, Goal, Language, Method, TaskType, Tenant, Timestamp};
use tandem::store::{Options, Store};

const ENTRIES: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("bench.db").display());
    runtime.block_on(fill(&url));
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
    let server = runtime.block_on(NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None)).unwrap();
    println!("start to ready with {ENTRIES} cached entries and the model (SQLite, durability process):");
    for round in 1..=5 {
        let began = Instant::now();
        let mut worker = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .arg("serve")
            .env("NATS_URL", server.url())
            .env("DATABASE_URL", &url)
            .env("TANDEM_ASSETS", &assets)
            .env("TANDEM__LOG__FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(worker.stderr.take().unwrap());
        log.lines().map_while(Result::ok).find(|line| line.contains("ready nats://")).unwrap();
        let ready = began.elapsed();
        println!("  {round}: {:.0} ms, {:.0} MiB resident", ready.as_secs_f64() * 1e3, resident(worker.id()));
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let _ = runtime.block_on(server.stop());
}

/// MiB, from the kernel; 0 where it does not say.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

async fn fill(url: &str) {
    let options = Options { url: url.to_owned(), ..Options::default() };
    let store = Store::open(&options).await.unwrap();
    let now = Timestamp::now();
    let code = "fn handle(event: &Event) -> Result<(), Error> { process(event) }\n".repeat(40);
    let entries: Vec<CacheEntry> = (0..ENTRIES).map(|i| entry(i, &code, now)).collect();
    for batch in entries.chunks(1_000) {
        store.put_entries(batch).await.unwrap();
    }
    store.close().await;
}

fn entry(i: usize, code: &str, now: Timestamp) -> CacheEntry {
    let goal = Goal {
        description: format!("Create a NATS consumer for processing thing {i} events"),
        language: Language::Rust,
        complexity: Complexity::Medium,
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    };
    let tenant = Tenant::default();
    let key = Key::new(&tenant, EntryKind::Request, &goal, &[], tandem::embed::MODEL_VERSION);
    let mut vector: Vec<f32> = (0..384).map(|d| ((i * 31 + d * 17) % 101) as f32 - 50.0).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    CacheEntry {
        id: EntryId(uuid::Uuid::now_v7()),
        tenant,
        kind: key.kind,
        scope: key.scope,
        exact: key.exact,
        task: key.task.clone(),
        answer: Arc::new(Answer::new(Method::Autonomous, TaskType::NatsConsumer, &goal.language, code.to_owned(), now)),
        vector: Some(vector.into()),
        origin: CorrelationId::generate(),
        created: now,
        expires: now.plus(std::time::Duration::from_secs(86_400)),
    }
}
