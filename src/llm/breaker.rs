//! A circuit breaker: after several failures in a row a model is left alone for a while, then asked once.
//!
//! All of it is in one atomic, so that a healthy model costs a call one load.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// When a model that fails is left alone, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// So many failures in a row open it. 0: never.
    pub failures: u16,
    /// How long it stays open the first time, in milliseconds; each probe that fails doubles it. 4,100: an outage of a
    /// minute meets three calls and three probes (4.1, 12.3 and 28.7 s after these), and the probe after 61.5 s ends it.
    pub open_ms: u64,
    /// It never stays open longer, in milliseconds.
    pub longest_open_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { failures: 3, open_ms: 4_100, longest_open_ms: 60_000 }
    }
}

/// Whether a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// It is.
    Closed,
    /// It is not.
    Open,
    /// One call finds out.
    HalfOpen,
}

/// One per model of the route.
pub(super) struct Breaker {
    options: Options,
    /// Times are counted from here.
    made: Instant,
    /// See [`State`].
    state: AtomicU64,
}

/// What the atomic holds: two bits of circuit, 16 of `count`, 46 of `until`.
#[derive(Clone, Copy)]
struct State {
    circuit: Circuit,
    /// Closed: failures in a row. Otherwise: how often it was opened in a row.
    count: u16,
    /// Open: until when, in milliseconds since the breaker was made.
    until: u64,
}

/// Leave to ask. Say what came of it; dropped without a word, the next caller may probe.
#[must_use]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    /// What a probe found; `None` for other calls.
    probe: Option<State>,
    said: bool,
}

impl Breaker {
    pub(super) fn new(options: Options, now: Instant) -> Self {
        Self { options, made: now, state: AtomicU64::new(State::CLOSED.pack()) }
    }

    /// As it is seen now: open for no longer than until its time is over.
    pub(super) fn circuit(&self, now: Instant) -> Circuit {
        let state = self.load();
        match state.circuit {
            Circuit::Open if state.until <= self.millis(now) => Circuit::HalfOpen,
            circuit => circuit,
        }
    }

    /// How long nobody gets a pass; `None` where it is not open.
    pub(super) fn opens_in(&self, now: Instant) -> Option<Duration> {
        let state = self.load();
        let left = Duration::from_millis(state.until.saturating_sub(self.millis(now)));
        (state.circuit == Circuit::Open && !left.is_zero()).then_some(left)
    }

    /// Leave to ask, or how long to wait before asking for it again.
    pub(super) fn pass(&self, now: Instant) -> Result<Pass<'_>, Duration> {
        loop {
            let state = self.load();
            let left = state.until.saturating_sub(self.millis(now));
            match state.circuit {
                Circuit::Closed => return Ok(Pass { breaker: self, probe: None, said: false }),
                Circuit::Open if left == 0 => {
                    let probing = State { circuit: Circuit::HalfOpen, ..state };
                    if self.swap(state, probing) {
                        return Ok(Pass { breaker: self, probe: Some(probing), said: false });
                    }
                }
                Circuit::Open => return Err(Duration::from_millis(left)),
                // The probe will tell; nobody knows when.
                Circuit::HalfOpen => return Err(Duration::from_millis(self.options.open_ms)),
            }
        }
    }

    fn succeeded(&self, probe: Option<State>) {
        match probe {
            Some(state) => {
                self.swap(state, State::CLOSED);
            }
            None => loop {
                let state = self.load();
                // A call from before it opened says nothing of now.
                if state.circuit != Circuit::Closed || state.count == 0 || self.swap(state, State::CLOSED) {
                    return;
                }
            },
        }
    }

    fn failed(&self, probe: Option<State>, now: Instant) {
        if let Some(state) = probe {
            self.swap(state, self.open(state.count.saturating_add(1), now));
            return;
        }
        loop {
            let state = self.load();
            if state.circuit != Circuit::Closed || self.options.failures == 0 {
                return;
            }
            let count = state.count.saturating_add(1);
            let then = if count >= self.options.failures { self.open(1, now) } else { State { count, ..state } };
            if self.swap(state, then) {
                return;
            }
        }
    }

    fn open(&self, times: u16, now: Instant) -> State {
        let doubled = 1_u64.checked_shl(u32::from(times) - 1).unwrap_or(u64::MAX);
        let time = self.options.open_ms.saturating_mul(doubled).min(self.options.longest_open_ms);
        State { circuit: Circuit::Open, count: times, until: self.millis(now).saturating_add(time) }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX)
    }

    fn load(&self) -> State {
        State::unpack(self.state.load(SeqCst))
    }

    fn swap(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), SeqCst, SeqCst).is_ok()
    }
}

impl Pass<'_> {
    /// The provider answered; whether it liked the request is another matter.
    pub(super) fn succeeded(mut self) {
        self.said = true;
        self.breaker.succeeded(self.probe);
    }

    pub(super) fn failed(mut self, now: Instant) {
        self.said = true;
        self.breaker.failed(self.probe, now);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let (false, Some(state)) = (self.said, self.probe) {
            self.breaker.swap(state, State { circuit: Circuit::Open, ..state });
        }
    }
}

