//! A copy that is taken while a worker writes, and a worker on it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tandem::llm::Credentials;

use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::process::{output, tandem};
use crate::worker::Place;
use crate::{ask, example};

#[tokio::test]
async fn a_worker_on_a_copy_that_was_taken_under_load_knows_what_was_known() {
    let (nats, place) = (Nats::start().await, Place::new());
    let worker = place.worker(&nats).await;
    let client = nats.client().await;
    let first = ask(&client, "execution.request", &example()).await;
    assert_eq!(first["method"], "autonomous");
    // Its record must be there before the copy is taken; a verdict waits for it.
    let verdict = json!({"correlation_id": first["correlation_id"], "verdict": "good"});
    ask(&client, "execution.feedback", &verdict).await;
    let load = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0.. {
                ask(&client, "execution.request", &json!({"task": format!("Create a NATS consumer for event {n}")}))
                    .await;
            }
        }
    });
    let copy = place.path().join("copy.db");
    let database = place.database();
    let variables = [("DATABASE_URL", database.as_str())];
    let back_up = async || output(tandem(place.path(), &variables, &["backup", copy.to_str().unwrap()])).await;
    let made = back_up().await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(!load.is_finished());
    load.abort();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "a copy is for its owner only");
    let before = std::fs::read(&copy).unwrap();
    let again = back_up().await;
    assert_eq!(again.status.code(), Some(1), "a copy never takes the place of one");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    worker.stop().await;

    // As docs/operations.md says it: no worker runs, the old files go, the copy takes their place.
    let data = place.path().join("data");
    for name in ["tandem.db", "tandem.db-wal", "tandem.db-shm"] {
        let _gone = std::fs::remove_file(data.join(name));
    }
    std::fs::rename(&copy, data.join("tandem.db")).unwrap();
    let worker = place.worker(&nats).await;
    let hit = ask(&client, "execution.request", &example()).await;
    assert_eq!((&hit["method"], &hit["cache"]["tier"]), (&json!("cached"), &json!("exact")), "{hit}");
    assert_eq!(hit["result"], first["result"]);
    let stats = ask(&client, "execution.stats", &json!({})).await;
    assert!(stats["total_executions"].as_u64().unwrap() >= 2, "{stats}");
    worker.stop().await;
}

#[tokio::test]
async fn what_can_not_be_copied_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = async |url: &str| {
        let run = output(tandem(folder.path(), &[("DATABASE_URL", url)], &["backup", "copy.db"])).await;
        assert_eq!(run.status.code(), Some(1));
        String::from_utf8(run.stderr).unwrap()
    };
    let postgres = said("postgres://user:canary@127.0.0.1:1/x").await;
    assert!(postgres.contains("pg_dump") && !postgres.contains("canary"), "{postgres}");
    assert!(said("sqlite:nowhere.db").await.contains("there is no such file"));
    assert!(!folder.path().join("nowhere.db").exists() && !folder.path().join("copy.db").exists());
}

/// `pg_dump` and `pg_restore`, where they are installed.
#[tokio::test]
async fn postgresql_is_copied_by_its_own_programs() {
    let Some(bin) = programs() else {
        eprintln!("pg_dump is not installed; nothing was tried");
        return;
    };
    let (nats, place, old, new) = (Nats::start().await, Place::new(), Postgres::start(), Postgres::start());
    let mut config = place.config(&nats);
    config.database.url = old.url();
    let worker = place.worker_with(config.clone(), Credentials::default()).await;
    let client = nats.client().await;
    let first: Value = ask(&client, "execution.request", &example()).await;
    let verdict = json!({"correlation_id": first["correlation_id"], "verdict": "good"});
    ask(&client, "execution.feedback", &verdict).await;
    let copy = place.path().join("tandem.dump");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(bin.join(program)).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("pg_dump", &["--format=custom", "--file", copy.to_str().unwrap(), &old.url()]);
    worker.stop().await;
    run("pg_restore", &["--no-owner", "--exit-on-error", "--dbname", &new.url(), copy.to_str().unwrap()]);
    config.database.url = new.url();
    let worker = place.worker_with(config, Credentials::default()).await;
    let hit = ask(&client, "execution.request", &example()).await;
    assert_eq!((&hit["method"], &hit["result"]), (&json!("cached"), &first["result"]), "{hit}");
    worker.stop().await;
}

fn programs() -> Option<std::path::PathBuf> {
    let mut folders: Vec<_> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|f| f.path().join("bin")).collect();
    folders.sort();
    folders.push(Path::new("/usr/bin").to_owned());
    folders.into_iter().find(|folder| folder.join("pg_dump").is_file() && folder.join("pg_restore").is_file())
}
