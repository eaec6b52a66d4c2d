//! kill -9 of workers in the middle of workflows, again and again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::fault::{report, size};
use crate::process::{Served, tandem};
use crate::{Kind, Nats, Place};

on_both!(
    Kind:
    faults_killed_workers_lose_no_workflow_and_repeat_no_finished_step,
    faults_killed_servers_and_workers_lose_no_workflow_and_repeat_no_finished_step,
);

/// How long a step takes.
const STEP: Duration = Duration::from_millis(30);

async fn serve(nats: &Nats, folder: &Path, database: &str) -> Served {
    serve_with(nats, folder, database, &[]).await
}

/// A worker that may ask `orders.*`, ready.
pub async fn serve_with(nats: &Nats, folder: &Path, database: &str, more: &[(&str, &str)]) -> Served {
    let mut served = begin(nats, folder, database, more);
    served.ready().await;
    served
}

/// The same, not waited for.
fn begin(nats: &Nats, folder: &Path, database: &str, more: &[(&str, &str)]) -> Served {
    let none = folder.join("none").display().to_string();
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", database),
        ("TANDEM_ASSETS", none.as_str()),
        ("TANDEM__LOG__LEVEL", "warn,tandem::app=info"),
        ("TANDEM__HTTP__LISTEN", ""),
        ("TANDEM__WORKFLOW__STEP_SUBJECTS", "orders.*"),
    ];
    Served::start(tandem(folder, &[&variables[..], more].concat(), &["serve"]))
}

/// How often the service was asked for each key.
type Asked = Arc<Mutex<HashMap<String, usize>>>;

/// A service that has one effect for each key, and knows how often it was asked.
async fn service(client: Client) -> Asked {
    let asked = Asked::default();
    let mut requests = client.subscribe("orders.*").await.unwrap();
    client.flush().await.unwrap();
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let key = crate::nats::header(&message, "Idempotency-Key").unwrap().to_owned();
            *counted.lock().unwrap().entry(key).or_default() += 1;
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(STEP).await;
                let _ = client.publish(message.reply.unwrap(), "{\"done\": true}".into()).await;
            });
        }
    });
    asked
}

