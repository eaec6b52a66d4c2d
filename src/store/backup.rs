use std::path::Path;
use std::str::FromStr;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::options::{is_postgres, place};
use super::{Error, Options, Store};

impl Store {
    /// Copies a SQLite database into a new file: one moment's state, complete and without what deleted rows left behind.
    /// Readers and writers go on. Returns the copy's bytes.
    pub async fn back_up(options: &Options, to: &Path) -> Result<u64, Error> {
        let place = place(&options.url);
        let wrong = |mend| Error::Address { place: place.clone(), mend };
        if is_postgres(&options.url) {
            return Err(wrong("PostgreSQL is copied by its own program: pg_dump --format=custom --file=FILE URL"));
        }
        let from = SqliteConnectOptions::from_str(&options.url).map_err(|_| wrong("write `sqlite:` and a path"))?;
        if !from.get_filename().is_file() {
            return Err(wrong("there is no such file"));
        }
        let failed = |source| Error::Copy { to: to.to_owned(), source };
        if to.try_exists().map_err(failed)? {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        // Under another name first, and for its owner only: what is there under the right one is complete.
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = std::path::PathBuf::from(part);
        let _left_by_another_run = std::fs::remove_file(&part);
        let mut file = std::fs::OpenOptions::new();
        file.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
        drop(file.open(&part).map_err(failed)?);
        let name = part.to_str().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
        let copy = async {
            let mut connection = from.create_if_missing(false).disable_statement_logging().connect().await?;
            sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await?;
            connection.close().await
        };
        copy.await.map_err(Error::during("copy the database"))?;
        let written = std::fs::File::open(&part).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        let bytes = written.map_err(failed)?;
        std::fs::rename(&part, to).map_err(failed)?;
        Ok(bytes)
    }
}
