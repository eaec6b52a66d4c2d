//! Answers larger than the server carries.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};
use tandem::bus::objects;
use tandem::domain::Tenant;
use tokio::io::AsyncReadExt;

use crate::fault::report;
use crate::nats::{Nats, header, json as read};
use crate::process::{output, tandem};
use crate::server::OwnNats;
use crate::worker::Place;
use crate::{ask, status};

/// Its answer has some kilobytes.
fn body() -> Value {
    json!({"task": "REST endpoint for orders and a consumer for order events, with tests and docs", "language": "rust"})
}

#[tokio::test]
async fn a_large_answer_is_a_413_or_lies_in_the_object_store() {
    let folder = tempfile::tempdir().unwrap();
    let small = OwnNats::start(folder.path(), "max_payload: 4096\njetstream { store_dir: \"$FOLDER\" }\n").await;
    let place = Place::new();
    let mut config = place.config_at(&small.url());
    config.nats.max_concurrent = 8;
    let _worker = place.worker_with(config, tandem::llm::Credentials::default()).await;
    let client = async_nats::connect(small.url()).await.unwrap();

    let refused = ask(&client, "execution.request", &body()).await;
    assert_eq!(status(&refused), Some("413"), "{}", read(&refused));
    assert_eq!(read(&refused)["error"], "too_large");

    let mut accept = HeaderMap::new();
    accept.insert("Accept-Object-Store", "true");
    let said = async |subject: &'static str| {
        client.request_with_headers(subject, accept.clone(), body().to_string().into()).await.unwrap()
    };
    // It is known by now: what waits for the store must not do so on the receive loop.
    let mut bytes = 0;
    for _ in 0..2 {
        let reply = said("execution.request").await;
        let at = read(&reply);
        assert_eq!((status(&reply), header(&reply, "Object-Store-Bucket")), (None, Some("TANDEM_ANSWERS")), "{at}");
        assert_eq!(header(&reply, "Object-Store-Name"), at["object"].as_str());
        let store = jetstream::new(client.clone()).get_object_store("TANDEM_ANSWERS").await.unwrap();
        let mut stored = vec![];
        let object = store.get(at["object"].as_str().unwrap()).await;
        object.unwrap().read_to_end(&mut stored).await.unwrap();
        bytes = stored.len();
        assert_eq!(json!(bytes), at["bytes"]);
        assert!(bytes > 4096);
        let stored: Value = serde_json::from_slice(&stored).unwrap();
        assert_eq!(stored["correlation_id"], at["correlation_id"]);
        assert_eq!(stored["metrics"]["cache_hit"], true, "{stored}");
    }
    report(
        "an answer larger than max_payload (4 KiB)",
        format!("413, or {bytes} bytes in the object store"),
        "answered",
    );

    // A stranger's tenant makes no stream; one that was let in has a bucket of its own.
    let reply = said("execution.request.acme").await;
    assert_eq!(status(&reply), Some("413"), "{}", read(&reply));
    objects::create(&client, &Tenant::parse("acme").unwrap()).await.unwrap();
    let reply = said("execution.request.acme").await;
    assert_eq!(header(&reply, "Object-Store-Bucket"), Some("TANDEM_ANSWERS_acme"));

    let task = body()["task"].as_str().unwrap().to_owned();
    let arguments = ["request", &task, "--language", "rust", "--json"];
    let ended = output(tandem(folder.path(), &[("NATS_URL", &small.url())], &arguments)).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let fetched: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(fetched["parts"].as_array().is_some_and(|parts| parts.len() > 1), "{fetched}");
}

#[tokio::test]
async fn without_jetstream_a_large_answer_is_a_413_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let small = OwnNats::start(folder.path(), "max_payload: 4096\n").await;
    let place = Place::new();
    let _worker = place.worker_with(place.config_at(&small.url()), tandem::llm::Credentials::default()).await;
    let client = async_nats::connect(small.url()).await.unwrap();
    let mut accept = HeaderMap::new();
    accept.insert("Accept-Object-Store", "true");
    let asked = client.request_with_headers("execution.request", accept, body().to_string().into());
    let reply = tokio::time::timeout(Duration::from_secs(9), asked).await.unwrap().unwrap();
    assert_eq!(status(&reply), Some("413"), "{}", read(&reply));
}

/// The server's own limit is what the tests above make small.
#[tokio::test]
async fn the_usual_server_carries_the_same_answer() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    assert_eq!(status(&ask(&nats.client().await, "execution.request", &body()).await), None);
}
