//! Many ask for the same at once, of several workers, and only a model can do it.

use std::time::{Duration, Instant};

use async_nats::Client;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::fault::{report, size};
use crate::model::Slow;
use crate::nats::{Nats, json as read};
use crate::process::Served;
use crate::provider::{Reply, Server};
use crate::{for_a_model, serve, status, until};

/// Workers that let a thousand in at once; each asks the model with its own key.
async fn workers(nats: &Nats, folder: &std::path::Path, model: &str, count: usize) -> Vec<Served> {
    let mut workers = vec![];
    for n in 0..count {
        let key = format!("sk-test-{n}");
        let variables = [
            ("OPENAI_API_KEY", key.as_str()),
            ("OPENAI_BASE_URL", model),
            ("TANDEM__NATS__MAX_CONCURRENT", "2000"),
            ("TANDEM__NATS__MAX_CONCURRENT_PER_TENANT", "2000"),
        ];
        workers.push(serve(nats, folder, &variables).await);
    }
    workers
}

fn completion() -> Reply {
    let text = "```rust\npub fn least() -> u32 {\n    0\n}\n```";
    let body = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    });
    Reply::json(200, body.to_string())
}

/// The answer, or the status of the error; `None` where nothing came within `limit`.
async fn ask(client: &Client, body: Value, limit: Duration) -> Option<Result<Value, String>> {
    let asked = client.request("execution.request", body.to_string().into());
    let message = tokio::time::timeout(limit, asked).await.ok()?.ok()?;
    Some(status(&message).map_or_else(|| Ok(read(&message)), |status| Err(status.to_owned())))
}

async fn patient(nats: &Nats) -> Client {
    let options = async_nats::ConnectOptions::new().request_timeout(Some(Duration::from_secs(60)));
    options.connect(nats.server.url()).await.unwrap()
}

fn with(body: &Value, key: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[key] = value;
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_equal_misses_over_three_workers_ask_a_model_once() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let model = Slow::start(Duration::from_secs(2)).await;
    let _workers = workers(&nats, folder.path(), &model.url(), 3).await;
    let client = patient(&nats).await;
    let begun = Instant::now();
    let all = join_all((0..1_000).map(|_| ask(&client, for_a_model(1), Duration::from_secs(50)))).await;
    let took = begun.elapsed();
    let answers: Vec<Value> = all.into_iter().map(|answer| answer.expect("no answer").expect("an error")).collect();
    let asked = model.asked.load(std::sync::atomic::Ordering::Relaxed);
    let hits = answers.iter().filter(|answer| answer["method"] == "cached").count();
    report(
        "1,000 equal misses at once over three workers, for a model",
        format!("{asked} model call, {hits} served from it, all answered after {took:?} (the model takes 2 s)"),
        "1 call",
    );
    assert_eq!((asked, hits), (1, 999));
    let made = answers.iter().find(|answer| answer["method"] == "llm_assisted").unwrap();
    assert!(answers.iter().all(|answer| answer["result"] == made["result"] && answer["metrics"]["success"] == true));
    let hit = answers.iter().find(|answer| answer["method"] == "cached").unwrap();
    assert_eq!((&hit["cache"]["origin"], &hit["metrics"]["cost_usd"]), (&made["correlation_id"], &json!(0.0)), "{hit}");
}

