//! `tandem serve`

use clap::Args;
use tokio::runtime::Handle;

use super::{Ended, Error};
use crate::app;
use crate::config::{Config, Paths, Variables, credentials};

/// Run a worker until it is told to stop (Ctrl-C or SIGTERM: it answers what it has taken; a second one ends it at
/// once).
///
///   tandem serve --with-nats                                   everything on this machine
///   NATS_URL=nats://bus:4222 DATABASE_URL=postgres://… tandem serve
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Start a nats-server of one's own, on loopback, that ends with this worker. Its address goes to
    /// $XDG_STATE_HOME/tandem/nats.url, where the other commands find it.
    #[arg(long)]
    with_nats: bool,
    /// The port for that server; without it a free one.
    #[arg(long, requires = "with_nats")]
    nats_port: Option<u16>,
    /// How long to wait at the end for what is being done, in seconds.
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

pub(super) async fn run(
    arguments: Arguments,
    config: Config,
    variables: &Variables,
    workshop: Handle,
) -> Result<Ended, Error> {
    let options = app::Serve {
        with_nats: arguments.with_nats,
        nats_port: arguments.nats_port,
        grace: std::time::Duration::from_secs(arguments.grace),
        workshop,
    };
    app::serve(config, Paths::new(variables), credentials(variables), options).await?;
    Ok(Ended::Well)
}
