//! Goals that a user's own service takes apart, what is remembered of them, and the bounds of their types.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::config::Config;
use tandem::domain::workflow::Decomposer;

use crate::model::Model;
use crate::nats::Nats;
use crate::wire::{ask, over, serving, started, with_python};
use crate::{Kind, Place};

const SUBJECT: &str = "goals.decompose";

fn asking(place: &Place) -> Config {
    let mut config = place.config();
    config.workflow.decomposer.subject = SUBJECT.to_owned();
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    config
}

/// What a decomposer says to everything; `None`: nothing.
type Says = Arc<Mutex<Option<(Option<&'static str>, String)>>>;

/// A decomposer that counts how often it is asked, and keeps what it was asked last.
struct Scripted {
    says: Says,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Value>>,
}

impl Scripted {
    async fn start(nats: &Nats, graph: &Value) -> Self {
        let says: Says = Arc::new(Mutex::new(Some((None, graph.to_string()))));
        let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Value::Null)));
        let client = nats.client().await;
        let mut requests = client.subscribe(SUBJECT).await.unwrap();
        client.flush().await.unwrap();
        let (said, count, kept) = (says.clone(), asked.clone(), last.clone());
        tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                count.fetch_add(1, Ordering::SeqCst);
                *kept.lock().unwrap() = crate::nats::json(&message);
                let Some((code, body)) = said.lock().unwrap().clone() else { continue };
                let mut headers = HeaderMap::new();
                if let Some(code) = code {
                    headers.insert("Nats-Service-Error-Code", code);
                    headers.insert("Nats-Service-Error", "not my kind of goal");
                }
                client.publish_with_headers(message.reply.unwrap(), headers, body.into()).await.unwrap();
            }
        });
        Self { says, asked, last }
    }

    fn says(&self, body: impl Into<String>) {
        *self.says.lock().unwrap() = Some((None, body.into()));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn graph() -> Value {
    json!({"tasks": [
        {"id": "all", "description": "All of it"},
        {"id": "one", "description": "Create a NATS consumer for user events in elixir", "parent": "all"},
        {"id": "two", "description": "Create a NATS consumer for order events in elixir", "parent": "all", "depends_on": ["one"]}
    ]})
}

fn remote(goal: &str) -> Value {
    json!({"goal": goal, "options": {"decomposer": "remote"}})
}

/// The example, in Python.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_service_takes_goals_apart() {
    let place = Kind::sqlite().place().await;
    let _service = serving(with_python("examples/decomposer/decomposer.py"), place.nats.server.url()).await;
    let worker = place.worker_with(asking(&place)).await;
    let client = place.nats.client().await;
    // No rule knows it and there is no model: the service is asked without anybody saying so.
    let goal = "Give us what a customer service and an invoice service need";
    let status = over(&client, &started(&client, &json!({"goal": goal})).await).await;
    assert_eq!(status["status"], "completed", "{status:#}");
    let tasks: Vec<&String> = status["tasks"].as_object().unwrap().keys().collect();
    assert_eq!(
        tasks,
        ["customer", "customer.endpoint", "customer.table", "invoice", "invoice.endpoint", "invoice.table"]
    );
    assert!(status["tasks"]["customer.table"]["output"]["text"].as_str().unwrap().contains("CREATE TABLE"));
    let flat = json!({"goal": goal, "options": {"max_depth": 1}});
    let status = over(&client, &started(&client, &flat).await).await;
    assert_eq!((&status["status"], status["tasks"].as_object().unwrap().len()), (&json!("completed"), 4), "{status:#}");
    let refused = ask(&client, "workflow.start", &json!({"goal": "Give us peace"})).await.unwrap_err();
    assert_eq!((&refused["error"], &refused["field"]), (&json!("invalid_goal"), &json!("goal")));
    assert!(refused["message"].as_str().unwrap().contains("422: it names no service"), "{refused}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_decomposer_answers_is_bounded_and_named() {
    let place = Kind::sqlite().place().await;
    let mut config = asking(&place);
    (config.workflow.max_tasks, config.workflow.decomposition_timeout_ms) = (50, 400);
    config.nats.max_body_bytes = 20_000;
    let worker = place.worker_with(config).await;
    let (client, decomposer) = (place.nats.client().await, Scripted::start(&place.nats, &graph()).await);
    let task = |more: Value| {
        let mut task = json!({"id": "a", "description": "A"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"tasks": [task, {"id": "b", "description": "B", "depends_on": ["a"]}]}).to_string()
    };
    let many: Vec<Value> = (0..51).map(|i| json!({"id": format!("t{i}"), "description": "T"})).collect();
    let chain: Vec<Value> = (0..25)
        .map(|i| match i {
            0 => json!({"id": "g0", "description": "G"}),
            i => json!({"id": format!("g{i}"), "description": "G", "parent": format!("g{}", i - 1)}),
        })
        .collect();
    for (answer, says) in [
        (task(json!({"depends_on": ["b"]})), "wait for each other"),
        (task(json!({"depends_on": ["x"]})), "'x'"),
        (json!({"tasks": many}).to_string(), "51 tasks; at most 50"),
        (json!({"tasks": chain}).to_string(), "levels deep"),
        (task(json!({"step": {"kind": "nats", "subject": "$JS.API.INFO"}})), "belongs to the server"),
        (task(json!({"step": {"kind": "nats", "subject": "tandem.sync.x"}})), "belongs to the server"),
        (task(json!({"step": {"kind": "nats", "subject": "other"}})), "workflow.step_subjects"),
        (task(json!({"step": {"kind": "native", "name": "nobody"}})), "no step called 'nobody'"),
        (task(json!({"run": "rm -rf /"})), "not known"),
        ("no json".to_owned(), "no JSON"),
        (String::new(), "empty"),
        ("[".repeat(10_000), "no JSON"),
        ("[]".to_owned(), "a list"),
        (json!({"tasks": []}).to_string(), "no tasks"),
        (json!({"tasks": [{"id": "a", "description": "x".repeat(20_000)}]}).to_string(), "nats.max_body_bytes"),
    ] {
        decomposer.says(answer.clone());
        let refused = ask(&client, "workflow.start", &remote("Do what can't be said")).await.unwrap_err();
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(says) && message.len() < 2_000, "{:.200}: {message}", answer);
        assert_eq!(refused["error"], "invalid_goal", "{refused}");
    }
    // Nothing of it is remembered.
    decomposer.says(graph().to_string());
    let status = over(&client, &started(&client, &remote("Do what can't be said")).await).await;
    assert_eq!(status["tasks"].as_object().unwrap().len(), 3, "{status:#}");
    let said = decomposer.last.lock().unwrap().clone();
    let limits = json!({"max_tasks": 50, "max_bytes": 20_000, "timeout_ms": said["limits"]["timeout_ms"]});
    assert_eq!(said, json!({"goal": "Do what can't be said", "type": null, "max_depth": 20, "limits": limits}));
    assert!((1..=400).contains(&said["limits"]["timeout_ms"].as_u64().unwrap()), "{said}");

    // What may pass is said to be so; what it says later finds nobody.
    *decomposer.says.lock().unwrap() = None;
    let begun = Instant::now();
    let late = ask(&client, "workflow.start", &remote("Do something else")).await.unwrap_err();
    assert!(late["message"].as_str().unwrap().contains("no answer on goals.decompose within"), "{late}");
    assert!(late["error"] == "unavailable" && begun.elapsed() < Duration::from_secs(5), "{late}");
    *decomposer.says.lock().unwrap() = Some((Some("500"), String::new()));
    let broken = ask(&client, "workflow.start", &remote("Do something else")).await.unwrap_err();
    assert_eq!(broken["error"], "unavailable", "{broken}");
    *decomposer.says.lock().unwrap() = Some((Some("404"), String::new()));
    let refused = ask(&client, "workflow.start", &remote("Do something else")).await.unwrap_err();
    assert!(refused["message"].as_str().unwrap().contains("404: not my kind of goal"), "{refused}");
    assert_eq!(refused["error"], "invalid_goal");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_is_as_the_order_says_and_a_model_stands_in_for_a_service() {
    let (place, model) = (Kind::sqlite().place().await, Model::slow(Duration::ZERO).await);
    let decomposer = Scripted::start(&place.nats, &graph()).await;
    let worker = place.with_credentials(model.routed(asking(&place)), model.credentials()).await;
    let client = place.nats.client().await;
    let start = async |goal: &str, way: &str| {
        ask(&client, "workflow.start", &json!({"goal": goal, "options": {"decomposer": way}})).await
    };
    let goal = "Write a function to find the minimum cost path in a matrix in rust";
    let refused = start(goal, "rules").await.unwrap_err();
    assert!(refused["error"] == "invalid_goal" && (decomposer.asked(), model.asked()) == (0, 0), "{refused}");
    // The model's answer is no plan.
    let refused = start(goal, "model").await.unwrap_err();
    assert!(refused["error"] == "invalid_goal" && (decomposer.asked(), model.asked()) == (0, 1), "{refused}");
    let by_service = start(goal, "remote").await.unwrap();
    assert_eq!((decomposer.asked(), model.asked()), (1, 1), "{by_service}");
    // The service goes before the model, and what it made is remembered.
    for _ in 0..2 {
        start(goal, "hybrid").await.unwrap();
        assert_eq!((decomposer.asked(), model.asked()), (2, 1));
    }
    // Where it has none, the model is asked; its answer is no plan, so the goal stays whole.
    *decomposer.says.lock().unwrap() = Some((Some("404"), String::new()));
    let whole = start("Write a function to find the longest way through a maze in rust", "hybrid").await.unwrap();
    assert_eq!((decomposer.asked(), model.asked() >= 2), (3, true));
    let status = over(&client, whole["workflow_id"].as_str().unwrap()).await;
    assert_eq!(status["tasks"].as_object().unwrap().len(), 1, "{status:#}");
    // Rules that know a goal ask nobody.
    let known = "Create a NATS consumer for user events and a REST API for orders in elixir";
    start(known, "hybrid").await.unwrap();
    assert_eq!(decomposer.asked(), 3);
    let wrong =
        ask(&client, "workflow.start", &json!({"graph": graph(), "options": {"max_depth": 3}})).await.unwrap_err();
    assert_eq!(wrong["field"], "options.max_depth");
    worker.stop().await;

    let mut config = place.config();
    config.workflow.decomposer.kind = Decomposer::Remote;
    assert!(config.workflow.check().unwrap_err().contains("workflow.decomposer.subject"));
    for subject in ["goals.*", "workflow.start", "$SYS.x", "a b"] {
        config.workflow.decomposer.subject = subject.to_owned();
        assert!(config.workflow.check().unwrap_err().starts_with("workflow.decomposer.subject"), "{subject}");
    }
}

/// In words that the cache is sure of it is the same goal; with another name or a "not" it is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goal_in_other_words_is_not_taken_apart_again() {
    let place = Kind::sqlite().place_with_model().await;
    let decomposer = Scripted::start(&place.nats, &graph()).await;
    let worker = place.worker_with(asking(&place)).await;
    let client = place.nats.client().await;
    let start = async |goal: &str| ask(&client, "workflow.start", &remote(goal)).await.unwrap();
    start("Build a microservice for orders").await;
    assert_eq!(decomposer.asked(), 1);
    for same in ["Please build a microservice for orders", "Create a microservice for orders."] {
        start(same).await;
        assert_eq!(decomposer.asked(), 1, "{same}");
    }
    let mut asked = 1;
    for other in [
        "Build a microservice for users",
        "Build a microservice for orders without a database",
        "Do not build a microservice for orders",
        "Build two microservices for orders",
    ] {
        start(other).await;
        asked += 1;
        assert_eq!(decomposer.asked(), asked, "{other}");
    }
    // Another tenant's is another's, and so is a graph of another depth.
    ask(&client, "workflow.start.acme", &remote("Please build a microservice for orders")).await.unwrap();
    let flat =
        json!({"goal": "Please build a microservice for orders", "options": {"decomposer": "remote", "max_depth": 4}});
    ask(&client, "workflow.start", &flat).await.unwrap();
    assert_eq!(decomposer.asked(), asked + 2);
    // A task in these words is no goal: it does not get the graph for an answer.
    let task = json!({"task": "Create a microservice for orders.", "language": "elixir"});
    let said = client.request("execution.request", task.to_string().into()).await.unwrap();
    assert_ne!(crate::nats::json(&said)["method"], "cached");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goals_have_the_bounds_of_their_type() {
    let place = Kind::sqlite().place().await;
    let decomposer = Scripted::start(&place.nats, &graph()).await;
    let (mut config, folder) = (asking(&place), tempfile::tempdir().unwrap());
    config.workflow.rules = folder.path().display().to_string();
    config.workflow.decomposers.data_pipeline.timeout_ms = 300;
    config.workflow.decomposers.data_pipeline.max_depth = 1;
    // A rule without tasks says of which type a goal is; one file has bounds of its own.
    let rule = |kind: &str, more: &str, goal: &str| {
        format!("type = \"{kind}\"\n{more}\n[[rule]]\nname = \"r\"\ngoal = \"{goal}\"\n")
    };
    std::fs::write(folder.path().join("churn.toml"), rule("ml_pipeline", "", "train ... model")).unwrap();
    std::fs::write(folder.path().join("own.toml"), rule("simple", "max_depth = 3\ntimeout_s = 9", "mend ...")).unwrap();
    let worker = place.worker_with(config).await;
    let client = place.nats.client().await;
    let start = async |goal: &str, options: Value| {
        ask(&client, "workflow.start", &json!({"goal": goal, "options": options})).await
    };
    for (goal, options, kind, depth, seconds) in [
        ("Train our churn model", json!({}), json!("ml_pipeline"), 20, 290..=300),
        ("Mend the roof", json!({}), json!("simple"), 3, 8..=9),
        ("Mend the roof", json!({"max_depth": 2}), json!("simple"), 2, 8..=9),
        ("Mend the roof", json!({"type": "microservices"}), json!("microservices"), 15, 110..=120),
        ("Make me a sandwich", json!({}), Value::Null, 20, 55..=60),
    ] {
        start(goal, options).await.unwrap();
        let said = decomposer.last.lock().unwrap().clone();
        let limit = said["limits"]["timeout_ms"].as_u64().unwrap().div_ceil(1_000);
        assert!(
            (&said["type"], said["max_depth"].as_u64()) == (&kind, Some(depth)) && seconds.contains(&limit),
            "{said}"
        );
    }
    // The graph has groups, so it is two levels deep.
    let deep = start("Make me a cake", json!({"type": "data_pipeline"})).await.unwrap_err();
    assert!(deep["error"] == "invalid_goal" && deep["message"].as_str().unwrap().contains("levels deep"), "{deep}");
    *decomposer.says.lock().unwrap() = None;
    let late = start("Make me a pie", json!({"type": "data_pipeline"})).await.unwrap_err();
    assert!(
        late["message"].as_str().unwrap().contains("within 3")
            || late["message"].as_str().unwrap().contains("within 2"),
        "{late}"
    );
    assert_eq!(late["error"], "unavailable");
    worker.stop().await;
}
