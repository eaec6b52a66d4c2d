//! One request at a time over NATS, beside an echo service and a bare embedding in the same run.
//! `scripts/bench request` prints the medians; what counts is their ratio to the ceiling.

#![allow(clippy::unwrap_used, reason = "a bench")]

use std::collections::HashMap;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::StreamExt;
use tandem::app::Worker;
use tandem::app::nats_server::NatsServer;
use tandem::config::{Config, Paths};
use tandem::embed::{self, Embedder};
use tandem::llm::Credentials;
use tokio::runtime::Runtime;

const TASK: &str = r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir""#;

fn request(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
    let server = runtime.block_on(NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None)).unwrap();
    let start = |order: &str, tenant: &str| {
        let database = folder.path().join(format!("{tenant}.db"));
        let variables: HashMap<String, String> = [
            ("NATS_URL", server.url().to_owned()),
            ("DATABASE_URL", format!("sqlite://{}", database.display())),
            ("TANDEM__CACHE__ORDER", order.to_owned()),
            ("TANDEM_ASSETS", assets.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let config = Config::load(&variables).unwrap();
        runtime.block_on(Worker::start(config, &Paths::new(&variables), Credentials::default())).unwrap()
    };
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    let ask = |subject: &'static str, body: String| {
        let client = client.clone();
        async move { client.request(subject, body.into()).await.unwrap() }
    };

    let mut group = criterion.benchmark_group("request");
    runtime.block_on(async {
        let mut echo = client.subscribe("bench.echo").await.unwrap();
        let client = client.clone();
        tokio::spawn(async move {
            while let Some(message) = echo.next().await {
                if let Some(reply) = message.reply {
                    client.publish(reply, message.payload).await.unwrap();
                }
            }
        });
    });
    group.bench_function("echo", |b| b.to_async(&runtime).iter(|| ask("bench.echo", TASK.to_owned())));

    let worker = start("cache_first", "first");
    group.bench_function("rules, cache off", |b| {
        b.to_async(&runtime).iter(|| ask("execution.request", format!("{TASK}, \"cache\": \"off\"}}")));
    });
    group.bench_function("exact hit", |b| b.to_async(&runtime).iter(|| ask("execution.request", format!("{TASK}}}"))));
    let mut round = 0u64;
    group.bench_function("embedding on the path, then rules", |b| {
        b.to_async(&runtime).iter(|| {
            round += 1;
            // A name that was never there: neither the exact tier nor the recent vectors know it.
            ask(
                "execution.request.other",
                format!(r#"{{"task": "Create a NATS consumer for processing n{round} events"}}"#),
            )
        });
    });
    runtime.block_on(worker.stop(std::time::Duration::from_secs(5)));

    let worker = start("rules_first", "second");
    runtime.block_on(ask("execution.request", format!("{TASK}}}")));
    group.bench_function("rules first, scope not empty", |b| {
        b.to_async(&runtime).iter(|| {
            round += 1;
            ask("execution.request", format!(r#"{{"task": "Create a NATS consumer for processing m{round} events"}}"#))
        });
    });
    runtime.block_on(worker.stop(std::time::Duration::from_secs(5)));

    let embedder = Embedder::load(&assets, embed::Options::default()).unwrap();
    group.bench_function("embedding alone", |b| {
        b.to_async(&runtime).iter(|| {
            round += 1;
            embedder.embed(&format!("Create a NATS consumer for processing k{round} events"))
        });
    });
    group.finish();
    drop(client);
    let _ = runtime.block_on(server.stop());
}

criterion_group!(benches, request);
criterion_main!(benches);
