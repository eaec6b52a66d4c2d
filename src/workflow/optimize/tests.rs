use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::graph::{Net, end, start};
use super::sample::{Does, dag, fails, layered, ms, noise, record, records, takes, task};
use super::*;
use crate::domain::schedule::critical_path;
use crate::domain::workflow::Manner;
use crate::domain::{Limits, Schedule, Task};

fn graph(dag: Dag) -> Graph {
    Graph { dag, policies: HashMap::new(), max_parallel: 4 }
}

fn id(text: &str) -> TaskId {
    TaskId::new(text)
}

fn at(level: Level) -> Options {
    Options { level, preserve_structure: level != Level::Aggressive, ..Options::default() }
}

fn edits(plan: &Plan) -> Vec<&Edit> {
    plan.changes.iter().map(|change| &change.edit).collect()
}

/// So many runs of one step.
fn runs_of(dag: &Dag, count: usize, mut does: impl FnMut(usize, &TaskId, u32) -> Does) -> History {
    let runs = (0..count).map(|run| record(dag, 4, ms(1), ms(10), |task, number| does(run, task, number)));
    History { runs: runs.collect() }
}

const ETL: &[(&str, &[&str])] =
    &[("fetch", &[]), ("parse", &["fetch"]), ("check", &["parse"]), ("store", &["check", "fetch"])];

#[test]
fn too_few_records_change_nothing() {
    let mut rng = StdRng::seed_from_u64(1);
    let dag = dag(ETL);
    let history = records(&dag, 19, 4, ms(1), &[("fetch", 60_000)], &mut rng);
    let plan = optimize(&graph(dag), &history, &at(Level::Basic)).unwrap();
    assert!(plan.changes.is_empty(), "{plan}");
    assert!(plan.notes[0].contains("needs 20 recorded runs; there are 19"), "{plan}");
}

#[test]
fn aggressive_is_refused_without_its_records_and_without_leave() {
    let mut rng = StdRng::seed_from_u64(1);
    let graph = graph(dag(ETL));
    let history = records(&graph.dag, 99, 4, ms(1), &[], &mut rng);
    let refused = optimize(&graph, &history, &at(Level::Aggressive)).unwrap_err();
    assert_eq!(refused, Refused::TooFewRuns { found: 99, needed: 100 });
    assert!(refused.to_string().contains("at least 100 recorded runs of this workflow, and there are 99"), "{refused}");
    let kept = Options { preserve_structure: true, ..at(Level::Aggressive) };
    let refused = optimize(&graph, &history, &kept).unwrap_err();
    assert_eq!(refused, Refused::StructureKept);
    assert!(refused.to_string().contains("preserve_structure to false"), "{refused}");
}

#[test]
fn a_level_without_its_records_does_what_the_lower_one_does() {
    let mut rng = StdRng::seed_from_u64(1);
    let graph = graph(dag(ETL));
    let history = records(&graph.dag, 49, 4, ms(50), &[], &mut rng);
    let basic = optimize(&graph, &history, &at(Level::Basic)).unwrap();
    let advanced = optimize(&graph, &history, &at(Level::Advanced)).unwrap();
    assert_eq!(basic.changes, advanced.changes);
    assert_eq!(advanced.notes, ["'advanced' needs 50 recorded runs; there are 49"]);
}

#[test]
fn a_timeout_is_lengthened_by_few_records_and_shortened_only_by_many() {
    let dag = dag(&[("slow", &[])]);
    let graph = |timeout| {
        let policy = Policy { timeout: Duration::from_secs(timeout), ..Policy::default() };
        Graph { policies: HashMap::from([(id("slow"), policy)]), ..graph(dag.clone()) }
    };
    let timeout = |runs, was| {
        let mut rng = StdRng::seed_from_u64(3);
        let history = runs_of(&dag, runs, |_, _, _| takes(Duration::from_secs_f64(40.0 * noise(&mut rng, 0.1))));
        let plan = optimize(&graph(was), &history, &at(Level::Basic)).unwrap();
        plan.changes.iter().find_map(|change| match change.edit {
            Edit::Timeout { to, .. } => Some(to.as_secs()),
            _ => None,
        })
    };
    assert!(timeout(25, 30).is_some_and(|to| (60..110).contains(&to)), "{:?}", timeout(25, 30));
    assert_eq!(timeout(25, 600), None, "25 runs are too few to shorten");
    assert_eq!(timeout(290, 600), None, "290 are too");
    assert!(timeout(400, 600).is_some_and(|to| (70..90).contains(&to)), "{:?}", timeout(400, 600));
}

