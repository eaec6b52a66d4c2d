//! The limiter: so many requests and tokens a minute, of each model, by all workers together. Sliding and exact: in no
//! sixty seconds is there one more. See `docs/decisions/0010-limits.md`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{trace, warn};

pub(super) use super::limit_share::Refusal;
use super::limit_share::{Reserved, Rule, Share, Taken};
use crate::store::{Amount, Store};

/// A minute, and half a second: a request may be on its way for so much longer than another, and clocks run at their
/// own pace.
const WINDOW: Duration = Duration::from_millis(60_500);
const LEASE: Duration = Duration::from_secs(5);
/// After this the database counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much by all workers together.
pub(super) const fn rule(limit: Amount) -> Rule {
    Rule { limit, window: WINDOW, lease: LEASE }
}

/// Of one model. Clones are the same one.
#[derive(Clone)]
pub(super) struct Limiter(Arc<Shared>);

struct Shared {
    /// `provider/model`.
    model: String,
    /// How this worker is known to the others.
    worker: String,
    store: Store,
    state: Mutex<State>,
    wake: Notify,
    /// One report at a time.
    reporting: tokio::sync::Mutex<()>,
}

struct State {
    share: Share<Caller>,
    driver: Driver,
    /// The database did not answer last time.
    failing: bool,
}

/// Waits to be told.
type Caller = oneshot::Sender<Result<Permit, Refusal>>;

/// The task that talks with the database while there is something to say.
enum Driver {
    None,
    Busy,
    Asleep { until: Instant },
}

/// How a model's limit is used, as this worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// 0: not limited.
    pub requests_per_minute: u64,
    /// 0: not limited.
    pub tokens_per_minute: u64,
    /// Calls of this worker that wait for it.
    pub waiting: usize,
    /// Requests that this worker may make without asking the others.
    pub leased: u64,
}

/// Leave to begin. Dropped, the next one gets it.
pub(super) struct Permit {
    shared: Arc<Shared>,
    reserved: Option<Reserved>,
}

/// What a request takes. Dropped without a word, it never left this worker and counts for nothing.
pub(super) struct Used {
    shared: Arc<Shared>,
    taken: Taken,
    need: Amount,
    said: bool,
}

impl Limiter {
    /// `None` where nothing is limited. Zero stands for no limit.
    pub(super) fn new(model: &str, requests: u64, tokens: u64, worker: &str, store: &Store) -> Option<Self> {
        let limit = Amount { requests, tokens };
        let share = Share::new(rule(limit), Instant::now());
        let shared = Shared {
            model: model.to_owned(),
            worker: worker.to_owned(),
            store: store.clone(),
            state: Mutex::new(State { share, driver: Driver::None, failing: false }),
            wake: Notify::new(),
            reporting: tokio::sync::Mutex::default(),
        };
        (!limit.is_none()).then(|| Self(Arc::new(shared)))
    }

    /// Of a request with so many tokens at the worst. The error is the most that there can be.
    pub(super) fn need(&self, tokens: u64) -> Result<Amount, u64> {
        let limit = self.0.state().share.limit();
        if limit.tokens > 0 && tokens > limit.tokens {
            return Err(limit.tokens);
        }
        let (requests, tokens) = (u64::from(limit.requests > 0), if limit.tokens > 0 { tokens } else { 0 });
        Ok(Amount { requests, tokens })
    }

    /// Where it can be had at once.
    pub(super) fn take(&self, need: Amount) -> Option<Permit> {
        let now = Instant::now();
        let mut state = self.0.state();
        let reserved = state.share.take(need, now);
        self.0.nudge(&mut state, now);
        reserved.map(|reserved| Permit { shared: self.0.clone(), reserved: Some(reserved) })
    }

    /// Waits behind those who came before, and not in vain: where it can't be had by then, that is said at once.
    pub(super) async fn wait(&self, need: Amount, patience: Instant) -> Result<Permit, Refusal> {
        let now = Instant::now();
        let (tell, told) = oneshot::channel();
        let waiting = {
            let mut state = self.0.state();
            let id = state.share.wait(need, patience, tell, now)?;
            self.0.nudge(&mut state, now);
            Waiting { shared: &self.0, id }
        };
        let told = tokio::time::timeout_at(patience, told).await;
        drop(waiting);
        match told {
            Ok(Ok(told)) => told,
            Err(_) => Err(Refusal::Late),
            Ok(Err(_)) => Err(Refusal::Unknown),
        }
    }

    pub(super) fn limit(&self) -> Limit {
        let state = self.0.state();
        let limit = state.share.limit();
        Limit {
            requests_per_minute: limit.requests,
            tokens_per_minute: limit.tokens,
            waiting: state.share.waiting(),
            leased: state.share.leased(Instant::now()).requests,
        }
    }

