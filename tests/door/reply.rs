//! The reply subject is a stranger's word.

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tandem::bus::Reply;

use crate::nats::{Nats, header, json as read};
use crate::{TASK, open, work, worker};

#[tokio::test]
async fn no_reply_subject_harms_a_stream_or_another_service() {
    let nats = Nats::start().await;
    let door = worker(&nats).await;
    let client = nats.client().await;
    let js = jetstream::new(client.clone());
    let config =
        jetstream::stream::Config { name: "X".into(), subjects: vec!["orders.>".into()], ..Default::default() };
    let mut stream = js.create_stream(config).await.unwrap();
    js.publish("orders.1", "one".into()).await.unwrap().await.unwrap();
    let mut other_service = client.subscribe("billing.charge").await.unwrap();

    let attacks = [
        "$JS.API.STREAM.DELETE.X",
        "$JS.API.STREAM.PURGE.X",
        "$SYS.REQ.SERVER.PING",
        "$SRV.PING",
        "execution.request",
        "execution.request.acme",
        "tandem.sync.cache",
        "billing.charge",
        "orders.2",
        "_INBOX.*",
        "_INBOX.>",
    ];
    for body in [TASK, "", "{nope"] {
        for reply in attacks {
            client.publish_with_reply("execution.request", reply, body.into()).await.unwrap();
        }
        client.publish("execution.request", body.into()).await.unwrap();
    }
    let after = client.request("execution.request", TASK.into()).await.unwrap();
    assert_eq!(read(&after)["metrics"]["success"], true);

    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    // Messages may be read in another order than they were sent.
    let begun = std::time::Instant::now();
    let refused = loop {
        let stats = client.request(format!("$SRV.STATS.tandem.{}", door.instance()), "".into()).await.unwrap();
        let refused = read(&stats)["data"]["refused_replies"].as_u64().unwrap();
        if refused >= 3 * (attacks.len() as u64 + 1) || begun.elapsed() > std::time::Duration::from_secs(5) {
            break refused;
        }
    };
    assert_eq!(refused, 3 * (attacks.len() as u64 + 1));
    client.flush().await.unwrap();
    assert!(other_service.next().now_or_never().is_none(), "another service's subject was written to");
}

#[tokio::test]
async fn a_configured_prefix_is_answered() {
    let nats = Nats::start().await;
    let options = tandem::bus::Options { reply_prefixes: vec!["_INBOX.".into(), "replies.".into()], ..nats.options() };
    let echo = work(|call| Box::pin(async move { Reply::json(&call.body().len()) }));
    let _door = open(&nats, vec![echo], &options).await;
    let client = nats.client().await;
    let mut replies = client.subscribe("replies.me").await.unwrap();
    client.publish_with_reply("test.work", "replies.me", "12345".into()).await.unwrap();
    assert_eq!(read(&replies.next().await.unwrap()), json!(5));
}

#[tokio::test]
async fn an_answer_that_the_server_cannot_carry_becomes_a_413() {
    let nats = Nats::start().await;
    let large = work(|call| {
        let size: usize = std::str::from_utf8(call.body()).unwrap().parse().unwrap();
        Box::pin(async move { Reply::json(&"x".repeat(size)) })
    });
    let _door = open(&nats, vec![large], &nats.options()).await;
    let client = nats.client().await;
    let fits = client.request_with_headers("test.work", HeaderMap::new(), "8387000".into()).await.unwrap();
    assert_eq!(fits.payload.len(), 8_387_002);
    for size in ["8388000", "8388608", "20000000"] {
        let reply = client.request("test.work", size.into()).await.unwrap();
        assert_eq!(header(&reply, "Nats-Service-Error-Code"), Some("413"), "{size}");
        assert_eq!(read(&reply)["error"], "too_large");
    }
}
