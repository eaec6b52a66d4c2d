//! The one transaction by which workflows go on: new ones come, steps end, what waited for them is ready, and the same worker
//! takes what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Head, HeadRow, Heads, Sql, Together, each, given, head, words};
use crate::domain::record::{Digest, hex};
use crate::domain::workflow::{EventKind, FailureKind, Graph, Manner, RunOptions, State, WorkflowId};
use crate::domain::{RequestId, Tenant, Timestamp};
use crate::store::rows::{decode, nanos};
use crate::store::{Error, Store, Tx, on};

/// A workflow that is to be.
#[derive(Debug, Clone)]
pub struct Start {
    pub id: WorkflowId,
    pub tenant: Tenant,
    /// The client's own id, with the hash of what came with it.
    pub request: Option<(RequestId, Digest)>,
    pub goal: Option<Arc<str>>,
    pub graph: Arc<Graph>,
    pub options: RunOptions,
    /// Where a goal was taken apart: from when until when.
    pub decomposed: Option<(Timestamp, Timestamp)>,
    /// What records of earlier runs say of it.
    pub optimized: Option<Optimized>,
    /// It begins when this one is over.
    pub follows: Option<WorkflowId>,
}

/// What records of earlier runs say of a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Optimized {
    /// What they changed, for a person.
    pub changed: Option<String>,
    /// They changed more than timeouts: the run is compared with those that were as they were given.
    pub planned: bool,
    /// What they would change if they might, for a person.
    pub advice: Option<String>,
}

/// What became of a [`Start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    New(i64),
    /// The same was started before under the same id.
    Known(WorkflowId),
    /// The id stands for something else.
    Conflict,
}

/// A step that has come to an end here.
#[derive(Debug, Clone)]
pub struct Ended {
    pub workflow: i64,
    /// Of the claim: it guards all that ended in this hand.
    pub epoch: i64,
    pub graph: Arc<Graph>,
    pub did: Did,
    /// The steps that were done after it in the same hand, in their order. All but the last are completed.
    pub then: Vec<Did>,
}

/// What one attempt came to.
#[derive(Debug, Clone)]
pub struct Did {
    pub position: u32,
    pub end: End,
    pub took: Duration,
    pub input_bytes: u64,
    pub manner: Manner,
    /// A digest of its inputs, of a step that is pure.
    pub inputs: Option<Digest>,
    /// Its output is kept for equal steps after it.
    pub keep: bool,
}

impl Did {
    pub fn new(position: u32, end: End) -> Self {
        let (took, input_bytes, manner) = (Duration::ZERO, 0, Manner::Alone);
        Self { position, end, took, input_bytes, manner, inputs: None, keep: false }
    }
}

impl Ended {
    /// What was done, in its order.
    pub fn all(&self) -> impl Iterator<Item = &Did> {
        std::iter::once(&self.did).chain(&self.then)
    }
}

#[derive(Debug, Clone)]
pub enum End {
    /// With its output as JSON; a group has none.
    Completed(Option<Arc<str>>),
    /// To be tried again after a pause.
    Postponed {
        kind: FailureKind,
        message: String,
        pause: Duration,
    },
    Failed {
        kind: FailureKind,
        message: String,
    },
    /// It was not begun, or broken off by the worker's end: that counts as no attempt.
    GivenBack,
}

/// What one transaction is to do.
#[derive(Debug)]
pub struct Batch<'a> {
    pub worker: &'a str,
    pub starts: &'a [Start],
    pub ended: &'a [Ended],
    /// How many steps to take, at most.
    pub claim: usize,
    /// Whether other workflows than those of this batch may have steps to take.
    pub others: bool,
}

/// A step that this worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    pub workflow: i64,
    pub position: u32,
    /// Named when it ends: whoever lost it has another.
    pub epoch: i64,
    /// Attempts that came before.
    pub attempts: u32,
    /// How often a worker was lost that had it.
    pub losses: u32,
}

/// What a [`Batch`] came to.
#[derive(Debug, Default)]
pub struct Advanced {
    pub started: Vec<Started>,
    /// Of each that ended, whether it counts: false where the step was lost to another worker, or cancelled.
    pub accepted: Vec<bool>,
    pub claimed: Vec<Claimed>,
    /// Workflows that are over with this.
    pub over: Vec<i64>,
    /// There is more to begin than this worker took.
    pub more: bool,
    /// There are events to publish.
    pub announced: bool,
}

