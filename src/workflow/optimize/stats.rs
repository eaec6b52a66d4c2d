//! The little statistics that the optimizer needs.

use std::time::Duration;

/// How sure a bound has to be.
pub(super) const CONFIDENCE: f64 = 0.95;
/// The normal quantile of [`CONFIDENCE`], one-sided.
const Z: f64 = 1.644_854;
/// The normal quantile of 0.99.
const Z99: f64 = 2.326_348;

/// A value that the 99th percentile does not exceed, with [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    pub(super) value: f64,
    /// Read off the records alone. Else it leans on durations being log-normal.
    pub(super) from_records: bool,
}

/// `samples` in any order, none negative; infinity stands for one that was cut off. `None` below two samples.
pub(super) fn p99_bound(samples: &[f64]) -> Option<Bound> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let largest = *sorted.last()?;
    if let Some(k) = rank_above_p99(sorted.len()) {
        return Some(Bound { value: sorted[sorted.len() - k], from_records: true });
    }
    // Too few for any record to be above the p99 with confidence, so the tail is drawn out: the upper tolerance bound
    // of a log-normal sample, and never less than what was seen.
    let n = sorted.len() as f64;
    if n < 2.0 || largest.is_infinite() {
        return (largest.is_infinite()).then_some(Bound { value: largest, from_records: false });
    }
    let logs: Vec<f64> = sorted.iter().map(|s| s.max(1e-6).ln()).collect();
    let (mean, deviation) = mean_and_deviation(&logs);
    let a = 1.0 - Z * Z / (2.0 * (n - 1.0));
    let b = Z99 * Z99 - Z * Z / n;
    let k = if a > 0.0 { (Z99 + (Z99 * Z99 - a * b).max(0.0).sqrt()) / a } else { 2.0 * Z99 };
    Some(Bound { value: largest.max((mean + k * deviation).exp()), from_records: false })
}

/// The largest `k` for which the k-th largest of `n` samples lies above the p99 with confidence; `None` below 299.
fn rank_above_p99(n: usize) -> Option<usize> {
    // The k-th largest is above it if at least k samples are, and how many are is binomial with 1 %.
    let mut below = 0.0;
    let mut log_term = n as f64 * 0.99f64.ln();
    let mut best = None;
    for k in 1..=n {
        below += log_term.exp();
        if 1.0 - below < CONFIDENCE {
            break;
        }
        best = Some(k);
        log_term += ((n - k + 1) as f64 / k as f64).ln() + (0.01f64 / 0.99).ln();
    }
    best
}

/// The bounds of a share of which `hits` of `n` were seen (Wilson).
pub(super) fn share_bounds(hits: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (p, n) = (hits as f64 / n as f64, n as f64);
    let center = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((center - spread) / scale).max(0.0), ((center + spread) / scale).min(1.0))
}

/// How sure it is that the first share is larger than the second (two proportions, pooled). `None` where a side is empty.
pub(super) fn larger_share(a: (usize, usize), b: (usize, usize)) -> Option<f64> {
    if a.1 == 0 || b.1 == 0 {
        return None;
    }
    let (na, nb) = (a.1 as f64, b.1 as f64);
    let pooled = (a.0 + b.0) as f64 / (na + nb);
    let error = (pooled * (1.0 - pooled) * (1.0 / na + 1.0 / nb)).sqrt();
    let gap = a.0 as f64 / na - b.0 as f64 / nb;
    Some(if error > 0.0 { normal_cdf(gap / error) } else { 0.5 })
}

/// How sure it is that values of `a` tend to be larger than values of `b` (Mann-Whitney, ties halved).
pub(super) fn tends_larger(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut sorted = b.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let wins: f64 = a
        .iter()
        .map(|x| {
            let below = sorted.partition_point(|y| y < x);
            let equal = sorted.partition_point(|y| y <= x) - below;
            below as f64 + equal as f64 / 2.0
        })
        .sum();
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let error = (na * nb * (na + nb + 1.0) / 12.0).sqrt();
    Some(normal_cdf((wins - na * nb / 2.0) / error))
}

/// Abramowitz and Stegun 26.2.17: wrong by at most 7.5e-8.
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series =
        t * (0.319_381_53 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = series * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if z >= 0.0 { 1.0 - tail } else { tail }
}

pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

pub(super) fn quantile(values: &[Duration], q: f64) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((q * last as f64).ceil() as usize).copied()
}

pub(super) fn median(values: &[Duration]) -> Option<Duration> {
    quantile(values, 0.5)
}

pub(super) fn mean(values: &[Duration]) -> Option<Duration> {
    let count = u32::try_from(values.len()).ok().filter(|&n| n > 0)?;
    Some(values.iter().sum::<Duration>() / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_bounds_the_p99_from_299_samples_on() {
        assert_eq!(rank_above_p99(298), None);
        assert_eq!(rank_above_p99(299), Some(1));
        assert_eq!(rank_above_p99(473), Some(2));
        // 1,000 samples have 10 above the p99 on average; the fifth largest is above it in 97 of 100 cases.
        assert_eq!(rank_above_p99(1_000), Some(5));
        assert!(rank_above_p99(200_000).is_some_and(|k| (1_800..2_000).contains(&k)));
    }

    #[test]
    fn below_that_the_bound_is_never_under_what_was_seen() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        let bound = p99_bound(&samples).unwrap();
        assert!(!bound.from_records && bound.value >= 20.0, "{bound:?}");
        assert_eq!(p99_bound(&[]), None);
        assert_eq!(p99_bound(&[3.0]), None);
    }

    #[test]
    fn a_cut_off_sample_in_the_tail_makes_the_bound_unknown() {
        assert!(p99_bound(&[1.0, f64::INFINITY]).unwrap().value.is_infinite());
        let mut many = vec![1.0; 1_000];
        many[0] = f64::INFINITY;
        assert!(p99_bound(&many).unwrap().value.is_finite(), "one in a thousand is beyond the p99");
    }

    #[test]
    fn shares_are_told_apart_only_with_enough_records() {
        assert!(larger_share((5, 10), (1, 10)).unwrap() > 0.95);
        assert!(larger_share((1, 3), (0, 3)).unwrap() < 0.95);
        assert!(larger_share((0, 0), (1, 2)).is_none());
        let (low, high) = share_bounds(0, 100);
        assert!(low == 0.0 && (0.02..0.04).contains(&high), "{low} {high}");
    }

    #[test]
    fn a_shift_of_all_values_is_seen() {
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|x| x + 10.0).collect();
        assert!(tends_larger(&b, &a).unwrap() > 0.99);
        assert!((tends_larger(&a, &a).unwrap() - 0.5).abs() < 0.01);
    }
}
