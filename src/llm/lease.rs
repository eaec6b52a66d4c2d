//! What a worker has of a budget and what it needs, in numbers: no I/O, no clock.

use crate::domain::NanoUsd;

/// What a worker knows of its lease. What the database counts in it is this, and what was spent and is not written yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Money {
    /// Under zero where something cost more than it could.
    pub(super) free: i64,
    pub(super) reserved: i64,
}

impl Money {
    pub(super) fn reserve(&mut self, worst: NanoUsd) -> bool {
        let worst = signed(worst);
        let fits = self.free >= worst;
        if fits {
            self.free -= worst;
            self.reserved += worst;
        }
        fits
    }

    pub(super) fn settle(&mut self, worst: NanoUsd, used: NanoUsd) {
        self.reserved -= signed(worst);
        self.free = self.free.saturating_add(signed(worst) - signed(used));
    }

    /// What must be leased for it to fit.
    pub(super) fn lacks(&self, worst: NanoUsd) -> NanoUsd {
        NanoUsd(u64::try_from(signed(worst).saturating_sub(self.free)).unwrap_or(0))
    }

    /// Takes out up to so much of what is free; `None` where there is nothing.
    pub(super) fn spare(&mut self, most: NanoUsd) -> Option<NanoUsd> {
        let amount = self.free.min(signed(most));
        let amount = u64::try_from(amount).ok().filter(|amount| *amount > 0)?;
        self.free -= signed(NanoUsd(amount));
        Some(NanoUsd(amount))
    }
}

/// Four billion dollars are as good as any more: they fit twice.
pub(super) fn signed(amount: NanoUsd) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

/// So many times the worst case is leased where nothing is known of what comes.
pub(super) const AHEAD: u64 = 4;
/// After so many ticks without a call, nothing is held.
pub(super) const IDLE_TICKS: u32 = 4;

/// How much is set aside from one tick to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    now: u64,
    /// The most of late.
    most: u64,
    pub(super) idle: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adjust {
    Nothing,
    Lease(NanoUsd),
    GiveBack(NanoUsd),
}

impl Pace {
    pub(super) fn used(&mut self, worst: NanoUsd) {
        self.now = self.now.saturating_add(worst.0);
    }

    pub(super) fn tick(&mut self) {
        self.idle = if self.now == 0 { self.idle.saturating_add(1) } else { 0 };
        self.most = if self.idle >= IDLE_TICKS { 0 } else { self.now.max(self.most - self.most / 4) };
        self.now = 0;
    }

    /// What should be at hand: enough for two ticks.
    pub(super) fn ahead(&self) -> u64 {
        self.most.max(self.now).saturating_mul(2).min(1 << 60)
    }

