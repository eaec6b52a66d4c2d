//! Several goals: side by side or in turn, each with steps and options of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tandem::domain::workflow::{Command, FailureKind, RunOptions, State, WorkflowId};
use tandem::domain::{Tenant, Timestamp};
use tandem::workflow::{Failure, Order, Workflows};
use tokio::sync::Semaphore;

use crate::process::{output, tandem};
use crate::wire::{ask, over};
use crate::{DONE, Kind, end, native, options, order, status, until};

on_both!(
    Kind:
    each_begins_when_the_one_before_it_is_over,
    another_worker_goes_on_with_the_next,
    one_that_waits_can_be_cancelled_and_what_it_follows_may_go,
);

/// One after the other, each of two tasks.
async fn in_turn(workflows: &Workflows, names: &[&str], terms: RunOptions) -> Vec<WorkflowId> {
    let (mut ids, mut follows) = (vec![], None);
    for name in names {
        let (first, second) = (format!("{name}1"), format!("{name}2"));
        let nodes = vec![native(&first, &[]), native(&second, &[&first])];
        let id = workflows.launch(Order { follows, ..order(nodes, terms.clone()) }).await.unwrap();
        follows = Some(id);
        ids.push(id);
    }
    ids
}

/// Steps that write down that they begin, and wait to be let on. Those of `b` fail.
fn gated(workflows: &Workflows, begun: &Arc<Mutex<Vec<String>>>, gate: &Arc<Semaphore>) {
    let (begun, gate) = (begun.clone(), gate.clone());
    workflows.register("step", move |given| {
        begun.lock().unwrap().push(given.task.to_string());
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            match given.task.as_str() {
                "b1" => Err(Failure::new(FailureKind::Refused, "never")),
                _ => Ok("1".to_owned()),
            }
        }
    });
}

