//! What time brings: leases that run out, pauses that end, workflows that take too long.

use std::collections::BTreeSet;
use std::time::Duration;

use super::command::close;
use super::{Heads, Sql, Together, clock, each, each_of, given};
use crate::domain::Timestamp;
use crate::domain::workflow::{EventKind, State};
use crate::store::{Db, Error, Store, on};

/// A step that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    pub workflow: i64,
    pub position: u32,
    pub epoch: i64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Steps of workers that gave no sign.
    pub taken_back: usize,
    /// Steps whose pause is over.
    pub due: usize,
    /// Workflows that took too long.
    pub overdue: usize,
    /// Workflows that waited for another.
    pub begun: usize,
}

/// Rows in one transaction.
const MOST: i64 = 2_000;
/// How long a worker that is gone is remembered.
const FORGOTTEN_MS: i64 = 60_000;

/// Workflows whose turn it is: what they follow is over, or gone.
macro_rules! turns {
    () => {
        "FROM workflows AS w WHERE w.state = 'waiting' AND NOT EXISTS
             (SELECT 1 FROM workflows AS b WHERE b.number = w.follows AND b.state IN ('waiting', 'running', 'paused'))"
    };
}

macro_rules! wants {
    ($now:literal) => {
        concat!(
            "SELECT CAST(1 AS BIGINT) WHERE EXISTS (SELECT 1 FROM workflow_steps WHERE due_ms <= ",
            $now,
            ") OR EXISTS (SELECT 1 FROM workflows WHERE state = 'running' AND deadline_ms <= ",
            $now,
            ") OR EXISTS (SELECT 1 FROM workflow_steps AS s LEFT JOIN workflow_workers AS w ON w.worker = s.worker
                          WHERE s.state = 'running' AND (w.until_ms IS NULL OR w.until_ms < ",
            $now,
            ")) OR EXISTS (SELECT 1 ",
            turns!(),
            ")"
        )
    };
}

impl Store {
    /// Says that a worker lives, for so long, and tells what it has by the database's word.
    pub async fn beat_worker(&self, worker: &str, lease: Duration) -> Result<Vec<Held>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let until = Timestamp(clock(&mut tx).await?).plus(lease).0;
            let sql = "INSERT INTO workflow_workers (worker, until_ms) VALUES ($1, $2)
                       ON CONFLICT (worker) DO UPDATE SET until_ms = excluded.until_ms";
            on!(&mut tx, tx => sqlx::query(sql).bind(worker).bind(until).execute(&mut **tx).await.map(drop))?;
            let sql = "SELECT workflow, position, epoch FROM workflow_steps WHERE worker = $1 AND state = 'running'";
            let rows: Vec<(i64, i64, i64)> =
                on!(&mut tx, tx => sqlx::query_as(sql).bind(worker).fetch_all(&mut **tx).await)?;
            tx.commit().await?;
            let held = |(workflow, position, epoch)| Held { workflow, position: super::small(position), epoch };
            Ok(rows.into_iter().map(held).collect())
        };
        run.await.map_err(Error::during("say that a worker lives"))
    }

    /// A worker that ends well leaves nothing behind.
    pub async fn forget_worker(&self, worker: &str) -> Result<(), Error> {
        let sql = "DELETE FROM workflow_workers WHERE worker = $1";
        let done = on!(&self.write, pool => sqlx::query(sql).bind(worker).execute(pool).await.map(drop));
        done.map_err(Error::during("say that a worker ends"))
    }

    /// Whether there is anything to sweep. Locks nothing.
    pub async fn wants_sweep(&self) -> Result<bool, Error> {
        let (sqlite, postgres) = (
            wants!("CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
            wants!("(extract(epoch FROM clock_timestamp()) * 1000)::bigint"),
        );
        let row: Result<Option<(i64,)>, _> = match &self.read {
            Db::Sqlite(pool) => sqlx::query_as(sqlite).fetch_optional(pool).await,
            Db::Postgres(pool) => sqlx::query_as(postgres).fetch_optional(pool).await,
        };
        Ok(row.map_err(Error::during("look for what is due"))?.is_some())
    }

    /// Whether a step waits for a worker. Locks nothing.
    pub async fn has_claimable(&self) -> Result<bool, Error> {
        let sql = "SELECT number FROM workflows WHERE claimable = 1 LIMIT 1";
        let row: Result<Option<(i64,)>, _> = on!(&self.read, pool => sqlx::query_as(sql).fetch_optional(pool).await);
        Ok(row.map_err(Error::during("look for steps"))?.is_some())
    }

    /// Takes back what dead workers had, readies what is due, and ends what took too long.
    pub async fn sweep_workflows(&self) -> Result<Swept, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let mut heads = Heads::begin(&mut tx).await?;
            let now = heads.now;
            let lapsed = "SELECT s.workflow, s.position, s.epoch FROM workflow_steps AS s
                          LEFT JOIN workflow_workers AS w ON w.worker = s.worker
                          WHERE s.state = 'running' AND (w.until_ms IS NULL OR w.until_ms < $1) LIMIT $2";
            let due = "SELECT workflow, position, epoch FROM workflow_steps WHERE due_ms <= $1 LIMIT $2";
            let late = "SELECT number, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM workflows WHERE state = 'running' AND deadline_ms <= $1 LIMIT $2";
            let turns = concat!(
                "SELECT w.number, CAST(0 AS BIGINT), CAST(0 AS BIGINT) ",
                turns!(),
                " AND w.created_ms <= $1 ORDER BY w.number LIMIT $2"
            );
            let mut found: [Vec<(i64, i64, i64)>; 4] = Default::default();
            for (rows, sql) in found.iter_mut().zip([lapsed, due, late, turns]) {
                *rows = on!(&mut tx, tx => sqlx::query_as(sql).bind(now).bind(MOST).fetch_all(&mut **tx).await)?;
            }
            let all: BTreeSet<i64> = found.iter().flatten().map(|(workflow, ..)| *workflow).collect();
            let [lapsed, due, late, turns] = found;
            heads.hold(&mut tx, &all).await?;
            let mut swept = Swept::default();
            if !lapsed.is_empty() {
                swept.taken_back = take_back(&mut tx, &mut heads, lapsed).await?;
            }
            if !due.is_empty() {
                swept.due = ready(&mut tx, now, due).await?;
            }
            for (workflow, ..) in late {
                // Looked at again under the lock.
                let still = heads
                    .by_number
                    .get(&workflow)
                    .is_some_and(|head| head.state == State::Running && head.row.deadline_ms <= now);
                if still {
                    let why = "it was not done within its timeout";
                    close(&mut tx, &mut heads, workflow, State::Failed, &EventKind::ExecutionFailed, why).await?;
                    swept.overdue += 1;
                }
            }
            for (workflow, ..) in turns {
                swept.begun += usize::from(begin_turn(&mut tx, &mut heads, workflow).await?);
            }
            heads.save(&mut tx, Together::default()).await?;
            let gone = "DELETE FROM workflow_workers WHERE until_ms < $1";
            on!(&mut tx, tx => sqlx::query(gone).bind(now - FORGOTTEN_MS).execute(&mut **tx).await.map(drop))?;
            tx.commit().await?;
            Ok(swept)
        };
        run.await.map_err(Error::during("sweep workflows"))
    }
}