#[test]
fn at_most_one_in_two_hundred_is_cut_by_a_timeout_that_was_set() {
    let mut rng = StdRng::seed_from_u64(5);
    for runs in [20, 50, 300, 1_000] {
        for sigma in [0.2, 0.6, 1.2] {
            let mut cut = 0.0;
            for _ in 0..40 {
                let time = |rng: &mut StdRng| Duration::from_secs_f64(100.0 * noise(rng, sigma));
                let attempts: Vec<Attempt> = runs_of(&dag(&[("a", &[])]), runs, |_, _, _| takes(time(&mut rng)))
                    .runs
                    .into_iter()
                    .flat_map(|run| run.attempts)
                    .collect();
                let from = Duration::from_millis(1);
                let found = basic::timeout(&attempts.iter().collect::<Vec<_>>(), from, &Options::default());
                let Some(basic::Timeout::To(to, ..)) = found else { panic!("no timeout from {runs} runs") };
                cut += (0..1_000).filter(|_| time(&mut rng) > to).count() as f64 / 1_000.0;
            }
            assert!(cut / 40.0 <= 0.005, "{runs} runs, sigma {sigma}: {:.3} % are cut", 100.0 * cut / 40.0);
        }
    }
}

#[test]
fn a_timeout_that_cuts_is_doubled_and_a_step_that_hangs_is_left() {
    let dag = dag(&[("slow", &[])]);
    let plan = |share: usize| {
        let history = runs_of(&dag, 40, |run, _, number| {
            if number == 1 && run % 10 < share { fails(ms(30_000), Failure::Timeout) } else { takes(ms(25_000)) }
        });
        optimize(&graph(dag.clone()), &history, &at(Level::Basic)).unwrap()
    };
    let some = plan(1);
    let doubled = Edit::Timeout { task: id("slow"), from: ms(30_000), to: ms(60_000) };
    assert!(edits(&some).contains(&&doubled), "{some}");
    let history = runs_of(&dag, 40, |_, _, _| fails(ms(30_000), Failure::Timeout));
    let most = optimize(&graph(dag.clone()), &history, &at(Level::Basic)).unwrap();
    assert!(!edits(&most).iter().any(|e| matches!(e, Edit::Timeout { .. })), "{most}");
    assert!(most.notes.iter().any(|note| note.contains("it hangs")), "{most}");
}

#[test]
fn the_timeout_of_a_quick_step_is_left_alone() {
    let mut rng = StdRng::seed_from_u64(1);
    let graph = graph(dag(ETL));
    let history = records(&graph.dag, 400, 4, ms(1), &[("fetch", 2_000)], &mut rng);
    let plan = optimize(&graph, &history, &at(Level::Basic)).unwrap();
    assert!(!edits(&plan).iter().any(|e| matches!(e, Edit::Timeout { .. })), "{plan}");
    let low = Options { timeout_threshold: Duration::from_secs(1), ..at(Level::Basic) };
    let plan = optimize(&graph, &history, &low).unwrap();
    assert!(edits(&plan).iter().any(|e| matches!(e, Edit::Timeout { task, .. } if task.as_str() == "fetch")), "{plan}");
}

#[test]
fn attempts_are_as_many_as_failures_call_for() {
    let dag = dag(&[("a", &[])]);
    let attempts = |share: usize, runs: usize, policy: &Policy, kind: Failure| {
        let graph = Graph { policies: HashMap::from([(id("a"), policy.clone())]), ..graph(dag.clone()) };
        let mut tries = 0;
        let history = runs_of(&dag, runs, |_, _, _| {
            tries += 1;
            if tries % 10 < share { fails(ms(5), kind) } else { takes(ms(5)) }
        });
        let plan = optimize(&graph, &history, &at(Level::Basic)).unwrap();
        plan.changes.iter().find_map(|c| if let Edit::Attempts { to, .. } = c.edit { Some(to) } else { None })
    };
    let twice = Policy { idempotent: true, attempts: 2, ..Policy::default() };
    assert_eq!(attempts(3, 100, &twice, Failure::Unavailable), Some(5), "0.3^5 is still 0.2 %: the most there is");
    assert_eq!(attempts(1, 100, &twice, Failure::Unavailable), Some(3), "0.1^3 is 0.1 %");
    assert_eq!(attempts(3, 100, &twice, Failure::Rejected), None, "trying again can't help");
    let effects = Policy { idempotent: false, ..twice.clone() };
    assert_eq!(attempts(3, 100, &effects, Failure::Unavailable), None, "it may not be done twice");
    let many = Policy { attempts: 5, ..twice };
    assert_eq!(attempts(0, 30, &many, Failure::Other), Some(3), "30 runs without a failure prove 8 % at most");
    assert_eq!(attempts(0, 5_000, &many, Failure::Other), Some(1));
}

fn reads(history: &mut History, who: &str, what: &[&str]) {
    for attempt in history.runs.iter_mut().flat_map(|run| &mut run.attempts).filter(|a| a.task.as_str() == who) {
        attempt.read = Some(what.iter().map(|w| id(w)).collect());
    }
}