async fn each_begins_when_the_one_before_it_is_over(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (begun, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
    gated(&worker.workflows, &begun, &gate);
    // What waits has no time to lose: it counts from its beginning.
    let terms = RunOptions { timeout: Duration::from_secs(5), ..options() };
    let ids = in_turn(&worker.workflows, &["a", "b", "c"], terms).await;
    until("the first runs", async || (begun.lock().unwrap().len() == 1).then_some(())).await;
    // Something else has its turn meanwhile, so that it is seen that the others do not.
    gate.add_permits(1);
    let other = worker.workflows.launch(order(vec![native("x", &[])], options())).await.unwrap();
    until("two more run", async || (begun.lock().unwrap().len() == 3).then_some(())).await;
    for id in &ids[1..] {
        let seen = status(&worker.workflows, *id).await;
        assert_eq!(seen.listed.state, State::Waiting);
        let refused = worker.workflows.command(&Tenant::default(), *id, Command::Resume).await.unwrap_err();
        assert!(refused.to_string().contains("waiting"), "{refused}");
    }
    gate.add_permits(100);
    let mut ended: Vec<(State, Timestamp, Timestamp)> = vec![];
    for id in &ids {
        let seen = end(&worker.workflows, *id).await;
        let started = seen.steps[0].started.unwrap();
        // Not from when it was launched.
        assert!(seen.steps[0].queued.unwrap() >= ended.last().map_or(Timestamp(0), |(.., at)| *at));
        ended.push((seen.listed.state, started, seen.listed.ended.unwrap()));
    }
    end(&worker.workflows, other).await;
    assert_eq!([ended[0].0, ended[1].0, ended[2].0], [DONE, State::Failed, DONE]);
    assert!(ended.windows(2).all(|pair| pair[1].1 >= pair[0].2), "{ended:?}");
    let mut order = begun.lock().unwrap().clone();
    order.retain(|task| task != "x");
    assert_eq!(order, ["a1", "a2", "b1", "c1", "c2"]);
    let events = worker.workflows.events(&Tenant::default(), Some(ids[2]), 0, 10).await.unwrap();
    assert_eq!((events[0].kind.as_str(), events[0].number), ("execution_started", 1));
    worker.stop().await;
}

async fn another_worker_goes_on_with_the_next(kind: Kind) {
    let place = kind.place().await;
    let mut config = place.config();
    (config.workflow.lease_ms, config.workflow.sweep_ms) = (400, 50);
    let one = place.worker_with(config.clone()).await;
    let (begun, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
    gated(&one.workflows, &begun, &gate);
    let ids = in_turn(&one.workflows, &["a", "c", "d"], options()).await;
    until("the first runs", async || (begun.lock().unwrap().len() == 1).then_some(())).await;
    // Its crash.
    drop(one);
    let two = place.worker_with(config).await;
    gate.add_permits(100);
    gated(&two.workflows, &begun, &gate);
    for id in ids {
        assert_eq!(end(&two.workflows, id).await.listed.state, DONE);
    }
    assert_eq!(*begun.lock().unwrap(), ["a1", "a1", "a2", "c1", "c2", "d1", "d2"]);
    two.stop().await;
}

async fn one_that_waits_can_be_cancelled_and_what_it_follows_may_go(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (begun, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
    gated(&worker.workflows, &begun, &gate);
    let ids = in_turn(&worker.workflows, &["a", "c", "d"], options()).await;
    let cancel = async |id| worker.workflows.command(&Tenant::default(), id, Command::Cancel).await.unwrap();
    assert_eq!(cancel(ids[1]).await, State::Cancelled);
    // The last waits for the second, which is over: it does not wait for the first.
    until("the last begins", async || begun.lock().unwrap().contains(&"d1".to_owned()).then_some(())).await;
    let another = in_turn(&worker.workflows, &["e"], options()).await;
    let order = Order { follows: Some(another[0]), ..order(vec![native("f1", &[])], options()) };
    let last = worker.workflows.launch(order).await.unwrap();
    cancel(another[0]).await;
    until("what follows begins", async || begun.lock().unwrap().contains(&"f1".to_owned()).then_some(())).await;
    gate.add_permits(100);
    for id in [ids[0], ids[2], last] {
        assert_eq!(end(&worker.workflows, id).await.listed.state, DONE);
    }
    worker.stop().await;
}

/// Over NATS and on the command line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goals_have_steps_and_options_of_their_own_and_one_that_fails_takes_none_along() {
    let place = Kind::sqlite().place().await;
    let mut config = place.config();
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    let worker = place.worker_with(config).await;
    let client = place.nats.client().await;
    let mut asked = client.subscribe("orders.*").await.unwrap();
    client.flush().await.unwrap();
    let (service, seen) = (client.clone(), Arc::<Mutex<Vec<String>>>::default());
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let of = message.subject.trim_start_matches("orders.").to_owned();
            let mut headers = async_nats::HeaderMap::new();
            if of == "broken" {
                headers.insert("Nats-Service-Error-Code", "422");
            }
            kept.lock().unwrap().push(of);
            service.publish_with_headers(message.reply.unwrap(), headers, "{\"done\": true}".into()).await.unwrap();
        }
    });
    let steps = |subject: &str| {
        let step = json!({"kind": "nats", "subject": format!("orders.{subject}")});
        json!({"design_schema": step, "implement_endpoints": step, "add_tests": step})
    };
    let goal =
        |name: &str, subject: &str| json!({"goal": format!("Build {name} service API"), "steps": steps(subject)});
    let mut quiet = goal("order", "order");
    quiet["options"] = json!({"monitoring": false});
    let goals = json!([goal("user", "user"), "Make peace", goal("product", "broken"), quiet]);
    for parallel in [true, false] {
        seen.lock().unwrap().clear();
        let body = json!({"goals": goals, "options": {"parallel": parallel, "max_parallel": 1}});
        let said = ask(&client, "workflow.start", &body).await.unwrap();
        let started = said["workflows"].as_array().unwrap();
        assert!(started[1]["workflow_id"].is_null() && started[1]["error"].is_string(), "{said}");
        let mut states = vec![];
        for i in [0, 2, 3] {
            let id = started[i]["workflow_id"].as_str().unwrap();
            let whole = over(&client, id).await;
            let events = ask(&client, "workflow.events", &json!({"workflow_id": id})).await.unwrap();
            states.push((whole["status"].as_str().unwrap().to_owned(), events["events"] == json!([])));
        }
        let state = |state: &str, quiet| (state.to_owned(), quiet);
        assert_eq!(states, [state("completed", false), state("failed", false), state("completed", true)]);
        if !parallel {
            let order = ["user", "user", "user", "broken", "order", "order", "order"];
            assert_eq!(*seen.lock().unwrap(), order);
        }
    }
    let wrong = json!({"goal": "Build user service API", "steps": {"paint": {"kind": "agent"}}});
    let refused = ask(&client, "workflow.start", &wrong).await.unwrap_err();
    assert_eq!(refused["error"], "invalid_goal");
    assert!(refused["message"].as_str().unwrap().contains("'paint', and its tasks are design_schema"), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let variables = [("NATS_URL", place.nats.server.url())];
    let run = async |arguments: &[&str]| output(tandem(folder.path(), &variables, arguments)).await;
    std::fs::write(folder.path().join("steps.json"), steps("user").to_string()).unwrap();
    let ended = run(&["workflow", "run", "Build user service API", "--steps", "steps.json"]).await;
    let (printed, told) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && printed.contains(r#"{"done": true}"#), "{printed} {told}");
    // Taken apart by hand, and started as a graph.
    let ended = run(&["workflow", "decompose", "Build user service API", "--type", "simple"]).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let graph: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let decomposed = ask(&client, "workflow.decompose", &json!({"goal": "Build user service API"})).await.unwrap();
    assert_eq!(decomposed["tasks"], graph["tasks"]);
    let ids: Vec<&str> = graph["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["design_schema", "implement_endpoints", "add_tests"]);
    let id = crate::wire::started(&client, &json!({"graph": graph})).await;
    let shown = ask(&client, "workflow.show", &json!({"workflow_id": id})).await.unwrap();
    assert_eq!(shown["shape"], decomposed["id"]);
    let goals = ["--goal", "Build user service API", "--goal", "Build order service API"];
    let ended = run(&[&["workflow", "start", "--in-turn"][..], &goals].concat()).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let ids: Vec<String> = String::from_utf8(ended.stdout).unwrap().lines().map(str::to_owned).collect();
    let (first, second) = (over(&client, &ids[0]).await, over(&client, &ids[1]).await);
    let begun = |status: &Value| status["tasks"]["design_schema"]["started_ms"].as_i64().unwrap();
    assert!(begun(&second) >= first["ended_ms"].as_i64().unwrap(), "{first:#} {second:#}");
    worker.stop().await;
}
