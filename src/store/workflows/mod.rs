//! Workflows in the database. Whoever holds a workflow's row (`workflows`, in the order of their numbers) may change what is
//! below it: its steps, outputs, history and events. Statements take rows as JSON, so that a batch of any size is a handful
//! of them.

mod advance;
mod command;
mod events;
mod purge;
mod read;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow};

use super::rows::decode;
use super::{Db, Tx};
use crate::domain::Timestamp;
use crate::domain::workflow::{EventKind, State, TaskState};

pub use advance::{Advanced, Batch, Claimed, Did, End, Ended, Optimized, Start, Started};
pub use events::{Notice, Noticed, Publication};
pub use read::{Attempts, Filter, Listed, Status, StepStatus};
pub use sweep::{Held, Swept};

/// A statement that reads its rows from JSON, in `$1`: `value->>0` is the first of a row. In SQLite `jsonb_each` takes half the time of
/// `json_each`, which writes each row out as text and reads it again.
struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

/// What stands before and after the rows; a third part is for PostgreSQL only.
macro_rules! given {
    ($before:expr, $after:expr) => {
        $crate::store::workflows::given!($before, $after, "")
    };
    ($before:expr, $after:expr, $postgres:expr) => {
        $crate::store::workflows::Sql {
            sqlite: concat!($before, "jsonb_each($1) AS given", $after),
            postgres: concat!($before, "json_array_elements($1::json) AS given(value)", $after, $postgres),
        }
    };
}
use given;

/// Runs a statement over rows, and reads what it returns.
async fn each<T>(tx: &mut Tx, sql: &'static Sql, rows: &impl Serialize) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let mut one = Together::default();
    one.add(sql, rows)?;
    one.run(tx).await
}

/// As [`each`], for what returns nothing.
async fn each_of(tx: &mut Tx, sql: &'static Sql, rows: &impl Serialize) -> Result<(), sqlx::Error> {
    each::<(i64,)>(tx, sql, rows).await.map(drop)
}

/// Statements that go to the database in one: on the way there and back most of their time is spent. None may read what another
/// of them writes, and only the last returns rows.
#[derive(Default)]
struct Together {
    statements: Vec<&'static Sql>,
    rows: Vec<String>,
}

impl Together {
    fn add(&mut self, sql: &'static Sql, rows: &impl Serialize) -> Result<(), sqlx::Error> {
        self.rows.push(serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))?);
        self.statements.push(sql);
        Ok(())
    }

    /// As [`add`](Self::add), where there are rows.
    fn add_any(&mut self, sql: &'static Sql, rows: &[impl Serialize]) -> Result<(), sqlx::Error> {
        if rows.is_empty() { Ok(()) } else { self.add(sql, &rows) }
    }

    async fn run<T>(self, tx: &mut Tx) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        if self.statements.is_empty() {
            return Ok(vec![]);
        }
        // Each statement calls its rows `$1`.
        let numbered = |text: fn(&Sql) -> &'static str| -> Vec<String> {
            let statements = self.statements.iter().enumerate();
            statements.map(|(at, sql)| text(sql).replace("$1", &format!("${}", at + 1))).collect()
        };
        match tx {
            Db::Sqlite(tx) => {
                let sql = AssertSqlSafe(numbered(|sql| sql.sqlite).join(";\n"));
                let query = self.rows.into_iter().fold(sqlx::query_as(sql), |query, rows| query.bind(rows));
                query.fetch_all(&mut **tx).await
            }
            Db::Postgres(tx) => {
                let mut statements = numbered(|sql| sql.postgres);
                let last = statements.pop().unwrap_or_default();
                let parts: Vec<String> =
                    statements.iter().enumerate().map(|(at, sql)| format!("part{at} AS ({sql})")).collect();
                let with = if parts.is_empty() { String::new() } else { format!("WITH {} ", parts.join(",\n")) };
                let sql = AssertSqlSafe(with + &last);
                let query = self.rows.into_iter().fold(sqlx::query_as(sql), |query, rows| query.bind(rows));
                query.fetch_all(&mut **tx).await
            }
        }
    }
}

