//! Durations and failures predicted from what is known before a step begins: ridge regression on the logarithm of the
//! duration, and the same with a logistic link for failures; one small model per task. Held against the task's mean by
//! cross-validation, and used only where it is better.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{Attempt, Failure, History, Outcome};
use crate::domain::TaskId;

/// Below this a task has only its mean.
const SAMPLES: usize = 50;
const FOLDS: usize = 5;
/// By how much a model has to be better than the mean, over all folds; and in how many of them it has to be.
const BETTER: f64 = 0.95;
const BETTER_FOLDS: usize = 4;
/// Workers that have a weight of their own; the others share one.
const WORKERS: usize = 6;
/// Shrinks weights to nothing where the records say little. In standard deviations, so it needs no unit.
const RIDGE: f64 = 1.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub durations: BTreeMap<TaskId, Model>,
    pub failures: BTreeMap<TaskId, Model>,
}

/// A linear model of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub samples: usize,
    /// Mean squared error on runs that it was not made from; and that of the task's mean.
    pub error: f64,
    pub error_of_mean: f64,
    workers: Vec<String>,
    /// Per feature: mean, deviation, weight.
    features: Vec<(f64, f64, f64)>,
    intercept: f64,
    /// What the logarithm's mean is short of the mean (Duan's smearing). Durations only.
    smear: f64,
    /// Nothing far from what was seen is believed.
    range: (f64, f64),
}

/// What is known of a step before it begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    pub input_bytes: u64,
    pub content_bytes: u64,
    /// Whether it is a first try.
    pub retry: bool,
    pub worker: Option<&'a str>,
}

impl Forecast {
    pub fn duration(&self, task: &TaskId, given: &Given<'_>) -> Option<Duration> {
        let model = self.durations.get(task)?;
        Duration::try_from_secs_f64(model.time(given)).ok()
    }

    /// The chance that a try fails.
    pub fn failure(&self, task: &TaskId, given: &Given<'_>) -> Option<f64> {
        Some(self.failures.get(task)?.chance(given))
    }

    pub fn is_empty(&self) -> bool {
        self.durations.is_empty() && self.failures.is_empty()
    }
}

struct Sample<'a> {
    given: Given<'a>,
    fold: usize,
    value: f64,
}

/// Learns from the records. Tasks whose model is no better than their mean are left out.
pub fn learn(history: &History) -> Forecast {
    let mut durations: HashMap<&TaskId, Vec<Sample<'_>>> = HashMap::new();
    let mut failures: HashMap<&TaskId, Vec<Sample<'_>>> = HashMap::new();
    for (run, record) in history.runs.iter().enumerate() {
        for attempt in record.attempts.iter().filter(|attempt| attempt.is_own()) {
            // Whole runs are held out, so that no run speaks for itself.
            let sample = |value| Sample { given: given(attempt), fold: run % FOLDS, value };
            if attempt.is_done() {
                let seconds = attempt.duration().as_secs_f64().max(1e-6);
                durations.entry(&attempt.task).or_default().push(sample(seconds));
            }
            match attempt.outcome {
                Outcome::Done => failures.entry(&attempt.task).or_default().push(sample(0.0)),
                Outcome::Failed(kind) if kind != Failure::WorkerLost => {
                    failures.entry(&attempt.task).or_default().push(sample(1.0));
                }
                _ => {}
            }
        }
    }
    let kept = |samples: HashMap<&TaskId, Vec<Sample<'_>>>, what: What| {
        samples.into_iter().filter_map(|(task, s)| Some((task.clone(), judged(&s, what)?))).collect()
    };
    Forecast { durations: kept(durations, What::Time), failures: kept(failures, What::Chance) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Time,
    Chance,
}

fn given(attempt: &Attempt) -> Given<'_> {
    Given {
        input_bytes: attempt.input_bytes,
        content_bytes: attempt.content_bytes,
        retry: attempt.number > 1,
        worker: attempt.worker.as_deref(),
    }
}

