//! Workflows over NATS and on the command line, with services of a user's as steps.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::config::Config;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::nats::header;
use crate::process::{output, tandem};
use crate::worker::assets;
use crate::{Kind, Place, until};

/// A worker may ask `orders.*`.
fn allowing(place: &Place) -> Config {
    let mut config = place.config();
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    config
}

pub async fn ask(client: &Client, subject: &str, body: &Value) -> Result<Value, Value> {
    let said = client.request(subject.to_owned(), body.to_string().into()).await.unwrap();
    let body = crate::nats::json(&said);
    if header(&said, "Nats-Service-Error-Code").is_some() { Err(body) } else { Ok(body) }
}

pub async fn started(client: &Client, body: &Value) -> String {
    let said = ask(client, "workflow.start", body).await.unwrap_or_else(|error| panic!("{body}: {error}"));
    said["workflow_id"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
}

pub async fn over(client: &Client, id: &str) -> Value {
    until("the workflow is over", async || {
        let status = ask(client, "workflow.status", &json!({"workflow_id": id})).await.unwrap();
        ["completed", "failed", "cancelled"].contains(&status["status"].as_str().unwrap()).then_some(status)
    })
    .await
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The example's service, in Python.
async fn python(url: &str) -> Child {
    serving(with_python("examples/workflow/steps.py"), url).await
}

pub fn with_python(script: &str) -> Command {
    let python = assets().join("venv/bin/python");
    assert!(python.is_file(), "there is no {}: run scripts/setup --tests", python.display());
    let mut service = Command::new(python);
    service.arg(root().join(script));
    service
}

/// Starts a service, and waits until it listens.
pub async fn serving(mut service: Command, url: &str) -> Child {
    service.arg(url).stdout(Stdio::piped()).kill_on_drop(true);
    let mut service = service.spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
    assert_eq!(ready.expect("the service does not start").unwrap().as_deref(), Some("ready"));
    service
}

fn example() -> Value {
    let text = std::fs::read_to_string(root().join("examples/workflow/order.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_service_in_python_does_steps() {
    let place = Kind::sqlite().place().await;
    let _service = python(place.nats.server.url()).await;
    let worker = place.worker_with(allowing(&place)).await;
    let client = place.nats.client().await;
    let id = started(&client, &json!({"graph": example()})).await;
    let status = over(&client, &id).await;
    assert_eq!(status["status"], "completed", "{status:#}");
    assert_eq!(status["tasks"]["charge"]["output"], json!({"charged": 42}));
    assert!(status["tasks"]["consumer"]["output"]["text"].as_str().unwrap().contains("UserEvents"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_runs_shows_and_lists() {
    let place = Kind::sqlite().place().await;
    let _service = python(place.nats.server.url()).await;
    let worker = place.worker_with(allowing(&place)).await;
    let folder = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let variables = [("NATS_URL", place.nats.server.url())];
        let ended = output(tandem(folder.path(), &variables, arguments)).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    let graph = root().join("examples/workflow/order.json");
    let (code, printed, told) = run(&["workflow", "run", "--graph", graph.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(printed.contains("## charge") && printed.contains(r#"{"charged": 42}"#), "{printed}");
    assert!(told.contains("reserve  completed"), "{told}");
    let id = told.lines().next().unwrap().to_owned();

    let (_, list, _) = run(&["workflow", "list", "--json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["workflows"][0]["workflow_id"], &list["workflows"][0]["completed"]), (&json!(id), &json!(3)));
    let (_, shown, _) = run(&["workflow", "show", &id]).await;
    assert!(shown.contains("consumer") && shown.contains("nats") && shown.contains("took ms"), "{shown}");
    let (_, status, _) = run(&["workflow", "status", &id, "charge"]).await;
    assert!(status.contains("charged") && !status.contains("reserved"), "{status}");
    let (_, events, _) = run(&["workflow", "events", &id, "--after", "1", "--follow"]).await;
    assert!(events.contains("task_completed  charge") && !events.contains("execution_started"), "{events}");
    let (code, _, told) = run(&["workflow", "cancel", &id]).await;
    assert!(
        code == Some(1) && told.contains("completed; cancel is for one that is waiting, running or paused"),
        "{told}"
    );

    let broken = folder.path().join("broken.json");
    let fails =
        json!({"tasks": [{"id": "a", "description": "A", "step": {"kind": "nats", "subject": "orders.nobody"}}]});
    std::fs::write(&broken, fails.to_string()).unwrap();
    let run_it = ["workflow", "run", "--json", "--retry-attempts", "0", "--graph", broken.to_str().unwrap()];
    let (code, printed, _) = run(&run_it).await;
    let status: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &status["tasks"]["a"]["error"]["kind"]), (Some(1), &json!("unavailable")), "{printed}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_services_do_wrong_is_a_failure_that_says_so() {
    let place = Kind::sqlite().place().await;
    let mut config = allowing(&place);
    config.workflow.max_output_bytes = 1_000;
    let worker = place.worker_with(config).await;
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.*").await.unwrap();
    client.flush().await.unwrap();
    let (service, keys) = (client.clone(), Arc::new(std::sync::Mutex::new(vec![])));
    let (seen, flaky) = (keys.clone(), AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let reply = message.reply.clone().unwrap();
            let mut failed = HeaderMap::new();
            let code = match message.subject.as_str() {
                "orders.refused" => "422",
                _ => "500",
            };
            failed.insert("Nats-Service-Error-Code", code);
            failed.insert("Nats-Service-Error", "no such order");
            let publish = async |body: &str| service.publish(reply.clone(), body.to_owned().into()).await.unwrap();
            match message.subject.as_str() {
                "orders.twice" => {
                    publish("1").await;
                    publish("2").await;
                }
                "orders.never" => {}
                "orders.text" => publish("not json").await,
                "orders.large" => publish(&format!("\"{}\"", "x".repeat(1_001))).await,
                "orders.flaky" => {
                    seen.lock().unwrap().push(header(&message, "Idempotency-Key").unwrap().to_owned());
                    if flaky.fetch_add(1, Ordering::SeqCst) < 2 {
                        service.publish_with_headers(reply, failed, "".into()).await.unwrap();
                    } else {
                        publish("\"at last\"").await;
                    }
                }
                _ => service.publish_with_headers(reply, failed, "".into()).await.unwrap(),
            }
        }
    });
    let names = ["twice", "never", "text", "large", "flaky", "refused"];
    let tasks: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"id": name, "description": name, "step": {"kind": "nats", "subject": format!("orders.{name}")}})
        })
        .collect();
    let options = json!({"task_timeout_ms": 300, "retry_delay_ms": 5, "retry_attempts": 2});
    let id = started(&client, &json!({"graph": {"tasks": tasks}, "options": options})).await;
    let status = over(&client, &id).await;
    let of = |name: &str| {
        let task = &status["tasks"][name];
        (task["status"].as_str().unwrap(), task["attempts"].as_u64().unwrap(), task["error"]["kind"].as_str())
    };
    assert_eq!(of("twice"), ("completed", 1, None));
    assert_eq!(status["tasks"]["twice"]["output"], 1);
    assert_eq!(of("never"), ("failed", 3, Some("timed_out")));
    assert_eq!(of("text"), ("failed", 1, Some("bad_output")));
    assert_eq!(of("large"), ("failed", 1, Some("bad_output")));
    assert_eq!(of("refused"), ("failed", 1, Some("refused")));
    assert!(status["tasks"]["refused"]["error"]["message"].as_str().unwrap().contains("422: no such order"));
    assert_eq!((of("flaky").0, of("flaky").1), ("completed", 3));
    // All attempts at one step have one key.
    let keys = keys.lock().unwrap().clone();
    assert!(keys.len() == 3 && keys.iter().all(|key| key == &keys[0] && key.starts_with(&id)), "{keys:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_goals_and_commands_over_nats() {
    let place = Kind::sqlite().place().await;
    let worker = place.worker_with(allowing(&place)).await;
    let client = place.nats.client().await;
    // A goal of several parts, and one that nobody here can do.
    let goal = "Create a NATS consumer for user events and a REST API for orders in elixir";
    let nobody = "Write a function to find the minimum cost path in a matrix in rust";
    let said = ask(&client, "workflow.start.acme", &json!({"goals": [goal, nobody]})).await.unwrap();
    let (first, second) = (&said["workflows"][0], &said["workflows"][1]);
    assert!(second["workflow_id"].is_null() && second["error"].as_str().unwrap().contains("no model"), "{said}");
    let id = first["workflow_id"].as_str().unwrap();
    let status = until("it is over", async || {
        let status = ask(&client, "workflow.status.acme", &json!({"workflow_id": id})).await.unwrap();
        (status["status"] != "running").then_some(status)
    })
    .await;
    assert_eq!(status["status"], "completed", "{status:#}");
    assert!(status["tasks"].as_object().unwrap().len() >= 3, "{status:#}");
    let refused = ask(&client, "workflow.start", &json!({"goal": nobody})).await.unwrap_err();
    assert_eq!((&refused["error"], &refused["field"]), (&json!("invalid_goal"), &json!("goal")));
    let unknown = ask(&client, "workflow.status", &json!({"workflow_id": id})).await.unwrap_err();
    assert_eq!(unknown["error"], "not_found");
    let over = ask(&client, "workflow.pause.acme", &json!({"workflow_id": id})).await.unwrap_err();
    assert_eq!(over["error"], "not_allowed");
    // What a tenant has goes with it: the workflow, and what its goal was taken apart into.
    let purged = ask(&client, "execution.purge.acme", &json!({"confirm": "acme"})).await.unwrap();
    assert_eq!(purged["rows"]["workflows"], 2, "{purged}");
    let gone = ask(&client, "workflow.show.acme", &json!({"workflow_id": id})).await.unwrap_err();
    assert_eq!(gone["error"], "not_found");

    // A service that does not answer yet.
    let task = json!({"id": "a", "description": "A", "step": {"kind": "nats", "subject": "orders.slow"}});
    let mut slow = client.subscribe("orders.slow").await.unwrap();
    client.flush().await.unwrap();
    let id = started(&client, &json!({"graph": {"tasks": [task]}, "id": "nightly"})).await;
    assert_eq!(started(&client, &json!({"graph": {"tasks": [task]}, "id": "nightly"})).await, id);
    slow.next().await.unwrap();
    for (subject, state) in [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"), ("retry", "running")]
    {
        let said = ask(&client, &format!("workflow.{subject}"), &json!({"workflow_id": id})).await.unwrap();
        assert_eq!(said, json!({"workflow_id": id, "status": state}));
    }
    let again = slow.next().await.unwrap();
    client.publish(again.reply.unwrap(), "{}".into()).await.unwrap();
    assert_eq!(crate::wire::over(&client, &id).await["status"], "completed");
    worker.stop().await;
}
