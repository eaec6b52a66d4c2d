//! Workflows as they are looked at. Nothing here locks.

use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;

use super::{Sql, given, small, state, task_state};
use crate::domain::record::Digest;
use crate::domain::workflow::{Manner, Node, RunOptions, State, TaskState, WorkflowId};
use crate::domain::{Tenant, Timestamp};
use crate::store::rows::{decode, digest, unsigned};
use crate::store::{Db, Error, Store, on};

/// A workflow in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub number: i64,
    pub id: WorkflowId,
    pub goal: Option<String>,
    pub state: State,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    pub shape: Digest,
    pub tasks: u64,
    pub open_tasks: u64,
    pub failed_tasks: u64,
    pub completed: u64,
    pub created: Timestamp,
    pub changed: Timestamp,
    pub ended: Option<Timestamp>,
    /// It ran under a plan that changed more than timeouts.
    pub planned: bool,
}

/// Which workflows of a tenant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub state: Option<State>,
    /// Those that were started before this one.
    pub before: Option<WorkflowId>,
    pub limit: u32,
}

/// What a workflow is.
#[derive(Debug, Clone)]
pub struct Status {
    pub id: WorkflowId,
    pub tenant: Tenant,
    pub options: RunOptions,
    pub nodes: Vec<Node>,
}

/// How a task stands.
#[derive(Debug, Clone)]
pub struct StepStatus {
    pub position: u32,
    pub state: TaskState,
    pub attempts: u32,
    /// The worker that has or had it.
    pub worker: Option<String>,
    pub queued: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// When it is tried again.
    pub due: Option<Timestamp>,
    /// Of the last attempt that failed.
    pub failure: Option<String>,
    pub message: Option<String>,
}

/// One attempt at a task, as it was.
#[derive(Debug, Clone)]
pub struct Attempts {
    pub position: u32,
    pub worker: String,
    pub queued: Timestamp,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub took: Option<Duration>,
    /// `completed`, `retried`, `failed`, `lost`.
    pub outcome: String,
    pub failure: Option<String>,
    pub input_bytes: Option<u64>,
    pub output_bytes: Option<u64>,
    pub manner: Manner,
    /// A digest of its inputs, of a step that is pure.
    pub inputs: Option<i64>,
}

#[derive(FromRow)]
struct ListedRow {
    number: i64,
    id: Vec<u8>,
    goal: Option<Vec<u8>>,
    state: String,
    reason: Option<String>,
    shape: Vec<u8>,
    tasks: i64,
    open_tasks: i64,
    failed_tasks: i64,
    completed: i64,
    created_ms: i64,
    changed_ms: i64,
    ended_ms: Option<i64>,
    planned: i64,
}

impl TryFrom<ListedRow> for Listed {
    type Error = sqlx::Error;

    fn try_from(row: ListedRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            number: row.number,
            id: WorkflowId::from_bytes(&row.id).map_err(decode)?,
            goal: row.goal.map(String::from_utf8).transpose().map_err(decode)?,
            state: state(&row.state)?,
            reason: row.reason,
            shape: digest(row.shape)?,
            tasks: unsigned(row.tasks),
            open_tasks: unsigned(row.open_tasks),
            failed_tasks: unsigned(row.failed_tasks),
            completed: unsigned(row.completed),
            created: Timestamp(row.created_ms),
            changed: Timestamp(row.changed_ms),
            ended: row.ended_ms.map(Timestamp),
            planned: row.planned == 1,
        })
    }
}

#[derive(FromRow)]
struct StepRow {
    position: i64,
    state: String,
    attempts: i64,
    worker: Option<String>,
    queued_ms: Option<i64>,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    due_ms: Option<i64>,
    failure: Option<String>,
    message: Option<String>,
}

#[derive(FromRow)]
struct AttemptRow {
    position: i64,
    worker: String,
    queued_ms: i64,
    started_ms: i64,
    ended_ms: i64,
    took_ns: Option<i64>,
    outcome: String,
    failure: Option<String>,
    input_bytes: Option<i64>,
    output_bytes: Option<i64>,
    manner: Option<String>,
    inputs: Option<i64>,
}

