//! The clock jumps: what was stored with absolute times is compared with the clock as it is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::{Value, json};
use tandem::bus::{Door, Instance, Repeats, Submits, Sync, endpoints};
use tandem::domain::Timestamp;
use tandem::llm::Credentials;

use crate::fault::report;
use crate::nats::{Nats, json as read};
use crate::worker::Place;
use crate::{answer, status, task};

const HOUR: i64 = 3_600_000;

/// How far the door's clock is from the machine's, in milliseconds. Each test is a process of its own.
static OFF: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp(Timestamp::now().0 + OFF.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_expires_nothing_but_what_it_says() {
    let (wired, nats) = (Nats::start().await, Nats::start().await);
    let place = Place::new();
    let mut config = place.config(&wired);
    config.cache.ttl_ms = u64::try_from(HOUR / 2).unwrap();
    let worker = place.worker_with(config, Credentials::default()).await;
    // The same pipeline behind a door whose clock is ours.
    let (connection, options, instance) = (nats.connection().await, nats.options(), Instance::generate());
    let (sync, _heard) = Sync::open(&connection, instance.clone(), &options).await.unwrap();
    let submits = Submits::open(worker.pipeline.clone(), &options, clock).await;
    let desk = submits.desk();
    let table =
        endpoints::all(&worker.pipeline, &worker.workflows, &connection, &sync, &desk, &options, None, &Repeats::new());
    let door = Door::open(connection, instance, table, &options, clock).await.unwrap();
    let client = nats.client().await;
    let ask = async |body: &Value| answer(&client, "execution.request", body).await;
    let hit = |answer: &Value| answer["metrics"]["cache_hit"] == true;

    let first = ask(&task("use")).await;
    assert!(!hit(&first) && hit(&ask(&task("use")).await));
    let mut with_id = task("use");
    with_id["id"] = json!("before-the-jump");
    let kept = ask(&with_id).await;

    OFF.store(HOUR, Ordering::Relaxed);
    let later = ask(&task("use")).await;
    assert!(!hit(&later), "half an hour is over, by the clock: {later}");
    assert!(hit(&ask(&task("use")).await), "what was made by the new clock is served by it");
    assert_eq!(ask(&with_id).await["correlation_id"], kept["correlation_id"], "an id is kept for days");
    // A deadline of a sender whose clock did not jump.
    let mut headers = HeaderMap::new();
    headers.insert("Execution-Deadline", (Timestamp::now().0 + 60_000).to_string());
    let body = task("use").to_string();
    let late = client.request_with_headers("execution.request", headers.clone(), body.clone().into()).await.unwrap();
    assert_eq!((status(&late), &read(&late)["error"]), (Some("408"), &json!("deadline_exceeded")));

    OFF.store(-HOUR, Ordering::Relaxed);
    let early = ask(&task("use")).await;
    assert!(hit(&early), "what is not yet old by the clock is served: {early}");
    assert_eq!(early["cache"]["age_ms"], 0, "made in the future is no negative age: {early}");
    let mut fresh = task("refresh");
    fresh["id"] = json!("after-the-jump");
    let claimed = ask(&fresh).await;
    assert_eq!(ask(&fresh).await["correlation_id"], claimed["correlation_id"]);
    let in_time = client.request_with_headers("execution.request", headers, body.into()).await.unwrap();
    assert_eq!(status(&in_time), None);

    OFF.store(0, Ordering::Relaxed);
    assert!(hit(&ask(&task("use")).await));
    for subject in ["execution.stats", "execution.health", "template.analyze", "cache.stats"] {
        answer(&client, subject, &json!({})).await;
    }
    let stats = read(&client.request("$SRV.STATS.tandem", "".into()).await.unwrap());
    assert_eq!(stats["data"]["panics"], 0, "{stats}");
    assert!(door.stop(Duration::from_secs(5)).await.drained);
    report("the clock jumps an hour, forth and back", "no fault, no answer older than its time", "no wrong expiry");
}
