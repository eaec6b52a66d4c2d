//! What a run is given of a plan, on the real engine: each change is seen in the records, given, and kept to.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tandem::domain::workflow::{Command, FailureKind, Manner, Node, OptimizationLevel, RunOptions, State, TaskState};
use tandem::domain::{TaskId, Tenant};
use tandem::workflow::{Failure, Given, Seen, Workflows, optimize};
use tokio::sync::Semaphore;

use crate::fault::size;
use crate::worker::Running;
use crate::{DONE, Kind, Place, end, native, options, order, output, states, status, until};

on_both!(
    Kind:
    a_pause_is_as_long_as_helped_after_such_a_failure,
    a_chain_is_done_in_one_hand_where_its_dispatch_was_seen_to_cost,
    what_fails_in_a_chain_is_tried_again_and_what_came_before_is_done,
    a_cancelled_chain_commits_nothing_and_a_retry_does_it_with_the_same_keys,
    a_chain_whose_worker_is_lost_is_done_again_with_the_same_keys,
    a_second_try_beside_a_straggler_wins,
    a_failure_counts_only_where_both_tries_have_failed,
    what_a_pure_step_came_to_is_taken_again,
    who_does_not_take_an_output_need_not_wait_for_it_by_name,
    a_plan_under_which_runs_are_slower_is_rolled_back,
    what_a_higher_level_would_change_is_recommended_once,
    a_plan_changes_no_output_and_no_required_order,
);

/// So many runs of a graph, side by side, all as they are given.
async fn record(place: &Place, worker: &Running, runs: usize, graph: impl Fn() -> Vec<Node>, terms: &RunOptions) {
    let mut config = place.config();
    config.workflow.max_concurrent = 0;
    config.workflow.optimization.enabled = false;
    let starter = place.worker_with(config).await;
    starter.workflows.register("step", |_| async { Ok("1".to_owned()) });
    let mut ids = vec![];
    for _ in 0..runs {
        ids.push(starter.workflows.launch(order(graph(), terms.clone())).await.unwrap());
    }
    for id in ids {
        assert!(!end(&worker.workflows, id).await.listed.planned);
    }
    starter.stop().await;
}

async fn plan(workflows: &Workflows, graph: Vec<Node>, terms: &RunOptions) -> optimize::Plan {
    let order = order(graph, terms.clone());
    workflows.plan(&Tenant::default(), &order.graph, &order.options).await.unwrap()
}

fn advanced() -> RunOptions {
    RunOptions { optimization_level: OptimizationLevel::Advanced, ..options() }
}

/// A service that is there again after 400 ms: whoever asks sooner asks in vain.
async fn a_pause_is_as_long_as_helped_after_such_a_failure(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let first: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    workflows.register("step", move |given: Given| {
        let since = first.lock().unwrap().entry(given.key).or_insert_with(Instant::now).elapsed();
        async move {
            match given.attempt > 1 && since >= Duration::from_millis(400) {
                true => Ok("1".to_owned()),
                false => Err(Failure::new(FailureKind::Unavailable, "not yet")),
            }
        }
    });
    let graph = || vec![native("service", &[])];
    let terms = RunOptions { retry_delay: Duration::from_secs(2), ..advanced() };
    record(&place, &worker, 90, graph, &terms).await;
    let plan = plan(workflows, graph(), &terms).await;
    let learnt = plan.changes.iter().find_map(|change| match change.edit {
        optimize::Edit::Backoff { failure: optimize::Failure::Unavailable, to, .. } => Some(to.first),
        _ => None,
    });
    let learnt = learnt.unwrap_or_else(|| panic!("{plan}"));
    assert!(learnt > Duration::from_millis(400), "{plan}");
    let mut ids = vec![];
    for _ in 0..10 {
        ids.push(workflows.launch(order(graph(), terms.clone())).await.unwrap());
    }
    for id in ids {
        let seen = end(workflows, id).await;
        let attempts = workflows.attempts(seen.listed.number).await.unwrap();
        // The database's times are whole milliseconds.
        let paused = attempts[1].queued.since(attempts[0].ended) + Duration::from_millis(2);
        assert!(paused >= learnt, "{paused:?} of {learnt:?}");
    }
    worker.stop().await;
}

