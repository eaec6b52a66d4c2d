//! The engine: takes what is ready, does it, commits it together with what comes next. One task writes, so that whatever ends
//! while it waits for the database shares the next commit.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::policy::{self, Failure};
use super::step::Given;
use super::{Definition, Error, Shared};
use crate::domain::workflow::FailureKind;
use crate::store;
use crate::store::workflows::{Advanced, Batch, Claimed, End, Ended, Held, Start, Started};
use crate::telemetry::meters;

/// What the writing task is told.
pub(super) enum Word {
    Start(Box<Start>, oneshot::Sender<Result<Started, Error>>),
    Ended(Ended),
}

/// The steps that this worker has.
#[derive(Default)]
pub(super) struct Hands(Mutex<HashMap<Held, Hand>>);

struct Hand {
    stop: CancellationToken,
    since: Instant,
}

impl Hands {
    fn lock(&self) -> MutexGuard<'_, HashMap<Held, Hand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Words in one transaction, at most.
const MOST: usize = 512;
/// After this a transaction counts as failed. Above SQLite's own wait for another process.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two tries where the database is away.
const AWAY: Duration = Duration::from_millis(200);

/// Writes until the end: `stop` is for when nothing is left to do.
pub(super) async fn write(shared: Shared, mut words: mpsc::UnboundedReceiver<Word>) {
    let (mut starts, mut ended) = (vec![], vec![]);
    let mut failing = false;
    loop {
        if starts.is_empty() && ended.is_empty() {
            tokio::select! {
                word = words.recv() => match word {
                    Some(word) => sort(word, &mut starts, &mut ended),
                    None => return,
                },
                () = shared.wake.notified() => {}
                () = shared.finished.cancelled() => return,
            }
        }
        while starts.len() + ended.len() < MOST
            && let Ok(word) = words.try_recv()
        {
            sort(word, &mut starts, &mut ended);
        }
        // After a stall the lease has lapsed: what is claimed under it would be taken away at once.
        if shared.since_beat() > shared.options.lease() / 2 {
            beat(&shared).await;
        }
        match advance(&shared, &starts, &ended).await {
            Ok(done) => {
                failing = false;
                settle(&shared, done, std::mem::take(&mut starts), std::mem::take(&mut ended));
            }
            Err(problem) if problem.is_refusal() && starts.len() + ended.len() > 1 => {
                // One bad row must not keep the others from the database.
                for start in std::mem::take(&mut starts) {
                    one_by_one(&shared, vec![start], vec![]).await;
                }
                for end in std::mem::take(&mut ended) {
                    one_by_one(&shared, vec![], vec![end]).await;
                }
            }
            Err(problem) if problem.is_refusal() => refuse(&shared, problem, &mut starts, &mut ended),
            Err(problem) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(
                        error = &problem as &dyn std::error::Error,
                        "workflows can't be carried on; it is tried again"
                    );
                }
                // Who starts one is told; what has ended here is kept until it is written.
                let problem = std::sync::Arc::new(problem);
                for (_, told) in starts.drain(..) {
                    let _gone = told.send(Err(Error::Unavailable(problem.clone())));
                }
                if shared.finished.is_cancelled() {
                    return;
                }
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

type Starting = (Start, oneshot::Sender<Result<Started, Error>>);

fn sort(word: Word, starts: &mut Vec<Starting>, ended: &mut Vec<Ended>) {
    match word {
        Word::Start(start, told) => starts.push((*start, told)),
        Word::Ended(end) => ended.push(end),
    }
}

async fn advance(shared: &Shared, starts: &[Starting], ended: &[Ended]) -> Result<Advanced, store::Error> {
    let starts: Vec<Start> = starts.iter().map(|(start, _)| start.clone()).collect();
    // What has ended makes room.
    let taken = shared.hands.len().saturating_sub(ended.len());
    let claim = match shared.stopping.is_cancelled() {
        true => 0,
        false => shared.options.max_concurrent.saturating_sub(taken),
    };
    let batch = Batch { worker: &shared.worker, starts: &starts, ended, claim };
    let action = "carry workflows on";
    match timeout(LIMIT, shared.store.advance(&batch)).await {
        Ok(done) => done,
        Err(_) => Err(store::Error::Timeout { action, limit: LIMIT }),
    }
}

async fn one_by_one(shared: &Shared, mut starts: Vec<Starting>, mut ended: Vec<Ended>) {
    match advance(shared, &starts, &ended).await {
        Ok(done) => settle(shared, done, starts, ended),
        Err(problem) if problem.is_refusal() => refuse(shared, problem, &mut starts, &mut ended),
        // The database went away in between: the next round keeps on trying.
        Err(_) => {
            for start in starts {
                let _closed = shared.words.send(Word::Start(Box::new(start.0), start.1));
            }
            for end in ended {
                let _closed = shared.words.send(Word::Ended(end));
            }
        }
    }
}

/// The database works and does not take this. A step whose end can't be written has failed.
fn refuse(shared: &Shared, problem: store::Error, starts: &mut Vec<Starting>, ended: &mut Vec<Ended>) {
    error!(error = &problem as &dyn std::error::Error, "the database refused a workflow or the end of a step");
    let problem = std::sync::Arc::new(problem);
    for (_, told) in starts.drain(..) {
        let _gone = told.send(Err(Error::Unavailable(problem.clone())));
    }
    for end in ended.drain(..) {
        match end.end {
            End::Completed(_) => {
                let message = "the database refused its output".to_owned();
                let failed = Ended { end: End::Failed { kind: FailureKind::BadOutput, message }, ..end };
                let _closed = shared.words.send(Word::Ended(failed));
            }
            _ => drop(shared.hands.lock().remove(&held(&end))),
        }
    }
}

/// After the commit: who waits is told, and what was claimed is begun.
fn settle(shared: &Shared, done: Advanced, starts: Vec<Starting>, ended: Vec<Ended>) {
    for ((start, told), outcome) in starts.into_iter().zip(&done.started) {
        if let Started::New(number) = outcome {
            let Start { id, tenant, graph, options, .. } = start;
            let definition = Definition { id, tenant, options, graph };
            shared.definitions.insert(*number, definition.into());
        }
        let _gone = told.send(Ok(*outcome));
    }
    let mut pause: Option<Duration> = None;
    for (end, accepted) in ended.iter().zip(&done.accepted) {
        shared.hands.lock().remove(&held(end));
        if *accepted {
            count(end);
        } else {
            debug!(
                workflow.number = end.workflow,
                step.position = end.position,
                "a step was not this worker's any more"
            );
        }
        if let End::Postponed { pause: own, .. } = end.end {
            pause = Some(pause.map_or(own, |least| least.min(own)));
        }
    }
    if let Some(pause) = pause {
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause + Duration::from_millis(1)).await;
            shared.due.notify_one();
        });
    }
    for claimed in &done.claimed {
        begin(shared, *claimed);
    }
    if done.announced {
        shared.announced.notify_one();
    }
    if !done.over.is_empty() {
        shared.over.send_modify(|count| *count += 1);
    }
    // More than was asked for is left: there may be room elsewhere.
    if done.more {
        shared.news.send_modify(|count| *count += 1);
        if shared.hands.len() < shared.options.max_concurrent && !done.claimed.is_empty() {
            shared.wake.notify_one();
        }
    }
}

