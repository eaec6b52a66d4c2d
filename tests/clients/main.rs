//! Other languages' NATS clients send the request that the source shows, and get the source's fields.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test")]

#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/worker.rs"]
mod worker;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use nats::Nats;
use worker::{Place, assets};

/// Runs a client, which prints what it got as one JSON list: the example's answer, its second answer, that in another
/// language, and an error with its headers.
async fn answers_of(mut client: Command, nats: &Nats) {
    let body = json!({
        "task": "Create a NATS consumer for processing user events",
        "language": "elixir",
        "complexity": "medium",
        "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex"}
    });
    client.arg(nats.server.url()).arg(body.to_string());
    let running = client.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await.expect("the client hangs").unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let got: Value = serde_json::from_slice(&ended.stdout).unwrap();

    let (first, second, other, error) = (&got[0], &got[1], &got[2], &got[3]);
    for answer in [first, second, other] {
        for field in ["result", "template_used", "model_used", "method", "metrics"] {
            assert!(answer.get(field).is_some(), "{field} is not in {answer}");
        }
        for field in ["time_ms", "tokens_used", "cost_usd", "cache_hit", "quality", "success"] {
            assert!(answer["metrics"].get(field).is_some(), "metrics.{field} is not in {answer}");
        }
    }
    assert_eq!((&first["method"], &first["template_used"]), (&json!("autonomous"), &json!("elixir-nats-consumer")));
    assert!(first["result"].as_str().unwrap().contains("UserEvents"));
    assert_eq!(first["metrics"]["cache_hit"], false);
    assert_eq!((&second["metrics"]["cache_hit"], &second["result"]), (&json!(true), &first["result"]));
    assert_eq!(second["metrics"]["cost_usd"].as_f64(), Some(0.0));
    assert_eq!((&other["language"], &other["metrics"]["cache_hit"]), (&json!("rust"), &json!(false)));

    assert_eq!((&error["body"]["error"], &error["code"]), (&json!("invalid_json"), &json!("400")), "{error}");
    assert_eq!(error["body"]["metrics"], json!({"success": false}));
    assert!(error["said"].as_str().is_some_and(|said| !said.is_empty()), "{error}");
}

fn script(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

#[tokio::test]
async fn nats_py_gets_the_source_s_fields() {
    let python = assets().join("venv/bin/python");
    assert!(python.is_file(), "there is no {}: run scripts/setup --tests", python.display());
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let mut client = Command::new(python);
    client.arg(script("python/ask.py"));
    answers_of(client, &nats).await;
}

#[tokio::test]
async fn the_npm_client_gets_the_source_s_fields() {
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if node.is_err() {
        println!("skipped: there is no node on the PATH");
        return;
    }
    let modules = assets().join("js");
    assert!(modules.join("node_modules").is_dir(), "there is no {}: run scripts/setup --tests", modules.display());
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let mut client = Command::new("node");
    client.arg(script("js/ask.mjs")).env("MODULES", modules);
    answers_of(client, &nats).await;
}
