//! One execution for many who ask for the same at once: in this process always, across workers where a model would be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Name, Pipeline};
use crate::cache::{self, Flight, Found, Joined};
use crate::domain::record::{Digest, EntryKind};
use crate::domain::{Answer, CorrelationId, NanoUsd, Request, Timestamp, Usage};
use crate::store::{Lead, Store};

/// How often the one that leads says that it is still at it.
const BEAT: Duration = Duration::from_millis(250);
/// A lead whose beat stands still for so long has died: another takes over within two seconds of its death.
const SILENCE: Duration = Duration::from_millis(1500);
/// How often a worker that follows looks.
const LOOK: Duration = Duration::from_millis(40);
/// Who can't ask the database for the lead by then goes on without: work done twice is better than none.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a flight came to, for those who waited in this process.
#[derive(Clone)]
pub(super) enum Landed {
    /// It is in the cache under the key that they ask for.
    Stored,
    /// A near task's answer did.
    Near(Found),
    /// It may not be given to anybody who comes later.
    Made(Arc<Made>),
}

/// An answer that was not stored, and the bounds that it was made within.
pub(super) struct Made {
    answer: Answer,
    max_cost: Option<NanoUsd>,
    /// The time of the one that led was over: another may have more.
    out_of_time: bool,
}

/// What a request does that the exact tier could not answer at first.
pub(super) enum Way {
    /// The answer came meanwhile.
    Known(Found),
    /// It was made for an equal request.
    Shared(Box<Answer>),
    /// The work is this request's. `None`: for itself alone.
    Leads(Option<Flight<Landed>>),
}

impl Made {
    pub(super) fn new(answer: &Answer, request: &Request, deadline: Instant) -> Self {
        let out_of_time = Instant::now() >= deadline;
        Self { answer: answer.clone(), max_cost: request.max_cost, out_of_time }
    }

    /// What a request that waited is told. A failure only where it would have fared no better by itself.
    fn for_another(&self, request: &Request) -> Option<Answer> {
        let same = self.answer.success || (self.max_cost == request.max_cost && !self.out_of_time);
        same.then(|| {
            let free = |answer: Answer| Answer {
                cost: NanoUsd::ZERO,
                unknown: NanoUsd::ZERO,
                usage: Usage::default(),
                ..answer
            };
            let mut answer = free(self.answer.clone());
            answer.parts.iter_mut().for_each(|part| part.answer = free(part.answer.clone()));
            answer.notes = vec!["this was made for an equal request that came a moment earlier".to_owned()];
            answer
        })
    }
}

impl Pipeline {
    /// Looks into the exact tier and waits for whoever makes this answer already. A follower waits as long as its own
    /// deadline lets it; what it finds is then a hit like any other.
    pub(super) async fn join(&self, request: &Request, name: &Name, now: Timestamp) -> Way {
        let begun = Instant::now();
        let known = || {
            let now = now.plus(begun.elapsed());
            self.cache.known_if(&name.key, now, |answer| self.may_serve(request, name, answer))
        };
        loop {
            if let Some(found) = known() {
                return Way::Known(found);
            }
            // A memory that may not be served from can't hand over what the one that leads puts there.
            if !self.cache.options().enabled || !self.cache.is_in_step() {
                return Way::Leads(None);
            }
            let follower = match self.flights.join(name.key.exact) {
                Joined::Leads(flight) => {
                    // An earlier flight may have landed between the two.
                    if let Some(found) = known() {
                        return Way::Known(found);
                    }
                    if self.cache.is_loading()
                        && let Some(found) = self.put_elsewhere(request, name, now).await
                    {
                        flight.land(Landed::Stored);
                        return Way::Known(found);
                    }
                    self.cache.missed(&name.key);
                    return Way::Leads(Some(flight));
                }
                Joined::Follows(follower) => follower,
            };
            match follower.outcome().await {
                Some(Landed::Near(found))
                    if self.cache.still_serves(&found, now.plus(begun.elapsed()))
                        && self.may_serve(request, name, &found.answer) =>
                {
                    return Way::Known(found);
                }
                Some(Landed::Made(made)) => {
                    if let Some(answer) = made.for_another(request) {
                        return Way::Shared(Box::new(answer));
                    }
                }
                // Stored: the next look finds it. None: it is somebody else's turn, perhaps this one's.
                Some(Landed::Stored | Landed::Near(_)) | None => {}
            }
        }
    }