fn count(end: &Ended) {
    let outcome = match end.end {
        End::Completed(_) => "completed",
        End::Postponed { .. } => "retried",
        End::Failed { .. } => "failed",
        End::GivenBack => return,
    };
    if let Some(node) = end.graph.node(end.position).filter(|_| !end.graph.is_group(end.position)) {
        meters().step(node.step.kind(), outcome, end.took);
    }
}

fn held(end: &Ended) -> Held {
    Held { workflow: end.workflow, position: end.position, epoch: end.epoch }
}

fn begin(shared: &Shared, claimed: Claimed) {
    let Claimed { workflow, position, epoch, .. } = claimed;
    let held = Held { workflow, position, epoch };
    let stop = CancellationToken::new();
    shared.hands.lock().insert(held, Hand { stop: stop.clone(), since: Instant::now() });
    let shared = shared.clone();
    let workshop = shared.workshop.clone();
    workshop.spawn(async move {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            // A fault outside the step itself: by the database the step is this worker's, so it is given back soon.
            ended = AssertUnwindSafe(work(&shared, claimed)).catch_unwind() => ended.unwrap_or(None),
        };
        match ended {
            Some(ended) => drop(shared.words.send(Word::Ended(ended))),
            // It was taken away, or its workflow is no more.
            None => {
                shared.hands.lock().remove(&held);
                shared.wake.notify_one();
            }
        }
    });
}

