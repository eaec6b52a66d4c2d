//! An administrator makes the streams; a worker in production only looks.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tandem::bus::streams::{self, provide};
use tandem::bus::{Error, Provision};

use crate::process::{Served, message, output, tandem};
use crate::server::Server;

const WAIT: Duration = Duration::from_secs(30);

async fn provision(server: &Server, user: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let variables = server.variables(user);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let all = [&["provision"], arguments].concat();
    let done = output(tandem(server.folder.path(), &variables, &all)).await;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or(Value::Null), said)
}

fn all(made: &str, dry_run: bool) -> Value {
    let names = [streams::SUBMIT, streams::RESULT, streams::DEAD, streams::EVENTS, streams::WORKERS];
    json!({ "dry_run": dry_run, "done": names.map(|name| json!({ "name": name, "made": made })) })
}

#[tokio::test]
async fn an_administrator_makes_the_streams_once_and_a_worker_finds_them() {
    let server = Server::shipped().await;
    let worker = server.user("worker").await.client;
    let verify = async || provide(&worker, Provision::Verify, &streams::Options::default(), WAIT).await;

    let missing = verify().await.unwrap_err();
    let said = missing.to_string();
    assert!(matches!(missing, Error::Streams { .. }), "{said}");
    for word in [streams::SUBMIT, streams::RESULT, streams::DEAD, "missing", "tandem provision"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    assert_eq!(provision(&server, "admin", &["--dry-run", "--json"]).await.1, all("created", true));
    assert!(verify().await.is_err(), "a dry run makes nothing");
    assert_eq!(provision(&server, "admin", &["--json"]).await.1, all("created", false));
    verify().await.unwrap();
    assert_eq!(provision(&server, "admin", &["--json"]).await.1, all("unchanged", false));
    assert_eq!(provision(&server, "admin", &["--dry-run", "--json"]).await.1, all("unchanged", true));
}

#[tokio::test]
async fn who_may_not_make_streams_is_told_so() {
    let server = Server::shipped().await;
    for user in ["worker", "operator", "client"] {
        let (code, _, said) = provision(&server, user, &[]).await;
        assert_eq!(code, Some(2), "{user}: {said}");
        assert!(said.contains("log in as an administrator") && said.contains("$JS.API.STREAM"), "{user}: {said}");
    }
    let worker = server.user("worker").await.client;
    let missing = provide(&worker, Provision::Verify, &streams::Options::default(), WAIT).await.unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
}

/// A worker and its clients as processes, each as its user: nothing that they do is forbidden.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_and_clients_work_as_the_users_of_the_shipped_configuration() {
    let server = Server::shipped().await;
    let (code, _, said) = provision(&server, "admin", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let mut worker = start_worker(&server);
    worker.ready().await;
    for (user, tenant) in [("client", "default"), ("acme", "acme")] {
        let variables = server.variables(user);
        let run = async |arguments: &[&str], inbox: Option<&str>| {
            let mut variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
            variables.extend(inbox.map(|inbox| ("TANDEM__NATS__INBOX_PREFIX", inbox)));
            let all = [arguments, &["--tenant", tenant]].concat();
            output(tandem(server.folder.path(), &variables, &all)).await
        };
        let task = ["request", "Create a NATS consumer for processing user events", "--language", "elixir", "--json"];
        let answered = run(&task, None).await;
        assert!(answered.status.success(), "{user}: {}", String::from_utf8_lossy(&answered.stderr));
        let answer: Value = serde_json::from_slice(&answered.stdout).unwrap();
        assert_eq!(answer["metrics"]["cache_hit"], false, "{user}: nobody else's answer: {answer}");
        for arguments in [
            vec!["health"],
            vec!["stats"],
            vec!["templates", "list"],
            vec!["cache", "stats"],
            vec!["feedback", answer["correlation_id"].as_str().unwrap(), "wrong"],
        ] {
            let done = run(&arguments, None).await;
            assert!(done.status.success(), "{user} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        let foreign = run(&["health", "--wait", "1"], Some("_INBOX")).await;
        assert_eq!(foreign.status.code(), Some(3), "{user}: an inbox that is not its own");
    }
    // The health check of its container.
    let variables = server.variables("worker");
    let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert!(output(tandem(server.folder.path(), &variables, &["health"])).await.status.success());
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    let said = worker.log().iter().map(Value::to_string).collect::<String>();
    assert!(!said.to_lowercase().contains("permissions violation"), "{said}");
}

/// It serves requests meanwhile, and goes on by itself once the administrator has been there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_verifies_says_what_is_missing_and_serves_submits_once_it_is_there() {
    let server = Server::shipped().await;
    let mut worker = start_worker(&server);
    let said = worker.says("submits are not served").await;
    for word in [streams::SUBMIT, streams::RESULT, streams::DEAD, "missing", "tandem provision"] {
        assert!(message(&said).contains(word), "{word}: {said}");
    }
    worker.ready().await;
    let task = json!({"task": "Create a NATS consumer for processing user events", "language": "elixir"}).to_string();
    let client = server.user("client").await;
    let answered = client.client.request("execution.request", task.clone().into()).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&answered.payload).unwrap()["result"].is_string());

    assert_eq!(provision(&server, "admin", &[]).await.0, Some(0));
    worker.says("submits are served").await;
    for (name, tenant) in [("client", ""), ("acme", ".acme")] {
        let mut user = server.user(name).await;
        let mut results = user.client.subscribe(format!("execution.result{tenant}.*")).await.unwrap();
        let mut progress = user.client.subscribe(format!("execution.progress{tenant}.one")).await.unwrap();
        assert_eq!(user.denials().await, Vec::<String>::new());
        let inbox = user.client.new_inbox();
        let mut replies = user.client.subscribe(inbox.clone()).await.unwrap();
        let mut body: Value = serde_json::from_str(&task).unwrap();
        (body["id"], body["reply_to"]) = (json!("one"), json!(inbox));
        let js = async_nats::jetstream::new(user.client.clone());
        js.publish(format!("execution.submit{tenant}"), body.to_string().into()).await.unwrap().await.unwrap();
        for heard in [&mut results, &mut progress, &mut replies] {
            let heard = tokio::time::timeout(Duration::from_secs(10), heard.next()).await;
            let heard = heard.unwrap_or_else(|_| panic!("{name}: {:#?}", worker.log())).unwrap();
            assert!(serde_json::from_slice::<Value>(&heard.payload).unwrap().is_object(), "{name}: {}", heard.subject);
        }
        assert_eq!(user.denials().await, Vec::<String>::new());
    }
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    let said = worker.log().iter().map(Value::to_string).collect::<String>();
    assert!(!said.to_lowercase().contains("permissions violation"), "{said}");
}

