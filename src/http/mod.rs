//! A small page for operators over HTTP: whether the worker lives, whether it is ready, its figures.
//!
//! It answers nobody's requests and changes nothing. What it tells comes from [`Sources`], which `app` connects.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::pipeline::{ComponentHealth, Status};

/// Where `/healthz`, `/readyz` and `/metrics` are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port. Loopback: the page has no password. Empty: no page. Port 0: a free one, which the log and
    /// `execution.health` tell.
    pub listen: String,
    /// How many ports are tried, from that one on, where it is taken: several workers of one machine get 9464, 9465,
    /// 9466 and so on. 1: exactly that port or no start, as for one worker in a container.
    pub ports: u16,
}

impl Default for Options {
    fn default() -> Self {
        // The port that OpenTelemetry's exporters for Prometheus have.
        Self { listen: "127.0.0.1:9464".to_owned(), ports: 100 }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("http.listen: {0:?} is no address with a port; write 127.0.0.1:9464, or nothing for no page")]
    Address(String),
    #[error("http.listen: listen on {address}{more}; free the port, name another, or raise http.ports")]
    Listen { address: SocketAddr, more: String, source: io::Error },
}

/// What the page tells.
pub struct Sources {
    pub ready: Box<dyn Fn() -> BoxFuture<'static, Readiness> + Send + Sync>,
    pub metrics: Box<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
}

/// Whether requests are taken and can be served, and what stands against it.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub components: BTreeMap<&'static str, ComponentHealth>,
}

impl Readiness {
    /// Ready where no component is down.
    pub fn of(components: BTreeMap<&'static str, ComponentHealth>) -> Self {
        Self { ready: components.values().all(|c| c.status != Status::Down), components }
    }
}

/// The open port; dropping it closes it.
pub struct Page {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Page {
    /// Listens; `None` where the options say that there is no page.
    pub async fn open(options: &Options, sources: Sources) -> Result<Option<Self>, Error> {
        if options.listen.is_empty() {
            return Ok(None);
        }
        let listener = listen(options).await?;
        let wrong = |source| Error::Listen { address: ([0, 0, 0, 0], 0).into(), more: String::new(), source };
        let address = listener.local_addr().map_err(wrong)?;
        let routes = Router::new()
            .route("/healthz", get(async || text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(sources));
        let task = tokio::spawn(async move {
            // It ends with the task only: an error in accepting is waited out and tried again.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Some(Self { address, task }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(options: &Options) -> Result<TcpListener, Error> {
    let first: SocketAddr = options.listen.parse().map_err(|_| Error::Address(options.listen.clone()))?;
    let tried = if first.port() == 0 { 1 } else { options.ports.max(1) };
    let mut failed = None;
    for port in (first.port()..=u16::MAX).take(usize::from(tried)) {
        match TcpListener::bind(SocketAddr::new(first.ip(), port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => failed = Some(error),
            Err(source) => return Err(Error::Listen { address: first, more: String::new(), source }),
        }
    }
    let more = if tried > 1 { format!(" or one of the {} ports after it", tried - 1) } else { String::new() };
    let source = failed.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(Error::Listen { address: first, more, source })
}

async fn ready(State(sources): State<Arc<Sources>>) -> Response {
    let readiness = (sources.ready)().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&readiness) {
        Ok(body) => text(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string()),
    }
}

async fn metrics(State(sources): State<Arc<Sources>>) -> Response {
    text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (sources.metrics)().await)
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources {
            ready: Box::new(|| Box::pin(async { Readiness::of(BTreeMap::new()) })),
            metrics: Box::new(|| Box::pin(async { String::new() })),
        }
    }

    #[tokio::test]
    async fn workers_of_one_machine_take_one_port_after_the_other() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let open = async |ports| Page::open(&Options { listen: listen.clone(), ports }, sources()).await;
        let refused = open(1).await.err().unwrap().to_string();
        assert!(refused.starts_with("http.listen"), "{refused}");
        let first = open(100).await.unwrap().unwrap();
        let second = open(100).await.unwrap().unwrap();
        assert!(taken.local_addr().unwrap().port() < first.address().port());
        assert!(first.address().port() < second.address().port());
        assert!(open(100).await.unwrap().unwrap().address().ip().is_loopback());
    }

    #[tokio::test]
    async fn an_address_is_named_where_it_can_not_be_meant() {
        for wrong in ["9464", "localhost:9464", "127.0.0.1"] {
            let options = Options { listen: wrong.to_owned(), ports: 1 };
            let error = Page::open(&options, sources()).await.err().unwrap().to_string();
            assert!(error.starts_with("http.listen") && error.contains(wrong), "{error}");
        }
        assert!(Page::open(&Options { listen: String::new(), ports: 1 }, sources()).await.unwrap().is_none());
    }
}