#[test]
fn an_edge_that_others_imply_goes_if_nothing_was_read_over_it() {
    let mut rng = StdRng::seed_from_u64(1);
    let graph = graph(dag(ETL));
    let mut history = records(&graph.dag, 30, 4, ms(1), &[], &mut rng);
    let dropped = |history: &History| {
        let plan = optimize(&graph, history, &at(Level::Basic)).unwrap();
        let edges = plan.changes.into_iter().filter_map(|c| match c.edit {
            Edit::DropEdge { task, dependency } => Some(format!("{task} -> {dependency}")),
            _ => None,
        });
        edges.collect::<Vec<_>>()
    };
    assert_eq!(dropped(&history), [""; 0], "what was read is not known");
    reads(&mut history, "store", &["check", "fetch"]);
    assert_eq!(dropped(&history), [""; 0], "its output is read");
    reads(&mut history, "store", &["check"]);
    assert_eq!(dropped(&history), ["store -> fetch"]);
    reads(&mut history, "store", &[]);
    assert_eq!(dropped(&history), ["store -> fetch"], "nothing else says that check comes first");
    history.runs[7].attempts.iter_mut().for_each(|a| a.read = None);
    assert_eq!(dropped(&history), [""; 0], "of one run it is not known");
}

#[test]
fn an_unread_edge_goes_at_aggressive_only_before_a_pure_step() {
    let tasks: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])];
    let mut rng = StdRng::seed_from_u64(1);
    let mut dropped = |pure: bool, tasks| {
        let mut graph = graph(dag(tasks));
        graph.policies.insert(id("b"), Policy { pure, ..Policy::default() });
        let mut history = records(&graph.dag, 120, 4, ms(1), &[("a", 100), ("b", 100)], &mut rng);
        reads(&mut history, "b", &[]);
        let plan = optimize(&graph, &history, &at(Level::Aggressive)).unwrap();
        edits(&plan).contains(&&Edit::DropEdge { task: id("b"), dependency: id("a") })
    };
    assert!(dropped(true, tasks));
    assert!(!dropped(false, tasks), "it may have effects that come after a's");
    let chain: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"])];
    assert!(!dropped(true, chain), "c comes after a by b alone");
}

