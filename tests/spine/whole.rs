//! The binary as a process: its log, its ends, its commands, and that it needs nothing but itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_nats::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::nats::{Nats, header, json as read};
use crate::process::{Served, binary, message, output, program, tandem};
use crate::provider::{Reply, Server};
use crate::worker::{Place, assets};
use crate::{Asker, declined, example, text, until, with};

const CANARY: &str = "sk-canary-5f0d9a7be1c24433";

async fn until_gone(port: u16) {
    let gone = async || TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(());
    until("the nats-server is gone", gone).await;
}

#[tokio::test]
async fn every_log_line_of_a_request_carries_its_correlation_id_and_none_tells_a_secret() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let refused = json!({"error": {"message": format!("the key {CANARY} is wrong"), "type": "auth"}});
    let provider = Server::start(Reply::json(401, refused.to_string())).await;
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let no_assets = folder.path().join("none").display().to_string();
    let templates = folder.path().join("templates");
    fs::create_dir(&templates).unwrap();
    fs::write(templates.join("broken.jinja"), "+++\nid = \"broken\"\n+++\n{{").unwrap();
    let templates = templates.display().to_string();
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", &database),
        ("OPENAI_API_KEY", CANARY),
        ("OPENAI_BASE_URL", &provider.url()),
        ("TANDEM_ASSETS", &no_assets),
        ("TANDEM__TEMPLATES__FOLDER", &templates),
        ("TANDEM__LOG__LEVEL", "debug"),
    ];
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    let started = worker.log();
    let broken = started.iter().find(|line| message(line) == "a template is left out").unwrap();
    assert!(broken.to_string().contains("broken.jinja"), "{broken}");

    let asker = Asker::of(&nats).await;
    let secret = "the launch code is 8117-swordfish";
    let mut replies = vec![];
    for body in [example(), example(), declined(), with(&declined(), json!({ "task": format!("Say {secret}") }))] {
        replies.push(asker.message("execution.request", &body).await);
    }
    replies.push(asker.0.request("execution.request", "{nope".into()).await.unwrap());
    let verdict = json!({"correlation_id": read(&replies[0])["correlation_id"], "verdict": "wrong", "comment": secret});
    replies.push(asker.message("execution.feedback", &verdict).await);
    let ids: BTreeSet<&str> = replies.iter().map(|reply| header(reply, "Correlation-Id").unwrap()).collect();
    assert_eq!(ids.len(), replies.len());
    assert_eq!(read(&replies[2])["method"], "fallback");
    worker.signal("TERM");
    assert!(worker.ended().await.success());

    let log = worker.log();
    let id_of = |line: &Value| line["span"]["correlation.id"].as_str().map(str::to_owned);
    let with_id: BTreeSet<String> = log.iter().filter_map(id_of).collect();
    assert!(replies[..5].iter().all(|r| with_id.contains(header(r, "Correlation-Id").unwrap())), "{log:#?}");
    let of_requests = ["answered", "refused", "the rules declined"];
    for line in log.iter().filter(|line| of_requests.contains(&message(line))) {
        assert!(id_of(line).is_some_and(|id| ids.contains(id.as_str())), "{line}");
    }
    let answered = log.iter().filter(|line| message(line) == "answered").count();
    assert_eq!(answered, 4, "one line for each answer: {log:#?}");
    // Between being ready and being told to stop, a worker speaks of requests only.
    let stopping = log.iter().position(|line| message(line).starts_with("stopping")).unwrap();
    let ours = |line: &&Value| line["target"].as_str().is_some_and(|target| target.starts_with("tandem"));
    for line in log[started.len()..stopping].iter().filter(ours) {
        assert!(id_of(line).is_some(), "a line without its request: {line}");
    }

    let told: Vec<String> = log.iter().map(Value::to_string).collect();
    let said: Vec<String> = replies.iter().map(|reply| String::from_utf8_lossy(&reply.payload).into_owned()).collect();
    for text in told.iter().chain(&said) {
        assert!(!text.contains(CANARY), "the key was told: {text}");
    }
    for text in &told {
        assert!(!text.contains("swordfish") && !text.contains("processing user events"), "a task was logged: {text}");
    }
    for file in fs::read_dir(folder.path()).unwrap().flatten().filter(|f| f.path().is_file()) {
        let bytes = fs::read(file.path()).unwrap();
        let holds = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!holds, "the key is in {}", file.path().display());
    }
    assert_eq!(provider.received().len(), 2);
}