/// One attempt at a step. `None`: there is no such workflow.
async fn work(shared: &Shared, claimed: Claimed) -> Option<Ended> {
    let Claimed { workflow, position, epoch, attempts, losses } = claimed;
    let definition = definition(shared, workflow).await?;
    let graph = definition.graph.clone();
    let begun = Instant::now();
    let ended = |end, input_bytes| Ended { workflow, position, epoch, graph, end, took: begun.elapsed(), input_bytes };
    let node = definition.graph.node(position)?;
    if definition.graph.is_group(position) {
        return Some(ended(End::Completed(None), 0));
    }
    if losses >= shared.options.max_losses {
        let message = format!("{losses} workers were lost that were at it");
        return Some(ended(End::Failed { kind: FailureKind::WorkerLost, message }, 0));
    }
    let wanted = definition.graph.inputs(position);
    let outputs = match wanted.is_empty() {
        true => vec![],
        false => patiently("read a step's inputs", || shared.store.workflow_outputs(workflow, &wanted)).await,
    };
    let inputs = outputs.into_iter().filter_map(|(at, output)| {
        let id = definition.graph.node(at)?.task.id.clone();
        Some((id, output))
    });
    let inputs: std::collections::BTreeMap<_, _> = inputs.collect();
    let input_bytes = inputs.values().map(|output| output.len() as u64).sum();
    let limit = policy::timeout(&definition.options, &node.policy);
    let given = Given {
        tenant: definition.tenant.clone(),
        key: definition.key(position, &node.task.id),
        task: node.task.id.clone(),
        description: node.task.description.clone(),
        inputs,
        attempt: attempts + 1,
        timeout: limit,
    };
    let run = AssertUnwindSafe(shared.runner.run(&node.step, given, &shared.options)).catch_unwind();
    let outcome = match timeout(limit, run).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::new(FailureKind::Panicked, "the step broke; the worker's log has more")),
        Err(_) => Err(Failure::new(FailureKind::TimedOut, format!("not done within {} ms", limit.as_millis()))),
    };
    let end = match outcome {
        Ok(output) => End::Completed(Some(output)),
        Err(failure) => {
            info!(workflow.id = %definition.id, task = %node.task.id, kind = failure.kind.as_str(), "a step failed");
            policy::decide(failure, attempts, &definition.options, &node.policy, &mut rand::rng())
        }
    };
    Some(ended(end, input_bytes))
}

pub(super) async fn definition(shared: &Shared, workflow: i64) -> Option<std::sync::Arc<Definition>> {
    if let Some(known) = shared.definitions.get(&workflow) {
        return Some(known);
    }
    let found = patiently("read a workflow", || shared.store.workflow(workflow)).await?;
    let definition = match Definition::read(found, &shared.options) {
        Ok(definition) => std::sync::Arc::new(definition),
        Err(error) => {
            error!(%error, workflow.number = workflow, "a workflow's graph can't be read");
            return None;
        }
    };
    shared.definitions.insert(workflow, definition.clone());
    Some(definition)
}

