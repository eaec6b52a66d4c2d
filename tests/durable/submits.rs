//! What a sender gets who submits and comes back later.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use tandem::bus::streams::{Options, SUBMIT};
use tandem::llm::Credentials;

use crate::fault::report;
use crate::model::Model;
use crate::nats::{self, Nats};
use crate::worker::Place;
use crate::{Sender, declined, example, header, quick, until, with};

#[tokio::test]
async fn a_submit_is_answered_kept_and_told_of() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let sender = Sender::of(&nats).await;
    let (mut progress, mut results) =
        (sender.hears("execution.progress.order-1").await, sender.hears("execution.result.order-1").await);
    let mut answers = sender.hears("_INBOX.me.1").await;
    let sequence = sender.submit(&with(example("order-1"), json!({"reply_to": "_INBOX.me.1"}))).await;
    let heard = results.next().await;
    let result = nats::json(&heard);
    assert_eq!((&result["method"], &result["metrics"]["success"]), (&json!("autonomous"), &json!(true)), "{result}");
    assert_eq!(sender.result("order-1").await, result);
    assert_eq!(nats::json(&answers.next().await), result, "sent to reply_to too");
    let headers = heard.headers.unwrap();
    assert_eq!(header(&headers, "Correlation-Id"), result["correlation_id"]);
    assert_eq!(header(&headers, "Execution-Sequence"), sequence.to_string());
    let mut states = vec![];
    while states.last() != Some(&json!("done")) {
        let told = nats::json(&progress.next().await);
        assert_eq!((&told["id"], &told["correlation_id"]), (&json!("order-1"), &result["correlation_id"]));
        states.push(told["state"].clone());
    }
    assert_eq!(states, ["started", "deciding", "done"]);
    sender.all_done(Duration::from_secs(5)).await;
    assert_eq!(sender.health().await, json!({"status": "ok"}));
    let counted = sender.counted().await;
    assert_eq!((&counted["done"], &counted["dead"], &counted["redelivered"]), (&json!(1), &json!(0), &json!(0)));
}

#[tokio::test]
async fn an_id_comes_from_the_body_or_a_header_or_the_place_in_the_stream() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let sender = Sender::of(&nats).await;
    let mut body = example("from-body");
    sender.publish("execution.submit", &[("Nats-Msg-Id", "other")], body.to_string().as_bytes()).await;
    sender.result("from-body").await;
    body.as_object_mut().unwrap().remove("id");
    let body = body.to_string();
    sender.publish("execution.submit", &[("Nats-Msg-Id", "from-header")], body.as_bytes()).await;
    sender.result("from-header").await;
    sender.publish("execution.submit.acme", &[("Nats-Msg-Id", "acme.with-tenant")], body.as_bytes()).await;
    sender.result("acme.with-tenant").await;
    let sequence = sender.publish("execution.submit", &[], body.as_bytes()).await;
    let made = async || {
        sender.results().await.into_keys().find(|s| s.starts_with(&format!("execution.result.submit-{sequence}-")))
    };
    until("a result under a made id", made).await;
    // One that can't be an id is no id: the sender could not ask for its result.
    let sequence = sender.publish("execution.submit", &[("Nats-Msg-Id", "order 17")], body.as_bytes()).await;
    let dead = until("a dead letter", async || sender.dead().await.pop()).await;
    assert_eq!(header(&dead.headers, "Dead-Sequence"), sequence.to_string());
    assert!(header(&dead.headers, "Dead-Message").contains("Nats-Msg-Id"), "{dead:?}");
}

