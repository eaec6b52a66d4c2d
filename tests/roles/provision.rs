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
    let names = [streams::SUBMIT, streams::RESULT, streams::DEAD, streams::WORKERS];
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

/// As docker-compose.yml starts it, but on SQLite and without an embedding model.
fn start_worker(server: &Server) -> Served {
    let none = server.folder.path().join("none").display().to_string();
    let mut variables = server.variables("worker");
    variables.extend([("TANDEM__NATS__PROVISION", "verify".to_owned()), ("TANDEM_ASSETS", none)]);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Served::start(tandem(server.folder.path(), &variables, &["serve"]))
}
