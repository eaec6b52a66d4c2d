//! `tandem backup`

use std::path::PathBuf;

use clap::Args;

use super::{Ended, Error};
use crate::config::{Config, Variables};
use crate::store::Store;

/// Copy the SQLite database into a new file, while workers run: what is in the copy is one moment's state. To restore it,
/// stop all workers and put it in the place of the database (docs/operations.md).
///
///   tandem backup /backups/tandem-2026-11-21.db
///
/// PostgreSQL has pg_dump for this: pg_dump --format=custom --file=FILE "$DATABASE_URL"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The file to make. It must not be there yet.
    file: PathBuf,
}

pub(super) async fn run(arguments: Arguments, variables: &Variables) -> Result<Ended, Error> {
    let config = Config::load(variables)?;
    let bytes = Store::back_up(&config.database, &arguments.file).await?;
    say!("{}: {bytes} bytes", arguments.file.display());
    Ok(Ended::Well)
}
