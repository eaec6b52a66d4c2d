//! Events as they are read, and as they are handed out to be published.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::FromRow;

use super::{Heads, Sql, Together, clock, each_of, given, small, words};
use crate::domain::workflow::{EventKind, WorkflowId};
use crate::domain::{Tenant, Timestamp};
use crate::store::rows::{decode, unsigned};
use crate::store::{Error, Store, on};

/// An event, with its task by position: who has the graph knows its name.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The workflow's own number.
    pub of: i64,
    pub workflow: WorkflowId,
    pub tenant: Tenant,
    pub number: u64,
    pub at: Timestamp,
    pub kind: EventKind,
    pub position: Option<u32>,
    pub attempt: Option<u32>,
    pub message: Option<String>,
    /// JSON, of a user's own event.
    pub payload: Option<String>,
}

#[derive(FromRow)]
struct Row {
    workflow: i64,
    id: Vec<u8>,
    tenant: String,
    number: i64,
    at_ms: i64,
    kind: String,
    position: Option<i64>,
    attempt: Option<i64>,
    message: Option<String>,
    payload: Option<Vec<u8>>,
}

impl TryFrom<Row> for Publication {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            of: row.workflow,
            workflow: WorkflowId::from_bytes(&row.id).map_err(decode)?,
            tenant: Tenant::parse(&row.tenant).map_err(decode)?,
            number: unsigned(row.number),
            at: Timestamp(row.at_ms),
            kind: EventKind::named(&row.kind),
            position: row.position.map(small),
            attempt: row.attempt.map(small),
            message: row.message,
            payload: row.payload.map(String::from_utf8).transpose().map_err(decode)?,
        })
    }
}

/// A user's own event.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    pub kind: &'a EventKind,
    pub message: Option<&'a str>,
    /// JSON.
    pub payload: Option<&'a str>,
}

/// What became of a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// Kept under this number.
    Kept(u64),
    /// The workflow keeps no events.
    NotMonitored,
}

/// Without a workflow's id, events are those of so many of the tenant's newest workflows.
const RECENT: i64 = 200;

