//! This worker's share of one model's limit: what it has leased, what it used, who waits. Pure: it is told the time and what
//! the database said, and says what to ask it next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Amount, Report, Turn, Use, Want};

/// What holds for one model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// For all workers together, in a window. 0: not limited.
    pub(super) limit: Amount,
    /// A minute, and what arriving may take longer for one request than for another.
    pub(super) window: Duration,
    /// What was leased and not used goes back after this.
    pub(super) lease: Duration,
}

/// What was used within so many milliseconds is one row.
const MOMENT_MS: u128 = 100;
/// What was used is written down after this, for the others' sake.
const FLUSH: Duration = Duration::from_millis(500);
/// Between two looks into the database for something that was not there.
const GAP: Duration = Duration::from_millis(50);
/// The others are told so often that somebody still waits.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// After this nobody is expected any more.
const IDLE: Duration = Duration::from_secs(10);
/// What the database said of the others is believed for so long.
const FRESH: Duration = Duration::from_secs(1);
/// It is left alone for so long after it failed.
const AWAY: Duration = Duration::from_millis(500);

/// `T` is what a waiting caller is known by.
pub(super) struct Share<T> {
    rule: Rule,
    made: Instant,
    /// Leased, and nobody's.
    stock: Amount,
    /// Leased, and given to callers that did not begin yet.
    reserved: Amount,
    /// Neither may be used from here on.
    lapse: Instant,
    /// Goes up when what was leased lapses.
    generation: u64,
    uses: BTreeMap<i64, Moment>,
    /// Since when something is not written down.
    unsaid: Option<Instant>,
    /// Something of that makes room.
    freed: bool,
    queue: VecDeque<Waiter<T>>,
    /// Of all in the queue.
    needed: Amount,
    next_id: u64,
    called: Option<Instant>,
    /// What the last caller needed.
    usual: Amount,
    known: Option<Known>,
    /// The next look for those who wait.
    look: Instant,
    away: Option<Instant>,
}

struct Waiter<T> {
    id: u64,
    need: Amount,
    patience: Instant,
    who: T,
}

/// What was used at about one time.
struct Moment {
    last: Instant,
    amount: Amount,
    /// As the database knows it.
    said: Option<(Instant, Amount)>,
}

/// What the database said last.
struct Known {
    at: Instant,
    scarce: bool,
    /// The others think that somebody waits here.
    waited: bool,
    soon: Amount,
    /// From `at` on, what has come free by then in all.
    releases: Vec<(Duration, Amount)>,
}

/// Leave to use this much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) need: Amount,
    generation: u64,
}

/// What a caller uses, counted from when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    slot: i64,
    need: Amount,
}

/// Why a caller does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room before this has passed, and that is too late.
    Full { after: Duration },
    /// Others had what came free while it waited.
    Late,
    /// The database does not say what is free.
    Unknown,
}

/// A report on its way.
pub(super) struct Asked {
    at: Instant,
    all: Amount,
    uses: Vec<(i64, Instant, Amount)>,
}

impl<T> Share<T> {
    pub(super) fn new(rule: Rule, now: Instant) -> Self {
        Self {
            rule,
            made: now,
            stock: Amount::NONE,
            reserved: Amount::NONE,
            lapse: now,
            generation: 0,
            uses: BTreeMap::new(),
            unsaid: None,
            freed: false,
            queue: VecDeque::new(),
            needed: Amount::NONE,
            next_id: 0,
            called: None,
            usual: Amount::NONE,
            known: None,
            look: now,
            away: None,
        }
    }

