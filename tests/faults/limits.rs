//! Workers share what they may ask of a model in a minute. The provider's own log judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::fault::{report, size};
use crate::nats::{Nats, json as read};
use crate::postgres::Postgres;
use crate::process::Served;
use crate::provider::{Received, Reply, Server};
use crate::{ask, serve};

const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: usize = 60;

async fn provider() -> Server {
    let body = json!({
        "model": "gpt-5-mini", "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "because"}, "finish_reason": "stop"}],
    });
    Server::start(Reply::json(200, body.to_string())).await
}

/// A worker that may ask the provider [`LIMIT`] times a minute, with the others on its database. Its key names it.
async fn asking(nats: &Nats, folder: &Path, provider: &Server, name: &str, more: &[(&str, &str)]) -> Served {
    let (url, limit) = (provider.url(), LIMIT.to_string());
    let mut variables = vec![
        ("OPENAI_API_KEY", name),
        ("OPENAI_BASE_URL", url.as_str()),
        ("TANDEM__LLM__REQUESTS_PER_MINUTE", limit.as_str()),
    ];
    variables.extend(more);
    serve(nats, folder, &variables).await
}

async fn query(client: &Client, timeout: Duration) -> Value {
    let options = json!({"timeout_ms": timeout.as_millis() as u64});
    read(&ask(client, "llm.query", &json!({"prompt": "why?", "options": options})).await)
}

