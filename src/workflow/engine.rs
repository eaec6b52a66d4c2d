//! The engine: takes what is ready, does it, commits it together with what comes next. One task writes, so that whatever ends
//! while it waits for the database shares the next commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::policy::{self, Failure};
use super::step::Given;
use super::{Definition, Error, Shared};
use crate::domain::TaskId;
use crate::domain::record::Digest;
use crate::domain::workflow::{FailureKind, Manner};
use crate::store;
use crate::store::workflows::{Advanced, Batch, Claimed, Did, End, Ended, Held, Start, Started};
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
        // What is about to end shares this commit.
        tokio::task::yield_now().await;
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
                let problem = Arc::new(problem);
                for (_, told) in starts.drain(..) {
                    let _gone = told.send(Err(Error::Unavailable(problem.clone())));
                }
                if shared.finished.is_cancelled() {
                    return;
                }
                tokio::time::sleep(AWAY).await;
            }
        }
        shared.rounds.fetch_add(1, Ordering::Release);
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
    // Whoever leaves steps to others says so: there is no need to look each time.
    let others = claim > 0 && shared.others.swap(false, Ordering::Relaxed);
    let batch = Batch { worker: &shared.worker, starts: &starts, ended, claim, others };
    let action = "carry workflows on";
    let done = match timeout(LIMIT, shared.store.advance(&batch)).await {
        Ok(done) => done,
        Err(_) => Err(store::Error::Timeout { action, limit: LIMIT }),
    };
    if done.as_ref().map_or(others, |done| done.more) {
        shared.others.store(true, Ordering::Relaxed);
    }
    done
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
    let problem = Arc::new(problem);
    for (_, told) in starts.drain(..) {
        let _gone = told.send(Err(Error::Unavailable(problem.clone())));
    }
    for mut end in ended.drain(..) {
        match end.did.end {
            // One of those that were done after it may be what is refused; they are begun anew, each by itself.
            End::Completed(_) if !end.then.is_empty() => end.then.clear(),
            End::Completed(_) => {
                let message = "the database refused its output".to_owned();
                end.did.end = End::Failed { kind: FailureKind::BadOutput, message };
            }
            _ => {
                shared.hands.lock().remove(&held(&end));
                continue;
            }
        }
        let _closed = shared.words.send(Word::Ended(end));
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
            for did in end.all() {
                if let End::Completed(Some(output)) = &did.end
                    && !end.graph.dependants(did.position).is_empty()
                {
                    shared.outputs.insert((end.workflow, did.position), output.clone());
                }
            }
        } else {
            debug!(
                workflow.number = end.workflow,
                step.position = end.did.position,
                "a step was not this worker's any more"
            );
        }
        for did in end.all() {
            if let End::Postponed { pause: own, .. } = did.end {
                pause = Some(pause.map_or(own, |least| least.min(own)));
            }
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
            shared.look_around();
        }
    }
}

fn count(end: &Ended) {
    for did in end.all() {
        let outcome = match did.end {
            End::Completed(_) => "completed",
            End::Postponed { .. } => "retried",
            End::Failed { .. } => "failed",
            End::GivenBack => continue,
        };
        if let Some(node) = end.graph.node(did.position).filter(|_| !end.graph.is_group(did.position)) {
            meters().step(node.step.kind(), outcome, did.manner.as_str(), did.took);
        }
    }
}

