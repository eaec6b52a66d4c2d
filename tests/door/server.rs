//! The nats-server that a worker starts for itself.

use std::time::{Duration, Instant};

use tandem::app::nats_server::{Error, NatsServer};

use crate::nats::{Nats, binary};
use crate::worker;

async fn until_gone(port: u16) {
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_carries_large_messages_and_streams_on_loopback() {
    let nats = Nats::start().await;
    let info = nats.client().await.server_info();
    assert_eq!((info.version.as_str(), info.max_payload, info.jetstream), ("2.15.1", 8 * 1024 * 1024, true));
    assert_eq!(info.host, "127.0.0.1");
}

#[tokio::test]
async fn it_is_gone_when_nobody_holds_it() {
    let nats = Nats::start().await;
    let port = nats.server.port();
    drop(nats);
    until_gone(port).await;
}

#[tokio::test]
async fn it_stops_when_told_and_keeps_its_streams() {
    let nats = Nats::start().await;
    let js = async_nats::jetstream::new(nats.client().await);
    let config = async_nats::jetstream::stream::Config { name: "X".into(), ..Default::default() };
    js.create_stream(config).await.unwrap();
    let nats = nats.restart().await;
    let js = async_nats::jetstream::new(nats.client().await);
    assert!(js.get_stream("X").await.is_ok());
}

#[tokio::test]
async fn why_it_cannot_start_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = NatsServer::start(&folder.path().join("none"), folder.path(), None).await.unwrap_err();
    assert!(matches!(missing, Error::Missing(_)), "{missing}");

    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = NatsServer::start(&binary(), folder.path(), Some(port)).await.unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(error.to_string().contains("address already in use"), "{error}");
}

#[tokio::test]
async fn a_worker_serves_again_after_its_server_came_back() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let nats = nats.restart().await;
    let client = nats.client().await;
    let begun = Instant::now();
    // Until the worker is back there is nobody to answer.
    while client.request("execution.request", r#"{"task": "x"}"#.into()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the worker did not come back");
    }
}