/// Steps that one transaction takes of one workflow, at most. Stands in the statement, too.
const MOST_CLAIMS: usize = 128;
/// Workflows that one transaction looks at for steps.
const MOST_WORKFLOWS: i64 = 128;

impl Store {
    /// Carries workflows on. Everything of the batch is committed, or nothing.
    pub async fn advance(&self, batch: &Batch<'_>) -> Result<Advanced, Error> {
        let run = async {
            let mut tx = self.begin_by_index().await?;
            // In the order of their numbers, and those that are new after those that exist.
            let ended = batch.ended.iter().map(|ended| ended.workflow).collect();
            let mut heads = Heads::holding(&mut tx, &ended).await?;
            let mut done = Advanced::default();
            let mut ready = Ready::of(&heads, batch);
            let along = end_steps(&mut tx, &mut heads, batch, &mut ready, &mut done).await?;
            done.started = start(&mut tx, &mut heads, batch.starts, &mut ready).await?;
            if batch.claim > 0 {
                claim(&mut tx, &mut heads, batch, ready, &mut done).await?;
            }
            done.over = heads.by_number.iter().filter(|(_, h)| h.state.is_over()).map(|(n, _)| *n).collect();
            done.announced = heads.events.iter().any(|(.., waits)| *waits == 1);
            done.more |= !heads.save(&mut tx, along).await?.is_empty();
            tx.commit().await?;
            Ok(done)
        };
        run.await.map_err(Error::during("carry workflows on"))
    }
}

/// Steps that can be taken, as far as a transaction knows without asking.
#[derive(Default)]
struct Ready {
    /// Workflow, position, rank.
    steps: BTreeSet<(i64, i64, i64)>,
    /// Workflows that may have more of them.
    unknown: BTreeSet<i64>,
}

impl Ready {
    fn of(heads: &Heads, batch: &Batch<'_>) -> Self {
        // What could not be claimed before has none but those that this transaction readies.
        let left = |head: &&Head| head.row.claimable == 1 || head.row.slots <= 0 || head.state != State::Running;
        let mut unknown: BTreeSet<i64> = heads.by_number.values().filter(left).map(|head| head.row.number).collect();
        let back = batch.ended.iter().filter(|ended| matches!(ended.did.end, End::GivenBack));
        unknown.extend(back.map(|ended| ended.workflow));
        Self { steps: BTreeSet::new(), unknown }
    }
}

