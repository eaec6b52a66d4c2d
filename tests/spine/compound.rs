//! A goal that names several things comes back as parts; one that names one thing does not.

use serde_json::{Value, json};

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, declined, example, names, text};

#[tokio::test]
async fn a_compound_goal_comes_back_as_parts_in_their_order_with_method_template_cost_and_quality() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let task = "REST endpoint for orders and a consumer for order events, with tests and docs";
    let body = json!({"task": task, "language": "elixir"});
    let answer = asker.request(&body).await;
    assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("autonomous"), &json!(true)), "{answer}");

    let parts = answer["parts"].as_array().unwrap();
    let of = |template: &str| {
        let found = parts.iter().find(|p| p["template_used"] == template);
        found.unwrap_or_else(|| {
            panic!("no part by {template}: {:?}", parts.iter().map(|p| &p["template_used"]).collect::<Vec<_>>())
        })
    };
    let (endpoint, consumer) = (of("elixir-api-endpoint"), of("elixir-nats-consumer"));
    let (tests, docs) = (of("elixir-testing"), of("any-documentation"));
    assert_eq!(parts.len(), 4);
    for part in parts {
        let fields =
            ["depends_on", "description", "file", "id", "method", "metrics", "model_used", "result", "template_used"];
        assert_eq!(names(part), fields);
        assert_eq!(names(&part["metrics"]), ["cache_hit", "cost_usd", "quality", "success", "tokens_used"]);
        assert_eq!((&part["method"], &part["metrics"]["success"]), (&json!("autonomous"), &json!(true)), "{part}");
        assert_eq!(part["metrics"]["cost_usd"].as_f64(), Some(0.0));
        assert!((0.0..=1.0).contains(&part["metrics"]["quality"].as_f64().unwrap()), "{part}");
        assert!(text(&answer, "result").contains(text(part, "result").trim_end()), "the whole lacks {}", part["id"]);
    }
    for part in [endpoint, consumer] {
        assert!(text(part, "result").contains("Order"), "it is about orders: {}", part["description"]);
    }
    let waits_for = |part: &Value, other: &Value| {
        let other = text(other, "id");
        let named = part["depends_on"].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
        // A group's id stands for all of it: `root.1` for `root.1.2`.
        named.into_iter().any(|id| other == id || other.starts_with(&format!("{id}.")))
    };
    for part in [endpoint, consumer] {
        assert!(waits_for(tests, part), "tests do not wait for {}: {tests}", part["id"]);
        assert_eq!(part["depends_on"], json!([]));
    }
    assert!(waits_for(docs, tests), "docs come last: {docs}");

    let again = asker.request(&body).await;
    assert_eq!(again["metrics"]["cache_hit"], true);
    for (hit, part) in again["parts"].as_array().unwrap().iter().zip(parts) {
        assert_eq!((&hit["method"], &hit["metrics"]["cache_hit"]), (&json!("cached"), &json!(true)), "{hit}");
        assert_eq!((&hit["template_used"], &hit["result"]), (&part["template_used"], &part["result"]));
    }
}

#[tokio::test]
async fn a_goal_about_one_thing_has_no_parts() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    for body in [example(), declined()] {
        let answer = asker.request(&body).await;
        assert_eq!(answer.get("parts"), None, "{answer}");
    }
}

#[tokio::test]
async fn a_part_that_nothing_could_do_is_named_and_the_others_are_there() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let task = "Create a REST endpoint for orders and create a REST endpoint for quantum-resistant zeppelin hangars with ML ranking";
    let body = json!({"task": task, "language": "elixir"});
    for _ in 0..2 {
        let answer = asker.request(&body).await;
        let parts = answer["parts"].as_array().unwrap_or_else(|| panic!("no parts: {answer}"));
        let done: Vec<bool> = parts.iter().map(|p| p["metrics"]["success"] == true).collect();
        assert_eq!(done, [true, false], "{parts:#?}");
        assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("fallback"), &json!(false)));
        assert_eq!(answer["metrics"]["cache_hit"], false, "what is half done is not cached");
        assert!(text(&answer, "reason").contains(text(&parts[1], "id")), "{answer}");
        assert!(text(&answer, "result").contains(text(&parts[0], "result").trim_end()));
    }
}
