//! How long a model usually takes: says when a second request is worth its money.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many of the last answers are looked at.
const KEPT: usize = 64;
/// Fewer say nothing of the twentieth part that is slow.
const NEEDED: usize = 20;

/// The times of a model's last answers.
#[derive(Default)]
pub(super) struct Pace(Mutex<Times>);

#[derive(Default)]
struct Times {
    kept: Vec<Duration>,
    next: usize,
}

impl Pace {
    pub(super) fn took(&self, time: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.kept.len() < KEPT {
            times.kept.push(time);
        } else {
            let at = times.next % KEPT;
            times.kept[at] = time;
        }
        times.next = times.next.wrapping_add(1);
    }

    /// Of twenty answers, nineteen took less. `None` before there were enough.
    pub(super) fn p95(&self) -> Option<Duration> {
        let mut sorted = self.0.lock().unwrap_or_else(PoisonError::into_inner).kept.clone();
        if sorted.len() < NEEDED {
            return None;
        }
        let at = (sorted.len() * 95).div_ceil(100) - 1;
        Some(*sorted.select_nth_unstable(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_95th_percentile_of_the_last_answers() {
        let pace = Pace::default();
        for ms in 1..=19 {
            pace.took(Duration::from_millis(ms));
        }
        assert_eq!(pace.p95(), None);
        pace.took(Duration::from_millis(20));
        assert_eq!(pace.p95(), Some(Duration::from_millis(19)));
        (0..64).for_each(|_| pace.took(Duration::from_millis(500)));
        assert_eq!(pace.p95(), Some(Duration::from_millis(500)));
    }
}
