//! What breaks while submits are being done: workers, the server, the work itself. `TANDEM_FAULTS=1` tries more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tandem::domain::{CorrelationId, RequestId, Tenant, Timestamp};
use tandem::store::{self, Store};

use crate::fault::{report, size};
use crate::model::Model;
use crate::nats::{self, Nats};
use crate::process::{Served, tandem};
use crate::worker::Place;
use crate::{ACK_WAIT, Sender, declined, example, header, quick, until, within};

/// Workers that are processes of their own and share a database.
struct Workers<'a> {
    nats: String,
    folder: &'a Path,
    variables: Vec<(&'static str, String)>,
}

impl<'a> Workers<'a> {
    fn new(nats: &Nats, folder: &'a Path, model: &Model) -> Self {
        let mut variables = model.variables();
        let none = folder.join("none").display().to_string();
        let database = format!("sqlite:{}", folder.join("tandem.db").display());
        variables.extend([
            ("DATABASE_URL", database),
            ("TANDEM_ASSETS", none),
            ("TANDEM__LOG__FORMAT", "json".to_owned()),
        ]);
        variables.push(("TANDEM__NATS__ACK_WAIT_MS", ACK_WAIT.as_millis().to_string()));
        Self { nats: nats.server.url().to_owned(), folder, variables }
    }

