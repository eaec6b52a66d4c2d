//! Round trips of durable work: a submit is accepted, done, its result kept and sent to its sender.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::domain::{CorrelationId, RequestId, Tenant, Timestamp};
use tandem::store::{Options, Store};

/// Round trips a second, with `in_flight` senders.
pub async fn round_trips(server: &str, subject: &'static str, in_flight: usize, time: Duration) -> f64 {
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let client = async_nats::connect(server).await.unwrap();
    let began = Instant::now();
    let senders: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, over, done) = (client.clone(), over.clone(), done.clone());
            tokio::spawn(async move {
                let streams = jetstream::new(client.clone());
                let inbox = client.new_inbox();
                let mut results = client.subscribe(inbox.clone()).await.unwrap();
                while !over.load(Ordering::Relaxed) {
                    let id = uuid::Uuid::now_v7().simple().to_string();
                    let body = json!({
                        "task": "Create a NATS consumer for processing user events", "language": "elixir",
                        "id": id, "reply_to": inbox
                    });
                    streams.publish(subject, body.to_string().into()).await.unwrap().await.unwrap();
                    let result = tokio::time::timeout(Duration::from_secs(30), results.next()).await;
                    let result = result.expect("no result within 30 s").unwrap();
                    assert!(result.payload.len() > 100, "{}", String::from_utf8_lossy(&result.payload));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// The same on JetStream alone: a queue of work, a stream of results, no database and nothing to do.
pub async fn serve(server: &str, answer: usize) {
    let client = async_nats::connect(server).await.unwrap();
    let streams = jetstream::new(client.clone());
    let config = |name: &str, subject: &str, retention| stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        retention,
        ..stream::Config::default()
    };
    let work = config("BENCH", "bench.durable", stream::RetentionPolicy::WorkQueue);
    let work = streams.get_or_create_stream(work).await.unwrap();
    let kept = stream::Config {
        max_messages_per_subject: 1,
        ..config("BENCH_RESULT", "bench.result.*", stream::RetentionPolicy::Limits)
    };
    streams.get_or_create_stream(kept).await.unwrap();
    let pull = consumer::pull::Config { durable_name: Some("bench".to_owned()), ..Default::default() };
    let consumer = work.get_or_create_consumer("bench", pull).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(64).messages().await.unwrap();
    let result: Arc<str> = "x".repeat(answer).into();
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        let (client, streams, result) = (client.clone(), streams.clone(), result.clone());
        tokio::spawn(async move {
            let asked: Value = serde_json::from_slice(&message.payload).unwrap();
            let [id, to] = ["id", "reply_to"].map(|field| asked[field].as_str().unwrap().to_owned());
            let told = json!({"id": id, "result": &*result}).to_string();
            streams.publish(format!("bench.result.{id}"), told.clone().into()).await.unwrap().await.unwrap();
            client.publish(to, told.into()).await.unwrap();
            message.double_ack().await.unwrap();
        });
    }
}

/// How many ids a second the database itself claims and settles: two commits each, as a submit needs them.
pub async fn commits(folder: &Path, in_flight: usize, time: Duration) -> f64 {
    let url = format!("sqlite://{}", folder.join(format!("commits-{}.db", uuid::Uuid::now_v7().simple())).display());
    let store = Store::open(&Options { url, ..Options::default() }).await.unwrap();
    let began = Instant::now();
    let claimers: Vec<_> = (0..in_flight)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0_u64;
                let (tenant, holder) = (Tenant::default(), CorrelationId::generate());
                while began.elapsed() < time {
                    let id = RequestId::parse(&uuid::Uuid::now_v7().simple().to_string()).unwrap();
                    let lease = Duration::from_secs(10);
                    store.claim(&tenant, &id, &[1; 32], &holder, Timestamp::now(), lease).await.unwrap();
                    store.settle(&tenant, &id, &holder, "{}").await.unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for claimer in claimers {
        done += claimer.await.unwrap();
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    store.close().await;
    rate
}