    /// Gives back what is leased, for the other workers.
    pub(super) async fn close(&self) {
        let now = Instant::now();
        let has_something = {
            let mut state = self.0.state();
            let leased = state.share.leased(now);
            state.share.close();
            !leased.is_none() || state.share.due(now).is_some()
        };
        if has_something {
            self.0.report().await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees that the database is asked in time.
    fn nudge(self: &Arc<Self>, state: &mut State, now: Instant) {
        match state.driver {
            Driver::Busy => {}
            Driver::Asleep { until } => {
                if state.share.due(now).is_some_and(|due| due < until) {
                    self.wake.notify_one();
                }
            }
            Driver::None => {
                if state.share.due(now).is_some() {
                    state.driver = Driver::Busy;
                    tokio::spawn(Driving { shared: self.clone(), ended: false }.run());
                }
            }
        }
    }

    /// Says what was used, asks for what is needed, and tells those who wait.
    async fn report(self: &Arc<Self>) {
        let _one = self.reporting.lock().await;
        let (report, asked) = self.state().share.ask(Instant::now());
        let answered = timeout(PATIENCE, self.store.limit(&self.model, &self.worker, &report)).await;
        let now = Instant::now();
        let told = {
            let mut state = self.state();
            let failed = !matches!(answered, Ok(Ok(_)));
            if failed && !state.failing {
                let problem = match &answered {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {PATIENCE:?}"),
                };
                warn!(llm.model = self.model, problem, "the database does not tell what is free of the limit");
            }
            state.failing = failed;
            match answered {
                Ok(Ok(turn)) => {
                    trace!(llm.model = self.model, granted = turn.granted.requests, scarce = turn.scarce, "leased");
                    state.share.told(asked, turn, now);
                    state.share.serve(now)
                }
                _ => state.share.failed(asked, now).into_iter().map(|who| (who, Err(Refusal::Unknown))).collect(),
            }
        };
        self.tell(told);
    }

    /// Not under the lock: who is gone gives back what he got.
    fn tell(self: &Arc<Self>, told: Vec<(Caller, Result<Reserved, Refusal>)>) {
        for (who, told) in told {
            let told = told.map(|reserved| Permit { shared: self.clone(), reserved: Some(reserved) });
            let _gone = who.send(told);
        }
    }

    /// Something came back into stock.
    fn serve(self: &Arc<Self>) {
        let now = Instant::now();
        let told = {
            let mut state = self.state();
            let told = state.share.serve(now);
            self.nudge(&mut state, now);
            told
        };
        self.tell(told);
    }
}

/// Runs while there is something to say.
struct Driving {
    shared: Arc<Shared>,
    /// It is not the driver any more.
    ended: bool,
}

impl Driving {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = {
                let mut state = self.shared.state();
                let due = state.share.due(now);
                state.driver = match due {
                    None => Driver::None,
                    Some(until) if until > now => Driver::Asleep { until },
                    Some(_) => Driver::Busy,
                };
                due
            };
            let Some(due) = due else {
                self.ended = true;
                return;
            };
            if due > now {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.shared.wake.notified() => {}
                }
                continue;
            }
            self.shared.report().await;
        }
    }
}

impl Drop for Driving {
    /// Its runtime may end before this worker's other one: who comes next begins anew.
    fn drop(&mut self) {
        if !self.ended {
            self.shared.state().driver = Driver::None;
        }
    }
}

/// A place in the queue.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Those behind may need less.
        let left = self.shared.state().share.leave(self.id);
        if left {
            self.shared.serve();
        }
    }
}

impl Permit {
    /// `None` where it lapsed meanwhile.
    pub(super) fn begin(mut self) -> Option<Used> {
        let reserved = self.reserved.take()?;
        let (now, shared) = (Instant::now(), self.shared.clone());
        let taken = {
            let mut state = shared.state();
            let taken = state.share.begin(reserved, now);
            shared.nudge(&mut state, now);
            taken?
        };
        Some(Used { shared, taken, need: reserved.need, said: false })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.shared.state().share.give_back(reserved);
            self.shared.serve();
        }
    }
}

impl Used {
    /// It was sent, and took so many tokens; all that were set aside, where nobody knows.
    pub(super) fn counts(mut self, tokens: Option<u64>) {
        self.said = true;
        if let Some(tokens) = tokens.filter(|_| self.need.tokens > 0) {
            self.settle(Amount { tokens, ..self.need });
        }
    }

    fn settle(&self, used: Amount) {
        let now = Instant::now();
        let mut state = self.shared.state();
        state.share.settle(self.taken, used, now);
        self.shared.nudge(&mut state, now);
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if !self.said {
            self.settle(Amount::NONE);
        }
    }
}
