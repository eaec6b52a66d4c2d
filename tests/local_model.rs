//! A true model, end to end: SmolLM2 on this machine, asked over NATS. `scripts/test --model` runs it; without TANDEM_MODEL=1 it
//! is skipped and says so, for the model's server takes minutes to build.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test"
)]

#[path = "support/nats.rs"]
mod nats;
#[path = "support/worker.rs"]
mod worker;

use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::llm::{Credentials, Key, PriceOverride};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use nats::Nats;
use worker::{Place, Running};

const MODEL: &str = "openai/smollm2-135m";
/// It writes some thirty tokens a second on one core.
const PATIENCE: Duration = Duration::from_secs(100);

struct Local {
    url: String,
    _script: Child,
}

/// `None` where nobody asked for it.
async fn local_model() -> Option<Local> {
    if !std::env::vars_os().any(|(name, value)| name == "TANDEM_MODEL" && value == "1") {
        println!("skipped: scripts/test --model runs it, and builds the model's server first");
        return None;
    }
    let mut command = Command::new("setpriv");
    // The script ends its server when it is told to end.
    command.args(["--pdeathsig", "TERM", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/local-model")]);
    let mut script = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(false).spawn().unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    let said = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it is not ready; build it first");
    let url = said.unwrap().expect("it ended; what it says is above");
    Some(Local { url, _script: script })
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(pid) = self._script.id() {
            let _ = std::process::Command::new("kill").arg(pid.to_string()).status();
        }
    }
}

async fn worker(nats: &Nats, place: &Place, local: &Local) -> Running {
    let mut config = place.config(nats);
    config.llm.route = vec![MODEL.to_owned()];
    let price = PriceOverride { input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0 };
    config.llm.prices = [(MODEL.to_owned(), price)].into();
    config.llm.temperature = Some(0.0);
    let key = Some(Key { secret: "".into(), base_url: local.url.clone() });
    place.worker_with(config, Credentials { openai: key, ..Credentials::default() }).await
}

async fn ask(client: &Client, subject: &'static str, body: Value) -> Value {
    let request = async_nats::Request::new().payload(body.to_string().into()).timeout(Some(PATIENCE));
    nats::json(&client.send_request(subject, request).await.unwrap())
}

/// What every answer of a model must say.
fn looks_true(answer: &Value) {
    assert_eq!((&answer["success"], &answer["finish"]), (&json!(true), &json!("stop")), "{answer}");
    assert!(!answer["text"].as_str().unwrap().trim().is_empty(), "{answer}");
    let [input, output] = ["input", "output"].map(|kind| answer["tokens"][kind].as_u64().unwrap());
    assert!(input > 5 && output > 0, "{answer}");
    // One and two dollars for a million: a thousandth of a nano-dollar is a token's part.
    assert_eq!(answer["cost_nanodollars"], json!(input * 1_000 + output * 2_000), "{answer}");
    assert_eq!(answer["attempts"], 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_true_model_answers_queries_streams_batches_and_pipelines() {
    let Some(local) = local_model().await else { return };
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = worker(&nats, &place, &local).await;
    let client = nats.client().await;
    // Without it the server puts in the model's own, which so small a model answers in strange tongues.
    let system = "Answer in one sentence.";
    let options = json!({"system": system, "max_tokens": 300, "timeout_ms": 90_000});

    let begun = Instant::now();
    let answer =
        ask(&client, "llm.query", json!({"prompt": "What is the capital of France?", "options": options})).await;
    looks_true(&answer);
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    println!("query: {} in {:?}", answer["text"], begun.elapsed());

    let mut progress = client.subscribe("execution.progress.local").await.unwrap();
    client.flush().await.unwrap();
    let streaming = json!({"system": system, "max_tokens": 300, "timeout_ms": 90_000, "stream": "local"});
    let answer = ask(&client, "llm.query", json!({"prompt": "Name three fruits.", "options": streaming})).await;
    looks_true(&answer);
    let (mut told, mut pieces) = (String::new(), 0);
    while told.len() < answer["text"].as_str().unwrap().len() {
        let piece = tokio::time::timeout(PATIENCE, progress.next()).await.unwrap().unwrap();
        told += nats::json(&piece)["text"].as_str().unwrap_or_default();
        pieces += 1;
    }
    assert_eq!(answer["text"], told.as_str());
    assert!(pieces > 1, "it came in one piece");
    println!("stream: {told:?} in {pieces} pieces");

    let prompts = ["Say hello.", "Say goodbye.", "What is 1 + 1?", "Name a color.", "Name an animal.", "Name a city."];
    let queries: Vec<_> = prompts.iter().map(|prompt| json!({"prompt": prompt, "options": options})).collect();
    let answers = ask(&client, "llm.parallel", json!({"queries": queries, "max_concurrent": 4})).await;
    let results = answers["results"].as_array().unwrap();
    assert_eq!(results.len(), prompts.len());
    for (result, prompt) in results.iter().zip(prompts) {
        looks_true(result);
        assert_eq!(result["prompt"], prompt);
    }
    println!("parallel: {:?}", results.iter().map(|result| &result["text"]).collect::<Vec<_>>());

    let steps = [
        json!({"prompt": "Name a fruit.", "options": options}),
        json!({"prompt": "What color is it?", "options": options}),
    ];
    let answer = ask(&client, "llm.pipeline", json!({"steps": steps, "use_context": true})).await;
    assert_eq!((&answer["success"], answer["done"].as_array().unwrap().len()), (&json!(true), 2), "{answer}");
    answer["results"].as_array().unwrap().iter().for_each(looks_true);
    // The second step was shown the first.
    let shown: Vec<_> = answer["results"][1]["messages"].as_array().unwrap().iter().map(|m| &m["content"]).collect();
    assert_eq!(shown[..2], [&json!("Name a fruit."), &answer["results"][0]["text"]]);
    println!("pipeline: {}", answer["done"]);
}