#[tokio::test]
async fn the_trace_of_a_sender_goes_through() {
    let nats = Nats::start().await;
    let worker = crate::worker::Place::new().worker(&nats).await;
    let client = nats.client().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", trace);
    for (subject, body) in [
        ("execution.request", example().to_string()),
        ("execution.request", "{nope".to_owned()),
        ("execution.request.acme", declined().to_string()),
        ("execution.stats", String::new()),
    ] {
        let reply = client.request_with_headers(subject, headers.clone(), body.into()).await.unwrap();
        assert_eq!(header(&reply, "traceparent"), Some(trace), "{subject}");
        assert!(header(&reply, "Correlation-Id").unwrap().starts_with("exec_"), "{subject}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_nats_server_along() {
    let folder = tempfile::tempdir().unwrap();
    let assets = assets().display().to_string();
    let mut worker = Served::start(tandem(folder.path(), &[("TANDEM_ASSETS", &assets)], &["serve", "--with-nats"]));
    worker.ready().await;
    let url = fs::read_to_string(folder.path().join(".local/state/tandem/nats.url")).unwrap();
    let port = url.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
    worker.signal("KILL");
    until_gone(port).await;
    worker.ended().await;
}

#[tokio::test]
async fn a_worker_whose_nats_server_is_killed_writes_down_what_it_did_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let assets = assets().display().to_string();
    let variables = [("TANDEM_ASSETS", assets.as_str()), ("TANDEM__RECORDING__FLUSH_INTERVAL_MS", "60000")];
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve", "--with-nats"]));
    worker.ready().await;
    let told = folder.path().join(".local/state/tandem/nats.url");
    let task = text(&example(), "task").to_owned();
    let asked = output(tandem(folder.path(), &[], &["request", &task, "--language", "elixir"])).await;
    assert!(asked.status.success(), "{asked:?}");
    let pid = worker.says("nats-server runs").await["nats.pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    assert_eq!(worker.ended().await.code(), Some(1));
    let last = worker.log().pop().unwrap().to_string();
    assert!(last.contains("nats-server") && last.contains("ended"), "{last}");
    assert!(!told.exists(), "the address of a server that is gone");

    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve", "--with-nats"]));
    worker.ready().await;
    let stats = output(tandem(folder.path(), &[], &["stats", "--json"])).await;
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["total_executions"], 1, "{stats}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_while_nats_is_away_ends_soon_and_writes_down_what_it_did() {
    let nats = Nats::start().await;
    let place = crate::worker::Place::new();
    let folder = tempfile::tempdir().unwrap();
    let (database, none) = (place.database(), folder.path().join("none").display().to_string());
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", &database),
        ("TANDEM_ASSETS", &none),
        ("TANDEM__RECORDING__FLUSH_INTERVAL_MS", "60000"),
    ];
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    Asker::of(&nats).await.request(&example()).await;
    nats.server.stop().await.unwrap();
    worker.says("lost the connection to NATS").await;
    let begun = std::time::Instant::now();
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it took {:?}", begun.elapsed());

    let nats = Nats::start().await;
    let _next = place.worker(&nats).await;
    let stats = Asker::of(&nats).await.ask("execution.stats", &json!({})).await;
    assert_eq!(stats["total_executions"], 1, "{stats}");
}

#[tokio::test]
async fn what_was_paid_for_is_there_after_a_kill() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = "```rust\npub fn least() -> u32 {\n    0\n}\n```";
    let reply = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
    });
    let provider = Server::start(Reply::json(200, reply.to_string())).await;
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let none = folder.path().join("none").display().to_string();
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", &database),
        ("OPENAI_API_KEY", CANARY),
        ("OPENAI_BASE_URL", &provider.url()),
        ("TANDEM_ASSETS", &none),
    ];
    let asker = Asker::of(&nats).await;
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    let answer = asker.request(&declined()).await;
    worker.signal("KILL");
    worker.ended().await;
    let cost = answer["metrics"]["cost_usd"].as_f64().unwrap();
    assert!(cost > 0.0, "{answer}");

    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    let stats = asker.ask("execution.stats", &json!({})).await;
    assert_eq!((stats["cost"]["spent_usd"].as_f64(), &stats["total_executions"]), (Some(cost), &json!(1)), "{stats}");
    let again = asker.request(&declined()).await;
    assert_eq!(again["metrics"]["cache_hit"], true, "it was paid for once: {again}");
    assert_eq!(provider.received().len(), 1);
}

