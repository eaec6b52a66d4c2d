//! One call: from model to model along the route, from attempt to attempt on each, all within one deadline.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument, debug_span, info};

use super::breaker::{Circuit, Pass};
use super::budget::Reservation;
use super::call::{Answer, Call};
use super::error::Remedy;
use super::http::{self, Bounds, Trace};
use super::limit::{Permit, Refusal, Used};
use super::provider::Target;
use super::{Client, Completion, Error, Failed, Finish, Inner, Prompt, Spent};
use crate::domain::{Attempt, CorrelationId, Counted, NanoUsd, Outcome, Tenant, Timestamp};
use crate::retry::{self, Next};

/// For whom a model is asked, how long that may take and what it may cost.
#[derive(Debug, Clone)]
pub struct Terms {
    pub tenant: Tenant,
    /// Names the call in the log.
    pub correlation_id: CorrelationId,
    /// Of all attempts and pauses together; the configured timeout can only shorten it.
    pub deadline: Instant,
    /// Of all attempts together, counting at its worst what nobody knows.
    pub max_cost: Option<NanoUsd>,
    /// One model of the route, instead of all in order.
    pub model: Option<String>,
    /// Attempts on one model after the first; `None`: as configured.
    pub retries: Option<u32>,
    /// The longest first pause; `None`: as configured.
    pub backoff: Option<Duration>,
    /// Is told the text as it comes.
    pub listener: Option<Listener>,
}

impl Terms {
    pub fn new(tenant: Tenant, correlation_id: CorrelationId, deadline: Instant) -> Self {
        let (max_cost, model, retries, backoff, listener) = (None, None, None, None, None);
        Self { tenant, correlation_id, deadline, max_cost, model, retries, backoff, listener }
    }
}

/// Is told the number of the attempt and the text as it comes. With another number the answer begins anew.
#[derive(Clone)]
pub struct Listener(Arc<Told>);

type Told = dyn Fn(u32, &str) + Send + Sync;

impl Listener {
    /// `told` must not wait: it is called in the middle of the work.
    pub fn new(told: impl Fn(u32, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener(..)")
    }
}

impl Client {
    /// Asks the models of the route until one answers. Each may be asked again where that can help; the next one is asked
    /// where it can't, or where the first has used up its retries. Dropped, it really stops: what runs is cancelled.
    pub async fn ask(&self, prompt: &Prompt, terms: &Terms, now: Timestamp) -> Result<Completion, Failed> {
        let begun = Instant::now();
        let deadline = begun.checked_add(self.0.timeout).map_or(terms.deadline, |most| terms.deadline.min(most));
        let run = Run { client: &self.0, prompt, terms, deadline, begun, now, sums: Mutex::default() };
        let done = Box::pin(run.along_the_route()).await;
        let spent = run.spent();
        let (target, answer) = done.map_err(|error| Failed { error, spent })?;
        Ok(Completion {
            text: answer.text,
            model: answer.model.unwrap_or_else(|| target.model.clone()),
            provider: target.provider,
            tokens: answer.tokens,
            // Whatever is no known reason was turned into an error.
            finish: answer.finish.unwrap_or(Finish::Refused),
            spent,
            time: begun.elapsed(),
        })
    }
}

/// One call while it runs.
struct Run<'a> {
    client: &'a Inner,
    prompt: &'a Prompt,
    terms: &'a Terms,
    deadline: Instant,
    begun: Instant,
    /// When it began.
    now: Timestamp,
    sums: Mutex<Sums>,
}

/// What the attempts of one call come to.
#[derive(Default)]
struct Sums {
    spent: Spent,
    /// The worst that what runs now can cost.
    running: NanoUsd,
}

impl Sums {
    fn left(&self, max: Option<NanoUsd>) -> Option<NanoUsd> {
        let taken = self.spent.most() + self.running;
        max.map(|max| NanoUsd(max.0.saturating_sub(taken.0)))
    }
}

impl<'a> Run<'a> {
    async fn along_the_route(&self) -> Result<(&'a Target, Answer), Error> {
        let mut route = self.models()?;
        let mut made: Option<Error> = None;
        loop {
            let Some((target, rest)) = route.split_first() else { return Err(Error::NotConfigured) };
            let error = match self.by(target, !rest.is_empty()).await {
                Ok(answer) => return Ok((target, answer)),
                Err(error) => error,
            };
            let rest: Vec<&Target> = match error.remedy() {
                Remedy::Never => vec![],
                Remedy::NextProvider => rest.iter().filter(|t| t.provider != target.provider).copied().collect(),
                Remedy::Retry | Remedy::Elsewhere | Remedy::NextModel => rest.to_vec(),
            };
            if let Some(next) = rest.first() {
                info!(llm.model = target.name, llm.next = next.name, %error, "falling over");
            }
            // That a model was not asked must not hide how another one failed.
            let error = match made {
                Some(earlier) if error.outcome().is_none() => earlier,
                _ => error,
            };
            if rest.is_empty() {
                return Err(error);
            }
            made = error.outcome().is_some().then_some(error);
            route = rest;
        }
    }

