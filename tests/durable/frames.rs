//! Messages that the client library can't read: each breaks the connection that they are delivered on.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fault::report;
use crate::model::Model;
use crate::nats::Nats;
use crate::worker::Place;
use crate::{Sender, declined, example, header, quick, within};

/// Publishes with headers as they are, as no client library would.
async fn publish(nats: &Nats, subject: &[u8], headers: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", nats.server.port())).await.unwrap();
    let body = example("never").to_string();
    let mut frame = b"CONNECT {\"verbose\":false,\"headers\":true,\"pedantic\":false}\r\nHPUB ".to_vec();
    frame.extend_from_slice(subject);
    frame.extend_from_slice(format!(" {} {}\r\n", headers.len(), headers.len() + body.len()).as_bytes());
    frame.extend_from_slice(headers);
    frame.extend_from_slice(body.as_bytes());
    frame.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&frame).await.unwrap();
    let mut said = vec![];
    while !said.windows(4).any(|w| w == b"PONG") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
}

#[tokio::test]
async fn faults_frames_that_no_client_can_read_are_set_aside_and_no_other_submit_is_lost() {
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_millis(400)).await;
    let place = Place::new();
    let _worker = place.worker_with(model.routed(quick(&place, &nats)), model.credentials()).await;
    let sender = Sender::of(&nats).await;
    let frames: [(&str, &[u8], &[u8]); 6] = [
        ("not UTF-8", b"execution.submit", b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
        ("no colon", b"execution.submit", b"NATS/1.0\r\nnonsense\r\n\r\n"),
        ("NATS/1.0", b"execution.submit.acme", b"A: b\r\n\r\n"),
        // Async-nats 0.51 does not survive it: the worker goes on with another client.
        ("carriage return", b"execution.submit", b"NATS/1.0\r\nA: b\rc\r\n\r\n"),
        ("UTF-8", b"execution.submit.\xff\xfe", b"NATS/1.0\r\nA: b\r\n\r\n"),
        ("space", "execution.submit.a\u{2003}b".as_bytes(), b"NATS/1.0\r\nA: b\r\n\r\n"),
    ];
    let mut good = 0;
    let mut slowest = Duration::ZERO;
    for (i, (why, subject, headers)) in frames.into_iter().enumerate() {
        // Some are at work when the connection breaks, some come behind.
        for _ in 0..5 {
            sender.submit(&declined(&format!("g{good}"))).await;
            good += 1;
        }
        publish(&nats, subject, headers).await;
        let broken = Instant::now();
        let dead = async || sender.dead().await.into_iter().nth(i);
        let letter = within(Duration::from_secs(10), why, dead).await;
        slowest = slowest.max(broken.elapsed());
        let message = header(&letter.headers, "Dead-Message");
        assert!(message.contains(why), "{why}: {message}");
        assert_eq!(letter.payload, example("never").to_string());
        // Those who wait for a reply notice nothing.
        let asked = sender.client.request("execution.request", json!({"task": "x"}).to_string().into()).await;
        assert!(asked.is_ok(), "{asked:?}");
    }
    // This server takes a status out before it stores: what is left is a submit like any other.
    for status in ["soon", "503 No Responders"] {
        publish(&nats, b"execution.submit", format!("NATS/1.0 {status}\r\nA: b\r\n\r\n").as_bytes()).await;
    }
    sender.all_done(Duration::from_secs(20)).await;
    for i in 0..good {
        assert_eq!(sender.result(&format!("g{i}")).await["method"], "llm_assisted", "g{i}");
    }
    assert_eq!(sender.result("never").await["method"], "autonomous", "the one that can be read");
    assert_eq!(sender.dead().await.len(), 6);
    assert_eq!(sender.health().await["status"], "ok");
    report(
        "raw frames on execution.submit: 6 that no client can read, 2 with a status",
        format!("set aside after {slowest:?}, {good} of {good} other submits done"),
        "≤ 1 s, none lost",
    );
    assert!(slowest <= Duration::from_secs(1), "set aside after {slowest:?}");
}

#[tokio::test]
async fn a_submit_whose_headers_leave_no_room_for_a_letters_own_is_set_aside_without_them() {
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = place.worker(&nats).await;
    let sender = Sender::of(&nats).await;
    // A stream takes 64 KiB of headers.
    let long = "x".repeat(64 * 1024 - 100);
    sender.publish("execution.submit", &[("X", &long)], b"no JSON").await;
    // And what no client can read stands in a header of its letter, a third longer.
    let unreadable = [b"NATS/1.0\r\nA: ", "x".repeat(60_000).as_bytes(), b"\xff\r\n\r\n"].concat();
    publish(&nats, b"execution.submit", &unreadable).await;
    let both = async || Some(sender.dead().await).filter(|letters| letters.len() == 2);
    let letters = within(Duration::from_secs(10), "two dead letters", both).await;
    for letter in letters {
        assert!(letter.headers.get("X").is_none() && letter.headers.get("Dead-Unreadable-Headers").is_none());
        assert!(!header(&letter.headers, "Dead-Message").is_empty());
    }
}
