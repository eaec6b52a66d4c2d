//! Senders of requests: as many as are in flight, or as many as a rate asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

/// What one round of load saw.
pub struct Round {
    pub took: Duration,
    pub latencies: Vec<Duration>,
}

impl Round {
    pub fn done(&self) -> usize {
        self.latencies.len()
    }

    pub fn rate(&self) -> f64 {
        self.done() as f64 / self.took.as_secs_f64()
    }

    pub fn percentile(&self, share: f64) -> Duration {
        self.latencies[((self.latencies.len() - 1) as f64 * share) as usize]
    }
}

/// `in_flight` senders, each with its next request as soon as the last one is answered.
pub async fn closed(
    clients: Vec<Client>,
    subject: &'static str,
    body: &'static str,
    in_flight: usize,
    time: Duration,
) -> Round {
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let senders: Vec<_> = (0..in_flight)
        .map(|i| {
            let (client, over) = (clients[i % clients.len()].clone(), over.clone());
            tokio::spawn(async move {
                let mut latencies = vec![];
                while !over.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    let reply = client.request(subject, Bytes::from_static(body.as_bytes())).await.unwrap();
                    assert!(reply.payload.len() > 500, "{}", String::from_utf8_lossy(&reply.payload));
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut latencies: Vec<Duration> = vec![];
    for sender in senders {
        latencies.extend(sender.await.unwrap());
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    Round { took, latencies }
}

/// What a service made of more than it can bear.
#[derive(Default)]
pub struct Flood {
    pub good: usize,
    /// How long those waited who were told 503.
    pub shed: Vec<Duration>,
    pub lost: usize,
    pub took: Duration,
}

/// `rate` requests a second, whatever comes back.
pub async fn open(client: Client, subject: &'static str, body: &'static str, rate: f64, time: Duration) -> Flood {
    let mut flood = Flood::default();
    let mut open: JoinSet<Option<(bool, Duration)>> = JoinSet::new();
    let began = Instant::now();
    let mut sent = 0_u64;
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < time {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        for _ in sent..due {
            let client = client.clone();
            open.spawn(async move {
                let sent = Instant::now();
                let reply = client.request(subject, Bytes::from_static(body.as_bytes())).await.ok()?;
                let shed = reply.headers.as_ref().is_some_and(|h| h.get("Nats-Service-Error-Code").is_some());
                Some((shed, sent.elapsed()))
            });
        }
        sent = sent.max(due);
    }
    let sending = began.elapsed();
    while let Some(answer) = open.join_next().await {
        match answer.unwrap() {
            Some((false, _)) => flood.good += 1,
            Some((true, waited)) => flood.shed.push(waited),
            None => flood.lost += 1,
        }
    }
    flood.shed.sort_unstable();
    flood.took = sending;
    flood
}
