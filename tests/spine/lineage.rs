//! What an answer came from, how long it is kept, and what a verdict on it reaches.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::domain::record::Verdict;
use tandem::domain::{CorrelationId, Tenant, Timestamp};
use tandem::llm::{Credentials, Key};
use tandem::store::{Sequence, Store};

use crate::ids::held;
use crate::nats::{Nats, header, json as read};
use crate::worker::Place;
use crate::{Asker, declined, example, text, until, with};

/// A goal of two parts; the rules know the first.
fn half_by_rules() -> Value {
    let task = "Create a REST endpoint for orders and create a REST endpoint for quantum-resistant zeppelin hangars with ML ranking";
    json!({"task": task, "language": "elixir"})
}

#[tokio::test]
async fn what_one_worker_has_no_room_for_others_and_the_database_keep() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut small = place.config(&nats);
    small.cache.max_entries = 2;
    let small = place.worker_with(small, Credentials::default()).await;
    let asker = Asker::of(&nats).await;
    let events = ["user", "order", "billing", "audit", "login", "payment", "invoice", "session"];
    for event in events {
        let task = format!("Create a NATS consumer for processing {event} events");
        asker.request(&with(&example(), json!({ "task": task }))).await;
    }
    let large = place.worker(&nats).await;
    let held = |worker: &crate::worker::Running| worker.pipeline.cache_stats(&Tenant::default()).entries;
    until("the larger worker has them all", async || (held(&large) == events.len()).then_some(())).await;
    assert_eq!(held(&small), 2);
    small.stop().await;
    large.stop().await;

    let store = Store::open(&place.config(&nats).database).await.unwrap();
    let kept = store.changes_since(Sequence::default(), Timestamp::now(), 100).await.unwrap();
    assert_eq!((kept.put.len(), kept.withdrawn.len()), (events.len(), 0));
}

