//! The one transaction by which workflows go on: new ones come, steps end, what waited for them is ready, and the same worker
//! takes what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::QueryBuilder;

use super::{Head, HeadRow, Heads, Sql, each, each_of, given, words};
use crate::domain::record::Digest;
use crate::domain::workflow::{EventKind, FailureKind, Graph, RunOptions, State, WorkflowId};
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
    /// What records of earlier runs changed, for a person.
    pub optimized: Option<String>,
    /// It begins when this one is over.
    pub follows: Option<WorkflowId>,
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
    pub position: u32,
    pub epoch: i64,
    pub graph: Arc<Graph>,
    pub end: End,
    pub took: Duration,
    pub input_bytes: u64,
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
            let mut tx = self.begin().await?;
            let mut heads = Heads::begin(&mut tx).await?;
            // In the order of their numbers, and those that are new after those that exist.
            heads.hold(&mut tx, &batch.ended.iter().map(|ended| ended.workflow).collect()).await?;
            let mut done = Advanced::default();
            end_steps(&mut tx, &mut heads, batch, &mut done).await?;
            done.started = start(&mut tx, &mut heads, batch.starts).await?;
            if batch.claim > 0 {
                claim(&mut tx, &mut heads, batch, &mut done).await?;
            }
            done.over = heads.by_number.iter().filter(|(_, h)| h.state.is_over()).map(|(n, _)| *n).collect();
            done.announced = heads.events.iter().any(|(.., waits)| *waits == 1);
            done.more |= !heads.save(&mut tx).await?.is_empty();
            tx.commit().await?;
            Ok(done)
        };
        run.await.map_err(Error::during("carry workflows on"))
    }
}

async fn start(tx: &mut Tx, heads: &mut Heads, starts: &[Start]) -> Result<Vec<Started>, sqlx::Error> {
    const STEPS: Sql = given!(
        "INSERT INTO workflow_steps (workflow, position, is_group, rank, state, open_needs, queued_ms)
         SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT),
                value->>4, CAST(value->>5 AS BIGINT), CAST(value->>6 AS BIGINT) FROM ",
        ""
    );
    if starts.is_empty() {
        return Ok(vec![]);
    }
    let now = heads.now;
    let (mut outcomes, mut steps, mut graphs) = (vec![], vec![], vec![]);
    for start in starts {
        let Some(number) = insert(tx, start, now).await? else {
            outcomes.push(known(tx, start).await?);
            continue;
        };
        outcomes.push(Started::New(number));
        for position in 0..start.graph.len() as u32 {
            let needs = start.graph.needs(position).len();
            let (state, queued) = if needs == 0 { ("ready", Some(now)) } else { ("waiting", None) };
            let is_group = i64::from(start.graph.is_group(position));
            steps.push((number, position, is_group, start.graph.rank(position), state, needs, queued));
        }
        let body = serde_json::to_vec(start.graph.nodes()).map_err(|error| sqlx::Error::Encode(error.into()))?;
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
        };
        let state = start.begins_as();
        heads.by_number.insert(number, Head { row, state });
        if let Some((from, to)) = start.decomposed {
            heads.event_at(number, from.0, &EventKind::DecompositionStarted, None, None, None);
            heads.event_at(number, to.0, &EventKind::DecompositionCompleted, None, None, None);
        }
        if let Some(how) = &start.optimized {
            heads.event(number, &EventKind::OptimizationStarted, None, None, None);
            heads.event(number, &EventKind::OptimizationCompleted, None, None, Some(how));
        }
        if state == State::Running {
            heads.event(number, &EventKind::ExecutionStarted, None, None, None);
        }
    }
    if !steps.is_empty() {
        each_of(tx, &STEPS, &steps).await?;
    }
    for rows in graphs.chunks(500) {
        on!(&mut *tx, tx => {
            let mut sql = QueryBuilder::new("INSERT INTO workflow_graphs (workflow, body) ");
            sql.push_values(rows, |mut row, (number, body)| {
                row.push_bind(*number).push_bind(&body[..]);
            });
            sql.build().execute(&mut **tx).await.map(drop)
        })?;
    }
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