/// The database's own time: workers on several machines compare nobody's clocks. SQLite's is this machine's.
async fn clock(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    match tx {
        Db::Sqlite(_) => Ok(Timestamp::now().0),
        Db::Postgres(tx) => {
            let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            let (now,): (i64,) = sqlx::query_as(now).fetch_one(&mut **tx).await?;
            Ok(now)
        }
    }
}

/// Somebody's words as they may stand in TEXT, and not too many of them.
fn words(text: &str) -> String {
    text.chars().take(2_000).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn state(text: &str) -> Result<State, sqlx::Error> {
    State::named(text).ok_or_else(|| decode(format!("no state of a workflow {text:?}")))
}

fn task_state(text: &str) -> Result<TaskState, sqlx::Error> {
    TaskState::named(text).ok_or_else(|| decode(format!("no state of a task {text:?}")))
}

/// A position or an attempt, as it stands in a row.
fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// What is read of a workflow's row, and the database's time.
macro_rules! head {
    ($now:expr, $where:expr) => {
        concat!(
            "SELECT number, state, reason, open_tasks, failed_tasks, completed, slots, events, monitored, announced, rank_ms, ended_ms,
                    deadline_ms, claimable, ",
            $now,
            " AS now FROM workflows WHERE ",
            $where
        )
    };
    (sqlite $where:expr) => {
        $crate::store::workflows::head!("CAST(unixepoch('subsec') * 1000 AS INTEGER)", $where)
    };
    (postgres $where:expr) => {
        $crate::store::workflows::head!("(extract(epoch FROM clock_timestamp()) * 1000)::bigint", $where)
    };
}
use head;

/// What of a workflow's row changes with its steps.
#[derive(Debug, Clone, FromRow)]
struct HeadRow {
    number: i64,
    state: String,
    reason: Option<String>,
    open_tasks: i64,
    failed_tasks: i64,
    completed: i64,
    slots: i64,
    events: i64,
    monitored: i64,
    announced: i64,
    rank_ms: i64,
    ended_ms: Option<i64>,
    deadline_ms: i64,
    /// A task was ready and there was a slot.
    claimable: i64,
    now: i64,
}

#[derive(Debug, Clone)]
struct Head {
    row: HeadRow,
    state: State,
}

/// The workflows that a transaction holds, with what it does to them.
#[derive(Default)]
struct Heads {
    now: i64,
    by_number: BTreeMap<i64, Head>,
    events: Vec<EventRow>,
}

/// Workflow, number, at, kind, position, attempt, message, waits.
type EventRow = (i64, i64, i64, String, Option<u32>, Option<u32>, Option<String>, i64);

impl Heads {
    async fn begin(tx: &mut Tx) -> Result<Self, sqlx::Error> {
        Ok(Self { now: clock(tx).await?, ..Self::default() })
    }

    /// Begins by holding these; their rows bring the time.
    async fn holding(tx: &mut Tx, numbers: &BTreeSet<i64>) -> Result<Self, sqlx::Error> {
        let mut heads = Self::default();
        heads.hold(tx, numbers).await?;
        heads.now = match heads.by_number.values().map(|head| head.row.now).max() {
            Some(now) => now,
            None => clock(tx).await?,
        };
        Ok(heads)
    }

    /// Holds these until the end of the transaction. Where others hold one, it is waited for.
    async fn hold(&mut self, tx: &mut Tx, numbers: &BTreeSet<i64>) -> Result<(), sqlx::Error> {
        const HOLD: Sql = Sql {
            sqlite: head!(sqlite "number IN (SELECT CAST(value->>0 AS BIGINT) FROM jsonb_each($1)) ORDER BY number"),
            postgres: head!(
                postgres "number IN (SELECT CAST(value->>0 AS BIGINT) FROM json_array_elements($1::json))
                          ORDER BY number FOR UPDATE"
            ),
        };
        let rows: Vec<(i64,)> = numbers.iter().filter(|n| !self.by_number.contains_key(n)).map(|n| (*n,)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let found = each(tx, &HOLD, &rows).await?;
        self.add(found)
    }

    fn add(&mut self, rows: Vec<HeadRow>) -> Result<(), sqlx::Error> {
        for row in rows {
            let state = state(&row.state)?;
            self.by_number.entry(row.number).or_insert(Head { row, state });
        }
        Ok(())
    }

    fn event(
        &mut self,
        workflow: i64,
        kind: &EventKind,
        position: Option<u32>,
        attempt: Option<u32>,
        message: Option<&str>,
    ) {
        let now = self.now;
        self.event_at(workflow, now, kind, position, attempt, message);
    }

    fn event_at(
        &mut self,
        workflow: i64,
        at: i64,
        kind: &EventKind,
        position: Option<u32>,
        attempt: Option<u32>,
        message: Option<&str>,
    ) {
        let Some(head) = self.by_number.get_mut(&workflow).filter(|head| head.row.monitored == 1) else { return };
        head.row.events += 1;
        let (number, waits) = (head.row.events, head.row.announced);
        let row = (workflow, number, at, kind.as_str().to_owned(), position, attempt, message.map(words), waits);
        self.events.push(row);
    }

    /// Ends a workflow whose last task has ended.
    fn end_where_done(&mut self, workflow: i64) {
        let Some(head) = self.by_number.get_mut(&workflow) else { return };
        if head.state.is_over() || head.row.open_tasks > 0 {
            return;
        }
        head.state = head.state.at_the_end(head.row.failed_tasks > 0);
        head.row.ended_ms = Some(self.now);
        if head.state == State::Failed {
            let message = match head.row.failed_tasks {
                1 => "a task failed".to_owned(),
                many => format!("{many} tasks failed"),
            };
            head.row.reason = Some(message.clone());
            self.event(workflow, &EventKind::ExecutionFailed, None, None, Some(&message));
        } else {
            self.event(workflow, &EventKind::ExecutionCompleted, None, None, None);
        }
    }

    /// Writes down what became of the workflows, and their events. Returns those of which more could be begun.
    /// `along` is what else there is to write.
    async fn save(self, tx: &mut Tx, mut along: Together) -> Result<Vec<i64>, sqlx::Error> {
        const EVENTS: Sql = given!(
            "INSERT INTO workflow_events (workflow, number, at_ms, kind, position, attempt, message, waits)
             SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), value->>3,
                    CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT), value->>6, CAST(value->>7 AS BIGINT) FROM ",
            ""
        );
        const SAVE: Sql = given!(
            "UPDATE workflows SET state = s, reason = r, open_tasks = o, failed_tasks = f, slots = l, events = e, changed_ms = c,
                 ended_ms = x, deadline_ms = d, completed = k,
                 claimable = CASE WHEN s = 'running' AND l > 0 AND EXISTS
                     (SELECT 1 FROM workflow_steps AS w WHERE w.workflow = workflows.number AND w.state = 'ready')
                     THEN 1 ELSE 0 END
             FROM (SELECT CAST(value->>0 AS BIGINT) AS n, value->>1 AS s, value->>2 AS r, CAST(value->>3 AS BIGINT) AS o,
                          CAST(value->>4 AS BIGINT) AS f, CAST(value->>5 AS BIGINT) AS l, CAST(value->>6 AS BIGINT) AS e,
                          CAST(value->>7 AS BIGINT) AS c, CAST(value->>8 AS BIGINT) AS x, CAST(value->>9 AS BIGINT) AS d,
                          CAST(value->>10 AS BIGINT) AS k
                   FROM ",
            ") AS to_be WHERE number = n RETURNING number, claimable"
        );
        along.add_any(&EVENTS, &self.events)?;
        let now = self.now;
        let rows: Vec<_> = self
            .by_number
            .values()
            .map(|Head { row, state }| {
                let HeadRow { number, reason, open_tasks, failed_tasks, slots, events, ended_ms, .. } = row;
                let (open, failed, deadline, done) = (open_tasks, failed_tasks, row.deadline_ms, row.completed);
                (number, state.as_str(), reason, open, failed, slots, events, now, ended_ms, deadline, done)
            })
            .collect();
        along.add_any(&SAVE, &rows)?;
        let saved: Vec<(i64, i64)> = along.run(tx).await?;
        Ok(saved.into_iter().filter(|(_, claimable)| *claimable == 1).map(|(number, _)| number).collect())
    }
}