/// Who may fetch from the object store could make the server's answer order something: so nobody may, and no store is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_too_large_for_a_message_is_a_413_by_the_shipped_configuration() {
    let server = Server::shipped_with("max_payload: 8MB", "max_payload: 4096").await;
    assert_eq!(provision(&server, "admin", &[]).await.0, Some(0));
    let mut worker = start_worker(&server);
    worker.ready().await;
    let task = "REST endpoint for orders and a consumer for order events, with tests and docs";
    for (user, tenant) in [("client", "default"), ("acme", "acme")] {
        let begun = std::time::Instant::now();
        let arguments = ["request", task, "--language", "rust", "--json", "--tenant", tenant];
        let (code, out, said) = run(&server, user, &arguments).await;
        assert!(code != Some(0) && out.contains("too_large"), "{user}: {out} {said}");
        // Not after the time that a forbidden question is waited for.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{user}: {took:?}");
    }
    worker.signal("TERM");
    assert!(worker.ended().await.success());
}

/// The README's words, each as the user whose business it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_results_and_dead_letters_go_by_the_roles_of_the_shipped_configuration() {
    let server = Server::shipped().await;
    assert_eq!(provision(&server, "admin", &[]).await.0, Some(0));
    let mut worker = start_worker(&server);
    worker.ready().await;
    let task = "Create a NATS consumer for processing user events";
    for (user, tenant) in [("client", "default"), ("acme", "acme")] {
        let own = |arguments: &[&'static str]| [arguments, &["--tenant", tenant]].concat();
        let arguments = own(&["submit", task, "--language", "elixir", "--id", "order-17", "--wait"]);
        let (code, out, said) = run(&server, user, &arguments).await;
        assert_eq!(code, Some(0), "{user}: {said}");
        assert!(out.starts_with("defmodule"), "{user}: {out}");
        // What is kept no client may fetch; the same id by the other door has the answer, and is told of.
        for arguments in [own(&["result", "order-17"]), arguments] {
            let (code, _, said) = run(&server, user, &arguments).await;
            assert_ne!(code, Some(0), "{user} {arguments:?}");
            assert!(said.contains("tandem request"), "{user} {arguments:?}: {said}");
        }
        let again = own(&["request", task, "--language", "elixir", "--id", "order-17"]);
        let (code, out, said) = run(&server, user, &again).await;
        assert_eq!(code, Some(0), "{user}: {said}");
        assert!(out.starts_with("defmodule"), "{user}: {out}");
        // The same id with another body is set aside.
        let subject =
            if tenant == "default" { "execution.submit".to_owned() } else { format!("execution.submit.{tenant}") };
        let js = async_nats::jetstream::new(server.user(user).await.client);
        let body = json!({"task": task, "language": "go", "id": "order-17"}).to_string();
        js.publish(subject, body.into()).await.unwrap().await.unwrap();
    }
    let begun = std::time::Instant::now();
    let listed = loop {
        let (code, out, said) = run(&server, "operator", &["dead", "list", "--json"]).await;
        assert_eq!(code, Some(0), "{said}");
        let listed: Value = serde_json::from_str(&out).unwrap();
        if listed.as_array().unwrap().len() == 2 {
            break listed;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{listed}");
    };
    assert!(listed.as_array().unwrap().iter().all(|letter| letter["reason"] == "id_conflict"), "{listed}");
    let (code, out, said) = run(&server, "operator", &["result", "order-17"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("defmodule"), "{out}");
    let (code, out, said) = run(&server, "operator", &["dead", "show", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("\"id\":\"order-17\""), "{out}");
    let (code, _, said) = run(&server, "operator", &["dead", "requeue", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    let said = worker.log().iter().map(Value::to_string).collect::<String>();
    assert!(!said.to_lowercase().contains("permissions violation"), "{said}");
}

/// Exit code, output, and what was said besides.
async fn run(server: &Server, user: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let variables = server.variables(user);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let done = output(tandem(server.folder.path(), &variables, arguments)).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// As docker-compose.yml starts it, but on SQLite and without an embedding model.
fn start_worker(server: &Server) -> Served {
    let none = server.folder.path().join("none").display().to_string();
    let mut variables = server.variables("worker");
    variables.extend([("TANDEM__NATS__PROVISION", "verify".to_owned()), ("TANDEM_ASSETS", none)]);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Served::start(tandem(server.folder.path(), &variables, &["serve"]))
}
