//! Two versions side by side: today's workers beside a later one that has migrated the database, speaks on the bus, and
//! whose clients know more. What the words look like byte by byte is in tests/door/sync.rs; docs/upgrading.md is the rule.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, jetstream};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::nats::{Nats, header, json as read};
use crate::process::{Served, output, tandem};

const SOON: Duration = Duration::from_secs(10);

/// As the rule for migrations lets a later version change it: new tables, new columns that may be empty.
async fn migrate_as_a_later_version(database: &str) {
    let pool = sqlx::SqlitePool::connect(database).await.unwrap();
    let tables: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert!(tables.len() > 5, "{tables:?}");
    for (table,) in tables.into_iter().filter(|(table,)| !table.starts_with("sqlite_")) {
        let sql = format!("ALTER TABLE {table} ADD COLUMN from_the_future TEXT");
        sqlx::query(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    }
    for sql in [
        "CREATE TABLE from_the_future (id TEXT PRIMARY KEY)",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'', 0)",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

/// A later version's sign of life, as often as it must come.
fn a_later_worker(client: async_nats::Client) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            for body in [
                r#"{"from":"later","wire":2,"kind":"alive","load":0.1}"#,
                r#"{"from":"later","wire":2,"kind":"leases","held":[1,2]}"#,
            ] {
                client.publish("tandem.sync.hello", body.into()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn todays_workers_serve_beside_a_later_one_on_the_database_that_it_migrated() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let none = folder.path().join("none").display().to_string();
    let variables = [("NATS_URL", nats.server.url()), ("DATABASE_URL", &database), ("TANDEM_ASSETS", &none)];
    let start = || Served::start(tandem(folder.path(), &variables, &["serve"]));
    let client = nats.client().await;
    let task =
        |n: u32| json!({"task": format!("REST endpoint for orders{n}"), "language": "rust", "from_the_future": n});
    let ask = async |n: u32| {
        let answer = read(&client.request("execution.request", task(n).to_string().into()).await.unwrap());
        assert!(answer["result"].is_string(), "{answer}");
        answer
    };

    let mut before = start();
    before.ready().await;
    ask(1).await;
    let later = a_later_worker(nats.client().await);
    migrate_as_a_later_version(&database).await;
    // One that was there, and one that starts on what the later version left.
    let mut after = start();
    after.ready().await;
    let ids: Vec<Value> = futures::future::join_all((1..20).map(ask)).await;
    assert!(ids.iter().any(|answer| answer["metrics"]["cache_hit"] == true), "the first is known");

    // A verdict reaches both, although the later worker's confirmation never comes.
    let wrong = json!({"correlation_id": ids[3]["correlation_id"], "verdict": "wrong"}).to_string();
    let begun = Instant::now();
    let judged = client.request("execution.feedback", wrong.into()).await.unwrap();
    assert!(header(&judged, "Nats-Service-Error-Code").is_none(), "{}", read(&judged));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for _ in 0..8 {
        let again = client.request("execution.request", task(4).to_string().into()).await.unwrap();
        assert_ne!(read(&again)["cache"]["origin"], ids[3]["correlation_id"], "it was withdrawn");
    }

    // A submit of a client that knows more is done, and answered in the form of today.
    let mut results = client.subscribe("execution.result.*").await.unwrap();
    let mut progress = client.subscribe("execution.progress.*").await.unwrap();
    let mut body = task(50);
    body["id"] = json!("from-later");
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "default.from-later");
    headers.insert("Execution-Priority", "high");
    let js = jetstream::new(client.clone());
    js.publish_with_headers("execution.submit", headers, body.to_string().into()).await.unwrap().await.unwrap();
    let result = tokio::time::timeout(SOON, results.next()).await.unwrap().unwrap();
    assert_eq!(result.subject.as_str(), "execution.result.from-later");
    for name in ["Correlation-Id", "Execution-Sequence"] {
        assert!(header(&result, name).is_some(), "workers and clients of every version look at {name}");
    }
    let answer = read(&result);
    for field in ["result", "method", "metrics", "correlation_id", "template_used", "model_used"] {
        assert!(answer.get(field).is_some(), "{field}: {answer}");
    }
    let mut states = vec![];
    while states.last() != Some(&json!("done")) {
        let told = read(&tokio::time::timeout(SOON, progress.next()).await.unwrap().unwrap());
        for field in ["id", "state", "correlation_id", "at_ms"] {
            assert!(told.get(field).is_some(), "{field}: {told}");
        }
        states.push(told["state"].clone());
    }

    let health = output(tandem(folder.path(), &variables, &["health", "--json"])).await;
    let health: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!(health["components"]["database"]["status"], "ok", "{health}");
    for worker in [&mut before, &mut after] {
        worker.signal("TERM");
        assert!(worker.ended().await.success());
        let said: Vec<Value> = worker.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
        // Without an embedding model each says so once.
        assert!(said.len() <= 1, "{said:#?}");
    }
    later.abort();
}
