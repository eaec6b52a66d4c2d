//! The engine by itself, with closures as steps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tandem::domain::Tenant;
use tandem::domain::workflow::{Command, FailureKind, Policy, RunOptions, State, TaskState};
use tandem::workflow::{Error, Failure, Given, Workflows};
use tokio::sync::Semaphore;

use crate::{DONE, Kind, end, native, node, options, order, output, states, status, until};

on_both!(
    Kind:
    outputs_flow_to_what_depends_on_them,
    what_fails_is_tried_again_and_what_depends_on_a_failure_is_skipped,
    a_retry_does_only_what_is_not_done,
    cancel_breaks_off_what_runs,
    a_paused_workflow_begins_nothing_until_it_is_resumed,
    no_more_run_at_a_time_than_allowed,
    a_workflow_that_takes_too_long_fails,
    workers_share_the_steps_and_none_runs_twice,
    a_lost_worker_s_steps_are_done_by_another_and_it_can_not_commit,
    what_waits_longest_or_is_urgent_comes_first,
    the_same_id_is_the_same_workflow,
    another_tenant_s_workflow_is_unknown,
    a_group_waits_for_all_that_is_in_it,
    events_are_numbered_without_a_gap,
);

/// How often each task was done.
#[derive(Clone, Default)]
struct Count(Arc<Mutex<HashMap<String, usize>>>);

impl Count {
    fn add(&self, given: &Given) {
        *self.0.lock().unwrap().entry(given.key.clone()).or_default() += 1;
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }
}

fn noop(workflows: &Workflows) -> Count {
    let count = Count::default();
    let counted = count.clone();
    workflows.register("step", move |given| {
        counted.add(&given);
        async move { Ok(format!("\"{}\"", given.task)) }
    });
    count
}

/// Steps that begin and wait to be let on.
fn gated(workflows: &Workflows) -> (Arc<AtomicUsize>, Arc<Semaphore>) {
    let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counter, waits) = (begun.clone(), gate.clone());
    workflows.register("step", move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let waits = waits.clone();
        async move {
            waits.acquire().await.unwrap().forget();
            Ok("1".to_owned())
        }
    });
    (begun, gate)
}

async fn outputs_flow_to_what_depends_on_them(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    worker.workflows.register("step", |given| async move {
        let mut whole: Vec<String> = given.inputs.values().map(|json| serde_json::from_str(json).unwrap()).collect();
        whole.push(given.task.to_string());
        Ok(serde_json::to_string(&whole.join("-")).unwrap())
    });
    let nodes = vec![native("a", &[]), native("b", &["a"]), native("c", &["a"]), native("d", &["b", "c"])];
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!(seen.listed.state, DONE, "{seen:?}");
    assert_eq!(output(&worker.workflows, &seen, "d").await, "\"a-b-a-c-d\"");
    let attempts = worker.workflows.attempts(seen.listed.number).await.unwrap();
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|a| a.outcome == "completed" && a.output_bytes > Some(0) && a.took.is_some()));
    assert_eq!(attempts[3].input_bytes, Some(10));
    worker.stop().await;
}

async fn what_fails_is_tried_again_and_what_depends_on_a_failure_is_skipped(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    worker.workflows.register("step", |given| async move {
        match (given.task.as_str(), given.attempt) {
            ("flaky", 1) => Err(Failure::new(FailureKind::Failed, "once")),
            ("flaky", 2) => panic!("the step breaks"),
            ("hopeless", _) => Err(Failure::new(FailureKind::Unavailable, "nobody \0 there")),
            ("refused", _) => Err(Failure::new(FailureKind::Refused, "never")),
            ("large", _) => Ok(format!("\"{}\"", "x".repeat(2_000_000))),
            ("broken", _) => Ok("{".to_owned()),
            _ => Ok("null".to_owned()),
        }
    });
    let nodes = vec![
        native("flaky", &[]),
        native("hopeless", &[]),
        native("refused", &[]),
        native("large", &[]),
        native("broken", &[]),
        native("after_flaky", &["flaky"]),
        native("after_hopeless", &["hopeless", "flaky"]),
        native("after_that", &["after_hopeless"]),
    ];
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!((seen.listed.state, seen.listed.reason.as_deref()), (State::Failed, Some("4 tasks failed")));
    use TaskState as S;
    assert_eq!(
        states(&seen),
        [S::Completed, S::Failed, S::Failed, S::Failed, S::Failed, S::Completed, S::Skipped, S::Skipped]
    );
    let attempts: Vec<u32> = seen.steps.iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [3, 4, 1, 1, 1, 1, 0, 0]);
    let why = |i: usize| (seen.steps[i].failure.as_deref().unwrap(), seen.steps[i].message.as_deref().unwrap());
    assert_eq!(why(1), ("unavailable", "nobody \u{fffd} there"));
    assert_eq!(why(2), ("refused", "never"));
    assert!(why(3).1.contains("workflow.max_output_bytes") && why(4).1.contains("no JSON"), "{seen:?}");
    worker.stop().await;
}

