//! What all client commands share: where the worker is, how long to wait, how to print.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Ended, Error};
use crate::bus::client::{Client, Said};
use crate::config::{Config, Paths, Variables};
use crate::domain::Tenant;

/// Options of every client command.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Print the worker's answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// Act as this tenant.
    #[arg(long, value_parser = parse_tenant, default_value = "default")]
    pub tenant: Tenant,
    /// How long to wait for an answer, in seconds.
    #[arg(long, default_value_t = 70.0, value_parser = parse_seconds)]
    pub wait: f64,
}

pub(super) fn parse_tenant(text: &str) -> Result<Tenant, String> {
    Tenant::parse(text).map_err(|e| e.to_string())
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("must be a number of seconds above 0 and at most 86400".to_owned()),
    }
}

/// A worker's answer, read or refused.
pub(super) enum Answered<T> {
    Ok(T),
    /// Already printed.
    Refused,
}

impl Common {
    /// Asks, prints errors and, with `--json`, the answer. What is left to print for people comes back.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        variables: &Variables,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<Answered<T>, Error> {
        let body = serde_json::to_vec(body)?;
        self.ask_raw(variables, subject, body).await
    }

    pub(super) async fn ask_raw<T: DeserializeOwned>(
        &self,
        variables: &Variables,
        subject: &str,
        body: Vec<u8>,
    ) -> Result<Answered<T>, Error> {
        let client = connect(variables).await?;
        let waiting = spinner("waiting for the answer");
        let said = client.ask_raw(subject, &self.tenant, body, Duration::from_secs_f64(self.wait)).await;
        waiting.finish_and_clear();
        show(&said?, self.json)
    }
}

/// A client of the server that environment, file or a worker on this machine names.
pub(super) async fn connect(variables: &Variables) -> Result<Client, Error> {
    Ok(Client::connect(&config(variables).await?.nats).await?)
}

/// What is in force, for a client: with the server of this machine where no other is named.
pub(super) async fn config(variables: &Variables) -> Result<Config, Error> {
    let mut config = Config::load(variables)?;
    config.nats.name = "tandem-cli".to_owned();
    if let Some(url) = own_server(variables).await? {
        config.nats.urls = vec![url];
    }
    Ok(config)
}

/// Prints an error, and with `json` an answer too.
pub(super) fn show<T: DeserializeOwned>(said: &Said, json: bool) -> Result<Answered<T>, Error> {
    if json {
        let value: serde_json::Value = serde_json::from_slice(&said.body)?;
        say!("{}", serde_json::to_string_pretty(&value)?);
    }
    if said.is_error {
        if !json {
            let error: serde_json::Value = serde_json::from_slice(&said.body)?;
            let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
            eprintln!("tandem: {} ({}, {})", text("message"), text("error"), text("correlation_id"));
        }
        return Ok(Answered::Refused);
    }
    Ok(Answered::Ok(serde_json::from_slice(&said.body)?))
}

/// The server that `serve --with-nats` on this machine told the address of, unless environment or file names one. A
/// worker that was killed leaves its address behind, so somebody must listen there.
async fn own_server(variables: &Variables) -> Result<Option<String>, Error> {
    if Config::names_server(variables)? {
        return Ok(None);
    }
    let Ok(told) = std::fs::read_to_string(Paths::new(variables).nats_url()) else { return Ok(None) };
    let url = told.trim();
    let address = url.strip_prefix("nats://").unwrap_or(url).to_owned();
    let connected = tokio::time::timeout(LOOK, tokio::net::TcpStream::connect(address)).await;
    Ok(matches!(connected, Ok(Ok(_))).then(|| url.to_owned()))
}

/// For finding out whether a server on this machine is there.
const LOOK: Duration = Duration::from_millis(300);

pub(super) fn spinner(message: &'static str) -> ProgressBar {
    if std::io::stderr().is_terminal() {
        let bar = ProgressBar::new_spinner().with_message(message);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    } else {
        ProgressBar::hidden()
    }
}

/// What a command ends with where its answer was only to be printed.
pub(super) fn ended<T>(answered: &Answered<T>) -> Ended {
    match answered {
        Answered::Ok(_) => Ended::Well,
        Answered::Refused => Ended::Refused,
    }
}

/// Rows under a heading, in columns as wide as they need to be.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = width(i)));
        say!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&heading.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// A figure that may be unknown.
pub(super) fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}
