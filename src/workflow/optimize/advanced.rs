//! Chains in one go, pauses by kind of failure, as many slots as are of use, outputs used again, what a step needs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::graph::{Backoff, Net};
use super::plan::{Edit, Gain, span};
use super::{Attempt, Class, Draft, Failure, Level, Outcome, Resources, stats};
use crate::domain::TaskId;

/// The share of a run that the dispatches of a chain, or of a fan's steps, must take before they are joined.
pub(super) const DISPATCH: f64 = 0.2;
/// Two makespans that differ by less than this are as good as each other.
const EQUAL: f64 = 1.02;
/// Pauses are compared in so many groups at most, of so many retries at least.
const PAUSES: usize = 4;
const RETRIES: usize = 15;
const LIGHT: (Duration, u64) = (Duration::from_millis(100), 64 * 1024);
const HEAVY: (Duration, u64) = (Duration::from_secs(30), 8 * 1024 * 1024);

pub(super) fn propose(draft: &mut Draft<'_>) {
    pauses(draft);
    memoise(draft);
    for (task, needs) in resources(draft) {
        let reason = format!("seen in {} attempts", draft.by_task.get(&task).map_or(0, |a| a.len()));
        draft.push(Edit::Resources { task, needs }, reason, None);
    }
}

/// Chains in one go: after all edges that go are gone.
pub(super) fn fuse(draft: &mut Draft<'_>) {
    let dag = draft.now.graph.dag.clone();
    let net = Net::new(&dag);
    let tasks = dag.tasks();
    // Who is the only one to wait for a step and waits for nothing else, in the same group.
    let mut next: HashMap<usize, usize> = HashMap::new();
    for (task, dependants) in net.dependants.iter().enumerate() {
        if let [only] = dependants[..]
            && net.dependencies[only].len() == 1
            && !net.group[task]
            && !net.group[only]
            && net.parent[task] == net.parent[only]
        {
            next.insert(task, only);
        }
    }
    // Where a worker dies, what it did of a chain is done again.
    let again = |task: usize| draft.graph.policy(&tasks[task].id).idempotent;
    next.retain(|task, then| again(*task) && again(*then));
    let inner: HashSet<usize> = next.values().copied().collect();
    let mut heads: Vec<usize> = next.keys().copied().filter(|task| !inner.contains(task)).collect();
    heads.sort_unstable();
    // By run: what a dispatch of each step took, and how long the run was.
    let runs: Vec<(HashMap<&TaskId, Duration>, Duration)> = draft.history.runs.iter().map(dispatches).collect();
    for head in heads {
        let chain: Vec<usize> = std::iter::successors(Some(head), |task| next.get(task).copied()).collect();
        let ids: Vec<TaskId> = chain.iter().map(|&task| tasks[task].id.clone()).collect();
        let of_runs: Vec<(f64, Duration)> = runs
            .iter()
            .filter(|(waits, makespan)| ids.iter().all(|id| waits.contains_key(id)) && !makespan.is_zero())
            .map(|(waits, makespan)| {
                let waited: Duration = ids[1..].iter().filter_map(|id| waits.get(id)).sum();
                (waited.as_secs_f64() / makespan.as_secs_f64(), waited)
            })
            .collect();
        if of_runs.len() < Level::Advanced.runs() {
            continue;
        }
        let share = of_runs.iter().map(|(share, _)| share).sum::<f64>() / of_runs.len() as f64;
        if share <= DISPATCH {
            continue;
        }
        let waited: Vec<Duration> = of_runs.iter().map(|(_, waited)| *waited).collect();
        let reason = format!(
            "the steps after the first wait {} for their dispatch, {:.0} % of a run, on average of {} runs",
            span(stats::mean(&waited).unwrap_or_default()),
            100.0 * share,
            of_runs.len()
        );
        draft.push_replayed(Edit::Fuse { chain: ids }, reason);
    }
}

