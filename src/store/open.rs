use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::error::mend;
use super::group::Group;
use super::options::{is_postgres, place};
use super::{Db, Durability, Error, Options, Store};

// What a newer tandem has added is left alone: in a rolling upgrade the old workers start and serve beside the new ones.
// That holds because migrations only add; see docs/upgrading.md.
static SQLITE: Migrator = Migrator { ignore_missing: true, ..sqlx::migrate!("src/store/migrations/sqlite") };
static POSTGRES: Migrator = Migrator { ignore_missing: true, ..sqlx::migrate!("src/store/migrations/postgres") };

const SQLITE_READERS: u32 = 4;
/// Pages in SQLite's log after which the writer copies them into the file itself: 64 MiB. It is mostly done beside it; see
/// `Store::keep_log_short`.
const LOG_PAGES: &str = "16000";
/// How long SQLite waits for another process's write transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn open(options: &Options) -> Result<Store, Error> {
    let place = place(&options.url);
    let limit = Duration::from_millis(options.connect_timeout_ms);
    let connect = async {
        if options.url.starts_with("sqlite:") {
            sqlite(options, &place).await
        } else if is_postgres(&options.url) {
            postgres(options, &place).await
        } else {
            let place = if place.is_empty() { "an empty text".to_owned() } else { place.clone() };
            let mend = "write `sqlite:` and a path, or `postgres://user:password@host:port/database`";
            Err(Error::Address { place, mend })
        }
    };
    let opened = tokio::time::timeout(limit, Box::pin(connect)).await;
    opened.unwrap_or_else(|_| Err(Error::ConnectTimeout { place: place.clone(), limit }))
}

async fn sqlite(options: &Options, place: &str) -> Result<Store, Error> {
    let wrong = |mend| Error::Address { place: place.to_owned(), mend };
    if options.url.contains(":memory:") || options.url.contains("mode=memory") {
        return Err(wrong("every connection would have a database of its own; name a file"));
    }
    let to = SqliteConnectOptions::from_str(&options.url).map_err(|_| wrong("write `sqlite:` and a path"))?;
    let file = to.get_filename().to_owned();
    if file.as_os_str().is_empty() {
        return Err(wrong("write a path after `sqlite:`"));
    }
    create_folder(&file)?;

    let to = to
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", LOG_PAGES)
        .synchronous(match options.durability {
            Durability::Process => SqliteSynchronous::Normal,
            Durability::Power => SqliteSynchronous::Full,
        })
        // A page of cache entries comes without a stop at every fiftieth row.
        .row_buffer_size(1_000)
        .disable_statement_logging();
    let failed = |source| Error::Connect { place: place.to_owned(), mend: mend(&source), source };
    {
        // Several processes that turn a new file to WAL at once get "database is locked" without waiting.
        let _lock = lock(&file).await?;
        let mut connection = to.connect().await.map_err(failed)?;
        let mut all = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        SQLITE.run_direct(None, &mut *all, false).await.map_err(|source| migrating(place, source))?;
        all.commit().await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
    }
    let pool = |max| {
        SqlitePoolOptions::new()
            .max_connections(max)
            .acquire_timeout(Duration::from_millis(options.connect_timeout_ms))
            .test_before_acquire(false)
            // After a commit that failed (a full disk) SQLite has rolled back by itself and refuses another ROLLBACK;
            // sqlx 0.9 then counts a transaction for ever, and nothing could be written through that connection.
            .before_acquire(|connection, _| {
                Box::pin(async move {
                    if connection.is_in_transaction() {
                        // A rollback may still be on its way.
                        connection.ping().await?;
                    }
                    Ok(!connection.is_in_transaction())
                })
            })
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let read = pool(SQLITE_READERS).connect_lazy_with(to.clone().optimize_on_close(false, None));
    let write = pool(1).connect_lazy_with(to.optimize_on_close(true, None));
    Ok(store(Db::Sqlite(read), Db::Sqlite(write), options, place))
}

async fn postgres(options: &Options, place: &str) -> Result<Store, Error> {
    let wrong = |_| Error::Address {
        place: place.to_owned(),
        mend: "write `postgres://user:password@host:port/database`, special characters percent-encoded",
    };
    let to =
        PgConnectOptions::from_str(&options.url).map_err(wrong)?.application_name("tandem").disable_statement_logging();
    // Never turned off: then a server that is killed forgets what it acknowledged, numbers of cache changes are given
    // out a second time, and a worker that has seen them misses the new ones.
    let to = match options.durability {
        Durability::Process => to,
        Durability::Power => to.options([("synchronous_commit", "on")]),
    };
    // Not through the pool: that would try until the time is over and then not say what was wrong.
    let failed = |source| Error::Connect { place: place.to_owned(), mend: mend(&source), source };
    let mut connection = to.connect().await.map_err(failed)?;
    POSTGRES.run_direct(None, &mut connection, false).await.map_err(|source| migrating(place, source))?;
    connection.close().await.map_err(failed)?;

    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections.max(1))
        .acquire_timeout(Duration::from_millis(options.connect_timeout_ms))
        .connect_lazy_with(to);
    Ok(store(Db::Postgres(pool.clone()), Db::Postgres(pool), options, place))
}

fn store(
    read: Db<sqlx::SqlitePool, sqlx::PgPool>,
    write: Db<sqlx::SqlitePool, sqlx::PgPool>,
    options: &Options,
    place: &str,
) -> Store {
    let replies_kept = Duration::from_secs(u64::from(options.replies_kept_days) * 24 * 3600);
    // Several connections commit side by side; SQLite has one writer. Half, so that others find one, too.
    let side_by_side = match &write {
        Db::Sqlite(_) => 1,
        Db::Postgres(_) => (options.max_connections as usize / 2).max(1),
    };
    Store { read, write, begun: Arc::default(), group: Group::new(side_by_side), replies_kept, place: place.into() }
}

fn migrating(place: &str, source: MigrateError) -> Error {
    let mend = match source {
        MigrateError::VersionMismatch(_) => "they were made by another build of tandem; restore a copy or start anew",
        _ => "see the cause",
    };
    Error::Migrate { place: place.to_owned(), mend, source }
}

/// The database holds what tenants wrote: a folder made for it is its owner's only.
fn create_folder(file: &Path) -> Result<(), Error> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| Error::Folder { folder: folder.to_owned(), source })
}

/// Holds `<file>.lock` until dropped; the system frees it if the process dies.
async fn lock(file: &Path) -> Result<File, Error> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let path = std::path::PathBuf::from(name);
    let failed = |source| Error::Lock { file: path.clone(), source };
    let open = {
        let path = path.clone();
        move || {
            let file = File::create(path)?;
            file.lock()?;
            Ok(file)
        }
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(locked) => locked.map_err(failed),
        Err(ended) => Err(failed(std::io::Error::other(ended))),
    }
}