    fn models(&self) -> Result<Vec<&'a Target>, Error> {
        let route = &self.client.route;
        let Some(wanted) = &self.terms.model else { return Ok(route.iter().collect()) };
        match route.iter().find(|target| target.name == *wanted) {
            Some(target) => Ok(vec![target]),
            None => {
                let names: Vec<&str> = route.iter().map(|target| target.name.as_str()).collect();
                Err(Error::NotInRoute { model: wanted.chars().take(100).collect(), route: names.join(", ") })
            }
        }
    }

    /// Attempts on one model.
    async fn by(&self, target: &Target, has_next: bool) -> Result<Answer, Error> {
        let call = self.client.call(target, self.prompt)?;
        let mut policy = self.client.retry;
        policy.retries = self.terms.retries.unwrap_or(policy.retries);
        policy.backoff = self.terms.backoff.unwrap_or(policy.backoff);
        let worst = self.worst(target, &call)?;
        let next = |error: &Error, made: u32| {
            // What can't be paid for is not tried again.
            if self.left().is_some_and(|left| worst > left) {
                return Next::Stop;
            }
            let opens_in = target.breaker.opens_in(Instant::now());
            let after = error.retry_after().max(opens_in);
            match error.remedy() {
                // Nobody waits for long, or for an open circuit, where somebody else could answer.
                Remedy::Elsewhere if has_next => Next::Stop,
                Remedy::Retry if has_next && (opens_in.is_some() || after > Some(policy.longest)) => Next::Stop,
                // Who comes to an open circuit is told so at once; who helped to open it waits for the probe.
                Remedy::Elsewhere if made == 0 && matches!(error, Error::CircuitOpen { .. }) => Next::Stop,
                Remedy::Retry | Remedy::Elsewhere => Next::Again { after },
                Remedy::NextModel | Remedy::NextProvider | Remedy::Never => Next::Stop,
            }
        };
        // Nobody waits for long where somebody else could answer.
        let patience = if has_next { policy.longest } else { Duration::MAX };
        retry::run(&policy, self.deadline, |_| self.hedged(target, &call, patience), next).await
    }

    /// One attempt; where it takes longer than nearly all before it and the configuration allows it, a second one beside
    /// it. The first good answer counts, the other attempt is cancelled.
    async fn hedged(&self, target: &Target, call: &Call<'_>, patience: Duration) -> Result<Answer, Error> {
        let usual = match &self.terms.listener {
            // Two texts at once would be none.
            None if self.client.hedge => target.pace.p95(),
            _ => None,
        };
        let mut first = pin!(self.attempt(target, call, patience));
        let Some(usual) = usual else { return first.await };
        tokio::select! {
            biased;
            done = &mut first => return done,
            () = sleep(usual) => {}
        }
        if target.breaker.circuit(Instant::now()) != Circuit::Closed {
            return first.await;
        }
        // Nor does it wait for the limit.
        let mut second = pin!(self.attempt(target, call, Duration::ZERO));
        tokio::select! {
            biased;
            done = &mut first => match done {
                Ok(answer) => Ok(answer),
                Err(error) => second.await.map_err(|_| error),
            },
            done = &mut second => match done {
                Ok(answer) => Ok(answer),
                Err(_) => first.await,
            },
        }
    }

    /// One attempt with everything that belongs to it: what it needs beforehand, the request, its true cost, its row. However
    /// it ends, dropped in the middle too, its row says so.
    async fn attempt(&self, target: &Target, call: &Call<'_>, patience: Duration) -> Result<Answer, Error> {
        let (_turn, pass, mut running) = self.ready(target, call, patience).await?;
        let answered = self.exchange(target, call, &mut running).await;
        report(pass, target, &answered, running.begun.elapsed(), self.client.pace.idle);
        running.bill = answered.as_ref().ok().map(|answer| self.bill(target, answer, running.worst));
        let judged = match answered {
            Ok(answer) => judge(target, call, answer).await,
            Err(error) => Err(error),
        };
        running.end(&judged);
        judged
    }

    /// All that an attempt needs, in this order: its turn, room in the model's limit, money, leave from the breaker. What
    /// counts from the moment of sending is begun last.
    async fn ready<'r>(
        &'r self,
        target: &'r Target,
        call: &Call<'_>,
        patience: Duration,
    ) -> Result<(SemaphorePermit<'a>, Pass<'r>, Running<'r, 'a>), Error> {
        loop {
            self.affords(&self.sums(), target, self.worst(target, call)?)?;
            let (turn, permit) = self.admit(target, call, patience).await?;
            let (worst, at) = (self.worst(target, call)?, self.timestamp());
            let reserving = self.client.budget.reserve(&target.name, &self.terms.tenant, worst, at, self.deadline);
            let reservation = reserving.await?;
            let pass = target.breaker.pass(Instant::now());
            let pass = pass.map_err(|after| Error::CircuitOpen { model: target.name.clone(), after })?;
            let used = match permit.map(Permit::begin) {
                None => None,
                Some(Some(used)) => Some(used),
                // It lapsed, for turn or money were long in coming.
                Some(None) => continue,
            };
            return Ok((turn, pass, self.begin(target, worst, reservation, used, at)?));
        }
    }

    /// A turn, and room in the model's limit. Who waits for the limit has no turn meanwhile: it is for calls of others.
    async fn admit(
        &self,
        target: &Target,
        call: &Call<'_>,
        patience: Duration,
    ) -> Result<(SemaphorePermit<'a>, Option<Permit>), Error> {
        let turn = self.turn().await?;
        let Some(limiter) = &target.limiter else { return Ok((turn, None)) };
        let (model, tokens) = (|| target.name.clone(), call.most_tokens());
        let need = limiter.need(tokens).map_err(|limit| Error::OverLimit { model: model(), tokens, limit })?;
        if let Some(permit) = limiter.take(need) {
            return Ok((turn, Some(permit)));
        }
        drop(turn);
        // Who may not be asked anyway is not waited for.
        if let Some(after) = target.breaker.opens_in(Instant::now()) {
            return Err(Error::CircuitOpen { model: model(), after });
        }
        let until = Instant::now().checked_add(patience).map_or(self.deadline, |until| until.min(self.deadline));
        let permit = limiter.wait(need, until).await.map_err(|refusal| match refusal {
            Refusal::Full { after } => Error::Limited { model: model(), after: Some(after) },
            Refusal::Late => Error::Limited { model: model(), after: None },
            Refusal::Unknown => Error::LimitUnknown { model: model() },
        })?;
        Ok((self.turn().await?, Some(permit)))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'a>, Error> {
        match timeout_at(self.deadline, self.client.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::NotBegun),
        }
    }

    async fn exchange(&self, target: &Target, call: &Call<'_>, running: &mut Running<'_, '_>) -> Result<Answer, Error> {
        let number = running.number;
        let listener = self.terms.listener.as_ref();
        let tell = move |text: &str| {
            if let Some(Listener(told)) = listener {
                told(number, text);
            }
        };
        let told: Option<http::Told<'_>> = listener.is_some().then_some(&tell);
        let bounds = Bounds { deadline: self.deadline, ..self.client.pace };
        let asking = debug_span!("model", model = target.name);
        http::attempt(target, call, bounds, told, &mut running.trace).instrument(asking).await
    }

    /// Whether the call's own bound allows it.
    fn affords(&self, sums: &Sums, target: &Target, worst: NanoUsd) -> Result<(), Error> {
        match sums.left(self.terms.max_cost).filter(|left| worst > *left) {
            Some(left) => Err(Error::OverCost { model: target.name.clone(), worst, left }),
            None => Ok(()),
        }
    }

    /// Sets the worst case aside, where the call's own bound allows it. `reservation` is what is set aside of the budgets:
    /// it counts on the day of `at`, as its row in the ledger does.
    fn begin<'r>(
        &'r self,
        target: &'r Target,
        worst: NanoUsd,
        reservation: Option<Reservation>,
        used: Option<Used>,
        at: Timestamp,
    ) -> Result<Running<'r, 'a>, Error> {
        let mut sums = self.sums();
        self.affords(&sums, target, worst)?;
        sums.running += worst;
        sums.spent.attempts += 1;
        let number = sums.spent.attempts;
        let (begun, trace) = (Instant::now(), Trace::default());
        Ok(Running { run: self, target, worst, reservation, used, number, at, begun, trace, bill: None, ended: false })
    }

    /// The most that it can cost now.
    fn worst(&self, target: &Target, call: &Call<'_>) -> Result<NanoUsd, Error> {
        self.client.worst(target, call, self.timestamp())
    }

    /// The true cost, and what was counted. Where the model that answered can't be priced: the worst.
    fn bill(&self, target: &Target, answer: &Answer, worst: NanoUsd) -> Bill {
        let (model, tokens) = (answer.model.as_deref(), &answer.tokens);
        let rates = self.client.prices.rates(target.provider, &target.model, model, tokens.input, self.timestamp());
        Bill { cost: rates.map_or(worst, |rates| rates.cost(tokens)), counted: tokens.counted() }
    }

    fn timestamp(&self) -> Timestamp {
        let passed = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.now.0.saturating_add(passed))
    }

    /// Of what the call may cost.
    fn left(&self) -> Option<NanoUsd> {
        self.sums().left(self.terms.max_cost)
    }

    fn spent(&self) -> Spent {
        self.sums().spent
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bill {
    cost: NanoUsd,
    counted: Counted,
}

/// One attempt while it runs. Dropped before its end, it was cancelled.
struct Running<'r, 'a> {
    run: &'r Run<'a>,
    target: &'r Target,
    /// What was set aside for it.
    worst: NanoUsd,
    /// Of the budgets.
    reservation: Option<Reservation>,
    /// Of the model's limit.
    used: Option<Used>,
    /// The how manieth of its call, from 1.
    number: u32,
    at: Timestamp,
    begun: Instant,
    trace: Trace,
    /// Once it was answered.
    bill: Option<Bill>,
    ended: bool,
}

impl Running<'_, '_> {
    fn end(mut self, judged: &Result<Answer, Error>) {
        let outcome = match judged {
            Ok(answer) if answer.finish == Ok(Finish::Length) => Outcome::Truncated,
            Ok(answer) if answer.finish == Ok(Finish::Refused) => Outcome::Refused,
            Ok(_) => Outcome::Done,
            Err(error) => error.outcome().unwrap_or(Outcome::Cancelled),
        };
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        self.ended = true;
        // What was never sent, or was turned away, is not billed. What was taken and did not end well may be.
        let free = !self.trace.accepted && (!self.trace.sent || self.trace.turned_away);
        let free = free.then_some(Bill { cost: NanoUsd::ZERO, counted: Counted::default() });
        let (cost, counted) = match self.bill.take().or(free) {
            Some(bill) => (Some(bill.cost), bill.counted),
            None => (None, Counted::default()),
        };
        // What was not sent counts for nothing, and that is what dropping it says.
        if let Some(used) = self.used.take().filter(|_| self.trace.sent) {
            used.counts(counted.input.zip(counted.output).map(|(input, output)| input.saturating_add(output)));
        }
        let mut sums = self.run.sums();
        sums.running = NanoUsd(sums.running.0.saturating_sub(self.worst.0));
        match cost {
            Some(cost) => sums.spent.cost += cost,
            None => sums.spent.unknown += self.worst,
        }
        sums.spent.input_tokens = sums.spent.input_tokens.saturating_add(counted.input.unwrap_or(0));
        sums.spent.output_tokens = sums.spent.output_tokens.saturating_add(counted.output.unwrap_or(0));
        drop(sums);
        let reservation = self.reservation.take();
        let lease = reservation.as_ref().map(Reservation::lease);
        if let Some(reservation) = reservation {
            reservation.settle(cost.unwrap_or(self.worst));
        }
        let attempt = Attempt {
            at: self.at,
            tenant: self.run.terms.tenant.clone(),
            correlation_id: self.run.terms.correlation_id.clone(),
            provider: self.target.provider.as_str().to_owned(),
            model: self.target.model.clone(),
            outcome,
            sent: self.trace.sent,
            counted,
            cost,
            worst: self.worst,
            duration: self.begun.elapsed(),
            first_token: self.trace.first_token,
        };
        self.run.client.note(attempt, lease);
    }
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        if !self.ended {
            self.close(Outcome::Cancelled);
        }
    }
}

