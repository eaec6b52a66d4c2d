//! Spans to an OpenTelemetry collector, by OTLP over HTTP. Off unless an endpoint is named.
//!
//! Only spans of Tandem leave, with ids, names and figures; no line of the log, no task, no answer. While it is off, all
//! of this costs one look at a flag.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Traces for an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A collector that takes OTLP over HTTP: `http://127.0.0.1:4318`. Spans go to `/v1/traces` below it. Empty: no
    /// traces. `OTEL_EXPORTER_OTLP_ENDPOINT` sets it; `OTEL_EXPORTER_OTLP_HEADERS` (a key, say) is read by the exporter.
    #[serde(serialize_with = "without_key")]
    pub otlp_endpoint: String,
    /// What this service is called in the traces. `OTEL_SERVICE_NAME` sets it.
    pub service_name: String,
    /// The share of traces that are sent, 0 to 1, where the sender did not decide: a `traceparent` says itself whether
    /// its trace is recorded.
    pub sample: f64,
    /// How long spans wait for company before they are sent, in milliseconds. Short: what a killed worker had begun
    /// is known only from what it sent.
    pub flush_interval_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), service_name: "tandem".to_owned(), sample: 1.0, flush_interval_ms: 200 }
    }
}

impl Options {
    pub fn is_on(&self) -> bool {
        !self.otlp_endpoint.is_empty()
    }
}

/// As it may be shown: without user, password and query.
fn without_key<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let bare = url.split_once('?').map_or(url, |(bare, _)| bare);
    let shown = match (bare.split_once("://"), bare.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => bare.to_owned(),
    };
    serializer.serialize_str(&shown)
}

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("telemetry.otlp_endpoint: it must be a URL like http://127.0.0.1:4318")]
    Endpoint,
    #[error("telemetry.sample: {0} is not between 0 and 1")]
    Sample(f64),
    #[error("make a client for the collector")]
    Client(#[source] reqwest::Error),
    #[error("make an exporter of traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("traces need a runtime to be sent from")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
}

/// For one attempt to send a batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of what a collector says back.
const MOST: usize = 64 << 10;
/// Spans that wait for a slow collector; what comes on top is dropped by the exporter, which says so in the log.
const QUEUE: usize = 4096;

static ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are sent.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Begins to send. The caller puts the tracer into a layer and shuts the provider down at the end.
pub(super) fn begin(options: &Options) -> Result<(SdkTracerProvider, SdkTracer), Error> {
    if !(0.0..=1.0).contains(&options.sample) {
        return Err(Error::Sample(options.sample));
    }
    let mut url = reqwest::Url::parse(&options.otlp_endpoint).map_err(|_| Error::Endpoint)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::Endpoint);
    }
    url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new(&url)?)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(TIMEOUT)
        .with_endpoint(url)
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_scheduled_delay(Duration::from_millis(options.flush_interval_ms.max(1)))
        .with_max_queue_size(QUEUE)
        .build();
    let instance = uuid::Uuid::now_v7().simple().to_string();
    let resource = Resource::builder_empty().with_service_name(options.service_name.clone()).with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ]);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.sample))))
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("tandem");
    ON.store(true, Ordering::Relaxed);
    Ok((provider, tracer))
}