async fn kinds(workflows: &Workflows, seen: &Seen) -> Vec<String> {
    let events = workflows.events(&Tenant::default(), Some(seen.listed.id), 0, 1_000).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let named = |event: tandem::domain::workflow::Event| match event.task {
        Some(task) => format!("{} {task}", event.kind),
        None => event.kind.to_string(),
    };
    events.into_iter().map(named).collect()
}

/// By the names of the tasks, in the order of their beginnings.
async fn manners(workflows: &Workflows, seen: &Seen) -> Vec<(String, String, Manner)> {
    let attempts = workflows.attempts(seen.listed.number).await.unwrap();
    let name = |position| seen.graph.node(position).unwrap().task.id.to_string();
    attempts.into_iter().map(|a| (name(a.position), a.outcome, a.manner)).collect()
}

fn chain() -> Vec<Node> {
    vec![native("a", &[]), native("b", &["a"]), native("c", &["b"]), native("d", &["c"])]
}

/// A chain that is done in one hand, as a plan would have it.
fn fused() -> Vec<Node> {
    let mut nodes = chain();
    nodes[1..].iter_mut().for_each(|node| node.policy.follows = true);
    nodes
}

/// Adds its own name to what it is given, and counts how often it did a thing.
fn names(workflows: &Workflows) -> Arc<Mutex<HashMap<String, usize>>> {
    let count = Arc::<Mutex<HashMap<String, usize>>>::default();
    let counted = count.clone();
    workflows.register("step", move |given: Given| {
        *counted.lock().unwrap().entry(given.key.clone()).or_default() += 1;
        async move { Ok(named(&given)) }
    });
    count
}

fn named(given: &Given) -> String {
    let mut whole: Vec<String> = given.inputs.values().map(|json| serde_json::from_str(json).unwrap()).collect();
    whole.push(given.task.to_string());
    serde_json::to_string(&whole.join("-")).unwrap()
}

async fn a_chain_is_done_in_one_hand_where_its_dispatch_was_seen_to_cost(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let count = names(workflows);
    record(&place, &worker, 60, chain, &advanced()).await;
    let plan = plan(workflows, chain(), &advanced()).await;
    let fuse =
        plan.changes.iter().any(|change| matches!(&change.edit, optimize::Edit::Fuse { chain } if chain.len() == 4));
    assert!(fuse, "{plan}");
    let id = workflows.launch(order(chain(), advanced())).await.unwrap();
    let seen = end(workflows, id).await;
    assert_eq!((seen.listed.state, seen.listed.completed, seen.listed.planned), (DONE, 4, true));
    assert_eq!(output(workflows, &seen, "d").await, "\"a-b-c-d\"");
    assert_eq!(output(workflows, &seen, "b").await, "\"a-b\"");
    let followed: Vec<Manner> = manners(workflows, &seen).await.into_iter().map(|(.., manner)| manner).collect();
    assert_eq!(followed, [Manner::Alone, Manner::Followed, Manner::Followed, Manner::Followed]);
    let told = kinds(workflows, &seen).await;
    let rest: Vec<&str> = told.iter().map(String::as_str).filter(|told| told.starts_with("task")).collect();
    let expected = ["a", "b", "c", "d"].map(|task| [format!("task_started {task}"), format!("task_completed {task}")]);
    assert_eq!(rest, expected.as_flattened());
    assert!(seen.steps.iter().all(|step| step.started.is_some() && step.ended >= step.started && step.attempts == 1));
    assert!(count.lock().unwrap().values().all(|times| *times == 1));
    worker.stop().await;
}