async fn take_back(tx: &mut super::Tx, heads: &mut Heads, lapsed: Vec<(i64, i64, i64)>) -> Result<usize, sqlx::Error> {
    const TAKE: Sql = given!(
        "UPDATE workflow_steps SET state = 'ready', losses = losses + 1
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS e FROM ",
        ") AS lapsed WHERE workflow = w AND position = p AND epoch = e AND state = 'running'
         RETURNING workflow, position, epoch, is_group, worker, queued_ms, started_ms"
    );
    const LOST: Sql = given!(
        "INSERT INTO workflow_history (workflow, position, epoch, worker, queued_ms, started_ms, ended_ms, outcome, failure)
         SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), value->>3,
                CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT), CAST(value->>6 AS BIGINT), 'lost', 'worker_lost' FROM ",
        ""
    );
    type Row = (i64, i64, i64, i64, Option<String>, Option<i64>, Option<i64>);
    let now = heads.now;
    let taken: Vec<Row> = each(tx, &TAKE, &lapsed).await?;
    let mut lost = vec![];
    for (workflow, position, epoch, is_group, worker, queued, started) in &taken {
        if let Some(head) = heads.by_number.get_mut(workflow) {
            head.row.slots += 1;
        }
        if *is_group == 0 {
            let (queued, started) = (queued.unwrap_or(now), started.unwrap_or(now));
            lost.push((workflow, position, epoch, worker.as_deref().unwrap_or(""), queued, started, now));
        }
    }
    if !lost.is_empty() {
        each_of(tx, &LOST, &lost).await?;
    }
    Ok(taken.len())
}

/// What it follows is over: its time begins. What is over may be retried meanwhile; that does not take the turn back.
async fn begin_turn(tx: &mut super::Tx, heads: &mut Heads, workflow: i64) -> Result<bool, sqlx::Error> {
    let now = heads.now;
    let Some(head) = heads.by_number.get_mut(&workflow).filter(|head| head.state == State::Waiting) else {
        return Ok(false);
    };
    head.state = State::Running;
    head.row.deadline_ms = head.row.deadline_ms.saturating_add(now);
    let sql = "UPDATE workflow_steps SET queued_ms = $2 WHERE workflow = $1 AND state = 'ready'";
    on!(&mut *tx, tx => sqlx::query(sql).bind(workflow).bind(now).execute(&mut **tx).await.map(drop))?;
    heads.event(workflow, &EventKind::ExecutionStarted, None, None, None);
    Ok(true)
}

async fn ready(tx: &mut super::Tx, now: i64, due: Vec<(i64, i64, i64)>) -> Result<usize, sqlx::Error> {
    const READY: Sql = given!(
        "UPDATE workflow_steps SET state = 'ready', queued_ms = due_ms, due_ms = NULL
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p, CAST(value->>2 AS BIGINT) AS t FROM ",
        ") AS due WHERE workflow = w AND position = p AND due_ms <= t AND state = 'waiting' RETURNING workflow"
    );
    let rows: Vec<_> = due.into_iter().map(|(workflow, position, _)| (workflow, position, now)).collect();
    let freed: Vec<(i64,)> = each(tx, &READY, &rows).await?;
    Ok(freed.len())
}