async fn start(
    tx: &mut Tx,
    heads: &mut Heads,
    starts: &[Start],
    ready: &mut Ready,
) -> Result<Vec<Started>, sqlx::Error> {
    const STEPS: Sql = given!(
        "INSERT INTO workflow_steps (workflow, position, is_group, rank, state, open_needs, queued_ms)
         SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT),
                value->>4, CAST(value->>5 AS BIGINT), CAST(value->>6 AS BIGINT) FROM ",
        ""
    );
    const GRAPHS: Sql = Sql {
        sqlite: "INSERT INTO workflow_graphs (workflow, body)
                 SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BLOB) FROM jsonb_each($1)",
        postgres: "INSERT INTO workflow_graphs (workflow, body)
                   SELECT CAST(value->>0 AS BIGINT), convert_to(value->>1, 'UTF8') FROM json_array_elements($1::json)",
    };
    if starts.is_empty() {
        return Ok(vec![]);
    }
    let now = heads.now;
    let mut numbers = insert(tx, starts, now).await?;
    let (mut outcomes, mut steps, mut graphs) = (vec![], vec![], vec![]);
    for start in starts {
        let Some(number) = numbers.remove(start.id.as_bytes()) else {
            outcomes.push(known(tx, start).await?);
            continue;
        };
        outcomes.push(Started::New(number));
        let mut first = vec![];
        for position in 0..start.graph.len() as u32 {
            let needs = start.graph.needs(position).len();
            let (state, queued) = if needs == 0 { ("ready", Some(now)) } else { ("waiting", None) };
            let is_group = i64::from(start.graph.is_group(position));
            let rank = i64::from(start.graph.rank(position));
            steps.push((number, position, is_group, rank, state, needs, queued));
            if needs == 0 {
                first.push((number, i64::from(position), rank));
            }
        }
        // No more than these are taken at once.
        first.sort_by_key(|(_, position, rank)| (-rank, *position));
        ready.steps.extend(first.into_iter().take(MOST_CLAIMS));
        let body = serde_json::to_string(start.graph.nodes()).map_err(|error| sqlx::Error::Encode(error.into()))?;
        graphs.push((number, body));
        let row = HeadRow {
            number,
            state: String::new(),
            reason: None,
            open_tasks: start.graph.len() as i64,
            failed_tasks: 0,
            completed: 0,
            slots: i64::from(start.options.max_parallel),
            events: 0,
            monitored: i64::from(start.options.monitoring),
            announced: i64::from(start.options.real_time_notifications),
            rank_ms: rank(start, now),
            ended_ms: None,
            deadline_ms: deadline(start, now),
            claimable: 0,
            now,
        };
        let state = start.begins_as();
        heads.by_number.insert(number, Head { row, state });
        if let Some((from, to)) = start.decomposed {
            heads.event_at(number, from.0, &EventKind::DecompositionStarted, None, None, None);
            heads.event_at(number, to.0, &EventKind::DecompositionCompleted, None, None, None);
        }
        let Optimized { changed, advice, .. } = start.optimized.clone().unwrap_or_default();
        if let Some(how) = &changed {
            heads.event(number, &EventKind::OptimizationStarted, None, None, None);
            heads.event(number, &EventKind::OptimizationCompleted, None, None, Some(how));
        }
        if let Some(advice) = &advice {
            heads.event(number, &EventKind::OptimizationRecommended, None, None, Some(advice));
        }
        if state == State::Running {
            heads.event(number, &EventKind::ExecutionStarted, None, None, None);
        }
    }
    let mut new = Together::default();
    new.add_any(&STEPS, &steps)?;
    new.add_any(&GRAPHS, &graphs)?;
    new.run::<(i64,)>(tx).await?;
    Ok(outcomes)
}

fn rank(start: &Start, now: i64) -> i64 {
    now.saturating_sub(i64::from(start.options.priority).saturating_mul(60_000))
}

/// Of one that waits, how long it may take.
fn deadline(start: &Start, now: i64) -> i64 {
    let from = if start.follows.is_some() { 0 } else { now };
    Timestamp(from).plus(start.options.timeout).0
}

impl Start {
    fn begins_as(&self) -> State {
        if self.follows.is_some() { State::Waiting } else { State::Running }
    }
}