async fn what_fails_in_a_chain_is_tried_again_and_what_came_before_is_done(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    workflows.register("step", |given: Given| async move {
        match (given.task.as_str(), given.attempt) {
            ("c", 1) => Err(Failure::new(FailureKind::Failed, "once")),
            ("x", _) => Err(Failure::new(FailureKind::Refused, "never")),
            _ => Ok(named(&given)),
        }
    });
    let id = workflows.launch(order(fused(), options())).await.unwrap();
    let seen = end(workflows, id).await;
    assert_eq!((seen.listed.state, output(workflows, &seen, "d").await.as_str()), (DONE, "\"a-b-c-d\""));
    let made: Vec<(String, String, Manner)> = manners(workflows, &seen).await;
    let made: Vec<(&str, &str, Manner)> = made.iter().map(|(t, o, m)| (t.as_str(), o.as_str(), *m)).collect();
    let (alone, followed) = (Manner::Alone, Manner::Followed);
    assert_eq!(
        made,
        [
            ("a", "completed", alone),
            ("b", "completed", followed),
            ("c", "retried", followed),
            ("c", "completed", alone),
            ("d", "completed", followed)
        ]
    );
    kinds(workflows, &seen).await;
    // What depends on a failure in the middle is skipped, and what came before it is done.
    let mut nodes = vec![native("a", &[]), native("x", &["a"]), native("y", &["x"]), native("z", &["y"])];
    nodes[1..].iter_mut().for_each(|node| node.policy.follows = true);
    let id = workflows.launch(order(nodes, options())).await.unwrap();
    let seen = end(workflows, id).await;
    use TaskState as S;
    assert_eq!(
        (seen.listed.state, states(&seen)),
        (State::Failed, vec![S::Completed, S::Failed, S::Skipped, S::Skipped])
    );
    assert_eq!((seen.listed.completed, seen.listed.failed_tasks, seen.listed.open_tasks), (1, 1, 0));
    worker.stop().await;
}

/// Steps of which `c` waits to be let on.
fn gated(workflows: &Workflows) -> (Arc<Mutex<Vec<String>>>, Arc<AtomicBool>, Arc<Semaphore>) {
    let (keys, begun, gate) =
        (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default(), Arc::new(Semaphore::new(0)));
    let (kept, told, waits) = (keys.clone(), begun.clone(), gate.clone());
    workflows.register("step", move |given: Given| {
        kept.lock().unwrap().push(given.key.clone());
        let (told, waits) = (told.clone(), waits.clone());
        async move {
            if given.task.as_str() == "c" {
                told.store(true, Ordering::SeqCst);
                waits.acquire().await.unwrap().forget();
            }
            Ok(named(&given))
        }
    });
    (keys, begun, gate)
}

async fn a_cancelled_chain_commits_nothing_and_a_retry_does_it_with_the_same_keys(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let (keys, begun, gate) = gated(workflows);
    let id = workflows.launch(order(fused(), options())).await.unwrap();
    until("the third is begun", async || begun.load(Ordering::SeqCst).then_some(())).await;
    // What is done in one hand is known of when it is committed.
    use TaskState as S;
    assert_eq!(states(&status(workflows, id).await), [S::Running, S::Waiting, S::Waiting, S::Waiting]);
    workflows.command(&Tenant::default(), id, Command::Cancel).await.unwrap();
    until("nothing runs", async || (workflows.running() == 0).then_some(())).await;
    assert_eq!(states(&status(workflows, id).await), [S::Cancelled; 4]);
    gate.add_permits(10);
    workflows.command(&Tenant::default(), id, Command::Retry).await.unwrap();
    let seen = end(workflows, id).await;
    assert_eq!((seen.listed.state, output(workflows, &seen, "d").await.as_str()), (DONE, "\"a-b-c-d\""));
    let keys = keys.lock().unwrap().clone();
    assert_eq!((keys.len(), &keys[..3]), (7, &keys[3..6]), "{keys:?}");
    worker.stop().await;
}