    /// Before a model is asked: the lead among all workers, or the answer that the one who had it put. `Ok(None)` where
    /// there is no company, or the database can't be asked.
    pub(super) async fn lead(&self, request: &Request, name: &Name, now: Timestamp) -> Result<Option<Leading>, Found> {
        let is_shared = self.company.get().is_some_and(|others| others());
        if !is_shared || !self.coordinator.agent().llm().is_configured() {
            return Ok(None);
        }
        let begun = Instant::now();
        let clock = || now.plus(begun.elapsed());
        let (exact, holder) = (name.key.exact, &request.correlation_id);
        let mut leading = Leading::begin(&self.store, exact, holder, now);
        let mut seen = None;
        loop {
            match timeout(PATIENCE, self.store.lead(&exact, holder, seen, clock())).await {
                Ok(Ok(Lead::Won)) => {
                    leading.keep_on();
                    // Whoever had it before may have come to its end just now.
                    return match self.put_elsewhere(request, name, clock()).await {
                        Some(found) => Err(found),
                        None => Ok(Some(leading)),
                    };
                }
                Ok(Ok(Lead::Held { beat })) => match self.follow(&exact, beat).await {
                    Some(silent) => seen = Some(silent),
                    None => match self.put_elsewhere(request, name, clock()).await {
                        Some(found) => return Err(found),
                        None => seen = None,
                    },
                },
                Ok(Err(error)) => {
                    warn!(%error, "the lead can't be asked for; an equal request elsewhere may be done as well");
                    return Ok(None);
                }
                Err(_) => {
                    warn!("the database gives no lead in time; an equal request elsewhere may be done as well");
                    return Ok(None);
                }
            }
        }
    }

    /// Waits while another worker is at it: `None` when it has come to its end, its last beat where it has died. What the
    /// database can't say counts as silence.
    async fn follow(&self, exact: &Digest, mut beat: i64) -> Option<i64> {
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            tokio::time::sleep(LOOK).await;
            match timeout(PATIENCE, self.store.lead_of(exact)).await {
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(now))) if now != beat => (beat, heard) = (now, Instant::now()),
                _ => {}
            }
        }
        debug!("who made an answer elsewhere is silent; this worker takes over");
        Some(beat)
    }

    /// An answer that is in the database and not in memory: another worker put it just now, or this one has only begun.
    async fn put_elsewhere(&self, request: &Request, name: &Name, now: Timestamp) -> Option<Found> {
        let key = &name.key;
        match self.store.entry_of(&key.tenant, EntryKind::Request, &key.exact, now).await {
            Ok(entry) => self.cache.apply(cache::Change::Put(Arc::new(entry?))),
            Err(error) => {
                warn!(%error, "another worker's answer can't be read");
                return None;
            }
        }
        self.cache.known_if(key, now, |answer| self.may_serve(request, name, answer))
    }
}

/// The lead among all workers. Dropping it gives it up.
pub(super) struct Leading {
    store: Store,
    exact: Digest,
    holder: CorrelationId,
    from: (Timestamp, Instant),
    beating: Option<JoinHandle<()>>,
}

impl Leading {
    fn begin(store: &Store, exact: Digest, holder: &CorrelationId, now: Timestamp) -> Self {
        Self { store: store.clone(), exact, holder: holder.clone(), from: (now, Instant::now()), beating: None }
    }

    fn keep_on(&mut self) {
        let (store, exact, holder) = (self.store.clone(), self.exact, self.holder.clone());
        let (now, since) = self.from;
        self.beating = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                match store.beat(&exact, &holder, now.plus(since.elapsed())).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => warn!(%error, "the other workers can't see that an answer is still being made"),
                }
            }
        }));
    }

    /// Gives it up once what was put is in the database, where the others look for it. Nobody here waits for that.
    pub(super) fn land(self, pipeline: &Pipeline) {
        let recorder = pipeline.recorder.clone();
        tokio::spawn(async move {
            if timeout(SILENCE, recorder.flush()).await.is_err() {
                debug!("an answer is not written down yet; equal requests elsewhere go on without it");
            }
            drop(self);
        });
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
        }
        let (store, exact, holder) = (self.store.clone(), self.exact, self.holder.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.land(&exact, &holder).await {
                    debug!(%error, "a lead could not be given up; the others see its silence");
                }
            });
        }
    }
}
