//! Submits while the database is away: they wait, and it costs them no attempt.

use std::time::Duration;

use serde_json::json;
use tandem::llm::Credentials;

use crate::fault::{report, size};
use crate::model::Model;
use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::worker::Place;
use crate::{ACK_WAIT, Sender, declined, example, quick, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_submits_wait_for_a_database_that_is_away() {
    let away = Duration::from_secs(size(3, 30));
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let nats = Nats::start().await;
    let place = Place::new();
    let mut config = quick(&place, &nats);
    config.database.url = postgres.url();
    config.database.connect_timeout_ms = 1_000;
    config.nats.max_concurrent_submits = 4;
    let _worker = place.worker_with(config, Credentials::default()).await;
    let sender = Sender::of(&nats).await;
    sender.submit(&example("before")).await;
    sender.result("before").await;
    postgres.pause();
    for i in 0..30 {
        sender.submit(&example(&format!("s{i}"))).await;
    }
    until("it is said", async || (sender.health().await["status"] == "degraded").then_some(())).await;
    assert!(away > ACK_WAIT, "or nothing is tested");
    tokio::time::sleep(away).await;
    assert_eq!(sender.results().await.len(), 1);
    // What was pulled before it was noticed, and no more.
    let in_hand = sender.in_hand().await;
    assert!((1..=8).contains(&in_hand), "{in_hand} are in hand");
    tokio::task::block_in_place(|| assert!(postgres.resume()));
    let back = std::time::Instant::now();
    sender.all_done(Duration::from_secs(20)).await;
    let back = back.elapsed();
    let done = sender.results().await.values().filter(|r| r["metrics"]["success"] == true).count();
    let counted = sender.counted().await;
    report(
        &format!("PostgreSQL away for {} s under submits", away.as_secs()),
        format!(
            "{} of 30 waited and were done {back:?} after its return; {} attempts made again, {} dead",
            done - 1,
            counted["retried"],
            counted["dead"]
        ),
        "all, no attempt burnt",
    );
    assert_eq!(done, 31);
    assert_eq!(
        (&counted["redelivered"], &counted["retried"], &counted["dead"]),
        (&json!(0), &json!(0), &json!(0)),
        "{counted}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_paid_for_waits_for_the_database_too() {
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_millis(800)).await;
    let place = Place::new();
    let mut config = model.routed(quick(&place, &nats));
    config.database.url = postgres.url();
    config.database.connect_timeout_ms = 2_000;
    let _worker = place.worker_with(config, model.credentials()).await;
    let sender = Sender::of(&nats).await;
    let mut results = sender.hears("execution.result.paid").await;
    sender.submit(&declined("paid")).await;
    until("the model is asked", async || (model.asked() == 1).then_some(())).await;
    postgres.pause();
    // Longer than the call and the ack wait.
    results.silent(ACK_WAIT + Duration::from_millis(1_500)).await;
    tokio::task::block_in_place(|| assert!(postgres.resume()));
    assert_eq!(crate::nats::json(&results.next().await)["method"], "llm_assisted");
    report(
        "PostgreSQL away when a submit's answer is to be kept",
        format!("answered after its return, {} model call", model.asked()),
        "1",
    );
    assert_eq!(model.asked(), 1, "the model is not paid twice");
}