    /// What to do with so much at hand: nothing, as long as it is between half and twice of what should be.
    pub(super) fn adjust(&self, free: i64) -> Adjust {
        let (ahead, free) = (self.ahead(), u64::try_from(free).unwrap_or(0));
        if free < ahead / 2 {
            Adjust::Lease(NanoUsd(ahead - free))
        } else if free > ahead.saturating_mul(2) {
            Adjust::GiveBack(NanoUsd(free - ahead))
        } else {
            Adjust::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::grant;

    /// Workers on one budget, as the database and the provider see them.
    struct World {
        cap: u64,
        /// As `store::budget` keeps it.
        taken: i64,
        ledger: i64,
        workers: Vec<Worker>,
        /// What the provider bills.
        billed: u64,
    }

    #[derive(Default)]
    struct Worker {
        money: Money,
        pace: Pace,
        /// Of its lease, in the database.
        leased: i64,
        /// Spent, and not in the ledger yet.
        unwritten: i64,
        running: Vec<NanoUsd>,
    }

    #[derive(Debug, Clone)]
    enum Act {
        Ask {
            worker: usize,
            worst: u64,
        },
        /// It costs so many hundredths of its worst; whether that is told, decides the second.
        Answer {
            worker: usize,
            nth: usize,
            share: u64,
            told: bool,
        },
        NeverSent {
            worker: usize,
            nth: usize,
        },
        Write {
            worker: usize,
        },
        Tick {
            worker: usize,
        },
        /// Whether somebody reads what it wrote of its free part, decides the second.
        Kill {
            worker: usize,
            read: bool,
        },
    }

    const WORKERS: usize = 4;

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let worker = || 0..WORKERS;
        let act = prop_oneof![
            6 => (worker(), 0..2_000u64).prop_map(|(worker, worst)| Act::Ask { worker, worst }),
            4 => (worker(), 0..8usize, 0..=100u64, prop::bool::weighted(0.8))
                .prop_map(|(worker, nth, share, told)| Act::Answer { worker, nth, share, told }),
            1 => (worker(), 0..8usize).prop_map(|(worker, nth)| Act::NeverSent { worker, nth }),
            2 => worker().prop_map(|worker| Act::Write { worker }),
            3 => worker().prop_map(|worker| Act::Tick { worker }),
            1 => (worker(), any::<bool>()).prop_map(|(worker, read)| Act::Kill { worker, read }),
        ];
        prop::collection::vec(act, 0..400)
    }

    impl World {
        fn lease(&mut self, worker: usize, need: NanoUsd, want: NanoUsd) -> bool {
            let left = NanoUsd(self.cap - u64::try_from(self.taken).unwrap());
            let Some(granted) = grant(left, need, want) else { return false };
            let granted = signed(granted);
            self.taken += granted;
            self.workers[worker].leased += granted;
            self.workers[worker].money.free += granted;
            true
        }

        fn give_back(&mut self, worker: usize, most: NanoUsd) {
            let Some(amount) = self.workers[worker].money.spare(most) else { return };
            self.taken -= signed(amount);
            self.workers[worker].leased -= signed(amount);
        }

        fn settle(&mut self, worker: usize, nth: usize, used: impl Fn(NanoUsd) -> (NanoUsd, u64)) {
            let of = &mut self.workers[worker];
            if of.running.is_empty() {
                return;
            }
            let worst = of.running.remove(nth % of.running.len());
            let (used, billed) = used(worst);
            of.money.settle(worst, used);
            of.unwritten += signed(used);
            self.billed += billed;
        }

        fn write(&mut self, worker: usize) {
            let unwritten = std::mem::take(&mut self.workers[worker].unwritten);
            self.workers[worker].leased -= unwritten;
            self.ledger += unwritten;
        }

        fn does(&mut self, act: &Act) {
            match *act {
                Act::Ask { worker, worst } => {
                    let worst = NanoUsd(worst);
                    let of = &self.workers[worker];
                    let (lacks, fits) = (of.money.lacks(worst), of.money.free >= signed(worst));
                    let want = NanoUsd(of.pace.ahead().max(worst.0 * AHEAD));
                    if fits || self.lease(worker, lacks, want) {
                        let of = &mut self.workers[worker];
                        assert!(of.money.reserve(worst));
                        of.pace.used(worst);
                        of.running.push(worst);
                    } else {
                        assert!(
                            self.cap - u64::try_from(self.taken).unwrap() < lacks.0,
                            "refused, and there was enough"
                        );
                    }
                }
                Act::Answer { worker, nth, share, told } => self.settle(worker, nth, |worst| {
                    let billed = worst.0 * share / 100;
                    (if told { NanoUsd(billed) } else { worst }, billed)
                }),
                Act::NeverSent { worker, nth } => self.settle(worker, nth, |_| (NanoUsd::ZERO, 0)),
                Act::Write { worker } => self.write(worker),
                Act::Tick { worker } => {
                    let of = &mut self.workers[worker];
                    of.pace.tick();
                    match of.pace.adjust(of.money.free) {
                        Adjust::Nothing => {}
                        Adjust::Lease(want) => drop(self.lease(worker, NanoUsd::ZERO, want)),
                        Adjust::GiveBack(amount) => self.give_back(worker, amount),
                    }
                }
                Act::Kill { worker, read } => {
                    if read {
                        self.give_back(worker, NanoUsd(u64::MAX));
                    }
                    let dead = std::mem::take(&mut self.workers[worker]);
                    // All that ran reached the provider, and is billed at its worst. The lease lapses.
                    self.billed += dead.running.iter().map(|worst| worst.0).sum::<u64>();
                    self.ledger += dead.leased;
                }
            }
        }

        fn holds(&self) {
            let taken = u64::try_from(self.taken).unwrap();
            assert!(taken <= self.cap, "{taken} of {} are taken", self.cap);
            assert_eq!(self.taken, self.ledger + self.workers.iter().map(|of| of.leased).sum::<i64>());
            let running: u64 = self.workers.iter().flat_map(|of| &of.running).map(|worst| worst.0).sum();
            assert!(self.billed + running <= taken, "{} billed, {running} may be, {taken} taken", self.billed);
            for of in &self.workers {
                assert_eq!(of.leased, of.money.free + of.money.reserved + of.unwritten);
                assert_eq!(of.money.reserved, of.running.iter().map(|worst| signed(*worst)).sum::<i64>());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn no_order_of_calls_and_deaths_spends_a_nano_dollar_too_much(cap in 0..50_000u64, acts in acts()) {
            let workers = (0..WORKERS).map(|_| Worker::default()).collect();
            let mut world = World { cap, taken: 0, ledger: 0, workers, billed: 0 };
            for act in &acts {
                world.does(act);
                world.holds();
            }
            // What was never sent has come back in the end, and nothing else.
            for worker in 0..WORKERS {
                while !world.workers[worker].running.is_empty() {
                    world.settle(worker, 0, |_| (NanoUsd::ZERO, 0));
                }
                world.write(worker);
                world.give_back(worker, NanoUsd(u64::MAX));
            }
            world.holds();
            prop_assert_eq!(world.taken, world.ledger);
            let unknown = |act: &Act| matches!(act, Act::Kill { read: false, .. } | Act::Answer { told: false, .. });
            let certain = !acts.iter().any(unknown);
            prop_assert!(!certain || world.taken == signed(NanoUsd(world.billed)));
        }
    }

    #[test]
    fn a_lease_follows_the_pace_and_nothing_is_held_for_nobody() {
        let mut pace = Pace::default();
        pace.used(NanoUsd(100));
        pace.tick();
        assert_eq!(pace.adjust(50), Adjust::Lease(NanoUsd(150)));
        assert_eq!(pace.adjust(200), Adjust::Nothing);
        assert_eq!(pace.adjust(1_000), Adjust::GiveBack(NanoUsd(800)));
        (0..IDLE_TICKS).for_each(|_| pace.tick());
        assert_eq!(pace.adjust(200), Adjust::GiveBack(NanoUsd(200)));
    }
}