/// What the first dispatch of each step took in a run, where a slot was free for it, and how long the run was.
fn dispatches(run: &super::Run) -> (HashMap<&TaskId, Duration>, Duration) {
    let known = run.attempts.iter().zip(run.dispatch());
    let first = known.filter(|(attempt, _)| attempt.number == 1);
    (first.filter_map(|(attempt, wait)| Some((&attempt.task, wait?))).collect(), run.makespan())
}

/// The shortest pause after which a retry was as good as after any.
fn pauses(draft: &mut Draft<'_>) {
    for (task, attempts) in draft.seen(Level::Advanced) {
        let policy = draft.graph.policy(&task);
        let mut seen: BTreeMap<Failure, Vec<(Duration, bool)>> = BTreeMap::new();
        for pair in attempts.windows(2) {
            let [failed, retry] = pair else { continue };
            // A pause depends on which retry it is, so only the first is compared.
            if let Outcome::Failed(kind) = failed.outcome
                && (failed.number, retry.number) == (1, 2)
                && retry.outcome != Outcome::Cancelled
            {
                seen.entry(kind).or_default().push((retry.pause_after(failed), retry.is_done()));
            }
        }
        for (failure, retries) in seen {
            if let Some((first, reason, gain)) = best_pause(retries) {
                let from = policy.backoff_by_kind.get(&failure).copied().unwrap_or(policy.backoff);
                let ratio = first.as_secs_f64() / from.first.as_secs_f64().max(1e-6);
                if !(0.8..1.25).contains(&ratio) {
                    let to = Backoff { first, factor: from.factor };
                    let gain = (gain > 0.0).then_some(Gain::Failures(gain));
                    draft.push(Edit::Backoff { task: task.clone(), failure, from, to }, reason, gain);
                }
            }
        }
    }
}

/// From pauses and whether the retry after them was well. `None` where all pauses were about the same: then nothing is
/// known of others.
fn best_pause(mut retries: Vec<(Duration, bool)>) -> Option<(Duration, String, f64)> {
    retries.sort_unstable();
    let groups = (retries.len() / RETRIES).min(PAUSES);
    if groups < 2 {
        return None;
    }
    let rated: Vec<(Duration, usize, usize)> = retries
        .chunks(retries.len().div_ceil(groups))
        .filter_map(|group| {
            let pauses: Vec<Duration> = group.iter().map(|(pause, _)| *pause).collect();
            Some((stats::median(&pauses)?, group.iter().filter(|(_, well)| *well).count(), group.len()))
        })
        .collect();
    let (shortest, longest) = (rated.first()?.0, rated.last()?.0);
    if longest < shortest.mul_f64(1.5) {
        return None;
    }
    let share = |(_, well, n): &(Duration, usize, usize)| *well as f64 / *n as f64;
    let best = rated.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    // The first group that can't be told from the best.
    let chosen = rated
        .iter()
        .find(|group| stats::larger_share((best.1, best.2), (group.1, group.2)).is_none_or(|sure| sure < 0.9))?;
    let all = retries.iter().filter(|(_, well)| *well).count() as f64 / retries.len() as f64;
    let reason = format!(
        "after {} {:.0} % of {} retries went well, after others {:.0} % at best",
        span(chosen.0),
        100.0 * share(chosen),
        chosen.2,
        100.0 * rated.iter().filter(|g| g.0 != chosen.0).map(share).fold(0.0, f64::max),
    );
    Some((chosen.0, reason, (share(chosen) - all).max(0.0)))
}

