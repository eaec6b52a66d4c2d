//! `tandem config`

use clap::Subcommand;

use super::{Ended, Error};
use crate::config::{Config, Variables, credentials};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the configuration in force, as TOML. Keys and passwords are never part of it.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration without starting anything.
    Check {
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Show { json } => {
            let config = Config::load(variables)?;
            if *json {
                say!("{}", serde_json::to_string_pretty(&config)?);
            } else {
                let text = toml::to_string_pretty(&config).map_err(|e| Error::Usage(e.to_string()))?;
                say!("{}", text.trim_end_matches('\n'));
            }
            Ok(Ended::Well)
        }
        Command::Check { json } => {
            let checked = Config::load(variables).map_err(Error::from).and_then(|config| {
                config.nats.check_files()?;
                crate::llm::Client::new(config.llm, credentials(variables), None)
                    .map_err(|e| Error::Usage(e.to_string()))
            });
            match (checked, json) {
                (Ok(_), true) => say!("{}", serde_json::json!({ "ok": true })),
                (Ok(_), false) => say!("the configuration is good"),
                (Err(error), true) => {
                    say!("{}", serde_json::json!({ "ok": false, "message": super::chain(&error) }));
                    return Ok(Ended::Refused);
                }
                (Err(error), false) => return Err(error),
            }
            Ok(Ended::Well)
        }
    }
}
