//! Who lost a step can't commit it.

use std::sync::Arc;
use std::time::Duration;

use tandem::domain::Tenant;
use tandem::domain::workflow::{Command, FailureKind, Happening as H, State, TaskState, WorkflowId};
use tandem::store::Store;
use tandem::store::workflows::{Advanced, Batch, Claimed, Did, End, Ended, Start, Started};

use crate::{Kind, native, options, order, until};

on_both!(
    Kind:
    a_stalled_worker_can_not_commit,
    of_two_who_claim_at_once_one_gets_it,
    what_was_cancelled_can_not_be_committed,
    a_chain_is_committed_as_a_whole_or_not_at_all,
    what_a_step_came_to_is_kept_until_it_is_old,
    tasks_go_only_the_ways_that_there_are_and_are_counted_right,
);

async fn store(kind: &Kind) -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = match &kind.0 {
        Some(server) => server.url(),
        None => format!("sqlite:{}", folder.path().join("tandem.db").display()),
    };
    let options = tandem::store::Options { url, ..tandem::store::Options::default() };
    (Store::open(&options).await.unwrap(), folder)
}

fn start(tasks: usize) -> Start {
    let nodes = (0..tasks).map(|i| native(&format!("t{i}"), &[])).collect();
    let tandem::workflow::Order { tenant, graph, options, .. } = order(nodes, options());
    Start {
        id: WorkflowId::generate(),
        tenant,
        request: None,
        goal: None,
        graph,
        options,
        decomposed: None,
        optimized: None,
        follows: None,
    }
}

async fn advance(store: &Store, worker: &str, starts: &[Start], ended: &[Ended], claim: usize) -> Advanced {
    store.advance(&Batch { worker, starts, ended, claim, others: true }).await.unwrap()
}

fn ended(claimed: Claimed, of: &Start, end: End) -> Ended {
    let Claimed { workflow, position, epoch, .. } = claimed;
    Ended { workflow, epoch, graph: of.graph.clone(), did: Did::new(position, end), then: vec![] }
}

fn output(text: &str) -> End {
    End::Completed(Some(Arc::from(text)))
}

async fn a_stalled_worker_can_not_commit(kind: Kind) {
    let (store, _folder) = store(&kind).await;
    let of = start(1);
    store.beat_worker("one", Duration::from_millis(50)).await.unwrap();
    let first = advance(&store, "one", std::slice::from_ref(&of), &[], 8).await;
    assert!(matches!(first.started[..], [Started::New(_)]));
    let [mine] = first.claimed[..] else { panic!("{first:?}") };
    // It says nothing more.
    let swept = async || (store.sweep_workflows().await.unwrap().taken_back == 1).then_some(());
    until("it is taken back", swept).await;
    store.beat_worker("two", Duration::from_secs(60)).await.unwrap();
    let second = advance(&store, "two", &[], &[], 8).await;
    let [theirs] = second.claimed[..] else { panic!("{second:?}") };
    assert_eq!((theirs.losses, theirs.attempts), (1, 0));
    for end in [output("\"late\""), End::Failed { kind: FailureKind::Failed, message: "late".into() }, End::GivenBack] {
        let late = advance(&store, "one", &[], &[ended(mine, &of, end)], 8).await;
        assert_eq!((late.accepted, late.claimed.len()), (vec![false], 0));
    }
    let done = advance(&store, "two", &[], &[ended(theirs, &of, output("\"theirs\""))], 8).await;
    assert_eq!((done.accepted, done.over), (vec![true], vec![mine.workflow]));
    // A commit whose answer was lost comes twice, and counts once.
    let twice = advance(&store, "two", &[], &[ended(theirs, &of, output("\"again\""))], 8).await;
    assert_eq!(twice.accepted, [false]);
    let kept = store.workflow_outputs(mine.workflow, &[0]).await.unwrap();
    assert_eq!(&*kept[0].1, "\"theirs\"");
    let found = store.find_workflow(&Tenant::default(), of.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.completed, found.open_tasks), (State::Completed, 1, 0));
}

async fn of_two_who_claim_at_once_one_gets_it(kind: Kind) {
    let (store, _folder) = store(&kind).await;
    for worker in ["one", "two", "three"] {
        store.beat_worker(worker, Duration::from_secs(60)).await.unwrap();
    }
    let starts: Vec<Start> = (0..5).map(|_| start(6)).collect();
    advance(&store, "one", &starts, &[], 0).await;
    let claim = async |worker: &str| {
        let mut all = vec![];
        // Who skips what another holds comes again.
        for _ in 0..20 {
            all.extend(advance(&store, worker, &[], &[], 3).await.claimed);
        }
        all
    };
    let (one, two, three) = tokio::join!(claim("one"), claim("two"), claim("three"));
    let mut all: Vec<(i64, u32)> = one.iter().chain(&two).chain(&three).map(|c| (c.workflow, c.position)).collect();
    all.sort_unstable();
    let claimed = all.len();
    all.dedup();
    assert_eq!((claimed, all.len()), (30, 30));
}

