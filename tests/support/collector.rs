//! A stand-in for an OpenTelemetry collector: takes OTLP over HTTP, keeps what came, decodes it.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

/// One span that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    /// Of the worker that sent it.
    pub service: String,
    pub pid: String,
    pub failed: bool,
}

#[derive(Default)]
struct Kept {
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
}

pub struct Collector {
    pub url: String,
    kept: Arc<Mutex<Kept>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let kept = Arc::<Mutex<Kept>>::default();
        let take = async |State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes| {
            let mut kept = kept.lock().unwrap();
            kept.headers.push(headers);
            kept.bodies.push(body);
        };
        let routes = Router::new().route("/v1/traces", post(take)).with_state(kept.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, kept, task }
    }

    pub fn spans(&self) -> Vec<Seen> {
        let bodies = self.kept.lock().unwrap().bodies.clone();
        bodies.iter().flat_map(read).collect()
    }

    /// Everything that came, headers too, as bytes to look into.
    pub fn raw(&self) -> Vec<u8> {
        let kept = self.kept.lock().unwrap();
        let mut raw = format!("{:?}", kept.headers).into_bytes();
        kept.bodies.iter().for_each(|body| raw.extend_from_slice(body));
        raw
    }

    pub fn has_header(&self, name: &str, value: &str) -> bool {
        self.kept.lock().unwrap().headers.iter().any(|h| h.get(name).is_some_and(|v| v == value))
    }

    /// Waits for a span like that.
    pub async fn span(&self, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
        for _ in 0..2_000 {
            if let Some(span) = self.spans().into_iter().find(|span| is(span)) {
                return span;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no span came: {what}; there are {:#?}", self.spans());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn read(body: &Bytes) -> Vec<Seen> {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut seen = vec![];
    for resource in request.resource_spans {
        let of_worker = attributes(resource.resource.unwrap().attributes);
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(Seen {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: attributes(span.attributes),
                service: of_worker["service.name"].clone(),
                pid: of_worker["process.pid"].clone(),
                failed: span.status.is_some_and(|status| status.code == 2),
            });
        }
    }
    seen
}

fn attributes(list: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
