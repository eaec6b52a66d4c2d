use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use crate::telemetry::meters;

/// What went wrong with the database. No text here holds a password, a task or an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{place} names no database: {mend}")]
    Address { place: String, mend: &'static str },
    #[error("create the folder {folder}: give this user the right to, or name another file")]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("lock {file} while the database is prepared: give this user the right to write there")]
    Lock { file: PathBuf, source: std::io::Error },
    #[error("write the copy {to}: name a new file in a folder that this user may write to")]
    Copy { to: PathBuf, source: std::io::Error },
    #[error("connect to {place}: {mend}")]
    Connect { place: String, mend: &'static str, source: sqlx::Error },
    #[error("connect to {place}: no answer within {limit:?}; check that it runs and that host and port are right")]
    ConnectTimeout { place: String, limit: Duration },
    #[error("prepare the tables of {place}: {mend}")]
    Migrate { place: String, mend: &'static str, source: MigrateError },
    #[error("{action}")]
    Query { action: &'static str, source: sqlx::Error },
    #[error("{action}: the database did not answer within {limit:?}")]
    Timeout { action: &'static str, limit: Duration },
    /// What went wrong with a transaction that several calls shared.
    #[error("{action}")]
    Shared { action: &'static str, source: Arc<Error> },
    #[error("write: the task that does it has stopped")]
    Stopped,
}

impl Error {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Folder { .. } | Self::Lock { .. } | Self::Copy { .. } | Self::Stopped => false,
            Self::ConnectTimeout { .. } | Self::Timeout { .. } => true,
            Self::Shared { source, .. } => source.is_transient(),
            Self::Migrate { source: MigrateError::Execute(source), .. } => may_pass(source),
            Self::Migrate { .. } => false,
            Self::Connect { source, .. } | Self::Query { source, .. } => may_pass(source),
        }
    }

    /// Whether the database works and refuses what it was given: the same call will fail again, another may succeed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Query { source: sqlx::Error::Database(error), .. } => match code(error.as_ref()) {
                // TOOBIG, CONSTRAINT, MISMATCH
                Code::Sqlite(primary) => matches!(primary, 18..=20),
                // data exception, integrity constraint, program limit exceeded
                Code::Postgres(state) => ["22", "23", "54"].iter().any(|class| state.starts_with(class)),
            },
            Self::Query { source: sqlx::Error::Encode(_), .. } => true,
            Self::Shared { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// Whether one of several calls in a transaction may have spoilt it for the others: by what it held, or by waiting for
    /// a lock in the other order than another transaction. Not where the database is away: it is for all.
    pub(super) fn may_be_of_one(&self) -> bool {
        let deadlock = |error: &(dyn DatabaseError + 'static)| matches!(code(error), Code::Postgres(state) if state.starts_with("40"));
        match self {
            Self::Query { source: sqlx::Error::Database(error), .. } if deadlock(error.as_ref()) => true,
            _ => !self.is_transient(),
        }
    }

    /// With all its causes, on one line, for the log.
    pub(super) fn in_full(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    pub(super) fn during(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| {
            meters().database_errors.increment(1);
            Self::Query { action, source }
        }
    }
}

/// What to do about a connection that failed.
pub(super) fn mend(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there; start the server, or correct host and port"
        }
        sqlx::Error::Io(_) => "check host and port, and that the server runs",
        sqlx::Error::Tls(_) => "the server and this worker do not agree on TLS; check `sslmode`",
        sqlx::Error::Database(error) => match code(error.as_ref()) {
            Code::Postgres(state) => match state.as_str() {
                "3D000" => "there is no such database; create it with `createdb`",
                "28P01" | "28000" => "the server does not let this user in; check user and password",
                "53300" => "the server has no connection left; lower `max_connections` or raise the server's",
                "57P03" => "the server is starting or stopping; try again",
                _ => "see the cause",
            },
            Code::Sqlite(5 | 6) => "another process holds the file locked; end it, or try again",
            Code::Sqlite(8 | 14) => "the file can't be opened for writing; check its path and rights",
            Code::Sqlite(11 | 26) => "the file is damaged or no SQLite database; restore it or name another",
            Code::Sqlite(_) => "see the cause",
        },
        _ => "see the cause",
    }
}

enum Code {
    /// The primary result code.
    Sqlite(u32),
    /// The five letters of SQLSTATE.
    Postgres(String),
}

fn code(error: &(dyn DatabaseError + 'static)) -> Code {
    let text = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        Code::Sqlite(text.parse::<u32>().unwrap_or(1) & 0xff)
    } else {
        Code::Postgres(text.into_owned())
    }
}

fn may_pass(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::WorkerCrashed | E::BeginFailed => true,
        E::Database(error) => match code(error.as_ref()) {
            // BUSY, LOCKED, IOERR, FULL, CANTOPEN
            Code::Sqlite(primary) => matches!(primary, 5 | 6 | 10 | 13 | 14),
            // connection, rollback, no resources, no access to the object, the operator, the system below
            Code::Postgres(state) => ["08", "40", "53", "55", "57", "58"].iter().any(|class| state.starts_with(class)),
        },
        _ => false,
    }
}
