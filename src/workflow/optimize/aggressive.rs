//! A model learnt from the records, duplicates of stragglers, edges that nothing crosses, wide fans in batches, slots
//! over the run.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::advanced::DISPATCH;
use super::graph::Net;
use super::plan::{Edit, Speculation, span};
use super::{Attempt, Draft, Given, Level, edges, predict, stats};
use crate::domain::TaskId;
use crate::domain::workflow::Manner;

/// A fan is too wide if it has more steps than this for each slot.
const WIDE: usize = 2;
/// Below this share of its mean, what a duplicate saves is not worth the work twice.
const WORTH: f64 = 0.02;
/// Slots over the run are told in so many stretches at most.
const STRETCHES: usize = 8;

pub(super) fn propose(draft: &mut Draft<'_>) {
    if draft.options.learning_enabled {
        let forecast = predict::learn(draft.history);
        if forecast.is_empty() {
            draft.notes.push("no step's time or failures could be predicted better than by their mean".to_owned());
        } else {
            draft.forecast = Some(forecast);
        }
    }
    edges::drop_unread(draft);
    speculate(draft);
}

/// Steps that nothing tells apart in the graph, many to a slot, whose dispatch is a good part of their time.
pub(super) fn split(draft: &mut Draft<'_>) {
    let dag = draft.now.graph.dag.clone();
    let net = Net::new(&dag);
    let tasks = dag.tasks();
    let slots = draft.now.graph.max_parallel.max(1) as usize;
    let mut fans: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let joined: HashSet<&TaskId> = draft.now.together.iter().flatten().collect();
    for task in (0..tasks.len()).filter(|&task| !net.group[task] && !joined.contains(&tasks[task].id)) {
        let key = (net.dependencies[task].as_slice(), net.dependants[task].as_slice(), net.parent[task]);
        fans.entry(key).or_default().push(task);
    }
    let times = draft.history.mean_times();
    let waits: Vec<Duration> = draft.history.runs.iter().map(super::Run::typical_dispatch).collect();
    let Some(dispatch) = stats::median(&waits) else { return };
    for fan in fans.into_values().filter(|fan| fan.len() > WIDE * slots) {
        let seen = fan.iter().filter_map(|&task| Some((&tasks[task].id, *times.get(&tasks[task].id)?)));
        let mut steps: Vec<(&TaskId, Duration)> = seen.collect();
        if steps.len() < fan.len() {
            continue;
        }
        let work: Duration = steps.iter().map(|(_, time)| *time).sum();
        let dispatched = dispatch * u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let share = dispatched.as_secs_f64() / (dispatched + work).as_secs_f64().max(1e-9);
        if share <= DISPATCH {
            continue;
        }
        // The longest first, each to the batch that has least: within 4/3 of the best.
        steps.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let mut batches: Vec<(Duration, Vec<TaskId>)> = vec![(Duration::ZERO, vec![]); slots];
        for (task, time) in steps {
            if let Some(batch) = batches.iter_mut().min_by_key(|batch| batch.0) {
                batch.0 += time;
                batch.1.push(task.clone());
            }
        }
        let reason = format!(
            "{} like steps for {slots} slots, and a dispatch of {} is {:.0} % of their time",
            fan.len(),
            span(dispatch),
            100.0 * share
        );
        let edit = Edit::Split { batches: batches.into_iter().map(|batch| batch.1).collect() };
        // Batches can also be worse: a long step holds up those behind it.
        if draft.tried_on.is_empty() || draft.saves(&edit).is_some_and(|time| !time.is_zero()) {
            draft.push_replayed(edit, reason);
        }
    }
}

/// A second try beside one that takes longer than 95 of 100, of steps that may be done twice.
fn speculate(draft: &mut Draft<'_>) {
    for (task, attempts) in draft.seen(Level::Aggressive) {
        // A pure step may be done twice too, but what it costs may be more than time.
        if !draft.graph.policy(&task).idempotent || draft.now.memoised.contains(&task) {
            continue;
        }
        let times = times(&attempts);
        let (Some(after), Some(typical)) = (stats::quantile(&times, 0.95), stats::median(&times)) else { continue };
        let mean = stats::mean(&times).unwrap_or_default();
        let spared: Duration = times.iter().map(|time| time.saturating_sub(after + typical)).sum();
        let spared = spared / u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
        if times.len() < Level::Aggressive.runs() || spared < mean.mul_f64(WORTH) {
            continue;
        }
        let longest = times.iter().max().copied().unwrap_or_default();
        let reason = format!(
            "it may be done twice; half of {} attempts took {} at most, 95 % {}, the longest {}: a duplicate of those beyond \
             spares {} of its mean of {}, if it takes as long as any other",
            times.len(),
            span(typical),
            span(after),
            span(longest),
            span(spared),
            span(mean)
        );
        draft.push_replayed(Edit::Speculate { task, speculation: Speculation { after, typical } }, reason);
    }
}

