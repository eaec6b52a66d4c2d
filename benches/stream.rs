//! What a team's requests cost: 5,000 of them as a team would send them, over two workers and a scripted model, and the
//! same with ever more that only a model can do. `scripts/bench stream` prints the tables.
//!
//! Templates and declines come from the labelled tasks of `tests/data`, under other names; a third of these tasks was
//! never looked at while the rules were tuned. A repeat is the same body again, the popular ones more often (Zipf); a
//! paraphrase is an earlier task in other words. The model counts a token for every four bytes. What an all-model
//! service would pay is the price of the same answers, had the model written each.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tandem::app::nats_server::NatsServer;

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

/// Dollars for a million tokens in and out of the model below, as the price table has it.
const MODEL: &str = "openai/gpt-4o";
const PRICES: (f64, f64) = (2.5, 10.0);

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tandem");
    let server = NatsServer::start(&assets.join("bin/nats-server"), folder.path(), None).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let model = start_model().await;
    let corpus = Corpus::read();
    let mut first = None;
    let mut curve = vec![];
    for (round, share) in [4.5, 2.0, 10.0, 20.0, 30.0].into_iter().enumerate() {
        let mix = MIX.with_model_share(share);
        let place = folder.path().join(format!("round-{round}"));
        std::fs::create_dir_all(&place).unwrap();
        let workers: Vec<Process> = (0..WORKERS).map(|_| start_worker(server.url(), &place, &assets, &model)).collect();
        ready(&client).await;
        let sent = requests(&corpus, mix, REQUESTS, &mut StdRng::seed_from_u64(SEED));
        let outcome = replay(&client, sent).await;
        drop(workers);
        curve.push((share, outcome.clone()));
        first.get_or_insert(outcome);
    }
    first.unwrap().print();
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
}

/// What the labelled tasks hold, by what becomes of them.
struct Corpus {
    /// Text, language, and the name that another can take the place of.
    templates: Vec<(String, Option<String>, String)>,
    compound: Vec<(String, Option<String>, String)>,
    declines: Vec<(String, Option<String>)>,
}

const NAMES: &str = "orders|invoices|user events|payments|shipments|customers|products|refunds|sessions|bookings|tickets|\
    comments|reviews|subscriptions|carts|coupons|devices|alerts|reports|accounts|audit entries|addresses|price changes|\
    stock levels|deliveries|order items|messages|contracts|leads|vouchers|returns|warehouses|sensors|readings|trips|\
    drivers|vehicles|courses|lessons|students|grades|teams|projects|milestones|time entries|expenses|budgets|quotes|\
    suppliers|purchase orders|campaigns|segments|notifications|webhooks|uploads|albums|tracks|playlists|recipes|meals";

const QUESTIONS: &str = "What is the difference between a queue group and a durable consumer?|Why does my consumer get \
    messages twice?|How do I choose between PostgreSQL and SQLite?|Explain how JetStream acknowledgements work|What does \
    exactly once mean in messaging?|How can I profile a slow Phoenix application?|Which Rust web framework should I use?|\
    Compare optimistic and pessimistic locking|How does backpressure work in Node streams?|Why is my index not used?|\
    What is a good timeout for an HTTP client?|How do I rotate JWT keys?|Should I use UUIDs or integers as keys?|\
    Explain the outbox pattern|What happens when a Go channel is closed twice?";

impl Corpus {
    fn read() -> Self {
        let mut corpus = Self { templates: vec![], compound: vec![], declines: vec![] };
        for file in ["tasks-calibration.tsv", "tasks-held-out.tsv"] {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file));
            for line in text.unwrap().lines().filter(|line| !line.starts_with('#')) {
                let row: Vec<&str> = line.split('\t').collect();
                let [given, _, types, outcome, name, _, task] = row[..] else { continue };
                let language = (given != "-").then(|| given.to_owned());
                let name = name.split('|').next().unwrap_or_default();
                // The name stands there as it is, perhaps in the plural.
                let Some(at) = task.to_lowercase().find(name).filter(|_| task.is_ascii()) else {
                    if outcome == "decline" && !task.ends_with('?') {
                        corpus.declines.push((task.to_owned(), language));
                    }
                    continue;
                };
                let end = at + name.len() + usize::from(task[at + name.len()..].starts_with('s'));
                let named = task[at..end].to_owned();
                let found = (task.to_owned(), language.clone(), named);
                match outcome {
                    "rules" if types.contains(',') => corpus.compound.push(found),
                    "rules" => corpus.templates.push(found),
                    _ => corpus.declines.push((task.to_owned(), language)),
                }
            }
        }
        for line in include_str!("../tests/data/goals.tsv").lines().skip(1) {
            let (goal, parts) = line.split_once('\t').unwrap();
            if parts != "-" && goal.contains("orders") {
                corpus.compound.push((goal.replace(" / ", "\n"), None, "orders".to_owned()));
            }
        }
        corpus
    }
}

