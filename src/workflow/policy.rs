//! Whether a step that failed is tried again, and when.

use std::time::Duration;

use rand::Rng;

use crate::domain::workflow::{FailureKind, Policy, RunOptions};
use crate::retry;
use crate::store::workflows::End;

/// Why a step came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// For a person, and never a secret: it is stored and shown.
    pub message: String,
    /// Not before this has passed, where whoever did it asked for that.
    pub after: Option<Duration>,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), after: None }
    }
}

/// No pause between two attempts is longer.
const LONGEST: Duration = Duration::from_secs(300);

pub(super) fn timeout(options: &RunOptions, own: &Policy) -> Duration {
    own.timeout.unwrap_or(options.task_timeout)
}

/// What becomes of a step that failed after `earlier` attempts that failed too. What can't pass is not tried again; nor is a
/// model that was asked as often as makes sense below.
pub(super) fn decide(failure: Failure, earlier: u32, options: &RunOptions, own: &Policy, rng: &mut impl Rng) -> End {
    let Failure { kind, message, after } = failure;
    let retries = own.retry_attempts.unwrap_or(options.retry_attempts);
    if !kind.may_pass() || earlier >= retries {
        return End::Failed { kind, message };
    }
    let policy = retry::Policy { retries, backoff: options.retry_delay, longest: LONGEST };
    let pause = match (after, own.backoff.get(&kind)) {
        (Some(after), _) => after.min(LONGEST),
        (None, Some(learnt)) => {
            let after = learnt.saturating_mul(1_u32.checked_shl(earlier).unwrap_or(u32::MAX)).min(LONGEST);
            policy.wait(earlier, Some(after), rng)
        }
        (None, None) => policy.pause(earlier, rng),
    };
    End::Postponed { kind, message, pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(kind: FailureKind, earlier: u32, own: &Policy) -> End {
        decide(Failure::new(kind, "why"), earlier, &RunOptions::default(), own, &mut rand::rng())
    }

    #[test]
    fn what_may_pass_is_tried_again_as_often_as_allowed() {
        let own = Policy::default();
        for earlier in 0..3 {
            let End::Postponed { pause, .. } = end(FailureKind::Unavailable, earlier, &own) else {
                panic!("{earlier}")
            };
            assert!(pause <= Duration::from_secs(1 << earlier));
        }
        assert!(matches!(end(FailureKind::Unavailable, 3, &own), End::Failed { .. }));
        let never = Policy { retry_attempts: Some(0), ..Policy::default() };
        assert!(matches!(end(FailureKind::TimedOut, 0, &never), End::Failed { .. }));
    }

    #[test]
    fn what_can_not_pass_is_not_tried_again() {
        for kind in [FailureKind::Refused, FailureKind::BadOutput, FailureKind::Undone, FailureKind::WorkerLost] {
            assert!(matches!(end(kind, 0, &Policy::default()), End::Failed { .. }), "{kind:?}");
        }
    }

    #[test]
    fn a_pause_that_was_learnt_is_taken_after_its_kind_of_failure_alone() {
        let own = Policy {
            retry_attempts: Some(9),
            backoff: [(FailureKind::Unavailable, Duration::from_secs(2))].into(),
            ..Policy::default()
        };
        for (earlier, from) in [(0, 2), (1, 4), (2, 8), (8, 300)] {
            let End::Postponed { pause, .. } = end(FailureKind::Unavailable, earlier, &own) else {
                panic!("{earlier}")
            };
            let from = Duration::from_secs(from);
            assert!((from..=from.mul_f64(1.1)).contains(&pause), "{earlier}: {pause:?}");
        }
        let End::Postponed { pause, .. } = end(FailureKind::Failed, 0, &own) else { panic!() };
        assert!(pause <= Duration::from_secs(1));
    }

    #[test]
    fn a_time_that_was_asked_for_is_kept() {
        let failure = Failure { after: Some(Duration::from_secs(7)), ..Failure::new(FailureKind::Unavailable, "busy") };
        let end = decide(failure, 0, &RunOptions::default(), &Policy::default(), &mut rand::rng());
        assert!(matches!(end, End::Postponed { pause, .. } if pause == Duration::from_secs(7)));
    }
}
