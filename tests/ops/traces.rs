//! Spans at a collector, from the sender's `traceparent` on.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Message, jetstream};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::collector::Collector;
use crate::nats::{self, Nats, header};
use crate::process::{Served, tandem};
use crate::provider::{Reply, Server};
use crate::{declined, example};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "b7ad6b7169203331";
const KEY: &str = "sk-canary-5f0d9a7be1c24433";

/// Its folder goes with it.
struct Worker {
    serving: Served,
    _folder: tempfile::TempDir,
}

async fn worker(nats: &Nats, more: &[(&str, &str)]) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    Worker { serving: serve(nats, folder.path(), more).await, _folder: folder }
}

/// Workers in one folder share its database.
async fn serve(nats: &Nats, folder: &Path, more: &[(&str, &str)]) -> Served {
    let database = format!("sqlite:{}", folder.join("tandem.db").display());
    let mut variables =
        vec![("NATS_URL", nats.server.url()), ("DATABASE_URL", &database), ("TANDEM__HTTP__LISTEN", "127.0.0.1:0")];
    variables.extend(more);
    let mut serving = Served::start(tandem(folder, &variables, &["serve"]));
    serving.ready().await;
    serving
}

/// What a model says.
fn said() -> Reply {
    let said = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a canary answer of the model"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
    });
    Reply::json(200, said.to_string())
}

async fn send(client: &Client, body: &Value, traceparent: Option<&str>) -> Message {
    let mut headers = HeaderMap::new();
    if let Some(value) = traceparent {
        headers.insert("traceparent", value);
    }
    let body = body.to_string();
    client.request_with_headers("execution.request", headers, body.into()).await.unwrap()
}

fn sampled() -> String {
    format!("00-{TRACE}-{SENDER}-01")
}

#[tokio::test]
async fn a_request_is_a_child_of_its_senders_span_and_the_reply_names_it() {
    let (nats, collector) = (Nats::start().await, Collector::start().await);
    let provider = Server::start(said()).await;
    let mut worker = worker(
        &nats,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=open-sesame"),
            ("OTEL_SERVICE_NAME", "tandem-of-the-test"),
            ("OPENAI_API_KEY", KEY),
            ("OPENAI_BASE_URL", &provider.url()),
            ("TANDEM__LLM__ROUTE", "openai/gpt-5-mini"),
        ],
    )
    .await;
    let client = nats.client().await;
    let reply = send(&client, &declined(), Some(&sampled())).await;
    assert_eq!(nats::json(&reply)["method"], "llm_assisted", "{}", nats::json(&reply));
    let told: Vec<String> = header(&reply, "traceparent").unwrap().split('-').map(str::to_owned).collect();
    assert_eq!((told[1].as_str(), told[3].as_str()), (TRACE, "01"));
    assert_ne!(told[2], SENDER, "the reply names the worker's span, not the sender's");

    let request = collector.span("the request", |s| s.name == "request" && s.id == told[2]).await;
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (TRACE, SENDER));
    assert_eq!((request.service.as_str(), request.failed), ("tandem-of-the-test", false));
    assert_eq!(request.attributes["method"], "llm_assisted");
    assert_eq!(request.attributes["correlation.id"], nats::json(&reply)["correlation_id"].as_str().unwrap());
    for name in ["decode", "lookup", "plan", "model", "commit"] {
        let part = collector.span(name, |s| s.name == name).await;
        assert_eq!((part.trace.as_str(), &part.parent), (TRACE, &request.id), "{part:?}");
    }
    let begun = collector.span("received", |s| s.name == "received").await;
    assert_eq!((begun.trace.as_str(), begun.parent.as_str()), (TRACE, SENDER));

    // A hit, and one without a sender's trace: a trace of its own.
    let hit = send(&client, &declined(), None).await;
    let own: Vec<String> = header(&hit, "traceparent").unwrap().split('-').map(str::to_owned).collect();
    let root = collector.span("the hit", |s| s.id == own[2]).await;
    assert_eq!((root.parent.as_str(), &root.trace), ("", &own[1]));
    assert_eq!(root.attributes["method"], "cached");
    // A refused one is marked, by its code.
    send(&client, &json!({"task": 7, "canary": "canary"}), None).await;
    let refused = collector.span("the refused one", |s| s.failed).await;
    assert_eq!(refused.attributes["error.type"], "invalid_field");

    assert!(collector.has_header("x-collector-key", "open-sesame"));
    let raw = String::from_utf8_lossy(&collector.raw()).to_lowercase();
    for secret in [KEY, "minimum cost", "canary", "sky"] {
        assert!(!raw.contains(secret), "{secret:?} left the machine");
    }
    worker.serving.signal("TERM");
    assert!(worker.serving.ended().await.success());
}

#[tokio::test]
async fn what_a_killed_worker_had_begun_is_in_the_trace_and_so_is_the_one_that_did_it() {
    let (nats, collector) = (Nats::start().await, Collector::start().await);
    let silent = Server::start(Reply::Stalled).await;
    let traces = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let model =
        [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &silent.url()), ("TANDEM__LLM__ROUTE", "openai/gpt-5-mini")];
    let first = worker(&nats, &[&[traces][..], &model].concat()).await;
    let client = nats.client().await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { send(&client, &declined(), Some(&sampled())).await }
    });
    let begun = collector.span("received by the first", |s| s.name == "received").await;
    assert_eq!((begun.trace.as_str(), begun.parent.as_str()), (TRACE, SENDER));
    assert_eq!(begun.pid, first.serving.pid().to_string());
    first.serving.signal("KILL");
    asked.abort();
    let second = worker(&nats, &[traces]).await;
    let reply = send(&client, &declined(), Some(&sampled())).await;
    let told = header(&reply, "traceparent").unwrap().split('-').nth(2).unwrap().to_owned();
    let request = collector.span("the second's request", |s| s.id == told).await;
    assert_eq!((request.trace.as_str(), request.pid), (TRACE, second.serving.pid().to_string()));
    let ended: Vec<String> = collector.spans().into_iter().filter(|s| s.name == "request").map(|s| s.pid).collect();
    assert!(!ended.contains(&begun.pid), "the killed worker ended nothing: {ended:?}");
}

