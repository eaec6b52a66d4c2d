//! What a team's requests cost: 5,000 of them as a team would send them, over two workers and a scripted model, and the
//! same with ever more that only a model can do. `scripts/bench stream` prints the tables; `scripts/bench stream 200`
//! sends 200 of them; `scripts/bench stream 200 -v` names what the rules left to the model.
//!
//! Template tasks and compound goals are the labelled tasks of `tests/data`, under other names; a third of these was never
//! looked at while the rules were tuned. Algorithms and questions are in `algorithms.txt` and `questions.txt`. A repeat is
//! the same body again, the popular ones more often (Zipf); a paraphrase is an earlier request in other words; nothing
//! else is sent twice. What an all-model service would pay is measured, too: every request is asked of the same model.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "a bench")]

mod corpus;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tandem::app::nats_server::NatsServer;

use corpus::{Corpus, Kind, Request};

const REQUESTS: usize = 5_000;
const IN_FLIGHT: usize = 16;
const SEED: u64 = 20_261_121;
const WORKERS: usize = 2;

/// Of a hundred requests. What is left of a hundred after these are tasks for templates.
#[derive(Debug, Clone, Copy)]
struct Mix {
    repeats: f64,
    paraphrases: f64,
    compound: f64,
    algorithms: f64,
    questions: f64,
}

const MIX: Mix = Mix { repeats: 40.0, paraphrases: 10.0, compound: 8.5, algorithms: 3.0, questions: 1.5 };

/// In the price table.
const MODEL: &str = "openai/gpt-4o";

#[tokio::main]
async fn main() {
    // cargo says `--bench`.
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(REQUESTS);
    let folder = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
    let server = NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let model = start_model().await;
    let corpus = Corpus::read();
    let mut curve = vec![];
    for (round, share) in [4.5, 2.0, 10.0, 20.0, 30.0].into_iter().enumerate() {
        let mix = MIX.with_model_share(share);
        let place = folder.path().join(format!("round-{round}"));
        std::fs::create_dir_all(&place).unwrap();
        let workers: Vec<Process> = (0..WORKERS).map(|_| start_worker(server.url(), &place, &assets, &model)).collect();
        ready(&client, &place).await;
        let sent = corpus.draw(mix, count, &mut StdRng::seed_from_u64(SEED));
        let mut outcome = replay(&client, &sent).await;
        outcome.all_model = all_model(&client, &sent).await;
        drop(workers);
        if round == 0 {
            outcome.print();
        }
        curve.push((share, outcome));
    }
    println!(
        "\n{:>34} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "algorithms and questions", "cache", "rules", "model", "cheaper", "p95 ms"
    );
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (share, o) in &curve {
        println!(
            "{:>32} % {:>6.1} % {:>6.1} % {:>6.1} % {:>8.1} × {:>10.1}",
            share,
            o.share("cached"),
            o.share_of_agent("autonomous"),
            o.share("llm_assisted"),
            o.all_model / o.paid,
            o.percentile(0.95)
        );
    }
    drop(client);
    let _ = server.stop().await;
}

impl Mix {
    /// The same stream with another share of what only a model can do.
    fn with_model_share(self, share: f64) -> Self {
        let own = self.algorithms + self.questions;
        let rest = (100.0 - share) / (100.0 - own);
        Self {
            repeats: self.repeats * rest,
            paraphrases: self.paraphrases * rest,
            compound: self.compound * rest,
            algorithms: self.algorithms * share / own,
            questions: self.questions * share / own,
        }
    }

    fn draw(self, rng: &mut StdRng) -> Kind {
        let mut left = rng.random_range(0.0..100.0);
        for (kind, share) in [
            (Kind::Repeat, self.repeats),
            (Kind::Paraphrase, self.paraphrases),
            (Kind::Compound, self.compound),
            (Kind::Algorithm, self.algorithms),
            (Kind::Question, self.questions),
        ] {
            if left < share {
                return kind;
            }
            left -= share;
        }
        Kind::Template
    }
}