#[test]
fn a_chain_is_joined_where_its_dispatch_is_a_fifth_of_the_run() {
    let chain = dag(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
    let mut rng = StdRng::seed_from_u64(1);
    let means: &[(&str, u64)] = &[("a", 10), ("b", 10), ("c", 10)];
    let slow = records(&chain, 60, 4, ms(10), means, &mut rng);
    let may = |steps: &[&str]| {
        let policy = Policy { idempotent: true, ..Policy::default() };
        let policies = steps.iter().map(|step| (id(step), policy.clone())).collect();
        Graph { policies, ..graph(chain.clone()) }
    };
    let plan = optimize(&may(&["a", "b", "c"]), &slow, &at(Level::Advanced)).unwrap();
    let fuse = Edit::Fuse { chain: ["a", "b", "c"].map(id).to_vec() };
    let change = plan.changes.iter().find(|c| c.edit == fuse).expect("joined");
    assert_eq!(change.gain, Some(Gain::RunTime(ms(20))), "{plan}");
    let Replayed { before, after, .. } = plan.replayed.unwrap();
    assert_eq!(before - after, ms(20));
    // What may not be done again is in no chain.
    let plan = optimize(&may(&["a", "c"]), &slow, &at(Level::Advanced)).unwrap();
    assert!(!edits(&plan).iter().any(|edit| matches!(edit, Edit::Fuse { .. })), "{plan}");
    // Nor does a step in the hand of another say what a dispatch takes.
    let mut joined = slow;
    for attempt in joined.runs.iter_mut().flat_map(|run| &mut run.attempts).filter(|attempt| attempt.task != id("a")) {
        attempt.manner = Manner::Followed;
    }
    let plan = optimize(&may(&["a", "b", "c"]), &joined, &at(Level::Advanced)).unwrap();
    assert!(!edits(&plan).contains(&&fuse), "{plan}");
    let quick = records(&chain, 60, 4, ms(1), means, &mut rng);
    let plan = optimize(&may(&["a", "b", "c"]), &quick, &at(Level::Advanced)).unwrap();
    assert!(!edits(&plan).contains(&&fuse), "{plan}");
}

#[test]
fn slots_are_as_many_as_shorten_a_run() {
    let fan: Vec<(String, &[&str])> = (0..8).map(|i| (format!("f{i}"), &[] as &[&str])).collect();
    let fan: Vec<(&str, &[&str])> = fan.iter().map(|(id, d)| (id.as_str(), *d)).collect();
    let mut rng = StdRng::seed_from_u64(1);
    let slots = |dag: Dag, rng: &mut StdRng| {
        let history = records(&dag, 60, 4, ms(0), &[], rng);
        let plan = optimize(&graph(dag), &history, &at(Level::Advanced)).unwrap();
        plan.changes.iter().find_map(|c| if let Edit::MaxParallel { to, .. } = c.edit { Some(to) } else { None })
    };
    assert!(slots(dag(&fan), &mut rng).is_some_and(|to| (7..=8).contains(&to)), "eight steps that nothing orders");
    assert_eq!(slots(dag(ETL), &mut rng), Some(1), "one after the other");
}

#[test]
fn a_pure_step_is_remembered_if_inputs_come_again() {
    let dag = dag(&[("a", &[]), ("b", &["a"])]);
    let mut graph = graph(dag.clone());
    graph.policies.insert(id("b"), Policy { pure: true, ..Policy::default() });
    let history =
        |kinds: u64| runs_of(&dag, 60, |run, _, _| Does { input: Some(run as u64 % kinds), ..takes(ms(100)) });
    let plan = optimize(&graph, &history(6), &at(Level::Advanced)).unwrap();
    assert!(edits(&plan).contains(&&Edit::Memoise { task: id("b") }), "{plan}");
    assert!(!edits(&plan).contains(&&Edit::Memoise { task: id("a") }), "a has effects: {plan}");
    let plan = optimize(&graph, &history(1_000), &at(Level::Advanced)).unwrap();
    assert!(!edits(&plan).contains(&&Edit::Memoise { task: id("b") }), "{plan}");
}

#[test]
fn the_shortest_pause_that_helps_is_found_in_the_records() {
    let dag = dag(&[("a", &[])]);
    let run = |pause: u64, well: bool| {
        let mut tries = 0;
        record(&dag, 1, ms(0), ms(pause), |_, number| {
            tries += 1;
            if number == 1 || (tries == 2 && !well) { fails(ms(5), Failure::Overloaded) } else { takes(ms(5)) }
        })
    };
    // Retries within a second mostly fail, later ones don't.
    let runs = (0..120u64).map(|i| run([100, 500, 3_000, 9_000][i as usize % 4] + i, i % 4 >= 2 || i % 16 == 0));
    let plan = optimize(&graph(dag.clone()), &History { runs: runs.collect() }, &at(Level::Advanced)).unwrap();
    let to = plan.changes.iter().find_map(|c| match c.edit {
        Edit::Backoff { failure: Failure::Overloaded, to, .. } => Some(to.first),
        _ => None,
    });
    assert!(to.is_some_and(|first| (ms(3_000)..ms(3_200)).contains(&first)), "{plan}");
    let constant = History { runs: (0..120).map(|i| run(100, i % 3 == 0)).collect() };
    let plan = optimize(&graph(dag.clone()), &constant, &at(Level::Advanced)).unwrap();
    assert!(
        !edits(&plan).iter().any(|e| matches!(e, Edit::Backoff { .. })),
        "of other pauses nothing is known: {plan}"
    );
}

#[test]
fn stragglers_get_a_second_try_if_they_may() {
    let dag = dag(&[("a", &[]), ("b", &["a"])]);
    let mut rng = StdRng::seed_from_u64(1);
    let history = runs_of(&dag, 200, |run, task, _| {
        let straggles = task.as_str() == "a" && run % 25 == 0;
        takes(Duration::from_secs_f64(if straggles { 5.0 } else { 0.1 * noise(&mut rng, 0.1) }))
    });
    let plan = |idempotent: bool| {
        let mut graph = graph(dag.clone());
        graph.policies.insert(id("a"), Policy { idempotent, ..Policy::default() });
        optimize(&graph, &history, &at(Level::Aggressive)).unwrap()
    };
    let change = plan(true);
    let found = change.changes.iter().find(|c| matches!(&c.edit, Edit::Speculate { task, .. } if task.as_str() == "a"));
    assert!(matches!(found.unwrap().gain, Some(Gain::RunTime(time)) if time > ms(100)), "{change}");
    assert!(!edits(&plan(false)).iter().any(|e| matches!(e, Edit::Speculate { .. })));
}

/// A plan must not undo itself by what it made of the records.
#[test]
fn what_was_overtaken_or_recalled_is_not_taken_for_a_quick_step() {
    let dag = dag(&[("a", &[])]);
    let mut graph = graph(dag.clone());
    graph.policies.insert(id("a"), Policy { idempotent: true, pure: true, ..Policy::default() });
    let mut rng = StdRng::seed_from_u64(1);
    let mut history = runs_of(&dag, 200, |run, _, _| {
        let straggles = if run == 0 { 5.0 } else { 0.15 };
        takes(Duration::from_secs_f64(if run % 25 == 0 { straggles } else { 0.1 * noise(&mut rng, 0.05) }))
    });
    let overtaken = |history: &History| {
        let plan = optimize(&graph, history, &at(Level::Aggressive)).unwrap();
        plan.changes.iter().any(|change| matches!(change.edit, Edit::Speculate { .. }))
    };
    for (i, run) in history.runs.iter_mut().enumerate().filter(|(i, _)| i % 25 == 0 && *i > 0) {
        assert!(i > 0);
        run.attempts[0].manner = Manner::Overtaken;
    }
    assert!(overtaken(&history), "the others are as long as the one that was waited for");
    history.runs.iter_mut().for_each(|run| run.attempts[0].manner = Manner::Alone);
    history.runs[0].attempts[0].ended = ms(150);
    assert!(!overtaken(&history), "150 ms is not worth another");
    // Of what was taken from before nothing is known.
    for run in &mut history.runs {
        run.attempts[0].manner = Manner::Recalled;
        run.attempts[0].ended = run.attempts[0].started;
    }
    assert!(history.mean_times().is_empty());
    let plan = optimize(&graph, &history, &at(Level::Aggressive)).unwrap();
    assert!(plan.changes.is_empty() && plan.replayed.is_none(), "{plan}");
}

#[test]
fn a_wide_fan_of_small_steps_is_done_in_batches_where_that_is_sooner() {
    let names: Vec<String> = (0..40).map(|i| format!("m{i:02}")).collect();
    let mut tasks: Vec<(&str, &[&str])> = vec![("list", &[])];
    tasks.extend(names.iter().map(|name| (name.as_str(), &["list"] as &[&str])));
    let graph = graph(dag(&tasks));
    let batches = |history: &History| {
        let plan = optimize(&graph, history, &at(Level::Aggressive)).unwrap();
        let split = plan.changes.into_iter().find(|change| matches!(change.edit, Edit::Split { .. }));
        split.map(|change| match change.edit {
            Edit::Split { batches } => (batches, change.gain),
            _ => unreachable!(),
        })
    };
    // Somebody hands out one step every 30 ms, so that slots stand idle.
    let mut run = record(&graph.dag, 4, ms(0), ms(1), |_, _| takes(ms(10)));
    for (place, attempt) in run.attempts.iter_mut().enumerate().skip(1) {
        attempt.queued = ms(10);
        attempt.started = ms(10 + 30 * place as u64);
        attempt.ended = attempt.started + ms(10);
    }
    let (found, gain) = batches(&History { runs: vec![run; 110] }).expect("batches");
    let all: HashSet<&TaskId> = found.iter().flatten().collect();
    assert_eq!((found.len(), all.len()), (4, 40), "each step is in one batch");
    assert!(matches!(gain, Some(Gain::RunTime(time)) if time > ms(500)), "{gain:?}");
    // Here all are there after the first 30 ms, whoever does them.
    let mut rng = StdRng::seed_from_u64(1);
    assert_eq!(batches(&records(&graph.dag, 110, 4, ms(30), &[], &mut rng)), None);
}

#[test]
fn a_replay_of_what_was_recorded_takes_as_long_as_it_took() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut sum = 0.0;
    for _ in 0..50 {
        let dag = layered(&mut rng, 30);
        let slots = rng.random_range(1..6);
        let run = record(&dag, slots, ms(0), ms(20), |_, number| {
            if number < 3 && rng.random_bool(0.1) {
                fails(ms(rng.random_range(1..50)), Failure::Other)
            } else {
                takes(ms(rng.random_range(1..50)))
            }
        });
        let took = run.makespan();
        let graph = Graph { max_parallel: slots, ..graph(dag) };
        let again = replay(&History { runs: vec![run] }, &graph, &Arrangement::of(graph.clone())).unwrap();
        // Who goes first of two that were ready at the same moment may differ.
        let ratio = again.before.as_secs_f64() / took.as_secs_f64();
        assert!((0.85..1.15).contains(&ratio), "{took:?} became {:?}", again.before);
        sum += ratio;
    }
    assert!((0.98..1.02).contains(&(sum / 50.0)), "{:.3} on average", sum / 50.0);
}

