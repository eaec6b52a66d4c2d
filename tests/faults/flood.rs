//! More than can be done.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;

use crate::fault::{report, size};
use crate::nats::Nats;
use crate::{answer, counted, memory_mib, serve, task};

/// Known answers, work for rules, work for nobody, nonsense.
fn bodies() -> Vec<String> {
    vec![
        task("use").to_string(),
        task("off").to_string(),
        json!({"task": "Write a function to find the minimum cost path in a matrix", "cache": "off"}).to_string(),
        "{nope".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_answered_or_shed_and_takes_little_memory() {
    let all = size(20_000, 1_000_000);
    flood(all, "4096", &format!("flood of {all} requests")).await;
}

/// It ends and begins its subscriptions hundreds of times: each end is a chance to lose what is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_little_room_loses_none_of_a_flood_either() {
    let all = size(20_000, 100_000);
    flood(all, "16", &format!("flood of {all} requests, room for 16")).await;
}

async fn flood(all: usize, room: &str, name: &str) {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let options = [("TANDEM__LOG__LEVEL", "error,tandem::app=info"), ("TANDEM__NATS__SUBSCRIPTION_CAPACITY", room)];
    let worker = serve(&nats, folder.path(), &options).await;
    let asker = nats.client().await;
    answer(&asker, "execution.request", &task("use")).await;
    let idle = memory_mib(worker.pid(), "VmRSS");

    // As many as come, so that it is not this side that drops.
    let client =
        async_nats::ConnectOptions::new().subscription_capacity(all + 1).connect(nats.server.url()).await.unwrap();
    let mut replies = client.subscribe("_INBOX.flood.*").await.unwrap();
    client.flush().await.unwrap();
    let begun = Instant::now();
    let sending = {
        let client = client.clone();
        tokio::spawn(async move {
            let bodies = bodies();
            for n in 0..all {
                let (reply, body) = (format!("_INBOX.flood.{n}"), bodies[n % bodies.len()].clone());
                client.publish_with_reply("execution.request", reply, body.into()).await.unwrap();
            }
            client.flush().await.unwrap();
        })
    };
    let (mut seen, mut answered, mut shed, mut refused) = (vec![false; all], 0_usize, 0_usize, 0_usize);
    // By the server, for the worker had as many as it can hold.
    let mut turned_away = 0_usize;
    let mut most = idle;
    let mut missing = all;
    while missing > 0 {
        // The worker may be slow; silence says that nothing comes any more.
        let Ok(Some(reply)) = tokio::time::timeout(Duration::from_secs(10), replies.next()).await else { break };
        let n: usize = reply.subject.rsplit_once('.').unwrap().1.parse().unwrap();
        assert!(!std::mem::replace(&mut seen[n], true), "request {n} was answered twice");
        missing -= 1;
        match crate::status(&reply) {
            None if reply.status == Some(async_nats::StatusCode::NO_RESPONDERS) => turned_away += 1,
            None => answered += 1,
            Some("503") => shed += 1,
            Some(_) => refused += 1,
        }
        if missing.is_multiple_of(1_000) {
            most = most.max(memory_mib(worker.pid(), "VmRSS"));
        }
    }
    sending.await.unwrap();
    let took = begun.elapsed();
    most = most.max(memory_mib(worker.pid(), "VmHWM"));
    let dropped = counted(&asker, "dropped").await;
    let line = format!(
        "{answered} answered, {refused} refused as wrong, {shed} shed by the worker, {turned_away} by the server, {missing} lost ({dropped} drops counted) in {took:.1?}; {:.0} MiB above idle ({idle:.0})",
        most - idle
    );
    report(name, line, "0 lost; ≤ 150 MiB above idle");
    assert!(most - idle <= 150.0, "{most} MiB after {idle}");
    assert_eq!((missing, dropped), (0, 0), "neither answered nor shed; and drops counted");
    assert!(answered > 100, "{answered}");
    // It still serves.
    answer(&asker, "execution.request", &task("use")).await;
}