#[tokio::test]
async fn log_lines_of_a_request_carry_its_trace() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none").display().to_string();
    let variables = [("NATS_URL", nats.server.url()), ("TANDEM_ASSETS", &none)];
    let mut worker = Served::start(tandem(folder.path(), &variables, &["serve"]));
    worker.ready().await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let body = example().to_string().into();
    nats.client().await.request_with_headers("execution.request", headers, body).await.unwrap();
    let line = worker.says("answered").await;
    assert!(line.to_string().contains("\"trace.id\":\"0af7651916cd43dd8448eb211c80319c\""), "{line}");
    worker.signal("TERM");
    worker.ended().await;
}

/// A killed `serve --with-nats` leaves its server's address behind.
#[tokio::test]
async fn the_address_of_a_server_that_is_gone_or_not_meant_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join(".local/state/tandem");
    fs::create_dir_all(&state).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(state.join("nats.url"), format!("nats://{free}\n")).unwrap();
    let ask = async |variables: &[(&str, &str)]| output(tandem(folder.path(), variables, &["health"])).await;
    let nobody = ask(&[]).await;
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(!said.contains(&free.port().to_string()), "{said}");

    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let file = folder.path().join("tandem.toml");
    fs::write(&file, format!("[nats]\nurls = [\"{}\"]\n", nats.server.url())).unwrap();
    // Somebody listens at the address that was left, but the file names another.
    let other = Nats::start().await;
    fs::write(state.join("nats.url"), other.server.url()).unwrap();
    let found = ask(&[("TANDEM_CONFIG", &file.display().to_string())]).await;
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert_eq!(ask(&[]).await.status.code(), Some(3), "without the file it is asked where nobody works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_under_load_loses_no_request() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let none = folder.path().join("none").display().to_string();
    let variables = [("NATS_URL", nats.server.url()), ("DATABASE_URL", &database), ("TANDEM_ASSETS", &none)];
    let start = || Served::start(tandem(folder.path(), &variables, &["serve"]));
    let (mut first, mut second) = (start(), start());
    first.ready().await;
    second.ready().await;

    let asker = Asker::of(&nats).await;
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = async |n: usize| {
        while !stop.load(Ordering::Relaxed) {
            let mode = if n.is_multiple_of(2) { "off" } else { "use" };
            let answer = asker.request(&with(&example(), json!({"cache": mode}))).await;
            assert_eq!(answer["metrics"]["success"], true, "{answer}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = async |than: usize| {
        let enough = async || (answered.load(Ordering::Relaxed) >= than).then_some(());
        until("requests are answered", enough).await;
    };
    let rolling = async {
        more(100).await;
        first.signal("TERM");
        assert!(first.ended().await.success());
        let mut third = start();
        third.ready().await;
        more(answered.load(Ordering::Relaxed) + 100).await;
        second.signal("TERM");
        assert!(second.ended().await.success());
        more(answered.load(Ordering::Relaxed) + 100).await;
        stop.store(true, Ordering::Relaxed);
        third
    };
    let (mut third, _) = futures::join!(rolling, futures::future::join_all((0..8).map(ask)));
    let asked = answered.load(Ordering::Relaxed);
    let stats = async || {
        let stats = asker.ask("execution.stats", &json!({})).await;
        (stats["total_executions"] == asked).then_some(())
    };
    until("each of them was written down once", stats).await;
    third.signal("INT");
    assert!(third.ended().await.success());
}

#[tokio::test]
async fn a_copy_of_the_binary_works_elsewhere_with_nothing_of_the_repository() {
    let home = tempfile::tempdir().unwrap();
    let (copy, empty) = (home.path().join("copied"), home.path().join("empty"));
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&empty).unwrap();
    // Besides itself it needs a nats-server; the data folder is where it looks without the repository.
    let data = home.path().join(".local/share/tandem");
    fs::create_dir_all(data.join("bin")).unwrap();
    std::os::unix::fs::symlink(assets().join("bin/nats-server"), data.join("bin/nats-server")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = program(&copy, home.path(), &[], arguments);
        command.current_dir(&empty);
        command
    };
    let mut worker = Served::start(run(&["serve", "--with-nats"]));
    worker.ready().await;
    assert!(data.join("tandem.db").is_file(), "the database is in the data folder");
    let task = text(&example(), "task").to_owned();
    let ended = output(run(&["request", &task, "--language", "elixir", "--json"])).await;
    assert!(ended.status.success(), "{ended:?}");
    let answer: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(answer["template_used"], "elixir-nats-consumer", "{answer}");
    let check = output(run(&["templates", "check", "--json"])).await;
    assert!(check.status.success(), "{check:?}");
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "nothing was left where it ran");
    assert!(!home.path().join(".local/state/tandem/nats.url").exists(), "the address of a server that is gone");
}