    /// Of what can never be had at once, the most that can.
    pub(super) fn limit(&self) -> Amount {
        self.rule.limit
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Leased and not used.
    pub(super) fn leased(&self, now: Instant) -> Amount {
        if now < self.lapse { self.stock.plus(self.reserved) } else { Amount::NONE }
    }

    /// Without waiting, where there is enough in stock and nobody waits.
    pub(super) fn take(&mut self, need: Amount, now: Instant) -> Option<Reserved> {
        self.expire(now);
        self.called = Some(now);
        self.usual = need;
        if !self.queue.is_empty() || !self.stock.covers(need) {
            return None;
        }
        Some(self.reserve(need))
    }

    /// Waits behind the others. What comes of it is told by [`Self::serve`].
    pub(super) fn wait(&mut self, need: Amount, patience: Instant, who: T, now: Instant) -> Result<u64, Refusal> {
        if self.away.is_some_and(|until| now < until) {
            return Err(Refusal::Unknown);
        }
        if let Some(after) = self.too_late(self.needed.plus(need), patience, now) {
            return Err(Refusal::Full { after });
        }
        if self.queue.is_empty() {
            // Where there was nothing a moment ago, there is nothing now.
            let known = self.known.as_ref().filter(|known| known.scarce && !self.freed);
            let soonest = known.map(|known| known.at + GAP);
            self.look = soonest.map_or(now, |soonest| soonest.max(now));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.needed = self.needed.plus(need);
        self.queue.push_back(Waiter { id, need, patience, who });
        Ok(id)
    }

    /// Gives up waiting. False where it was served already.
    pub(super) fn leave(&mut self, id: u64) -> bool {
        let at = self.queue.partition_point(|waiter| waiter.id < id);
        self.queue.get(at).is_some_and(|waiter| waiter.id == id) && self.drop_at(at).is_some()
    }

    /// Who waits and is waited for no longer: in the order in which they came, as far as the stock goes.
    pub(super) fn serve(&mut self, now: Instant) -> Vec<(T, Result<Reserved, Refusal>)> {
        self.expire(now);
        let mut served = vec![];
        while let Some(first) = self.queue.front()
            && self.stock.covers(first.need)
        {
            let need = first.need;
            let reserved = self.reserve(need);
            served.extend(self.drop_at(0).map(|who| (who, Ok(reserved))));
        }
        let (mut at, mut before) = (0, Amount::NONE);
        while let Some(waiter) = self.queue.get(at) {
            let needed = before.plus(waiter.need);
            match self.too_late(needed, waiter.patience, now) {
                Some(after) => served.extend(self.drop_at(at).map(|who| (who, Err(Refusal::Full { after })))),
                None => (at, before) = (at + 1, needed),
            }
        }
        served
    }

    /// What was reserved is used from now on. `None` where it was reserved for too long ago.
    pub(super) fn begin(&mut self, reserved: Reserved, now: Instant) -> Option<Taken> {
        self.expire(now);
        if reserved.generation != self.generation {
            return None;
        }
        self.reserved = self.reserved.minus(reserved.need);
        Some(self.used(reserved.need, now))
    }

    pub(super) fn give_back(&mut self, reserved: Reserved) {
        if reserved.generation == self.generation {
            self.reserved = self.reserved.minus(reserved.need);
            self.stock = self.stock.plus(reserved.need);
        }
    }

    /// What was truly used of it. The whole is counted where nobody says.
    pub(super) fn settle(&mut self, taken: Taken, used: Amount, now: Instant) {
        if let Some(moment) = self.uses.get_mut(&taken.slot)
            && used != taken.need
        {
            moment.amount = moment.amount.minus(taken.need).plus(used);
            self.freed |= !used.covers(taken.need);
            self.unsaid.get_or_insert(now);
        }
    }

    /// When the database is to be asked; `None`: not until somebody calls.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let waiting = (!self.queue.is_empty()).then_some(self.look);
        let unsaid = self.unsaid.map(|since| since + FLUSH);
        let leased = (!self.leased(now).is_none()).then(|| self.lapse.checked_sub(self.rule.lease / 2)).flatten();
        let spare = self.spare(now);
        let low = !self.is_scarce() && !self.stock.covers(spare.over(2).max(self.usual.min(spare)));
        let low = low.then(|| self.known.as_ref().map_or(now, |known| known.at + GAP));
        // What is kept for somebody who is gone, here or at the others, is somebody else's.
        let left_over = self.known.as_ref().filter(|known| {
            (known.waited && self.queue.is_empty()) || (known.scarce && !self.stock.is_none() && self.queue.is_empty())
        });
        let left_over = left_over.map(|known| known.at + GAP);
        let due = [waiting, unsaid, leased, low, left_over].into_iter().flatten().min()?;
        Some(self.away.map_or(due, |until| due.max(until)))
    }

    pub(super) fn ask(&mut self, now: Instant) -> (Report, Asked) {
        self.expire(now);
        let window = self.rule.window;
        self.uses.retain(|_, moment| moment.last + window > now);
        let spare = self.spare(now);
        // The stock is less than the first one needs, of one kind at least. What he can't use, others may wait for.
        let first = self.queue.front().map_or(Amount::NONE, |first| first.need);
        self.stock = self.stock.min(if self.is_scarce() { first } else { self.needed.plus(spare) });
        let head = first.minus(self.stock);
        let all = self.needed.minus(self.stock);
        let spare = spare.plus(self.needed).minus(self.stock).minus(all);
        let unsaid = self.uses.iter().filter(|(_, moment)| moment.said != Some((moment.last, moment.amount)));
        let uses: Vec<_> = unsaid.map(|(slot, moment)| (*slot, moment.last, moment.amount)).collect();
        (self.unsaid, self.freed) = (None, false);
        let said = |(slot, last, amount): &(i64, Instant, Amount)| Use {
            slot: *slot,
            ago: now.saturating_duration_since(*last),
            amount: *amount,
        };
        let report = Report {
            limit: self.rule.limit,
            window,
            lease: self.rule.lease,
            uses: uses.iter().map(said).collect(),
            held: self.stock.plus(self.reserved),
            want: Want { head, all, spare },
        };
        (report, Asked { at: now, all, uses })
    }

    pub(super) fn told(&mut self, asked: Asked, turn: Turn, now: Instant) {
        self.expire(now);
        for (slot, last, amount) in asked.uses {
            if let Some(moment) = self.uses.get_mut(&slot) {
                moment.said = Some((last, amount));
            }
        }
        self.away = None;
        self.stock = self.stock.plus(turn.granted);
        // The database counts from a moment that came after this one.
        self.lapse = asked.at + self.rule.lease;
        let next = turn.releases.first().map_or(SIGN_OF_LIFE, |(after, _)| (*after).clamp(GAP, SIGN_OF_LIFE));
        // Where all was granted, who came meanwhile need not wait.
        self.look = if turn.scarce { now + next } else { now };
        let mut sum = Amount::NONE;
        let released = turn.releases.into_iter().map(|(after, amount)| {
            sum = sum.plus(amount);
            (after, sum)
        });
        let releases = released.collect();
        let waited = !turn.granted.covers(asked.all);
        self.known = Some(Known { at: now, scarce: turn.scarce, waited, soon: turn.soon, releases });
    }

    /// The database did not answer: those who wait are told so. What is leased may still be used.
    pub(super) fn failed(&mut self, asked: Asked, now: Instant) -> Vec<T> {
        self.away = Some(now + AWAY);
        self.known = None;
        if !asked.uses.is_empty() {
            self.unsaid = Some(asked.at);
        }
        self.needed = Amount::NONE;
        self.queue.drain(..).map(|waiter| waiter.who).collect()
    }

    /// What is leased goes back with the next report, and nothing more is leased.
    pub(super) fn close(&mut self) {
        self.called = None;
        self.stock = Amount::NONE;
    }

    fn drop_at(&mut self, at: usize) -> Option<T> {
        let waiter = self.queue.remove(at)?;
        self.needed = self.needed.minus(waiter.need);
        Some(waiter.who)
    }

    fn reserve(&mut self, need: Amount) -> Reserved {
        self.stock = self.stock.minus(need);
        self.reserved = self.reserved.plus(need);
        Reserved { need, generation: self.generation }
    }

    fn used(&mut self, need: Amount, now: Instant) -> Taken {
        let slot = i64::try_from(now.saturating_duration_since(self.made).as_millis() / MOMENT_MS).unwrap_or(i64::MAX);
        let moment = self.uses.entry(slot).or_insert(Moment { last: now, amount: Amount::NONE, said: None });
        moment.last = moment.last.max(now);
        moment.amount = moment.amount.plus(need);
        self.unsaid.get_or_insert(now);
        Taken { slot, need }
    }

    fn expire(&mut self, now: Instant) {
        if now >= self.lapse && !self.stock.plus(self.reserved).is_none() {
            (self.stock, self.reserved) = (Amount::NONE, Amount::NONE);
            self.generation += 1;
        }
    }

    fn is_scarce(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.scarce)
    }