    async fn start(&self) -> Served {
        let mut variables = vec![("NATS_URL", self.nats.as_str())];
        variables.extend(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        let mut worker = Served::start(tandem(self.folder, &variables, &["serve"]));
        worker.ready().await;
        worker
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[tokio::test]
async fn faults_a_killed_worker_s_submits_are_taken_over_and_have_one_effect() {
    // Not more at a time than two workers have permits: else what is taken over waits for its turn.
    let (each, kills) = size((40, 1), (120, 8));
    let submits = each * kills;
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let model = Model::slow(Duration::from_millis(1_000)).await;
    let workers = Workers::new(&nats, folder.path(), &model);
    let (mut victim, mut other) = (workers.start().await, workers.start().await);
    let sender = Sender::of(&nats).await;
    let mut progress = sender.hears("execution.progress.*").await;
    let mut results = sender.hears("execution.result.*").await;
    let mut slowest = Duration::ZERO;
    for round in 0..kills {
        let asked = model.asked();
        for i in 0..each {
            sender.submit(&declined(&format!("s{round}-{i}"))).await;
        }
        until("both are at work", async || (model.asked() >= asked + 20).then_some(())).await;
        victim.signal("KILL");
        let killed = Instant::now();
        victim.ended().await;
        // All that were begun for the second time, until there are no more.
        while killed.elapsed() < ACK_WAIT + Duration::from_secs(2) {
            let next = tokio::time::timeout(Duration::from_millis(100), progress.next()).await;
            let Ok(told) = next.map(|told| nats::json(&told)) else { continue };
            // From the third delivery on a submit is done alone, and waits for its turn.
            if told["state"] == "started" && number(&told["attempt"]) == 2 {
                slowest = slowest.max(killed.elapsed());
            }
        }
        victim = std::mem::replace(&mut other, workers.start().await);
    }
    sender.all_done(Duration::from_secs(240)).await;
    let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(300), results.next()).await {
        let result_of = result.subject.to_string();
        let result = nats::json(&result);
        assert_eq!(result["method"], "llm_assisted", "{result}");
        answers.entry(result_of).or_default().insert(result["correlation_id"].to_string());
    }
    assert_eq!(answers.len(), submits, "a result each");
    assert!(answers.values().all(|ids| ids.len() == 1), "one effect each: {answers:?}");
    assert_eq!(sender.results().await.len(), submits);
    assert!(sender.dead().await.is_empty());
    let again = model.asked() - submits;
    report(
        &format!("worker killed in the middle of submits, {kills} times"),
        format!(
            "{submits} of {submits} results, one effect each, {again} model calls made again; taken over in {slowest:?}"
        ),
        "all, ≤ ack wait (2 s) + 1 s",
    );
    assert!(slowest > Duration::ZERO, "nothing was taken over: nothing was tested");
    assert!(slowest <= ACK_WAIT + Duration::from_secs(1), "taken over after {slowest:?}");
}

#[tokio::test]
async fn a_job_longer_than_the_ack_wait_is_done_once() {
    let nats = Nats::start().await;
    let model = Model::slow(ACK_WAIT * 2 + ACK_WAIT / 2).await;
    let place = Place::new();
    let config = model.routed(quick(&place, &nats));
    let first = place.worker_with(config.clone(), model.credentials()).await;
    let _second = place.worker_with(config, model.credentials()).await;
    let sender = Sender::of(&nats).await;
    sender.submit(&declined("long")).await;
    assert_eq!(sender.result("long").await["method"], "llm_assisted");
    let (asked, redelivered) = (model.asked(), number(&sender.counted().await["redelivered"]));
    report(
        "a submit that takes 2.5 times the ack wait",
        format!("{asked} model call, {redelivered} deliveries more"),
        "1 execution",
    );
    assert_eq!((asked, redelivered), (1, 0));
    first.stop().await;
}

#[tokio::test]
async fn a_stale_worker_says_nothing_and_acknowledges_nothing() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let model = Model::slow(Duration::from_secs(1)).await;
    let workers = Workers::new(&nats, folder.path(), &model);
    let mut stale = workers.start().await;
    let sender = Sender::of(&nats).await;
    let mut results = sender.hears("execution.result.stale").await;
    sender.submit(&declined("stale")).await;
    until("the model is asked", async || (model.asked() == 1).then_some(())).await;
    stale.signal("STOP");
    let _other = workers.start().await;
    let answer = nats::json(&results.next().await);
    sender.all_done(Duration::from_secs(5)).await;
    stale.signal("CONT");
    stale.says("another worker has taken this submit over").await;
    results.nothing_but(&answer, Duration::from_millis(500)).await;
    assert_eq!(sender.result("stale").await["correlation_id"], answer["correlation_id"]);
    assert_eq!(model.asked(), 2);
    let answers = sender.results().await.len();
    report(
        "a stopped worker that goes on after its submit was taken over",
        format!("{answers} result, the other worker's; nothing of its own said late"),
        "fenced",
    );
    assert_eq!(answers, 1);
}

#[tokio::test]
async fn a_submit_that_fails_each_time_is_set_aside_and_its_neighbours_are_unharmed() {
    let nats = Nats::start().await;
    let place = Place::new();
    let body = example("poison");
    // A kept reply that can't be read is a fault on every attempt.
    let options = store::Options { url: place.database(), ..store::Options::default() };
    let store = Store::open(&options).await.unwrap();
    let (tenant, id, holder) = (Tenant::default(), RequestId::parse("poison").unwrap(), CorrelationId::generate());
    let hash = Sha256::digest(body.to_string().as_bytes()).into();
    let now = Timestamp(i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap());
    store.claim(&tenant, &id, &hash, &holder, now, Duration::from_secs(10)).await.unwrap();
    assert!(store.settle(&tenant, &id, &holder, "no reply").await.unwrap());
    let _worker = place.worker_with(quick(&place, &nats), Default::default()).await;
    let sender = Sender::of(&nats).await;
    let mut progress = sender.hears("execution.progress.poison").await;
    for i in 0..5 {
        sender.submit(&example(&format!("before-{i}"))).await;
    }
    sender.submit(&body).await;
    for i in 0..5 {
        sender.submit(&example(&format!("after-{i}"))).await;
    }
    let mut states = vec![];
    while states.last() != Some(&json!("dead")) {
        states.push(nats::json(&progress.next().await)["state"].clone());
    }
    assert_eq!(states, ["retrying", "retrying", "retrying", "retrying", "dead"]);
    sender.all_done(Duration::from_secs(5)).await;
    let dead = sender.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((header(&dead[0].headers, "Dead-Reason"), header(&dead[0].headers, "Dead-Attempts")), ("internal", "5"));
    assert_eq!(dead[0].payload, body.to_string());
    assert_eq!(sender.result("poison").await["error"], "internal");
    let results = sender.results().await;
    let unharmed = results.values().filter(|r| r["metrics"]["success"] == true).count();
    report(
        "a submit that fails on every attempt",
        format!(
            "dead letter after {} attempts, {unharmed} of 10 neighbours answered",
            header(&dead[0].headers, "Dead-Attempts")
        ),
        "after 5, unharmed",
    );
    assert_eq!(unharmed, 10);
}

#[tokio::test]
async fn faults_a_submit_that_kills_its_worker_each_time_is_set_aside_alone_and_can_be_sent_again() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Long enough that the neighbours are at work when their worker dies.
    let model = Model::slow(Duration::from_millis(400)).await;
    let mut workers = Workers::new(&nats, folder.path(), &model);
    workers.variables.push(("TANDEM__NATS__MAX_DELIVER", "4".to_owned()));
    let mut worker = workers.start().await;
    let sender = Sender::of(&nats).await;
    let mut progress = sender.hears("execution.progress.*").await;
    for id in ["poison", "n1", "n2", "n3", "n4"] {
        sender.submit(&declined(id)).await;
    }
    let mut deaths = 0;
    loop {
        let told = nats::json(&progress.next().await);
        match (told["id"].as_str().unwrap(), told["state"].as_str().unwrap()) {
            ("poison", "started") => {
                worker.signal("KILL");
                worker.ended().await;
                deaths += 1;
                worker = workers.start().await;
            }
            ("poison", "dead") => break,
            (id, "dead") => panic!("{id} died of its neighbour"),
            _ => {}
        }
    }
    assert_eq!(deaths, 4);
    sender.all_done(Duration::from_secs(20)).await;
    for id in ["n1", "n2", "n3", "n4"] {
        assert_eq!(sender.result(id).await["method"], "llm_assisted", "{id}");
    }
    assert_eq!(sender.result("poison").await["error"], "internal");
    let dead = sender.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(header(&dead[0].headers, "Dead-Attempts"), "4");
    // With its killer gone it is a submit like any other.
    let number = dead[0].sequence.to_string();
    let variables = [("NATS_URL", nats.server.url())];
    let mut result = sender.hears("execution.result.poison").await;
    let done = crate::process::output(tandem(folder.path(), &variables, &["dead", "requeue", &number])).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(nats::json(&result.next().await)["method"], "llm_assisted");
    assert!(sender.dead().await.is_empty());
    report(
        "a submit that kills its worker each time",
        format!("dead letter after {deaths} deaths, 4 of 4 neighbours answered; done once it was sent again"),
        "after 4, unharmed",
    );
}

