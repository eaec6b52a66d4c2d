//! Questions for a model: over NATS with any client, and on the command line.

use futures::StreamExt;
use serde_json::{Value, json};
use tandem::config::Config;
use tandem::llm::{BreakerOptions, Credentials, Key, PriceOverride};

use crate::llmock::Llmock;
use crate::nats::Nats;
use crate::process::{Served, output, tandem};
use crate::provider::{Reply, Server};
use crate::worker::{Place, Running};
use crate::{Asker, text};

const CANARY: &str = "sk-canary-5f0d9a7be1c24433";
const MODEL: &str = "openai/gpt-5-mini";

fn usage() -> Value {
    json!({"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200})
}

/// 1,000 tokens in and 200 out: 6 nano-dollars and a bit at the prices of [`asking`].
fn says(text: &str) -> Reply {
    let message = json!({"role": "assistant", "content": text});
    let body = json!({"model": "gpt-5-mini", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                      "usage": usage()});
    Reply::json(200, body.to_string())
}

fn streams(pieces: &[&str]) -> Reply {
    let chunk =
        |delta: Value, finish: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    let texts = pieces.iter().map(|piece| chunk(json!({"content": piece}), Value::Null));
    let end = [chunk(json!({}), json!("stop")), json!({"choices": [], "usage": usage()})];
    let events = texts.chain(end).map(|event| format!("data: {event}\n\n"));
    Reply::events(events.chain(["data: [DONE]\n\n".to_owned()]))
}

fn fails(status: u16) -> Reply {
    let said = json!({"error": {"message": format!("no, {CANARY}"), "type": "t", "code": "some_error"}});
    Reply::json(status, said.to_string())
}

/// A worker that asks a scripted provider: 3 dollars for a million tokens in, 15 out.
async fn asking(nats: &Nats, place: &Place, provider: &Server) -> Running {
    Box::pin(asking_with(place.config(nats), place, provider)).await
}

async fn asking_with(mut config: Config, place: &Place, provider: &Server) -> Running {
    let price = PriceOverride { input_usd_per_mtok: 3.0, output_usd_per_mtok: 15.0 };
    config.llm.prices = [(MODEL.to_owned(), price)].into();
    config.llm.route = vec![MODEL.to_owned()];
    patient(&mut config);
    let key = Some(Key { secret: CANARY.into(), base_url: provider.url() });
    place.worker_with(config, Credentials { openai: key, ..Credentials::default() }).await
}

/// Short pauses, and no breaker between one fault and the next.
fn patient(config: &mut Config) {
    config.llm.backoff_ms = 1;
    config.llm.breaker = BreakerOptions { failures: 0, ..BreakerOptions::default() };
}

#[tokio::test]
async fn a_question_is_answered_with_its_text_tokens_and_exact_cost() {
    let provider = Server::script([fails(500), says("because")]).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    let options = json!({"system": "Be short.", "max_tokens": 50, "temperature": 0.5});
    let answer = asker.ask("llm.query", &json!({"prompt": "why?", "options": options})).await;
    assert_eq!(
        (&answer["text"], &answer["success"], &answer["finish"]),
        (&json!("because"), &json!(true), &json!("stop"))
    );
    assert_eq!(
        answer["messages"],
        json!([{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}])
    );
    // 1,000 × 3 $ + 200 × 15 $, for a million each; what failed with 500 was not billed.
    assert_eq!((&answer["cost_nanodollars"], answer["cost_usd"].as_f64()), (&json!(6_000_000), Some(0.006)));
    assert_eq!(
        (&answer["attempts"], &answer["tokens"]["input"], &answer["tokens"]["cached"]),
        (&json!(2), &json!(1000), &Value::Null)
    );
    let sent = provider.received().remove(1).body;
    assert_eq!(
        (&sent["messages"][0]["content"], &sent["max_tokens"], &sent["temperature"]),
        (&json!("Be short."), &json!(50), &json!(0.5))
    );

    // A tenant has its own subject.
    assert_eq!(asker.ask("llm.query.acme", &json!({"prompt": "why?"})).await["success"], true);
    let (status, error) = asker.refused("llm.query", &json!({"prompt": "why?", "options": {"max_token": 5}})).await;
    assert_eq!((status.as_str(), &error["field"]), ("400", &json!("options.max_token")));
}

#[tokio::test]
async fn a_paid_answer_is_not_lost_to_a_question_that_makes_it_too_large() {
    let provider = Server::start(says("because")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let mut config = place.config(&nats);
    config.nats.max_body_bytes = 6 << 20;
    let _worker = Box::pin(asking_with(config, &place, &provider)).await;
    let asker = Asker::of(&nats).await;
    // Twice in the answer, it is more than the 8 MiB that the server carries.
    let long = "why? ".repeat(1 << 20);
    let answer = asker.ask("llm.query", &json!({ "prompt": long })).await;
    assert_eq!((&answer["text"], &answer["cost_nanodollars"]), (&json!("because"), &json!(6_000_000)));
    assert_eq!((&answer["prompt"], &answer["messages"]), (&Value::Null, &Value::Null));
    let answer = asker.ask("llm.pipeline", &json!({ "steps": [{"prompt": long}] })).await;
    assert_eq!((&answer["done"], &answer["results"][0]["prompt"]), (&json!(["because"]), &Value::Null));
}

#[tokio::test]
async fn a_schema_that_is_wrong_is_refused_where_it_stands() {
    let provider = Server::start(says("{}")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    let query = |schema: Value| json!({"prompt": "why?", "options": {"schema": schema}});
    assert_eq!(asker.ask("llm.query", &query(json!({"type": "object"}))).await["success"], true);
    for schema in [json!({"type": 5}), json!({"allOf": [{"$ref": "#"}]})] {
        let (status, error) = asker.refused("llm.query", &query(schema.clone())).await;
        assert_eq!((status.as_str(), &error["field"]), ("400", &json!("options.schema")));
        let steps = json!({"steps": [{"prompt": "why?"}, query(schema)]});
        let (status, error) = asker.refused("llm.pipeline", &steps).await;
        assert_eq!((status.as_str(), &error["field"]), ("400", &json!("steps[1].options.schema")));
    }
    assert_eq!(provider.received().len(), 1);
}

#[tokio::test]
async fn a_model_that_does_not_answer_is_said_with_its_reason_and_never_its_key() {
    let provider = Server::start(fails(401)).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    let answer = asker.ask("llm.query", &json!({"prompt": "why?"})).await;
    assert_eq!(
        (&answer["success"], &answer["text"], &answer["cost_nanodollars"]),
        (&json!(false), &Value::Null, &json!(0))
    );
    assert_eq!((&answer["error"]["code"], &answer["error"]["transient"]), (&json!("unauthorized"), &json!(false)));
    assert!(!answer.to_string().contains("canary"), "{answer}");
    let answer = asker.ask("llm.query", &json!({"prompt": "why?", "options": {"max_cost_usd": 0.000_001}})).await;
    assert_eq!((&answer["error"]["code"], &answer["attempts"]), (&json!("over_cost"), &json!(0)));
    let answer = asker.ask("llm.query", &json!({"prompt": "why?", "options": {"model": "openai/other"}})).await;
    assert_eq!(answer["error"]["code"], "not_in_route");
    provider.says(Reply::Stalled);
    let answer = asker.ask("llm.query", &json!({"prompt": "why?", "options": {"timeout_ms": 200}})).await;
    assert_eq!((&answer["error"]["code"], &answer["cost_nanodollars"]), (&json!("timed_out"), &Value::Null));
    assert!(answer["unknown_nanodollars"].as_u64().unwrap() > 0, "it was sent: {answer}");
}

#[tokio::test]
async fn the_text_is_told_on_the_progress_subject_before_the_answer_comes() {
    let provider = Server::start(streams(&["The ", "sky ", "is blue."])).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    for (subject, progress) in
        [("llm.query", "execution.progress.mine"), ("llm.query.acme", "execution.progress.acme.mine")]
    {
        let mut told = asker.0.subscribe(progress.to_owned()).await.unwrap();
        let answer = asker.ask(subject, &json!({"prompt": "why?", "options": {"stream": "mine"}})).await;
        assert_eq!((&answer["text"], &answer["success"]), (&json!("The sky is blue."), &json!(true)), "{answer}");
        told.unsubscribe().await.unwrap();
        let (mut heard, mut messages) = (String::new(), 0);
        while let Some(message) = told.next().await {
            let progress: Value = crate::nats::json(&message);
            assert_eq!(
                (&progress["state"], &progress["id"], &progress["attempt"]),
                (&json!("writing"), &json!("mine"), &json!(1))
            );
            assert_eq!(progress["correlation_id"], answer["session_id"]);
            heard += text(&progress, "text");
            messages += 1;
        }
        assert!(heard == "The sky is blue." && messages >= 1, "{heard}");
    }
}

#[tokio::test]
async fn several_questions_are_answered_in_order_and_each_end_is_told() {
    let provider = Server::script([says("a"), fails(400), says("c")]).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    let mut told = asker.0.subscribe("execution.progress.bar").await.unwrap();
    let queries = json!([{"prompt": "1"}, {"prompt": "2"}, {"prompt": "3"}]);
    let body = json!({"queries": queries, "max_concurrent": 1, "timeout_ms": 60_000, "progress": "bar"});
    let answer = asker.ask("llm.parallel", &body).await;
    let results = answer["results"].as_array().unwrap();
    let seen: Vec<_> = results.iter().map(|r| (r["prompt"].clone(), r["success"].clone(), r["text"].clone())).collect();
    assert_eq!(
        seen,
        [
            (json!("1"), json!(true), json!("a")),
            (json!("2"), json!(false), Value::Null),
            (json!("3"), json!(true), json!("c"))
        ]
    );
    assert!(results.iter().all(|r| r["session_id"].as_str().is_some_and(|id| id.starts_with("exec_"))));
    told.unsubscribe().await.unwrap();
    let ends: Vec<Value> = told.map(|message| crate::nats::json(&message)).collect().await;
    let ends: Vec<_> = ends.iter().map(|e| (e["state"].clone(), e["index"].clone(), e["success"].clone())).collect();
    let ended = |index: u8, success: bool| (json!("ended"), json!(index), json!(success));
    assert_eq!(ends, [ended(0, true), ended(1, false), ended(2, true)]);
}

#[tokio::test]
async fn steps_go_on_where_they_failed_and_are_not_paid_twice() {
    let provider = Server::script([says("pear"), fails(400), says("green"), says("fin")]).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let asker = Asker::of(&nats).await;
    let steps = json!([{"prompt": "Name a fruit."}, {"prompt": "Describe it."}, {"prompt": "End."}]);
    let first = asker.ask("llm.pipeline", &json!({ "steps": steps })).await;
    assert_eq!(
        (&first["success"], &first["failed_step"], &first["done"]),
        (&json!(false), &json!(1), &json!(["pear"]))
    );
    let again = asker.ask("llm.pipeline", &json!({"steps": steps, "done": first["done"]})).await;
    assert_eq!((&again["success"], &again["failed_step"]), (&json!(true), &Value::Null), "{again}");
    assert_eq!(again["done"], json!(["pear", "green", "fin"]));
    assert_eq!(provider.received().len(), 4);
    assert_eq!(provider.received().remove(2).body["messages"][1], json!({"role": "assistant", "content": "pear"}));
}

#[tokio::test]
async fn the_command_line_asks_streams_and_goes_on() {
    let provider = Server::start(says("because")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, &provider).await;
    let folder = place.path();
    let run = async |arguments: &[&str]| {
        let ended = output(tandem(folder, &[("NATS_URL", nats.server.url())], &[&["llm"], arguments].concat())).await;
        let (out, err) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        assert!(!out.contains(CANARY) && !err.contains(CANARY), "{out} {err}");
        (ended.status.code(), out, err)
    };
    let (code, out, err) = run(&["query", "why?"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "because\n"), "{err}");
    assert!(err.contains("$0.006000"), "{err}");

    provider.says(streams(&["The ", "sky"]));
    let (code, out, err) = run(&["query", "why?", "--stream"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "The sky\n"), "{err}");
    provider.says(fails(401));
    let (code, out, err) = run(&["query", "why?"]).await;
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(err.contains("unauthorized"), "{err}");

    provider.script_on([says("a"), says("b")]);
    let (code, out, _) = run(&["parallel", "1", "2", "--max-concurrent", "1", "--json"]).await;
    let results: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &results["results"][1]["text"]), (Some(0), &json!("b")));
    std::fs::write(folder.join("questions.txt"), "one\n\ntwo\n").unwrap();
    provider.script_on([says("a"), fails(400)]);
    let (code, out, err) = run(&["parallel", "--file", "questions.txt", "--max-concurrent", "1"]).await;
    assert!(code == Some(4) && out.contains("## 1. one") && err.contains("1 of 2 answered"), "{out} {err}");

    provider.script_on([says("pear"), fails(400)]);
    let (code, out, _) = run(&["pipeline", "Name a fruit.", "Describe it.", "--json"]).await;
    assert_eq!(code, Some(4));
    std::fs::write(folder.join("run.json"), out).unwrap();
    provider.script_on([says("green")]);
    let before = provider.received().len();
    let (code, out, err) = run(&["pipeline", "Name a fruit.", "Describe it.", "--resume", "run.json"]).await;
    let whole = "## 1. Name a fruit.\n\npear\n\n## 2. Describe it.\n\ngreen\n\n";
    assert!(code == Some(0) && out == whole && err.contains("known, and not paid again"), "{out} {err}");
    assert_eq!(provider.received().len() - before, 1, "the first step is paid already");
}

#[tokio::test]
async fn llmock_breaks_every_format_on_purpose_and_finds_nothing_wrong_with_us() {
    // So slow that it still writes when we hang up: what was sent whole counts as read, whatever the client made of it.
    let llmock = Llmock::start_with(&["--stream-chunk-delay-ms", "30"]).await;
    let nats = Nats::start().await;
    for (key, base_url, at) in [
        ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic"),
        ("OPENAI_API_KEY", "OPENAI_BASE_URL", "v1"),
        ("GOOGLE_AI_STUDIO_API_KEY", "GOOGLE_GEMINI_BASE_URL", "gemini"),
    ] {
        let variables = [(key.to_owned(), CANARY.to_owned()), (base_url.to_owned(), llmock.url(at))].into();
        let place = Place::new();
        let mut config = place.config(&nats);
        patient(&mut config);
        config.llm.idle_timeout_ms = 1_500;
        config.llm.first_token_timeout_ms = 1_500;
        let worker = place.worker_with(config, tandem::config::credentials(&variables)).await;
        let asker = Asker::of(&nats).await;
        for (fault, streams, attempts) in [
            (json!({"type": "fail", "status": 429, "retry_after": 1}), false, 2),
            (json!({"type": "fail", "status": 529}), false, 2),
            (json!({"type": "fail", "status": 500}), true, 2),
            (json!({"type": "fail", "status": 401}), false, 1),
            (json!({"type": "fail", "status": 400}), true, 1),
            (json!({"type": "stream_fault", "kind": "disconnect"}), true, 2),
            (json!({"type": "stream_fault", "kind": "truncate"}), true, 2),
            (json!({"type": "stream_fault", "kind": "malformed"}), true, 2),
            (json!({"type": "stream_fault", "kind": "stall", "stall_seconds": 6}), true, 2),
            (json!({"type": "slow_first_token", "seconds": 6}), true, 2),
        ] {
            // Longer where it must see us hang up in the middle, on a busy machine, too.
            let words = if fault["kind"] == "malformed" { 200 } else { 20 };
            llmock.says(&"word ".repeat(words)).await;
            llmock.scripts(&fault).await;
            let options = if streams { json!({"stream": "told"}) } else { json!({}) };
            // Each by its own words: the judge takes equal bodies for attempts at one call.
            let prompt = format!("{at}: {fault}");
            let answer = asker.ask("llm.query", &json!({"prompt": prompt, "options": options})).await;
            assert_eq!(answer["attempts"], attempts, "{at} {fault}: {answer}");
            assert_eq!(answer["success"], attempts == 2, "{at} {fault}: {answer}");
        }
        worker.stop().await;
    }
    let verdict = llmock.verdict().await;
    assert!(verdict.contains("PASS") && !verdict.contains("FAIL") && !verdict.contains("WARN"), "{verdict}");
}

#[tokio::test]
async fn the_key_is_told_nowhere_however_much_is_logged() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let provider = Server::script([
        fails(401),
        fails(500),
        says("because"),
        streams(&["The sky"]),
        Reply::json(200, format!("{{\"{CANARY}")),
    ])
    .await;
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let no_assets = folder.path().join("none").display().to_string();
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", &database),
        ("OPENAI_API_KEY", CANARY),
        ("OPENAI_BASE_URL", &provider.url()),
        ("TANDEM_ASSETS", &no_assets),
        ("TANDEM__LOG__LEVEL", "trace"),
        ("TANDEM__LLM__BACKOFF_MS", "1"),
    ];
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    let asker = Asker::of(&nats).await;
    let mut bus = asker.0.subscribe(">").await.unwrap();
    let mut replies = vec![];
    for options in [json!({}), json!({}), json!({"stream": "told"}), json!({"max_retries": 0})] {
        replies.push(asker.ask("llm.query", &json!({"prompt": "why?", "options": options})).await.to_string());
    }
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    bus.unsubscribe().await.unwrap();
    let heard: Vec<String> =
        bus.map(|m| format!("{:?} {}", m.headers, String::from_utf8_lossy(&m.payload))).collect().await;
    assert!(heard.len() >= 8, "{heard:?}");
    let log = worker.log();
    assert!(log.len() > 50, "{} lines", log.len());
    for text in log.iter().map(Value::to_string).chain(replies).chain(heard) {
        assert!(!text.contains(CANARY), "the key was told: {text}");
    }
    for file in std::fs::read_dir(folder.path()).unwrap().flatten().filter(|f| f.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{}", file.path().display());
    }
}