/// The numbers of those that are new, by their ids: the others' clients' ids are taken.
async fn insert(tx: &mut Tx, starts: &[Start], now: i64) -> Result<BTreeMap<Vec<u8>, i64>, sqlx::Error> {
    /// `$from`, a text, `$to`: its bytes, from hexadecimal.
    macro_rules! insert {
        ($from:literal, $to:literal, $rows:literal) => {
            concat!(
                "INSERT INTO workflows (id, tenant, request, request_hash, goal, options, shape, state, tasks, open_tasks, failed_tasks,
                     completed, slots, events, monitored, announced, claimable, rank_ms, created_ms, changed_ms, deadline_ms,
                     planned, follows)
                 SELECT ", $from, "value->>0", $to, ", value->>1, value->>2, ", $from, "value->>3", $to, ", ", $from, "value->>4", $to,
                ", ", $from, "value->>5", $to, ", ", $from, "value->>6", $to, ", value->>7, CAST(value->8->>0 AS BIGINT),
                     CAST(value->8->>0 AS BIGINT), 0, 0, CAST(value->8->>1 AS BIGINT), 0, CAST(value->8->>2 AS BIGINT),
                     CAST(value->8->>3 AS BIGINT), 0, CAST(value->8->>4 AS BIGINT), CAST(value->8->>5 AS BIGINT),
                     CAST(value->8->>5 AS BIGINT), CAST(value->8->>6 AS BIGINT), CAST(value->8->>7 AS BIGINT),
                     (SELECT f.number FROM workflows AS f WHERE f.id = ", $from, "value->>9", $to, " AND f.tenant = value->>1)
                 FROM ", $rows, " WHERE true
                 ON CONFLICT (tenant, request) WHERE request IS NOT NULL DO NOTHING RETURNING id, number"
            )
        };
    }
    const INSERT: Sql = Sql {
        sqlite: insert!("unhex(", ")", "jsonb_each($1)"),
        postgres: insert!("decode(", ", 'hex')", "json_array_elements($1::json)"),
    };
    let rows = starts.iter().map(|start| {
        let (request, hash) = start.request.as_ref().map(|(id, hash)| (id.as_str(), hex(hash))).unzip();
        let options = serde_json::to_vec(&start.options).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let RunOptions { max_parallel, monitoring, real_time_notifications, .. } = start.options;
        let planned = start.optimized.as_ref().is_some_and(|of| of.planned);
        let [monitored, announced, planned] = [monitoring, real_time_notifications, planned].map(i64::from);
        let (tasks, rank, deadline) = (start.graph.len(), rank(start, now), deadline(start, now));
        let numbers = (tasks, max_parallel, monitored, announced, rank, now, deadline, planned);
        let goal = start.goal.as_ref().map(|goal| hex(goal.as_bytes()));
        let follows = start.follows.as_ref().map(|id| hex(id.as_bytes()));
        let (id, shape, state) = (hex(start.id.as_bytes()), hex(&start.graph.shape()), start.begins_as().as_str());
        Ok((id, start.tenant.as_str(), request, hash, goal, hex(&options), shape, state, numbers, follows))
    });
    let rows: Vec<_> = rows.collect::<Result<_, sqlx::Error>>()?;
    let found: Vec<(Vec<u8>, i64)> = each(tx, &INSERT, &rows).await?;
    Ok(found.into_iter().collect())
}

async fn known(tx: &mut Tx, start: &Start) -> Result<Started, sqlx::Error> {
    let Some((request, hash)) = &start.request else { return Ok(Started::Conflict) };
    let sql = "SELECT id, request_hash FROM workflows WHERE tenant = $1 AND request = $2";
    let (id, found): (Vec<u8>, Vec<u8>) = on!(tx, tx => {
        sqlx::query_as(sql).bind(start.tenant.as_str()).bind(request.as_str()).fetch_one(&mut **tx).await
    })?;
    let id = WorkflowId::from_bytes(&id).map_err(decode)?;
    Ok(if found == hash { Started::Known(id) } else { Started::Conflict })
}

const OUTPUTS: Sql = Sql {
    sqlite: "INSERT INTO workflow_outputs (workflow, position, body)
             SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BLOB) FROM jsonb_each($1)",
    postgres: "INSERT INTO workflow_outputs (workflow, position, body)
               SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), convert_to(value->>2, 'UTF8')
               FROM json_array_elements($1::json)",
};
/// What equal steps can be spared.
const MEMOS: Sql = Sql {
    sqlite: "INSERT INTO workflow_memos (tenant, definition, inputs, body, created_ms)
             SELECT tenant, unhex(value->>1), unhex(value->>2), CAST(value->>3 AS BLOB), CAST(value->>4 AS BIGINT)
             FROM jsonb_each($1) JOIN workflows ON number = CAST(value->>0 AS BIGINT)
             WHERE true ON CONFLICT (tenant, definition, inputs) DO NOTHING",
    postgres: "INSERT INTO workflow_memos (tenant, definition, inputs, body, created_ms)
               SELECT tenant, decode(value->>1, 'hex'), decode(value->>2, 'hex'), convert_to(value->>3, 'UTF8'),
                      CAST(value->>4 AS BIGINT)
               FROM json_array_elements($1::json) JOIN workflows ON number = CAST(value->>0 AS BIGINT)
               ON CONFLICT (tenant, definition, inputs) DO NOTHING",
};
/// What is remembered of attempts.
const HISTORY: Sql = given!(
    "INSERT INTO workflow_history (workflow, position, epoch, worker, queued_ms, started_ms, ended_ms, took_ns, outcome,
         failure, input_bytes, output_bytes, manner, inputs)
     SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), value->>3,
            CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT), CAST(value->>6 AS BIGINT), CAST(value->>7 AS BIGINT),
            value->>8, value->>9, CAST(value->>10 AS BIGINT), CAST(value->>11 AS BIGINT), value->>12,
            CAST(value->>13 AS BIGINT) FROM ",
    ""
);