/// What an attempt says about its provider's health. A caller's own short deadline says nothing of it.
fn report(pass: Pass<'_>, target: &Target, answered: &Result<Answer, Error>, took: Duration, patience: Duration) {
    match answered {
        Ok(_) => {
            target.pace.took(took);
            pass.succeeded();
        }
        Err(Error::Timeout { .. }) if took < patience => {}
        Err(error) if error.is_illness() => pass.failed(Instant::now()),
        Err(Error::Status { .. }) => pass.succeeded(),
        Err(_) => {}
    }
}

/// An answer that can be used for what it was asked for. A cut or refused one need not fit: it says itself that it is none.
async fn judge(target: &Target, call: &Call<'_>, mut answer: Answer) -> Result<Answer, Error> {
    let model = || target.name.clone();
    match (&answer.finish, call.schema) {
        (Err(word), _) => Err(Error::UnknownFinish { model: model(), word: word.clone() }),
        (Ok(Finish::Stop), Some(schema)) => {
            // Answer and schema are strangers' both.
            let (schema, text) = (schema.clone(), std::mem::take(&mut answer.text));
            let checked = tokio::task::spawn_blocking(move || (schema.check(&text), text)).await;
            let (fits, text) = checked.unwrap_or_else(|_| (Err("it could not be checked".to_owned()), String::new()));
            fits.map_err(|problem| Error::Mismatch { model: model(), problem })?;
            Ok(Answer { text, ..answer })
        }
        (Ok(_), _) => Ok(answer),
    }
}
