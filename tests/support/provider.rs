//! A scripted model provider over real HTTP, on a free port of 127.0.0.1. It keeps what it was sent, and answers each
//! request with the next reply of its script; the last one stays.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Status 200 and a body in chunks: each `Send` is one.
    Stream {
        content_type: &'static str,
        acts: Vec<Act>,
    },
    /// Headers, then a body without an end.
    Endless,
    /// Not even headers.
    Stalled,
    /// Headers and some body, then nothing.
    StalledBody,
    /// Headers and some body, then the connection ends.
    Cut,
    /// Nothing; the connection is reset.
    Reset,
}

/// What is done in the middle of a stream. After the last one it ends in good order.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Pause(Duration),
    /// Nothing comes any more.
    Stall,
    /// The connection is reset.
    Reset,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Full { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
    }

    /// Server-sent events, each chunk as it is.
    pub(crate) fn events(chunks: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self::acts(chunks.into_iter().map(|chunk| Act::Send(chunk.into())))
    }

    pub(crate) fn acts(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::Stream { content_type: "text/event-stream; charset=utf-8", acts: acts.into_iter().collect() }
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
    pub(crate) at: Instant,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Script,
    cancelled: watch::Receiver<usize>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    received: Arc<Mutex<Vec<Received>>>,
    /// Requests that wait for their answer now, and the most there were.
    running: Arc<Mutex<(usize, usize)>>,
    cancels: Arc<watch::Sender<usize>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::script([reply]).await
    }

    pub(crate) async fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, cancelled) = watch::channel(0);
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        let script = Script {
            replies,
            received: Arc::default(),
            running: Arc::default(),
            cancels: Arc::new(sender),
            connections: Arc::default(),
        };
        let serving = tokio::spawn(serve(listener, script.clone()));
        Self { address, script, cancelled, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets the script; from now on this is the reply.
    pub(crate) fn says(&self, reply: Reply) {
        *self.script.replies.lock().unwrap() = [reply].into();
    }

    /// Forgets the script; this is the new one.
    pub(crate) fn script_on(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.script.replies.lock().unwrap() = replies.into_iter().collect();
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.script.received.lock().unwrap().clone()
    }

    /// How many were made.
    pub(crate) fn connections(&self) -> usize {
        *self.script.connections.lock().unwrap()
    }

    /// The most requests that waited for an answer at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.script.running.lock().unwrap().1
    }

    /// Waits until the client has hung up on a reply that was not finished.
    pub(crate) async fn cancelled(&mut self) {
        self.cancelled.wait_for(|count| *count > 0).await.unwrap();
    }

    pub(crate) fn cancels(&self) -> usize {
        *self.cancelled.borrow()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, script: Script) {
    // With the server its connections go.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        *script.connections.lock().unwrap() += 1;
        connections.spawn(converse(client, script.clone()));
    }
}

/// Request after request, until the client hangs up or a reply ends the connection.
async fn converse(mut client: TcpStream, script: Script) {
    while let Some(received) = request(&mut client).await {
        script.received.lock().unwrap().push(received);
        let reply = {
            let mut replies = script.replies.lock().unwrap();
            if replies.len() > 1 { replies.pop_front().unwrap() } else { replies.front().unwrap().clone() }
        };
        {
            let mut running = script.running.lock().unwrap();
            *running = (running.0 + 1, running.1.max(running.0 + 1));
        }
        let (mut reader, mut writer) = client.split();
        let mut byte = [0; 1];
        // A client that waits sends nothing: what can be read is its end.
        let went = tokio::select! {
            went = answer(&mut writer, reply) => Some(went),
            _ = reader.read(&mut byte) => None,
        };
        script.running.lock().unwrap().0 -= 1;
        match went {
            Some(Went::On) => {}
            Some(Went::Closed) => return,
            Some(Went::Reset) => return reset(client),
            Some(Went::Broken) | None => return script.cancels.send_modify(|count| *count += 1),
        }
    }
}

enum Went {
    On,
    Closed,
    Reset,
    /// The client hung up while it was written to.
    Broken,
}

/// Closing with a linger of nothing sends RST.
#[allow(deprecated, reason = "with no time to linger nothing blocks")]
fn reset(client: TcpStream) {
    client.set_linger(Some(Duration::ZERO)).unwrap();
}

async fn answer(writer: &mut (impl AsyncWriteExt + Unpin), reply: Reply) -> Went {
    match acts(writer, reply).await {
        Ok(went) => went,
        Err(_) => Went::Broken,
    }
}

async fn acts(writer: &mut (impl AsyncWriteExt + Unpin), reply: Reply) -> std::io::Result<Went> {
    const BEGUN: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"model\":";
    let chunked = |kind: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    match reply {
        Reply::Full { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            writer.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).await?;
            Ok(Went::On)
        }
        Reply::Stream { content_type, acts } => {
            writer.write_all(chunked(content_type).as_bytes()).await?;
            for act in acts {
                match act {
                    Act::Send(bytes) => {
                        let head = format!("{:x}\r\n", bytes.len());
                        writer.write_all(&[head.as_bytes(), &bytes, b"\r\n"].concat()).await?;
                        writer.flush().await?;
                        // Into a segment of its own, so that the client reads it by itself.
                        tokio::task::yield_now().await;
                    }
                    Act::Pause(time) => tokio::time::sleep(time).await,
                    Act::Stall => std::future::pending().await,
                    Act::Reset => return Ok(Went::Reset),
                }
            }
            writer.write_all(b"0\r\n\r\n").await?;
            Ok(Went::On)
        }
        Reply::Endless => {
            writer.write_all(chunked("application/json").as_bytes()).await?;
            let spaces = [format!("{:x}\r\n", 64 << 10).as_bytes(), &[b' '; 64 << 10], b"\r\n"].concat();
            loop {
                writer.write_all(&spaces).await?;
            }
        }
        Reply::Stalled => std::future::pending().await,
        Reply::StalledBody => {
            writer.write_all(BEGUN).await?;
            std::future::pending().await
        }
        Reply::Cut => {
            writer.write_all(BEGUN).await?;
            Ok(Went::Closed)
        }
        Reply::Reset => Ok(Went::Reset),
    }
}

/// `None` where the client has nothing more to say.
async fn request(client: &mut TcpStream) -> Option<Received> {
    let (mut bytes, mut buffer) = (vec![], vec![0; 64 << 10]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let read = client.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    };
    let at = Instant::now();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    let headers: HeaderMap = lines.filter_map(header).collect();
    let length: usize = headers.get("content-length").map_or(0, |v| v.to_str().unwrap().parse().unwrap());
    while bytes.len() < end + length {
        let read = client.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    }
    let body = serde_json::from_slice(&bytes[end..end + length]).unwrap_or_default();
    Some(Received { path, headers, body, at })
}