/// Bodies in the order in which they are sent.
fn requests(corpus: &Corpus, mix: Mix, count: usize, rng: &mut StdRng) -> Vec<Value> {
    let names: Vec<&str> = NAMES.split('|').map(str::trim).collect();
    let questions: Vec<&str> = QUESTIONS.split('|').map(str::trim).collect();
    let languages = ["elixir", "rust", "typescript", "go", "python", "javascript"];
    let mut distinct: Vec<Value> = vec![];
    let mut rephrasable: Vec<Value> = vec![];
    let mut sent = vec![];
    let renamed = |(task, language, name): &(String, Option<String>, String), rng: &mut StdRng| {
        let name_now = names.choose(rng).unwrap();
        let language =
            language.clone().or_else(|| rng.random_bool(0.5).then(|| languages.choose(rng).unwrap().to_string()));
        body(&task.replace(name, name_now), language)
    };
    while sent.len() < count {
        let drawn = rng.random_range(0.0..100.0);
        let mut upto = 0.0;
        let mut is = |share: f64| {
            upto += share;
            drawn < upto
        };
        let next = if is(mix.repeats) {
            let Some(again) = zipf(&distinct, rng) else { continue };
            sent.push(again.clone());
            continue;
        } else if is(mix.paraphrases) {
            let Some(earlier) = rephrasable.choose(rng) else { continue };
            rephrased(earlier, rng)
        } else if is(mix.compound) {
            renamed(corpus.compound.choose(rng).unwrap(), rng)
        } else if is(mix.algorithms) {
            let (task, language) = corpus.declines.choose(rng).unwrap();
            body(task, language.clone())
        } else if is(mix.questions) {
            body(questions.choose(rng).unwrap(), None)
        } else {
            let next = renamed(corpus.templates.choose(rng).unwrap(), rng);
            rephrasable.push(next.clone());
            next
        };
        distinct.push(next.clone());
        sent.push(next);
    }
    sent
}

fn body(task: &str, language: Option<String>) -> Value {
    let mut body = json!({ "task": task });
    if let Some(language) = language {
        body["language"] = json!(language);
    }
    body
}

/// The nth is drawn as often as 1/n says.
fn zipf<'a>(from: &'a [Value], rng: &mut StdRng) -> Option<&'a Value> {
    let most = (from.len() + 1) as f64;
    let at = most.powf(rng.random::<f64>()) as usize;
    from.get(at.saturating_sub(1).min(from.len().checked_sub(1)?))
}

/// The same task with another beginning and end.
fn rephrased(earlier: &Value, rng: &mut StdRng) -> Value {
    const BEGINNINGS: [&str; 6] = ["Please create", "I need", "Build me", "Can you write", "We want", "Generate"];
    const ENDS: [&str; 4] = ["", ", please", ". Thanks", " for our team"];
    let task = earlier["task"].as_str().unwrap_or_default();
    let lower = task.to_lowercase();
    let verbs = [
        "create ",
        "write ",
        "build me ",
        "build ",
        "i need ",
        "please create ",
        "generate ",
        "set up ",
        "add ",
        "implement ",
    ];
    let rest = verbs.iter().find(|verb| lower.starts_with(**verb)).map_or(task, |verb| &task[verb.len()..]);
    let said = format!(
        "{} {}{}",
        BEGINNINGS.choose(rng).unwrap(),
        rest.trim_end_matches(['.', '!']),
        ENDS.choose(rng).unwrap()
    );
    let mut body = earlier.clone();
    body["task"] = json!(said);
    body
}

#[derive(Debug, Clone, Default)]
struct Outcome {
    methods: BTreeMap<String, (usize, f64, usize)>,
    waited: Vec<Duration>,
    paid: f64,
    all_model: f64,
    took: Duration,
    refused: usize,
}

async fn replay(client: &async_nats::Client, sent: Vec<Value>) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut answers = futures::stream::iter(sent)
        .map(|body| async move {
            let begun = Instant::now();
            let reply = client.request("execution.request", body.to_string().into()).await.unwrap();
            let waited = begun.elapsed();
            (body, serde_json::from_slice::<Value>(&reply.payload).unwrap(), waited)
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some((body, answer, waited)) = answers.next().await {
        let (Some(method), Some(result)) = (answer["method"].as_str(), answer["result"].as_str()) else {
            eprintln!("refused: {body}: {answer}");
            outcome.refused += 1;
            continue;
        };
        let of = outcome.methods.entry(method.to_owned()).or_default();
        of.0 += 1;
        if let Some(quality) = answer["metrics"]["quality"].as_f64() {
            (of.1, of.2) = (of.1 + quality, of.2 + 1);
        }
        outcome.waited.push(waited);
        outcome.paid += answer["metrics"]["cost_usd"].as_f64().unwrap();
        let asked = body["task"].as_str().unwrap().len() + PROMPT_BYTES;
        outcome.all_model += price(tokens(asked), tokens(result.len()));
    }
    outcome.waited.sort();
    outcome.took = begun.elapsed();
    outcome
}

/// About what the worker's own prompt adds to a task.
const PROMPT_BYTES: usize = 240;

fn tokens(bytes: usize) -> f64 {
    (bytes as f64 / 4.0).ceil()
}

fn price(input: f64, output: f64) -> f64 {
    (input * PRICES.0 + output * PRICES.1) / 1e6
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
            "{REQUESTS} requests, {IN_FLIGHT} in flight, {WORKERS} workers, {:.1} s; refused: {}\n",
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
        ("TANDEM__HTTP__LISTEN", String::new()),
        ("TANDEM__LLM__ROUTE", format!("[\"{MODEL}\"]")),
        ("OPENAI_API_KEY", "none".to_owned()),
        ("OPENAI_BASE_URL", model.to_owned()),
    ]);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.join("worker.log")).unwrap();
    let child =
        Command::new(env!("CARGO_BIN_EXE_tandem")).arg("serve").envs(variables).stderr(Stdio::from(log)).spawn();
    Process(child.unwrap())
}

/// All workers are there: so many different ones answer a ping.
async fn ready(client: &async_nats::Client) {
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
        assert!(Instant::now() < until, "{seen} of {WORKERS} workers are there");
    }
}
