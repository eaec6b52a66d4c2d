//! The request that the source shows, and what of it belongs to a cached answer's scope.

use serde_json::json;

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, example, names, text, with};

#[tokio::test]
async fn the_source_s_example_gets_the_source_s_fields_and_the_second_time_a_hit() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;

    let first = asker.request(&example()).await;
    let fields = [
        "correlation_id",
        "file",
        "language",
        "method",
        "metrics",
        "model_used",
        "result",
        "task_type",
        "template_used",
    ];
    assert_eq!(names(&first), fields);
    let metrics = ["cache_hit", "cost_usd", "quality", "success", "time_ms", "tokens_used"];
    assert_eq!(names(&first["metrics"]), metrics);
    assert_eq!(first["method"], "autonomous");
    assert_eq!(first["template_used"], "elixir-nats-consumer");
    assert_eq!(first["model_used"], "autonomous", "no model wrote it");
    assert_eq!((&first["language"], &first["task_type"]), (&json!("elixir"), &json!("nats_consumer")));
    let code = text(&first, "result");
    for named in ["defmodule UserEventsConsumer do", "user.events", "def handle_event"] {
        assert!(code.contains(named), "{named} is not in {code}");
    }
    let measured = &first["metrics"];
    assert_eq!((&measured["success"], &measured["cache_hit"]), (&json!(true), &json!(false)));
    assert_eq!((measured["cost_usd"].as_f64(), &measured["tokens_used"]), (Some(0.0), &json!(0)));
    assert!(measured["time_ms"].as_f64().unwrap() > 0.0, "{measured}");
    assert!((0.0..=1.0).contains(&measured["quality"].as_f64().unwrap()), "{measured}");

    let again = asker.request(&example()).await;
    assert_eq!((&again["method"], &again["metrics"]["cache_hit"]), (&json!("cached"), &json!(true)));
    assert_eq!((again["metrics"]["cost_usd"].as_f64(), &again["cache"]["tier"]), (Some(0.0), &json!("exact")));
    for same in ["result", "template_used", "language", "task_type", "file"] {
        assert_eq!(again[same], first[same], "{same}");
    }
    assert_eq!(again["cache"]["origin"], first["correlation_id"]);
    assert_ne!(again["correlation_id"], first["correlation_id"]);
}

#[tokio::test]
async fn spelling_that_changes_nothing_hits_too() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    asker.request(&example()).await;
    for same in [
        json!({"task": "  Create a NATS consumer  for processing   user events.\n"}),
        json!({"language": "Elixir"}),
        json!({"complexity": null}),
        json!({"context": {"workspace": "/somewhere/else", "target_file": "lib/event_consumer.ex"}}),
        json!({"context": {"target_file": "lib/event_consumer.ex", "ticket": "T-17"}}),
        json!({"timeout_ms": 30_000, "max_cost_usd": 0.5}),
    ] {
        let answer = asker.request(&with(&example(), same.clone())).await;
        assert_eq!(answer["cache"]["tier"], "exact", "{same}: {answer}");
    }
}

#[tokio::test]
async fn what_changes_an_answer_does_not_hit() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    asker.request(&example()).await;
    assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], true);

    for (other, template) in [
        (json!({"language": "rust"}), Some("rust-nats-consumer")),
        (json!({"complexity": "simple"}), Some("elixir-nats-consumer")),
        (json!({"acceptance_criteria": ["every message is acknowledged"]}), Some("elixir-nats-consumer")),
        (json!({"context": {"target_file": "lib/other.ex"}}), Some("elixir-nats-consumer")),
        (json!({"task": "Create a NATS consumer for processing order events"}), Some("elixir-nats-consumer")),
        // What the template does not honour is left to a model, and there is none here.
        (json!({"acceptance_criteria": ["an event is never lost"]}), None),
        (json!({"context": {"target_file": "lib/event_consumer.ex", "framework": "broadway"}}), None),
        (
            json!({"context": {
                "target_file": "lib/event_consumer.ex",
                "messages": [{"role": "user", "content": "We use umbrella projects."}]
            }}),
            None,
        ),
    ] {
        let answer = asker.request(&with(&example(), other.clone())).await;
        assert_eq!(answer["metrics"]["cache_hit"], false, "{other}: {answer}");
        let method = if template.is_some() { "autonomous" } else { "fallback" };
        assert_eq!((&answer["method"], &answer["template_used"]), (&json!(method), &json!(template)), "{other}");
    }
    let tenant = asker.ask("execution.request.acme", &example()).await;
    assert_eq!(tenant["metrics"]["cache_hit"], false, "a tenant's answers are its own");
    assert_eq!(asker.ask("execution.request.acme", &example()).await["cache"]["origin"], tenant["correlation_id"]);
}

#[tokio::test]
async fn the_sender_may_pass_the_cache_by_or_have_it_made_anew() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let ask = async |mode: &str| asker.request(&with(&example(), json!({"cache": mode}))).await;

    assert_eq!(ask("off").await["method"], "autonomous");
    let first = ask("use").await;
    assert_eq!(first["method"], "autonomous", "what was asked with 'off' was not stored");
    assert_eq!(ask("off").await["method"], "autonomous");
    assert_eq!(ask("use").await["cache"]["origin"], first["correlation_id"], "'off' leaves what is stored alone");
    let anew = ask("refresh").await;
    assert_eq!(anew["method"], "autonomous");
    assert_eq!(ask("use").await["cache"]["origin"], anew["correlation_id"], "'refresh' takes the older one's place");
}

#[tokio::test]
async fn every_task_type_and_language_of_the_issue_names_the_thing_that_was_asked_for() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    for language in ["elixir", "rust", "typescript", "go", "python", "javascript"] {
        let body = json!({"task": "Create a NATS consumer for processing user events", "language": language});
        let answer = asker.request(&body).await;
        assert_eq!(answer["template_used"], format!("{language}-nats-consumer"), "{answer}");
        assert_eq!(answer["metrics"]["success"], true, "{answer}");
        let code = text(&answer, "result").to_lowercase().replace(['_', '-', '.'], "");
        assert!(code.contains("userevents"), "{code}");
    }
    // No language given: the task's words say which.
    let answer = asker.request(&json!({"task": "Create a NATS consumer in Go for processing user events"})).await;
    assert_eq!((&answer["language"], &answer["template_used"]), (&json!("go"), &json!("go-nats-consumer")), "{answer}");
}