/// `None` where its client's id is taken.
async fn insert(tx: &mut Tx, start: &Start, now: i64) -> Result<Option<i64>, sqlx::Error> {
    let sql = "INSERT INTO workflows (id, tenant, request, request_hash, goal, options, shape, state, tasks, open_tasks,
                   failed_tasks, completed, slots, events, monitored, announced, claimable, rank_ms, created_ms, changed_ms,
                   deadline_ms, follows)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $15, $8, $8, 0, 0, $9, 0, $10, $11, 0, $12, $13, $13, $14,
                   (SELECT number FROM workflows WHERE id = $16 AND tenant = $2))
               ON CONFLICT (tenant, request) WHERE request IS NOT NULL DO NOTHING RETURNING number";
    let options = serde_json::to_vec(&start.options).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let (request, hash) = match &start.request {
        Some((id, hash)) => (Some(id.as_str()), Some(&hash[..])),
        None => (None, None),
    };
    let row: Option<(i64,)> = on!(tx, tx => {
        sqlx::query_as(sql)
            .bind(start.id.as_bytes())
            .bind(start.tenant.as_str())
            .bind(request)
            .bind(hash)
            .bind(start.goal.as_ref().map(|goal| goal.as_bytes()))
            .bind(options)
            .bind(&start.graph.shape()[..])
            .bind(start.graph.len() as i64)
            .bind(i64::from(start.options.max_parallel))
            .bind(i64::from(start.options.monitoring))
            .bind(i64::from(start.options.real_time_notifications))
            .bind(rank(start, now))
            .bind(now)
            .bind(deadline(start, now))
            .bind(start.begins_as().as_str())
            .bind(start.follows.as_ref().map(|id| id.as_bytes().to_vec()))
            .fetch_optional(&mut **tx)
            .await
    })?;
    Ok(row.map(|(number,)| number))
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

/// Workflow, position, queued, started, attempts, worker.
type EndedRow = (i64, i64, Option<i64>, Option<i64>, i64, Option<String>);

async fn end_steps(tx: &mut Tx, heads: &mut Heads, batch: &Batch<'_>, done: &mut Advanced) -> Result<(), sqlx::Error> {
    // Only who holds the step's epoch may end it.
    const END: Sql = given!(
        "UPDATE workflow_steps SET state = s, attempts = attempts + a, ended_ms = x, due_ms = d, queued_ms = COALESCE(q, queued_ms),
             failure = f, message = m
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS e,
                      value->>3 AS s, CAST(value->>4 AS BIGINT) AS a, CAST(value->>5 AS BIGINT) AS x,
                      CAST(value->>6 AS BIGINT) AS d, CAST(value->>7 AS BIGINT) AS q, value->>8 AS f, value->>9 AS m FROM ",
        ") AS ended WHERE workflow = w AND position = p AND epoch = e AND state = 'running'
         RETURNING workflow, position, queued_ms, started_ms, attempts, worker"
    );
    if batch.ended.is_empty() {
        return Ok(());
    }
    let now = heads.now;
    let mut rows = Vec::with_capacity(batch.ended.len());
    for ended in batch.ended {
        let (state, made, over, due, queued, why) = match &ended.end {
            End::Completed(_) => ("completed", 1, Some(now), None, None, None),
            End::Postponed { kind, message, pause } => {
                ("waiting", 1, None, Some(Timestamp(now).plus(*pause).0), None, Some((kind, message)))
            }
            End::Failed { kind, message } => ("failed", 1, Some(now), None, None, Some((kind, message))),
            End::GivenBack => ("ready", 0, None, None, Some(now), None),
        };
        let (kind, message) = why.map(|(kind, message)| (kind.as_str(), words(message))).unzip();
        rows.push((ended.workflow, ended.position, ended.epoch, state, made, over, due, queued, kind, message));
    }
    let found: Vec<EndedRow> = each(tx, &END, &rows).await?;
    let found: BTreeMap<(i64, i64), EndedRow> = found.into_iter().map(|row| ((row.0, row.1), row)).collect();
    let mut seen = BTreeSet::new();
    let (mut freed, mut skipped) = (BTreeMap::<(i64, u32), i64>::new(), BTreeSet::new());
    let (mut outputs, mut history) = (vec![], vec![]);
    for ended in batch.ended {
        let (workflow, position) = (ended.workflow, ended.position);
        let row = found.get(&(workflow, i64::from(position)));
        let (Some((_, _, queued, started, attempts, worker)), true) = (row, seen.insert((workflow, position))) else {
            done.accepted.push(false);
            continue;
        };
        done.accepted.push(true);
        let Some(head) = heads.by_number.get_mut(&workflow) else { continue };
        head.row.slots += 1;
        let is_group = ended.graph.is_group(position);
        let attempt = Some(u32::try_from(*attempts).unwrap_or(u32::MAX));
        let (outcome, kind, size) = match &ended.end {
            End::Completed(output) => {
                head.row.open_tasks -= 1;
                head.row.completed += 1;
                for dependant in ended.graph.dependants(position) {
                    *freed.entry((workflow, *dependant)).or_default() += 1;
                }
                if let Some(output) = output {
                    outputs.push((workflow, i64::from(position), output.as_bytes()));
                }
                if !is_group {
                    heads.event(workflow, &EventKind::TaskCompleted, Some(position), attempt, None);
                }
                ("completed", None, output.as_ref().map(|output| output.len()))
            }
            End::Postponed { kind, message, .. } => {
                heads.event(workflow, &EventKind::TaskRetried, Some(position), attempt, Some(message));
                ("retried", Some(kind.as_str()), None)
            }
            End::Failed { kind, message } => {
                head.row.open_tasks -= 1;
                head.row.failed_tasks += 1;
                skipped.extend(ended.graph.all_dependants(position).into_iter().map(|p| (workflow, p)));
                heads.event(workflow, &EventKind::TaskFailed, Some(position), attempt, Some(message));
                ("failed", Some(kind.as_str()), None)
            }
            End::GivenBack => continue,
        };
        if !is_group {
            let times = (queued.unwrap_or(now), started.unwrap_or(now), now, nanos(ended.took));
            let worker = worker.as_deref().unwrap_or(batch.worker);
            history.push((workflow, position, ended.epoch, worker, times, outcome, kind, ended.input_bytes, size));
        }
    }
    keep(tx, &outputs, &history).await?;
    free(tx, heads, &freed).await?;
    skip(tx, heads, &skipped).await?;
    let touched: Vec<i64> = heads.by_number.keys().copied().collect();
    touched.into_iter().for_each(|workflow| heads.end_where_done(workflow));
    Ok(())
}