async fn a_retry_does_only_what_is_not_done(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (count, sick) = (Count::default(), Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let (counted, is_sick) = (count.clone(), sick.clone());
    worker.workflows.register("step", move |given| {
        let sick = is_sick.load(Ordering::SeqCst) && given.task.as_str() == "b";
        if !sick {
            counted.add(&given);
        }
        async move { if sick { Err(Failure::new(FailureKind::Refused, "sick")) } else { Ok("1".to_owned()) } }
    });
    let nodes = vec![native("a", &[]), native("b", &["a"]), native("c", &["b"]), native("other", &[])];
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    assert_eq!(end(&worker.workflows, id).await.listed.state, State::Failed);
    sick.store(false, Ordering::SeqCst);
    let state = worker.workflows.command(&Tenant::default(), id, Command::Retry).await.unwrap();
    assert_eq!(state, State::Running);
    let seen = end(&worker.workflows, id).await;
    assert_eq!((seen.listed.state, seen.listed.failed_tasks), (DONE, 0), "{seen:?}");
    assert_eq!((count.all(), count.most()), (4, 1));
    let refused = worker.workflows.command(&Tenant::default(), id, Command::Retry).await.unwrap_err();
    assert!(matches!(refused, Error::NotAllowed(_)), "{refused}");
    worker.stop().await;
}

async fn cancel_breaks_off_what_runs(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, guard) = (begun.clone(), dropped.clone());
    worker.workflows.register("step", move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let guard = Dropped(guard.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok("1".to_owned())
        }
    });
    let nodes = vec![native("a", &[]), native("b", &[]), native("c", &["a"])];
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    until("both run", async || (begun.load(Ordering::SeqCst) == 2).then_some(())).await;
    worker.workflows.command(&Tenant::default(), id, Command::Cancel).await.unwrap();
    until("both are broken off", async || (dropped.load(Ordering::SeqCst) == 2).then_some(())).await;
    until("nothing runs", async || (worker.workflows.running() == 0).then_some(())).await;
    let seen = status(&worker.workflows, id).await;
    assert_eq!(seen.listed.state, State::Cancelled);
    assert_eq!(states(&seen), [TaskState::Cancelled; 3]);
    // And may be taken up again.
    noop(&worker.workflows);
    worker.workflows.command(&Tenant::default(), id, Command::Retry).await.unwrap();
    assert_eq!(end(&worker.workflows, id).await.listed.state, DONE);
    worker.stop().await;
}

async fn a_paused_workflow_begins_nothing_until_it_is_resumed(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (begun, gate) = gated(&worker.workflows);
    let nodes = vec![native("a", &[]), native("b", &["a"])];
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    until("the first runs", async || (begun.load(Ordering::SeqCst) == 1).then_some(())).await;
    worker.workflows.command(&Tenant::default(), id, Command::Pause).await.unwrap();
    gate.add_permits(10);
    // It comes to its end, and what depends on it is ready and not begun.
    let ready = async || (status(&worker.workflows, id).await.steps[1].state == TaskState::Ready).then_some(());
    until("the second is ready", ready).await;
    let other = worker.workflows.launch(order(vec![native("x", &[])], options())).await.unwrap();
    assert_eq!(end(&worker.workflows, other).await.listed.state, DONE);
    let seen = status(&worker.workflows, id).await;
    assert_eq!((seen.listed.state, states(&seen)), (State::Paused, vec![TaskState::Completed, TaskState::Ready]));
    worker.workflows.command(&Tenant::default(), id, Command::Resume).await.unwrap();
    assert_eq!(end(&worker.workflows, id).await.listed.state, DONE);
    worker.stop().await;
}