#[derive(Debug, Default)]
struct Outcome {
    /// How many, and the sum and number of the grades.
    methods: BTreeMap<String, (usize, f64, usize)>,
    kinds: BTreeMap<(Kind, String), usize>,
    waited: Vec<Duration>,
    paid: f64,
    all_model: f64,
    took: Duration,
    refused: usize,
}

async fn replay(client: &async_nats::Client, sent: &[(Kind, Request)]) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut answers = futures::stream::iter(sent)
        .map(|(kind, request)| async move {
            let mut body = json!({ "task": request.task });
            if let Some(language) = &request.language {
                body["language"] = json!(language);
            }
            let begun = Instant::now();
            let answer = ask(client, "execution.request", &body).await;
            (*kind, body, answer, begun.elapsed())
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some((kind, body, answer, waited)) = answers.next().await {
        let Some(method) = answer["method"].as_str() else {
            eprintln!("refused: {body}: {answer}");
            outcome.refused += 1;
            continue;
        };
        if method == "llm_assisted" && std::env::args().any(|word| word == "-v") {
            eprintln!("{}\t{body}", kind.name());
        }
        *outcome.kinds.entry((kind, method.to_owned())).or_default() += 1;
        let of = outcome.methods.entry(method.to_owned()).or_default();
        of.0 += 1;
        if let Some(quality) = answer["metrics"]["quality"].as_f64() {
            (of.1, of.2) = (of.1 + quality, of.2 + 1);
        }
        outcome.waited.push(waited);
        outcome.paid += answer["metrics"]["cost_usd"].as_f64().unwrap();
    }
    outcome.waited.sort();
    outcome.took = begun.elapsed();
    outcome
}

/// What the same requests cost where each is asked of the model, past cache and rules.
async fn all_model(client: &async_nats::Client, sent: &[(Kind, Request)]) -> f64 {
    let costs = futures::stream::iter(sent).map(|(_, request)| async move {
        let language = request.language.as_deref().unwrap_or("elixir");
        let system = format!(
            "You write {language} for developers. Answer with one fenced code block and nothing else, unless the task \
             asks for prose. Handle errors. Write no placeholders. Use the names that the task uses."
        );
        let prompt = format!("Task: {}\nLanguage: {language}\nComplexity: medium\n", request.task);
        let answer = ask(client, "llm.query", &json!({"prompt": prompt, "options": {"system": system}})).await;
        answer["cost_usd"].as_f64().unwrap_or_else(|| panic!("{answer}"))
    });
    costs.buffer_unordered(IN_FLIGHT).fold(0.0, |sum, cost| async move { sum + cost }).await
}

async fn ask(client: &async_nats::Client, subject: &'static str, body: &Value) -> Value {
    let reply = client.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

fn tokens(bytes: usize) -> usize {
    bytes.div_ceil(4)
}

impl Outcome {
    fn total(&self) -> usize {
        self.methods.values().map(|m| m.0).sum()
    }

    fn count(&self, method: &str) -> usize {
        self.methods.get(method).map_or(0, |m| m.0)
    }

    fn share(&self, method: &str) -> f64 {
        100.0 * self.count(method) as f64 / self.total() as f64
    }

    /// Of what the request cache did not answer.
    fn share_of_agent(&self, method: &str) -> f64 {
        100.0 * self.count(method) as f64 / (self.total() - self.count("cached")) as f64
    }

    fn percentile(&self, share: f64) -> f64 {
        self.waited[((self.waited.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    }

    fn print(&self) {
        let row = |name: &str, figure: String, goal: &str, reached: Option<bool>| {
            let reached = reached.map_or("", |r| if r { "reached" } else { "MISSED" });
            println!("{name:<52} {figure:>12} {goal:>10} {reached}");
        };
        println!(
            "{} requests, {IN_FLIGHT} in flight, {WORKERS} workers, {:.1} s; refused: {}\n",
            self.total() + self.refused,
            self.took.as_secs_f64(),
            self.refused
        );
        let (cached, rules, model) =
            (self.share("cached"), self.share_of_agent("autonomous"), self.share("llm_assisted"));
        row("answered from the cache", format!("{cached:.1} %"), "≥ 40 %", Some(cached >= 40.0));
        row("rules, of what reaches the agent", format!("{rules:.1} %"), "≥ 80 %", Some(rules >= 80.0));
        row("answered by the model", format!("{model:.1} %"), "< 10 %", Some(model < 10.0));
        row("not done (fallback)", format!("{:.1} %", self.share("fallback")), "", None);
        let cheaper = self.all_model / self.paid;
        row("all by the model", format!("${:.2}", self.all_model), "", None);
        row("paid", format!("${:.2}", self.paid), "", None);
        row("cheaper than all-model", format!("{cheaper:.1} ×"), "≥ 20 ×", Some(cheaper >= 20.0));
        row("p50", format!("{:.2} ms", self.percentile(0.5)), "", None);
        let p95 = self.percentile(0.95);
        row("p95, the model answers at once", format!("{p95:.1} ms"), "< 500 ms", Some(p95 < 500.0));
        for (method, (_, sum, graded)) in &self.methods {
            if *graded > 0 {
                row(&format!("quality, {method}"), format!("{:.2}", sum / *graded as f64), "", None);
            }
        }
        println!(
            "\n{:<24} {:>8} {}",
            "sent",
            "of all",
            self.methods.keys().map(|m| format!("{m:>14}")).collect::<String>()
        );
        for kind in Kind::ALL {
            let of = |method: &String| self.kinds.get(&(kind, method.clone())).copied().unwrap_or_default();
            let all: usize = self.methods.keys().map(of).sum();
            let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
            let methods: String = self.methods.keys().map(|m| format!("{:>12.1} %", share(of(m), all))).collect();
            println!("{:<24} {:>6.1} % {methods}", kind.name(), share(all, self.total()));
        }
    }
}

/// A model that answers at once, with some 50 lines of the language's code, and counts a token for every four bytes.
async fn start_model() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |Json(asked): Json<Value>| async move {
        let prompt: usize = asked["messages"].as_array().unwrap().iter().map(|m| m["content"].to_string().len()).sum();
        let text =
            "def step(value):\n    if value is None:\n        raise ValueError(\"no value\")\n    return value + 1\n\n"
                .repeat(12);
        let text = format!("```python\n{text}```");
        let usage = json!({"prompt_tokens": tokens(prompt), "completion_tokens": tokens(text.len())});
        let choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}});
        Json(json!({"id": "1", "object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": usage}))
    };
    let service = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    format!("http://{address}/v1")
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_worker(server: &str, place: &Path, assets: &Path, model: &str) -> Process {
    let variables: HashMap<&str, String> = HashMap::from([
        ("NATS_URL", server.to_owned()),
        ("DATABASE_URL", format!("sqlite://{}", place.join("stream.db").display())),
        ("TANDEM_ASSETS", assets.display().to_string()),
        ("TANDEM__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("TANDEM__LLM__ROUTE", MODEL.to_owned()),
        ("TANDEM__LLM__REQUESTS_PER_MINUTE", "0".to_owned()),
        ("OPENAI_API_KEY", "none".to_owned()),
        ("OPENAI_BASE_URL", model.to_owned()),
    ]);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.join("worker.log")).unwrap();
    let child =
        Command::new(env!("CARGO_BIN_EXE_tandem")).arg("serve").envs(variables).stderr(Stdio::from(log)).spawn();
    Process(child.unwrap())
}

/// All workers are there: so many different ones answer a ping.
async fn ready(client: &async_nats::Client, place: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        client.publish_with_reply("$SRV.PING.tandem", inbox, "".into()).await.unwrap();
        let mut seen = 0;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), answers.next()).await {
            seen += 1;
        }
        if seen >= WORKERS {
            return;
        }
        let log = || std::fs::read_to_string(place.join("worker.log")).unwrap_or_default();
        assert!(Instant::now() < until, "{seen} of {WORKERS} workers are there: {}", log());
    }
}
