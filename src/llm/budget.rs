//! What calls may cost: all of them together and each tenant's, on a day and ever, over all workers.
//!
//! A worker leases a part of the budgets from the database and sets each attempt's worst case aside from it in memory: no call
//! waits for a commit while the lease has enough. How much is leased follows how much was set aside of late; what is not
//! needed goes back within a second or so. See `store::budget` for what the database keeps, docs/decisions/0009 for why.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};
use uuid::Uuid;

use super::Error;
use super::journal::{Journal, Page};
use super::lease::{AHEAD, Adjust, IDLE_TICKS, Money, Pace, signed};
use crate::domain::{NanoUsd, Tenant, Timestamp};
use crate::store::{self, Caps, LeaseId, Leased, Scope, Store};

/// What models may cost, in US dollars, over all workers on one database. What is left out is not bounded. A call whose worst
/// case does not fit is not made: `over_budget`, a fallback of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// All tenants together, ever. Raise it to go on. Not bounded by default: nobody but you knows what is too much.
    pub total_usd: Option<f64>,
    /// All tenants together, on one day (UTC).
    pub per_day_usd: Option<f64>,
    /// Each tenant, ever.
    pub tenant_total_usd: Option<f64>,
    /// Each tenant, on one day (UTC).
    pub tenant_per_day_usd: Option<f64>,
    /// Tenants by name with bounds of their own instead of the two above: in the file `[llm.budget.tenants.acme]` with
    /// `total_usd` and `per_day_usd`; what is left out there is not bounded for that tenant.
    pub tenants: BTreeMap<String, TenantOptions>,
    /// How long after its worker's last sign of life a part that it had leased is taken as spent, in milliseconds. 15,000:
    /// longer than a worker is paused for by its machine, short enough to see soon what a crash has cost. It only decides
    /// when that is written down: leased money is never given to another worker.
    pub lease_ms: u64,
}

/// What one tenant's calls may cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantOptions {
    /// Ever, in US dollars.
    pub total_usd: Option<f64>,
    /// On one day (UTC), in US dollars.
    pub per_day_usd: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            total_usd: None,
            per_day_usd: None,
            tenant_total_usd: None,
            tenant_per_day_usd: None,
            tenants: BTreeMap::new(),
            lease_ms: 15_000,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |key, problem: String| Err(Error::Option { key, problem });
        for (key, usd) in [
            ("budget.total_usd", self.total_usd),
            ("budget.per_day_usd", self.per_day_usd),
            ("budget.tenant_total_usd", self.tenant_total_usd),
            ("budget.tenant_per_day_usd", self.tenant_per_day_usd),
        ] {
            if usd.is_some_and(|usd| NanoUsd::from_usd(usd).is_none()) {
                return wrong(key, "must be an amount of US dollars, zero or more".to_owned());
            }
        }
        for (name, of) in &self.tenants {
            if Tenant::parse(name).is_err() {
                return wrong("budget.tenants", format!("has {name:?}, which is no tenant's name"));
            }
            if [of.total_usd, of.per_day_usd].into_iter().flatten().any(|usd| NanoUsd::from_usd(usd).is_none()) {
                return wrong("budget.tenants", format!("has an amount for {name:?} that is not zero or more"));
            }
        }
        if !(1_000..=3_600_000).contains(&self.lease_ms) {
            return wrong("budget.lease_ms", "must be from 1000 to 3600000".to_owned());
        }
        Ok(())
    }

    fn bounds_anything(&self) -> bool {
        let of = |tenant: &TenantOptions| tenant.total_usd.or(tenant.per_day_usd);
        let all = [self.total_usd, self.per_day_usd, self.tenant_total_usd, self.tenant_per_day_usd];
        all.into_iter().chain(self.tenants.values().map(of)).any(|usd| usd.is_some())
    }

    /// In the order of [`Scope::ALL`].
    pub(super) fn caps(&self, tenant: &Tenant) -> Caps {
        let own = self.tenants.get(tenant.as_str());
        let total = own.map_or(self.tenant_total_usd, |own| own.total_usd);
        let per_day = own.map_or(self.tenant_per_day_usd, |own| own.per_day_usd);
        [self.total_usd, self.per_day_usd, total, per_day].map(|usd| usd.and_then(NanoUsd::from_usd))
    }
}