/// Makes `traceparent` (checked before) the parent of a span that was not entered yet.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    if !is_on() {
        return;
    }
    if let Some(parent) = traceparent.and_then(remote) {
        // It fails where the span is filtered out: then there is nothing to have a parent.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The span as others name it to be its children; `None` where no spans are sent.
pub fn traceparent(span: &Span) -> Option<String> {
    if !is_on() {
        return None;
    }
    let context = span.context();
    let of = context.span().span_context().clone();
    of.is_valid().then(|| format!("00-{}-{}-{:02x}", of.trace_id(), of.span_id(), of.trace_flags().to_u8()))
}

/// A short span that ends, and so is sent, at once: should this worker be killed, the trace still shows that it had
/// begun. It is a child of the sender's span, which is there to be seen; of `span` where the sender named none.
pub fn received(span: &Span, traceparent: Option<&str>) {
    if !is_on() {
        return;
    }
    let begun = match traceparent.and_then(remote) {
        Some(parent) => {
            let begun = tracing::debug_span!(parent: None, "received");
            let _ = begun.set_parent(Context::new().with_remote_span_context(parent));
            begun
        }
        None => tracing::debug_span!(parent: span, "received"),
    };
    begun.in_scope(|| {});
}

/// Says on the current span how it came out: a method, a code. Never a text that somebody wrote.
pub fn note(key: &'static str, value: &'static str) {
    if is_on() {
        Span::current().set_attribute(key, value);
    }
}

/// Marks the current span as failed; `code` is one of ours.
pub fn failed(code: &'static str) {
    if is_on() {
        let span = Span::current();
        span.set_attribute("error.type", code);
        span.set_status(Status::error(code));
    }
}

fn remote(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let flags = TraceFlags::new(flags & TraceFlags::SAMPLED.to_u8());
    Some(SpanContext::new(trace, span, flags, true, TraceState::default())).filter(SpanContext::is_valid)
}

/// Sends on the runtime, whichever thread asks: the batches come from a thread of their own, which has none.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Sender {
    fn new(url: &reqwest::Url) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current()?;
        // Another room, or a test, may have installed one already: any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        let builder = reqwest::Client::builder()
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // A redirect would carry the key to whoever the answer names.
            .redirect(reqwest::redirect::Policy::none());
        let builder = if loopback { builder.no_proxy() } else { builder };
        Ok(Self { client: builder.build().map_err(Error::Client)?, runtime })
    }
}

impl HttpClient for Sender {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let exchange = async {
                let mut answer = client.execute(reqwest::Request::try_from(request)?).await?;
                let status = answer.status();
                let mut body = Vec::new();
                while let Some(chunk) = answer.chunk().await? {
                    body.extend_from_slice(&chunk[..chunk.len().min(MOST - body.len())]);
                }
                Ok::<_, reqwest::Error>((status, body))
            };
            // The address may hold a key.
            let (status, body) = exchange.await.map_err(reqwest::Error::without_url)?;
            Ok::<_, HttpError>(Response::builder().status(status).body(Bytes::from(body))?)
        });
        Box::pin(async move { sent.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_traceparent_is_read_with_its_sampling() {
        let read = remote("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(read.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(read.span_id().to_string(), "b7ad6b7169203331");
        assert!(read.is_sampled() && read.is_remote());
        assert!(!remote("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().is_sampled());
        assert!(remote("00-zz-b7ad6b7169203331-01").is_none());
    }

    #[test]
    fn a_key_in_the_endpoint_is_never_shown() {
        let options = Options { otlp_endpoint: "http://k:se@cret@host:4318/x?key=y".to_owned(), ..Options::default() };
        assert_eq!(serde_json::to_value(options).unwrap()["otlp_endpoint"], "http://host:4318/x");
    }

    #[tokio::test]
    async fn what_can_not_be_meant_is_named() {
        let wrong = |options: Options| begin(&options).err().unwrap().to_string();
        let at = |text: &str| Options { otlp_endpoint: text.to_owned(), ..Options::default() };
        for endpoint in ["collector:4318", "ftp://collector", "http://", "nonsense"] {
            assert!(wrong(at(endpoint)).starts_with("telemetry.otlp_endpoint"), "{endpoint}");
        }
        let half = Options { sample: 1.5, ..at("http://127.0.0.1:1") };
        assert!(wrong(half).starts_with("telemetry.sample"));
        assert!(!is_on());
    }

    #[test]
    fn while_it_is_off_there_is_no_span_to_name() {
        let span = tracing::info_span!("request");
        adopt(&span, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        received(&span, None);
        assert_eq!(traceparent(&span), None);
    }
}