/// Workflow, position, epoch, worker, queued, started, ended, took, outcome, failure, input bytes, output bytes, manner, inputs.
type HistoryRow = (
    i64,
    u32,
    i64,
    String,
    i64,
    i64,
    i64,
    i64,
    &'static str,
    Option<&'static str>,
    u64,
    Option<usize>,
    Option<&'static str>,
    Option<i64>,
);

/// Workflow, position, queued, started, attempts, worker, epoch.
type EndedRow = (i64, i64, Option<i64>, Option<i64>, i64, Option<String>, i64);

/// What an end makes of a step: its state, when it is due, why.
fn outcome(end: &End, now: i64) -> (&'static str, Option<i64>, Option<(FailureKind, &str)>) {
    match end {
        End::Completed(_) => ("completed", None, None),
        End::Postponed { kind, message, pause } => {
            ("waiting", Some(Timestamp(now).plus(*pause).0), Some((*kind, message)))
        }
        End::Failed { kind, message } => ("failed", None, Some((*kind, message))),
        End::GivenBack => ("ready", None, None),
    }
}

/// Returns what there is to write of them beside the steps themselves.
async fn end_steps(
    tx: &mut Tx,
    heads: &mut Heads,
    batch: &Batch<'_>,
    ready: &mut Ready,
    done: &mut Advanced,
) -> Result<Together, sqlx::Error> {
    // Only who holds the step's epoch may end it.
    const END: Sql = given!(
        "UPDATE workflow_steps SET state = s, attempts = attempts + a, ended_ms = x, due_ms = d, queued_ms = COALESCE(q, queued_ms),
             failure = f, message = m
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS e,
                      value->>3 AS s, CAST(value->>4 AS BIGINT) AS a, CAST(value->>5 AS BIGINT) AS x,
                      CAST(value->>6 AS BIGINT) AS d, CAST(value->>7 AS BIGINT) AS q, value->>8 AS f, value->>9 AS m FROM ",
        ") AS ended WHERE workflow = w AND position = p AND epoch = e AND state = 'running'
         RETURNING workflow, position, queued_ms, started_ms, attempts, worker, epoch"
    );
    if batch.ended.is_empty() {
        return Ok(Together::default());
    }
    let now = heads.now;
    let mut rows = Vec::with_capacity(batch.ended.len());
    for ended in batch.ended {
        let did = &ended.did;
        let (state, due, why) = outcome(&did.end, now);
        let (made, over, queued) = match &did.end {
            End::Completed(_) | End::Failed { .. } => (1, Some(now - since(&ended.then)), None),
            End::Postponed { .. } => (1, None, None),
            End::GivenBack => (0, None, Some(now)),
        };
        let (kind, message) = why.map(|(kind, message)| (kind.as_str(), words(message))).unzip();
        rows.push((ended.workflow, did.position, ended.epoch, state, made, over, due, queued, kind, message));
    }
    let found: Vec<EndedRow> = each(tx, &END, &rows).await?;
    let mut found: BTreeMap<(i64, i64), EndedRow> = found.into_iter().map(|row| ((row.0, row.1), row)).collect();
    let mut seen = BTreeSet::new();
    for ended in batch.ended {
        let key = (ended.workflow, i64::from(ended.did.position));
        done.accepted.push(found.contains_key(&key) && seen.insert(key));
    }
    follow(tx, now, batch, &done.accepted, &mut found).await?;
    let (mut freed, mut skipped) = (BTreeMap::<(i64, u32), i64>::new(), BTreeSet::new());
    let (mut outputs, mut history, mut memos) = (vec![], Vec::<HistoryRow>::new(), vec![]);
    for (ended, _) in batch.ended.iter().zip(&done.accepted).filter(|(_, accepted)| **accepted) {
        let workflow = ended.workflow;
        let Some(head) = heads.by_number.get_mut(&workflow) else { continue };
        head.row.slots += 1;
        for (i, did) in ended.all().enumerate() {
            let position = did.position;
            let Some(row) = found.get(&(workflow, i64::from(position))) else { continue };
            let (_, _, queued, started, attempts, worker, epoch) = row;
            let Some(head) = heads.by_number.get_mut(&workflow) else { continue };
            let over = now - since(&ended.then[i..]);
            let is_group = ended.graph.is_group(position);
            let attempt = Some(u32::try_from(*attempts).unwrap_or(u32::MAX));
            let (mut open, mut outcome, mut why, mut size) = (0, "completed", None, None);
            let mut event = None;
            match &did.end {
                End::Completed(output) => {
                    open = 1;
                    head.row.completed += 1;
                    let is_done = |other: &u32| ended.then[i..].iter().any(|did| did.position == *other);
                    for dependant in ended.graph.dependants(position).iter().filter(|other| !is_done(other)) {
                        *freed.entry((workflow, *dependant)).or_default() += 1;
                    }
                    if let Some(output) = output {
                        size = Some(output.len());
                        outputs.push((workflow, position, &**output));
                        if let (Some(inputs), true) = (did.inputs, did.keep) {
                            memos.push((
                                workflow,
                                hex(&ended.graph.definition(position)),
                                hex(&inputs),
                                &**output,
                                now,
                            ));
                        }
                    }
                    if !is_group {
                        event = Some((EventKind::TaskCompleted, None));
                    }
                }
                End::Postponed { kind, message, .. } => {
                    (outcome, why) = ("retried", Some(kind.as_str()));
                    event = Some((EventKind::TaskRetried, Some(message)));
                }
                End::Failed { kind, message } => {
                    open = 1;
                    head.row.failed_tasks += 1;
                    skipped.extend(ended.graph.all_dependants(position).into_iter().map(|p| (workflow, p)));
                    (outcome, why) = ("failed", Some(kind.as_str()));
                    event = Some((EventKind::TaskFailed, Some(message)));
                }
                End::GivenBack => continue,
            }
            head.row.open_tasks -= open;
            if i > 0 {
                heads.event_at(
                    workflow,
                    started.unwrap_or(now),
                    &EventKind::TaskStarted,
                    Some(position),
                    attempt,
                    None,
                );
            }
            if let Some((kind, message)) = event {
                heads.event_at(workflow, over, &kind, Some(position), attempt, message.map(String::as_str));
            }
            if !is_group {
                let (queued, started, took) = (queued.unwrap_or(now), started.unwrap_or(now), nanos(did.took));
                let worker = worker.clone().unwrap_or_else(|| batch.worker.to_owned());
                let manner = (did.manner != Manner::Alone).then(|| did.manner.as_str());
                let (bytes, inputs) = (did.input_bytes, did.inputs.map(short));
                history.push((
                    workflow, position, *epoch, worker, queued, started, over, took, outcome, why, bytes, size, manner,
                    inputs,
                ));
            }
        }
    }
    // Two workers that keep the same ones meet in one order.
    memos.sort_by(|(_, a, b, ..), (_, c, d, ..)| (a, b).cmp(&(c, d)));
    free(tx, heads, &freed, ready).await?;
    skip(tx, heads, &skipped).await?;
    let touched: Vec<i64> = heads.by_number.keys().copied().collect();
    touched.into_iter().for_each(|workflow| heads.end_where_done(workflow));
    let mut along = Together::default();
    along.add_any(&OUTPUTS, &outputs)?;
    along.add_any(&HISTORY, &history)?;
    along.add_any(&MEMOS, &memos)?;
    Ok(along)
}