/// What depends on what is completed.
async fn free(tx: &mut Tx, heads: &Heads, freed: &BTreeMap<(i64, u32), i64>) -> Result<(), sqlx::Error> {
    const FREE: Sql = given!(
        "UPDATE workflow_steps SET open_needs = open_needs - n,
             queued_ms = CASE WHEN state = 'waiting' AND open_needs = n THEN t ELSE queued_ms END,
             state = CASE WHEN state = 'waiting' AND open_needs = n THEN 'ready' ELSE state END
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS n,
                      CAST(value->>3 AS BIGINT) AS t FROM ",
        ") AS freed WHERE workflow = w AND position = p"
    );
    if freed.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = freed.iter().map(|((workflow, position), n)| (workflow, position, n, heads.now)).collect();
    each_of(tx, &FREE, &rows).await
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

/// Outputs, and what is remembered of the attempts.
async fn keep(tx: &mut Tx, outputs: &[(i64, i64, &[u8])], history: &impl serde::Serialize) -> Result<(), sqlx::Error> {
    const HISTORY: Sql = given!(
        "INSERT INTO workflow_history (workflow, position, epoch, worker, queued_ms, started_ms, ended_ms, took_ns, outcome,
             failure, input_bytes, output_bytes)
         SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), value->>3,
                CAST(value->4->>0 AS BIGINT), CAST(value->4->>1 AS BIGINT), CAST(value->4->>2 AS BIGINT),
                CAST(value->4->>3 AS BIGINT), value->>5, value->>6, CAST(value->>7 AS BIGINT), CAST(value->>8 AS BIGINT) FROM ",
        ""
    );
    for rows in outputs.chunks(500) {
        on!(&mut *tx, tx => {
            let mut sql = QueryBuilder::new("INSERT INTO workflow_outputs (workflow, position, body) ");
            sql.push_values(rows, |mut row, (workflow, position, body)| {
                row.push_bind(*workflow).push_bind(*position).push_bind(*body);
            });
            sql.build().execute(&mut **tx).await.map(drop)
        })?;
    }
    each_of(tx, &HISTORY, history).await
}

/// Takes steps: of the workflows at hand and of all others, those that have waited longest first.
async fn claim(tx: &mut Tx, heads: &mut Heads, batch: &Batch<'_>, done: &mut Advanced) -> Result<(), sqlx::Error> {
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
    let others: Vec<HeadRow> = match &mut *tx {
        Tx::Sqlite(tx) => sqlx::query_as(CLAIMABLE_SQLITE).bind(MOST_WORKFLOWS).fetch_all(&mut **tx).await?,
        Tx::Postgres(tx) => sqlx::query_as(CLAIMABLE_POSTGRES).bind(MOST_WORKFLOWS).fetch_all(&mut **tx).await?,
    };
    let others: Vec<HeadRow> = others.into_iter().filter(|row| !heads.by_number.contains_key(&row.number)).collect();
    heads.add(others.clone())?;
    let open = |head: &Head| head.state == State::Running && head.row.slots > 0;
    let held: Vec<(i64,)> = heads.by_number.values().filter(|head| open(head)).map(|h| (h.row.number,)).collect();
    let mut ready: Vec<(i64, i64, i64)> = if held.is_empty() { vec![] } else { each(tx, &READY, &held).await? };
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

macro_rules! claimable {
    ($end:expr) => {
        concat!(
            "SELECT number, state, reason, open_tasks, failed_tasks, completed, slots, events, monitored, announced, rank_ms, ended_ms,
                    deadline_ms
             FROM workflows WHERE claimable = 1 ORDER BY rank_ms, number LIMIT $1",
            $end
        )
    };
}

const CLAIMABLE_SQLITE: &str = claimable!("");
/// Who holds one looks after it.
const CLAIMABLE_POSTGRES: &str = claimable!(" FOR UPDATE SKIP LOCKED");
