//! What Tandem adds to a call of a model: beside the bare HTTP call to the same server, in the same run.
//! `scripts/bench llm` prints it; what counts are the ratios. `scripts/bench llm 0.01` does a hundredth of it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tandem::domain::{CorrelationId, Message, Tenant, Timestamp};
use tandem::llm::{Books, Client, Credentials, Key, Options, Prompt, Query, Terms};
use tandem::store::{self, Recorder, RecorderOptions, Store};
use tandem::telemetry::meters;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"fn main() {}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":77,"total_tokens":1077}}"#;
const OTHER: &str = r#"{"id":"m","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"fn main() {}"}],"stop_reason":"end_turn","usage":{"input_tokens":1000,"output_tokens":77}}"#;
const BODY: &str =
    r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"Write a program."}],"max_tokens":8192}"#;

/// Answers every request after `pause`.
#[derive(Clone)]
struct Server {
    url: String,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    pause: Duration,
    answer: &'static str,
    /// Answers 500.
    is_down: AtomicBool,
    asked: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Server {
    async fn start(answer: &'static str, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script { pause, answer, ..Script::default() });
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(converse(client, serving.clone()));
            }
        });
        Self { url, script }
    }

    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }
}

async fn converse(mut client: TcpStream, script: Arc<Script>) {
    client.set_nodelay(true).unwrap();
    let reply = |status: &str, body: &str| {
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        head + body
    };
    let (good, bad) = (reply("200 OK", script.answer), reply("500 Down", r#"{"error":{"message":"down"}}"#));
    let (mut bytes, mut buffer) = (vec![], [0; 16 << 10]);
    while let Ok(read) = client.read(&mut buffer).await
        && read > 0
    {
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if bytes.len() < end + 4 + length.unwrap_or(0) {
            continue;
        }
        bytes.clear();
        script.asked.fetch_add(1, Ordering::SeqCst);
        let running = script.running.fetch_add(1, Ordering::SeqCst) + 1;
        script.most.fetch_max(running, Ordering::SeqCst);
        if !script.pause.is_zero() {
            tokio::time::sleep(script.pause).await;
        }
        script.running.fetch_sub(1, Ordering::SeqCst);
        let reply = if script.is_down.load(Ordering::SeqCst) { &bad } else { &good };
        if client.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// With limits far away and everything written down, as in a worker.
async fn books(folder: &tempfile::TempDir) -> Books {
    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let store = Store::open(&store::Options { url, ..store::Options::default() }).await.unwrap();
    Books {
        recorder: Recorder::start(store.clone(), &RecorderOptions::default()),
        store,
        journal: Some(folder.path().join("leases")),
    }
}

fn client(server: &Server, books: Option<Books>) -> Client {
    let options = Options { route: vec!["openai/gpt-5-mini".into()], ..options() };
    let key = Some(Key { secret: "sk-bench".into(), base_url: server.url.clone() });
    Client::new(options, Credentials { openai: key, ..Credentials::default() }, books).unwrap()
}

fn options() -> Options {
    Options { requests_per_minute: 1_000_000_000, tokens_per_minute: 1_000_000_000_000, ..Options::default() }
}

fn prompt() -> Prompt {
    let messages = vec![Message { role: "user".into(), content: "Write a program.".into() }];
    Prompt { messages, ..Prompt::default() }
}

fn terms() -> Terms {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(600);
    Terms::new(Tenant::default(), CorrelationId::generate(), deadline)
}

async fn bare(http: &reqwest::Client, url: &str) {
    let url = format!("{url}/v1/chat/completions");
    let request = http.post(url).header("content-type", "application/json").bearer_auth("sk-bench").body(BODY);
    let body = request.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(body.len(), ANSWER.len());
}

/// The times of `count` calls after each other, sorted.
async fn times<F: Future<Output = ()>>(count: usize, call: impl Fn() -> F) -> Vec<Duration> {
    for _ in 0..count / 10 {
        call().await;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        call().await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times
}

/// Calls a second with `beside` at a time.
async fn rate<F: Future<Output = ()> + Send + 'static>(count: usize, beside: usize, call: impl Fn() -> F) -> f64 {
    let begun = Instant::now();
    let mut running = FuturesUnordered::new();
    for _ in 0..count {
        if running.len() >= beside {
            running.next().await;
        }
        running.push(tokio::spawn(call()));
    }
    while running.next().await.is_some() {}
    count as f64 / begun.elapsed().as_secs_f64()
}

fn asks(client: &Client) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let client = client.clone();
    move || {
        let client = client.clone();
        Box::pin(async move {
            client.ask(&prompt(), &terms(), Timestamp::now()).await.unwrap();
        })
    }
}

async fn added(size: f64, server: &Server, ours: &Client) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let count = scaled(20_000, size);
    let without = times(count, || bare(&http, &server.url)).await;
    let with = times(count, asks(ours)).await;
    println!("| one call at a time | bare HTTP | Tandem | added | limit |\n|---|---|---|---|---|");
    for (name, share, limit) in [("p50", 0.5, "150 µs"), ("p99", 0.99, "1 ms")] {
        let at = |times: &[Duration]| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        let (without, with) = (at(&without), at(&with));
        println!("| {name} | {without:.0} µs | {with:.0} µs | {:.0} µs | {limit} |", with - without);
    }

    let count = scaled(50_000, size);
    let url = server.url.clone();
    let without = rate(count, 64, move || {
        let (http, url) = (http.clone(), url.clone());
        async move { bare(&http, &url).await }
    });
    let without = without.await;
    let with = rate(count, 64, asks(ours)).await;
    println!("\n| 64 calls at a time | bare HTTP | Tandem | ratio | limit |\n|---|---|---|---|---|");
    println!("| calls a second | {without:.0} | {with:.0} | {:.2} | 5,000 |", with / without);
}

async fn parallel(size: f64, books: &Books) {
    println!(
        "\n| query_parallel, answers of 100 ms | speed-up | share of N | most at once | limit |\n|---|---|---|---|---|"
    );
    for beside in [1, 5, 16, 64] {
        let server = Server::start(ANSWER, Duration::from_millis(100)).await;
        let slow = client(&server, Some(books.clone()));
        let rounds = scaled(20, size).max(2);
        let query = |n: usize| Query { prompt: n.to_string(), ..Query::default() };
        // Connections are made once.
        slow.query_parallel((0..beside).map(query).collect(), beside, &terms(), Timestamp::now(), |_, _| {}).await;
        let queries: Vec<Query> = (0..beside * rounds).map(query).collect();
        let begun = Instant::now();
        let answers = slow.query_parallel(queries, beside, &terms(), Timestamp::now(), |_, _| {}).await;
        assert!(answers.iter().all(|answer| answer.is_success()));
        let speed_up = (answers.len() as f64 * 0.1) / begun.elapsed().as_secs_f64();
        let (share, most) = (speed_up / beside as f64, server.script.most.load(Ordering::SeqCst));
        println!("| N = {beside} | {speed_up:.2} | {share:.3} | {most} | ≥ 0.95, ≤ {beside} |");
    }
}

fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

/// Of this process: the load, the server and the client together.
async fn memory(size: f64, ours: &Client) {
    let start = memory_mib();
    let tenth = scaled(100_000, size);
    let mut at = vec![];
    for _ in 0..10 {
        rate(tenth, 64, asks(ours)).await;
        // As a worker does every few seconds: until then histograms keep every value.
        meters().upkeep();
        at.push(memory_mib());
    }
    let most = at.iter().copied().fold(f64::MIN, f64::max);
    println!("\n| memory over {} calls | MiB | limit |\n|---|---|---|", 10 * tenth);
    println!("| at the start | {start:.1} | |");
    println!("| most above it | {:.1} | 64 |", most - start);
    let series: Vec<String> = at.iter().map(|at| format!("{:.1}", at - start)).collect();
    println!("| above it after each tenth | {} | no growth |", series.join(", "));
}

async fn outage(size: f64, books: &Books) {
    let (dead, other) = (Server::start(ANSWER, Duration::ZERO).await, Server::start(OTHER, Duration::ZERO).await);
    let key = |server: &Server| Some(Key { secret: "sk-bench".into(), base_url: server.url.clone() });
    let route = vec!["openai/gpt-5-mini".into(), "anthropic/claude-sonnet-4-5".into()];
    let credentials = Credentials { openai: key(&dead), anthropic: key(&other), google: None };
    let client = Client::new(Options { route, ..options() }, credentials, Some(books.clone())).unwrap();
    let ask = async || client.ask(&prompt(), &terms(), Timestamp::now()).await.unwrap().provider.as_str();
    assert_eq!(ask().await, "openai");
    let time = Duration::from_secs_f64((60.0 * size).clamp(2.0, 60.0));
    dead.script.is_down.store(true, Ordering::SeqCst);
    let (before, begun, mut answered) = (dead.asked(), Instant::now(), 0);
    while begun.elapsed() < time {
        ask().await;
        answered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let attempts = dead.asked() - before;
    dead.script.is_down.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while ask().await != "openai" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("\n| an outage of {:.0} s of the first of two models | | limit |\n|---|---|---|", time.as_secs_f64());
    println!("| calls, all answered | {answered} | all |");
    println!("| attempts on the dead one | {attempts} | 6 |");
    println!("| back on it after | {:.1} s | 5 s |", begun.elapsed().as_secs_f64());
}

fn scaled(count: usize, size: f64) -> usize {
    ((count as f64 * size) as usize).max(20)
}

fn main() {
    let size: f64 = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (server, books) = (Server::start(ANSWER, Duration::ZERO).await, books(&folder).await);
        let ours = client(&server, Some(books.clone()));
        added(size, &server, &ours).await;
        parallel(size, &books).await;
        memory(size, &ours).await;
        outage(size, &books).await;
    });
}
