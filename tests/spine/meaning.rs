//! Answers found by what a task means, with the real model.

use std::time::{Duration, Instant};

use serde_json::json;
use tandem::cache::Order;
use tandem::llm::Credentials;

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, example, with};

const PARAPHRASE: &str = "Create a NATS consumer that processes user events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paraphrase_hits_and_another_thing_said_alike_does_not() {
    let nats = Nats::start().await;
    let _worker = Place::with_model().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let first = asker.request(&example()).await;
    assert_eq!(first["method"], "autonomous");

    let paraphrase = with(&example(), json!({ "task": PARAPHRASE }));
    let hit = asker.request(&paraphrase).await;
    assert_eq!((&hit["method"], &hit["metrics"]["cache_hit"]), (&json!("cached"), &json!(true)), "{hit}");
    assert_eq!(hit["cache"]["tier"], "semantic", "{hit}");
    let similarity = hit["cache"]["similarity"].as_f64().unwrap();
    assert!((0.8..1.0).contains(&similarity), "{similarity}");
    assert_eq!(hit["cache"]["origin"], first["correlation_id"]);
    assert_eq!(hit["metrics"]["cost_usd"].as_f64(), Some(0.0));
    assert_eq!(hit["template_used"], first["template_used"]);

    for trap in [
        "Create a NATS consumer for processing order events",
        "Create a NATS publisher for sending user events",
        "Create a NATS consumer for processing user events without acknowledgement",
        "Create a Kafka consumer for processing user events",
    ] {
        let answer = asker.request(&with(&example(), json!({ "task": trap }))).await;
        assert_eq!(answer["metrics"]["cache_hit"], false, "{trap}: {answer}");
    }
    let other = asker.request(&with(&paraphrase, json!({"language": "rust"}))).await;
    assert_eq!(other["metrics"]["cache_hit"], false, "{other}");

    let why = with(&example(), json!({"task": "Create a NATS consumer for processing order events"}));
    let explained = asker.ask("cache.explain", &why).await;
    let neighbours = explained["neighbours"].as_array().unwrap();
    let refused = neighbours.iter().find(|n| n["task"] == example()["task"]).unwrap();
    assert_eq!(refused["served"], false, "{refused}");
    assert!(refused["why"].is_string(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_worker_stored_another_finds_by_meaning_and_a_restarted_one_too() {
    let nats = Nats::start().await;
    let place = Place::with_model();
    let asker = Asker::of(&nats).await;
    let first = place.worker(&nats).await;
    let origin = asker.request(&example()).await["correlation_id"].clone();
    let second = place.worker(&nats).await;
    first.stop().await;
    let paraphrase = with(&example(), json!({"task": PARAPHRASE, "cache": "use"}));
    let hit = asker.request(&paraphrase).await;
    assert_eq!((&hit["cache"]["tier"], &hit["cache"]["origin"]), (&json!("semantic"), &origin), "{hit}");
    // A user who finds it wrong by a paraphrase has it withdrawn, not only what was asked.
    assert_eq!(asker.judge("execution.feedback", &hit, "wrong").await["withdrawn"], 1);
    second.stop().await;

    let _third = place.worker(&nats).await;
    let anew = asker.request(&example()).await;
    assert_eq!((&anew["method"], &anew["template_used"]), (&json!("autonomous"), &json!("elixir-nats-consumer")));
    // Nor does what was found wrong come back by way of the other wording, which nobody complained of.
    let answer = asker.request(&paraphrase).await;
    assert_ne!(answer["template_used"], "elixir-nats-consumer", "{answer}");
    assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_rules_first_a_paraphrase_is_answered_by_rules_without_a_lookup_by_meaning() {
    let nats = Nats::start().await;
    let place = Place::with_model();
    let mut config = place.config(&nats);
    config.cache.order = Order::RulesFirst;
    let _worker = place.worker_with(config, Credentials::default()).await;
    let asker = Asker::of(&nats).await;
    asker.request(&example()).await;

    let answer = asker.request(&with(&example(), json!({ "task": PARAPHRASE }))).await;
    assert_eq!((&answer["method"], &answer["metrics"]["cache_hit"]), (&json!("autonomous"), &json!(false)), "{answer}");
    assert_eq!(asker.request(&example()).await["cache"]["tier"], "exact");
    let stats = asker.ask("cache.stats", &json!({})).await;
    assert_eq!((&stats["semantic_hits"], &stats["refused"]), (&json!(0), &json!({})), "nobody looked: {stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_hit_makes_every_worker_ask_for_more_near_it() {
    let nats = Nats::start().await;
    let place = Place::with_model();
    let asker = Asker::of(&nats).await;
    let _workers = [place.worker(&nats).await, place.worker(&nats).await];
    asker.request(&with(&example(), json!({ "task": "Create a NATS consumer for processing order events" }))).await;
    asker.request(&example()).await;
    let ask = with(&example(), json!({ "task": PARAPHRASE }));
    let deadline = Instant::now() + Duration::from_secs(60);
    // Either worker may answer; what ten answers in a row say, both have read.
    let all_say = async |what: &str, says: &dyn Fn(&serde_json::Value) -> bool| {
        let mut said = 0;
        while said < 10 {
            assert!(Instant::now() < deadline, "{what}");
            said = if says(&asker.ask("cache.explain", &ask).await["neighbours"]) { said + 1 } else { 0 };
        }
    };
    all_say("both entries have their vectors", &|near| near.as_array().is_some_and(|near| near.len() == 2)).await;
    let needed = |near: &serde_json::Value| near[0]["needed"].as_f64();
    let before = needed(&asker.ask("cache.explain", &ask).await["neighbours"]);
    let hit = asker.request(&ask).await;
    assert_eq!(hit["cache"]["tier"], "semantic", "{hit}");
    let verdict = json!({ "correlation_id": hit["correlation_id"], "verdict": "wrong" });
    asker.ask("execution.feedback", &verdict).await;
    all_say("more is needed than before", &|near| needed(near) > before).await;
}