/// What this worker has of the budgets.
pub(super) struct Budget {
    options: Options,
    /// `None`: a worker without a database, which can bound nothing.
    store: Option<Store>,
    /// `None`: nobody can tell what it leaves when it is killed.
    journal: Option<Arc<Journal>>,
    purses: Mutex<HashMap<Tenant, Arc<Purse>>>,
    failing: AtomicBool,
    /// When the leases were prolonged.
    held: Mutex<Option<Instant>>,
}

/// The part of one tenant.
struct Purse {
    tenant: Tenant,
    caps: Caps,
    journal: Option<Arc<Journal>>,
    state: Mutex<State>,
    /// One lease at a time: who waits finds what the one before it brought.
    leasing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    /// The last one is in use where it is not `closed`.
    slices: Vec<Slice>,
    /// What those need that wait for a lease.
    waiting: u64,
    pace: Pace,
    /// When a lease was refused last, and why.
    short: Option<(Instant, i64, Scope, NanoUsd)>,
    /// When the database could not be asked last.
    failed: Option<Instant>,
}

/// What is left of one lease.
struct Slice {
    lease: LeaseId,
    money: Money,
    /// Says what is free of it after a death.
    page: Option<Page>,
    /// Nothing more is set aside from it.
    closed: bool,
}

/// A refusal stands for so long: of a thousand callers over budget, not each asks the database.
const REFUSED: Duration = Duration::from_millis(100);

impl Budget {
    /// `folder` is where what is leased is written down, for those who come after a `kill -9`.
    pub(super) fn new(options: Options, store: Option<Store>, folder: Option<&Path>) -> Self {
        let journal = folder.filter(|_| options.bounds_anything()).and_then(Journal::open).map(Arc::new);
        let (purses, failing, held) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        Self { options, store, journal, purses, failing, held }
    }

    pub(super) fn caps(&self, tenant: &Tenant) -> Caps {
        self.options.caps(tenant)
    }

    /// Sets the worst case of an attempt aside. `None` where nothing bounds it. It waits only where the lease is too small.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        model: &str,
        tenant: &Tenant,
        worst: NanoUsd,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Option<Reservation>, Error> {
        let Some(purse) = self.purse(tenant).filter(|_| worst > NanoUsd::ZERO) else { return Ok(None) };
        let Some(store) = &self.store else { return Err(Error::NoBudget { model: model.to_owned(), source: None }) };
        let day = now.day();
        if let Some(taken) = purse.take(worst, day) {
            return Ok(Some(taken));
        }
        let (waiting, begun) = (Waiting::new(&purse, worst), Instant::now());
        let failed = |source| Error::NoBudget { model: model.to_owned(), source };
        loop {
            let turn = timeout_at(deadline, purse.leasing.clone().lock_owned()).await;
            let turn = turn.map_err(|_| Error::NotBegun)?;
            if let Some(taken) = purse.take(worst, day) {
                return Ok(Some(taken));
            }
            if let Some((scope, left)) = purse.refusal(worst, day) {
                return Err(Error::OverBudget { model: model.to_owned(), worst, scope, left });
            }
            // Of those who wait for a database that is away, not each waits for it in turn.
            if purse.state().failed.is_some_and(|at| at >= begun) {
                return Err(failed(None));
            }
            let until = now.plus(Duration::from_millis(self.options.lease_ms));
            let (purse, store) = (waiting.purse.clone(), store.clone());
            // A task: what is leased must not be lost with the caller.
            let leasing = tokio::spawn(async move {
                let leased = purse.lease(&store, day, worst, until).await;
                drop(turn);
                leased
            });
            match timeout_at(deadline, leasing).await {
                Err(_) => return Err(Error::NotBegun),
                Ok(Err(_)) => return Err(failed(None)),
                Ok(Ok(Err(error))) => return Err(failed(Some(error))),
                // Taken, or looked at again, in the next round.
                Ok(Ok(Ok(()))) => {}
            }
        }
    }