#[tokio::test]
async fn each_command_speaks_json_and_ends_with_its_code() {
    let nats = Nats::start().await;
    let _worker = crate::worker::Place::new().worker(&nats).await;
    let folder = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str], code: i32| {
        let ended = output(tandem(folder.path(), &[("NATS_URL", nats.server.url())], arguments)).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        let json = arguments.contains(&"--json");
        let value = serde_json::from_slice::<Value>(&ended.stdout);
        assert!(!json || value.is_ok(), "{arguments:?} gave no JSON: {}", String::from_utf8_lossy(&ended.stdout));
        value.unwrap_or_else(|_| String::from_utf8(ended.stdout).unwrap().into())
    };
    let task = text(&example(), "task").to_owned();
    let answer = run(&["request", &task, "--language", "elixir", "--json"], 0).await;
    assert_eq!(answer["method"], "autonomous");
    let plain = run(&["request", &task, "--language", "elixir"], 0).await;
    assert_eq!(plain.as_str().unwrap().trim_end(), text(&answer, "result").trim_end(), "the text and nothing else");
    let declined = text(&declined(), "task").to_owned();
    assert_eq!(run(&["request", &declined, "--language", "rust", "--json"], 4).await["method"], "fallback");
    assert_eq!(run(&["request", "--raw", "{nope", "--json"], 1).await["error"], "invalid_json");

    let list = run(&["templates", "list", "--language", "elixir", "--json"], 0).await;
    assert!(list["templates"].as_array().unwrap().iter().any(|t| t["id"] == "elixir-nats-consumer"));
    // The worker takes over what was learnt a moment after it was written down.
    let used = async || {
        let shown = run(&["templates", "show", "elixir-nats-consumer", "--json"], 0).await;
        (shown["uses"] == 1).then_some(())
    };
    until("the use of the template is counted", used).await;
    run(&["templates", "show", "none-such", "--json"], 1).await;
    assert_eq!(run(&["templates", "select", &task, "--json"], 0).await["id"], "elixir-nats-consumer");
    assert_eq!(run(&["templates", "analyze", "--json"], 0).await["total_uses"], 1);
    run(&["templates", "check", "--json"], 0).await;
    assert_eq!(run(&["cache", "stats", "--json"], 0).await["entries"], 1);
    let id = text(&answer, "correlation_id");
    assert_eq!(run(&["feedback", id, "wrong", "--json"], 0).await["withdrawn"], 1);
    run(&["feedback", "exec_none", "wrong", "--json"], 1).await;
    assert_eq!(run(&["stats", "--json"], 0).await["total_executions"], 3);
    assert_eq!(run(&["stats", "--tenant", "acme", "--json"], 0).await["total_executions"], 0);
    assert_eq!(run(&["health", "--json"], 0).await["components"]["database"]["status"], "ok");
    assert!(run(&["config", "show", "--json"], 0).await["cache"]["ttl_ms"].is_u64());
    assert_eq!(run(&["config", "check", "--json"], 0).await["ok"], true);
    for plain in [
        &["templates", "list"][..],
        &["templates", "show", "elixir-nats-consumer"],
        &["templates", "analyze"],
        &["templates", "select", &task],
        &["templates", "check"],
        &["cache", "stats"],
        &["stats"],
        &["health"],
        &["config", "show"],
        &["config", "check"],
        &["completions", "bash"],
    ] {
        let said = run(plain, 0).await;
        assert!(said.as_str().is_some_and(|said| !said.trim().is_empty()), "{plain:?} said nothing for people");
    }
}
