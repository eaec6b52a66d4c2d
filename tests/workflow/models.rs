//! Steps that a model does, and goals that it is asked to take apart.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::workflow::Workflows;

use crate::model::Model;
use crate::wire::{ask, over, started};
use crate::{Kind, options, order, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_sees_what_was_done_before_and_the_agent_asks_one_where_rules_decline() {
    let (place, model) = (Kind::sqlite().place().await, Model::slow(Duration::ZERO).await);
    let worker = place.with_credentials(model.routed(place.config()), model.credentials()).await;
    let client = place.nats.client().await;
    let tasks = json!([
        {"id": "first", "description": "Name a fruit.", "step": {"kind": "model", "max_tokens": 50}},
        {"id": "second", "description": "Praise it.", "depends_on": ["first"], "step": {"kind": "model", "system": "Be short."}},
        {"id": "path", "description": "Write a function to find the minimum cost path in a matrix in rust", "depends_on": ["first"]}
    ]);
    let id = started(&client, &json!({"graph": {"tasks": tasks}})).await;
    let status = over(&client, &id).await;
    assert_eq!(status["status"], "completed", "{status:#}");
    let output = |task: &str| status["tasks"][task]["output"].clone();
    assert!(output("first")["text"].as_str().unwrap().contains("minimum_cost"));
    assert_eq!((&output("first")["model"], output("first")["cost_usd"].as_f64()), (&json!("gpt-5-mini"), Some(0.006)));
    assert_eq!((&output("path")["method"], output("path")["quality"].is_number()), (&json!("llm_assisted"), true));
    let asked = model.bodies();
    let with = |words: &str| asked.iter().filter(|body| body.contains(words)).cloned().collect::<Vec<_>>();
    for words in ["Praise it.", "minimum cost path"] {
        let [body] = &with(words)[..] else { panic!("{words}: {asked:?}") };
        assert!(body.contains("minimum_cost(matrix"), "what was done before is not shown: {body}");
    }
    assert!(with("Praise it.")[0].contains("Be short."));
    // What it cost is in the ledger.
    let stats = ask(&client, "llm.stats", &json!({})).await.unwrap();
    assert_eq!(stats["total"]["attempts"], 3, "{stats}");
    worker.stop().await;
}

/// A step that asks for JSON gets what fits its schema, or fails; what fits goes on as JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_step_with_a_schema_gives_what_fits_it() {
    let (place, model) = (Kind::sqlite().place().await, Model::saying("{\"score\": 7}", Duration::ZERO).await);
    let mut config = model.routed(place.config());
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    let worker = place.with_credentials(config, model.credentials()).await;
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.rank").await.unwrap();
    client.flush().await.unwrap();
    let schema = |kind: &str| json!({"type": "object", "properties": {"score": {"type": kind}}, "required": ["score"], "additionalProperties": false});
    let graph = |kind: &str| {
        json!({"graph": {"tasks": [
            {"id": "judge", "description": "Judge it.", "step": {"kind": "model", "schema": schema(kind)}},
            {"id": "rank", "description": "Rank it.", "depends_on": ["judge"], "step": {"kind": "nats", "subject": "orders.rank"}}
        ]}})
    };
    let id = started(&client, &graph("integer")).await;
    let message =
        tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut asked)).await.unwrap().unwrap();
    assert_eq!(crate::nats::json(&message)["inputs"]["judge"]["json"], json!({"score": 7}));
    client.publish(message.reply.unwrap(), "1".into()).await.unwrap();
    assert_eq!(over(&client, &id).await["status"], "completed");
    assert!(model.bodies()[0].contains("json_schema"), "{:?}", model.bodies());
    let id = started(&client, &graph("string")).await;
    let status = over(&client, &id).await;
    let judge = &status["tasks"]["judge"];
    assert_eq!(
        (&judge["status"], &judge["error"]["kind"], &status["tasks"]["rank"]["status"]),
        (&json!("failed"), &json!("undone"), &json!("skipped")),
        "{status:#}"
    );
    // One that is no schema is refused before anything runs.
    let wrong = json!({"graph": {"tasks": [{"id": "a", "description": "A", "step": {"kind": "model", "schema": {"type": 5}}}]}});
    let refused = ask(&client, "workflow.start", &wrong).await.unwrap_err();
    assert_eq!(refused["field"], "graph.tasks[0].step.schema", "{refused}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goal_is_taken_apart_once() {
    let (place, model) = (Kind::sqlite().place().await, Model::slow(Duration::ZERO).await);
    let worker = place.with_credentials(model.routed(place.config()), model.credentials()).await;
    let client = place.nats.client().await;
    // What the model answers is no plan: the goal stays whole, and the agent does it.
    let goal = json!({"goal": "Write a function to find the minimum cost path in a matrix in rust"});
    let first = over(&client, &started(&client, &goal).await).await;
    assert_eq!(first["status"], "completed", "{first:#}");
    let tasks: Vec<&Value> = first["tasks"].as_object().unwrap().values().collect();
    assert_eq!((tasks.len(), &tasks[0]["output"]["method"]), (1, &json!("llm_assisted")));
    let asked = model.asked();
    assert_eq!(asked, 2, "once for a plan, once for the work");
    let second = over(&client, &started(&client, &goal).await).await;
    assert_eq!(second["status"], "completed");
    // The plan is remembered, and the work is in the cache.
    assert_eq!(model.asked(), asked);
    let events = ask(&client, "workflow.events", &json!({"workflow_id": second["workflow_id"]})).await.unwrap();
    let kinds: Vec<&str> = events["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["decomposition_started", "decomposition_completed", "execution_started"]);
    worker.stop().await;
}

/// A step that was under way when its worker was told to stop is given back, and another does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_gives_back_what_it_can_not_end() {
    let place = Kind::sqlite().place().await;
    let one = place.worker().await;
    let begun = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = begun.clone();
    one.workflows.register("step", move |_| {
        told.notify_one();
        std::future::pending()
    });
    let of: &Workflows = &one.workflows;
    let id = of.launch(order(vec![crate::native("a", &[])], options())).await.unwrap();
    begun.notified().await;
    let workflows = of.clone();
    let two = place.worker().await;
    two.workflows.register("step", |_| async { Ok("\"two\"".to_owned()) });
    let stopped = std::time::Instant::now();
    workflows.stop(Duration::from_millis(50)).await;
    let done = async || {
        let found = two.workflows.find(&Default::default(), id).await.unwrap();
        found.state.is_over().then_some(found)
    };
    let found = until("another worker does it", done).await;
    assert_eq!(found.completed, 1);
    // Given back, not taken: nobody had to wait for a lease.
    assert!(stopped.elapsed() < Duration::from_millis(1_200), "{:?}", stopped.elapsed());
    let attempts = two.workflows.attempts(found.number).await.unwrap();
    assert_eq!(attempts.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(), ["completed"]);
    drop(one);
    two.stop().await;
}
