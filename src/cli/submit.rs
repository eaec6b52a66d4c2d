//! `tandem submit`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::client::{Answered, connect, parse_seconds, parse_tenant, show, spinner};
use super::out::Out;
use super::request::{self, Wanted};
use super::{Ended, Error};
use crate::bus::wire::{Progress, Response, State};
use crate::config::Variables;
use crate::domain::{RequestId, Tenant};

/// Hand in a task. It is done even if this program, its worker or the server ends meanwhile, and has one effect however
/// often the same id is submitted. Prints its id, under which `tandem result` has the result for some days.
///
///   tandem submit "Create a NATS consumer for processing user events" --language elixir
///   tandem submit "REST endpoint for orders" --language rust --id order-17 --wait
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// What is to be done, in plain words.
    task: String,
    #[command(flatten)]
    wanted: Wanted,
    /// A subject that the answer is sent to besides, if the workers allow it.
    #[arg(long, value_name = "SUBJECT")]
    reply_to: Option<String>,
    /// Wait for the result and print it, as `tandem request` does.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    out: Out,
    /// How long to wait, in seconds. The work goes on afterwards.
    #[arg(long, default_value_t = 600.0, value_parser = parse_seconds, value_name = "SECONDS")]
    timeout: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Act as this tenant.
    #[arg(long, value_parser = parse_tenant, default_value = "default")]
    tenant: Tenant,
}

pub(super) async fn run(arguments: Arguments, variables: &Variables) -> Result<Ended, Error> {
    let id = match &arguments.wanted.id {
        Some(id) => RequestId::parse(id).map_err(|error| Error::Usage(format!("--id {error}")))?,
        None => RequestId::generate(),
    };
    let mut body = arguments.wanted.body(Some(&arguments.task))?;
    body["id"] = json!(id.as_str());
    if let Some(subject) = &arguments.reply_to {
        body["reply_to"] = json!(subject);
    }
    let body = serde_json::to_vec(&body)?;
    let client = connect(variables).await?;
    if !arguments.wait {
        if arguments.out.is_wanted() {
            return Err(Error::Usage(
                "--out needs --wait; or take the files later with tandem result --out".to_owned(),
            ));
        }
        let submitted = client.submit(&arguments.tenant, &id, body).await?;
        if arguments.json {
            let (sequence, duplicate) = (submitted.sequence, submitted.duplicate);
            say!("{}", json!({"id": id.as_str(), "sequence": sequence, "duplicate": duplicate}));
        } else {
            say!("{id}");
            let before = if submitted.duplicate { "was submitted before, " } else { "" };
            eprintln!("{before}number {} in the stream; its result: tandem result {id}", submitted.sequence);
        }
        return Ok(Ended::Well);
    }
    let followed = client.follow(&arguments.tenant, &id).await?;
    let submitted = client.submit(&arguments.tenant, &id, body).await?;
    let bar = spinner("submitted");
    let told = |progress: Progress| bar.set_message(line(&progress));
    let said = followed.result(submitted, Duration::from_secs_f64(arguments.timeout), told).await;
    bar.finish_and_clear();
    if said.is_err() {
        eprintln!("the submit stands; its result will be here: tandem result {id}");
    }
    let answered: Answered<Response> = show(&said?, arguments.json)?;
    request::ended(&answered, &arguments.out, arguments.json)
}

fn line(progress: &Progress) -> String {
    match (progress.state, progress.attempt, progress.method) {
        (State::Queued, ..) => "waits".to_owned(),
        (State::Started, Some(attempt), _) if attempt > 1 => format!("begun, attempt {attempt}"),
        (State::Started, ..) => "begun".to_owned(),
        (State::Deciding, _, Some(method)) => format!("being done: {}", method.as_str()),
        (State::Deciding, ..) => "being done".to_owned(),
        (State::Retrying, ..) => "failed, and is tried again".to_owned(),
        (State::Done, ..) => "done".to_owned(),
        (State::Dead, ..) => "set aside".to_owned(),
        // Told of questions for a model, not of submits.
        (State::Writing | State::Ended, ..) => "being done".to_owned(),
    }
}