/// One trace from its sender through the submit, the worker that was killed over it and the one that took it over.
#[tokio::test]
async fn a_submit_s_trace_goes_through_the_killed_worker_and_the_one_that_took_it_over() {
    let (nats, collector) = (Nats::start().await, Collector::start().await);
    let (silent, answers) = (Server::start(Reply::Stalled).await, Server::start(said()).await);
    let folder = tempfile::tempdir().unwrap();
    let ack_wait = Duration::from_secs(2);
    let ack_wait_ms = ack_wait.as_millis().to_string();
    let of_all = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("TANDEM__NATS__ACK_WAIT_MS", &ack_wait_ms),
        ("OPENAI_API_KEY", KEY),
        ("TANDEM__LLM__ROUTE", "openai/gpt-5-mini"),
    ];
    let asks = async |model: &Server| {
        let url = model.url();
        serve(&nats, folder.path(), &[&of_all[..], &[("OPENAI_BASE_URL", &url)]].concat()).await
    };
    let mut killed = asks(&silent).await;
    let client = nats.client().await;
    let mut results = client.subscribe("execution.result.traced").await.unwrap();
    client.flush().await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", sampled());
    headers.insert("Nats-Msg-Id", "traced");
    let submitted = jetstream::new(client.clone())
        .publish_with_headers("execution.submit", headers, declined().to_string().into())
        .await;
    submitted.unwrap().await.unwrap();

    let first = killed.pid().to_string();
    let begun = collector.span("received by the first", |s| s.name == "received").await;
    assert_eq!((&begun.trace, &begun.parent, &begun.pid), (&TRACE.to_owned(), &SENDER.to_owned(), &first));
    // The last that ends before the model is asked, which never answers.
    let planned = collector.span("planned by the first", |s| s.name == "plan").await;
    assert_eq!((planned.trace.as_str(), &planned.pid), (TRACE, &first));
    let other = asks(&answers).await;
    killed.signal("KILL");
    killed.ended().await;

    let result = tokio::time::timeout(ack_wait + Duration::from_secs(10), results.next()).await.unwrap().unwrap();
    assert_eq!(nats::json(&result)["method"], "llm_assisted", "{}", nats::json(&result));
    let told: Vec<&str> = header(&result, "traceparent").unwrap().split('-').collect();
    let submit = collector.span("the second's submit", |s| s.name == "submit" && s.id == told[2]).await;
    let second = other.pid().to_string();
    assert_eq!((told[1], submit.trace.as_str(), submit.parent.as_str()), (TRACE, TRACE, SENDER));
    assert_eq!((&submit.pid, submit.attributes["submit.delivered"].as_str()), (&second, "2"));
    for name in ["plan", "model", "commit"] {
        let part = collector.span(name, |s| s.name == name && s.pid == second).await;
        assert_eq!((part.trace.as_str(), &part.parent), (TRACE, &submit.id), "{part:?}");
    }
    let again = collector.span("received by the second", |s| s.name == "received" && s.pid == second).await;
    assert_eq!((again.trace.as_str(), again.parent.as_str()), (TRACE, SENDER));
    // Nothing of it in any other trace, and one worker only that ended it.
    let all = collector.spans();
    assert!(all.iter().all(|s| s.trace == TRACE), "{all:#?}");
    assert_eq!(all.iter().filter(|s| s.name == "submit").count(), 1, "{all:#?}");
    let of_first: Vec<_> = all.iter().filter(|s| s.pid == first && s.name != "received").collect();
    assert!(of_first.iter().all(|s| s.parent == planned.parent && s.parent != submit.id), "{of_first:#?}");
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_sent_and_the_senders_trace_comes_back() {
    let nats = Nats::start().await;
    let _worker = worker(&nats, &[]).await;
    let reply = send(&nats.client().await, &example(), Some(&sampled())).await;
    assert_eq!(header(&reply, "traceparent"), Some(sampled().as_str()));
}

#[tokio::test]
async fn a_share_is_sent_where_the_sender_did_not_decide() {
    let (nats, collector) = (Nats::start().await, Collector::start().await);
    let _worker =
        worker(&nats, &[("TANDEM__TELEMETRY__OTLP_ENDPOINT", &collector.url), ("TANDEM__TELEMETRY__SAMPLE", "0.0")])
            .await;
    let client = nats.client().await;
    send(&client, &example(), None).await;
    let not = format!("00-{TRACE}-{SENDER}-00");
    let reply = send(&client, &example(), Some(&not)).await;
    assert!(header(&reply, "traceparent").unwrap().ends_with("-00"), "what is not recorded says so");
    send(&client, &example(), Some(&sampled())).await;
    collector.span("the one that its sender records", |s| s.name == "request" && s.parent == SENDER).await;
    assert!(collector.spans().iter().all(|s| s.trace == TRACE), "{:#?}", collector.spans());
    assert_eq!(collector.spans().iter().filter(|s| s.name == "request").count(), 1);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_answer_and_no_long_stop() {
    let nats = Nats::start().await;
    let mut worker = worker(&nats, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    let client = nats.client().await;
    for _ in 0..20 {
        assert!(nats::json(&send(&client, &example(), None).await).get("result").is_some());
    }
    let begun = Instant::now();
    worker.serving.signal("TERM");
    assert!(worker.serving.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
