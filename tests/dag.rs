//! Graphs: what is refused and how it is said, and that a schedule runs everything once and in order.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use tandem::domain::dag::{Dag, DagError, Limits, Task, TaskId};
use tandem::domain::schedule::{Schedule, critical_path};

fn task(id: &str, parent: Option<&str>, depends_on: &[&str]) -> Task {
    Task {
        id: TaskId::new(id),
        description: format!("do {id}"),
        parent: parent.map(TaskId::new),
        depends_on: depends_on.iter().map(|d| TaskId::new(d)).collect(),
    }
}

fn refused(tasks: Vec<Task>) -> DagError {
    Dag::new(tasks, &Limits { tasks: 10, depth: 3 }).unwrap_err()
}

#[test]
fn what_is_no_graph_is_refused_by_name() {
    assert_eq!(refused(vec![]), DagError::Empty);
    assert_eq!(refused(vec![task("a", None, &[]), task("a", None, &[])]), DagError::Duplicate(TaskId::new("a")));
    assert!(refused(vec![task("a", None, &["zzz"])]).to_string().contains("'zzz'"));
    assert!(refused(vec![task("a", Some("nobody"), &[])]).to_string().contains("'nobody'"));
    let many: Vec<Task> = (0..11).map(|i| task(&i.to_string(), None, &[])).collect();
    assert_eq!(refused(many), DagError::TooLarge { found: 11, limit: 10 });
    let deep =
        vec![task("1", None, &[]), task("2", Some("1"), &[]), task("3", Some("2"), &[]), task("4", Some("3"), &[])];
    assert_eq!(refused(deep), DagError::TooDeep { task: TaskId::new("4"), limit: 3 });
}

#[test]
fn a_cycle_names_those_that_wait_for_each_other_and_nobody_else() {
    let cycle = |tasks| match refused(tasks) {
        DagError::Cycle(names) => names.iter().map(|n| n.as_str().to_owned()).collect::<HashSet<_>>(),
        other => panic!("{other}"),
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<HashSet<_>>();
    assert_eq!(cycle(vec![task("a", None, &["a"])]), set(&["a"]));
    let ring =
        vec![task("x", None, &[]), task("a", None, &["c", "x"]), task("b", None, &["a"]), task("c", None, &["b"])];
    assert_eq!(cycle(ring), set(&["a", "b", "c"]));
    assert_eq!(cycle(vec![task("p", Some("q"), &[]), task("q", Some("p"), &[])]), set(&["p", "q"]));
    // A child that waits for its own group waits for itself.
    assert_eq!(cycle(vec![task("g", None, &[]), task("c", Some("g"), &["g"])]), set(&["g", "c"]));
}

#[test]
fn waiting_for_a_group_is_waiting_for_all_in_it() {
    let tasks = vec![
        task("root", None, &[]),
        task("make", Some("root"), &[]),
        task("api", Some("make"), &[]),
        task("consumer", Some("make"), &[]),
        task("test", Some("root"), &["make"]),
    ];
    let dag = Dag::new(tasks, &Limits::default()).unwrap();
    let mut schedule = Schedule::new(&dag);
    let ready = |s: &mut Schedule<'_>| s.take_ready().into_iter().map(TaskId::to_string).collect::<Vec<_>>();
    assert_eq!(ready(&mut schedule), ["api", "consumer"]);
    schedule.complete(&TaskId::new("api"));
    assert!(ready(&mut schedule).is_empty());
    schedule.complete(&TaskId::new("api"));
    schedule.complete(&TaskId::new("consumer"));
    assert_eq!(ready(&mut schedule), ["test"]);
    schedule.complete(&TaskId::new("test"));
    assert!(schedule.is_done());
}

#[test]
fn the_critical_path_is_the_longest_in_time_not_in_hops() {
    let tasks = vec![task("a", None, &[]), task("b", None, &["a"]), task("c", None, &["b"]), task("long", None, &[])];
    let dag = Dag::new(tasks, &Limits::default()).unwrap();
    let seconds = |id: &TaskId| Duration::from_secs(if id.as_str() == "long" { 10 } else { 1 });
    assert_eq!(critical_path(&dag, seconds), (vec![TaskId::new("long")], Duration::from_secs(10)));
    let (path, total) = critical_path(&dag, |_| Duration::from_secs(1));
    assert_eq!((path.len(), total), (3, Duration::from_secs(3)));
}

#[test]
fn a_chain_of_a_hundred_thousand_does_not_overflow() {
    let id = |i: usize| i.to_string();
    let tasks = (0..100_000)
        .map(|i| Task {
            id: TaskId::new(&id(i)),
            description: String::new(),
            parent: None,
            depends_on: if i == 0 { vec![] } else { vec![TaskId::new(&id(i - 1))] },
        })
        .collect();
    let dag = Dag::new(tasks, &Limits::default()).unwrap();
    let mut schedule = Schedule::new(&dag);
    let mut ran = 0;
    while let [next] = schedule.take_ready()[..] {
        schedule.complete(next);
        ran += 1;
    }
    assert!(schedule.is_done() && ran == 100_000);
}

/// Random tasks whose edges only point backwards, in groups or not: always a graph.
fn graphs() -> impl Strategy<Value = Vec<Task>> {
    let edges = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 0..4)),
        1..40,
    );
    (edges, any::<bool>()).prop_map(|(edges, grouped)| {
        let mut tasks: Vec<Task> = vec![];
        for (i, (parent, depends_on)) in edges.into_iter().enumerate() {
            // Groups are the first few; members depend on members of the same group only through earlier ones.
            let groups = if grouped { 3 } else { 0 };
            let member = i >= groups && groups > 0;
            let mut found: Vec<TaskId> = vec![];
            for index in depends_on {
                if i > groups {
                    found.push(TaskId::new(&(groups + index.index(i - groups)).to_string()));
                }
            }
            let parent = member.then(|| TaskId::new(&parent.index(groups).to_string()));
            tasks.push(Task { id: TaskId::new(&i.to_string()), description: String::new(), parent, depends_on: found });
        }
        tasks
    })
}