async fn no_more_run_at_a_time_than_allowed(kind: Kind) {
    let place = kind.place().await;
    let (one, two) = (place.worker().await, place.worker().await);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for worker in [&one, &two] {
        let (now, most) = (now.clone(), most.clone());
        worker.workflows.register("step", move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(3)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok("1".to_owned())
            }
        });
    }
    let nodes = (0..60).map(|i| native(&format!("t{i}"), &[])).collect();
    let id = one.workflows.launch(order(nodes, RunOptions { max_parallel: 3, ..options() })).await.unwrap();
    assert_eq!(end(&one.workflows, id).await.listed.state, DONE);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    one.stop().await;
    two.stop().await;
}

async fn a_workflow_that_takes_too_long_fails(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let (_, gate) = gated(&worker.workflows);
    let mut slow = native("slow", &[]);
    slow.policy = Policy { timeout: Some(Duration::from_millis(30)), retry_attempts: Some(1), ..Policy::default() };
    let short = worker.workflows.launch(order(vec![slow], options())).await.unwrap();
    let seen = end(&worker.workflows, short).await;
    assert_eq!((seen.listed.state, seen.steps[0].attempts), (State::Failed, 2));
    assert_eq!(seen.steps[0].failure.as_deref(), Some("timed_out"));
    let terms = RunOptions { timeout: Duration::from_millis(100), ..options() };
    let id = worker.workflows.launch(order(vec![native("a", &[]), native("b", &["a"])], terms)).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!(seen.listed.state, State::Failed);
    assert!(seen.listed.reason.unwrap().contains("timeout"));
    until("nothing runs", async || (worker.workflows.running() == 0).then_some(())).await;
    gate.close();
    worker.stop().await;
}

async fn workers_share_the_steps_and_none_runs_twice(kind: Kind) {
    let place = kind.place().await;
    let mut config = place.config();
    config.workflow.max_concurrent = 4;
    let mut workers = vec![];
    let counts: Vec<Count> = (0..3).map(|_| Count::default()).collect();
    for count in &counts {
        let worker = place.worker_with(config.clone()).await;
        let counted = count.clone();
        worker.workflows.register("step", move |given| {
            counted.add(&given);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok("1".to_owned())
            }
        });
        workers.push(worker);
    }
    let mut ids = vec![];
    for _ in 0..10 {
        let mut nodes: Vec<_> = (0..20).map(|i| native(&format!("t{i}"), &[])).collect();
        let names: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
        nodes.push(native("last", &names.iter().map(String::as_str).collect::<Vec<_>>()));
        ids.push(workers[0].workflows.launch(order(nodes, options())).await.unwrap());
    }
    let mut again = vec![];
    for id in ids {
        let seen = end(&workers[0].workflows, id).await;
        assert_eq!(seen.listed.state, DONE);
        let attempts = workers[0].workflows.attempts(seen.listed.number).await.unwrap();
        again.extend(attempts.into_iter().filter(|attempt| attempt.outcome != "completed"));
    }
    let done: Vec<usize> = counts.iter().map(Count::all).collect();
    assert_eq!(done.iter().sum::<usize>(), 210, "{done:?} {again:?}");
    assert!(done.iter().all(|n| *n > 0), "{done:?}");
    for worker in workers {
        worker.stop().await;
    }
}

async fn a_lost_worker_s_steps_are_done_by_another_and_it_can_not_commit(kind: Kind) {
    let place = kind.place().await;
    let mut config = place.config();
    config.workflow.lease_ms = 400;
    config.workflow.sweep_ms = 50;
    let one = place.worker_with(config.clone()).await;
    let (begun, gate) = gated(&one.workflows);
    let id = one.workflows.launch(order(vec![native("a", &[]), native("b", &["a"])], options())).await.unwrap();
    until("it runs", async || (begun.load(Ordering::SeqCst) == 1).then_some(())).await;
    // Dropped, a worker gives no sign any more; what it was doing goes on for a while.
    drop(one);
    let two = place.worker_with(config).await;
    let count = noop(&two.workflows);
    let lost = Instant::now();
    let seen = end(&two.workflows, id).await;
    assert!(lost.elapsed() < Duration::from_secs(2), "{:?}", lost.elapsed());
    gate.add_permits(10);
    assert_eq!((seen.listed.state, count.all()), (DONE, 2));
    let attempts = two.workflows.attempts(seen.listed.number).await.unwrap();
    let outcomes: Vec<&str> = attempts.iter().map(|a| a.outcome.as_str()).collect();
    assert_eq!(outcomes, ["lost", "completed", "completed"]);
    // Losing its worker is not a task's fault.
    assert_eq!(seen.steps[0].attempts, 1);
    assert_eq!(output(&two.workflows, &seen, "a").await, "\"a\"");
    two.stop().await;
}