#[tokio::test]
async fn a_verdict_of_which_no_word_came_is_followed_all_the_same() {
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = place.worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let anew = with(&example(), json!({"cache": "off"}));
    let answer = asker.request(&anew).await;
    let id = CorrelationId::parse(answer["correlation_id"].as_str().unwrap()).unwrap();
    // Taken down by somebody whose words this worker does not hear.
    let elsewhere = Store::open(&place.config(&nats).database).await.unwrap();
    until("the verdict is down", async || {
        elsewhere.judge(&Tenant::default(), &id, Verdict::Wrong, None, Timestamp::now()).await.unwrap()
    })
    .await;
    until("the template is used no more", async || {
        (asker.request(&anew).await["template_used"] != answer["template_used"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_verdict_on_a_compound_hit_reaches_the_templates_of_its_parts() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let task = "REST endpoint for orders and a consumer for order events, with tests and docs";
    let body = json!({"task": task, "language": "elixir"});
    let made = asker.request(&body).await;
    let hit = asker.request(&body).await;
    assert_eq!((&hit["metrics"]["cache_hit"], &hit["cache"]["origin"]), (&json!(true), &made["correlation_id"]));
    let judged = asker.judge("execution.feedback", &hit, "wrong").await;
    let parts = made["parts"].as_array().unwrap();
    let blocked = judged["blocked"].as_array().unwrap();
    assert!(parts.iter().all(|part| blocked.contains(&part["template_used"])), "{judged}");
    assert_eq!(judged["withdrawn"], 1, "{judged}");
    let anew = asker.request(&body).await;
    assert_eq!(anew["metrics"]["cache_hit"], false);
    for (part, before) in anew["parts"].as_array().unwrap().iter().zip(parts) {
        assert_ne!(part["template_used"], before["template_used"], "{part}");
    }
}

#[tokio::test]
async fn what_was_found_wrong_is_not_served_from_an_entry_of_another_scope() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let simple = with(&example(), json!({"complexity": "simple"}));
    asker.request(&simple).await;
    let wrong = asker.request(&example()).await;
    assert_eq!(wrong["metrics"]["cache_hit"], false, "the complexity is another");
    asker.judge("execution.feedback", &wrong, "wrong").await;
    let answer = asker.request(&simple).await;
    assert_ne!(answer["template_used"], wrong["template_used"], "{answer}");
    let stats = asker.ask("cache.stats", &json!({})).await;
    assert_eq!((&stats["exact_hits"], &stats["semantic_hits"]), (&json!(0), &json!(0)), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_wrong_does_not_come_back_by_way_of_a_paraphrase() {
    let nats = Nats::start().await;
    let _worker = Place::with_model().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let paraphrase = with(&example(), json!({"task": "Create a NATS consumer that processes user events"}));
    let first = asker.request(&example()).await;
    let hit = asker.request(&paraphrase).await;
    assert_eq!(hit["cache"]["tier"], "semantic", "{hit}");
    asker.judge("execution.feedback", &hit, "wrong").await;
    let again = asker.request(&example()).await;
    assert_eq!(again["template_used"], first["template_used"], "right for its own task, and stored anew");
    let answer = asker.request(&paraphrase).await;
    assert_ne!(answer["template_used"], first["template_used"], "{answer}");
}

#[tokio::test]
async fn an_id_does_not_replay_what_was_found_wrong() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let body = with(&example(), json!({"id": "order-17"}));
    let first = asker.request(&body).await;
    let hit = with(&example(), json!({"id": "order-18"}));
    assert_eq!(asker.request(&hit).await["metrics"]["cache_hit"], true);
    asker.judge("execution.feedback", &first, "wrong").await;
    for body in [body, hit] {
        let answer = asker.request(&body).await;
        assert_ne!(answer["template_used"], first["template_used"], "{answer}");
    }
}

#[tokio::test]
async fn a_hit_is_not_stored_again_and_a_verdict_on_it_reaches_the_original() {
    let (url, gate, _) = held().await;
    gate.add_permits(100);
    let nats = Nats::start().await;
    let place = Place::new();
    let credentials = Credentials { openai: Some(Key { secret: "k".into(), base_url: url }), ..Credentials::default() };
    let _worker = place.worker_with(place.config(&nats), credentials).await;
    let asker = Asker::of(&nats).await;
    let whole = asker.request(&half_by_rules()).await;
    let parts = whole["parts"].as_array().unwrap_or_else(|| panic!("no parts: {whole}"));
    let by_model = parts.iter().find(|p| p["method"] == "llm_assisted").unwrap_or_else(|| panic!("{whole}"));
    let alone = json!({"task": by_model["description"], "language": "elixir"});
    let mut last = json!(null);
    for _ in 0..2 {
        last = asker.request(&alone).await;
        assert_eq!(last["cache"]["origin"], whole["correlation_id"], "{last}");
    }
    let judged = asker.judge("execution.feedback", &last, "wrong").await;
    assert_eq!((&judged["withdrawn"], &judged["blocked"]), (&json!(1), &json!([])), "its siblings stay: {judged}");
    assert_eq!(asker.request(&alone).await["metrics"]["cache_hit"], false);
}

#[tokio::test]
async fn at_the_deadline_the_finished_parts_are_there_and_what_has_no_answer_counts() {
    let (url, _gate, _) = held().await;
    let nats = Nats::start().await;
    let place = Place::new();
    let credentials = Credentials { openai: Some(Key { secret: "k".into(), base_url: url }), ..Credentials::default() };
    let _worker = place.worker_with(place.config(&nats), credentials).await;
    let asker = Asker::of(&nats).await;
    let whole = asker.request(&with(&half_by_rules(), json!({"timeout_ms": 2_000}))).await;
    let done: Vec<bool> = whole["parts"].as_array().unwrap().iter().map(|p| p["metrics"]["success"] == true).collect();
    assert_eq!(done, [true, false], "{whole}");

    let body = with(&declined(), json!({"id": "a", "timeout_ms": 8_000}));
    let (holder, holds) = (asker.clone(), body.clone());
    let holding = tokio::spawn(async move { holder.request(&holds).await });
    until("the id is taken", async || {
        (asker.ask("execution.stats", &json!({})).await["current_execution"]["running"] == 1).then_some(())
    })
    .await;
    // The same again, by somebody who has less time to wait for it.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Execution-Deadline", Timestamp::now().plus(Duration::from_millis(400)).0.to_string());
    let asked = asker.0.request_with_headers("execution.request", headers, body.to_string().into()).await.unwrap();
    assert_eq!(header(&asked, "Nats-Service-Error-Code"), Some("408"), "{}", read(&asked));
    let counted = async || {
        let stats = asker.ask("execution.stats", &json!({})).await;
        (stats["total_executions"] == 2).then_some(stats["success_rate"].clone())
    };
    assert_eq!(until("it counts", counted).await, json!(0.0));
    holding.abort();
}

#[tokio::test]
async fn a_template_s_time_is_its_own() {
    let nats = Nats::start().await;
    let place = Place::new();
    let worker = place.worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let answer = asker.request(&example()).await;
    worker.stop().await;
    let id = CorrelationId::parse(text(&answer, "correlation_id")).unwrap();
    let store = Store::open(&place.config(&nats).database).await.unwrap();
    let execution = store.execution(&Tenant::default(), &id).await.unwrap().remove(0);
    assert!(!execution.made_in.is_zero() && execution.made_in < execution.time, "{execution:?}");
}
