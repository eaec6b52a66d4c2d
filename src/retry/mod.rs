//! The only attempt loop. Whoever calls it says what can be tried again and how long the other side asked to wait; one
//! deadline bounds it all.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep_until};

/// How often to try again, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts after the first.
    pub retries: u32,
    /// The first pause is at most this long, each later one at most twice the one before.
    pub backoff: Duration,
    /// No pause is longer, unless the other side asks for it.
    pub longest: Duration,
}

/// What an attempt's error allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Trying again can't help.
    Stop,
    /// Another attempt may succeed; not before this time has passed, where the other side asked for one.
    Again { after: Option<Duration> },
}

impl Policy {
    /// Full jitter: anything from nothing to the longest pause of this retry, so that callers that failed together do
    /// not come back together.
    pub fn pause(&self, retry: u32, rng: &mut impl Rng) -> Duration {
        let most = self.backoff.saturating_mul(1_u32.checked_shl(retry).unwrap_or(u32::MAX)).min(self.longest);
        most.mul_f64(rng.random::<f64>())
    }

    /// As above where nobody asked for a time. A time that was asked for is kept, and up to a tenth more: others were
    /// told the same.
    pub fn wait(&self, retry: u32, after: Option<Duration>, rng: &mut impl Rng) -> Duration {
        match after {
            None => self.pause(retry, rng),
            Some(after) => after.saturating_add(after.mul_f64(0.1 * rng.random::<f64>())),
        }
    }
}

/// Attempts until one succeeds, `next` says stop, the retries are used up, or the pause would end at the deadline or
/// later. The last error is returned. `attempt` is told how many attempts came before it and keeps to the deadline
/// itself.
pub async fn run<T, E, F>(
    policy: &Policy,
    deadline: Instant,
    mut attempt: impl FnMut(u32) -> F,
    next: impl Fn(&E, u32) -> Next,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut made = 0;
    loop {
        let error = match attempt(made).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Next::Again { after } = next(&error, made) else { return Err(error) };
        if made >= policy.retries {
            return Err(error);
        }
        let pause = policy.wait(made, after, &mut rand::rng());
        let Some(then) = Instant::now().checked_add(pause).filter(|then| *then < deadline) else { return Err(error) };
        sleep_until(then).await;
        made += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const POLICY: Policy = Policy { retries: 3, backoff: Duration::from_secs(1), longest: Duration::from_secs(3) };

    /// When each attempt was made, in milliseconds, where every attempt fails.
    async fn times(policy: &Policy, deadline: Duration, next: impl Fn(u32) -> Next) -> Vec<u128> {
        let begun = Instant::now();
        let made = RefCell::new(vec![]);
        let attempt = |_| async {
            made.borrow_mut().push(begun.elapsed().as_millis());
            Err::<(), ()>(())
        };
        run(policy, begun + deadline, attempt, |(), n| next(n)).await.unwrap_err();
        made.into_inner()
    }

    #[test]
    fn a_pause_is_anything_up_to_its_longest_which_doubles() {
        let mut rng = rand::rng();
        for (retry, most) in [(0, 1_000), (1, 2_000), (2, 3_000), (40, 3_000)] {
            let pauses: Vec<u128> = (0..2_000).map(|_| POLICY.pause(retry, &mut rng).as_millis()).collect();
            let (least, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*longest <= most && *longest > most * 9 / 10, "{retry}: {longest}");
            assert!(*least < most / 10, "{retry}: {least}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_attempts_as_allowed_are_made_and_no_more() {
        let day = Duration::from_secs(86_400);
        assert_eq!(times(&POLICY, day, |_| Next::Again { after: None }).await.len(), 4);
        assert_eq!(times(&POLICY, day, |_| Next::Stop).await, [0]);
        let twice = |n| if n == 0 { Next::Again { after: None } } else { Next::Stop };
        assert_eq!(times(&POLICY, day, twice).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_was_asked_for_is_kept() {
        let asked = |_| Next::Again { after: Some(Duration::from_secs(7)) };
        let made = times(&POLICY, Duration::from_secs(86_400), asked).await;
        for pause in made.windows(2).map(|pair| pair[1] - pair[0]) {
            assert!((7_000..=7_701).contains(&pause), "{pause}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_is_made_at_the_deadline_or_later_and_nobody_waits_for_one() {
        let begun = Instant::now();
        let asked = |_| Next::Again { after: Some(Duration::from_secs(7)) };
        assert_eq!(times(&POLICY, Duration::from_secs(7), asked).await, [0]);
        assert!(begun.elapsed().is_zero());
        assert_eq!(times(&POLICY, Duration::from_secs(10), asked).await.len(), 2);
    }
}