#[tokio::test]
async fn a_duplicate_has_no_second_effect_inside_the_window_and_beyond_it() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut config = place.config(&nats);
    config.nats.streams = Options { duplicate_window_ms: 200, ..Options::default() };
    let worker = place.worker_with(config, Credentials::default()).await;
    let sender = Sender::of(&nats).await;
    let body = example("twice").to_string();
    let send = async || sender.publish("execution.submit", &[("Nats-Msg-Id", "default.twice")], body.as_bytes()).await;
    let mut results = sender.hears("execution.result.twice").await;
    let first = send().await;
    assert_eq!(send().await, first, "the server drops it");
    let answer = nats::json(&results.next().await);
    results.silent(Duration::from_millis(300)).await;
    let second = send().await;
    assert_ne!(second, first, "the window is over");
    let again = nats::json(&results.next().await);
    assert_eq!(again["correlation_id"], answer["correlation_id"], "the kept reply, not another execution");
    let stats = sender.client.request("execution.stats", "{}".into()).await.unwrap();
    let executions = nats::json(&stats)["total_executions"].clone();
    report(
        "a duplicate submit, inside the window and beyond it",
        format!("{executions} execution; the kept answer for the later one"),
        "one effect",
    );
    assert_eq!(executions, 1);
    // Nor by the other door.
    let asked = sender.client.request("execution.request", body.clone().into()).await.unwrap();
    assert_eq!(nats::json(&asked)["correlation_id"], answer["correlation_id"]);
    worker.stop().await;
}

#[tokio::test]
async fn what_can_never_be_done_gets_an_error_and_is_set_aside_at_once() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let sender = Sender::of(&nats).await;
    let first = example("taken");
    sender.submit(&first).await;
    let answer = sender.result("taken").await;
    let mut results = sender.hears("execution.result.>").await;
    let long = json!({"task": "x".repeat(70_000), "id": "long"});
    let cases: [(&str, &str, Value, &str, &str); 5] = [
        ("execution.submit", "no-task", json!({"id": "no-task"}), "missing_field", "default"),
        ("execution.submit", "bad-type", json!({"id": "bad-type", "task": 5}), "invalid_field", "default"),
        ("execution.submit.acme", "acme.mine", json!({"id": "mine", "task": " "}), "invalid_field", "acme"),
        ("execution.submit", "long", long, "too_large", "default"),
        ("execution.submit", "taken", with(first, json!({"language": "rust"})), "id_conflict", "default"),
    ];
    for (subject, place, body, code, tenant) in cases {
        let sequence = sender.publish(subject, &[("Trace", "mine")], body.to_string().as_bytes()).await;
        let heard = results.next().await;
        let error = nats::json(&heard);
        assert_eq!((heard.subject.as_str(), &error["error"]), (&*format!("execution.result.{place}"), &json!(code)));
        let letter = until("a dead letter", async || {
            sender.dead().await.pop().filter(|l| header(&l.headers, "Dead-Sequence") == sequence.to_string())
        })
        .await;
        let id = place.rsplit('.').next().unwrap();
        assert_eq!(letter.subject.as_str(), format!("execution.dead.{tenant}.{id}"));
        let headers = &letter.headers;
        assert_eq!(
            [
                header(headers, "Dead-Reason"),
                header(headers, "Dead-Attempts"),
                header(headers, "Dead-Subject"),
                header(headers, "Trace")
            ],
            [code, "1", subject, "mine"]
        );
        assert!(header(headers, "Dead-At").parse::<i64>().unwrap() > 0);
        let left_out = code == "too_large";
        assert_eq!(letter.payload, if left_out { String::new() } else { body.to_string() });
    }
    assert_eq!(sender.result("taken").await, answer, "somebody else's error does not take the answer's place");
    sender.all_done(Duration::from_secs(5)).await;
    assert_eq!(sender.counted().await["dead"], 5);
}

#[tokio::test]
async fn a_reply_to_that_is_not_allowed_is_counted_and_said() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let sender = Sender::of(&nats).await;
    for (i, subject) in
        ["$JS.API.STREAM.DELETE.TANDEM_SUBMIT", "execution.submit", "execution.result.x", "_INBOX.>", "orders"]
            .iter()
            .enumerate()
    {
        let id = format!("to-{i}");
        sender.submit(&with(example(&id), json!({"reply_to": subject}))).await;
        let result = sender.result(&id).await;
        assert!(result["notes"].to_string().contains("reply_to"), "{subject}: {result}");
        assert_eq!(result["metrics"]["success"], true);
    }
    assert_eq!(sender.counted().await["refused_replies"], 5);
    sender.all_done(Duration::from_secs(5)).await;
    assert!(sender.context.get_stream(SUBMIT).await.is_ok());
}

