//! Made-up graphs and records for tests.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::history::{Attempt, Failure, History, Outcome, Run};
use crate::domain::workflow::Manner;
use crate::domain::{Dag, Limits, Schedule, Task, TaskId};

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn dag(tasks: &[(&str, &[&str])]) -> Dag {
    let tasks = tasks.iter().map(|(id, depends_on)| task(id, None, depends_on)).collect();
    Dag::new(tasks, &Limits::default()).unwrap()
}

pub(super) fn task(id: &str, parent: Option<&str>, depends_on: &[&str]) -> Task {
    Task {
        id: TaskId::new(id),
        description: format!("does {id}"),
        parent: parent.map(TaskId::new),
        depends_on: depends_on.iter().map(|d| TaskId::new(d)).collect(),
    }
}

/// Log-normal around 1.
pub(super) fn noise(rng: &mut StdRng, sigma: f64) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random_range(0.0..1.0));
    (sigma * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()).exp()
}

/// What one attempt does.
#[derive(Debug, Clone)]
pub(super) struct Does {
    pub(super) time: Duration,
    pub(super) outcome: Outcome,
    pub(super) read: Option<Vec<TaskId>>,
    pub(super) input: Option<u64>,
    pub(super) worker: &'static str,
    pub(super) input_bytes: u64,
}

pub(super) fn takes(time: Duration) -> Does {
    Does { time, outcome: Outcome::Done, read: None, input: None, worker: "w1", input_bytes: 100 }
}

pub(super) fn fails(time: Duration, kind: Failure) -> Does {
    Does { outcome: Outcome::Failed(kind), ..takes(time) }
}

/// A worker pool that serves first come, first served, with a pause of `pause` before each retry; at most four tries.
/// Written apart from the simulator of `replay`, so that each checks the other.
pub(super) fn record(
    dag: &Dag,
    slots: u32,
    dispatch: Duration,
    pause: Duration,
    mut does: impl FnMut(&TaskId, u32) -> Does,
) -> Run {
    let mut schedule = Schedule::new(dag);
    let mut attempts: Vec<Attempt> = vec![];
    // (visible from, arrival, task, try, queued)
    let mut queue: Vec<(Duration, usize, TaskId, u32, Duration)> = vec![];
    let mut running: Vec<(Duration, usize)> = vec![];
    let (mut now, mut arrivals, mut completed) = (Duration::ZERO, 0, true);
    loop {
        for id in schedule.take_ready() {
            queue.push((now + dispatch, arrivals, id.clone(), 1, now));
            arrivals += 1;
        }
        queue.sort();
        while running.len() < slots as usize
            && let Some(at) = queue.iter().position(|(visible, ..)| *visible <= now)
        {
            let (_, _, task, number, queued) = queue.remove(at);
            let did = does(&task, number);
            running.push((now + did.time, attempts.len()));
            attempts.push(Attempt {
                task,
                number,
                queued,
                started: now,
                ended: now + did.time,
                outcome: did.outcome,
                worker: Some(did.worker.into()),
                input_bytes: did.input_bytes,
                output_bytes: 100,
                content_bytes: 100,
                read: did.read,
                input: did.input,
                manner: Manner::Alone,
            });
        }
        let next_end = running.iter().min().copied();
        let next_visible = queue.iter().map(|(visible, ..)| *visible).filter(|v| *v > now).min();
        match (next_end, next_visible) {
            (Some((end, i)), visible) if visible.is_none_or(|v| end <= v) => {
                now = end;
                running.retain(|(_, other)| *other != i);
                let (task, number, outcome) = (attempts[i].task.clone(), attempts[i].number, attempts[i].outcome);
                if outcome == Outcome::Done {
                    schedule.complete(&task);
                } else if number < 4 {
                    queue.push((now + pause + dispatch, arrivals, task, number + 1, now + pause));
                    arrivals += 1;
                } else {
                    completed = false;
                }
            }
            (_, Some(visible)) => now = visible,
            (None, None) => break,
            (Some(_), None) => {}
        }
    }
    Run { slots, completed, planned: false, attempts }
}

/// As many runs as `count`, each step's time around its mean in milliseconds.
pub(super) fn records(
    dag: &Dag,
    count: usize,
    slots: u32,
    dispatch: Duration,
    means: &[(&str, u64)],
    rng: &mut StdRng,
) -> History {
    let means: HashMap<TaskId, u64> = means.iter().map(|(id, mean)| (TaskId::new(id), *mean)).collect();
    let runs = (0..count)
        .map(|_| {
            record(dag, slots, dispatch, ms(10), |task, _| {
                let mean = means.get(task).copied().unwrap_or(10) as f64;
                takes(Duration::from_secs_f64(mean * 1e-3 * noise(rng, 0.2)))
            })
        })
        .collect();
    History { runs }
}

/// A graph in layers with edges to any earlier layer; every edge of `dag` has a lower index at its dependency.
pub(super) fn layered(rng: &mut StdRng, count: usize) -> Dag {
    let layers = rng.random_range(2..=count.clamp(2, 12));
    let layer: Vec<usize> = {
        let mut layer: Vec<usize> = (0..count).map(|_| rng.random_range(0..layers)).collect();
        layer.sort_unstable();
        layer
    };
    let tasks = (0..count).map(|i| {
        let earlier: Vec<usize> = (0..i).filter(|&j| layer[j] < layer[i]).collect();
        let wanted = if earlier.is_empty() { 0 } else { rng.random_range(0..=3) };
        let depends_on = (0..wanted).map(|_| TaskId::new(&format!("t{}", earlier[rng.random_range(0..earlier.len())])));
        let mut depends_on: Vec<TaskId> = depends_on.collect();
        depends_on.sort();
        depends_on.dedup();
        Task { id: TaskId::new(&format!("t{i}")), description: String::new(), parent: None, depends_on }
    });
    Dag::new(tasks.collect(), &Limits::default()).unwrap()
}
