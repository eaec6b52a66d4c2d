//! What a worker tells its operator: log lines, figures for a scrape, spans for a collector. One place for their names.

pub mod metrics;
pub mod trace;

use std::io::IsTerminal;
use std::time::Duration;

pub use metrics::{Figures, Meters, meters};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::{Subscriber, level_filters::LevelFilter, warn};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

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
    #[error(transparent)]
    Trace(#[from] trace::Error),
}

/// Logging, and traces where they are on. What waits to be sent is sent by [`Telemetry::stop`].
#[must_use = "what waits to be sent is lost without stop"]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends what waits, for at most some seconds. Blocks; the runtime that it was started in must still run.
    pub fn stop(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(FAREWELL)) {
            warn!(%error, "the last traces could not be sent");
        }
    }
}

/// For the last spans.
const FAREWELL: Duration = Duration::from_secs(3);

/// Starts logging for the process, and traces where they are on: then inside a runtime. Every line inside a request
/// carries its `correlation.id`.
pub fn start(options: &Options, traces: &trace::Options) -> Result<Telemetry, Error> {
    let filter =
        EnvFilter::try_new(&options.level).map_err(|source| Error::Level { level: options.level.clone(), source })?;
    if !traces.is_on() {
        // One filter for all: a span that nobody shows costs nothing.
        tracing_subscriber::registry().with(filter).with(lines(options)).try_init()?;
        return Ok(Telemetry(None));
    }
    let (provider, tracer) = trace::begin(traces)?;
    // Spans only: what a line says is not for another machine.
    let ours = FilterFn::new(|meta| meta.is_span() && meta.target().starts_with("tandem"))
        .with_max_level_hint(LevelFilter::DEBUG);
    let spans = tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_level(false)
        .with_target(false)
        .with_tracer(tracer)
        .with_filter(ours);
    Registry::default().with(spans).with(lines(options).with_filter(filter)).try_init()?;
    Ok(Telemetry(Some(provider)))
}

fn lines<S>(options: &Options) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let json = match options.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    if json { lines.json().flatten_event(true).with_span_list(false).boxed() } else { lines.with_target(false).boxed() }
}
