//! Workers die and are told to stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::fault::{report, size};
use crate::model::Slow;
use crate::nats::Nats;
use crate::process::Served;
use crate::{for_a_model, serve, status, task, until};

const ASKERS: usize = 16;

/// What was lost, with the moment that it was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_takes_along_only_what_it_had_in_work() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let client = nats.client().await;
    let mut workers = vec![];
    for _ in 0..3 {
        workers.push(serve(&nats, folder.path(), &[]).await);
    }
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kills: std::sync::Mutex<Vec<(Instant, Instant)>> = std::sync::Mutex::default();
    let one = async |_| {
        let mut lost = vec![];
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let asked = client.request("execution.request", task("off").to_string().into());
            match tokio::time::timeout(Duration::from_secs(3), asked).await {
                Ok(Ok(reply)) if status(&reply).is_none() => drop(answered.fetch_add(1, Ordering::Relaxed)),
                _ => lost.push(begun),
            }
        }
        lost
    };
    let killing = async {
        let rounds = size(2, 20);
        for _ in 0..rounds {
            let more = answered.load(Ordering::Relaxed) + 100;
            let enough = async || (answered.load(Ordering::Relaxed) >= more).then_some(());
            until(Duration::from_secs(30), "requests are answered", enough).await;
            let mut killed: Served = workers.remove(0);
            let sent = Instant::now();
            killed.signal("KILL");
            killed.ended().await;
            kills.lock().unwrap().push((sent, Instant::now()));
            workers.push(serve(&nats, folder.path(), &[]).await);
        }
        over.store(true, Ordering::Relaxed);
        rounds
    };
    let (rounds, lost) = tokio::join!(killing, join_all((0..ASKERS).map(one)));
    let lost: Vec<Instant> = lost.into_iter().flatten().collect();
    let kills = kills.into_inner().unwrap();
    // The kernel tells the server that the connection is gone a moment after the end.
    let late = |asked: &&Instant| {
        kills.iter().all(|(sent, gone)| {
            **asked > *gone + Duration::from_millis(200) || **asked + Duration::from_secs(3) < *sent
        })
    };
    assert_eq!(lost.iter().filter(late).count(), 0, "requests were lost that no killed worker had");
    report(
        "kill -9 of one of three workers",
        format!("{} of {} lost in {rounds} kills", lost.len(), answered.load(Ordering::Relaxed) + lost.len()),
        "only what was in flight: ≤ 16 a kill",
    );
    assert!(lost.len() <= rounds * ASKERS, "{}", lost.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_over_three_workers_loses_nothing() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let client = nats.client().await;
    let mut workers = vec![];
    for _ in 0..3 {
        workers.push(serve(&nats, folder.path(), &[]).await);
    }
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let one = async |n: usize| {
        let mut lost = 0;
        while !over.load(Ordering::Relaxed) {
            let body = task(if n.is_multiple_of(8) { "off" } else { "use" });
            match client.request("execution.request", body.to_string().into()).await {
                Ok(reply) if status(&reply).is_none() => drop(answered.fetch_add(1, Ordering::Relaxed)),
                _ => lost += 1,
            }
        }
        lost
    };
    let want = size(2_000, 100_000);
    let rolling = async {
        let mut stops = 0;
        while stops < 3 || answered.load(Ordering::Relaxed) < want {
            let mut old: Served = workers.remove(0);
            workers.push(serve(&nats, folder.path(), &[]).await);
            old.signal("TERM");
            assert!(old.ended().await.success());
            stops += 1;
        }
        over.store(true, Ordering::Relaxed);
        stops
    };
    let (stops, lost) = tokio::join!(rolling, join_all((0..64).map(one)));
    let (lost, answered) = (lost.into_iter().sum::<usize>(), answered.into_inner());
    report(
        "SIGTERM under load, rolling over three workers",
        format!("{lost} of {} lost in {stops} stops", answered + lost),
        "0 (full size: of ≥ 100,000)",
    );
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let model = Slow::start(Duration::from_secs(60)).await;
    let url = model.url();
    let mut worker = serve(&nats, folder.path(), &[("OPENAI_API_KEY", "sk-test"), ("OPENAI_BASE_URL", &url)]).await;
    let client = nats.client().await;
    let held =
        tokio::spawn(
            async move { client.request("execution.request", for_a_model(1).to_string().into()).await.is_ok() },
        );
    let asked = async || (model.asked.load(Ordering::Relaxed) > 0).then_some(());
    until(Duration::from_secs(10), "the model is asked", asked).await;
    worker.signal("TERM");
    worker.says("stopping").await;
    let begun = Instant::now();
    worker.signal("TERM");
    let ended = worker.ended().await;
    let took = begun.elapsed();
    assert_eq!(ended.code(), Some(130), "{:#?}", worker.log());
    report("a second SIGTERM while a worker stops", format!("ended after {took:?}"), "≤ 1 s");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!held.await.unwrap(), "the request that it gave up was answered");
}