async fn a_chain_whose_worker_is_lost_is_done_again_with_the_same_keys(kind: Kind) {
    let place = kind.place().await;
    let mut config = place.config();
    config.workflow.lease_ms = 2_000;
    config.workflow.sweep_ms = 50;
    let one = place.worker_with(config.clone()).await;
    let (first, begun, gate) = gated(&one.workflows);
    let id = one.workflows.launch(order(fused(), options())).await.unwrap();
    until("the third is begun", async || begun.load(Ordering::SeqCst).then_some(())).await;
    drop(one);
    let two = place.worker_with(config).await;
    let count = names(&two.workflows);
    let seen = end(&two.workflows, id).await;
    // What it did goes on for a while and comes to nothing.
    gate.add_permits(10);
    assert_eq!((seen.listed.state, output(&two.workflows, &seen, "d").await.as_str()), (DONE, "\"a-b-c-d\""));
    let again = count.lock().unwrap().clone();
    assert!(first.lock().unwrap().iter().all(|key| again.get(key) == Some(&1)), "{again:?}");
    let made: Vec<String> = manners(&two.workflows, &seen).await.into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!(made, ["lost", "completed", "completed", "completed", "completed"]);
    two.stop().await;
}

fn aggressive() -> RunOptions {
    RunOptions { optimization_level: OptimizationLevel::Aggressive, preserve_structure: false, ..options() }
}

async fn a_second_try_beside_a_straggler_wins(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let (asked, stuck) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, is_stuck) = (asked.clone(), stuck.clone());
    workflows.register("step", move |_| {
        let asked = counter.fetch_add(1, Ordering::SeqCst);
        let pause = match is_stuck.swap(false, Ordering::SeqCst) {
            true => Duration::from_secs(3_600),
            false if asked % 25 == 0 => Duration::from_millis(400),
            false => Duration::from_millis(5),
        };
        // The work that the step is there for.
        async move {
            tokio::time::sleep(pause).await;
            Ok("1".to_owned())
        }
    });
    let graph = || vec![native("work", &[])];
    let basic = RunOptions { optimization_level: OptimizationLevel::Basic, ..aggressive() };
    record(&place, &worker, 110, graph, &basic).await;
    let plan = plan(workflows, graph(), &aggressive()).await;
    let given = plan.changes.iter().any(|change| matches!(change.edit, optimize::Edit::Speculate { .. }));
    assert!(given, "{plan}");
    let before = asked.load(Ordering::SeqCst);
    stuck.store(true, Ordering::SeqCst);
    let id = workflows.launch(order(graph(), aggressive())).await.unwrap();
    let seen = end(workflows, id).await;
    assert_eq!((seen.listed.state, asked.load(Ordering::SeqCst) - before), (DONE, 2));
    // One attempt, of which it is known that the step would have taken longer.
    assert_eq!(manners(workflows, &seen).await, [("work".to_owned(), "completed".to_owned(), Manner::Overtaken)]);
    worker.stop().await;
}

async fn a_failure_counts_only_where_both_tries_have_failed(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let asked: Arc<Mutex<HashMap<TaskId, usize>>> = Arc::default();
    let counted = asked.clone();
    workflows.register("step", move |given: Given| {
        let mut asked = counted.lock().unwrap();
        let tries = asked.entry(given.task.clone()).or_default();
        *tries += 1;
        let first = *tries == 1;
        async move {
            let failed = Failure::new(FailureKind::Refused, "not twice");
            match (given.task.as_str(), first) {
                ("second_fails" | "both_fail", false) => Err(failed),
                (task, true) => {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    if task == "second_fails" { Ok("1".to_owned()) } else { Err(failed) }
                }
                _ => {
                    tokio::time::sleep(Duration::from_millis(120)).await;
                    Ok("2".to_owned())
                }
            }
        }
    });
    let mut nodes = vec![native("second_fails", &[]), native("both_fail", &[]), native("first_fails", &[])];
    nodes.iter_mut().for_each(|node| node.policy.second_after = Some(Duration::from_millis(10)));
    let id = workflows.launch(order(nodes, options())).await.unwrap();
    let seen = end(workflows, id).await;
    assert_eq!(states(&seen), [TaskState::Completed, TaskState::Failed, TaskState::Completed]);
    assert_eq!(output(workflows, &seen, "second_fails").await, "1");
    assert_eq!(output(workflows, &seen, "first_fails").await, "2");
    assert!(asked.lock().unwrap().values().all(|tries| *tries == 2), "{asked:?}");
    assert!(seen.steps.iter().all(|step| step.attempts == 1));
    worker.stop().await;
}