#[tokio::test]
async fn faults_a_killed_server_loses_no_submit() {
    let rounds = size(1, 5);
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_millis(300)).await;
    let place = Place::new();
    let mut config = model.routed(quick(&place, &nats));
    config.nats.max_concurrent_submits = 8;
    let _worker = place.worker_with(config, model.credentials()).await;
    let mut nats = nats;
    let mut all = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let sender = Sender::of(&nats).await;
        for i in 0..30 {
            sender.submit(&declined(&format!("r{round}-{i}"))).await;
            all += 1;
        }
        let pid = nats.server.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        tokio::time::sleep(Duration::from_millis(500)).await;
        nats = nats.restart().await;
        let back = Instant::now();
        let sender = Sender::of(&nats).await;
        let submitted = async || {
            let sent = sender.context.publish("execution.submit", example(&format!("back-{round}")).to_string().into());
            sent.await.ok()?.await.ok()
        };
        within(Duration::from_secs(5), "the stream takes submits", submitted).await;
        // Not behind the others: it only shows that work goes on.
        within(Duration::from_secs(10), "submits are done", async || (sender.in_hand().await > 0).then_some(())).await;
        slowest = slowest.max(back.elapsed());
        sender.result(&format!("back-{round}")).await;
        all += 1;
        sender.all_done(Duration::from_secs(60)).await;
    }
    let sender = Sender::of(&nats).await;
    let results = sender.results().await;
    assert_eq!(results.len(), all);
    assert!(results.values().all(|result| result["metrics"]["success"] == true));
    assert!(sender.dead().await.is_empty());
    report(
        &format!("nats-server killed and started again in the middle of submits, {rounds} times"),
        format!("{} of {all} results, at work again after {slowest:?}", results.len()),
        "all, ≤ 2 s",
    );
    assert!(slowest <= Duration::from_secs(2), "at work again after {slowest:?}");
}

/// Longer than the ack wait: what was in hand is given out again, and still has one effect.
#[tokio::test]
async fn faults_a_server_that_stands_still_loses_no_submit() {
    let still = Duration::from_secs(size(4, 30));
    let nats = Nats::start().await;
    let model = Model::slow(Duration::from_millis(300)).await;
    let place = Place::new();
    let mut config = model.routed(quick(&place, &nats));
    config.nats.max_concurrent_submits = 8;
    let _worker = place.worker_with(config, model.credentials()).await;
    let sender = Sender::of(&nats).await;
    for i in 0..40 {
        sender.submit(&declined(&format!("s{i}"))).await;
    }
    until("some are at work", async || (model.asked() >= 8).then_some(())).await;
    let signal = |name: &str| {
        let pid = nats.server.pid().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    };
    signal("STOP");
    tokio::time::sleep(still).await;
    let asked = model.asked();
    assert!(asked < 40, "all were at work before: nothing is tested");
    signal("CONT");
    let back = Instant::now();
    within(Duration::from_secs(10), "submits are done", async || (model.asked() > asked).then_some(())).await;
    let back = back.elapsed();
    let sender = Sender::of(&nats).await;
    sender.all_done(Duration::from_secs(60)).await;
    let results = sender.results().await;
    report(
        &format!("nats-server stopped for {} s in the middle of submits", still.as_secs()),
        format!("{} of 40 results, {} model calls, at work again after {back:?}", results.len(), model.asked()),
        "all, one effect each, ≤ 2 s",
    );
    assert_eq!(results.len(), 40);
    assert!(results.values().all(|result| result["metrics"]["success"] == true));
    assert!(sender.dead().await.is_empty());
    assert!(back <= Duration::from_secs(2), "at work again after {back:?}");
}

#[tokio::test]
async fn without_jetstream_requests_are_served_and_it_is_said_why_submits_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server =
        crate::process::program(&nats::binary(), folder.path(), &[], &["-a", "127.0.0.1", "-p", &port.to_string()]);
    let _server = server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let client =
        within(Duration::from_secs(5), "the server is there", async || async_nats::connect(&url).await.ok()).await;
    let place = Place::new();
    let mut config = tandem::config::Config::default();
    config.nats.urls = vec![url];
    config.database.url = place.database();
    let _worker = place.worker_with(config, Default::default()).await;
    let asked = client.request("execution.request", example("x").to_string().into()).await.unwrap();
    assert_eq!(nats::json(&asked)["method"], "autonomous");
    let health = client.request("execution.health", "{}".into()).await.unwrap();
    let submits = &nats::json(&health)["components"]["submits"];
    assert_eq!(submits["status"], "down", "{submits}");
    assert!(submits["message"].as_str().unwrap().contains("TANDEM_SUBMIT"), "{submits}");
}
