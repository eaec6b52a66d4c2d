//! What people ask of a workflow.

use std::collections::BTreeSet;

use super::{Heads, Sql, Together, Tx, each, given};
use crate::domain::workflow::{Command, EventKind, NotAllowed, RunOptions, State, WorkflowId};
use crate::domain::{Tenant, Timestamp};
use crate::store::rows::decode;
use crate::store::{Error, Store, on};

impl Store {
    /// Does as a command says, where the workflow's state allows it. `None`: this tenant has no such workflow.
    pub async fn command_workflow(
        &self,
        tenant: &Tenant,
        id: WorkflowId,
        command: Command,
    ) -> Result<Option<Result<State, NotAllowed>>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let sql = "SELECT number, options FROM workflows WHERE id = $1 AND tenant = $2";
            let found: Option<(i64, Vec<u8>)> = on!(&mut tx, tx => {
                sqlx::query_as(sql).bind(id.as_bytes()).bind(tenant.as_str()).fetch_optional(&mut **tx).await
            })?;
            let Some((workflow, options)) = found else { return Ok(None) };
            let mut heads = Heads::holding(&mut tx, &BTreeSet::from([workflow])).await?;
            let Some(head) = heads.by_number.get_mut(&workflow) else { return Ok(None) };
            let next = match head.state.after(command) {
                Ok(next) => next,
                Err(refused) => return Ok(Some(Err(refused))),
            };
            let now = heads.now;
            match command {
                Command::Cancel => {
                    let why = "it was cancelled";
                    close(&mut tx, &mut heads, workflow, next, &EventKind::ExecutionCancelled, why).await?;
                }
                Command::Pause => {
                    // What is left of its time stands still.
                    head.row.deadline_ms = head.row.deadline_ms.saturating_sub(now).max(0);
                    head.state = next;
                    heads.event(workflow, &EventKind::ExecutionPaused, None, None, None);
                }
                Command::Resume => {
                    head.row.deadline_ms = head.row.deadline_ms.saturating_add(now);
                    head.state = next;
                    heads.event(workflow, &EventKind::ExecutionResumed, None, None, None);
                }
                Command::Retry => {
                    let options: RunOptions = serde_json::from_slice(&options).map_err(decode)?;
                    head.state = next;
                    head.row.deadline_ms = Timestamp(now).plus(options.timeout).0;
                    (head.row.reason, head.row.ended_ms, head.row.failed_tasks) = (None, None, 0);
                    head.row.slots = i64::from(options.max_parallel);
                    head.row.open_tasks = reopen(&mut tx, workflow, now).await?;
                    heads.event(workflow, &EventKind::ExecutionRetried, None, None, None);
                }
            }
            heads.save(&mut tx, Together::default()).await?;
            tx.commit().await?;
            Ok(Some(Ok(next)))
        };
        run.await.map_err(Error::during("command a workflow"))
    }
}

/// Ends a workflow before its tasks have ended. What runs of it can't commit any more.
pub(super) async fn close(
    tx: &mut Tx,
    heads: &mut Heads,
    workflow: i64,
    state: State,
    kind: &EventKind,
    why: &str,
) -> Result<(), sqlx::Error> {
    let Some(head) = heads.by_number.get_mut(&workflow) else { return Ok(()) };
    head.state = state;
    head.row.reason = Some(why.to_owned());
    head.row.ended_ms = Some(heads.now);
    head.row.open_tasks = 0;
    let sql = "UPDATE workflow_steps SET state = 'cancelled', ended_ms = $2, due_ms = NULL
               WHERE workflow = $1 AND state IN ('waiting', 'ready', 'running')";
    on!(&mut *tx, tx => sqlx::query(sql).bind(workflow).bind(heads.now).execute(&mut **tx).await.map(drop))?;
    heads.event(workflow, kind, None, None, Some(why));
    Ok(())
}

/// What did not come to a good end is open again. Returns how many.
async fn reopen(tx: &mut Tx, workflow: i64, now: i64) -> Result<i64, sqlx::Error> {
    const REOPEN: Sql = given!(
        "UPDATE workflow_steps SET state = CASE WHEN open_needs = 0 THEN 'ready' ELSE 'waiting' END,
             queued_ms = CASE WHEN open_needs = 0 THEN t ELSE NULL END, attempts = 0, losses = 0, started_ms = NULL,
             ended_ms = NULL, due_ms = NULL, failure = NULL, message = NULL, worker = NULL
         FROM (SELECT CAST(value->>0 AS BIGINT) AS w, CAST(value->>1 AS BIGINT) AS t FROM ",
        ") AS reopened WHERE workflow = w AND state IN ('failed', 'cancelled', 'skipped') RETURNING position"
    );
    let opened: Vec<(i64,)> = each(tx, &REOPEN, &[(workflow, now)]).await?;
    Ok(opened.len() as i64)
}