async fn what_a_pure_step_came_to_is_taken_again(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let (made, source) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(7)));
    let (counter, given_out) = (made.clone(), source.clone());
    workflows.register("step", move |given: Given| {
        let output = match given.inputs.values().next() {
            None => given_out.load(Ordering::SeqCst).to_string(),
            Some(input) => {
                counter.fetch_add(1, Ordering::SeqCst);
                format!("[{input}]")
            }
        };
        async move { Ok(output) }
    });
    let graph = || {
        let mut nodes = vec![native("read", &[]), native("work", &["read"])];
        nodes[1].policy.pure = true;
        nodes
    };
    record(&place, &worker, 60, graph, &advanced()).await;
    let plan = plan(workflows, graph(), &advanced()).await;
    let memoised =
        |change: &optimize::Change| matches!(&change.edit, optimize::Edit::Memoise { task } if task.as_str() == "work");
    assert!(plan.changes.iter().any(memoised), "{plan}");
    let run = async |tenant: &Tenant| {
        let order = tandem::workflow::Order { tenant: tenant.clone(), ..order(graph(), advanced()) };
        let id = workflows.launch(order).await.unwrap();
        let over = async || workflows.find(tenant, id).await.unwrap().state.is_over().then_some(());
        until("it is over", over).await;
        let seen = workflows.status(tenant, id).await.unwrap();
        let manner = manners(workflows, &seen).await[1].2;
        (output(workflows, &seen, "work").await, manner == Manner::Recalled)
    };
    let own = Tenant::default();
    assert_eq!((made.load(Ordering::SeqCst), run(&own).await), (60, ("[7]".to_owned(), false)));
    assert_eq!((run(&own).await, made.load(Ordering::SeqCst)), (("[7]".to_owned(), true), 61));
    source.store(8, Ordering::SeqCst);
    assert_eq!((run(&own).await, made.load(Ordering::SeqCst)), (("[8]".to_owned(), false), 62));
    // Nobody else's.
    let other = Tenant::parse("other").unwrap();
    assert_eq!((run(&other).await, made.load(Ordering::SeqCst)), (("[8]".to_owned(), false), 63));
    worker.stop().await;
}

async fn who_does_not_take_an_output_need_not_wait_for_it_by_name(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    names(workflows);
    let is_pure = AtomicBool::new(true);
    // That `last` comes after `first` is said by `middle` too; `side` is nobody's business but its own.
    let graph = || {
        let mut nodes = vec![
            native("first", &[]),
            native("side", &[]),
            native("middle", &["first"]),
            native("last", &["first", "middle", "side"]),
        ];
        nodes[3].policy.inputs = Some(vec![TaskId::new("middle")]);
        nodes[3].policy.pure = is_pure.load(Ordering::SeqCst);
        nodes
    };
    record(&place, &worker, 100, graph, &options()).await;
    let free = async |terms: &RunOptions| {
        let id = workflows.launch(order(graph(), terms.clone())).await.unwrap();
        let seen = end(workflows, id).await;
        assert_eq!(
            (seen.listed.state, output(workflows, &seen, "last").await.as_str()),
            (DONE, "\"first-middle-last\"")
        );
        let attempts = workflows.attempts(seen.listed.number).await.unwrap();
        let of = |task: &str| {
            let position = seen.graph.position(&TaskId::new(task)).unwrap();
            attempts.iter().find(|a| a.position == position).unwrap().clone()
        };
        assert!(of("first").ended <= of("last").started && of("middle").ended <= of("last").started);
        let free: Vec<String> = seen.graph.nodes()[3].policy.free_of.iter().map(TaskId::to_string).collect();
        (free, seen.graph.shape())
    };
    let (basic, shape) = free(&options()).await;
    assert_eq!(basic, ["first"]);
    // Whom a pure step waits for in vain it need not wait for at all, where that may change.
    let (further, same) = free(&aggressive()).await;
    assert_eq!(further.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), ["first", "side"].into());
    assert_eq!(shape, same, "it is the same graph by its records");
    // What may have effects keeps its place, whatever was thought out a moment ago for one that has none.
    is_pure.store(false, Ordering::SeqCst);
    assert_eq!(free(&aggressive()).await, (vec!["first".to_owned()], shape));
    worker.stop().await;
}

