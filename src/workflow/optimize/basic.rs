//! Timeouts and attempts out of the records, edges that say nothing, and who goes first.

use std::time::Duration;

use super::plan::{Edit, Gain, span};
use super::{Attempt, Draft, Failure, Level, Options, Policy, edges, stats};
use crate::domain::schedule::critical_path;
use crate::domain::workflow::Manner;

/// Above the bound of the p99.
const HEADROOM: f64 = 1.5;
/// A step whose timeout cuts more than this is not slow but stuck: more time would only hide it.
const STUCK: f64 = 0.5;
/// A run may fail for one step this often.
const FAILURES: f64 = 0.001;
const ATTEMPTS: u32 = 5;

pub(super) fn propose(draft: &mut Draft<'_>) {
    for (task, attempts) in draft.seen(Level::Basic) {
        let policy = draft.graph.policy(&task);
        match timeout(&attempts, policy.timeout, draft.options) {
            Some(Timeout::To(to, reason, gain)) => {
                draft.push(Edit::Timeout { task: task.clone(), from: policy.timeout, to }, reason, gain);
            }
            Some(Timeout::Stuck(note)) => draft.notes.push(format!("{task}: {note}")),
            None => {}
        }
        if let Some((to, reason, gain)) = tries(&attempts, &policy) {
            draft.push(Edit::Attempts { task: task.clone(), from: policy.attempts, to }, reason, gain);
        }
    }
    edges::drop_redundant(draft);
    order(draft);
}

pub(super) enum Timeout {
    To(Duration, String, Option<Gain>),
    Stuck(String),
}

pub(super) fn timeout(attempts: &[&Attempt], from: Duration, options: &Options) -> Option<Timeout> {
    let cut = attempts.iter().filter(|a| a.failed(Failure::Timeout)).count();
    let told: Vec<&&Attempt> = attempts.iter().filter(|a| a.is_done() || a.failed(Failure::Timeout)).collect();
    let longest = told.iter().map(|a| a.duration()).max()?;
    if told.len() < Level::Basic.runs() || longest < options.timeout_threshold {
        return None;
    }
    let share = cut as f64 / told.len() as f64;
    if share > STUCK {
        return Some(Timeout::Stuck(format!(
            "{:.0} % of {} attempts were cut by the timeout of {}: it hangs rather than being slow, so its timeout \
             is left alone",
            100.0 * share,
            told.len(),
            span(from)
        )));
    }
    let samples: Vec<f64> =
        told.iter().map(|a| if a.is_done() { a.duration().as_secs_f64() } else { f64::INFINITY }).collect();
    let bound = stats::p99_bound(&samples)?;
    let (to, reason) = if bound.value.is_infinite() {
        let reason = format!(
            "{cut} of {} attempts were cut by the timeout, so how long they take is not known: twice the time, and look again",
            told.len()
        );
        (from.saturating_mul(2), reason)
    } else {
        let way = if bound.from_records {
            "read off the records"
        } else {
            "log-normal; fewer than 299 records, so it is only ever lengthened"
        };
        let reason = format!(
            "the p99 of {} attempts is at most {} with 95 % confidence ({way}), and half as much on top",
            told.len(),
            span(seconds(bound.value)?)
        );
        (seconds(tidy(bound.value * HEADROOM))?, reason)
    };
    // A change of a few percent is noise.
    let ratio = to.as_secs_f64() / from.as_secs_f64().max(1e-9);
    if ratio > 1.05 {
        let spared = cut as f64 / told.len() as f64;
        Some(Timeout::To(to, reason, (spared > 0.0).then_some(Gain::Failures(spared))))
    } else if bound.from_records && ratio < 0.9 && !attempts.iter().any(|a| a.manner == Manner::Overtaken) {
        Some(Timeout::To(to, reason, Some(Gain::Notice(from - to))))
    } else {
        None
    }
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

/// Rounded up to two digits: a timeout is not known more exactly.
fn tidy(seconds: f64) -> f64 {
    let unit = 10f64.powf(seconds.max(1e-3).log10().floor() - 1.0);
    (seconds / unit).ceil() * unit
}

/// The least number of attempts that fail together at most once in a thousand runs.
fn tries(attempts: &[&Attempt], policy: &Policy) -> Option<(u32, String, Option<Gain>)> {
    let transient = |a: &Attempt| matches!(a.outcome, super::Outcome::Failed(kind) if kind.is_transient());
    let failed = attempts.iter().filter(|a| transient(a)).count();
    let n = attempts.iter().filter(|a| a.is_done() || transient(a)).count();
    if n < Level::Basic.runs() {
        return None;
    }
    let p = failed as f64 / n as f64;
    let wanted = least(p);
    let fails = |count: u32| p.powi(count as i32);
    let share = format!("{failed} of {n} attempts failed in a way that passes");
    if wanted > policy.attempts {
        if !policy.idempotent && !policy.pure {
            return None;
        }
        let reason = format!("{share}: {wanted} attempts fail together in {:.2} % of runs", 100.0 * fails(wanted));
        return Some((wanted, reason, Some(Gain::Failures(fails(policy.attempts) - fails(wanted)))));
    }
    // Fewer only if even the most that the share may be allows it.
    let (_, most) = stats::share_bounds(failed, n);
    let enough = least(most);
    (enough < policy.attempts).then(|| {
        let reason = format!("{share}, at most {:.1} % with 95 % confidence: {enough} are enough", 100.0 * most);
        (enough, reason, None)
    })
}

fn least(p: f64) -> u32 {
    (1..ATTEMPTS).find(|&n| p.powi(n as i32) <= FAILURES).unwrap_or(ATTEMPTS)
}

fn order(draft: &mut Draft<'_>) {
    let times = draft.history.mean_times();
    let dag = draft.now.graph.dag.clone();
    if dag.leaves().any(|task| !times.contains_key(&task.id)) {
        draft.notes.push("order: a step has no recorded time, so the order is left as it is".to_owned());
        return;
    }
    let takes = |task: &crate::domain::TaskId| times.get(task).copied().unwrap_or_default();
    let (path, total) = critical_path(&dag, takes);
    let ways = super::ways_to_the_end(&dag, takes);
    // Where nothing ever waits side by side, an order changes nothing.
    if path.len() == dag.leaves().count() {
        return;
    }
    let reason = format!("the critical path takes {} by the mean times of its {} steps", span(total), path.len());
    draft.push_replayed(Edit::Order { path, ways: ways.into_iter().collect() }, reason);
}
