//! Several workers on one NATS and one database: they share the load and what they learn, and a restart forgets nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tandem::domain::{TemplateId, Timestamp};
use tandem::llm::Credentials;

use crate::nats::{Nats, json as read};
use crate::postgres::Postgres;
use crate::worker::{Place, Running};
use crate::{Asker, example, until, with, within};

/// Where the workers of a test meet, and what must live as long.
struct Town {
    nats: Nats,
    place: Place,
    postgres: Option<Postgres>,
}

impl Town {
    async fn on_sqlite() -> Self {
        Self { nats: Nats::start().await, place: Place::new(), postgres: None }
    }

    async fn on_postgres() -> Self {
        let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
        Self { nats: Nats::start().await, place: Place::new(), postgres: Some(postgres) }
    }

    async fn worker(&self) -> Running {
        let mut config = self.place.config(&self.nats);
        if let Some(postgres) = &self.postgres {
            config.database.url = postgres.url();
        }
        self.place.worker_with(config, Credentials::default()).await
    }
}

/// How many requests each worker took.
async fn taken(town: &Town, workers: &[Running]) -> BTreeMap<String, u64> {
    let client = town.nats.client().await;
    let mut taken = BTreeMap::new();
    for worker in workers {
        let subject = format!("$SRV.STATS.tandem.{}", worker.instance());
        let stats = read(&client.request(subject, "".into()).await.unwrap());
        let endpoints = stats["endpoints"].as_array().unwrap();
        let request = endpoints.iter().find(|e| e["name"] == "request").unwrap();
        taken.insert(worker.instance().to_string(), request["num_requests"].as_u64().unwrap());
    }
    taken
}

/// Uses of the example's template, as this worker knows it.
fn uses(worker: &Running) -> u64 {
    let id = TemplateId::parse("elixir-nats-consumer").unwrap();
    let detail = worker.pipeline.template(&id, Timestamp::now()).unwrap();
    detail.edges.iter().map(|edge| edge.uses).sum()
}

async fn three_workers_share_load_and_learning_and_forget_nothing(town: Town) {
    let workers = [town.worker().await, town.worker().await, town.worker().await];
    let asker = Asker::of(&town.nats).await;

    // One execution, on whichever worker: within a second all of them choose by it.
    let first = asker.request(&example()).await;
    assert_eq!(first["method"], "autonomous");
    let learnt = async || workers.iter().all(|w| uses(w) == 1).then_some(());
    until("each worker knows what one has learnt", learnt).await;
    for _ in 0..8 {
        let selected = asker.ask("template.select", &example_task()).await;
        let chosen = selected["candidates"].as_array().unwrap().iter().find(|c| c["chosen"] == true).unwrap();
        assert_eq!(chosen["template"], "elixir-nats-consumer");
        assert!(chosen["score"].as_f64().is_some_and(|score| score > 0.5), "{chosen}");
    }
    // And so with its answer: asking could not tell, for who answers is not the asker's to choose.
    let everywhere = async || workers.iter().all(|w| !w.pipeline.cache().is_empty()).then_some(());
    until("each worker holds what one has stored", everywhere).await;
    assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], true);

    let before = taken(&town, &workers).await;
    let answers: Vec<Value> = futures::stream::iter(0..300)
        .map(|i| {
            let (asker, body) =
                (asker.clone(), with(&example(), json!({"cache": if i % 2 == 0 { "off" } else { "use" }})));
            async move { asker.request(&body).await }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    assert!(answers.iter().all(|answer| answer["metrics"]["success"] == true));
    let after = taken(&town, &workers).await;
    let each: Vec<u64> = after.iter().map(|(id, n)| n - before[id]).collect();
    assert_eq!(each.iter().sum::<u64>(), 300, "each request was taken once");
    assert!(each.iter().all(|n| *n >= 50), "the load was not shared: {each:?}");

    // 150 without the cache, and the first.
    until("each worker knows all 151 uses", async || workers.iter().all(|w| uses(w) == 151).then_some(())).await;
    for worker in workers {
        worker.stop().await;
    }

    let again = town.worker().await;
    assert_eq!(uses(&again), 151, "figures survive a restart");
    let hit = asker.request(&example()).await;
    assert_eq!((&hit["cache"]["tier"], &hit["cache"]["origin"]), (&json!("exact"), &first["correlation_id"]), "{hit}");
    let stats = asker.ask("execution.stats", &json!({})).await;
    let executed = stats["total_executions"].as_u64().unwrap();
    assert!(executed > 301, "{stats}");
    assert_eq!(stats["methods"]["autonomous"]["executions"], 151, "{stats}");
    assert_eq!(stats["methods"]["cached"]["executions"], executed - 151, "{stats}");
}

fn example_task() -> Value {
    json!({"task": example()["task"], "language": "elixir"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_three_workers_share_load_and_learning_and_a_restart_forgets_nothing() {
    Box::pin(three_workers_share_load_and_learning_and_forget_nothing(Town::on_sqlite().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_three_workers_share_load_and_learning_and_a_restart_forgets_nothing() {
    Box::pin(three_workers_share_load_and_learning_and_forget_nothing(Town::on_postgres().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_learnt_last_is_told_to_the_others_when_it_stops() {
    let town = Town::on_sqlite().await;
    let mut config = town.place.config(&town.nats);
    // It writes nothing down by itself before it stops.
    config.recording.flush_interval_ms = 60_000;
    let leaving = town.place.worker_with(config, Credentials::default()).await;
    let asker = Asker::of(&town.nats).await;
    // Without an answer to store, which would not wait.
    asker.request(&with(&example(), json!({"cache": "off"}))).await;
    let staying = town.worker().await;
    assert_eq!(uses(&staying), 0);
    leaving.stop().await;
    let told = async || (uses(&staying) == 1).then_some(());
    within(Duration::from_secs(4), "the other worker knows the use", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_rules_and_memory_serve_and_nothing_is_lost_when_it_is_back() {
    let mut town = Town::on_postgres().await;
    let worker = town.worker().await;
    let asker = Asker::of(&town.nats).await;
    let first = asker.request(&example()).await;
    until("the first is written down", async || (uses(&worker) == 1).then_some(())).await;

    town.postgres.as_mut().unwrap().pause();
    assert_eq!(asker.request(&example()).await["cache"]["origin"], first["correlation_id"]);
    let other = with(&example(), json!({"language": "rust"}));
    assert_eq!(asker.request(&other).await["template_used"], "rust-nats-consumer");
    let health = asker.ask("execution.health", &json!({})).await;
    assert_eq!((&health["status"], &health["components"]["database"]["status"]), (&json!("degraded"), &json!("down")));
    let with_id = with(&example(), json!({"id": "a"}));
    assert_eq!(asker.refused("execution.request", &with_id).await.0, "503", "once can't be promised without it");

    assert!(town.postgres.as_mut().unwrap().resume());
    let counted = async || {
        let message = asker.message("execution.stats", &json!({})).await;
        (read(&message)["total_executions"] == 3).then_some(())
    };
    within(Duration::from_secs(20), "all three executions are written down", counted).await;
    assert_eq!(asker.ask("execution.health", &json!({})).await["components"]["database"]["status"], "ok");
}
