//! A scripted model provider over real HTTP, on a free port of 127.0.0.1. It gives the same reply to every request
//! and keeps what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(crate) enum Reply {
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Headers, then a body without an end.
    Endless,
    /// Not even headers. Keeps no record of requests.
    Stalled,
    /// Headers and some body, then nothing. Keeps no record of requests.
    StalledBody,
    /// Headers and some body, then the connection breaks.
    Cut,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Full { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Full { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: serde_json::Value,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    cancelled: watch::Receiver<usize>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    reply: Reply,
    received: Arc<Mutex<Vec<Received>>>,
    cancels: Arc<watch::Sender<usize>>,
}

impl Server {
    pub(crate) async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(vec![]));
        let (sender, cancelled) = watch::channel(0);
        let cancels = Arc::new(sender);
        let serving = match reply {
            Reply::Stalled => tokio::spawn(stall(listener, "", cancels)),
            Reply::StalledBody => tokio::spawn(stall(listener, BEGUN, cancels)),
            reply => {
                let script = Script { reply, received: received.clone(), cancels };
                let app = Router::new().fallback(answer).with_state(script);
                tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
            }
        };
        Self { address, received, cancelled, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until the client has hung up on a reply that was not finished.
    pub(crate) async fn cancelled(&mut self) {
        self.cancelled.wait_for(|count| *count > 0).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

const BEGUN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"model\":";

/// Says how a reply begins, then only listens for the client to hang up.
async fn stall(listener: TcpListener, begun: &'static str, cancels: Arc<watch::Sender<usize>>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let hung_up = OnDrop(cancels.clone());
        tokio::spawn(async move {
            let _hung_up = hung_up;
            let mut buffer = [0; 64 << 10];
            if client.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                client.write_all(begun.as_bytes()).await.unwrap();
            }
            while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
    }
}

struct OnDrop(Arc<watch::Sender<usize>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    let path = parts.uri.path_and_query().unwrap().to_string();
    script.received.lock().unwrap().push(Received { path, headers: parts.headers, body });
    let unfinished = Response::builder().header("content-type", "application/json");
    match script.reply {
        Reply::Full { status, headers, body } => {
            let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Reply::Endless => {
            let guard = OnDrop(script.cancels);
            let spaces = stream::repeat_with(move || {
                let _guard = &guard;
                Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64 << 10]))
            });
            unfinished.body(Body::from_stream(spaces)).unwrap()
        }
        Reply::Cut => {
            let broken = [Ok(Bytes::from_static(b"{\"model\":")), Err(std::io::Error::other("cut by the script"))];
            unfinished.body(Body::from_stream(stream::iter(broken))).unwrap()
        }
        Reply::Stalled | Reply::StalledBody => unreachable!("served without HTTP"),
    }
}