/// The model of these samples, if it is better than their mean on samples that it has not seen.
fn judged(samples: &[Sample<'_>], what: What) -> Option<Model> {
    if samples.len() < SAMPLES {
        return None;
    }
    let (mut error, mut of_mean, mut won) = (0.0, 0.0, 0);
    for fold in 0..FOLDS {
        let (held, seen): (Vec<&Sample<'_>>, Vec<&Sample<'_>>) = samples.iter().partition(|s| s.fold == fold);
        if held.is_empty() {
            continue;
        }
        let model = fit(&seen, what)?;
        let mean = seen.iter().map(|s| s.value).sum::<f64>() / seen.len() as f64;
        let (mut e, mut m) = (0.0, 0.0);
        for sample in held {
            e += (model.predict(&sample.given, what) - sample.value).powi(2);
            m += (mean - sample.value).powi(2);
        }
        (error, of_mean) = (error + e, of_mean + m);
        won += usize::from(e < m);
    }
    if error >= BETTER * of_mean || won < BETTER_FOLDS {
        return None;
    }
    let mut model = fit(&samples.iter().collect::<Vec<_>>(), what)?;
    model.error = error / samples.len() as f64;
    model.error_of_mean = of_mean / samples.len() as f64;
    Some(model)
}

fn fit(samples: &[&Sample<'_>], what: What) -> Option<Model> {
    let workers = busiest(samples);
    let rows: Vec<Vec<f64>> = samples.iter().map(|s| features(&s.given, &workers)).collect();
    let width = rows.first()?.len();
    let n = rows.len() as f64;
    let mut scales = Vec::with_capacity(width);
    for column in 0..width {
        let values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
        scales.push(super::stats::mean_and_deviation(&values));
    }
    let rows: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let scaled = row.iter().zip(&scales).map(|(x, (mean, deviation))| scale(*x, *mean, *deviation));
            std::iter::once(1.0).chain(scaled).collect()
        })
        .collect();
    let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
    let weights = match what {
        What::Time => {
            let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
            ridge(&rows, &logs, &vec![1.0; rows.len()])?
        }
        What::Chance => logistic(&rows, &values)?,
    };
    let smear = match what {
        What::Time => rows.iter().zip(&values).map(|(row, v)| (v.ln() - dot(row, &weights)).exp()).sum::<f64>() / n,
        What::Chance => 1.0,
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let features = scales.iter().zip(&weights[1..]).map(|((mean, deviation), w)| (*mean, *deviation, *w)).collect();
    let range = if what == What::Time { (least / 2.0, most * 2.0) } else { (0.0, 1.0) };
    Some(Model {
        samples: samples.len(),
        error: f64::NAN,
        error_of_mean: f64::NAN,
        workers,
        features,
        intercept: weights[0],
        smear,
        range,
    })
}

impl Model {
    fn line(&self, given: &Given<'_>) -> f64 {
        let features = features(given, &self.workers);
        let parts =
            features.iter().zip(&self.features).map(|(x, (mean, deviation, w))| scale(*x, *mean, *deviation) * w);
        self.intercept + parts.sum::<f64>()
    }

    fn time(&self, given: &Given<'_>) -> f64 {
        (self.line(given).exp() * self.smear).clamp(self.range.0, self.range.1)
    }

    fn chance(&self, given: &Given<'_>) -> f64 {
        1.0 / (1.0 + (-self.line(given)).exp())
    }

    fn predict(&self, given: &Given<'_>, what: What) -> f64 {
        match what {
            What::Time => self.time(given),
            What::Chance => self.chance(given),
        }
    }
}

/// A feature that never differs says nothing.
fn scale(x: f64, mean: f64, deviation: f64) -> f64 {
    if deviation > 1e-9 { (x - mean) / deviation } else { 0.0 }
}

fn busiest(samples: &[&Sample<'_>]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for worker in samples.iter().filter_map(|s| s.given.worker) {
        *counts.entry(worker).or_default() += 1;
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    names.into_iter().take(WORKERS).map(|(name, _)| name.to_owned()).collect()
}

fn features(given: &Given<'_>, workers: &[String]) -> Vec<f64> {
    let size = |bytes: u64| (bytes as f64).ln_1p();
    let mut row = vec![size(given.input_bytes), size(given.content_bytes), f64::from(u8::from(given.retry))];
    row.extend(workers.iter().map(|w| f64::from(u8::from(given.worker == Some(w)))));
    row
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Weighted least squares with a penalty on all weights but the first, which is the intercept.
fn ridge(rows: &[Vec<f64>], values: &[f64], importance: &[f64]) -> Option<Vec<f64>> {
    let width = rows.first()?.len();
    let mut a = vec![vec![0.0; width + 1]; width];
    for ((row, value), w) in rows.iter().zip(values).zip(importance) {
        for i in 0..width {
            for j in 0..width {
                a[i][j] += w * row[i] * row[j];
            }
            a[i][width] += w * row[i] * value;
        }
    }
    for (i, line) in a.iter_mut().enumerate() {
        line[i] += if i == 0 { 1e-9 } else { RIDGE };
    }
    solve(a)
}

/// Newton's method: each step is a weighted least squares.
fn logistic(rows: &[Vec<f64>], values: &[f64]) -> Option<Vec<f64>> {
    let share = values.iter().sum::<f64>() / values.len().max(1) as f64;
    if share <= 0.0 || share >= 1.0 {
        return None;
    }
    let mut weights = vec![0.0; rows.first()?.len()];
    weights[0] = (share / (1.0 - share)).ln();
    for _ in 0..12 {
        let (mut targets, mut importance) = (vec![], vec![]);
        for (row, value) in rows.iter().zip(values) {
            let line = dot(row, &weights).clamp(-12.0, 12.0);
            let p = 1.0 / (1.0 + (-line).exp());
            let w = (p * (1.0 - p)).max(1e-4);
            targets.push(line + (value - p) / w);
            importance.push(w);
        }
        weights = ridge(rows, &targets, &importance)?;
    }
    weights.iter().all(|w| w.is_finite()).then_some(weights)
}

/// Gauss with pivots on a system with its right side as the last column.
fn solve(mut a: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = a.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        a.swap(column, pivot);
        let (above, below) = a.split_at_mut(column + 1);
        let lead = &above[column];
        if lead[column].abs() < 1e-12 {
            return None;
        }
        for line in below {
            let factor = line[column] / lead[column];
            for (x, y) in line.iter_mut().zip(lead).skip(column) {
                *x -= factor * y;
            }
        }
    }
    let mut found = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * found[j]).sum();
        found[i] = (a[i][n] - known) / a[i][i];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::history::Run;
    use super::super::sample::noise;
    use super::*;
    use crate::domain::workflow::Manner;

    /// Runs of one step whose time and failures are as `law` says of input size and worker.
    fn recorded(runs: usize, law: impl Fn(u64, &str, &mut StdRng) -> (f64, bool)) -> History {
        let mut rng = StdRng::seed_from_u64(7);
        let runs = (0..runs)
            .map(|_| {
                let input_bytes = 10u64.pow(rng.random_range(2..6)) * rng.random_range(1..10);
                let worker = ["north", "south"][rng.random_range(0..2)];
                let (seconds, fails) = law(input_bytes, worker, &mut rng);
                let attempt = Attempt {
                    task: TaskId::new("parse"),
                    number: 1,
                    queued: Duration::ZERO,
                    started: Duration::ZERO,
                    ended: Duration::from_secs_f64(seconds),
                    outcome: if fails { Outcome::Failed(Failure::Other) } else { Outcome::Done },
                    worker: Some(worker.into()),
                    input_bytes,
                    output_bytes: 10,
                    content_bytes: 100,
                    read: None,
                    input: None,
                    manner: Manner::Alone,
                };
                Run { slots: 1, completed: true, planned: false, attempts: vec![attempt] }
            })
            .collect();
        History { runs }
    }

    #[test]
    fn a_time_that_follows_from_size_and_worker_is_learnt() {
        let law = |bytes: u64, worker: &str| (bytes as f64).powf(0.7) * if worker == "south" { 2e-3 } else { 1e-3 };
        let history = recorded(200, |bytes, worker, rng| (law(bytes, worker) * noise(rng, 0.2), false));
        let forecast = learn(&history);
        let task = TaskId::new("parse");
        let model = forecast.durations.get(&task).expect("better than the mean");
        assert!(model.error < model.error_of_mean / 5.0, "{} against {}", model.error, model.error_of_mean);
        for (bytes, worker) in [(1_000, "north"), (1_000, "south"), (500_000, "south")] {
            let given = Given { input_bytes: bytes, content_bytes: 100, retry: false, worker: Some(worker) };
            let predicted = forecast.duration(&task, &given).unwrap().as_secs_f64();
            let ratio = predicted / law(bytes, worker);
            assert!((0.8..1.25).contains(&ratio), "{bytes} bytes on {worker}: off by {ratio:.2}");
        }
    }

    #[test]
    fn where_nothing_predicts_there_is_no_model() {
        let history = recorded(200, |_, _, rng| (noise(rng, 0.5), rng.random_bool(0.3)));
        assert!(learn(&history).is_empty(), "{:?}", learn(&history));
    }

    #[test]
    fn too_few_records_make_no_model() {
        let history = recorded(40, |bytes, _, _| (bytes as f64, false));
        assert!(learn(&history).is_empty());
    }

    #[test]
    fn a_worker_that_fails_is_learnt() {
        let history = recorded(300, |_, worker, rng| (1.0, worker == "south" && rng.random_bool(0.5)));
        let forecast = learn(&history);
        let chance = |worker| {
            let given = Given { input_bytes: 1_000, content_bytes: 100, retry: false, worker: Some(worker) };
            forecast.failure(&TaskId::new("parse"), &given).expect("a model")
        };
        assert!((0.35..0.65).contains(&chance("south")), "{}", chance("south"));
        assert!(chance("north") < 0.1, "{}", chance("north"));
    }

    #[test]
    fn a_prediction_stays_near_what_was_seen() {
        let history = recorded(200, |bytes, _, _| (bytes as f64 * 1e-6, false));
        let given = Given { input_bytes: u64::MAX, content_bytes: 100, retry: false, worker: None };
        let longest = history.runs.iter().map(Run::makespan).max().unwrap();
        assert!(learn(&history).duration(&TaskId::new("parse"), &given).unwrap() <= 2 * longest);
    }
}