async fn what_waits_longest_or_is_urgent_comes_first(kind: Kind) {
    let place = kind.place().await;
    let mut config = place.config();
    config.workflow.max_concurrent = 1;
    let worker = place.worker_with(config).await;
    let (begun, gate) = gated(&worker.workflows);
    let first = worker.workflows.launch(order(vec![native("first", &[])], options())).await.unwrap();
    until("it runs", async || (begun.load(Ordering::SeqCst) == 1).then_some(())).await;
    let order_of = Arc::new(Mutex::new(vec![]));
    let noted = order_of.clone();
    worker.workflows.register("noted", move |given| {
        noted.lock().unwrap().push(given.task.to_string());
        async move { Ok("1".to_owned()) }
    });
    let mut ids = vec![first];
    for (name, priority) in [("second", 0), ("third", 0), ("urgent", 5), ("idle", -5)] {
        let step = tandem::domain::workflow::Step::Native { name: "noted".to_owned() };
        let one = order(vec![node(name, &[], step)], RunOptions { priority, ..options() });
        ids.push(worker.workflows.launch(one).await.unwrap());
    }
    gate.add_permits(1);
    for id in ids {
        end(&worker.workflows, id).await;
    }
    assert_eq!(*order_of.lock().unwrap(), ["urgent", "second", "third", "idle"]);
    worker.stop().await;
}

async fn the_same_id_is_the_same_workflow(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let count = noop(&worker.workflows);
    let id = tandem::domain::RequestId::parse("nightly-7").unwrap();
    let with = |hash: u8| {
        let request = Some((id.clone(), [hash; 32]));
        tandem::workflow::Order { request, ..order(vec![native("a", &[])], options()) }
    };
    let first = worker.workflows.launch(with(1)).await.unwrap();
    assert_eq!(worker.workflows.launch(with(1)).await.unwrap(), first);
    assert!(matches!(worker.workflows.launch(with(2)).await, Err(Error::IdConflict { .. })));
    end(&worker.workflows, first).await;
    assert_eq!(count.all(), 1);
    let unknown =
        order(vec![node("a", &[], tandem::domain::workflow::Step::Native { name: "no".to_owned() })], options());
    assert!(matches!(worker.workflows.launch(unknown).await, Err(Error::NoNative { .. })));
    worker.stop().await;
}

async fn another_tenant_s_workflow_is_unknown(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    noop(&worker.workflows);
    let id = worker.workflows.launch(order(vec![native("a", &[])], options())).await.unwrap();
    end(&worker.workflows, id).await;
    let other = Tenant::parse("other").unwrap();
    assert!(matches!(worker.workflows.status(&other, id).await, Err(Error::Unknown { .. })));
    assert!(matches!(worker.workflows.command(&other, id, Command::Cancel).await, Err(Error::Unknown { .. })));
    assert!(matches!(worker.workflows.events(&other, Some(id), 0, 10).await, Err(Error::Unknown { .. })));
    assert!(worker.workflows.events(&other, None, 0, 10).await.unwrap().is_empty());
    let filter = tandem::workflow::ListFilter { limit: 10, ..Default::default() };
    assert!(worker.workflows.list(&other, &filter).await.unwrap().is_empty());
    assert_eq!(worker.workflows.list(&Tenant::default(), &filter).await.unwrap().len(), 1);
    worker.stop().await;
}

