//! Full, broken and stopping: each sender still gets an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use tandem::bus::{Lane, Options, Reply, Served, Stopped};
use tokio::sync::{Semaphore, mpsc};

use crate::nats::{Nats, header, json as read};
use crate::{endpoint, open, work};

/// Work that tells when it began and waits until it is let go.
fn held() -> (tandem::bus::Endpoint, mpsc::UnboundedReceiver<()>, Arc<Semaphore>) {
    let (begun, started) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let key = gate.clone();
    let endpoint = work(move |_| {
        let (begun, key) = (begun.clone(), key.clone());
        Box::pin(async move {
            begun.send(()).unwrap();
            key.acquire().await.unwrap().forget();
            Reply::json(&"done")
        })
    });
    (endpoint, started, gate)
}

#[tokio::test]
async fn a_full_worker_says_so_at_once_and_still_answers_queries() {
    let nats = Nats::start().await;
    let (work, mut started, gate) = held();
    let query = endpoint("query", Lane::Query, |_| Served::Later {
        work: Box::pin(async { Reply::json(&"here") }),
        timeout: Duration::from_secs(1),
    });
    let door =
        open(&nats, vec![work, query], &Options { max_concurrent: 2, max_concurrent_per_tenant: 2, ..nats.options() })
            .await;
    let client = nats.client().await;
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.request("test.work", "x".into()).await.unwrap() })
        })
        .collect();
    started.recv().await.unwrap();
    started.recv().await.unwrap();
    assert_eq!(door.in_flight(), 2);

    let shed = client.request("test.work", "x".into()).await.unwrap();
    assert_eq!(header(&shed, "Nats-Service-Error-Code"), Some("503"));
    assert_eq!(read(&shed)["error"], "overloaded");
    let retry: u64 = header(&shed, "Retry-After-Ms").unwrap().parse().unwrap();
    assert!((1..=3000).contains(&retry), "{retry}");
    assert_eq!(read(&client.request("test.query", "x".into()).await.unwrap()), json!("here"));

    gate.add_permits(3);
    for asked in asked {
        assert_eq!(read(&asked.await.unwrap()), json!("done"));
    }
    // A free permit is given again; it may come back a moment after its reply.
    let again = loop {
        let reply = client.request("test.work", "x".into()).await.unwrap();
        if header(&reply, "Retry-After-Ms").is_none() {
            break reply;
        }
    };
    assert_eq!(read(&again), json!("done"));
}

#[tokio::test]
async fn a_fault_in_one_request_is_a_500_and_the_next_is_served() {
    let nats = Nats::start().await;
    let later = work(|call| {
        let bad = call.body() == b"bad";
        Box::pin(async move {
            assert!(!bad, "a fault while it runs");
            Reply::json(&"good")
        })
    });
    let at_once = endpoint("query", Lane::Query, |call| {
        assert!(call.body() != b"bad", "a fault on the receive loop");
        Served::Now(Reply::json(&"good"))
    });
    let door = open(&nats, vec![later, at_once], &nats.options()).await;
    let client = nats.client().await;
    for subject in ["test.work", "test.query"] {
        let bad = client.request(subject, "bad".into()).await.unwrap();
        assert_eq!(header(&bad, "Nats-Service-Error-Code"), Some("500"), "{subject}");
        assert!(!read(&bad)["message"].as_str().unwrap().contains("while"), "a panic's words are not for strangers");
        assert_eq!(read(&client.request(subject, "fine".into()).await.unwrap()), json!("good"), "{subject}");
    }
    let stats = client.request(format!("$SRV.STATS.tandem.{}", door.instance()), "".into()).await.unwrap();
    assert_eq!(read(&stats)["data"]["panics"], 2);
}