fn one_each(times: &HashMap<TaskId, Duration>) -> HashMap<&TaskId, Vec<Try>> {
    times.iter().map(|(task, time)| (task, vec![Try { duration: *time, ..Try::default() }])).collect()
}

#[test]
fn by_the_longest_way_first_a_thousand_random_graphs_are_near_the_bound() {
    let mut rng = StdRng::seed_from_u64(13);
    let mut sum = 0.0;
    for _ in 0..1_000 {
        let count = rng.random_range(20..120);
        let graph = Graph { max_parallel: rng.random_range(2..12), ..graph(layered(&mut rng, count)) };
        let time = |rng: &mut StdRng| Duration::from_secs_f64(0.1 * noise(rng, 0.8));
        let times: HashMap<TaskId, Duration> =
            graph.dag.tasks().iter().map(|task| (task.id.clone(), time(&mut rng))).collect();
        let (_, critical) = critical_path(&graph.dag, |task| times[task]);
        let work: Duration = times.values().sum();
        let bound = critical.max(work / graph.max_parallel);
        let mut arrangement = Arrangement::of(graph.clone());
        arrangement.priority = ways_to_the_end(&graph.dag, |task| times[task]);
        let makespan = simulate(&arrangement, &one_each(&times));
        assert!(makespan + Duration::from_micros(1) >= bound, "{makespan:?} is under what is possible, {bound:?}");
        sum += makespan.as_secs_f64() / bound.as_secs_f64();
    }
    assert!(sum / 1_000.0 <= 1.05, "{:.4} times the bound on average", sum / 1_000.0);
}