impl State {
    const CLOSED: Self = Self { circuit: Circuit::Closed, count: 0, until: 0 };
    const UNTIL: u64 = (1 << 46) - 1;

    fn pack(self) -> u64 {
        let circuit = match self.circuit {
            Circuit::Closed => 0,
            Circuit::Open => 1,
            Circuit::HalfOpen => 2,
        };
        circuit << 62 | u64::from(self.count) << 46 | self.until.min(Self::UNTIL)
    }

    fn unpack(bits: u64) -> Self {
        let circuit = match bits >> 62 {
            0 => Circuit::Closed,
            1 => Circuit::Open,
            _ => Circuit::HalfOpen,
        };
        Self { circuit, count: (bits >> 46 & 0xffff) as u16, until: bits & Self::UNTIL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn at(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }
    }

    fn breaker() -> (Breaker, Clock) {
        let now = Instant::now();
        (Breaker::new(Options::default(), now), Clock(now))
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_between_does_not_count() {
        let (breaker, clock) = breaker();
        for good in [false, false, true, false, false] {
            let pass = breaker.pass(clock.at(0)).unwrap();
            if good { pass.succeeded() } else { pass.failed(clock.at(0)) }
        }
        assert_eq!(breaker.circuit(clock.at(0)), Circuit::Closed);
        breaker.pass(clock.at(0)).unwrap().failed(clock.at(1_000));
        assert_eq!(breaker.circuit(clock.at(1_000)), Circuit::Open);
        assert_eq!(breaker.pass(clock.at(1_100)).err(), Some(Duration::from_millis(4_000)));
        assert_eq!(breaker.circuit(clock.at(5_100)), Circuit::HalfOpen);
    }

    #[test]
    fn exactly_one_probes_and_its_end_decides() {
        let (breaker, clock) = breaker();
        (0..3).for_each(|_| breaker.pass(clock.at(0)).unwrap().failed(clock.at(0)));
        let probe = breaker.pass(clock.at(4_100)).unwrap();
        assert!((0..10).all(|_| breaker.pass(clock.at(9_000)).is_err()));
        // Whoever asked gave up: the next one probes.
        drop(probe);
        let probe = breaker.pass(clock.at(4_100)).unwrap();
        probe.failed(clock.at(4_100));
        assert_eq!(breaker.opens_in(clock.at(4_100)), Some(Duration::from_millis(8_200)));
        breaker.pass(clock.at(12_300)).unwrap().succeeded();
        assert_eq!(breaker.circuit(clock.at(12_300)), Circuit::Closed);
        assert_eq!(breaker.opens_in(clock.at(12_300)), None);
        // It begins at the short time again.
        (0..3).for_each(|_| breaker.pass(clock.at(20_000)).unwrap().failed(clock.at(20_000)));
        assert_eq!(breaker.opens_in(clock.at(20_000)), Some(Duration::from_millis(4_100)));
    }

    #[test]
    fn of_many_threads_one_probes() {
        for _ in 0..200 {
            let (breaker, clock) = breaker();
            (0..3).for_each(|_| breaker.pass(clock.at(0)).unwrap().failed(clock.at(0)));
            let start = std::sync::Barrier::new(4);
            let probes: usize = std::thread::scope(|scope| {
                let probe = || {
                    start.wait();
                    let pass = breaker.pass(clock.at(4_100));
                    let got = usize::from(pass.is_ok());
                    std::mem::forget(pass);
                    got
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(probe)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(probes, 1);
        }
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing() {
        let (breaker, clock) = breaker();
        let (early, late) = (breaker.pass(clock.at(0)).unwrap(), breaker.pass(clock.at(0)).unwrap());
        (0..3).for_each(|_| breaker.pass(clock.at(0)).unwrap().failed(clock.at(0)));
        early.succeeded();
        late.failed(clock.at(4_000));
        assert_eq!(breaker.opens_in(clock.at(0)), Some(Duration::from_millis(4_100)));
    }

    #[test]
    fn an_outage_of_a_minute_meets_six_attempts_and_ends_within_five_seconds() {
        let (breaker, clock) = breaker();
        let (mut attempts, mut back) = (0, None);
        for ms in (0..70_000).step_by(10) {
            let Ok(pass) = breaker.pass(clock.at(ms)) else { continue };
            if ms < 60_000 {
                attempts += 1;
                pass.failed(clock.at(ms));
            } else {
                back = back.or(Some(ms - 60_000));
                pass.succeeded();
            }
        }
        assert!(attempts <= 6 && back.is_some_and(|ms| ms <= 5_000), "{attempts} attempts, back after {back:?} ms");
    }

    #[test]
    fn none_is_never_open() {
        let now = Instant::now();
        let breaker = Breaker::new(Options { failures: 0, ..Options::default() }, now);
        (0..1_000).for_each(|_| breaker.pass(now).unwrap().failed(now));
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }
}