/// Asks with so many at a time until `over`; what came of each.
async fn press(client: &Client, beside: usize, over: &AtomicBool) -> BTreeMap<String, usize> {
    let one = async |_| {
        let mut came = vec![];
        while !over.load(Ordering::Relaxed) {
            let asked = tokio::time::timeout(Duration::from_secs(20), client.request("llm.query", QUERY.into())).await;
            // Of a worker that was killed there is no answer.
            let Ok(Ok(message)) = asked else { continue };
            let answer = read(&message);
            let code = answer["error"]["code"].as_str().or(answer["error"].as_str()).unwrap_or("done");
            came.push(code.to_owned());
            if code != "done" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        came
    };
    let mut counts = BTreeMap::new();
    join_all((0..beside).map(one)).await.into_iter().flatten().for_each(|code| *counts.entry(code).or_insert(0) += 1);
    counts
}

const QUERY: &str = r#"{"prompt": "why?", "options": {"timeout_ms": 15000}}"#;

/// The most that arrived within a minute.
fn most_in_a_minute(received: &[Received]) -> usize {
    let mut at: Vec<_> = received.iter().map(|received| received.at).collect();
    at.sort_unstable();
    (0..at.len()).map(|i| at[i..].iter().take_while(|then| **then < at[i] + MINUTE).count()).max().unwrap_or(0)
}

async fn four_workers(url: Option<&str>, name: &str) {
    let (nats, folder, provider) = (Nats::start().await, tempfile::tempdir().unwrap(), provider().await);
    let client = nats.client().await;
    let more: Vec<_> = url.map(|url| ("DATABASE_URL", url)).into_iter().collect();
    let mut workers = vec![];
    for n in 0..4 {
        workers.push(asking(&nats, folder.path(), &provider, &format!("sk-{n}"), &more).await);
    }
    let (time, over) = (Duration::from_secs(size(12, 200)), AtomicBool::new(false));
    let begun = tokio::time::Instant::now();
    let ending = async {
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
    };
    let (came, ()) = tokio::join!(press(&client, 48, &over), ending);
    let received: Vec<_> = provider.received().into_iter().filter(|received| received.at < begun + time).collect();
    let most = most_in_a_minute(&received);
    // The first minute's are used up at once; from then on each comes as it may.
    let minutes = (time.as_secs() / 60).saturating_sub(1) as usize;
    let later =
        received.iter().filter(|r| (begun + MINUTE..begun + MINUTE * (minutes as u32 + 1)).contains(&r.at)).count();
    let mut by_worker = BTreeMap::new();
    for request in &received {
        *by_worker.entry(request.headers["authorization"].to_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let used = if minutes > 0 { format!("; {later} of {} later on", LIMIT * minutes) } else { String::new() };
    report(
        &format!("four workers on one limit of {LIMIT} a minute, {name}"),
        format!("{} arrived in {time:?}, at most {most} in a minute{used}; {by_worker:?}; {came:?}", received.len()),
        "≤ 60 in any minute, ≥ 98 %",
    );
    assert_eq!(most, LIMIT, "{came:?}");
    assert!(later * 100 >= LIMIT * minutes * 98, "{later}");
    // In the first seconds it is gone before all have come.
    assert!(by_worker.len() > 1, "{by_worker:?}");
    let fair = by_worker.len() == 4 && by_worker.values().all(|n| *n * 4 * 2 >= received.len());
    assert!(minutes == 0 || fair, "{by_worker:?}");
    let known = ["done", "limited", "busy", "overloaded"];
    let warned = || workers.iter().flat_map(Served::log).filter(|line| line["level"] != "INFO").collect::<Vec<_>>();
    assert!(came.keys().all(|code| known.contains(&code.as_str())), "{came:?}: {:#?}", warned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_share_a_limit_on_sqlite() {
    Box::pin(four_workers(None, "SQLite")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_share_a_limit_on_postgresql() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    Box::pin(four_workers(Some(&postgres.url()), "PostgreSQL")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_takes_no_more_than_its_part_of_the_limit_along() {
    let (nats, folder, provider) = (Nats::start().await, tempfile::tempdir().unwrap(), provider().await);
    let client = nats.client().await;
    let mut workers = vec![];
    for n in 0..2 {
        workers.push(asking(&nats, folder.path(), &provider, &format!("sk-{n}"), &[]).await);
    }
    let over = AtomicBool::new(false);
    let (kills, begun) = (size(3, 12), Instant::now());
    let killing = async {
        for n in 0..kills {
            tokio::time::sleep(Duration::from_millis(size(700, 12_000))).await;
            let mut killed: Served = workers.remove(0);
            killed.signal("KILL");
            killed.ended().await;
            workers.push(asking(&nats, folder.path(), &provider, &format!("sk-{}", n + 2), &[]).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        over.store(true, Ordering::Relaxed);
    };
    let (came, ()) = tokio::join!(press(&client, 16, &over), killing);
    let received = provider.received();
    let most = most_in_a_minute(&received);
    report(
        "kill -9 of workers on one limit of 60 a minute",
        format!(
            "{kills} kills in {:?}: {} arrived, at most {most} in a minute; {came:?}",
            begun.elapsed(),
            received.len()
        ),
        "≤ 60 in any minute",
    );
    assert!(most <= LIMIT, "{most}");
    assert!(most >= LIMIT / 2, "{most}: the dead took too much along");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_a_worker_uses_what_it_has_leased_and_then_says_so() {
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let (nats, folder, provider) = (Nats::start().await, tempfile::tempdir().unwrap(), provider().await);
    let client = nats.client().await;
    let url = postgres.url();
    let more = [("DATABASE_URL", url.as_str()), ("TANDEM__LLM__MAX_RETRIES", "0")];
    let _worker = asking(&nats, folder.path(), &provider, "sk-0", &more).await;
    let patience = Duration::from_secs(20);
    for _ in 0..5 {
        assert_eq!(query(&client, patience).await["success"], true);
    }
    // For those who may come next it leases some in advance.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| postgres.pause());
    // What a model is paid is not written down, so its answers are kept back: the provider's log tells.
    let (before, short, away) = (provider.received().len(), Duration::from_secs(3), Instant::now());
    let refused = loop {
        let answer = query(&client, short).await;
        if answer["error"]["code"] == "limit_unknown" {
            break answer;
        }
        assert_eq!(answer["error"], "unavailable", "{answer}");
        assert!(away.elapsed() < Duration::from_secs(30), "{answer}");
    };
    let done = provider.received().len() - before;
    assert_eq!(refused["error"]["transient"], true);
    assert!(refused["error"]["message"].as_str().unwrap().contains("the database"), "{refused}");
    let begun = Instant::now();
    assert_eq!(query(&client, short).await["error"]["code"], "limit_unknown");
    let told = begun.elapsed();
    assert!(tokio::task::block_in_place(|| postgres.resume()));
    let back = Instant::now();
    while query(&client, short).await["success"] != true {
        assert!(back.elapsed() < Duration::from_secs(20), "it never came back");
    }
    report(
        "PostgreSQL away, a model's limit",
        format!("{done} leased were used, then refused after {told:?}; served {:?} after its return", back.elapsed()),
        "what is leased, then an error",
    );
    assert!(done >= 1, "what was leased was not used");
    assert!(most_in_a_minute(&provider.received()) <= LIMIT);
}
