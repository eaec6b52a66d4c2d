//! Whether a plan that is in use is kept: runs under it against runs before it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stats;

/// Runs on either side below which nothing is said.
const RUNS: usize = 10;
/// How sure a loss must be.
const SURE: f64 = 0.95;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Too few runs on a side.
    Wait,
    /// It is not worse.
    Keep,
    RollBack {
        reason: String,
    },
}

/// The makespans of runs that completed and how many others failed, before the plan and under it.
pub fn judge(before: (&[Duration], usize), under: (&[Duration], usize)) -> Verdict {
    let runs = |side: (&[Duration], usize)| side.0.len() + side.1;
    if runs(before) < RUNS || runs(under) < RUNS {
        return Verdict::Wait;
    }
    let failing = stats::larger_share((under.1, runs(under)), (before.1, runs(before)));
    if failing.is_some_and(|sure| sure >= SURE) {
        let reason = format!("{} of {} runs failed, {} of {} before", under.1, runs(under), before.1, runs(before));
        return Verdict::RollBack { reason };
    }
    let seconds = |times: &[Duration]| times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
    let slower = stats::tends_larger(&seconds(under.0), &seconds(before.0));
    match (slower, stats::median(before.0), stats::median(under.0)) {
        (Some(sure), Some(then), Some(now)) if sure >= SURE && now > then => Verdict::RollBack {
            reason: format!(
                "half of the runs take {} or more, {} before",
                super::plan::span(now),
                super::plan::span(then)
            ),
        },
        _ => Verdict::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(ms: u64, runs: u64) -> Vec<Duration> {
        (0..runs).map(|i| Duration::from_millis(ms + i)).collect()
    }

    #[test]
    fn a_plan_that_is_slower_or_fails_more_is_rolled_back() {
        let before = around(100, 20);
        assert!(matches!(judge((&before, 0), (&around(150, 20), 0)), Verdict::RollBack { .. }));
        assert!(matches!(judge((&before, 0), (&around(100, 12), 8)), Verdict::RollBack { .. }));
        assert_eq!(judge((&before, 0), (&around(80, 20), 0)), Verdict::Keep);
        assert_eq!(judge((&before, 0), (&around(100, 20), 0)), Verdict::Keep);
        assert_eq!(judge((&before, 0), (&around(500, 3), 0)), Verdict::Wait);
    }
}
