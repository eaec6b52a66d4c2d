//! Events: kept, published, replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream;
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::bus::streams::EVENTS;
use tandem::domain::Tenant;
use tandem::domain::workflow::RunOptions;

use crate::{DONE, Kind, Place, end, native, options, order, until};

on_both!(
    Kind:
    every_event_is_published_once_and_in_order,
    what_the_server_missed_is_published_when_it_is_back,
);

fn announced() -> RunOptions {
    RunOptions { real_time_notifications: true, ..options() }
}

/// What the stream holds, by workflow.
async fn kept(place: &Place) -> BTreeMap<String, Vec<u64>> {
    let context = jetstream::new(place.nats.client().await);
    let Ok(stream) = context.get_stream_no_info(EVENTS).await else { return BTreeMap::new() };
    let (mut all, mut next) = (BTreeMap::<String, Vec<u64>>::new(), 1);
    while let Ok(message) = stream.direct_get_next_for_subject(">", Some(next)).await {
        next = message.sequence + 1;
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let workflow = event["workflow_id"].as_str().unwrap();
        assert_eq!(message.subject.as_str(), format!("event.default.workflow.{workflow}"));
        all.entry(workflow.to_owned()).or_default().push(event["number"].as_u64().unwrap());
    }
    all
}

async fn every_event_is_published_once_and_in_order(kind: Kind) {
    let place = kind.place().await;
    let workers = [place.worker().await, place.worker().await];
    for worker in &workers {
        worker.workflows.register("step", |given| async move { Ok(format!("\"{}\"", given.task)) });
    }
    let listener = place.nats.client().await;
    let mut heard = listener.subscribe("event.default.workflow.*").await.unwrap();
    listener.flush().await.unwrap();
    let mut ids = vec![];
    for i in 0..20 {
        let nodes = vec![native("a", &[]), native("b", &["a"]), native("c", &["a"])];
        ids.push(workers[i % 2].workflows.launch(order(nodes, announced())).await.unwrap());
    }
    // One that is not to be announced.
    let quiet = workers[0].workflows.launch(order(vec![native("a", &[])], options())).await.unwrap();
    for id in ids.iter().chain([&quiet]) {
        assert_eq!(end(&workers[0].workflows, *id).await.listed.state, DONE);
    }
    let all: Vec<u64> = (1..=8).collect();
    let complete = async || {
        let kept = kept(&place).await;
        (kept.values().map(Vec::len).sum::<usize>() >= 20 * 8).then_some(kept)
    };
    let found = until("all events are published", complete).await;
    assert_eq!(found.len(), 20);
    assert!(found.values().all(|numbers| *numbers == all), "{found:?}");
    // Who only listens hears the same, in the same order.
    let mut told = BTreeMap::<String, Vec<u64>>::new();
    for _ in 0..160 {
        let message = tokio::time::timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap();
        let event = crate::nats::json(&message);
        told.entry(event["workflow_id"].as_str().unwrap().to_owned())
            .or_default()
            .push(event["number"].as_u64().unwrap());
    }
    assert_eq!(told, found);
    for worker in workers {
        worker.stop().await;
    }
}

async fn what_the_server_missed_is_published_when_it_is_back(kind: Kind) {
    let mut place = kind.place().await;
    let worker = place.worker().await;
    worker.workflows.register("step", |_| async move { Ok("1".to_owned()) });
    let before = worker.workflows.launch(order(vec![native("a", &[])], announced())).await.unwrap();
    end(&worker.workflows, before).await;
    let pid = place.nats.server.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    // The database is the truth: work goes on without a bus.
    let during = worker.workflows.launch(order(vec![native("a", &[])], announced())).await.unwrap();
    assert_eq!(end(&worker.workflows, during).await.listed.state, DONE);
    place.nats = place.nats.restart().await;
    let complete = async || {
        let kept = kept(&place).await;
        (kept.len() == 2 && kept.values().all(|numbers| numbers.len() == 4)).then_some(kept)
    };
    let kept = until("all events are published", complete).await;
    assert!(kept.values().all(|numbers| *numbers == [1, 2, 3, 4]), "{kept:?}");
    // And who was away reads them in the database.
    let client = place.nats.client().await;
    let missed = async || {
        let body = json!({"workflow_id": during.to_string(), "after": 2});
        let said = client.request("workflow.events", body.to_string().into()).await.ok()?;
        let events = crate::nats::json(&said);
        Some(events["events"].as_array()?.iter().map(|e| e["number"].as_u64().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(until("the door is open again", missed).await, [3, 4]);
    let all = worker.workflows.events(&Tenant::default(), None, 0, 100).await.unwrap();
    assert_eq!(all.len(), 8);
    worker.stop().await;
}