    /// What is done every now and then: leases follow what is needed, are held, and those of dead workers are settled.
    pub(super) async fn keep(&self, now: Timestamp) {
        let Some(store) = &self.store else { return };
        if !self.options.bounds_anything() {
            return;
        }
        let purses: Vec<Arc<Purse>> = self.purses().values().cloned().collect();
        let until = now.plus(Duration::from_millis(self.options.lease_ms));
        let mut done = Ok(());
        for purse in &purses {
            done = done.and(purse.follow(store, now.day(), until).await);
        }
        let third = Duration::from_millis(self.options.lease_ms / 3);
        let due = self.held().is_none_or(|held| held.elapsed() >= third);
        if due {
            self.inherit();
            done = done.and(self.hold(store, &purses, until).await);
            done = done.and(store.settle_abandoned(now).await.map(drop));
        }
        drop(purses);
        self.purses().retain(|_, purse| Arc::strong_count(purse) > 1 || !purse.state().slices.is_empty());
        match done {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("budgets are leased again");
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(error = &error as &dyn std::error::Error, "budgets can't be leased; it is tried again");
                }
            }
        }
    }

    /// Takes what dead workers of this machine had free of their leases, to be given back.
    fn inherit(&self) {
        let Some(journal) = &self.journal else { return };
        for (lease, amount) in journal.orphans() {
            info!(lease = %lease.id, nanodollars = amount.0, "what a dead worker did not spend is given back");
            let purse = self.purse_of(&lease.tenant);
            let money = Money { free: signed(amount), reserved: 0 };
            // First, for the last one is in use.
            purse.state().slices.insert(0, Slice { lease, money, page: None, closed: true });
        }
    }

    async fn hold(&self, store: &Store, purses: &[Arc<Purse>], until: Timestamp) -> Result<(), store::Error> {
        let leases: Vec<(&Arc<Purse>, Uuid)> =
            purses.iter().flat_map(|purse| purse.leases().into_iter().map(move |id| (purse, id))).collect();
        if !leases.is_empty() {
            let ids: Vec<Uuid> = leases.iter().map(|(_, id)| *id).collect();
            let held = store.hold(&ids, until).await?;
            // It was thought dead: what it knows of that lease is said with the next give-back and with each attempt.
            leases.iter().zip(held).filter(|(_, held)| !held).for_each(|((purse, id), _)| purse.close(*id));
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// Gives back what is not set aside.
    pub(super) async fn let_go(&self) {
        let Some(store) = &self.store else { return };
        let purses: Vec<Arc<Purse>> = self.purses().values().cloned().collect();
        for purse in purses {
            if let Err(error) = purse.let_go(store).await {
                warn!(error = &error as &dyn std::error::Error, "a part of a budget was not given back");
            }
        }
    }

    /// `None` where nothing bounds this tenant.
    fn purse(&self, tenant: &Tenant) -> Option<Arc<Purse>> {
        self.options.caps(tenant).iter().any(Option::is_some).then(|| self.purse_of(tenant))
    }

    fn purse_of(&self, tenant: &Tenant) -> Arc<Purse> {
        let mut purses = self.purses();
        let purse = purses.entry(tenant.clone()).or_insert_with(|| {
            let (tenant, caps, journal) = (tenant.clone(), self.options.caps(tenant), self.journal.clone());
            Arc::new(Purse { tenant, caps, journal, state: Mutex::default(), leasing: Arc::default() })
        });
        purse.clone()
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<Tenant, Arc<Purse>>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<Instant> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, worst: NanoUsd, day: i64) -> Option<Reservation> {
        let mut state = self.state();
        let slice = state.current(day)?;
        let lease = slice.change(|money| money.reserve(worst)).then_some(slice.lease.id)?;
        state.pace.used(worst);
        Some(Reservation { purse: self.clone(), lease, worst, settled: false })
    }

    /// Whether so much was refused just now.
    fn refusal(&self, worst: NanoUsd, day: i64) -> Option<(Scope, NanoUsd)> {
        let mut state = self.state();
        let (at, on, scope, left) = state.short?;
        let lacks = state.current(day).map_or(worst, |slice| slice.money.lacks(worst));
        (at.elapsed() < REFUSED && on == day && lacks > left).then_some((scope, left))
    }

    /// Leases what `worst` lacks, and more where more is needed.
    async fn lease(&self, store: &Store, day: i64, worst: NanoUsd, until: Timestamp) -> Result<(), store::Error> {
        let (need, want) = {
            let mut state = self.state();
            let ahead = state.pace.ahead().max(worst.0.saturating_mul(AHEAD)).max(state.waiting);
            let money = state.current(day).map_or_else(Money::default, |slice| slice.money);
            (money.lacks(worst), NanoUsd(ahead))
        };
        self.lease_more(store, day, need, want.max(need), until).await
    }

    async fn lease_more(
        &self,
        store: &Store,
        day: i64,
        need: NanoUsd,
        want: NanoUsd,
        until: Timestamp,
    ) -> Result<(), store::Error> {
        let known = self.state().current(day).map(|slice| slice.lease.clone());
        let fresh = known.is_none();
        let lease = known.unwrap_or_else(|| LeaseId { id: Uuid::now_v7(), tenant: self.tenant.clone(), day });
        let leased = store.lease(&lease, fresh, &self.caps, need, want, until).await;
        let mut state = self.state();
        match &leased {
            Ok(Leased::Granted(amount)) if fresh => {
                state.slices.iter_mut().for_each(|slice| slice.closed = true);
                let page = self.journal.as_ref().and_then(|journal| journal.begin(&lease));
                let mut slice = Slice { lease, money: Money::default(), page, closed: false };
                slice.change(|money| money.free = signed(*amount));
                state.slices.push(slice);
            }
            Ok(Leased::Granted(amount)) => {
                let slice = state.slice(lease.id);
                slice.into_iter().for_each(|slice| slice.change(|money| money.free += signed(*amount)));
            }
            Ok(Leased::Short { scope, left }) => state.short = Some((Instant::now(), day, *scope, *left)),
            // Whether it was granted is not known: the database may count more in this lease than is known here. What is
            // known is given back, the rest counts as spent in the end.
            Ok(Leased::Gone) | Err(_) => state.slice(lease.id).into_iter().for_each(|slice| slice.closed = true),
        }
        if leased.is_err() {
            state.failed = Some(Instant::now());
        }
        leased.map(drop)
    }

    /// Leases ahead of what will be needed, by what was of late, and gives back what will not.
    async fn follow(&self, store: &Store, day: i64, until: Timestamp) -> Result<(), store::Error> {
        let Ok(_turn) = self.leasing.try_lock() else { return Ok(()) };
        let (adjust, rest) = {
            let mut state = self.state();
            state.pace.tick();
            let pace = state.pace;
            // Who asks for nothing any more holds nothing.
            if let Some(slice) = state.current(day).filter(|_| pace.idle >= IDLE_TICKS) {
                slice.closed |= slice.money == Money::default();
            }
            // What is left of others was never lost, and nobody takes from it any more.
            let rest = state.rest(|slice| slice.closed || slice.lease.day != day);
            let adjust = state.current(day).map_or(Adjust::Nothing, |slice| pace.adjust(slice.money.free));
            (adjust, rest)
        };
        for (lease, amount) in rest {
            store.give_back(&lease, amount).await?;
        }
        match adjust {
            Adjust::Nothing => Ok(()),
            Adjust::Lease(want) => self.lease_more(store, day, NanoUsd::ZERO, want, until).await,
            Adjust::GiveBack(amount) => {
                let spared = {
                    let mut state = self.state();
                    let slice = state.current(day);
                    // Others have taken from it meanwhile.
                    slice.and_then(|slice| Some((slice.lease.clone(), slice.change(|money| money.spare(amount))?)))
                };
                match spared {
                    Some((lease, amount)) => store.give_back(&lease, amount).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn let_go(&self, store: &Store) -> Result<(), store::Error> {
        let _turn = self.leasing.lock().await;
        let rest = self.state().rest(|_| true);
        for (lease, amount) in rest {
            store.give_back(&lease, amount).await?;
        }
        Ok(())
    }

    fn leases(&self) -> Vec<Uuid> {
        self.state().slices.iter().filter(|slice| !slice.is_over()).map(|slice| slice.lease.id).collect()
    }

    fn close(&self, lease: Uuid) {
        self.state().slice(lease).into_iter().for_each(|slice| slice.closed = true);
    }
}

impl State {
    fn current(&mut self, day: i64) -> Option<&mut Slice> {
        self.slices.last_mut().filter(|slice| !slice.closed && slice.lease.day == day)
    }

    fn slice(&mut self, lease: Uuid) -> Option<&mut Slice> {
        self.slices.iter_mut().find(|slice| slice.lease.id == lease)
    }

    /// Closes these and takes what is free of them, to be given back; what is over is forgotten.
    fn rest(&mut self, which: impl Fn(&Slice) -> bool) -> Vec<(LeaseId, NanoUsd)> {
        let mut rest = vec![];
        for slice in self.slices.iter_mut().filter(|slice| which(slice)) {
            slice.closed = true;
            // Taken before it is given back: whether that succeeded may stay unknown.
            let spared = slice.change(|money| money.spare(NanoUsd(u64::MAX)));
            rest.extend(spared.map(|amount| (slice.lease.clone(), amount)));
        }
        for over in self.slices.extract_if(.., |slice| slice.is_over()) {
            over.page.iter().for_each(Page::end);
        }
        rest
    }
}

impl Slice {
    /// The one way to change what is left: before anything can be sent for it, and after anything was given, it is written down.
    fn change<T>(&mut self, change: impl FnOnce(&mut Money) -> T) -> T {
        let before = self.money.free;
        let done = change(&mut self.money);
        if self.money.free != before && self.page.as_ref().is_some_and(|page| !page.write(self.money.free)) {
            self.page = None;
        }
        done
    }

    fn is_over(&self) -> bool {
        self.closed && self.money.reserved == 0 && self.money.free <= 0
    }
}

/// Counts a caller that waits for a lease, whichever way that ends.
struct Waiting {
    purse: Arc<Purse>,
    need: u64,
}

impl Waiting {
    fn new(purse: &Arc<Purse>, worst: NanoUsd) -> Self {
        let mut state = purse.state();
        state.waiting = state.waiting.saturating_add(worst.0);
        drop(state);
        Self { purse: purse.clone(), need: worst.0 }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.purse.state();
        state.waiting = state.waiting.saturating_sub(self.need);
    }
}

/// What was set aside for one attempt. Dropped without a word, the attempt was never made.
pub(super) struct Reservation {
    purse: Arc<Purse>,
    lease: Uuid,
    worst: NanoUsd,
    settled: bool,
}

impl Reservation {
    /// What it was taken from.
    pub(super) fn lease(&self) -> Uuid {
        self.lease
    }

    /// So much of it was spent.
    pub(super) fn settle(mut self, used: NanoUsd) {
        self.settled = true;
        self.give(used);
    }

    fn give(&self, used: NanoUsd) {
        let mut state = self.purse.state();
        let slice = state.slice(self.lease);
        slice.into_iter().for_each(|slice| slice.change(|money| money.settle(self.worst, used)));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.give(NanoUsd::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_bounds_of_all_or_its_own() {
        let own = TenantOptions { per_day_usd: Some(0.5), total_usd: None };
        let options = Options {
            total_usd: Some(10.0),
            tenant_total_usd: Some(2.0),
            tenants: [("acme".to_owned(), own)].into(),
            ..Options::default()
        };
        let usd = |cents: u64| Some(NanoUsd(cents * 10_000_000));
        assert_eq!(options.caps(&Tenant::default()), [usd(1_000), None, usd(200), None]);
        assert_eq!(options.caps(&Tenant::parse("acme").unwrap()), [usd(1_000), None, None, usd(50)]);
        for wrong in [-1.0, f64::NAN, 1e300] {
            assert!(Options { per_day_usd: Some(wrong), ..Options::default() }.check().is_err());
        }
        let named = Options { tenants: [("a.b".to_owned(), TenantOptions::default())].into(), ..Options::default() };
        assert!(named.check().unwrap_err().to_string().contains("a.b"));
    }
}
