//! `tandem provision`

use clap::Args;
use serde::Serialize;

use super::client::{self, table};
use super::{Ended, Error};
use crate::bus::streams::{self, Made};
use crate::bus::{self, connect};
use crate::config::Variables;

/// Create the streams of durable work and the workers' consumer, and give those that exist the configured amounts
/// (`nats.streams`, `nats.ack_wait_ms`). What is as it should be is left alone, so it may run before every start.
///
/// Workers with `nats.provision = "verify"` need it, run with credentials that may create streams:
///
///   NATS_URL=nats://bus:4222 NATS_USER=admin NATS_PASSWORD=… tandem provision
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    made: Made,
}

pub(super) async fn run(arguments: &Arguments, variables: &Variables) -> Result<Ended, Error> {
    let nats = client::config(variables).await?.nats;
    let connection = connect(&nats).await?;
    let work = async {
        if arguments.dry_run {
            streams::plan(&connection.client, &nats.streams, nats.ack_wait()).await
        } else {
            streams::create_all(&connection.client, &nats.streams, nats.ack_wait()).await
        }
    };
    let done = tokio::select! {
        done = work => done?,
        said = connection.signs.denied() => return Err(bus::Error::Denied { said }.into()),
    };
    let rows: Vec<Row> = done.into_iter().map(|(name, made)| Row { name, made }).collect();
    if arguments.json {
        let all = serde_json::json!({ "dry_run": arguments.dry_run, "done": rows });
        say!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        let said = |made| match (made, arguments.dry_run) {
            (Made::Created, false) => "created",
            (Made::Created, true) => "would be created",
            (Made::Changed, false) => "changed",
            (Made::Changed, true) => "would be changed",
            (Made::Unchanged, _) => "unchanged",
        };
        let rows: Vec<_> = rows.iter().map(|row| vec![row.name.to_owned(), said(row.made).to_owned()]).collect();
        table(&["what", "state"], &rows);
    }
    Ok(Ended::Well)
}