#[tokio::test]
async fn work_that_takes_longer_than_its_sender_waits_ends_in_a_408() {
    let nats = Nats::start().await;
    let stuck = endpoint("work", Lane::Work, |_| Served::Later {
        work: Box::pin(std::future::pending()),
        timeout: Duration::from_millis(20),
    });
    let door = open(&nats, vec![stuck], &nats.options()).await;
    let client = nats.client().await;
    let reply = client.request("test.work", "x".into()).await.unwrap();
    assert_eq!(header(&reply, "Nats-Service-Error-Code"), Some("408"));
    assert_eq!(door.stop(Duration::from_secs(5)).await, Stopped { given_up: 0, drained: true });
}

#[tokio::test]
async fn two_doors_share_the_load() {
    let nats = Nats::start().await;
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut doors = vec![];
    for count in &counts {
        let count = count.clone();
        let counting = endpoint("work", Lane::Work, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Served::Now(Reply::json(&1))
        });
        doors.push(open(&nats, vec![counting], &nats.options()).await);
    }
    let client = nats.client().await;
    futures::stream::iter(0..400)
        .for_each_concurrent(32, |_| async {
            client.request("test.work", "x".into()).await.unwrap();
        })
        .await;
    let [a, b] = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(a + b, 400, "each is done once");
    assert!(a > 100 && b > 100, "{a} and {b}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() {
    let nats = Nats::start().await;
    let short = || {
        work(|_| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Reply::json(&"done")
            })
        })
    };
    let mut doors = std::collections::VecDeque::new();
    for _ in 0..2 {
        doors.push_back(open(&nats, vec![short()], &nats.options()).await);
    }
    let (client, rolled) = (nats.client().await, tokio_util::sync::CancellationToken::new());
    let load = tokio::spawn({
        let rolled = rolled.clone();
        async move {
            let askers = (0..128).map(|_| async {
                let mut answered = 0;
                while !rolled.is_cancelled() {
                    let reply = client.request("test.work", "x".into()).await.unwrap();
                    assert_eq!(read(&reply), json!("done"));
                    answered += 1;
                }
                answered
            });
            futures::future::join_all(askers).await.into_iter().sum::<usize>()
        }
    });
    for _ in 0..10 {
        doors.push_back(open(&nats, vec![short()], &nats.options()).await);
        let stopped = doors.pop_front().unwrap().stop(Duration::from_secs(10)).await;
        assert_eq!(stopped, Stopped { given_up: 0, drained: true });
    }
    rolled.cancel();
    let answered = load.await.unwrap();
    assert!(answered > 1_000, "only {answered} were asked");
    println!("{answered} requests over 10 restarts, none lost");
}

#[tokio::test]
async fn what_still_runs_when_the_time_to_stop_is_up_is_told_so() {
    let nats = Nats::start().await;
    let (work, mut started, _gate) = held();
    let door = open(&nats, vec![work], &nats.options()).await;
    let client = nats.client().await;
    let asked = tokio::spawn(async move { client.request("test.work", "x".into()).await.unwrap() });
    started.recv().await.unwrap();
    assert_eq!(door.stop(Duration::from_millis(50)).await, Stopped { given_up: 1, drained: true });
    assert_eq!(read(&asked.await.unwrap())["error"], "unavailable");
}

#[tokio::test]
async fn what_was_asked_before_stopping_is_answered() {
    let nats = Nats::start().await;
    let (work, mut started, gate) = held();
    let query = endpoint("query", Lane::Query, |_| Served::Now(Reply::json(&"here")));
    let door = open(&nats, vec![work, query], &nats.options()).await;
    let client = nats.client().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.request("test.work", "x".into()).await.unwrap() });
    started.recv().await.unwrap();
    let stopping = tokio::spawn(door.stop(Duration::from_secs(10)));
    // When nobody is there for new ones, the worker is still at its work.
    while client.request("test.query", "x".into()).await.is_ok() {}
    gate.add_permits(1);
    assert_eq!(read(&asked.await.unwrap()), json!("done"));
    assert_eq!(stopping.await.unwrap(), Stopped { given_up: 0, drained: true });
}
