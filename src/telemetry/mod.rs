//! Log lines: one subscriber, two shapes, one place for their names.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged, and how. Lines go to standard error.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `auto`: for people on a terminal, JSON elsewhere.
    pub format: Format,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or filters by module: `tandem=debug,info`.
    pub level: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Auto,
    Text,
    Json,
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.level: {level:?} is no level and no filter; try \"info\" or \"tandem=debug,info\"")]
    Level { level: String, source: tracing_subscriber::filter::ParseError },
    #[error("start logging")]
    Start(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the process. Every line inside a request carries its `correlation.id`.
pub fn start(options: &Options) -> Result<(), Error> {
    let filter =
        EnvFilter::try_new(&options.level).map_err(|source| Error::Level { level: options.level.clone(), source })?;
    let terminal = std::io::stderr().is_terminal();
    let json = match options.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    if json {
        registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()?;
    } else {
        registry.with(lines.with_target(false)).try_init()?;
    }
    Ok(())
}