/// Asks until there is an answer: whoever had the question may have been killed.
pub async fn ask(client: &Client, subject: &'static str, body: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let asked = client.request(subject, body.to_string().into());
        if let Ok(Ok(message)) = tokio::time::timeout(Duration::from_secs(2), asked).await
            && crate::nats::header(&message, "Nats-Service-Error-Code").is_none_or(|code| code != "503")
        {
            let answer = crate::nats::json(&message);
            assert!(answer.get("error").is_none(), "{subject}: {answer}");
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody answers on {subject}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn faults_killed_workers_lose_no_workflow_and_repeat_no_finished_step(kind: Kind) {
    let place = kind.place().await;
    let (nats, folder) = (&place.nats, tempfile::tempdir().unwrap());
    let database = match &place.server {
        Some(server) => server.url(),
        None => format!("sqlite:{}", folder.path().join("tandem.db").display()),
    };
    let client = nats.client().await;
    let asked = service(nats.client().await).await;
    let mut workers = vec![];
    for _ in 0..3 {
        workers.push(serve(nats, folder.path(), &database).await);
    }
    let graph = diamond();
    let (mut ids, mut kills) = (vec![], vec![]);
    for round in 0..size(6, 200) {
        for i in 0..4 {
            let body = json!({"graph": graph, "id": format!("w-{round}-{i}")});
            let said = ask(&client, "workflow.start", &body).await;
            ids.push(said["workflow_id"].as_str().unwrap().to_owned());
        }
        // At any point of what they do.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..90))).await;
        let mut killed = workers.remove(0);
        killed.signal("KILL");
        kills.push(Instant::now());
        killed.ended().await;
        workers.push(serve(nats, folder.path(), &database).await);
    }
    let (mut lost, mut slowest) = (0, 0);
    for attempts in attempts_at_completed(&client, &asked, &ids, Duration::from_secs(20)).await {
        let (_, before) = attempts.split_last().unwrap();
        assert!(before.iter().all(|a| a["outcome"] == "lost"), "{attempts:#?}");
        for pair in attempts.windows(2) {
            // From the last sign of life that can have been given to the next attempt.
            let gap = pair[1]["started_ms"].as_i64().unwrap() - pair[0]["started_ms"].as_i64().unwrap();
            slowest = slowest.max(gap);
            lost += 1;
        }
    }
    let what = if place.server.is_some() { "PostgreSQL" } else { "SQLite" };
    report(
        &format!("kill -9 of one of three workers in the middle of workflows, {} times, {what}", kills.len()),
        format!(
            "{} of {} workflows completed; {lost} attempts lost, begun again at most {slowest} ms after they began",
            ids.len(),
            ids.len()
        ),
        "all, no finished step again, ≤ 2 s",
    );
    // What began a moment before the kill waits for the lease and the sweep.
    assert!(slowest <= 2_000 + 100, "{slowest} ms");
    drop(workers);
}

/// Waits until all are completed. The attempts at each of their tasks: the last ended it, and its service had one key for all.
async fn attempts_at_completed(client: &Client, asked: &Asked, ids: &[String], within: Duration) -> Vec<Vec<Value>> {
    let mut all = vec![];
    for id in ids {
        let begun = Instant::now();
        let status = loop {
            let status = ask(client, "workflow.status", &json!({"workflow_id": id})).await;
            if status["status"] != "running" {
                break status;
            }
            assert!(begun.elapsed() < within, "{id} does not end: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status["status"], "completed", "{status:#}");
        let shown = ask(client, "workflow.show", &json!({"workflow_id": id})).await;
        let mut by_task: HashMap<&str, Vec<Value>> = HashMap::new();
        for attempt in shown["attempts"].as_array().unwrap() {
            by_task.entry(attempt["task"].as_str().unwrap()).or_default().push(attempt.clone());
        }
        assert_eq!(by_task.len(), 6);
        let asked = asked.lock().unwrap();
        for (task, attempts) in by_task {
            assert_eq!(attempts.last().unwrap()["outcome"], "completed", "{id} {task}: {attempts:#?}");
            let times = asked.iter().filter(|(key, _)| key.starts_with(&format!("{id}/{task}/")));
            let times: Vec<usize> = times.map(|(_, times)| *times).collect();
            assert!(times.len() == 1 && times[0] <= attempts.len(), "{id} {task}: asked {times:?}, {attempts:#?}");
            all.push(attempts);
        }
    }
    all
}

/// a, then four beside each other, then the last.
fn diamond() -> Value {
    let step = |id: &str, needs: &[&str]| json!({"id": id, "description": id, "depends_on": needs, "step": {"kind": "nats", "subject": "orders.do"}});
    let middle = ["b1", "b2", "b3", "b4"];
    let mut tasks = vec![step("a", &[])];
    tasks.extend(middle.iter().map(|id| step(id, &["a"])));
    tasks.push(step("last", &middle));
    json!({"tasks": tasks})
}

/// Workers, nats-server, or a worker and the server, whatever they are at: starting, too.
async fn faults_killed_servers_and_workers_lose_no_workflow_and_repeat_no_finished_step(kind: Kind) {
    let Place { mut nats, server, .. } = kind.place().await;
    let folder = tempfile::tempdir().unwrap();
    let database = match &server {
        Some(server) => server.url(),
        None => format!("sqlite:{}", folder.path().join("tandem.db").display()),
    };
    let client = nats.client().await;
    let asked = service(nats.client().await).await;
    let mut workers = vec![];
    for _ in 0..3 {
        workers.push(serve(&nats, folder.path(), &database).await);
    }
    let graph = diamond();
    // Without the server a step's attempt is in vain: that is a failure that may pass.
    let terms = json!({"retry_attempts": 20, "retry_delay_ms": 20, "task_timeout_ms": 2_000, "timeout_ms": 120_000});
    let (mut ids, mut killed) = (vec![], [0, 0]);
    for round in 0..size(6, 230) {
        for i in 0..2 {
            let body = json!({"graph": graph, "id": format!("w-{round}-{i}"), "options": terms});
            let said = ask(&client, "workflow.start", &body).await;
            ids.push(said["workflow_id"].as_str().unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..120))).await;
        // Each of the three is among the first three rounds.
        let what = if round < 3 { round } else { rand::random_range(0..3) };
        if what != 1 {
            let mut worker = workers.swap_remove(rand::random_range(0..workers.len()));
            worker.signal("KILL");
            worker.ended().await;
            killed[0] += 1;
        }
        if what != 0 {
            nats = nats.crash().await;
            killed[1] += 1;
        }
        if what != 1 {
            workers.push(begin(&nats, folder.path(), &database, &[]));
        }
    }
    let mut again = 0;
    for attempts in attempts_at_completed(&client, &asked, &ids, Duration::from_secs(60)).await {
        let (_, before) = attempts.split_last().unwrap();
        assert!(before.iter().all(|a| a["outcome"] == "lost" || a["outcome"] == "retried"), "{attempts:#?}");
        again += before.len();
    }
    let what = if server.is_some() { "PostgreSQL" } else { "SQLite" };
    let [workers_killed, servers_killed] = killed;
    report(
        &format!(
            "kill -9 of a worker ({workers_killed} times), of nats-server ({servers_killed} times), of both, in the middle of workflows, {what}"
        ),
        format!("{0} of {0} workflows completed; {again} attempts begun again", ids.len()),
        "all, no finished step again",
    );
    drop(workers);
}

/// What has ended is kept while the database is away, and committed when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_a_database_that_goes_away_loses_no_workflow() {
    let mut place = Kind::postgres().place().await;
    let worker = place.worker().await;
    let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = begun.clone();
    worker.workflows.register("step", move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok("1".to_owned())
        }
    });
    let mut ids = vec![];
    for _ in 0..10 {
        let names: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
        let chain = |i: usize| match i {
            0 => crate::native(&names[0], &[]),
            i => crate::native(&names[i], &[names[i - 1].as_str()]),
        };
        ids.push(worker.workflows.launch(crate::order((0..20).map(chain).collect(), crate::options())).await.unwrap());
    }
    let some = async || (begun.load(std::sync::atomic::Ordering::SeqCst) > 40).then_some(());
    crate::until("some steps are done", some).await;
    let server = place.server.as_mut().unwrap();
    server.pause();
    let done = begun.load(std::sync::atomic::Ordering::SeqCst);
    assert!(done < 200, "all was done before: nothing is tested");
    let refused = worker.workflows.launch(crate::order(vec![crate::native("x", &[])], crate::options())).await;
    assert!(matches!(refused, Err(tandem::workflow::Error::Unavailable(_))), "{refused:?}");
    assert!(server.resume());
    let back = Instant::now();
    for id in ids {
        let seen = crate::end(&worker.workflows, id).await;
        assert_eq!((seen.listed.state, seen.listed.completed), (crate::DONE, 20));
    }
    report(
        "PostgreSQL gone in the middle of workflows",
        format!("10 of 10 completed, {:?} after it was back", back.elapsed()),
        "all",
    );
    worker.stop().await;
}