impl Store {
    /// A tenant's workflow by its id.
    pub async fn find_workflow(&self, tenant: &Tenant, id: WorkflowId) -> Result<Option<Listed>, Error> {
        let run = async {
            let sql =
                "SELECT number, id, goal, state, reason, shape, tasks, open_tasks, failed_tasks, completed, created_ms,
                              changed_ms, ended_ms, planned FROM workflows WHERE id = $1 AND tenant = $2";
            let row: Option<ListedRow> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(id.as_bytes()).bind(tenant.as_str()).fetch_optional(pool).await
            })?;
            row.map(TryInto::try_into).transpose()
        };
        run.await.map_err(Error::during("look for a workflow"))
    }

    /// A tenant's workflows, the newest first.
    pub async fn list_workflows(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Listed>, Error> {
        let run = async {
            let sql =
                "SELECT number, id, goal, state, reason, shape, tasks, open_tasks, failed_tasks, completed, created_ms,
                              changed_ms, ended_ms, planned FROM workflows
                       WHERE tenant = $1 AND ($2 = '' OR state = $2)
                           AND number < COALESCE((SELECT number FROM workflows WHERE id = $3 AND tenant = $1), $4)
                       ORDER BY number DESC LIMIT $5";
            let rows: Vec<ListedRow> = on!(&self.read, pool => {
                sqlx::query_as(sql)
                    .bind(tenant.as_str())
                    .bind(filter.state.map_or("", State::as_str))
                    .bind(filter.before.map(|id| id.as_bytes().to_vec()))
                    .bind(i64::MAX)
                    .bind(i64::from(filter.limit))
                    .fetch_all(pool)
                    .await
            })?;
            rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, sqlx::Error>>()
        };
        run.await.map_err(Error::during("list workflows"))
    }

    /// What a workflow is: its graph and its terms. `None` where it was deleted.
    pub async fn workflow(&self, number: i64) -> Result<Option<Status>, Error> {
        let run = async {
            let sql = "SELECT w.id, w.tenant, w.options, g.body FROM workflows AS w
                       JOIN workflow_graphs AS g ON g.workflow = w.number WHERE w.number = $1";
            type Row = (Vec<u8>, String, Vec<u8>, Vec<u8>);
            let row: Option<Row> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(number).fetch_optional(pool).await)?;
            let Some((id, tenant, options, body)) = row else { return Ok(None) };
            Ok(Some(Status {
                id: WorkflowId::from_bytes(&id).map_err(decode)?,
                tenant: Tenant::parse(&tenant).map_err(decode)?,
                options: serde_json::from_slice(&options).map_err(decode)?,
                nodes: serde_json::from_slice(&body).map_err(decode)?,
            }))
        };
        run.await.map_err(Error::during("read a workflow"))
    }

    /// How its tasks stand, by position.
    pub async fn workflow_steps(&self, number: i64) -> Result<Vec<StepStatus>, Error> {
        let run = async {
            let sql =
                "SELECT position, state, attempts, worker, queued_ms, started_ms, ended_ms, due_ms, failure, message
                       FROM workflow_steps WHERE workflow = $1 ORDER BY position";
            let rows: Vec<StepRow> = on!(&self.read, pool => sqlx::query_as(sql).bind(number).fetch_all(pool).await)?;
            rows.into_iter()
                .map(|row| {
                    Ok(StepStatus {
                        position: small(row.position),
                        state: task_state(&row.state)?,
                        attempts: small(row.attempts),
                        worker: row.worker,
                        queued: row.queued_ms.map(Timestamp),
                        started: row.started_ms.map(Timestamp),
                        ended: row.ended_ms.map(Timestamp),
                        due: row.due_ms.map(Timestamp),
                        failure: row.failure,
                        message: row.message,
                    })
                })
                .collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read a workflow's tasks"))
    }

    /// Outputs of these tasks, by position. What has none is not among them.
    pub async fn workflow_outputs(&self, number: i64, positions: &[u32]) -> Result<Vec<(u32, Arc<str>)>, Error> {
        const OUTPUTS: Sql = given!(
            "SELECT o.position, o.body FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS p FROM ",
            ") AS wanted JOIN workflow_outputs AS o ON o.workflow = w AND o.position = p"
        );
        let run = async {
            let rows: Vec<(i64, u32)> = positions.iter().map(|position| (number, *position)).collect();
            let rows = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
            let found: Vec<(i64, Vec<u8>)> = match &self.read {
                Db::Sqlite(pool) => sqlx::query_as(OUTPUTS.sqlite).bind(rows).fetch_all(pool).await?,
                Db::Postgres(pool) => sqlx::query_as(OUTPUTS.postgres).bind(rows).fetch_all(pool).await?,
            };
            let text = |(position, body): (i64, Vec<u8>)| {
                Ok((small(position), Arc::from(String::from_utf8(body).map_err(decode)?)))
            };
            found.into_iter().map(text).collect::<Result<_, sqlx::Error>>()
        };
        run.await.map_err(Error::during("read a workflow's outputs"))
    }

    /// Every attempt that has ended, in the order of their beginnings.
    pub async fn workflow_attempts(&self, number: i64) -> Result<Vec<Attempts>, Error> {
        let run = async {
            let sql = "SELECT position, worker, queued_ms, started_ms, ended_ms, took_ns, outcome, failure, input_bytes,
                              output_bytes, manner, inputs FROM workflow_history WHERE workflow = $1 ORDER BY started_ms, position, epoch";
            let rows: Vec<AttemptRow> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(number).fetch_all(pool).await)?;
            Ok(rows
                .into_iter()
                .map(|row| Attempts {
                    position: small(row.position),
                    worker: row.worker,
                    queued: Timestamp(row.queued_ms),
                    started: Timestamp(row.started_ms),
                    ended: Timestamp(row.ended_ms),
                    took: row.took_ns.map(|ns| Duration::from_nanos(unsigned(ns))),
                    outcome: row.outcome,
                    failure: row.failure,
                    input_bytes: row.input_bytes.map(unsigned),
                    output_bytes: row.output_bytes.map(unsigned),
                    manner: row.manner.as_deref().and_then(Manner::named).unwrap_or_default(),
                    inputs: row.inputs,
                })
                .collect())
        };
        run.await.map_err(Error::during("read a workflow's history"))
    }

    /// The newest workflows of a shape that have ended: what the history of a graph is.
    pub async fn workflows_of_shape(&self, tenant: &Tenant, shape: &Digest, limit: u32) -> Result<Vec<Listed>, Error> {
        let run = async {
            let sql = "SELECT number, id, goal, state, reason, shape, tasks, open_tasks, failed_tasks, completed, created_ms,
                              changed_ms, ended_ms, planned FROM workflows WHERE tenant = $1 AND shape = $2 AND ended_ms IS NOT NULL
                       ORDER BY number DESC LIMIT $3";
            let rows: Vec<ListedRow> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(&shape[..]).bind(i64::from(limit)).fetch_all(pool).await
            })?;
            rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, sqlx::Error>>()
        };
        run.await.map_err(Error::during("look for a graph's history"))
    }

    /// How many of a shape have ended, counted up to `most`.
    pub async fn count_of_shape(&self, tenant: &Tenant, shape: &Digest, most: u32) -> Result<u32, Error> {
        let run = async {
            let sql = "SELECT COUNT(*) FROM (SELECT number FROM workflows
                       WHERE tenant = $1 AND shape = $2 AND ended_ms IS NOT NULL LIMIT $3) AS ended";
            let (count,): (i64,) = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(&shape[..]).bind(i64::from(most)).fetch_one(pool).await
            })?;
            Ok::<_, sqlx::Error>(small(count))
        };
        run.await.map_err(Error::during("count a graph's history"))
    }

    /// What an equal step of this tenant came to before, as JSON.
    pub async fn recall(&self, tenant: &Tenant, step: &Digest, inputs: &Digest) -> Result<Option<Arc<str>>, Error> {
        let run = async {
            let sql = "SELECT body FROM workflow_memos WHERE tenant = $1 AND definition = $2 AND inputs = $3";
            let row: Option<(Vec<u8>,)> = on!(&self.read, pool => {
                let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(&step[..]).bind(&inputs[..]);
                query.fetch_optional(pool).await
            })?;
            row.map(|(body,)| String::from_utf8(body).map(Arc::from).map_err(decode)).transpose()
        };
        run.await.map_err(Error::during("look for what an equal step came to"))
    }

    /// The graph that a goal was taken apart into.
    pub async fn known_goal(&self, tenant: &Tenant, goal: &Digest) -> Result<Option<Vec<Node>>, Error> {
        let run = async {
            let sql = "SELECT body FROM workflow_goals WHERE tenant = $1 AND goal = $2";
            let row: Option<(Vec<u8>,)> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(tenant.as_str()).bind(&goal[..]).fetch_optional(pool).await
            })?;
            row.map(|(body,)| serde_json::from_slice(&body).map_err(decode)).transpose()
        };
        run.await.map_err(Error::during("look for a goal"))
    }

    /// Remembers what a goal was taken apart into. What was first stays.
    pub async fn keep_goal(&self, tenant: &Tenant, goal: &Digest, nodes: &[Node], now: Timestamp) -> Result<(), Error> {
        let run = async {
            let body = serde_json::to_vec(nodes).map_err(|error| sqlx::Error::Encode(error.into()))?;
            let sql = "INSERT INTO workflow_goals (tenant, goal, body, created_ms) VALUES ($1, $2, $3, $4)
                       ON CONFLICT (tenant, goal) DO NOTHING";
            on!(&self.write, pool => {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(&goal[..]).bind(body).bind(now.0);
                query.execute(pool).await.map(drop)
            })
        };
        run.await.map_err(Error::during("remember a goal"))
    }
}
