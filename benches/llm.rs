//! What Tandem adds to a call of a model: beside the bare HTTP call to the same server, in the same run.
//! `scripts/bench llm` prints it; what counts are the ratios.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tandem::domain::{CorrelationId, Message, Tenant, Timestamp};
use tandem::llm::{Client, Credentials, Key, Options, Prompt, Query, Terms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"fn main() {}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":77,"total_tokens":1077}}"#;
const BODY: &str =
    r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"Write a program."}],"max_tokens":8192}"#;

/// Answers every request after `pause`.
async fn serve(pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = ANSWER.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    let reply: Arc<str> = (head + ANSWER).into();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(converse(client, reply.clone(), pause));
        }
    });
    format!("http://{address}")
}

async fn converse(mut client: TcpStream, reply: Arc<str>, pause: Duration) {
    client.set_nodelay(true).unwrap();
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
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if client.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn client(url: String) -> Client {
    let options = Options { route: vec!["openai/gpt-5-mini".into()], ..Options::default() };
    let key = Some(Key { secret: "sk-bench".into(), base_url: url });
    Client::new(options, Credentials { openai: key, ..Credentials::default() }).unwrap()
}

fn prompt() -> Prompt {
    let messages = vec![Message { role: "user".into(), content: "Write a program.".into() }];
    Prompt { messages, ..Prompt::default() }
}

fn terms() -> Terms {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
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

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let url = serve(Duration::ZERO).await;
        let (http, ours) = (reqwest::Client::builder().no_proxy().build().unwrap(), client(url.clone()));
        let ask = || async {
            ours.ask(&prompt(), &terms(), Timestamp::now()).await.unwrap();
        };
        let count = 20_000;
        let without = times(count, || bare(&http, &url)).await;
        let with = times(count, ask).await;
        println!("| one call at a time | bare HTTP | Tandem | added | limit |\n|---|---|---|---|---|");
        for (name, share, limit) in [("p50", 0.5, "150 µs"), ("p99", 0.99, "1 ms")] {
            let at = |times: &[Duration]| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
            let (without, with) = (at(&without), at(&with));
            println!("| {name} | {without:.0} µs | {with:.0} µs | {:.0} µs | {limit} |", with - without);
        }

        let without = {
            let (http, url) = (http.clone(), url.clone());
            rate(50_000, 64, move || {
                let (http, url) = (http.clone(), url.clone());
                async move { bare(&http, &url).await }
            })
            .await
        };
        let with = {
            let ours = ours.clone();
            rate(50_000, 64, move || {
                let ours = ours.clone();
                async move {
                    ours.ask(&prompt(), &terms(), Timestamp::now()).await.unwrap();
                }
            })
            .await
        };
        println!("\n| 64 calls at a time | bare HTTP | Tandem | ratio | limit |\n|---|---|---|---|---|");
        println!("| calls a second | {without:.0} | {with:.0} | {:.2} | 5,000 |", with / without);

        println!("\n| query_parallel, answers of 100 ms | speed-up | share of N | limit |\n|---|---|---|---|");
        let slow = client(serve(Duration::from_millis(100)).await);
        for beside in [1, 5, 16, 64] {
            let rounds = 10;
            let queries: Vec<Query> =
                (0..beside * rounds).map(|n| Query { prompt: n.to_string(), ..Query::default() }).collect();
            let begun = Instant::now();
            let answers = slow.query_parallel(queries, beside, &terms(), Timestamp::now(), |_, _| {}).await;
            assert!(answers.iter().all(|answer| answer.is_success()));
            let speed_up = (answers.len() as f64 * 0.1) / begun.elapsed().as_secs_f64();
            println!("| N = {beside} | {speed_up:.2} | {:.3} | 0.95 |", speed_up / beside as f64);
        }
    });
}