proptest! {
    #[test]
    fn a_schedule_runs_every_leaf_once_and_after_all_it_depends_on(tasks in graphs(), pick in any::<prop::sample::Index>()) {
        let dag = Dag::new(tasks, &Limits::default()).unwrap();
        let mut schedule = Schedule::new(&dag);
        let mut open: Vec<TaskId> = schedule.take_ready().into_iter().cloned().collect();
        let mut done: HashSet<TaskId> = HashSet::new();
        while !open.is_empty() {
            let id = open.swap_remove(pick.index(open.len()));
            let task = dag.tasks().iter().find(|t| t.id == id).unwrap();
            prop_assert!(task.depends_on.iter().all(|d| done.contains(d)), "{id} ran before what it depends on");
            prop_assert!(done.insert(id.clone()), "{id} ran twice");
            schedule.complete(&id);
            open.extend(schedule.take_ready().into_iter().cloned());
        }
        prop_assert!(schedule.is_done());
        prop_assert_eq!(done.len(), dag.leaves().count());
    }

    #[test]
    fn any_edges_are_a_graph_or_a_named_cycle(edges in prop::collection::vec((0usize..12, 0usize..12), 0..30)) {
        let tasks: Vec<Task> = (0..12)
            .map(|i| {
                let on: Vec<String> = edges.iter().filter(|(to, _)| *to == i).map(|(_, from)| from.to_string()).collect();
                task(&i.to_string(), None, &on.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        match Dag::new(tasks, &Limits::default()) {
            Ok(_) => {}
            Err(DagError::Cycle(names)) => {
                for pair in names.windows(2) {
                    let (a, b): (usize, usize) = (pair[0].as_str().parse().unwrap(), pair[1].as_str().parse().unwrap());
                    let connected = edges.contains(&(a, b)) || edges.contains(&(b, a));
                    prop_assert!(connected, "{a} and {b} do not wait for each other");
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