fn held(end: &Ended) -> Held {
    Held { workflow: end.workflow, position: end.did.position, epoch: end.epoch }
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

/// Steps that one hand does after each other, at most.
const CHAIN: usize = 64;

/// One attempt at a step, and at those that follow it in the same hand. `None`: there is no such workflow.
async fn work(shared: &Shared, claimed: Claimed) -> Option<Ended> {
    let Claimed { workflow, position, epoch, attempts, losses } = claimed;
    let definition = definition(shared, workflow).await?;
    let graph = definition.graph.clone();
    let begun = Instant::now();
    let mut known = HashMap::new();
    let did = match losses >= shared.options.max_losses && !graph.is_group(position) {
        true => {
            let message = format!("{losses} workers were lost that were at it");
            Did::new(position, End::Failed { kind: FailureKind::WorkerLost, message })
        }
        false => attempt(shared, &definition, workflow, position, attempts, &known).await?,
    };
    let mut ended = Ended { workflow, epoch, graph, did, then: vec![] };
    // What is done is not committed before the last: so no longer than a sign of life is away, and none when the worker stops.
    while begun.elapsed() < shared.options.lease() / 4
        && ended.then.len() + 1 < CHAIN
        && !shared.stopping.is_cancelled()
        && let last = ended.then.last().unwrap_or(&ended.did)
        && let End::Completed(Some(output)) = &last.end
        && let Some(next) = ended.graph.follower(last.position)
    {
        known.insert(last.position, output.clone());
        let mut did = attempt(shared, &definition, workflow, next, 0, &known).await?;
        if did.manner == Manner::Alone {
            did.manner = Manner::Followed;
        }
        ended.then.push(did);
    }
    Some(ended)
}

/// One attempt at a step; outputs that are not in the database yet are `known`.
async fn attempt(
    shared: &Shared,
    definition: &Definition,
    workflow: i64,
    position: u32,
    attempts: u32,
    known: &HashMap<u32, Arc<str>>,
) -> Option<Did> {
    let graph = &definition.graph;
    let node = graph.node(position)?;
    let mut did = Did::new(position, End::Completed(None));
    if graph.is_group(position) {
        return Some(did);
    }
    let begun = Instant::now();
    let (mut outputs, mut far) = (vec![], vec![]);
    for at in graph.inputs(position) {
        match known.get(&at).cloned().or_else(|| shared.outputs.get(&(workflow, at))) {
            Some(output) => outputs.push((at, output)),
            None => far.push(at),
        }
    }
    if !far.is_empty() {
        let read = || shared.store.workflow_outputs(workflow, &far);
        outputs.extend(patiently("read a step's inputs", read).await);
    }
    let inputs = outputs.into_iter().filter_map(|(at, output)| {
        let id = graph.node(at)?.task.id.clone();
        Some((id, output))
    });
    let inputs: BTreeMap<_, _> = inputs.collect();
    did.input_bytes = inputs.values().map(|output| output.len() as u64).sum();
    did.inputs = node.policy.pure.then(|| digest(&inputs));
    if let (Some(inputs), true) = (&did.inputs, node.policy.recalls) {
        let step = graph.definition(position);
        match shared.store.recall(&definition.tenant, &step, inputs).await {
            Ok(Some(output)) => {
                (did.end, did.manner, did.took) = (End::Completed(Some(output)), Manner::Recalled, begun.elapsed());
                return Some(did);
            }
            Ok(None) => did.keep = true,
            // Then it is done.
            Err(error) => debug!(%error, "what an equal step came to can't be looked for"),
        }
    }
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
    let run = || AssertUnwindSafe(shared.runner.run(&node.step, given.clone(), &shared.options)).catch_unwind();
    let outcome = match timeout(limit, beside(node.policy.second_after, run, |ran| matches!(ran, Ok(Ok(_))))).await {
        Ok((Ok(outcome), overtaken)) => {
            did.manner = if overtaken { Manner::Overtaken } else { Manner::Alone };
            outcome
        }
        Ok((Err(_), _)) => Err(Failure::new(FailureKind::Panicked, "the step broke; the worker's log has more")),
        Err(_) => Err(Failure::new(FailureKind::TimedOut, format!("not done within {} ms", limit.as_millis()))),
    };
    did.end = match outcome {
        Ok(output) => End::Completed(Some(output)),
        Err(failure) => {
            info!(workflow.id = %definition.id, task = %node.task.id, kind = failure.kind.as_str(), "a step failed");
            policy::decide(failure, attempts, &definition.options, &node.policy, &mut rand::rng())
        }
    };
    did.took = begun.elapsed();
    Some(did)
}

/// Does it, and where it takes longer than `after` once more beside the first. The first to do well counts, and whether that was the
/// second; a failure only where both have failed.
async fn beside<F: Future>(
    after: Option<Duration>,
    run: impl Fn() -> F,
    is_well: impl Fn(&F::Output) -> bool,
) -> (F::Output, bool) {
    let mut first = std::pin::pin!(run());
    if let Some(after) = after
        && let Ok(done) = timeout(after, &mut first).await
    {
        return (done, false);
    }
    if after.is_none() {
        return (first.await, false);
    }
    // Few need one.
    let mut second = Box::pin(run());
    tokio::select! {
        biased;
        done = &mut first => match is_well(&done) {
            true => (done, false),
            false => {
                let other = second.await;
                let is_better = is_well(&other);
                (if is_better { other } else { done }, is_better)
            }
        },
        done = &mut second => match is_well(&done) {
            true => (done, true),
            false => (first.await, false),
        },
    }
}

/// The same for equal inputs.
fn digest(inputs: &BTreeMap<TaskId, Arc<str>>) -> Digest {
    let mut hash = Sha256::new();
    for part in inputs.iter().flat_map(|(id, json)| [id.as_str(), json]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

pub(super) async fn definition(shared: &Shared, workflow: i64) -> Option<Arc<Definition>> {
    if let Some(known) = shared.definitions.get(&workflow) {
        return Some(known);
    }
    let found = patiently("read a workflow", || shared.store.workflow(workflow)).await?;
    let definition = match Definition::read(found, &shared.options) {
        Ok(definition) => Arc::new(definition),
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
    // Theirs by the database, and of no hand here, with how many rounds there had been when that was seen. What a round has
    // just claimed has no hand before the round is over; if it has none then, the answer to its commit was lost.
    let mut strays: HashMap<Held, u64> = HashMap::new();
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
        let rounds = shared.rounds.load(Ordering::Acquire);
        let found: Vec<Held> = {
            let hands = shared.hands.lock();
            for (_, hand) in hands.iter().filter(|(held, hand)| hand.since < begun && !mine.contains(held)) {
                hand.stop.cancel();
            }
            mine.into_iter().filter(|held| !hands.contains_key(held)).collect()
        };
        strays = found.into_iter().map(|held| (held, strays.get(&held).copied().unwrap_or(rounds))).collect();
        for (stray, _) in strays.iter().filter(|(_, seen)| **seen < rounds) {
            give_back(&shared, *stray).await;
        }
        if !strays.is_empty() {
            shared.wake.notify_one();
        }
    }
}

pub(super) async fn give_back(shared: &Shared, held: Held) {
    let Some(definition) = definition(shared, held.workflow).await else { return };
    let Held { workflow, position, epoch } = held;
    let (graph, did) = (definition.graph.clone(), Did::new(position, End::GivenBack));
    let ended = Ended { workflow, epoch, graph, did, then: vec![] };
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
            Ok(Ok(true)) if shared.hands.len() < shared.options.max_concurrent => shared.look_around(),
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