/// Reads until the database is there: whoever waits is broken off where that takes too long.
async fn patiently<T, F>(what: &str, read: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, store::Error>>,
{
    loop {
        match read().await {
            Ok(found) => return found,
            Err(error) => debug!(%error, "{what}: tried again"),
        }
        tokio::time::sleep(AWAY).await;
    }
}

/// Gives signs of life, and compares what this worker does with what is its by the database's word.
pub(super) async fn live(shared: Shared) {
    let mut tick = tokio::time::interval(shared.options.lease() / 4);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Theirs by the database, and of no hand here: claimed by a commit whose answer was lost, if it is so twice.
    let mut strays = HashSet::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.look.notified() => {}
        }
        if shared.finished.is_cancelled() {
            return;
        }
        // Who has nothing needs no lease: what is claimed later is claimed under a new one, and a stray goes with the old.
        if shared.hands.len() == 0 {
            strays.clear();
            continue;
        }
        let begun = Instant::now();
        let Some(mine) = beat(&shared).await else { continue };
        let mine: HashSet<Held> = mine.into_iter().collect();
        let found: HashSet<Held> = {
            let hands = shared.hands.lock();
            for (_, hand) in hands.iter().filter(|(held, hand)| hand.since < begun && !mine.contains(held)) {
                hand.stop.cancel();
            }
            mine.into_iter().filter(|held| !hands.contains_key(held)).collect()
        };
        for stray in found.iter().filter(|held| strays.contains(*held)) {
            give_back(&shared, *stray).await;
        }
        strays = found;
    }
}

pub(super) async fn give_back(shared: &Shared, held: Held) {
    let Some(definition) = definition(shared, held.workflow).await else { return };
    let Held { workflow, position, epoch } = held;
    let (graph, took) = (definition.graph.clone(), Duration::ZERO);
    let ended = Ended { workflow, position, epoch, graph, end: End::GivenBack, took, input_bytes: 0 };
    let _closed = shared.words.send(Word::Ended(ended));
}

async fn beat(shared: &Shared) -> Option<Vec<Held>> {
    let begun = Instant::now();
    let beaten = timeout(LIMIT, shared.store.beat_worker(&shared.worker, shared.options.lease())).await;
    match beaten {
        Ok(Ok(mine)) => {
            shared.beaten(begun);
            Some(mine)
        }
        Ok(Err(error)) => {
            debug!(%error, "no sign of life could be given");
            None
        }
        Err(_) => None,
    }
}

/// Looks for what time has brought, for what nobody told of, and for what others left.
pub(super) async fn sweep(shared: Shared) {
    let mut tick = tokio::time::interval(shared.options.pause());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.due.notified() => {}
        }
        if shared.stopping.is_cancelled() {
            return;
        }
        let swept = async {
            if shared.store.wants_sweep().await? {
                let swept = shared.store.sweep_workflows().await?;
                if swept.taken_back > 0 {
                    info!(steps = swept.taken_back, "took over what workers had that gave no sign of life");
                }
                if swept.begun > 0 {
                    shared.announced.notify_one();
                    shared.news.send_modify(|count| *count += 1);
                }
                if swept.overdue > 0 {
                    shared.over.send_modify(|count| *count += 1);
                    shared.look.notify_one();
                    shared.news.send_modify(|count| *count += 1);
                }
            }
            shared.store.has_claimable().await
        };
        match timeout(LIMIT, swept).await {
            Ok(Ok(true)) if shared.hands.len() < shared.options.max_concurrent => shared.wake.notify_one(),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "workflows can't be swept now; it is tried again"),
            Err(_) => debug!("workflows can't be swept now; it is tried again"),
        }
    }
}

/// Waits for what runs, then gives back the rest.
pub(super) async fn end(shared: &Shared, grace: Duration) {
    shared.stopping.cancel();
    let idle = async {
        while shared.hands.len() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(grace, idle).await.is_err() {
        let left: Vec<Held> = {
            let hands = shared.hands.lock();
            hands.values().for_each(|hand| hand.stop.cancel());
            hands.keys().copied().collect()
        };
        warn!(steps = left.len(), "steps were broken off; other workers do them again");
        let back = async {
            for held in left {
                give_back(shared, held).await;
            }
            while !shared.words.is_closed() && shared.hands.len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Written behind those that were given back.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let _late = timeout(Duration::from_secs(2), back).await;
    }
    shared.finished.cancel();
    if let Ok(Err(error)) = timeout(Duration::from_secs(1), shared.store.forget_worker(&shared.worker)).await {
        debug!(%error, "a worker's row stays until its lease is over");
    }
}