/// Little's law: the mean number of steps at work is the rate at which they come times how long each takes, that is the
/// work of a run over its length. From there upward as long as a slot more makes a run shorter.
pub(super) fn slots(draft: &mut Draft<'_>) {
    let from = draft.now.graph.max_parallel;
    let cap = draft.options.max_parallel.max(1);
    if draft.takes.is_none() {
        return;
    }
    let with = |count: u32| {
        let mut then = draft.now.clone();
        then.graph.max_parallel = count;
        draft.replayed(&then)
    };
    let (Some(widest), Some(now)) = (with(cap), draft.takes) else { return };
    if widest.is_zero() {
        return;
    }
    let work: Duration = draft.tried_on.iter().flat_map(|recorded| &recorded.run.attempts).map(Attempt::duration).sum();
    let at_work = work.as_secs_f64() / draft.tried_on.len() as f64 / widest.as_secs_f64();
    // A hair above a whole number is that number.
    let least = ((at_work - 0.01).ceil() as u32).clamp(1, cap);
    let enough = |&count: &u32| with(count).is_some_and(|time| time <= widest.mul_f64(EQUAL));
    let Some(to) = (least..=cap).find(enough) else { return };
    if to == from {
        return;
    }
    let reason = format!(
        "{at_work:.1} steps are at work on average (Little's law: work of a run over its length); with {to} slots a run \
         takes {}, with {cap} {}",
        span(with(to).unwrap_or_default()),
        span(widest)
    );
    let gain = if to < from {
        Some(Gain::Slots(from - to))
    } else {
        let saved = now.saturating_sub(with(to).unwrap_or(now));
        // A slot more that brings nothing is no change.
        if saved < now.mul_f64(EQUAL - 1.0) {
            return;
        }
        Some(Gain::RunTime(saved))
    };
    draft.push(Edit::MaxParallel { from, to }, reason, gain);
    draft.takes = draft.replayed(&draft.now);
}

/// Outputs of pure steps whose inputs came before.
fn memoise(draft: &mut Draft<'_>) {
    let all = draft.history.by_task();
    let steps: Vec<TaskId> = draft.graph.dag.leaves().map(|task| task.id.clone()).collect();
    for task in steps {
        let Some(attempts) = all.get(&task).filter(|_| draft.graph.policy(&task).pure) else { continue };
        let mut known = HashSet::new();
        let (mut again, mut told) = (0usize, 0usize);
        let mut made = vec![];
        for attempt in attempts.iter().filter(|a| a.is_done()) {
            let Some(input) = attempt.input else { continue };
            told += 1;
            again += usize::from(!known.insert(input));
            if attempt.is_own() {
                made.push(attempt.duration());
            }
        }
        let share = again as f64 / told.max(1) as f64;
        if told < Level::Advanced.runs() || share < 0.05 {
            continue;
        }
        let reason = format!("it is pure, and in {again} of {told} attempts its inputs had come before");
        let edit = Edit::Memoise { task };
        let replayed = draft.saves(&edit).filter(|time| !time.is_zero()).map(Gain::RunTime);
        let of_work = stats::mean(&made).unwrap_or_default().mul_f64(share);
        draft.push(edit, reason, replayed.or(Some(Gain::Work(of_work))));
        draft.takes = draft.replayed(&draft.now);
    }
}

/// What each step that was seen often enough needs.
pub(super) fn resources(draft: &Draft<'_>) -> BTreeMap<TaskId, Resources> {
    let seen = draft.seen(Level::Advanced).into_iter();
    seen.filter_map(|(task, attempts)| Some((task, needs(&attempts)?))).collect()
}

pub(super) fn needs(attempts: &[&Attempt]) -> Option<Resources> {
    let done: Vec<&&Attempt> = attempts.iter().filter(|a| a.is_done()).collect();
    let times: Vec<Duration> = done.iter().map(|a| a.duration()).collect();
    let time = stats::quantile(&times, 0.95)?;
    let bytes = done.iter().map(|a| a.input_bytes.saturating_add(a.output_bytes)).max()?;
    let class = if time > HEAVY.0 || bytes > HEAVY.1 {
        Class::Heavy
    } else if time < LIGHT.0 && bytes < LIGHT.1 {
        Class::Light
    } else {
        Class::Standard
    };
    Some(Resources { class, time, bytes })
}
