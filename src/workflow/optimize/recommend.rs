//! What a person may want to know of a workflow's records. Each part is empty where they say nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::basic::{Timeout, timeout};
use super::graph::{Net, end, start};
use super::history::{Attempt, Failure, History, Outcome};
use super::plan::span;
use super::{Graph, Level, Options, Resources, advanced, stats};
use crate::domain::TaskId;

/// Pairs that are told; those that cost most come first.
const PAIRS: usize = 100;
/// Who waited for whom is looked at in graphs of up to so many tasks: it is their number times that of slots, in each run.
const PAIRED_TASKS: usize = 2_000;
/// The share of failures that is worth a warning.
const FAILING: f64 = 0.05;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recommendations {
    pub parallelizable_pairs: Vec<Pair>,
    /// In milliseconds.
    pub timeout_adjustments: BTreeMap<TaskId, u64>,
    pub failed_pattern_warnings: Vec<Warning>,
    pub resource_allocation: BTreeMap<TaskId, Resources>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub first: TaskId,
    pub second: TaskId,
    pub reason: PairReason,
    /// In how many runs it was seen.
    pub runs: usize,
    /// What it costs a run, on average of these.
    pub waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairReason {
    /// The graph lets them run side by side, and all slots were taken.
    NoFreeSlot,
    /// The second waits for the first and never looks at its output.
    OutputUnread,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub task: TaskId,
    #[serde(flatten)]
    pub pattern: Pattern,
    pub failed: usize,
    pub attempts: usize,
    /// How sure it is that this is no chance.
    pub confidence: f64,
    /// For a person.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "pattern", rename_all = "snake_case")]
pub enum Pattern {
    /// One kind of failure, more often than one in twenty.
    Kind { kind: Failure },
    /// More often on this worker than elsewhere.
    Worker { worker: String },
    /// More often with inputs above this size.
    LargeInput { bytes: u64 },
    /// More often in the later half of the records.
    Growing,
}

pub fn recommend(graph: &Graph, history: &History, options: &Options) -> Recommendations {
    if history.runs.len() < Level::Basic.runs() {
        return Recommendations::default();
    }
    let by_task = history.by_task();
    let mut found = Recommendations { parallelizable_pairs: pairs(graph, history), ..Recommendations::default() };
    for task in graph.dag.leaves() {
        let Some(attempts) = by_task.get(&task.id).filter(|a| a.len() >= Level::Basic.runs()) else { continue };
        if let Some(Timeout::To(to, ..)) = timeout(attempts, graph.policy(&task.id).timeout, options) {
            let ms = u64::try_from(to.as_millis()).unwrap_or(u64::MAX);
            found.timeout_adjustments.insert(task.id.clone(), ms);
        }
        let warnings = warnings(&task.id, attempts);
        found
            .failed_pattern_warnings
            .extend(warnings.into_iter().filter(|w| w.confidence >= options.pattern_confidence_threshold));
        if let Some(needs) = advanced::needs(attempts) {
            found.resource_allocation.insert(task.id.clone(), needs);
        }
    }
    found
}

fn pairs(graph: &Graph, history: &History) -> Vec<Pair> {
    let dag = &graph.dag;
    let net = Net::new(dag);
    let mut waits: HashMap<(usize, usize), (usize, Duration)> = HashMap::new();
    for run in history.runs.iter().filter(|_| dag.tasks().len() <= PAIRED_TASKS) {
        let mut by_start: Vec<&Attempt> = run.attempts.iter().collect();
        by_start.sort_by_key(|a| a.started);
        let dispatch = run.dispatch();
        let mut waited: Vec<&Attempt> =
            run.attempts.iter().zip(&dispatch).filter(|(_, free)| free.is_none()).map(|(attempt, _)| attempt).collect();
        waited.sort_by_key(|a| a.queued);
        let mut to_start = by_start.into_iter().peekable();
        // Who held the slots; never more than there are.
        let mut holders: Vec<&Attempt> = vec![];
        for second in waited {
            while let Some(next) = to_start.next_if(|a| a.started <= second.queued) {
                holders.push(next);
            }
            holders.retain(|a| a.ended > second.queued);
            let Some(&b) = net.index.get(&second.task) else { continue };
            for first in holders.iter().filter(|first| first.task != second.task) {
                let Some(&a) = net.index.get(&first.task) else { continue };
                let entry = waits.entry((a, b)).or_default();
                entry.0 += 1;
                entry.1 += second.wait().min(first.ended.saturating_sub(second.queued));
            }
        }
    }
    let tasks = dag.tasks();
    let half = history.runs.len().div_ceil(2);
    let mut found: Vec<Pair> = waits
        .into_iter()
        .filter(|(_, (runs, waited))| *runs >= half && !waited.is_zero())
        .map(|((a, b), (runs, waited))| Pair {
            first: tasks[a].id.clone(),
            second: tasks[b].id.clone(),
            reason: PairReason::NoFreeSlot,
            runs,
            waited: waited / u32::try_from(runs).unwrap_or(u32::MAX),
        })
        .collect();
    found.extend(unread_pairs(graph, &net, history));
    found.sort_by(|a, b| b.waited.cmp(&a.waited).then_with(|| (&a.first, &a.second).cmp(&(&b.first, &b.second))));
    found.truncate(PAIRS);
    found
}

/// Direct edges that nothing was read over and no other edge implies. Whether the second may go first is for a person to
/// say: it may need what the first does, though not what it returns.
fn unread_pairs(graph: &Graph, net: &Net<'_>, history: &History) -> Vec<Pair> {
    let by_task = history.by_task();
    let times = history.mean_times();
    let tasks = graph.dag.tasks();
    let mut found = vec![];
    let mut budget = 5_000_000;
    for (second, node) in tasks.iter().enumerate().filter(|(i, _)| !net.group[*i]) {
        let Some(attempts) = by_task.get(&node.id) else { continue };
        let done: Vec<&&Attempt> = attempts.iter().filter(|a| a.is_done()).collect();
        if done.len() < Level::Basic.runs() || done.iter().any(|a| a.read.is_none()) {
            continue;
        }
        let read: HashSet<&TaskId> = done.iter().flat_map(|a| a.read.iter().flatten()).collect();
        for &first in net.dependencies[second].iter().filter(|&&d| !net.group[d] && !read.contains(&tasks[d].id)) {
            let others: Vec<usize> =
                net.before[start(second)].iter().copied().filter(|&moment| moment != end(first)).collect();
            let implied = net.come_before(&others, &[end(first)], &mut budget);
            if implied.is_some_and(|implied| implied.is_empty()) {
                let shorter = times.get(&tasks[first].id).min(times.get(&node.id));
                found.push(Pair {
                    first: tasks[first].id.clone(),
                    second: node.id.clone(),
                    reason: PairReason::OutputUnread,
                    runs: done.len(),
                    waited: shorter.copied().unwrap_or_default(),
                });
            }
        }
    }
    found
}

fn warnings(task: &TaskId, attempts: &[&Attempt]) -> Vec<Warning> {
    let told: Vec<&Attempt> = attempts.iter().copied().filter(|a| a.outcome != Outcome::Cancelled).collect();
    let failed = |list: &[&Attempt]| list.iter().filter(|a| !a.is_done()).count();
    let mut found = vec![];
    let mut warn = |pattern, (failed, attempts): (usize, usize), confidence: f64, message: String| {
        found.push(Warning { task: task.clone(), pattern, failed, attempts, confidence, message });
    };
    let mut kinds: BTreeMap<Failure, usize> = BTreeMap::new();
    for attempt in &told {
        if let Outcome::Failed(kind) = attempt.outcome {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    for (kind, count) in kinds {
        // More than one in twenty, and surely so by the lower bound of the share; how sure is what remains.
        let (least, _) = stats::share_bounds(count, told.len());
        let expected = (FAILING * told.len() as f64).round() as usize;
        if least > FAILING
            && let Some(sure) = stats::larger_share((count, told.len()), (expected, told.len()))
        {
            let message = format!("{count} of {} attempts ended with '{}'", told.len(), kind.name());
            warn(Pattern::Kind { kind }, (count, told.len()), sure, message);
        }
    }
    let mut compare = |pattern: Pattern, here: &[&Attempt], elsewhere: &[&Attempt], bar: f64, words: [&str; 2]| {
        let (a, b) = ((failed(here), here.len()), (failed(elsewhere), elsewhere.len()));
        let Some(sure) = stats::larger_share(a, b) else { return };
        // A few failures prove nothing however the sums fall.
        if a.0 >= 3 && a.1 >= 10 && b.1 >= 10 && sure >= bar {
            let share = |(hits, n): (usize, usize)| format!("{:.0} % of {n}", 100.0 * hits as f64 / n as f64);
            let message = format!("{} attempts {} failed, {} {}", share(a), words[0], share(b), words[1]);
            warn(pattern, a, sure, message);
        }
    };
    let workers: BTreeSet<&str> = told.iter().filter_map(|a| a.worker.as_deref()).collect();
    // Of many workers one fails most by chance: the more are compared, the surer each must be.
    let bar = 1.0 - (1.0 - stats::CONFIDENCE) / workers.len().max(1) as f64;
    for worker in workers {
        let (here, elsewhere): (Vec<&Attempt>, Vec<&Attempt>) =
            told.iter().partition(|a| a.worker.as_deref() == Some(worker));
        let pattern = Pattern::Worker { worker: worker.to_owned() };
        compare(pattern, &here, &elsewhere, bar, [&format!("on {worker}"), "elsewhere"]);
    }
    let mut sizes: Vec<u64> = told.iter().map(|a| a.input_bytes).collect();
    sizes.sort_unstable();
    if let Some(&bytes) = sizes.get(sizes.len() * 3 / 4) {
        let (large, small): (Vec<&Attempt>, Vec<&Attempt>) = told.iter().partition(|a| a.input_bytes > bytes);
        let words = [&format!("with inputs above {bytes} bytes"), "below"];
        compare(Pattern::LargeInput { bytes }, &large, &small, stats::CONFIDENCE, words);
    }
    let (earlier, later) = told.split_at(told.len() / 2);
    compare(Pattern::Growing, later, earlier, stats::CONFIDENCE, ["in the newer half of the records", "in the older"]);
    found
}

impl std::fmt::Display for Recommendations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Pair { first, second, reason, runs, waited } in &self.parallelizable_pairs {
            let why = match reason {
                PairReason::NoFreeSlot => "could run side by side, and no slot was free",
                PairReason::OutputUnread => "the second never looks at what the first returns",
            };
            writeln!(f, "side by side: {first} and {second}: {why} ({runs} runs, {} a run)", span(*waited))?;
        }
        for (task, ms) in &self.timeout_adjustments {
            writeln!(f, "timeout: {task}: {}", span(Duration::from_millis(*ms)))?;
        }
        for warning in &self.failed_pattern_warnings {
            writeln!(f, "warning: {}: {} ({:.0} % sure)", warning.task, warning.message, 100.0 * warning.confidence)?;
        }
        for (task, needs) in &self.resource_allocation {
            writeln!(f, "resources: {task}: {needs}")?;
        }
        Ok(())
    }
}