#[test]
fn skewed_graphs_end_fifteen_percent_earlier_than_first_come_first_served() {
    let mut rng = StdRng::seed_from_u64(17);
    let mut sum = 0.0;
    for _ in 0..200 {
        // Many short steps that come first, and one long chain among those that come last.
        let (short, long) = (rng.random_range(30..80), rng.random_range(4..10));
        let mut tasks: Vec<Task> = (0..short).map(|i| task(&format!("s{i}"), None, &[])).collect();
        tasks.extend((0..long).map(|i| match i {
            0 => task("l0", None, &[]),
            i => task(&format!("l{i}"), None, &[format!("l{}", i - 1).as_str()]),
        }));
        let dag = Dag::new(tasks, &Limits::default()).unwrap();
        let graph = Graph { max_parallel: rng.random_range(2..8), ..graph(dag) };
        let mut time = |task: &TaskId| {
            let mean = if task.as_str().starts_with('l') { 0.5 } else { 0.1 };
            Duration::from_secs_f64(mean * noise(&mut rng, 0.5))
        };
        let times: HashMap<TaskId, Duration> =
            graph.dag.tasks().iter().map(|task| (task.id.clone(), time(&task.id))).collect();
        let fifo = simulate(&Arrangement::of(graph.clone()), &one_each(&times));
        let mut arrangement = Arrangement::of(graph);
        arrangement.priority = ways_to_the_end(&arrangement.graph.dag, |task| times[task]);
        sum += simulate(&arrangement, &one_each(&times)).as_secs_f64() / fifo.as_secs_f64();
    }
    assert!(sum / 200.0 <= 0.85, "{:.3} of the time on average", sum / 200.0);
}

/// What a run over a made-up graph does: an output follows from the inputs that a step looks at and, unless it is pure,
/// from the effects of all steps that had to come before it.
struct World {
    graph: Graph,
    reads: HashMap<TaskId, Vec<TaskId>>,
    /// Work that comes before each task in the graph as it was given.
    before: HashMap<TaskId, Vec<TaskId>>,
}

impl World {
    fn random(rng: &mut StdRng) -> Self {
        let count = rng.random_range(3..12);
        let mut tasks: Vec<Task> = vec![];
        if rng.random_bool(0.3) {
            tasks.push(task("g", None, &[]));
        }
        for i in 0..count {
            let mut depends_on: Vec<String> =
                (0..i).filter(|_| rng.random_bool(0.35)).map(|j: usize| format!("t{j}")).collect();
            if rng.random_bool(0.3) {
                depends_on.truncate(1);
            }
            let depends_on: Vec<&str> = depends_on.iter().map(String::as_str).collect();
            tasks.push(task(&format!("t{i}"), None, &depends_on));
        }
        if tasks[0].id.as_str() == "g" {
            // Neighbours, so that nothing between them can close a circle.
            let from = rng.random_range(1..tasks.len());
            let until = (from + rng.random_range(1..4)).min(tasks.len());
            for member in &mut tasks[from..until] {
                member.parent = Some(id("g"));
            }
            for later in &mut tasks[until..] {
                if rng.random_bool(0.4) {
                    later.depends_on.push(id("g"));
                }
            }
        }
        let dag = Dag::new(tasks, &Limits::default()).unwrap();
        let mut policies = HashMap::new();
        let mut reads = HashMap::new();
        for task in dag.leaves() {
            let (pure, idempotent) = (rng.random_bool(0.5), rng.random_bool(0.8));
            policies.insert(task.id.clone(), Policy { pure, idempotent, ..Policy::default() });
            let seen = task.depends_on.iter().filter(|d| d.as_str() != "g" && rng.random_bool(0.5));
            reads.insert(task.id.clone(), seen.cloned().collect::<Vec<_>>());
        }
        let net = Net::new(&dag);
        let leaves: Vec<usize> = (0..dag.tasks().len()).filter(|&i| !dag.is_group(i)).collect();
        let ends: Vec<usize> = leaves.iter().map(|&i| end(i)).collect();
        let before = leaves.iter().map(|&i| {
            let found = net.come_before(&net.before[start(i)], &ends, &mut 1_000_000).unwrap();
            (dag.tasks()[i].id.clone(), found.into_iter().map(|m| dag.tasks()[m / 2].id.clone()).collect())
        });
        let before = before.collect();
        let graph = Graph { dag, policies, max_parallel: rng.random_range(1..5) };
        Self { graph, reads, before }
    }

    fn history(&self, rng: &mut StdRng) -> History {
        let dispatch = ms([0, 3, 20][rng.random_range(0..3)]);
        let distinct: Vec<Run> = (0..24)
            .map(|_| {
                record(&self.graph.dag, self.graph.max_parallel, dispatch, ms(5), |task, number| {
                    let fail = number < 3 && rng.random_bool(0.05);
                    let time = ms(if rng.random_bool(0.04) { 900 } else { rng.random_range(5..15) });
                    let did = if fail { fails(time, Failure::Unavailable) } else { takes(time) };
                    let input = Some(rng.random_range(0..3));
                    Does { read: Some(self.reads[task].clone()), input, ..did }
                })
            })
            .collect();
        History { runs: distinct.iter().cycle().take(120).cloned().collect() }
    }

    fn is_pure(&self, task: &TaskId) -> bool {
        self.graph.policy(task).pure
    }