/// What a step takes by itself. One that a second try overtook would have taken longer, and how long is not known: as long as those
/// that took longer than any overtaken one did, on average.
fn times(attempts: &[&Attempt]) -> Vec<Duration> {
    let done = || attempts.iter().filter(|a| a.is_done());
    let overtaken = done().filter(|a| a.manner == Manner::Overtaken).map(|a| a.duration());
    let beyond = overtaken.max().map(|longest| {
        let stragglers = done().filter(|a| a.manner != Manner::Overtaken).map(|a| a.duration());
        stats::mean(&stragglers.filter(|time| *time > longest).collect::<Vec<_>>()).unwrap_or(longest)
    });
    done().map(|a| if a.manner == Manner::Overtaken { beyond.unwrap_or(a.duration()) } else { a.duration() }).collect()
}

/// How many steps are at work when, by what is expected of the newest run's inputs, if nothing waits for a slot.
pub(super) fn allot(draft: &mut Draft<'_>) {
    let Some(newest) = draft.tried_on.last() else { return };
    let times = draft.history.mean_times();
    let given = newest.run.by_task();
    let expected = |task: &TaskId| {
        let attempt = given.get(task).and_then(|attempts| attempts.first());
        let given = attempt.map(|a| Given {
            input_bytes: a.input_bytes,
            content_bytes: a.content_bytes,
            retry: false,
            worker: None,
        });
        let predicted = draft.forecast.as_ref().and_then(|forecast| forecast.duration(task, &given?));
        predicted.or_else(|| times.get(task).copied()).unwrap_or_default()
    };
    let dag = &draft.now.graph.dag;
    let net = Net::new(dag);
    let mut at = vec![Duration::ZERO; net.order.len()];
    let mut changes: Vec<(Duration, i64)> = vec![];
    let mut total = Duration::ZERO;
    for &moment in &net.order {
        let task = moment / 2;
        let works = moment % 2 == 0 && !net.group[task];
        let takes = if works { expected(&dag.tasks()[task].id) } else { Duration::ZERO };
        if works {
            changes.extend([(at[moment], 1), (at[moment] + takes, -1)]);
        }
        for &next in &net.after[moment] {
            let then = at[moment] + if next == moment + 1 { takes } else { Duration::ZERO };
            at[next] = at[next].max(then);
            total = total.max(then);
        }
    }
    changes.sort_unstable();
    // The most that each stretch of the run wants.
    let cap = i64::from(draft.options.max_parallel.max(1));
    let stretch = total.max(Duration::from_nanos(1)).div_f64(STRETCHES as f64);
    let (mut count, mut next) = (0i64, 0);
    let mut slots: Vec<(Duration, u32)> = vec![];
    for i in 0..STRETCHES {
        let (from, until) = (stretch.mul_f64(i as f64), stretch.mul_f64((i + 1) as f64));
        let mut most = count;
        while next < changes.len() && (changes[next].0 < until || i + 1 == STRETCHES) {
            count += changes[next].1;
            most = most.max(count);
            next += 1;
        }
        let most = u32::try_from(most.min(cap)).unwrap_or_default();
        if slots.last().is_none_or(|(_, last)| *last != most) {
            slots.push((from, most));
        }
    }
    // A run that wants the same all the time needs no plan for it.
    if slots.len() < 2 {
        return;
    }
    let by = if draft.forecast.is_some() { "the learnt model and the mean times" } else { "the mean times" };
    let idle: Duration = {
        let most = slots.iter().map(|(_, count)| *count).max().unwrap_or_default();
        let ends = slots.iter().skip(1).map(|(from, _)| *from).chain([total]);
        slots.iter().zip(ends).map(|((from, count), to)| to.saturating_sub(*from) * (most - count)).sum()
    };
    let reason =
        format!("steps at work over a run of {} by {by}; as many all along stand idle for {}", span(total), span(idle));
    draft.push(Edit::Allot { slots }, reason, None);
}
