//! Events: kept, published, replayed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::bus::streams::EVENTS;
use tandem::domain::Tenant;
use tandem::domain::workflow::RunOptions;

use crate::process::{output, tandem};
use crate::{DONE, Kind, Place, end, native, options, order, until};

on_both!(
    Kind:
    every_event_is_published_once_and_in_order,
    what_the_server_missed_is_published_when_it_is_back,
    a_user_s_own_event_has_its_place_among_the_others,
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

async fn a_user_s_own_event_has_its_place_among_the_others(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (begun, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Semaphore::new(0)));
    let (told, waits) = (begun.clone(), gate.clone());
    worker.workflows.register("step", move |_| {
        told.notify_one();
        let waits = waits.clone();
        async move {
            waits.acquire().await.unwrap().forget();
            Ok("1".to_owned())
        }
    });
    let client = place.nats.client().await;
    let mut heard = client.subscribe("event.default.workflow.*").await.unwrap();
    client.flush().await.unwrap();
    let id = worker.workflows.launch(order(vec![native("a", &[])], announced())).await.unwrap();
    begun.notified().await;
    let notify = async |body: Value| crate::wire::ask(&client, "workflow.notify", &body).await;
    let body = json!({"workflow_id": id.to_string(), "event": "order.shipped", "message": "byä train", "payload": {"boxes": [1, 2]}});
    assert_eq!(notify(body).await.unwrap(), json!({"workflow_id": id.to_string(), "number": 3}));
    // On the command line.
    let folder = tempfile::tempdir().unwrap();
    let (id_text, variables) = (id.to_string(), [("NATS_URL", place.nats.server.url())]);
    let run = async |arguments: &[&str]| {
        let ended = output(tandem(folder.path(), &variables, arguments)).await;
        (ended.status.success(), String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap())
    };
    let (well, printed, told) = run(&["workflow", "notify", &id_text, "looked-at", "--payload", "[7]"]).await;
    assert!(well && printed.trim() == format!("{id}  4"), "{printed}{told}");
    let (well, _, told) = run(&["workflow", "notify", &id_text, "task_completed"]).await;
    assert!(!well && told.contains("Tandem's own"), "{told}");
    gate.add_permits(1);
    end(&worker.workflows, id).await;
    // One that comes after the end has its place, too.
    notify(json!({"workflow_id": id.to_string(), "event": "archived"})).await.unwrap();
    let names = [
        "execution_started",
        "task_started",
        "order.shipped",
        "looked-at",
        "task_completed",
        "execution_completed",
        "archived",
    ];
    for (i, name) in names.into_iter().enumerate() {
        let message = tokio::time::timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap();
        let event = crate::nats::json(&message);
        assert_eq!((event["number"].as_u64(), event["type"].as_str()), (Some(i as u64 + 1), Some(name)), "{event}");
        match name {
            "order.shipped" => {
                assert_eq!((&event["payload"], &event["message"]), (&json!({"boxes": [1, 2]}), &json!("byä train")));
            }
            "looked-at" => assert_eq!(event["payload"], json!([7])),
            _ => assert!(event.get("payload").is_none(), "{event}"),
        }
    }
    let events =
        crate::wire::ask(&client, "workflow.events", &json!({"workflow_id": id.to_string(), "after": 2, "limit": 1}))
            .await
            .unwrap();
    assert_eq!(
        (&events["events"][0]["type"], &events["events"][0]["payload"]["boxes"][1]),
        (&json!("order.shipped"), &json!(2))
    );
    let (well, printed, _) = run(&["workflow", "events", &id_text, "--follow"]).await;
    assert!(well && printed.contains(r#"order.shipped  byä train  {"boxes":[1,2]}"#), "{printed}");

    let silent = RunOptions { monitoring: false, ..options() };
    let quiet = worker.workflows.launch(order(vec![native("a", &[])], silent)).await.unwrap();
    let refused = notify(json!({"workflow_id": quiet.to_string(), "event": "x"})).await.unwrap_err();
    assert!(
        refused["error"] == "not_allowed" && refused["message"].as_str().unwrap().contains("monitoring"),
        "{refused}"
    );
    let body = json!({"workflow_id": id.to_string(), "event": "x"});
    let unknown = crate::wire::ask(&client, "workflow.notify.acme", &body).await.unwrap_err();
    assert_eq!(unknown["error"], "not_found");
    gate.add_permits(1);
    worker.stop().await;
}

/// What is not listed is kept, and not published. Terms that nobody says are as configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_says_what_is_published_and_which_terms_hold() {
    let place = Kind::sqlite().place().await;
    let mut config = place.config();
    config.workflow.notifications.real_time = true;
    config.workflow.notifications.event_types = ["execution_failed", "custom"].map(str::to_owned).to_vec();
    (config.workflow.execution.retry_attempts, config.workflow.execution.retry_delay_ms) = (1, 1);
    (config.workflow.execution.task_timeout_ms, config.workflow.step_subjects) = (200, vec!["orders.*".to_owned()]);
    let worker = place.worker_with(config).await;
    let client = place.nats.client().await;
    let (_never, mut heard) =
        (client.subscribe("orders.never").await.unwrap(), client.subscribe("event.default.workflow.*").await.unwrap());
    client.flush().await.unwrap();
    let task = json!({"id": "a", "description": "A", "step": {"kind": "nats", "subject": "orders.never"}});
    let id = crate::wire::started(&client, &json!({"graph": {"tasks": [task]}})).await;
    let own = crate::wire::ask(&client, "workflow.notify", &json!({"workflow_id": id, "event": "mine"})).await.unwrap();
    let status = crate::wire::over(&client, &id).await;
    let of = &status["tasks"]["a"];
    assert_eq!(
        (&of["status"], &of["attempts"], &of["error"]["kind"]),
        (&json!("failed"), &json!(2), &json!("timed_out"))
    );
    assert!(of["error"]["message"].as_str().unwrap().contains("200 ms"), "{status:#}");
    let mut told = vec![];
    for _ in 0..2 {
        let message = tokio::time::timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap();
        let event = crate::nats::json(&message);
        told.push((event["type"].as_str().unwrap().to_owned(), event["number"].as_u64().unwrap()));
    }
    // Numbers are those of all events.
    let kept = crate::wire::ask(&client, "workflow.events", &json!({"workflow_id": id})).await.unwrap();
    let last = kept["events"].as_array().unwrap().last().unwrap()["number"].as_u64().unwrap();
    assert_eq!(told, [("mine".to_owned(), own["number"].as_u64().unwrap()), ("execution_failed".to_owned(), last)]);
    assert_eq!(last, 7, "{kept}");
    worker.stop().await;
}