/// Enough of a digest to know equal inputs again.
fn short(digest: Digest) -> i64 {
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_le_bytes(*first)
}

/// How long ago it ended after which these were done, in milliseconds.
fn since(then: &[Did]) -> i64 {
    i64::try_from(then.iter().map(|did| did.took).sum::<Duration>().as_millis()).unwrap_or(i64::MAX)
}

/// Ends the steps that were done in the hand of another: nobody claimed them, and whoever may end the first may end these.
async fn follow(
    tx: &mut Tx,
    now: i64,
    batch: &Batch<'_>,
    accepted: &[bool],
    found: &mut BTreeMap<(i64, i64), EndedRow>,
) -> Result<(), sqlx::Error> {
    const FOLLOW: Sql = given!(
        "UPDATE workflow_steps SET state = s, attempts = attempts + 1, epoch = epoch + 1, open_needs = 0, worker = b,
             queued_ms = q, started_ms = q, ended_ms = x, due_ms = d, failure = f, message = m
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, value->>2 AS s, value->>3 AS b,
                      CAST(value->>4 AS BIGINT) AS q, CAST(value->>5 AS BIGINT) AS x, CAST(value->>6 AS BIGINT) AS d,
                      value->>7 AS f, value->>8 AS m, CAST(value->>9 AS BIGINT) AS n FROM ",
        ") AS followed WHERE workflow = w AND position = p AND state = 'waiting' AND open_needs = n
         RETURNING workflow, position, queued_ms, started_ms, attempts, worker, epoch"
    );
    let mut rows = vec![];
    for (ended, _) in batch.ended.iter().zip(accepted).filter(|(_, accepted)| **accepted) {
        for (i, did) in ended.then.iter().enumerate() {
            let (state, due, why) = outcome(&did.end, now);
            let over =
                matches!(did.end, End::Completed(_) | End::Failed { .. }).then(|| now - since(&ended.then[i + 1..]));
            let (kind, message) = why.map(|(kind, message)| (kind.as_str(), words(message))).unzip();
            let began = now - since(&ended.then[i..]);
            // It waited for none but those that were done before it here.
            let is_new = |need: &&u32| ended.all().take(i + 1).any(|before| before.position == **need);
            let needs = ended.graph.needs(did.position).iter().filter(is_new).count();
            rows.push((ended.workflow, did.position, state, batch.worker, began, over, due, kind, message, needs));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let followed: Vec<EndedRow> = each(tx, &FOLLOW, &rows).await?;
    if followed.len() != rows.len() {
        // Nobody else touches what waits for a step that is held.
        return Err(sqlx::Error::Encode("a step that was done after another did not wait for it".into()));
    }
    found.extend(followed.into_iter().map(|row| ((row.0, row.1), row)));
    Ok(())
}

/// What depends on what is completed.
async fn free(
    tx: &mut Tx,
    heads: &Heads,
    freed: &BTreeMap<(i64, u32), i64>,
    ready: &mut Ready,
) -> Result<(), sqlx::Error> {
    const FREE: Sql = given!(
        "UPDATE workflow_steps SET open_needs = open_needs - n,
             queued_ms = CASE WHEN state = 'waiting' AND open_needs = n THEN t ELSE queued_ms END,
             state = CASE WHEN state = 'waiting' AND open_needs = n THEN 'ready' ELSE state END
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS n,
                      CAST(value->>3 AS BIGINT) AS t FROM ",
        ") AS freed WHERE workflow = w AND position = p RETURNING workflow, position, rank, state"
    );
    if freed.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = freed.iter().map(|((workflow, position), n)| (workflow, position, n, heads.now)).collect();
    let found: Vec<(i64, i64, i64, String)> = each(tx, &FREE, &rows).await?;
    ready.steps.extend(found.into_iter().filter(|(.., state)| state == "ready").map(|(w, p, rank, _)| (w, p, rank)));
    Ok(())
}

/// What depends on what failed.
async fn skip(tx: &mut Tx, heads: &mut Heads, skipped: &BTreeSet<(i64, u32)>) -> Result<(), sqlx::Error> {
    const SKIP: Sql = given!(
        "UPDATE workflow_steps SET state = 'skipped', ended_ms = t
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS t FROM ",
        ") AS skipped WHERE workflow = w AND position = p AND state = 'waiting' RETURNING workflow"
    );
    if skipped.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = skipped.iter().map(|(workflow, position)| (workflow, position, heads.now)).collect();
    let gone: Vec<(i64,)> = each(tx, &SKIP, &rows).await?;
    for (workflow,) in gone {
        if let Some(head) = heads.by_number.get_mut(&workflow) {
            head.row.open_tasks -= 1;
        }
    }
    Ok(())
}

/// Takes steps: of the workflows at hand and of all others, those that have waited longest first.
async fn claim(
    tx: &mut Tx,
    heads: &mut Heads,
    batch: &Batch<'_>,
    mut ready: Ready,
    done: &mut Advanced,
) -> Result<(), sqlx::Error> {
    const READY: Sql = given!(
        "SELECT s.workflow, s.position, s.rank FROM (SELECT CAST(value->>0 AS BIGINT) AS w FROM ",
        ") AS held JOIN workflow_steps AS s ON s.workflow = w AND s.position IN
             (SELECT r.position FROM workflow_steps AS r WHERE r.workflow = w AND r.state = 'ready'
              ORDER BY r.rank DESC, r.position LIMIT 128)"
    );
    const CLAIM: Sql = given!(
        "UPDATE workflow_steps SET state = 'running', epoch = epoch + 1, worker = n, started_ms = t
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, value->>2 AS n,
                      CAST(value->>3 AS BIGINT) AS t FROM ",
        ") AS claimed WHERE workflow = w AND position = p AND state = 'ready'
         RETURNING workflow, position, epoch, attempts, losses, is_group"
    );
    // Each has a step at least. One more shows that something is left; those at hand may be among them.
    let most = i64::try_from(batch.claim + heads.by_number.len() + 1).unwrap_or(i64::MAX).min(MOST_WORKFLOWS);
    let others: Vec<HeadRow> = match &mut *tx {
        _ if !batch.others => vec![],
        Tx::Sqlite(tx) => sqlx::query_as(CLAIMABLE_SQLITE).bind(most).fetch_all(&mut **tx).await?,
        Tx::Postgres(tx) => sqlx::query_as(CLAIMABLE_POSTGRES).bind(most).fetch_all(&mut **tx).await?,
    };
    let found = others.len();
    let others: Vec<HeadRow> = others.into_iter().filter(|row| !heads.by_number.contains_key(&row.number)).collect();
    ready.unknown.extend(others.iter().map(|row| row.number));
    heads.add(others.clone())?;
    let open = |workflow: i64| {
        heads.by_number.get(&workflow).is_some_and(|head| head.state == State::Running && head.row.slots > 0)
    };
    let asked: Vec<(i64,)> = ready.unknown.into_iter().filter(|w| open(*w)).map(|workflow| (workflow,)).collect();
    if !asked.is_empty() {
        ready.steps.extend(each::<(i64, i64, i64)>(tx, &READY, &asked).await?);
    }
    let mut ready: Vec<_> = ready.steps.into_iter().filter(|(workflow, ..)| open(*workflow)).collect();
    let waited = |workflow: &i64| heads.by_number.get(workflow).map_or(i64::MAX, |head| head.row.rank_ms);
    ready.sort_by_key(|(workflow, position, rank)| (waited(workflow), *workflow, -*rank, *position));
    let (mut taken, mut rows) = (BTreeMap::<i64, i64>::new(), vec![]);
    for (workflow, position, _) in ready {
        if rows.len() >= batch.claim.min(MOST_CLAIMS) {
            break;
        }
        let slots = heads.by_number.get(&workflow).map_or(0, |head| head.row.slots);
        let used = taken.entry(workflow).or_default();
        if *used < slots {
            *used += 1;
            rows.push((workflow, position, batch.worker, heads.now));
        }
    }
    done.more |= found as i64 >= most;
    // What is not touched needs not to be written again.
    for row in &others {
        if !taken.contains_key(&row.number) {
            heads.by_number.remove(&row.number);
            done.more = true;
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let claimed: Vec<(i64, i64, i64, i64, i64, i64)> = each(tx, &CLAIM, &rows).await?;
    for (workflow, position, epoch, attempts, losses, is_group) in claimed {
        if let Some(head) = heads.by_number.get_mut(&workflow) {
            head.row.slots -= 1;
        }
        let (position, attempts, losses) = (super::small(position), super::small(attempts), super::small(losses));
        if is_group == 0 {
            heads.event(workflow, &EventKind::TaskStarted, Some(position), Some(attempts + 1), None);
        }
        done.claimed.push(Claimed { workflow, position, epoch, attempts, losses });
    }
    Ok(())
}

const CLAIMABLE_SQLITE: &str = head!(sqlite "claimable = 1 ORDER BY rank_ms, number LIMIT $1");
/// Who holds one looks after it.
const CLAIMABLE_POSTGRES: &str =
    head!(postgres "claimable = 1 ORDER BY rank_ms, number LIMIT $1 FOR UPDATE SKIP LOCKED");