    /// The outputs of all steps, and the order in which they ended; who is next is by chance.
    fn run(&self, arrangement: &Arrangement, rng: &mut StdRng) -> (BTreeMap<TaskId, u64>, Vec<TaskId>) {
        let mut schedule = Schedule::new(&arrangement.graph.dag);
        let follows: HashMap<&TaskId, &TaskId> =
            arrangement.together.iter().flat_map(|list| list.windows(2).map(|pair| (&pair[0], &pair[1]))).collect();
        let direct: HashMap<&TaskId, &Vec<TaskId>> =
            arrangement.graph.dag.tasks().iter().map(|t| (&t.id, &t.depends_on)).collect();
        let (mut outputs, mut order) = (BTreeMap::new(), vec![]);
        let mut effects: HashSet<TaskId> = HashSet::new();
        let mut remembered: HashMap<(TaskId, u64), u64> = HashMap::new();
        let mut ready: Vec<TaskId> = schedule.take_ready().into_iter().cloned().collect();
        let mut last: Option<TaskId> = None;
        while let Some(any) = ready.choose(rng).cloned() {
            let next = last.as_ref().and_then(|l| follows.get(l)).filter(|f| ready.contains(f));
            let task = next.map_or(any, |f| (*f).clone());
            ready.retain(|other| *other != task);
            let times = if arrangement.speculate.contains_key(&task) { 2 } else { 1 };
            let mut output = 0;
            for _ in 0..times {
                let mut given = DefaultHasher::new();
                task.hash(&mut given);
                for read in &self.reads[&task] {
                    // What is no dependency any more is not there to be read.
                    let value: Option<&u64> = outputs.get(read).filter(|_| direct[&task].contains(read));
                    (read, value).hash(&mut given);
                }
                if !self.is_pure(&task) {
                    let mut seen: Vec<&TaskId> = self.before[&task].iter().filter(|t| effects.contains(t)).collect();
                    seen.sort();
                    seen.hash(&mut given);
                }
                let made = given.finish();
                output = if arrangement.memoised.contains(&task) {
                    *remembered.entry((task.clone(), made)).or_insert(made)
                } else {
                    made
                };
            }
            if !self.is_pure(&task) {
                effects.insert(task.clone());
            }
            outputs.insert(task.clone(), output);
            schedule.complete(&task);
            ready.extend(schedule.take_ready().into_iter().cloned());
            order.push(task.clone());
            last = Some(task);
        }
        assert!(schedule.is_done(), "a step never became ready");
        (outputs, order)
    }

    /// What is wrong with an arrangement, if anything is seen to be.
    fn differs(&self, arrangement: &Arrangement, keeps_structure: bool, rng: &mut StdRng) -> Option<String> {
        let (wanted, _) = self.run(&Arrangement::of(self.graph.clone()), rng);
        for _ in 0..4 {
            let (outputs, order) = self.run(arrangement, rng);
            if outputs != wanted {
                return Some(format!("outputs differ in the order {order:?}"));
            }
            let place: HashMap<&TaskId, usize> = order.iter().enumerate().map(|(i, task)| (task, i)).collect();
            for (task, before) in self.before.iter().filter(|(t, _)| keeps_structure || !self.is_pure(t)) {
                if let Some(late) = before.iter().find(|b| place[b] > place[task]) {
                    return Some(format!("{task} came before {late}"));
                }
            }
        }
        None
    }
}

/// How many changes of each kind the plans of these made-up graphs had; each was run.
fn optimised_alike(seeds: impl Iterator<Item = u64>) -> BTreeMap<String, usize> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for seed in seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = World::random(rng);
        let history = world.history(rng);
        for level in [Level::Basic, Level::Advanced, Level::Aggressive] {
            let plan = optimize(&world.graph, &history, &at(level)).unwrap();
            for edit in edits(&plan) {
                let name = format!("{edit:?}");
                *kinds.entry(name.split([' ', '{']).next().unwrap().to_owned()).or_default() += 1;
            }
            let arrangement = plan.apply(&world.graph).unwrap();
            let joined: Vec<&TaskId> = arrangement.together.iter().flatten().collect();
            assert_eq!(joined.iter().collect::<HashSet<_>>().len(), joined.len(), "seed {seed}: {plan}");
            let wrong = world.differs(&arrangement, level < Level::Aggressive, rng);
            assert_eq!(wrong, None, "seed {seed}, {}:\n{plan}\n{:?}", level.name(), world.graph.dag.tasks());
        }
    }
    kinds
}

#[test]
fn an_optimised_graph_gives_the_same_outputs_and_keeps_the_order() {
    let kinds = optimised_alike(0..60);
    // Else it would prove nothing of them.
    for kind in ["DropEdge", "Order", "Fuse", "MaxParallel", "Memoise", "Speculate", "Attempts"] {
        assert!(kinds.contains_key(kind), "no plan had {kind}: {kinds:?}");
    }
}

/// Ten times 100 graphs with `scripts/test --faults`, so that they share the processors.
mod faults {
    use super::optimised_alike;

    #[track_caller]
    fn hundred(which: u64) {
        if std::env::vars_os().any(|(name, value)| name == "TANDEM_FAULTS" && value == "1") {
            let kinds = optimised_alike(which * 100..(which + 1) * 100);
            assert!(kinds.values().sum::<usize>() > 1_000, "{kinds:?}");
        } else {
            optimised_alike(which * 100..which * 100 + 3);
        }
    }

