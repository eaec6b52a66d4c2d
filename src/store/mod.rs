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
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Each statement that carries workflows on finds its few rows by an index. PostgreSQL would not know: it plans once, mostly while the tables are
/// empty, and then reads them whole, or every dead entry of an index, for as long as the connection lives. Where there is no index,
/// what is off is taken nevertheless, and its cost by the book would be a reason to compile it.
const BEGIN_BY_INDEX: &str = "BEGIN; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
     SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off";
/// Transactions after which SQLite's log is copied into its file.
const COPY_LOG_EVERY: u64 = 256;

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
    /// Transactions that SQLite was asked for.
    begun: Arc<AtomicU64>,
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
            Db::Sqlite(pool) => {
                self.keep_log_short();
                Db::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)
            }
            Db::Postgres(pool) => Db::Postgres(pool.begin().await?),
        })
    }

    /// The same for statements that each find few rows among many.
    async fn begin_by_index(&self) -> Result<Tx, sqlx::Error> {
        match &self.write {
            Db::Sqlite(_) => self.begin().await,
            Db::Postgres(pool) => Ok(Db::Postgres(pool.begin_with(BEGIN_BY_INDEX).await?)),
        }
    }

    /// Now and then has SQLite copy its log into the file. That waits for the disk, so it is done beside the writer.
    fn keep_log_short(&self) {
        let count = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        if let Db::Sqlite(pool) = &self.read
            && count.is_multiple_of(COPY_LOG_EVERY)
        {
            let pool = pool.clone();
            tokio::spawn(async move {
                if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&pool).await {
                    tracing::debug!(%error, "SQLite's log could not be copied into its file; it is tried again");
                }
            });
        }
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