    /// What to have in stock for those who may come within a second: as much as in the last one, and as much as a steady
    /// use of the whole limit would take.
    fn spare(&self, now: Instant) -> Amount {
        if self.called.is_none_or(|called| now.saturating_duration_since(called) > IDLE) {
            return Amount::NONE;
        }
        let second = now.saturating_duration_since(self.made).as_millis().saturating_sub(1_000) / MOMENT_MS;
        let recent = self.uses.range(i64::try_from(second).unwrap_or(i64::MAX)..).map(|(_, moment)| moment.amount);
        let recent = recent.fold(Amount::NONE, Amount::plus);
        let limit = self.rule.limit;
        recent.max(limit.over(60)).max(self.usual).min(limit.over(10).max(self.usual.min(limit.over(4))))
    }

    /// How long the last of so much has to wait at least, where that is too long.
    fn too_late(&self, needed: Amount, patience: Instant, now: Instant) -> Option<Duration> {
        let known = self.known.as_ref();
        let known = known.filter(|known| !self.freed && now.saturating_duration_since(known.at) < FRESH)?;
        let lacks = needed.minus(self.stock);
        let requests = self.wait_for(known, lacks.requests, self.rule.limit.requests, |amount| amount.requests);
        let tokens = self.wait_for(known, lacks.tokens, self.rule.limit.tokens, |amount| amount.tokens);
        let wait = requests.max(tokens).saturating_sub(now.saturating_duration_since(known.at));
        (now + wait > patience).then_some(wait)
    }

    /// From when the database spoke on: each further whole limit takes a window.
    fn wait_for(&self, known: &Known, lacks: u64, limit: u64, of: impl Fn(Amount) -> u64) -> Duration {
        if lacks == 0 || limit == 0 {
            return Duration::ZERO;
        }
        let windows = (lacks - 1) / limit;
        let rest = (lacks - windows * limit).saturating_sub(of(known.soon));
        let at = known.releases.partition_point(|(_, sum)| of(*sum) < rest);
        let first = match known.releases.get(at) {
            _ if rest == 0 => Duration::ZERO,
            Some((after, _)) => *after,
            // What others lease comes back within this.
            None => self.rule.window,
        };
        self.rule.window.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)).saturating_add(first)
    }
}