#[tokio::test]
async fn a_fallback_is_final() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let sender = Sender::of(&nats).await;
    sender.submit(&declined("nobody")).await;
    let first = sender.result("nobody").await;
    assert_eq!((&first["method"], &first["metrics"]["success"]), (&json!("fallback"), &json!(false)));
    let mut results = sender.hears("execution.result.nobody").await;
    sender.submit(&declined("nobody")).await;
    assert_eq!(nats::json(&results.next().await)["correlation_id"], first["correlation_id"]);
}

#[tokio::test]
async fn the_time_allowed_holds_for_a_submit_too() {
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_secs(5)).await;
    let place = Place::new();
    let _worker = place.worker_with(model.routed(quick(&place, &nats)), model.credentials()).await;
    let sender = Sender::of(&nats).await;
    let now = || i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let late = (now() - 1).to_string();
    sender.publish("execution.submit", &[("Execution-Deadline", &late)], declined("late").to_string().as_bytes()).await;
    let soon = (now() + 400).to_string();
    sender.publish("execution.submit", &[("Execution-Deadline", &soon)], declined("soon").to_string().as_bytes()).await;
    sender.submit(&with(declined("short"), json!({"timeout_ms": 300}))).await;
    for id in ["late", "soon", "short"] {
        let result = sender.result(id).await;
        let said = result["error"] == "deadline_exceeded" || result["method"] == "fallback";
        assert!(said && result["metrics"]["success"] == false, "{id}: {result}");
    }
    assert_eq!(sender.result("late").await["error"], "deadline_exceeded");
    sender.all_done(Duration::from_secs(5)).await;
    assert!(sender.dead().await.is_empty(), "it is answered, not set aside");
}

#[tokio::test]
async fn what_was_not_begun_is_given_back_at_once_and_what_runs_is_finished() {
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_millis(700)).await;
    let place = Place::new();
    let mut config = model.routed(quick(&place, &nats));
    config.nats.max_concurrent_submits = 1;
    // No second worker could get them in time, were they not given back.
    config.nats.ack_wait_ms = 60_000;
    let first = place.worker_with(config.clone(), model.credentials()).await;
    let sender = Sender::of(&nats).await;
    sender.submit(&declined("runs")).await;
    until("the model is asked", async || (model.asked() == 1).then_some(())).await;
    sender.submit(&declined("waits")).await;
    let second = place.worker_with(config, model.credentials()).await;
    first.stop().await;
    assert_eq!(sender.result("runs").await["method"], "llm_assisted");
    assert_eq!(sender.result("waits").await["method"], "llm_assisted");
    assert_eq!(model.asked(), 2);
    second.stop().await;
}

#[tokio::test]
async fn streams_that_come_later_are_served_later_and_requests_meanwhile() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut config = place.config(&nats);
    config.nats.provision = tandem::bus::Provision::Verify;
    let options = config.nats.clone();
    let _worker = place.worker_with(config, Credentials::default()).await;
    let sender = Sender::of(&nats).await;
    let health = sender.health().await;
    assert_eq!(health["status"], "down");
    assert!(health["message"].as_str().unwrap().contains("tandem provision"), "{health}");
    let asked = sender.client.request("execution.request", example("now").to_string().into()).await.unwrap();
    assert_eq!(nats::json(&asked)["method"], "autonomous");
    tandem::bus::streams::create_all(&sender.client, &options.streams, options.ack_wait()).await.unwrap();
    sender.submit(&example("later")).await;
    sender.result("later").await;
    assert_eq!(sender.health().await["status"], "ok");
    // Taken away and made anew while it runs.
    sender.context.delete_stream(SUBMIT).await.unwrap();
    until("it is down", async || (sender.health().await["status"] == "down").then_some(())).await;
    tandem::bus::streams::create_all(&sender.client, &options.streams, options.ack_wait()).await.unwrap();
    sender.submit(&example("after")).await;
    sender.result("after").await;
    let _ = jetstream::new(sender.client.clone());
}
