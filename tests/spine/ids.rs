//! A client's own id: once means once, whoever is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use serde_json::{Value, json};
use tandem::domain::Tenant;
use tandem::llm::{Credentials, Key};
use tokio::sync::Semaphore;

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, declined, example, until, with};

/// Without what is of the reply and not of the answer.
fn timeless(mut answer: Value) -> Value {
    answer["metrics"].as_object_mut().unwrap().remove("time_ms");
    answer
}

#[tokio::test]
async fn the_same_id_and_body_get_the_same_answer_and_another_body_a_409() {
    let nats = Nats::start().await;
    let place = Place::new();
    let first = place.worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let body = with(&example(), json!({"id": "order-17", "cache": "off"}));
    let answer = timeless(asker.request(&body).await);
    assert_eq!(timeless(asker.request(&body).await), answer, "the correlation id too");

    let (status, error) = asker.refused("execution.request", &with(&body, json!({"language": "rust"}))).await;
    assert_eq!((status.as_str(), &error["error"], &error["field"]), ("409", &json!("id_conflict"), &json!("id")));
    let tenant = asker.ask("execution.request.acme", &with(&body, json!({"language": "rust"}))).await;
    assert_eq!(tenant["language"], "rust", "an id is its tenant's own");
    assert_eq!(asker.ask("execution.stats", &json!({})).await["total_executions"], 1);

    first.stop().await;
    let _second = place.worker(&nats).await;
    assert_eq!(timeless(asker.request(&body).await), answer, "another worker, after a restart");
    assert_eq!(asker.ask("execution.stats", &json!({})).await["total_executions"], 1);
}

#[tokio::test]
async fn an_id_whose_request_came_to_nothing_may_be_tried_again() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let body = with(&declined(), json!({"id": "a"}));
    let (first, second) = (asker.request(&body).await, asker.request(&body).await);
    assert_eq!((&first["method"], &second["method"]), (&json!("fallback"), &json!("fallback")));
    assert_ne!(first["correlation_id"], second["correlation_id"], "it was tried again");
}

#[tokio::test]
async fn what_was_kept_for_ids_goes_with_the_entry_that_it_was_served_from() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let made = asker.request(&example()).await;
    // At once: hits that are written together.
    let named = |n: usize| with(&example(), json!({"id": format!("order-{n}")}));
    let bodies: Vec<Value> = (0..20).map(named).collect();
    let hits = futures::future::join_all(bodies.iter().map(|body| asker.request(body))).await;
    assert!(hits.iter().all(|hit| hit["method"] == "cached"), "{hits:?}");
    let verdict = json!({"correlation_id": hits[0]["correlation_id"], "verdict": "wrong"});
    assert_eq!(asker.ask("execution.feedback", &verdict).await["withdrawn"], 1);
    for body in &bodies {
        let again = asker.request(body).await;
        assert_ne!(again["result"], made["result"], "{body} still gets what was withdrawn");
    }
}

/// A provider that answers when it is let, and counts.
pub(crate) async fn held() -> (String, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let answer = |State((gate, asked)): State<(Arc<Semaphore>, Arc<AtomicUsize>)>| async move {
        asked.fetch_add(1, Ordering::SeqCst);
        gate.acquire().await.unwrap().forget();
        let text = "```rust\npub fn least() -> u32 {\n    0\n}\n```";
        let body = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        });
        ([("content-type", "application/json")], body.to_string())
    };
    let app = Router::new().fallback(answer).with_state((gate.clone(), asked.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, gate, asked)
}

#[tokio::test]
async fn the_same_id_at_the_same_time_on_two_workers_is_one_execution() {
    let (url, gate, asked) = held().await;
    let nats = Nats::start().await;
    let place = Place::new();
    let credentials = Credentials { openai: Some(Key { secret: "k".into(), base_url: url }), ..Credentials::default() };
    let one = place.worker_with(place.config(&nats), credentials.clone()).await;
    let two = place.worker_with(place.config(&nats), credentials).await;
    let asker = Asker::of(&nats).await;

    let body = with(&declined(), json!({"id": "once", "cache": "off"}));
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let (asker, body) = (asker.clone(), body.clone());
            tokio::spawn(async move { timeless(asker.request(&body).await) })
        })
        .collect();
    let taken = async || {
        let mut running = vec![];
        for worker in [&one, &two] {
            running.push(worker.pipeline.stats(&Tenant::default()).await.unwrap().current_execution.running);
        }
        (running.iter().sum::<u64>() == 12).then_some(running)
    };
    let running = until("all twelve are at work", taken).await;
    assert!(running.iter().all(|n| *n > 0), "one worker had them all: {running:?}");
    // Whoever lost the claim waits; were there a second execution, it would ask the model too.
    until("the model was asked", async || (asked.load(Ordering::SeqCst) > 0).then_some(())).await;
    gate.add_permits(12);
    let mut answers = vec![];
    for asking in asking {
        answers.push(asking.await.unwrap());
    }
    assert_eq!(answers[0]["method"], "llm_assisted", "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the model was asked more than once");
    one.stop().await;
    two.stop().await;
    let _third = place.worker(&nats).await;
    assert_eq!(asker.ask("execution.stats", &json!({})).await["total_executions"], 1);
}