async fn a_group_waits_for_all_that_is_in_it(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    worker.workflows.register("step", |given| async move {
        Ok(serde_json::to_string(&given.inputs.keys().map(|id| id.as_str()).collect::<Vec<_>>()).unwrap())
    });
    let mut nodes = vec![native("first", &[]), native("group", &["first"]), native("a", &[]), native("b", &["a"])];
    nodes[2].task.parent = Some(tandem::domain::TaskId::new("group"));
    nodes[3].task.parent = Some(tandem::domain::TaskId::new("group"));
    nodes.push(native("last", &["group"]));
    let id = worker.workflows.launch(order(nodes, options())).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!((seen.listed.state, states(&seen)), (DONE, vec![TaskState::Completed; 5]));
    assert_eq!(output(&worker.workflows, &seen, "a").await, r#"["first"]"#);
    assert_eq!(output(&worker.workflows, &seen, "b").await, r#"["a","first"]"#);
    assert_eq!(output(&worker.workflows, &seen, "last").await, r#"["a","b"]"#);
    worker.stop().await;
}

async fn events_are_numbered_without_a_gap(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    worker.workflows.register("step", |given| async move {
        match (given.task.as_str(), given.attempt) {
            ("b", 1) => Err(Failure::new(FailureKind::Failed, "once")),
            _ => Ok("1".to_owned()),
        }
    });
    let nodes = vec![native("a", &[]), native("b", &["a"])];
    let id = worker.workflows.launch(order(nodes.clone(), options())).await.unwrap();
    end(&worker.workflows, id).await;
    let events = worker.workflows.events(&Tenant::default(), Some(id), 0, 100).await.unwrap();
    let told: Vec<String> = events
        .iter()
        .map(|e| format!("{} {} {}", e.number, e.kind, e.task.as_ref().map_or("", |t| t.as_str())))
        .collect();
    assert_eq!(
        told,
        [
            "1 execution_started ",
            "2 task_started a",
            "3 task_completed a",
            "4 task_started b",
            "5 task_retried b",
            "6 task_started b",
            "7 task_completed b",
            "8 execution_completed "
        ]
    );
    let later = worker.workflows.events(&Tenant::default(), Some(id), 6, 100).await.unwrap();
    assert_eq!(later.iter().map(|e| e.number).collect::<Vec<_>>(), [7, 8]);
    let silent = RunOptions { monitoring: false, ..options() };
    let quiet = worker.workflows.launch(order(vec![native("a", &[])], silent)).await.unwrap();
    end(&worker.workflows, quiet).await;
    assert!(worker.workflows.events(&Tenant::default(), Some(quiet), 0, 100).await.unwrap().is_empty());
    worker.stop().await;
}

/// Not on PostgreSQL too: it is about time, and one is enough beside others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_steps_run() {
    let place = Kind::sqlite().place().await;
    let worker = place.worker().await;
    let count = noop(&worker.workflows);
    let nodes = (0..10_000).map(|i| native(&format!("t{i}"), &[])).collect();
    let begun = Instant::now();
    let id = worker.workflows.launch(order(nodes, RunOptions { max_parallel: 1_000, ..options() })).await.unwrap();
    let started = begun.elapsed();
    let seen = end(&worker.workflows, id).await;
    println!("10,000 steps: accepted in {started:?}, done in {:?}", begun.elapsed());
    assert_eq!((seen.listed.state, count.all(), count.most()), (DONE, 10_000, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_does_a_step_and_says_how() {
    let place = Kind::sqlite().place().await;
    let worker = place.worker().await;
    let mut agent = node("consumer", &[], tandem::domain::workflow::Step::default());
    agent.task.description = "Create a NATS consumer for processing user events in elixir".to_owned();
    let mut nobody = node("path", &[], tandem::domain::workflow::Step::default());
    nobody.task.description = "Write a function to find the minimum cost path in a matrix in rust".to_owned();
    let id = worker.workflows.launch(order(vec![agent, nobody], options())).await.unwrap();
    let seen = end(&worker.workflows, id).await;
    assert_eq!(states(&seen), [TaskState::Completed, TaskState::Failed]);
    let output: serde_json::Value = serde_json::from_str(&output(&worker.workflows, &seen, "consumer").await).unwrap();
    assert_eq!((&output["method"], &output["language"]), (&"autonomous".into(), &"elixir".into()));
    assert!(output["text"].as_str().unwrap().contains("UserEvents"), "{output}");
    // Rules decline it, and there is no model: once is enough.
    assert_eq!((seen.steps[1].failure.as_deref(), seen.steps[1].attempts), (Some("undone"), 1));
    worker.stop().await;
}