async fn a_plan_under_which_runs_are_slower_is_rolled_back(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    let pause = Arc::new(AtomicUsize::new(1));
    let set = pause.clone();
    workflows.register("step", move |_| {
        let pause = Duration::from_millis(set.load(Ordering::SeqCst) as u64);
        // The work that the step is there for.
        async move {
            tokio::time::sleep(pause).await;
            Ok("1".to_owned())
        }
    });
    let graph = || vec![native("short", &[]), native("long", &[]), native("last", &["long"])];
    let terms = RunOptions { max_parallel: 1, ..options() };
    let run = async || {
        let id = workflows.launch(order(graph(), terms.clone())).await.unwrap();
        end(workflows, id).await
    };
    for _ in 0..20 {
        assert!(!run().await.listed.planned);
    }
    // The same steps take longer: that the plan is not at fault nobody can know.
    pause.store(40, Ordering::SeqCst);
    for _ in 0..10 {
        assert!(run().await.listed.planned);
    }
    let seen = run().await;
    assert!(!seen.listed.planned);
    let events = workflows.events(&Tenant::default(), Some(seen.listed.id), 0, 100).await.unwrap();
    let said: Vec<&str> = events
        .iter()
        .filter(|event| event.kind.as_str() == "optimization_recommended")
        .filter_map(|event| event.message.as_deref())
        .collect();
    assert!(matches!(said[..], [why] if why.contains("rolled back for now")), "{said:?}");
    let plan = plan(workflows, graph(), &terms).await;
    assert!(plan.changes.is_empty() && plan.notes.iter().any(|note| note.contains("rolled back")), "{plan}");
    worker.stop().await;
}

async fn what_a_higher_level_would_change_is_recommended_once(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    names(workflows);
    record(&place, &worker, 60, chain, &options()).await;
    let id = workflows.launch(order(chain(), options())).await.unwrap();
    let seen = end(workflows, id).await;
    let events = workflows.events(&Tenant::default(), Some(id), 0, 100).await.unwrap();
    let said: Vec<&str> = events
        .iter()
        .filter(|event| event.kind.as_str() == "optimization_recommended")
        .filter_map(|event| event.message.as_deref())
        .collect();
    assert!(
        matches!(said[..], [why] if why.contains("'advanced' would also change") && why.contains("chain")),
        "{said:?}"
    );
    kinds(workflows, &seen).await;
    worker.stop().await;
}

/// A graph in which any task may depend on any before it, with what a plan may change in it: whatever is legal, likely or not.
fn random(rng: &mut StdRng) -> (Vec<Node>, Vec<Node>) {
    let count = rng.random_range(3..14);
    let mut plain: Vec<Node> = vec![];
    for i in 0..count {
        let needs: Vec<String> =
            (0..i).filter(|_| rng.random_bool(1.5 / f64::from(i.max(2)))).map(|j| format!("t{j}")).collect();
        let mut node = native(&format!("t{i}"), &needs.iter().map(String::as_str).collect::<Vec<_>>());
        node.policy.pure = rng.random_bool(0.3);
        if rng.random_bool(0.4) {
            node.policy.inputs =
                Some(needs.iter().filter(|_| rng.random_bool(0.5)).map(|need| TaskId::new(need)).collect());
        }
        plain.push(node);
    }
    let graph = order(plain.clone(), options()).graph;
    let mut changed = plain.clone();
    for (i, node) in changed.iter_mut().enumerate() {
        node.policy.follows = rng.random_bool(0.7);
        node.policy.second_after = rng.random_bool(0.5).then(|| Duration::from_micros(rng.random_range(0..2_000)));
        node.policy.recalls = node.policy.pure;
        // An edge that others imply and over which nothing is taken.
        let implied = graph.needs(i as u32).iter().copied().filter(|need| {
            let id = &graph.nodes()[*need as usize].task.id;
            let is_taken = node.policy.inputs.as_ref().is_none_or(|inputs| inputs.contains(id));
            !is_taken && graph.needs(i as u32).iter().any(|other| graph.all_dependants(*need).contains(other))
        });
        node.policy.free_of = implied.map(|need| graph.nodes()[need as usize].task.id.clone()).collect();
    }
    (plain, changed)
}