    macro_rules! hundreds {
        ($($name:ident $which:literal)*) => { $(#[test] fn $name() { hundred($which) })* };
    }

    hundreds! {
        graphs_0 0 graphs_1 1 graphs_2 2 graphs_3 3 graphs_4 4
        graphs_5 5 graphs_6 6 graphs_7 7 graphs_8 8 graphs_9 9
    }
}

#[test]
fn that_test_sees_an_edge_that_should_have_stayed() {
    let mut seen = 0;
    let mut all = 0;
    for seed in 0..60 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = World::random(rng);
        let edges = world.graph.dag.leaves().flat_map(|t| t.depends_on.iter().map(move |d| (t.id.clone(), d.clone())));
        let read = edges.filter(|(task, dependency)| world.reads[task].contains(dependency));
        for (task, dependency) in read {
            let mut arrangement = Arrangement::of(world.graph.clone());
            arrangement.apply(&Edit::DropEdge { task, dependency }).unwrap();
            all += 1;
            seen += usize::from(world.differs(&arrangement, true, rng).is_some());
        }
    }
    assert!(all > 100 && seen == all, "{seen} of {all}");
}

#[test]
fn a_plan_reads_as_a_difference_and_survives_json() {
    let mut rng = StdRng::seed_from_u64(1);
    let graph = graph(dag(&[("a", &[]), ("b", &["a"]), ("c", &["a"])]));
    let history = records(&graph.dag, 60, 4, ms(30), &[("a", 40_000), ("b", 20), ("c", 10)], &mut rng);
    let plan = optimize(&graph, &history, &at(Level::Advanced)).unwrap();
    let text = plan.to_string();
    for line in [
        "--- as it is (60 recorded runs)",
        "+++ level advanced",
        "@@ a: timeout @@",
        "-  30.0 s",
        "@@ order @@",
        "+  first: a -> b",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let json = serde_json::to_string(&plan).unwrap();
    let back: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(back.changes, plan.changes);
    assert_eq!(back.to_string(), text);
}

#[test]
fn recommendations_come_from_records_alone() {
    let dag = dag(&[("a", &[]), ("b", &[]), ("c", &["a"])]);
    let graph = Graph { max_parallel: 1, ..graph(dag.clone()) };
    let options = Options::default();
    assert_eq!(recommend(&graph, &History::default(), &options), Recommendations::default());
    let runs = (0..60).map(|run| {
        record(&dag, 1, ms(0), ms(1), |task, number| {
            let worker = if run % 2 == 0 { "north" } else { "south" };
            let failing = task.as_str() == "b" && worker == "south" && number == 1;
            let did = if failing { fails(ms(5), Failure::Unavailable) } else { takes(ms(40_000)) };
            Does { worker, read: Some(vec![]), ..did }
        })
    });
    let found = recommend(&graph, &History { runs: runs.collect() }, &options);
    let pair = |first: &str, second: &str, reason| {
        found
            .parallelizable_pairs
            .iter()
            .any(|p| (p.first.as_str(), p.second.as_str(), p.reason) == (first, second, reason))
    };
    assert!(pair("a", "b", PairReason::NoFreeSlot), "{found}");
    assert!(pair("a", "c", PairReason::OutputUnread), "{found}");
    assert!(found.timeout_adjustments[&id("a")] > 40_000, "{found}");
    let on_south = |w: &Warning| w.task.as_str() == "b" && w.pattern == Pattern::Worker { worker: "south".to_owned() };
    assert!(found.failed_pattern_warnings.iter().any(on_south), "{found}");
    assert!(found.failed_pattern_warnings.iter().all(|w| w.task.as_str() == "b"), "{found}");
    assert_eq!(found.resource_allocation[&id("a")].class, Class::Heavy);
    let json = serde_json::to_value(&found).unwrap();
    for part in ["parallelizable_pairs", "timeout_adjustments", "failed_pattern_warnings", "resource_allocation"] {
        assert!(json.get(part).is_some(), "{part}");
    }
}

#[test]
fn twenty_thousand_tasks_are_planned_for() {
    let tasks = (0..20_000).map(|i| match i {
        0 => task("t0", None, &[]),
        i => task(&format!("t{i}"), None, &[format!("t{}", i / 2).as_str(), "t0"][..if i > 1 { 2 } else { 1 }]),
    });
    let dag = Dag::new(tasks.collect(), &Limits::default()).unwrap();
    // What one step of a small run leaves behind, for all of them.
    let small = record(&Dag::atomic("one"), 1, ms(0), ms(1), |_, _| Does { read: Some(vec![]), ..takes(ms(5)) });
    let attempts = dag.tasks().iter().map(|task| Attempt { task: task.id.clone(), ..small.attempts[0].clone() });
    let run = Run { attempts: attempts.collect(), ..small };
    let history = History { runs: vec![run; 20] };
    let plan = optimize(&graph(dag), &history, &at(Level::Basic)).unwrap();
    assert!(plan.changes.len() > 19_000, "{} edges to t0 are implied", plan.changes.len());
}
