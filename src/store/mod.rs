//! All SQL of Tandem. The database is the truth; two dialects meet here and nowhere else.
//!
//! SQLite is one file on a local disk that several workers of one machine may share: many readers, one writing
//! connection per process, every write transaction `BEGIN IMMEDIATE`. PostgreSQL is for workers on several machines.
//! Both behave alike; every test runs on both.
//!
//! Locks are always taken in this order, so that two workers can't wait for each other: rows of `executions` (sorted),
//! of `execution_days` (sorted), of `feedback`, of `template_edges` (sorted), the lock of `budget::guard`, rows of
//! `budgets` (sorted), of `budget_leases` (sorted), of `model_days` (sorted), the one row of `cache_sequence`, rows of
//! `claims` (sorted). Limits of models are taken in transactions of their own, one at a time for each model.

mod backup;
mod batch;
mod budget;
mod claims;
mod entries;
mod error;
mod feedback;
mod flights;
mod group;
mod learning;
mod ledger;
mod limits;
mod open;
mod options;
mod recorder;
mod repeats;
mod retention;
mod rows;
mod sums;
pub mod workflows;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

pub use batch::Write;
pub use budget::{Caps, LeaseId, Leased, Scope, Standing, grant};
pub use claims::{Claim, Delivery};
pub use entries::{Changes, Sequence};
pub use error::Error;
pub use feedback::Judgement;
pub use flights::Lead;
pub use ledger::Entry;
pub use limits::{Amount, Report, Turn, Use, Want};
#[cfg(test)]
pub(crate) use limits::{Share as WorkerShare, Standing as LimitStanding};
pub use options::{Durability, Options};
pub use recorder::{Recorder, RecorderOptions};
pub use retention::{Reach, RetentionOptions, Rows};

use group::Group;

/// Which database is behind a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// The database. Cloning is cheap and shares the connections.
#[derive(Debug, Clone)]
pub struct Store {
    read: Db<SqlitePool, PgPool>,
    write: Db<SqlitePool, PgPool>,
    group: Group,
    replies_kept: Duration,
    /// How the database is called in logs and errors: never with a password.
    place: Arc<str>,
}

impl Store {
    /// Connects, creates the SQLite file with its folder where they are missing, and brings the tables up to date.
    /// Several processes may do this at once. Takes at most about `connect_timeout_ms`.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        open::open(options).await
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), Error> {
        on!(&self.read, pool => sqlx::query("SELECT 1").execute(pool).await.map(drop)).map_err(Error::during("ping"))
    }

    pub fn backend(&self) -> Backend {
        match self.read {
            Db::Sqlite(_) => Backend::Sqlite,
            Db::Postgres(_) => Backend::Postgres,
        }
    }

    /// Where the database is, for people: without a password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Waits for what runs, then closes every connection. Later calls fail.
    pub async fn close(&self) {
        on!(&self.write, pool => pool.close().await);
        on!(&self.read, pool => pool.close().await);
    }

    /// A transaction that will write.
    async fn begin(&self) -> Result<Tx, sqlx::Error> {
        // A deferred transaction that reads first could find another process's write when it wants to write itself;
        // SQLite then fails at once, without waiting. IMMEDIATE waits at the door.
        Ok(match &self.write {
            Db::Sqlite(pool) => Db::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Db::Postgres(pool) => Db::Postgres(pool.begin().await?),
        })
    }
}

/// One of two databases' something: their pools, their transactions.
#[derive(Debug, Clone)]
enum Db<S, P> {
    Sqlite(S),
    Postgres(P),
}

type Tx = Db<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>;

impl Tx {
    async fn commit(self) -> Result<(), sqlx::Error> {
        on!(self, tx => tx.commit().await)
    }
}

/// Runs one expression against whichever database it is: `on!(&self.read, pool => query("…").execute(pool).await)`.
macro_rules! on {
    ($target:expr, $db:ident => $body:expr) => {
        match $target {
            $crate::store::Db::Sqlite($db) => $body,
            $crate::store::Db::Postgres($db) => $body,
        }
    };
}
use on;
