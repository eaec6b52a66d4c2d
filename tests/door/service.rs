//! `$SRV`, as NATS micro's clients read it.

use std::collections::BTreeSet;

use async_nats::Client;
use futures::StreamExt;
use serde_json::Value;

use crate::nats::{Nats, json as read};
use crate::{TASK, worker};

async fn ask(client: &Client, subject: String) -> Value {
    read(&client.request(subject, "".into()).await.unwrap())
}

#[tokio::test]
async fn every_worker_answers_a_ping() {
    let nats = Nats::start().await;
    let (first, second) = (worker(&nats).await, worker(&nats).await);
    let client = nats.client().await;
    for subject in ["$SRV.PING", "$SRV.PING.tandem"] {
        let inbox = client.new_inbox();
        let mut pongs = client.subscribe(inbox.clone()).await.unwrap();
        client.publish_with_reply(subject, inbox, "".into()).await.unwrap();
        let pongs = [read(&pongs.next().await.unwrap()), read(&pongs.next().await.unwrap())];
        let ids: BTreeSet<_> = pongs.iter().map(|pong| pong["id"].as_str().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from([first.instance().as_str(), second.instance().as_str()]));
        for pong in &pongs {
            assert_eq!(pong["type"], "io.nats.micro.v1.ping_response");
            assert_eq!((&pong["name"], &pong["version"]), (&"tandem".into(), &env!("CARGO_PKG_VERSION").into()));
            assert_eq!(pong["metadata"]["wire"], "1", "{pong}");
        }
    }
}

#[tokio::test]
async fn info_shows_every_endpoint_with_its_schemas() {
    let nats = Nats::start().await;
    let door = worker(&nats).await;
    let client = nats.client().await;
    let info = ask(&client, format!("$SRV.INFO.tandem.{}", door.instance())).await;
    assert_eq!(info["type"], "io.nats.micro.v1.info_response");
    let endpoints = info["endpoints"].as_array().unwrap();
    let subjects: Vec<_> = endpoints.iter().map(|e| e["subject"].as_str().unwrap()).collect();
    for subject in [
        "execution.request",
        "execution.feedback",
        "execution.purge",
        "execution.stats",
        "execution.health",
        "template.select",
        "cache.explain",
    ] {
        assert!(subjects.contains(&subject), "{subjects:?}");
    }
    for endpoint in endpoints {
        assert_eq!(endpoint["queue_group"], "tandem");
        for which in ["request_schema", "response_schema"] {
            let schema: Value = serde_json::from_str(endpoint["metadata"][which].as_str().unwrap()).unwrap();
            jsonschema::validator_for(&schema).unwrap();
        }
    }
    let request: Value = serde_json::from_str(endpoints[0]["metadata"]["request_schema"].as_str().unwrap()).unwrap();
    let schema = jsonschema::validator_for(&request).unwrap();
    let example = serde_json::json!({
        "task": "Create a NATS consumer for processing user events", "language": "elixir", "complexity": "medium",
        "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex"}
    });
    assert!(schema.is_valid(&example));
    assert!(!schema.is_valid(&serde_json::json!({"language": "elixir"})));
}

#[tokio::test]
async fn an_answer_fits_the_schema_that_info_gives() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    let info = ask(&client, "$SRV.INFO.tandem".into()).await;
    let schema = info["endpoints"][0]["metadata"]["response_schema"].as_str().unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let compound = r#"{"task": "REST endpoint for orders and a consumer for order events, with tests and docs"}"#;
    for body in [TASK, TASK, compound, r#"{"task": "why is the sky blue?"}"#] {
        let answer = read(&client.request("execution.request", body.into()).await.unwrap());
        assert!(schema.is_valid(&answer), "{answer}");
    }
}

#[tokio::test]
async fn stats_count_requests_errors_and_time() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    for body in [r#"{"task": "a"}"#, r#"{"task": "b"}"#, "nope"] {
        client.request("execution.request", body.into()).await.unwrap();
    }
    let stats = ask(&client, "$SRV.STATS.tandem".into()).await;
    assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
    assert!(stats["started"].as_str().unwrap().ends_with('Z'));
    let request = &stats["endpoints"][0];
    assert_eq!((&request["num_requests"], &request["num_errors"]), (&3.into(), &1.into()));
    assert!(request["last_error"].as_str().unwrap().starts_with("400:"), "{request}");
    let (sum, average) =
        (request["processing_time"].as_u64().unwrap(), request["average_processing_time"].as_u64().unwrap());
    assert!(sum > 0 && average == sum / 3, "{request}");
    assert_eq!(stats["data"]["dropped"], 0);
}