async fn what_was_cancelled_can_not_be_committed(kind: Kind) {
    let (store, _folder) = store(&kind).await;
    let of = start(2);
    store.beat_worker("one", Duration::from_secs(60)).await.unwrap();
    let claimed = advance(&store, "one", std::slice::from_ref(&of), &[], 1).await.claimed[0];
    let cancelled = store.command_workflow(&Tenant::default(), of.id, Command::Cancel).await.unwrap();
    assert_eq!(cancelled, Some(Ok(State::Cancelled)));
    let late = advance(&store, "one", &[], &[ended(claimed, &of, output("1"))], 8).await;
    assert_eq!((late.accepted, late.claimed.len()), (vec![false], 0));
    let steps = store.workflow_steps(claimed.workflow).await.unwrap();
    assert!(steps.iter().all(|step| step.state == TaskState::Cancelled));
    // A workflow that is over goes when it is old, a running one only with its tenant.
    let running = start(1);
    advance(&store, "one", std::slice::from_ref(&running), &[], 8).await;
    let ever = tandem::domain::Timestamp(i64::MAX);
    assert_eq!(store.prune_workflows(ever, 10).await.unwrap(), 1);
    assert!(store.workflow_steps(claimed.workflow).await.unwrap().is_empty());
    let other = Tenant::parse("other").unwrap();
    assert_eq!(store.purge_workflows(&other, ever, 10).await.unwrap(), 0);
    assert_eq!(store.purge_workflows(&Tenant::default(), ever, 10).await.unwrap(), 1);
    assert!(store.find_workflow(&Tenant::default(), running.id).await.unwrap().is_none());
}

async fn a_chain_is_committed_as_a_whole_or_not_at_all(kind: Kind) {
    let (store, _folder) = store(&kind).await;
    let mut nodes = vec![native("a", &[]), native("b", &["a"]), native("c", &["b", "a"]), native("beside", &["a"])];
    nodes[1..3].iter_mut().for_each(|node| node.policy.follows = true);
    let of = Start { graph: order(nodes, options()).graph, ..start(1) };
    store.beat_worker("one", Duration::from_millis(50)).await.unwrap();
    let first = advance(&store, "one", std::slice::from_ref(&of), &[], 8).await;
    let [mine] = first.claimed[..] else { panic!("{first:?}") };
    let chain = |claimed: Claimed, last: End| Ended {
        then: vec![Did::new(1, output("\"b\"")), Did::new(2, last)],
        ..ended(claimed, &of, output("\"a\""))
    };
    let swept = async || (store.sweep_workflows().await.unwrap().taken_back == 1).then_some(());
    until("it is taken back", swept).await;
    store.beat_worker("two", Duration::from_secs(60)).await.unwrap();
    let second = advance(&store, "two", &[], &[], 8).await;
    let [theirs] = second.claimed[..] else { panic!("{second:?}") };
    // Who lost the first of it can't commit the rest.
    let late = advance(&store, "one", &[], &[chain(mine, output("\"c\""))], 0).await;
    assert_eq!(late.accepted, [false]);
    let state = async || {
        let steps = store.workflow_steps(mine.workflow).await.unwrap();
        steps.iter().map(|step| step.state).collect::<Vec<_>>()
    };
    use TaskState as S;
    assert_eq!(state().await, [S::Running, S::Waiting, S::Waiting, S::Waiting]);
    assert!(store.workflow_outputs(mine.workflow, &[0, 1, 2]).await.unwrap().is_empty());
    let (kind, message) = (FailureKind::Failed, "why".to_owned());
    let last = End::Postponed { kind, message, pause: Duration::ZERO };
    let done = advance(&store, "two", &[], &[chain(theirs, last)], 8).await;
    assert_eq!(done.accepted, [true]);
    // What waits for the first is free by the same commit, and claimed.
    assert_eq!(state().await, [S::Completed, S::Completed, S::Waiting, S::Running]);
    assert_eq!(store.workflow_outputs(mine.workflow, &[0, 1, 2]).await.unwrap().len(), 2);
    let found = store.find_workflow(&Tenant::default(), of.id).await.unwrap().unwrap();
    assert_eq!((found.completed, found.open_tasks), (2, 2));
    // Twice is once.
    let twice = advance(&store, "two", &[], &[chain(theirs, output("\"again\""))], 0).await;
    assert_eq!(twice.accepted, [false]);
    until("its pause is over", async || (store.sweep_workflows().await.unwrap().due == 1).then_some(())).await;
    let [again] = advance(&store, "two", &[], &[], 8).await.claimed[..] else { panic!() };
    assert_eq!((again.position, again.attempts), (2, 1));
    advance(&store, "two", &[], &[ended(again, &of, output("\"c\""))], 0).await;
    assert_eq!(state().await[2], S::Completed);
    let attempts = store.workflow_attempts(mine.workflow).await.unwrap();
    assert_eq!(attempts.iter().filter(|a| a.outcome == "completed").count(), 3);
}

