//! The services beside which the worker is measured, each a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::bytes::Bytes;

#[derive(Deserialize)]
#[allow(dead_code, reason = "read as a service would")]
struct Asked {
    task: String,
    language: Option<String>,
}

#[derive(Serialize)]
struct Told<'a> {
    result: &'a str,
    correlation_id: String,
    method: &'static str,
}

/// `bare`: sends a ready answer back from its receive loop. `shaped`: a semaphore, a task for each request, JSON in and
/// out.
pub async fn echo(shape: &str, server: &str, length: usize) {
    let client = async_nats::connect(server).await.unwrap();
    let mut messages = client.queue_subscribe(format!("bench.{shape}"), "bench".to_owned()).await.unwrap();
    let text: Arc<str> = "x".repeat(length.saturating_sub(100)).into();
    let ready = Bytes::from(vec![b'x'; length]);
    let permits = Arc::new(Semaphore::new(256));
    let served = Arc::new(AtomicU64::new(0));
    while let Some(message) = messages.next().await {
        let Some(to) = message.reply else { continue };
        if shape == "bare" {
            client.publish(to, ready.clone()).await.unwrap();
            continue;
        }
        let permit = permits.clone().acquire_owned().await.unwrap();
        let (client, text, served) = (client.clone(), text.clone(), served.clone());
        tokio::spawn(async move {
            let asked: Asked = serde_json::from_slice(&message.payload).unwrap();
            let number = served.fetch_add(1, Ordering::Relaxed);
            let told = Told { result: &text, correlation_id: format!("{}-{number}", asked.task.len()), method: "echo" };
            client.publish(to, serde_json::to_vec(&told).unwrap().into()).await.unwrap();
            drop(permit);
        });
    }
}

