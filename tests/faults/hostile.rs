//! Strangers: where they want replies sent, and frames that no client library writes.

use std::time::Duration;

use async_nats::jetstream;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tandem::bus::endpoints::TABLE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fault::report;
use crate::nats::{Nats, json as read};
use crate::worker::Place;
use crate::{answer, counted, serve, task, until, until_served};

const ATTACKS: [&str; 15] = [
    "$JS.API.STREAM.DELETE.X",
    "$JS.API.STREAM.PURGE.X",
    "$JS.API.STREAM.MSG.DELETE.X",
    "$JS.API.CONSUMER.DELETE.X.C",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.PING",
    "$SRV.PING",
    "$KV.config.key",
    "_INBOX.*",
    "_INBOX.>",
    "execution.request",
    "execution.request.acme",
    "tandem.sync.cache",
    "billing.charge",
    "orders.2",
];

/// Every subject that is answered at all, with every reply subject that must not be.
#[tokio::test]
async fn no_reply_subject_on_any_endpoint_harms_a_stream_or_another_service() {
    let nats = Nats::start().await;
    let worker = Place::new().worker(&nats).await;
    let client = nats.client().await;
    let js = jetstream::new(client.clone());
    let config =
        jetstream::stream::Config { name: "X".into(), subjects: vec!["orders.>".into()], ..Default::default() };
    let mut stream = js.create_stream(config).await.unwrap();
    js.publish("orders.1", "one".into()).await.unwrap().await.unwrap();
    let consumer = jetstream::consumer::pull::Config { durable_name: Some("C".into()), ..Default::default() };
    stream.create_consumer(consumer).await.unwrap();
    let mut other_service = client.subscribe("billing.charge").await.unwrap();

    let mut subjects: Vec<String> =
        TABLE.iter().flat_map(|e| [e.subject.to_owned(), format!("{}.acme", e.subject)]).collect();
    for verb in ["PING", "INFO", "STATS"] {
        for tail in ["", ".tandem"] {
            subjects.push(format!("$SRV.{verb}{tail}"));
        }
    }
    let mut sent = 0;
    for subject in &subjects {
        for body in ["", "{}", "{nope"] {
            for reply in ATTACKS {
                client.publish_with_reply(subject.clone(), reply, body.into()).await.unwrap();
            }
            client.publish(subject.clone(), body.into()).await.unwrap();
            sent += ATTACKS.len() as u64 + 1;
        }
    }
    // What the workers tell each other is confirmed to inboxes only.
    let word = json!({"from": "x", "kind": "removed", "ids": []}).to_string();
    for reply in ATTACKS {
        client.publish_with_reply("tandem.sync.cache", reply, word.clone().into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let all = async || (counted(&client, "refused_replies").await >= sent).then_some(());
    until(Duration::from_secs(20), "all are counted as refused", all).await;
    // Each subscription has its own reader: the last of each are dealt with when it is idle.
    assert_eq!(counted(&client, "refused_replies").await, sent);
    let info = stream.info().await.unwrap();
    assert_eq!((info.state.messages, info.state.consumer_count), (1, 1));
    assert!(other_service.next().now_or_never().is_none(), "another service's subject was written to");
    assert_eq!(answer(&client, "execution.request", &task("use")).await["metrics"]["success"], true);
    drop(worker);
    report(
        "reply subjects that are none of the sender's",
        format!("{sent} refused and counted, the stream unharmed"),
        "all",
    );
}

/// Frames as they go over the wire, for the subjects of `execution.request`.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let with = |headers: &[u8], body: &[u8]| {
        let (head, all) = (headers.len(), headers.len() + body.len());
        let line = format!("HPUB execution.request _INBOX.raw.1 {head} {all}\r\n");
        [line.as_bytes(), headers, body, b"\r\n"].concat()
    };
    vec![
        ("a header that is not UTF-8", with(b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n", b"{}")),
        ("a header's name that is not UTF-8", with(b"NATS/1.0\r\n\xff\xfe: a\r\n\r\n", b"{}")),
        ("a header without a colon", with(b"NATS/1.0\r\nnothing\r\n\r\n", b"{}")),
        ("no version line", with(b"A: b\r\n\r\n", b"{}")),
        ("another version", with(b"NATS/9.9\r\nA: b\r\n\r\n", b"{}")),
        ("a status that is no number", with(b"NATS/1.0 nope\r\n\r\n", b"{}")),
        ("a status of many digits", with(b"NATS/1.0 99999999999\r\n\r\n", b"{}")),
        ("headers without an end", with(b"NATS/1.0\r\nA: b", b"{}")),
        ("empty headers", with(b"\r\n", b"{}")),
        // The client library's task panics at this one and never comes back.
        ("a carriage return in a header", with(b"NATS/1.0\r\nA: b\rc\r\n\r\n", b"{}")),
        ("a tenant that is not UTF-8", b"PUB execution.request.\xff\xfe _INBOX.raw.1 2\r\n{}\r\n".to_vec()),
        ("a reply subject that is not UTF-8", b"PUB execution.request _INBOX.\xff\xfe 2\r\n{}\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_frames_do_not_keep_a_worker_away() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let worker = serve(&nats, folder.path(), &[]).await;
    let pid = worker.pid();
    // Asked from elsewhere: what breaks the worker's connection must not break the asker's.
    let client = nats.client().await;
    until_served(&client, Duration::from_secs(5)).await;
    let mut longest = (Duration::ZERO, "none");
    for (what, frame) in frames() {
        let mut raw = TcpStream::connect(("127.0.0.1", nats.server.port())).await.unwrap();
        let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"raw\",\"version\":\"0\"}\r\n";
        raw.write_all(hello).await.unwrap();
        raw.write_all(&frame).await.unwrap();
        raw.write_all(b"PING\r\n").await.unwrap();
        // The frame is through when the server has answered, or has shut us out.
        let mut said = String::new();
        let mut buffer = [0; 4096];
        while !said.contains("PONG") && !said.contains("-ERR") {
            match tokio::time::timeout(Duration::from_secs(5), raw.read(&mut buffer)).await.unwrap() {
                Ok(n) if n > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..n])),
                _ => break,
            }
        }
        let took = until_served(&client, Duration::from_secs(1)).await;
        println!("{what}: serving after {took:?}");
        if took > longest.0 {
            longest = (took, what);
        }
    }
    assert_eq!(worker.pid(), pid, "it was the same process all the while");
    let stats = read(&client.request("$SRV.STATS.tandem", "".into()).await.unwrap());
    assert_eq!(stats["data"]["panics"], 0, "{stats}");
    report(
        "raw frames that no client library writes",
        format!("{} kinds; serving after at most {:?} ({})", frames().len(), longest.0, longest.1),
        "≤ 1 s",
    );
}