impl Store {
    /// Keeps a user's own event, in its place among the workflow's. `None`: this tenant has no such workflow.
    pub async fn notify_workflow(
        &self,
        tenant: &Tenant,
        id: WorkflowId,
        notice: &Notice<'_>,
    ) -> Result<Option<Noticed>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "SELECT number FROM workflows WHERE id = $1 AND tenant = $2";
            let found: Option<(i64,)> = on!(&mut tx, tx => {
                sqlx::query_as(sql).bind(id.as_bytes()).bind(tenant.as_str()).fetch_optional(&mut **tx).await
            })?;
            let Some((workflow,)) = found else { return Ok(None) };
            let mut heads = Heads::holding(&mut tx, &BTreeSet::from([workflow])).await?;
            let now = heads.now;
            let Some(head) = heads.by_number.get_mut(&workflow) else { return Ok(None) };
            if head.row.monitored == 0 {
                return Ok(Some(Noticed::NotMonitored));
            }
            head.row.events += 1;
            let (number, waits) = (head.row.events, head.row.announced);
            let sql = "INSERT INTO workflow_events (workflow, number, at_ms, kind, message, payload, waits)
                       VALUES ($1, $2, $3, $4, $5, $6, $7)";
            on!(&mut tx, tx => {
                sqlx::query(sql)
                    .bind(workflow)
                    .bind(number)
                    .bind(now)
                    .bind(notice.kind.as_str())
                    .bind(notice.message.map(words))
                    .bind(notice.payload.map(str::as_bytes))
                    .bind(waits)
                    .execute(&mut **tx)
                    .await
                    .map(drop)
            })?;
            heads.save(&mut tx, Together::default()).await?;
            tx.commit().await?;
            Ok(Some(Noticed::Kept(unsigned(number))))
        };
        run.await.map_err(Error::during("keep an event"))
    }

    /// Events of one workflow after a number, in their order; without an id the newest of the tenant's newest workflows,
    /// the oldest of them first.
    pub async fn workflow_events(
        &self,
        tenant: &Tenant,
        workflow: Option<i64>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Publication>, Error> {
        let run = async {
            let one = "SELECT e.workflow, w.id, w.tenant, e.number, e.at_ms, e.kind, e.position, e.attempt, e.message,
                              e.payload
                       FROM workflow_events AS e JOIN workflows AS w ON w.number = e.workflow
                       WHERE w.tenant = $1 AND e.workflow = $2 AND e.number > $3 ORDER BY e.number LIMIT $4";
            let all = "SELECT e.workflow, w.id, w.tenant, e.number, e.at_ms, e.kind, e.position, e.attempt, e.message,
                              e.payload
                       FROM workflow_events AS e
                       JOIN (SELECT number, id, tenant FROM workflows WHERE tenant = $1 ORDER BY number DESC LIMIT $2) AS w
                           ON w.number = e.workflow
                       WHERE e.number > $3 ORDER BY e.at_ms DESC, e.workflow DESC, e.number DESC LIMIT $4";
            let (sql, of) = match workflow {
                Some(number) => (one, number),
                None => (all, RECENT),
            };
            let mut rows: Vec<Row> = on!(&self.read, pool => {
                sqlx::query_as(sql)
                    .bind(tenant.as_str())
                    .bind(of)
                    .bind(i64::try_from(after).unwrap_or(i64::MAX))
                    .bind(i64::from(limit))
                    .fetch_all(pool)
                    .await
            })?;
            if workflow.is_none() {
                rows.reverse();
            }
            rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read events"))
    }

    /// What is to be published, of each workflow in its order.
    pub async fn waiting_events(&self, limit: u32) -> Result<Vec<Publication>, Error> {
        let run = async {
            let sql = "SELECT e.workflow, w.id, w.tenant, e.number, e.at_ms, e.kind, e.position, e.attempt, e.message,
                              e.payload
                       FROM workflow_events AS e JOIN workflows AS w ON w.number = e.workflow
                       WHERE e.waits = 1 ORDER BY e.workflow, e.number LIMIT $1";
            let rows: Vec<Row> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(i64::from(limit)).fetch_all(pool).await)?;
            rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, sqlx::Error>>()
        };
        run.await.map_err(Error::during("look for events to publish"))
    }

    /// These are published, by workflow and number.
    pub async fn published(&self, events: &[(i64, u64)]) -> Result<(), Error> {
        const DONE: Sql = given!(
            "UPDATE workflow_events SET waits = 0
             FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS n FROM ",
            ") AS done WHERE workflow = w AND number = n"
        );
        let run = async {
            let mut tx = self.begin().await?;
            each_of(&mut tx, &DONE, &events).await?;
            tx.commit().await
        };
        run.await.map_err(Error::during("note that events are published"))
    }

    /// Takes or keeps the turn to publish, for so long. False where another worker has it.
    pub async fn publishes(&self, worker: &str, lease: Duration) -> Result<bool, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let now = clock(&mut tx).await?;
            let sql = "INSERT INTO workflow_publisher (one, worker, until_ms) VALUES (1, $1, $2)
                       ON CONFLICT (one) DO UPDATE SET worker = excluded.worker, until_ms = excluded.until_ms
                       WHERE workflow_publisher.worker = excluded.worker OR workflow_publisher.until_ms < $3
                       RETURNING one";
            let until = Timestamp(now).plus(lease).0;
            let row: Option<(i64,)> = on!(&mut tx, tx => {
                sqlx::query_as(sql).bind(worker).bind(until).bind(now).fetch_optional(&mut **tx).await
            })?;
            tx.commit().await?;
            Ok(row.is_some())
        };
        run.await.map_err(Error::during("take the turn to publish events"))
    }
}
