//! What stands still, dies, or kills: workers, services of the user's, JetStream's folder.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Message;
use futures::StreamExt;
use serde_json::{Value, json};
use tandem::domain::workflow::RunOptions;

use crate::fault::{report, size};
use crate::kill::{ask, serve_with};
use crate::process::Served;
use crate::wire::{self, over, serving, started, with_python};
use crate::{DONE, Kind, Place, end, native, node, options, order, until};

on_both!(
    Kind:
    faults_a_worker_that_stood_still_commits_nothing,
    faults_a_step_that_kills_each_worker_fails,
    faults_without_jetstream_s_folder_nothing_is_lost,
);

/// Soon taken over.
const SOON: [(&str, &str); 2] = [("TANDEM__WORKFLOW__LEASE_MS", "400"), ("TANDEM__WORKFLOW__SWEEP_MS", "50")];

fn database(place: &Place, folder: &Path) -> String {
    match &place.server {
        Some(server) => server.url(),
        None => format!("sqlite:{}", folder.join("tandem.db").display()),
    }
}

fn kind_of(place: &Place) -> &'static str {
    if place.server.is_some() { "PostgreSQL" } else { "SQLite" }
}

fn one_step(subject: &str) -> Value {
    json!({"tasks": [{"id": "a", "description": "A", "step": {"kind": "nats", "subject": subject}}]})
}