/// TANDEM_FAULTS=1 tries more graphs.
async fn a_plan_changes_no_output_and_no_required_order(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    // Of each task of a run, when it was first begun and when it last ended.
    type Times = HashMap<String, (Instant, Instant)>;
    let times: Arc<Mutex<Times>> = Arc::default();
    let kept = times.clone();
    workflows.register("step", move |given: Given| {
        let kept = kept.clone();
        async move {
            let begun = Instant::now();
            // Another order of events each time.
            let pause = Duration::from_micros(rand::random_range(0..3_000));
            tokio::time::sleep(pause).await;
            let whole: BTreeMap<&str, &str> = given.inputs.iter().map(|(id, json)| (id.as_str(), &**json)).collect();
            let output = serde_json::to_string(&(given.task.as_str(), whole)).unwrap();
            let mut kept = kept.lock().unwrap();
            let seen = kept.entry(given.key).or_insert((begun, begun));
            *seen = (seen.0.min(begun), Instant::now());
            Ok(output)
        }
    });
    let mut manners_seen: HashMap<Manner, usize> = HashMap::new();
    let mut dropped = 0;
    for seed in 0..size(12, 300) as u64 {
        let (plain, changed) = random(&mut StdRng::seed_from_u64(seed));
        let terms = RunOptions { max_parallel: 4, ..options() };
        let mut outputs: Vec<BTreeMap<u32, Arc<str>>> = vec![];
        // The second run under a plan may take from the first.
        for nodes in [&plain, &changed, &changed] {
            times.lock().unwrap().clear();
            let id = workflows.launch(order(nodes.clone(), terms.clone())).await.unwrap();
            let seen = end(workflows, id).await;
            assert_eq!(seen.listed.state, DONE, "seed {seed}");
            kinds(workflows, &seen).await;
            let all: Vec<u32> = (0..plain.len() as u32).collect();
            outputs.push(workflows.outputs(seen.listed.number, &all).await.unwrap().into_iter().collect());
            manners(workflows, &seen)
                .await
                .into_iter()
                .for_each(|(.., manner)| *manners_seen.entry(manner).or_default() += 1);
            dropped += nodes.iter().map(|node| node.policy.free_of.len()).sum::<usize>();
            // By the graph as it was given.
            let given = order(plain.clone(), options()).graph;
            let times = times.lock().unwrap();
            let at = |position: u32| {
                let id = &given.nodes()[position as usize].task.id;
                times.iter().find(|(key, _)| key.split('/').nth(1) == Some(id.as_str())).map(|(_, at)| *at)
            };
            for position in all {
                for need in given.needs(position) {
                    let (Some((_, ended)), Some((begun, _))) = (at(*need), at(position)) else { continue };
                    assert!(ended <= begun, "seed {seed}: {position} was begun before {need} had ended");
                }
            }
        }
        assert_eq!(outputs[0], outputs[1], "seed {seed}");
        assert_eq!(outputs[0], outputs[2], "seed {seed}");
    }
    for manner in Manner::ALL {
        assert!(manners_seen.get(&manner).is_some_and(|count| *count > 0), "{manner:?} was not seen: {manners_seen:?}");
    }
    assert!(dropped > 0);
    worker.stop().await;
}
