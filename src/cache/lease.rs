use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until when this memory may be served from.
///
/// Whoever keeps it in step with the other workers confirms moments up to which it has heard everything. A memory that nobody
/// ever confirmed is its worker's own and always holds.
#[derive(Debug)]
pub(super) struct Lease {
    begun: Instant,
    length: Duration,
    /// Milliseconds after a millisecond before `begun`, so that 0 is no moment.
    confirmed: AtomicU64,
}

/// Nobody else changes this memory.
const ALONE: u64 = u64::MAX;

impl Lease {
    /// A length of zero never lapses.
    pub(super) fn new(length: Duration) -> Self {
        Self { begun: Instant::now(), length, confirmed: AtomicU64::new(ALONE) }
    }

    /// All that others changed before that moment is known here.
    pub(super) fn confirm(&self, at: Instant) {
        let at = at.saturating_duration_since(self.begun).as_millis() as u64 + 1;
        // The first one begins the lease; after that it only grows.
        if self.confirmed.compare_exchange(ALONE, at, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.confirmed.fetch_max(at, Ordering::AcqRel);
        }
    }

    /// Something may have been missed: nothing holds until the next confirmation.
    pub(super) fn break_off(&self) {
        self.confirmed.store(0, Ordering::Release);
    }

    pub(super) fn holds(&self) -> bool {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        confirmed == ALONE || self.length.is_zero() || self.holds_at(confirmed, self.begun.elapsed())
    }

    fn holds_at(&self, confirmed: u64, now: Duration) -> bool {
        confirmed > 0 && now < Duration::from_millis(confirmed - 1) + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_from_each_confirmation_for_its_length_and_not_after_a_break() {
        let lease = Lease::new(Duration::from_secs(3));
        assert!(lease.holds(), "a memory of its own needs nobody's word");
        let now = lease.begun + Duration::from_secs(10);
        lease.confirm(now);
        lease.confirm(now - Duration::from_secs(5));
        let confirmed = lease.confirmed.load(Ordering::Relaxed);
        assert_eq!(confirmed, 10_001, "an older word takes nothing back");
        assert!(lease.holds_at(confirmed, Duration::from_millis(12_999)));
        assert!(!lease.holds_at(confirmed, Duration::from_secs(13)));
        lease.break_off();
        assert!(!lease.holds());
        lease.confirm(Instant::now() + Duration::from_millis(5));
        assert!(lease.holds());
    }
}