/// SIGSTOP past its lease, in the middle of a step: another does it, and what the first comes back with counts for nothing.
async fn faults_a_worker_that_stood_still_commits_nothing(kind: Kind) {
    let place = kind.place().await;
    let folder = tempfile::tempdir().unwrap();
    let database = database(&place, folder.path());
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.do").await.unwrap();
    client.flush().await.unwrap();
    let answer = async |message: &Message, n: u32| {
        let reply = message.reply.clone().unwrap();
        client.publish(reply, json!({"by": n}).to_string().into()).await.unwrap();
        client.flush().await.unwrap();
    };
    let rounds = size(1, 10);
    let one = serve_with(&place.nats, folder.path(), &database, &SOON).await;
    for round in 0..rounds {
        let said = ask(&client, "workflow.start", &json!({"graph": one_step("orders.do")})).await;
        let id = said["workflow_id"].as_str().unwrap().to_owned();
        let first = asked.next().await.unwrap();
        one.signal("STOP");
        let two = serve_with(&place.nats, folder.path(), &database, &SOON).await;
        let second = asked.next().await.unwrap();
        let key = |message: &Message| crate::nats::header(message, "Idempotency-Key").map(str::to_owned);
        assert_eq!(key(&first), key(&second));
        // In some rounds the other is done before the first wakes, in some it is at it still.
        let before = round % 2 == 0;
        if before {
            answer(&second, 2).await;
            assert_eq!(over_patiently(&client, &id).await["status"], "completed");
        }
        answer(&first, 1).await;
        one.signal("CONT");
        if !before {
            answer(&second, 2).await;
        }
        let status = over_patiently(&client, &id).await;
        assert_eq!(status["tasks"]["a"]["output"], json!({"by": 2}), "{status:#}");
        // It has committed something else since: it had its say about the step.
        let witness = async || {
            let said = ask(&client, "workflow.start", &json!({"graph": one_step("orders.do")})).await;
            let other = said["workflow_id"].as_str().unwrap().to_owned();
            answer(&asked_by(&mut asked).await, 3).await;
            let status = over_patiently(&client, &other).await;
            (status["tasks"]["a"]["worker"] != worker_of(&client, &id).await).then_some(())
        };
        until("the first does something again", witness).await;
        let shown = ask(&client, "workflow.show", &json!({"workflow_id": id})).await;
        let outcomes: Vec<&str> =
            shown["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["lost", "completed"], "{shown:#}");
        let status = over_patiently(&client, &id).await;
        assert_eq!(status["tasks"]["a"]["output"], json!({"by": 2}));
        end_of(two).await;
    }
    report(
        &format!("SIGSTOP of a worker past its lease, in the middle of a step, {rounds} times, {}", kind_of(&place)),
        "another did the step, nothing of the stopped one was committed",
        "none",
    );
}

async fn asked_by(asked: &mut async_nats::Subscriber) -> Message {
    tokio::time::timeout(Duration::from_secs(20), asked.next()).await.expect("nobody asks").unwrap()
}

async fn worker_of(client: &async_nats::Client, id: &str) -> Value {
    ask(client, "workflow.status", &json!({"workflow_id": id})).await["tasks"]["a"]["worker"].clone()
}

/// Whoever has the question may be the one that stands still.
async fn over_patiently(client: &async_nats::Client, id: &str) -> Value {
    until("the workflow is over", async || {
        let status = ask(client, "workflow.status", &json!({"workflow_id": id})).await;
        (status["status"] != "running").then_some(status)
    })
    .await
}

async fn end_of(mut worker: Served) {
    worker.signal("KILL");
    worker.ended().await;
}

/// A step whose service kills whoever asks: after `max_losses` workers it has failed, and takes no more along.
async fn faults_a_step_that_kills_each_worker_fails(kind: Kind) {
    const LOSSES: usize = 3;
    let place = kind.place().await;
    let folder = tempfile::tempdir().unwrap();
    let database = database(&place, folder.path());
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.kill").await.unwrap();
    client.flush().await.unwrap();
    let variables = [SOON[0], SOON[1], ("TANDEM__WORKFLOW__MAX_LOSSES", "3")];
    let mut worker = serve_with(&place.nats, folder.path(), &database, &variables).await;
    let said = ask(&client, "workflow.start", &json!({"graph": one_step("orders.kill")})).await;
    let id = said["workflow_id"].as_str().unwrap().to_owned();
    for _ in 0..LOSSES {
        let message = asked_by(&mut asked).await;
        drop(message);
        end_of(worker).await;
        worker = serve_with(&place.nats, folder.path(), &database, &variables).await;
    }
    let status = over_patiently(&client, &id).await;
    let task = &status["tasks"]["a"];
    assert_eq!((&status["status"], &task["error"]["kind"]), (&json!("failed"), &json!("worker_lost")), "{status:#}");
    // The worker that saw the end lives, and nobody was asked again.
    assert!(tokio::time::timeout(Duration::from_millis(100), asked.next()).await.is_err());
    let shown = ask(&client, "workflow.show", &json!({"workflow_id": id})).await;
    let lost = shown["attempts"].as_array().unwrap().iter().filter(|a| a["outcome"] == "lost").count();
    assert_eq!(lost, LOSSES);
    report(
        &format!("a step that kills each worker, {}", kind_of(&place)),
        format!("worker_lost after {lost} workers (workflow.max_losses = {LOSSES})"),
        "no more than that",
    );
}

/// JetStream's folder goes and the server comes back without it, in the middle of workflows whose events are published.
async fn faults_without_jetstream_s_folder_nothing_is_lost(kind: Kind) {
    let mut place = kind.place().await;
    let worker = place.worker().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    worker.workflows.register("step", move |given| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            Ok(format!("\"{}\"", given.task))
        }
    });
    let (rounds, each, chain) = (size(1, 10), 10, 20);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let before = count.load(Ordering::SeqCst);
        let terms = RunOptions { real_time_notifications: true, ..options() };
        let mut ids = vec![];
        for _ in 0..each {
            let names: Vec<String> = (0..chain).map(|i| format!("t{i}")).collect();
            let step = |i: usize| match i {
                0 => native(&names[0], &[]),
                i => native(&names[i], &[names[i - 1].as_str()]),
            };
            ids.push(worker.workflows.launch(order((0..chain).map(step).collect(), terms.clone())).await.unwrap());
        }
        let some = async || (count.load(Ordering::SeqCst) > before + each).then_some(());
        until("some steps are done", some).await;
        place.nats = place.nats.restart_empty().await;
        let back = Instant::now();
        for id in &ids {
            let seen = end(&worker.workflows, *id).await;
            assert_eq!((seen.listed.state, seen.listed.completed), (DONE, chain as u64));
            let events = worker.workflows.events(&Default::default(), Some(*id), 0, 1_000).await.unwrap();
            let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
            assert_eq!(numbers, (1..=2 * chain as u64 + 2).collect::<Vec<_>>());
        }
        slowest = slowest.max(back.elapsed());
        assert_eq!(count.load(Ordering::SeqCst), before + each * chain, "a step was done again");
        // The stream is made anew by itself, and takes what comes.
        let client = place.nats.client().await;
        let mut heard = client.subscribe("event.default.workflow.*").await.unwrap();
        client.flush().await.unwrap();
        let last = worker.workflows.launch(order(vec![native("x", &[])], terms)).await.unwrap();
        let told = async {
            while let Some(message) = heard.next().await {
                let event = crate::nats::json(&message);
                if event["workflow_id"] == last.to_string() && event["type"] == "execution_completed" {
                    return;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        assert!(
            told.is_ok(),
            "events are not published any more: {:?} {}",
            client.request("$JS.API.STREAM.INFO.TANDEM_EVENTS", "".into()).await,
            place.nats.log()
        );
    }
    report(
        &format!("JetStream's folder deleted in the middle of workflows, {rounds} times, {}", kind_of(&place)),
        format!(
            "{0} of {0} completed, no step again, no event missing, at most {slowest:?} after the server was back",
            rounds * each
        ),
        "all",
    );
    worker.stop().await;
}

/// A service of the user's that answers twice, after its timeout, or dies with the question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_a_service_that_answers_late_twice_or_dies_counts_once() {
    let place = Kind::sqlite().place().await;
    let mut config = place.config();
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    let worker = place.worker_with(config).await;
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.late").await.unwrap();
    let mut twice = client.subscribe("orders.twice").await.unwrap();
    client.flush().await.unwrap();
    // The first answer comes once the second attempt is at it: after its timeout.
    let (service, keys) = (client.clone(), Arc::<Mutex<Vec<String>>>::default());
    let kept = keys.clone();
    tokio::spawn(async move {
        let mut first = None;
        while let Some(message) = asked.next().await {
            kept.lock().unwrap().push(crate::nats::header(&message, "Idempotency-Key").unwrap().to_owned());
            let reply = message.reply.unwrap();
            let Some(before) = first.take() else {
                first = Some(reply);
                continue;
            };
            service.publish(before, "\"late\"".into()).await.unwrap();
            service.publish(reply, "\"in time\"".into()).await.unwrap();
        }
    });
    let service = client.clone();
    tokio::spawn(async move {
        while let Some(message) = twice.next().await {
            let reply = message.reply.unwrap();
            for answer in ["\"first\"", "\"second\""] {
                service.publish(reply.clone(), answer.into()).await.unwrap();
            }
        }
    });
    let rounds = size(3, 50);
    let step =
        |id: &str| json!({"id": id, "description": id, "step": {"kind": "nats", "subject": format!("orders.{id}")}});
    let terms = json!({"task_timeout_ms": 150, "retry_delay_ms": 1});
    for _ in 0..rounds {
        let graph = json!({"tasks": [step("late"), step("twice")]});
        let status = over(&client, &started(&client, &json!({"graph": graph, "options": terms})).await).await;
        let of = |task: &str| (&status["tasks"][task]["output"], &status["tasks"][task]["attempts"]);
        assert_eq!(of("late"), (&json!("in time"), &json!(2)), "{status:#}");
        assert_eq!(of("twice"), (&json!("first"), &json!(1)), "{status:#}");
    }
    assert!(keys.lock().unwrap().chunks(2).all(|pair| pair[0] == pair[1]), "each attempt at a step has its key");

    // The example's service is killed over and over, and comes back.
    let url = place.nats.server.url().to_owned();
    let mut killed = 0;
    for _ in 0..size(2, 20) {
        let service = serving(with_python("examples/workflow/steps.py"), &url).await;
        let graph = json!({"tasks": [
            {"id": "reserve", "description": "two chairs", "step": {"kind": "nats", "subject": "orders.reserve"}},
            {"id": "charge", "description": "charge", "depends_on": ["reserve"], "step": {"kind": "nats", "subject": "orders.charge"}}
        ]});
        let terms = json!({"task_timeout_ms": 500, "retry_delay_ms": 200, "retry_attempts": 20});
        let mut ids = vec![];
        for _ in 0..5 {
            ids.push(started(&client, &json!({"graph": graph, "options": terms})).await);
        }
        drop(service);
        killed += 1;
        let _again = serving(with_python("examples/workflow/steps.py"), &url).await;
        for id in ids {
            let status = over(&client, &id).await;
            assert_eq!(status["tasks"]["charge"]["output"], json!({"charged": 42}), "{status:#}");
        }
    }
    report(
        "a user's service that answers twice, after its timeout, or is killed with the question",
        format!("{rounds} late and {rounds} double answers ignored; {killed} kills, every workflow completed"),
        "each step counts once",
    );
    // What nobody answers is tried as often as allowed, and no more.
    let refused = wire::ask(&client, "workflow.start", &json!({"graph": one_step("$SYS.REQ.SERVER.PING")})).await;
    assert!(refused.is_err());
    let gone = node("gone", &[], tandem::domain::workflow::Step::Nats { subject: "orders.gone".to_owned() });
    let id = worker.workflows.launch(order(vec![gone], options())).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!((seen.steps[0].attempts, seen.steps[0].failure.as_deref()), (4, Some("unavailable")));
    worker.stop().await;
}
