//! Submits from the command line, as the README says.

use serde_json::{Value, json};
use tandem::llm::Credentials;

use crate::nats::Nats;
use crate::process::{output, tandem};
use crate::worker::Place;
use crate::{Sender, quick};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(nats: &Nats, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let ended = output(tandem(folder.path(), &[("NATS_URL", nats.server.url())], arguments)).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const TASK: &str = "Create a NATS consumer for processing user events";

#[tokio::test]
async fn a_task_is_handed_in_and_its_result_fetched() {
    let nats = Nats::start().await;
    let early = run(&nats, &["submit", TASK]).await;
    assert_eq!(early.code, Some(3), "{}", early.err);
    assert!(early.err.contains("start a worker"), "{}", early.err);
    let place = Place::new();
    let _worker = place.worker_with(quick(&place, &nats), Credentials::default()).await;

    let submitted = run(&nats, &["submit", TASK, "--language", "elixir"]).await;
    assert_eq!(submitted.code, Some(0), "{}", submitted.err);
    let id = submitted.out.trim();
    assert!(submitted.err.contains("number 1 "), "{}", submitted.err);
    Sender::of(&nats).await.result(id).await;
    let result = run(&nats, &["result", id]).await;
    assert_eq!(result.code, Some(0), "{}", result.err);
    assert!(result.out.starts_with("defmodule") && result.err.contains("elixir-nats-consumer"), "{}", result.err);

    let arguments = ["submit", TASK, "--language", "elixir", "--id", "order-17", "--wait", "--json"];
    let first = json(&run(&nats, &arguments).await.out);
    assert_eq!(first["metrics"]["success"], true);
    assert_eq!(json(&run(&nats, &arguments).await.out)["correlation_id"], first["correlation_id"], "one effect");
    let again = json(&run(&nats, &arguments[..6].iter().copied().chain(["--json"]).collect::<Vec<_>>()).await.out);
    assert_eq!((&again["id"], &again["duplicate"]), (&json!("order-17"), &json!(true)));

    let nothing = run(&nats, &["result", "never"]).await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.err.contains("no result for 'never'"), "{}", nothing.err);
    let fallback = run(&nats, &["submit", "Explain quantum tunnelling", "--wait", "--tenant", "acme"]).await;
    assert_eq!(fallback.code, Some(4), "{}", fallback.err);
    let wrong = run(&nats, &["submit", TASK, "--id", "a.b"]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_sent_again() {
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = place.worker_with(quick(&place, &nats), Credentials::default()).await;
    let conflict = ["submit", TASK, "--id", "taken", "--wait"];
    assert_eq!(run(&nats, &conflict).await.code, Some(0));
    let sender = Sender::of(&nats).await;
    sender.submit(&json!({"task": TASK, "id": "taken", "language": "go"})).await;
    // One after the other: their numbers are asked for.
    sender.all_done(std::time::Duration::from_secs(5)).await;
    sender.publish("execution.submit.acme", &[], br#"{"id": "blank", "task": " "}"#).await;
    sender.all_done(std::time::Duration::from_secs(5)).await;

    let listed = run(&nats, &["dead", "list"]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(listed.out.contains("id_conflict") && listed.out.contains("blank"), "{}", listed.out);
    let one = json(&run(&nats, &["dead", "list", "--tenant", "acme", "--json"]).await.out);
    assert_eq!((one.as_array().unwrap().len(), &one[0]["reason"]), (1, &json!("invalid_field")));
    let shown = json(&run(&nats, &["dead", "show", "1", "--json"]).await.out);
    assert_eq!(
        (&shown["id"], &shown["subject"], &shown["attempts"]),
        (&json!("taken"), &json!("execution.submit"), &json!(1))
    );
    assert!(run(&nats, &["dead", "show", "1"]).await.out.contains("\"language\":\"go\""));

    // What is wrong with it is still wrong: it comes back, as another letter.
    let again = run(&nats, &["dead", "requeue", "2", "9"]).await;
    assert_eq!(again.code, Some(1), "there is no 9: {}", again.err);
    sender.all_done(std::time::Duration::from_secs(5)).await;
    let left = json(&run(&nats, &["dead", "list", "--json"]).await.out);
    let numbers: Vec<_> = left.as_array().unwrap().iter().map(|l| (l["sequence"].clone(), l["id"].clone())).collect();
    assert_eq!(numbers, [(json!(1), json!("taken")), (json!(3), json!("blank"))]);
    assert_eq!(left[1]["tenant"], "acme");
}