async fn what_a_step_came_to_is_kept_until_it_is_old(kind: Kind) {
    let (store, _folder) = store(&kind).await;
    let tenant = Tenant::default();
    let of = start(1);
    let (step, inputs) = (of.graph.definition(0), [7; 32]);
    store.beat_worker("one", Duration::from_secs(60)).await.unwrap();
    let kept = async || store.recall(&tenant, &step, &inputs).await.unwrap().map(|output| output.to_string());
    let keep = async |text: &str| {
        let of = Start { id: WorkflowId::generate(), ..of.clone() };
        let claimed = advance(&store, "one", std::slice::from_ref(&of), &[], 8).await.claimed[0];
        let mut ended = ended(claimed, &of, output(text));
        (ended.did.inputs, ended.did.keep) = (Some(inputs), true);
        assert_eq!(advance(&store, "one", &[], &[ended], 0).await.accepted, [true]);
    };
    assert_eq!(kept().await, None);
    keep("1").await;
    // What was first stays.
    keep("2").await;
    assert_eq!(kept().await.as_deref(), Some("1"));
    let other = Tenant::parse("other").unwrap();
    assert_eq!(store.recall(&other, &step, &inputs).await.unwrap(), None);
    assert_eq!(store.recall(&tenant, &step, &[8; 32]).await.unwrap(), None);
    let ever = tandem::domain::Timestamp(i64::MAX);
    assert_eq!(store.prune_workflows(tandem::domain::Timestamp(0), 10).await.unwrap(), 0);
    assert_eq!(store.purge_workflows(&other, ever, 10).await.unwrap(), 0);
    assert!(kept().await.is_some());
    assert_eq!(store.prune_workflows(ever, 10).await.unwrap(), 3);
    assert_eq!(kept().await, None);
    keep("3").await;
    assert_eq!(store.purge_workflows(&tenant, ever, 10).await.unwrap(), 2);
    assert_eq!(kept().await, None);
}

/// Whatever is done in whatever order.
async fn tasks_go_only_the_ways_that_there_are_and_are_counted_right(kind: Kind) {
    const HAPPENINGS: [H; 10] = [
        H::Freed,
        H::Claimed,
        H::Completed,
        H::Postponed,
        H::Failed,
        H::GivenBack,
        H::Cancelled,
        H::Skipped,
        H::Reopened,
        H::ReopenedFree,
    ];
    let may_become =
        |from: TaskState, to: TaskState| from == to || HAPPENINGS.iter().any(|h| from.after(*h) == Some(to));
    let (store, _folder) = store(&kind).await;
    store.beat_worker("one", Duration::from_secs(600)).await.unwrap();
    let tenant = Tenant::default();
    let (mut ends, mut commands) = (0, 0);
    while ends < 60 || commands < 8 {
        let nodes = vec![
            native("a", &[]),
            native("b", &["a"]),
            native("c", &["a"]),
            native("d", &["b", "c"]),
            native("e", &[]),
            native("f", &["d", "e"]),
        ];
        let graph = order(nodes, options()).graph;
        let of = Start { graph, ..start(1) };
        advance(&store, "one", std::slice::from_ref(&of), &[], 0).await;
        let (mut hand, mut before) = (vec![], None::<Vec<TaskState>>);
        for _ in 0..50 {
            match rand::random_range(0..10) {
                0..=2 => hand.extend(advance(&store, "one", &[], &[], rand::random_range(1..4)).await.claimed),
                3..=6 if !hand.is_empty() => {
                    let claimed = hand.swap_remove(rand::random_range(0..hand.len()));
                    let (kind, message) = (FailureKind::Failed, "why".to_owned());
                    let end = match rand::random_range(0..6) {
                        0 => End::Failed { kind, message },
                        1 => End::Postponed { kind, message, pause: Duration::ZERO },
                        2 => End::GivenBack,
                        _ => output("1"),
                    };
                    advance(&store, "one", &[], &[ended(claimed, &of, end)], 0).await;
                    ends += 1;
                }
                7 => drop(store.sweep_workflows().await.unwrap()),
                8 => {
                    let all = [Command::Cancel, Command::Pause, Command::Resume, Command::Retry, Command::Retry];
                    let command = all[rand::random_range(0..all.len())];
                    let done = store.command_workflow(&tenant, of.id, command).await.unwrap().unwrap();
                    commands += usize::from(done.is_ok());
                }
                _ => {}
            }
            let found = store.find_workflow(&tenant, of.id).await.unwrap().unwrap();
            let steps = store.workflow_steps(found.number).await.unwrap();
            let now: Vec<TaskState> = steps.iter().map(|step| step.state).collect();
            for (from, to) in before.iter().flatten().zip(&now) {
                assert!(may_become(*from, *to), "{from:?} became {to:?}");
            }
            let count = |which: fn(&TaskState) -> bool| now.iter().filter(|state| which(state)).count() as u64;
            assert_eq!(found.open_tasks, count(|state| !state.is_over()), "{found:?} {now:?}");
            assert_eq!(found.completed, count(|state| *state == TaskState::Completed), "{found:?} {now:?}");
            assert_eq!(found.state.is_over(), found.open_tasks == 0, "{found:?} {now:?}");
            before = Some(now);
        }
        let _over = store.command_workflow(&tenant, of.id, Command::Cancel).await.unwrap();
    }
}