/// `$SRV.STATS` of the workers that live: the requests that they took.
async fn taken(client: &Client, workers: usize) -> u64 {
    use futures::StreamExt;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply("$SRV.STATS.tandem", inbox, "".into()).await.unwrap();
    let mut sum = 0;
    for _ in 0..workers {
        let reply = tokio::time::timeout(Duration::from_secs(10), replies.next()).await.unwrap().unwrap();
        let endpoints = read(&reply)["endpoints"].as_array().unwrap().clone();
        let request = endpoints.iter().find(|endpoint| endpoint["name"] == "request").unwrap();
        sum += request["num_requests"].as_u64().unwrap();
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_worker_that_leads_is_killed_another_takes_over_and_the_followers_are_answered() {
    let mut slowest = Duration::ZERO;
    let rounds = size(1, 5);
    for _ in 0..rounds {
        let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
        let model = Server::script([Reply::Stalled, completion()]).await;
        let mut workers = workers(&nats, folder.path(), &model.url(), 3).await;
        let client = patient(&nats).await;
        let asking: Vec<_> = (0..60)
            .map(|_| {
                let client = client.clone();
                // Longer than it takes to be answered, on a loaded machine too; those of the killed worker wait it out.
                tokio::spawn(async move { ask(&client, for_a_model(1), Duration::from_secs(12)).await })
            })
            .collect();
        let asked = async || model.received().first().cloned();
        let (first, _) = until(Duration::from_secs(20), "a model is asked", asked).await;
        let all_in = async || (taken(&client, 3).await == 60).then_some(());
        until(Duration::from_secs(20), "all requests are taken", all_in).await;
        let key = first.headers["authorization"].to_str().unwrap().to_owned();
        let leader: usize = key.rsplit_once('-').unwrap().1.parse().unwrap();
        let mut leader = workers.remove(leader);
        let killed = tokio::time::Instant::now();
        leader.signal("KILL");
        leader.ended().await;
        let answers: Vec<_> = join_all(asking).await.into_iter().filter_map(Result::unwrap).collect();
        let received = model.received();
        assert_eq!(received.len(), 2, "one call of the one that died, one of the one that took over");
        slowest = slowest.max(received[1].at - killed);
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer["metrics"]["success"] == true)));
        assert_eq!(answers.len() as u64, taken(&client, 2).await, "a follower of a living worker was not answered");
        assert!(!answers.is_empty());
    }
    report(
        "kill -9 of the worker that asks a model for 60 equal requests",
        format!(
            "another took over after {slowest:?} at most, in {rounds} kills; every follower elsewhere was answered"
        ),
        "≤ 2 s",
    );
    // A machine under load may be late; the limit is the lease and its looks.
    assert!(slowest < Duration::from_secs(size(6, 2)), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_shared_by_those_who_waited_and_by_nobody_after_them() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let slow_refusal = Reply::acts([]);
    let model = Server::script([slow_refusal]).await;
    // Not tried again, by no model.
    model.says(Reply::json(401, json!({"error": {"message": "no"}}).to_string()));
    let _workers = workers(&nats, folder.path(), &model.url(), 1).await;
    let client = patient(&nats).await;
    let body = for_a_model(1);
    let all = join_all((0..50).map(|_| ask(&client, body.clone(), Duration::from_secs(20)))).await;
    for answer in all {
        let answer = answer.expect("no answer").expect("an error");
        assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("fallback"), &json!(false)), "{answer}");
    }
    let before = model.received().len();
    assert!(before < 50, "each asked for itself: {before}");
    model.says(completion());
    // Another task: the refusal of the key is the model's affair, and it is left alone for a while after several.
    let after = ask(&client, with(&body, "cache", json!("use")), Duration::from_secs(20)).await.unwrap().unwrap();
    assert!(model.received().len() > before || after["metrics"]["success"] == false, "{after}");
    assert_ne!(after["method"], "cached", "a fallback was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_has_its_own_deadline_and_who_wants_no_cache_does_not_follow() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let model = Server::script([Reply::Stalled, completion()]).await;
    let _workers = workers(&nats, folder.path(), &model.url(), 1).await;
    let client = patient(&nats).await;
    let body = for_a_model(1);
    let lead = {
        let (client, body) = (client.clone(), with(&body, "timeout_ms", json!(4_000)));
        tokio::spawn(async move { ask(&client, body, Duration::from_secs(30)).await })
    };
    let asked = async || (model.received().len() == 1).then_some(());
    until(Duration::from_secs(20), "a model is asked", asked).await;
    let follower = {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move { ask(&client, body, Duration::from_secs(30)).await })
    };
    let hurried = ask(&client, with(&body, "timeout_ms", json!(300)), Duration::from_secs(20)).await.unwrap();
    assert_eq!(hurried.unwrap_err(), "408");
    assert_eq!(model.received().len(), 1, "a follower asked the model");
    for mode in ["off", "refresh"] {
        let before = model.received().len();
        let own = ask(&client, with(&body, "cache", json!(mode)), Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!((&own["method"], model.received().len()), (&json!("llm_assisted"), before + 1), "{mode}: {own}");
    }
    // The one that led runs out of its time; who followed has more of it. What `refresh` made is there by then.
    let lead = lead.await.unwrap().unwrap();
    assert!(lead.is_err() || lead.is_ok_and(|answer| answer["metrics"]["success"] == false));
    let follower = follower.await.unwrap().unwrap().unwrap();
    assert_eq!(follower["metrics"]["success"], true, "{follower}");
}
