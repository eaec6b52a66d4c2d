//! Runs a recorded run again in memory, under another arrangement: the same steps take the same times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::history::{Attempt, History, Run};
use super::plan::Arrangement;
use super::stats;
use crate::domain::{Dag, Schedule, TaskId};

/// How long the recorded runs take by the simulator, as they were arranged and as the plan would have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Runs that were replayed: those that completed and did every step of the graph.
    pub runs: usize,
    /// Mean over the runs.
    pub before: Duration,
    pub after: Duration,
}

/// One try at a step in a simulation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Try {
    /// After what it waits for had ended, or the try before it.
    pub pause: Duration,
    /// From when it may begin until it does, though a slot is free.
    pub dispatch: Duration,
    pub duration: Duration,
}

/// Replays `history` as the graph has it and as the arrangement would; `None` where no run can be replayed.
pub fn replay(history: &History, graph: &Graph, arrangement: &Arrangement) -> Option<Replayed> {
    let runs: Vec<Recorded<'_>> = history.runs.iter().filter_map(|run| Recorded::of(run, &graph.dag)).collect();
    let plain = Arrangement::of(graph.clone());
    Some(Replayed { runs: runs.len(), before: mean(&runs, &plain)?, after: mean(&runs, arrangement)? })
}

/// A run that can be done again.
pub(super) struct Recorded<'a> {
    pub(super) run: &'a Run,
    tries: HashMap<&'a TaskId, Vec<Try>>,
}

impl<'a> Recorded<'a> {
    /// `None` for a run that did not do every step of the graph, or took one's output from another run.
    pub(super) fn of(run: &'a Run, dag: &Dag) -> Option<Self> {
        let by_task = run.by_task();
        let did = |task: &TaskId| by_task.get(task).and_then(|a| a.last()).is_some_and(|a| a.is_done() && a.is_own());
        (run.completed && dag.leaves().all(|task| did(&task.id))).then(|| Self { run, tries: tries_of(run) })
    }
}

