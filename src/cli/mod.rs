//! The command line: one file per command. Every command but `serve`, `config`, `backup` and `completions` is a
//! client that talks NATS like any other.

/// Prints a line to standard output. Where nobody reads any more (`… | head`), the command ends, as others do then.
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::say_line(format_args!($($words)*)) };
}

mod backup;
mod cache;
mod calibrate;
mod client;
mod config;
mod dead;
mod feedback;
mod figures;
mod llm;
mod out;
mod provision;
mod purge;
mod request;
mod result;
mod serve;
mod spending;
mod submit;
mod templates;
mod verify;
mod workflow;
mod workflow_views;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, Variables, variables};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// A worker answered with an error, or a check found something wrong: 1.
    Refused,
    /// An answer came, but nothing could do the task (a fallback): 4.
    Undone,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Bus(#[from] crate::bus::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Serve(#[from] crate::app::Error),
    #[error(transparent)]
    Log(#[from] crate::telemetry::Error),
    #[error("a worker's answer can't be read")]
    Answer(#[from] serde_json::Error),
    #[error("start the runtime")]
    Runtime(#[from] std::io::Error),
}

impl Error {
    /// 2: what was asked for is wrong; 3: nobody is there to do it.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) | Self::Log(_) | Self::Serve(crate::app::Error::Llm(_)) => 2,
            Self::Bus(error) | Self::Serve(crate::app::Error::Bus(error)) if !error.is_transient() => 2,
            Self::Bus(_) | Self::Serve(crate::app::Error::Bus(_)) => 3,
            Self::Store(_) | Self::Serve(_) | Self::Answer(_) | Self::Runtime(_) => 1,
        }
    }
}

/// Answers requests for code on NATS: from a semantic cache, by rules, by a model, and learns which works best.
///
/// Start a worker with its own NATS server:    tandem serve --with-nats
/// Ask it from another terminal:               tandem request "Create a NATS consumer for user events"
///
/// Where it is: NATS_URL (or NATS_HOST and NATS_PORT); without them the server that `serve --with-nats` started,
/// else nats://127.0.0.1:4222. Configuration: TANDEM_CONFIG, and TANDEM__SECTION__KEY for every key
/// (`tandem config show`).
///
/// Exit codes: 0 done; 1 a worker answered with an error, or a check failed; 2 wrong usage or configuration;
/// 3 no NATS server or no worker; 4 the answer is a fallback, or a model did not answer: the task was not done.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, verbatim_doc_comment, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a worker. Start as many as you like: they share the work.
    Serve(serve::Arguments),
    /// Send a task and print the answer.
    Request(request::Arguments),
    /// Hand in a task that survives whatever happens to workers and servers, and come back for the result.
    Submit(submit::Arguments),
    /// Print the result of a submit.
    Result(result::Arguments),
    /// Look after submits that could not be done.
    #[command(subcommand)]
    Dead(dead::Command),
    /// List, show, try out, judge and check templates.
    #[command(subcommand)]
    Templates(templates::Command),
    /// Look into the semantic cache.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Ask a model directly: one question, several at a time, several after each other. What all of it cost.
    #[command(subcommand)]
    Llm(llm::Command),
    /// Start graphs of tasks that survive whatever happens to workers, watch them, and command them.
    #[command(subcommand)]
    Workflow(workflow::Command),
    /// Say whether an answer was good or wrong. A wrong one is not served again.
    Feedback(feedback::Arguments),
    /// Delete what a tenant has, or what of it is older than an age.
    Purge(purge::Arguments),
    /// Copy the SQLite database while workers run.
    Backup(backup::Arguments),
    /// Figures: methods, cost against all-model, latency.
    Stats(client::Common),
    /// Health of a worker, per component.
    Health(client::Common),
    /// Create the streams of durable work, once, with an administrator's credentials.
    Provision(provision::Arguments),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Print completions for a shell: tandem completions bash > ~/.local/share/bash-completion/completions/tandem
    Completions { shell: clap_complete::Shell },
}

/// As a shell reports a program that a closed pipe has ended.
const PIPE_CLOSED: i32 = 141;

fn say_line(words: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{words}").is_err() {
        std::process::exit(PIPE_CLOSED);
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match carry_out(arguments.command, &variables()) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Refused) => ExitCode::from(1),
        Ok(Ended::Undone) => ExitCode::from(4),
        Err(error) => {
            eprintln!("tandem: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn carry_out(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "tandem", &mut std::io::stdout());
            Ok(Ended::Well)
        }
        Command::Config(command) => config::run(&command, variables),
        Command::Serve(arguments) => {
            let config = Config::load(variables)?;
            let runtime = runtime(None)?;
            let telemetry = {
                let _inside = runtime.enter();
                crate::telemetry::start(&config.log, &config.telemetry)?
            };
            let workshop = self::runtime(None)?;
            let ended = runtime.block_on(serve::run(arguments, config, variables, workshop.handle().clone()));
            telemetry.stop();
            workshop.shutdown_background();
            ended
        }
        command => runtime(Some(1))?.block_on(ask(command, variables)),
    }
}

async fn ask(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Request(arguments) => request::run(arguments, variables).await,
        Command::Submit(arguments) => submit::run(arguments, variables).await,
        Command::Result(arguments) => result::run(&arguments, variables).await,
        Command::Dead(command) => dead::run(command, variables).await,
        Command::Templates(command) => templates::run(command, variables).await,
        Command::Cache(command) => cache::run(command, variables).await,
        Command::Llm(command) => llm::run(command, variables).await,
        Command::Workflow(command) => workflow::run(command, variables).await,
        Command::Feedback(arguments) => feedback::run(arguments, variables).await,
        Command::Purge(arguments) => purge::run(arguments, variables).await,
        Command::Backup(arguments) => backup::run(arguments, variables).await,
        Command::Stats(common) => figures::stats(&common, variables).await,
        Command::Health(common) => figures::health(&common, variables).await,
        Command::Provision(arguments) => provision::run(&arguments, variables).await,
        Command::Serve(_) | Command::Config(_) | Command::Completions { .. } => Ok(Ended::Well),
    }
}

fn runtime(threads: Option<usize>) -> Result<tokio::runtime::Runtime, std::io::Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

/// An error with all its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }
}