/// The mean makespan of these runs under an arrangement.
pub(super) fn mean(runs: &[Recorded<'_>], arrangement: &Arrangement) -> Option<Duration> {
    let mut known: HashSet<(&TaskId, u64)> = HashSet::new();
    let times: Vec<Duration> = runs
        .iter()
        .map(|recorded| {
            if arrangement.memoised.is_empty() {
                return simulate(arrangement, &recorded.tries);
            }
            let mut tries = recorded.tries.clone();
            let done = recorded.run.attempts.iter().filter(|a| a.is_done());
            for attempt in done.filter(|a| arrangement.memoised.contains(&a.task)) {
                if let Some(input) = attempt.input
                    && !known.insert((&attempt.task, input))
                {
                    tries.insert(&attempt.task, vec![Try::default()]);
                }
            }
            simulate(arrangement, &tries)
        })
        .collect();
    stats::mean(&times)
}

fn tries_of(run: &Run) -> HashMap<&TaskId, Vec<Try>> {
    let typical = run.typical_dispatch();
    let mut indexed: HashMap<(&TaskId, u32), Duration> = HashMap::new();
    for (attempt, dispatch) in run.attempts.iter().zip(run.dispatch()) {
        indexed.insert((&attempt.task, attempt.number), dispatch.unwrap_or(typical));
    }
    let by_task = run.by_task();
    by_task
        .into_iter()
        .map(|(task, attempts)| {
            let mut before: Option<&Attempt> = None;
            let tries = attempts
                .iter()
                .map(|a| {
                    let pause = before.map_or(Duration::ZERO, |before| a.pause_after(before));
                    before = Some(a);
                    let dispatch = indexed.get(&(task, a.number)).copied().unwrap_or(typical);
                    Try { pause, dispatch, duration: a.duration() }
                })
                .collect();
            (task, tries)
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A try ends. `turn` tells it from one that a duplicate overtook.
    End { task: usize, turn: u32 },
    /// A try takes so long that a duplicate is worth a slot.
    Straggles { task: usize, turn: u32 },
    /// A try may take a slot from now on.
    Queued { task: usize },
}

/// How long a run takes whose steps need these tries. A task without any takes no time.
pub fn simulate(arrangement: &Arrangement, tries: &HashMap<&TaskId, Vec<Try>>) -> Duration {
    Simulation::new(arrangement, tries).run()
}

struct Simulation<'a> {
    arrangement: &'a Arrangement,
    tries: Vec<&'a [Try]>,
    index: HashMap<&'a TaskId, usize>,
    schedule: Schedule<'a>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// By urgency, then by when they came.
    waiting: BinaryHeap<(Duration, Reverse<(u64, usize)>)>,
    arrived: u64,
    free: u32,
    /// Which try each task is at.
    at: Vec<usize>,
    turn: Vec<u32>,
    duplicated: Vec<bool>,
    /// Who follows on the same slot, and whom each follows.
    next: HashMap<usize, usize>,
    leader: HashMap<usize, usize>,
    ended: Vec<bool>,
    may_start: Vec<bool>,
}

impl<'a> Simulation<'a> {
    fn new(arrangement: &'a Arrangement, tries: &'a HashMap<&TaskId, Vec<Try>>) -> Self {
        let dag = &arrangement.graph.dag;
        let tasks = dag.tasks();
        let index: HashMap<&TaskId, usize> = tasks.iter().enumerate().map(|(i, t)| (&t.id, i)).collect();
        let (mut next, mut leader) = (HashMap::new(), HashMap::new());
        // A step that is in two lists counts in the first: else two could wait for each other.
        let mut known = HashSet::new();
        for list in &arrangement.together {
            let steps: Vec<usize> =
                list.iter().filter_map(|id| index.get(id).copied()).filter(|&step| known.insert(step)).collect();
            for pair in steps.windows(2) {
                next.insert(pair[0], pair[1]);
                leader.insert(pair[1], pair[0]);
            }
        }
        let n = tasks.len();
        Self {
            arrangement,
            tries: tasks.iter().map(|t| tries.get(&t.id).map_or(&[][..], Vec::as_slice)).collect(),
            index,
            schedule: Schedule::new(dag),
            events: BinaryHeap::new(),
            waiting: BinaryHeap::new(),
            arrived: 0,
            free: arrangement.graph.max_parallel.max(1),
            at: vec![0; n],
            turn: vec![0; n],
            duplicated: vec![false; n],
            next,
            leader,
            ended: vec![false; n],
            may_start: vec![false; n],
        }
    }

    fn run(mut self) -> Duration {
        let mut now = Duration::ZERO;
        let mut last_end = now;
        self.hand_out(now);
        self.fill(now);
        while let Some(Reverse((at, event))) = self.events.pop() {
            now = at;
            match event {
                Event::Queued { task } => self.enqueue(task),
                Event::Straggles { task, turn } => self.duplicate(now, task, turn),
                Event::End { task, turn } if self.turn[task] == turn => {
                    last_end = now;
                    self.end(now, task);
                }
                Event::End { .. } => {}
            }
            // All that happens at one moment happens before slots are given out.
            if self.events.peek().is_none_or(|Reverse((at, _))| *at > now) {
                self.fill(now);
            }
        }
        last_end
    }

    /// Takes what became ready.
    fn hand_out(&mut self, now: Duration) {
        for id in self.schedule.take_ready() {
            let Some(&task) = self.index.get(id) else { continue };
            self.may_start[task] = true;
            // Whoever follows another gets that one's slot, without a dispatch.
            if self.leader.get(&task).is_none_or(|&leader| self.ended[leader]) {
                self.queue(now, task);
            }
        }
    }

    fn queue(&mut self, now: Duration, task: usize) {
        let next = self.current(task);
        self.events.push(Reverse((now + next.pause + next.dispatch, Event::Queued { task })));
    }

    fn enqueue(&mut self, task: usize) {
        let id = &self.arrangement.graph.dag.tasks()[task].id;
        let urgency = self.arrangement.priority.get(id).copied().unwrap_or_default();
        self.arrived += 1;
        self.waiting.push((urgency, Reverse((self.arrived, task))));
    }

    fn fill(&mut self, now: Duration) {
        while self.free > 0
            && let Some((_, Reverse((_, task)))) = self.waiting.pop()
        {
            self.free -= 1;
            self.start(now, task);
        }
    }

    /// Begins a try; its slot is taken already.
    fn start(&mut self, now: Duration, task: usize) {
        let duration = self.current(task).duration;
        self.turn[task] += 1;
        let turn = self.turn[task];
        self.events.push(Reverse((now + duration, Event::End { task, turn })));
        let id = &self.arrangement.graph.dag.tasks()[task].id;
        if let Some(speculation) = self.arrangement.speculate.get(id)
            && duration > speculation.after
        {
            self.events.push(Reverse((now + speculation.after, Event::Straggles { task, turn })));
        }
    }

    /// A duplicate takes a slot only where one is free and nobody waits for it, and is as fast as the typical one.
    fn duplicate(&mut self, now: Duration, task: usize, turn: u32) {
        let id = &self.arrangement.graph.dag.tasks()[task].id;
        let typical = self.arrangement.speculate.get(id).map(|s| s.typical);
        if let Some(typical) = typical
            && self.turn[task] == turn
            && self.free > 0
            && self.waiting.is_empty()
        {
            self.free -= 1;
            self.duplicated[task] = true;
            self.events.push(Reverse((now + typical, Event::End { task, turn })));
        }
    }

    fn end(&mut self, now: Duration, task: usize) {
        // The other of two that run side by side comes to nothing.
        self.turn[task] += 1;
        if std::mem::take(&mut self.duplicated[task]) {
            self.free += 1;
        }
        self.at[task] += 1;
        if self.at[task] < self.tries[task].len() {
            self.free += 1;
            self.queue(now, task);
            return;
        }
        self.ended[task] = true;
        self.schedule.complete(&self.arrangement.graph.dag.tasks()[task].id);
        self.hand_out_but(now, task);
    }

    /// As [`Self::hand_out`], and who follows `task` begins on its slot.
    fn hand_out_but(&mut self, now: Duration, task: usize) {
        let follower = self.next.get(&task).copied();
        let was_ready = follower.is_some_and(|f| self.may_start[f]);
        for id in self.schedule.take_ready() {
            let Some(&ready) = self.index.get(id) else { continue };
            self.may_start[ready] = true;
            if Some(ready) != follower && self.leader.get(&ready).is_none_or(|&leader| self.ended[leader]) {
                self.queue(now, ready);
            }
        }
        match follower {
            Some(follower) if was_ready || self.may_start[follower] => self.start(now, follower),
            _ => self.free += 1,
        }
    }

    fn current(&self, task: usize) -> Try {
        self.tries[task].get(self.at[task]).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Speculation;
    use super::super::sample::{dag, ms};
    use super::*;

    fn arranged(tasks: &[(&str, &[&str])], slots: u32) -> Arrangement {
        Arrangement::of(Graph { dag: dag(tasks), policies: HashMap::new(), max_parallel: slots })
    }

    fn takes(arrangement: &Arrangement, times: &[(&str, u64, u64)]) -> Duration {
        let ids: Vec<TaskId> = times.iter().map(|(id, ..)| TaskId::new(id)).collect();
        let tries = ids.iter().zip(times).map(|(id, (_, dispatch, duration))| {
            (id, vec![Try { dispatch: ms(*dispatch), duration: ms(*duration), ..Try::default() }])
        });
        simulate(arrangement, &tries.collect())
    }

    const FORK: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])];
    const TIMES: &[(&str, u64, u64)] = &[("a", 1, 10), ("b", 1, 20), ("c", 1, 30), ("d", 1, 5)];

    #[test]
    fn steps_run_side_by_side_as_far_as_there_are_slots() {
        assert_eq!(takes(&arranged(FORK, 2), TIMES), ms(11 + 31 + 6));
        // With one slot, the dispatch of the second goes on while the first has it.
        assert_eq!(takes(&arranged(FORK, 1), TIMES), ms(11 + 21 + 30 + 6));
    }

    #[test]
    fn who_follows_on_a_slot_needs_no_dispatch() {
        let mut arrangement = arranged(FORK, 2);
        arrangement.together = vec![vec![TaskId::new("a"), TaskId::new("b")]];
        assert_eq!(takes(&arrangement, TIMES), ms(11 + 31 + 6), "c is dispatched as before");
        let chain = &[("a", &[] as &[&str]), ("b", &["a"]), ("c", &["b"])];
        let times = &[("a", 5, 10), ("b", 5, 10), ("c", 5, 10)];
        let mut arrangement = arranged(chain, 4);
        assert_eq!(takes(&arrangement, times), ms(45));
        arrangement.together = vec![["a", "b", "c"].map(TaskId::new).to_vec()];
        assert_eq!(takes(&arrangement, times), ms(35));
        arrangement = arranged(&[("a", &[]), ("b", &[]), ("c", &[])], 1);
        arrangement.together = vec![["a", "b", "c"].map(TaskId::new).to_vec()];
        assert_eq!(takes(&arrangement, times), ms(35), "a batch takes one slot, one after the other");
    }

    #[test]
    fn lists_that_contradict_each_other_or_the_order_end() {
        let chain = &[("a", &[] as &[&str]), ("b", &["a"]), ("c", &["b"])];
        let times = &[("a", 5, 10), ("b", 5, 10), ("c", 5, 10)];
        let mut arrangement = arranged(chain, 4);
        arrangement.together = vec![["a", "b"].map(TaskId::new).to_vec(), ["c", "b", "a"].map(TaskId::new).to_vec()];
        assert_eq!(takes(&arrangement, times), ms(40), "b follows a");
        arrangement.together = vec![vec![]];
        let fuse = |chain: [&str; 2]| super::super::plan::Edit::Fuse { chain: chain.map(TaskId::new).to_vec() };
        for chain in [["a", "b"], ["b", "a"], ["b", "c"]] {
            arrangement.apply(&fuse(chain)).unwrap();
        }
        assert_eq!(arrangement.together.iter().flatten().count(), 2, "{:?}", arrangement.together);
    }

    #[test]
    fn the_urgent_go_first_where_slots_are_short() {
        let tasks: &[(&str, &[&str])] = &[("x", &[]), ("y", &[]), ("long", &[]), ("end", &["long"])];
        let times = &[("x", 0, 10), ("y", 0, 10), ("long", 0, 10), ("end", 0, 10)];
        let mut arrangement = arranged(tasks, 2);
        assert_eq!(takes(&arrangement, times), ms(30));
        arrangement.priority = HashMap::from([(TaskId::new("long"), ms(20))]);
        assert_eq!(takes(&arrangement, times), ms(20));
    }

    #[test]
    fn a_duplicate_ends_a_straggler_if_a_slot_is_free() {
        let mut arrangement = arranged(&[("a", &[]), ("b", &[])], 2);
        let speculation = Speculation { after: ms(20), typical: ms(10) };
        arrangement.speculate = HashMap::from([(TaskId::new("a"), speculation)]);
        assert_eq!(takes(&arrangement, &[("a", 0, 500), ("b", 0, 5)]), ms(30));
        assert_eq!(takes(&arrangement, &[("a", 0, 500), ("b", 0, 600)]), ms(600), "no slot was free");
        arrangement.graph.max_parallel = 1;
        assert_eq!(takes(&arrangement, &[("a", 0, 500), ("b", 0, 5)]), ms(505));
    }

    #[test]
    fn a_retry_comes_after_its_pause_and_gives_up_the_slot() {
        let arrangement = arranged(&[("a", &[]), ("b", &[])], 1);
        let (a, b) = (TaskId::new("a"), TaskId::new("b"));
        let step = |pause, duration| Try { pause: ms(pause), dispatch: ms(0), duration: ms(duration) };
        let tries = HashMap::from([(&a, vec![step(0, 10), step(100, 10)]), (&b, vec![step(0, 50)])]);
        assert_eq!(simulate(&arrangement, &tries), ms(10 + 100 + 10));
    }
}
