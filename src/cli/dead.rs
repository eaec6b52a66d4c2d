//! `tandem dead`

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{connect, parse_tenant, table};
use super::{Ended, Error};
use crate::bus::DeadLetter;
use crate::bus::client::Client;
use crate::config::Variables;
use crate::domain::Tenant;

/// Submits that could not be done are set aside with what was wrong. Needs the rights to read the stream TANDEM_DEAD, and
/// for `requeue` those to delete from it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them, the oldest first.
    List(List),
    /// Show one: why it is dead, and its body.
    Show {
        /// Its number, as `list` has it.
        number: u64,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Submit some again, under their ids, without the deadlines that they had.
    Requeue {
        /// Their numbers, as `list` has them.
        #[arg(required = true)]
        numbers: Vec<u64>,
        /// Print what was done as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only this tenant's.
    #[arg(long, value_parser = parse_tenant)]
    tenant: Option<Tenant>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    let client = connect(variables).await?;
    match command {
        Command::List(list) => {
            let letters = client.dead_letters(list.tenant.as_ref(), list.limit).await?;
            if list.json {
                say!("{}", serde_json::to_string_pretty(&letters)?);
            } else {
                let rows: Vec<_> = letters.iter().map(row).collect();
                table(&["number", "tenant", "id", "reason", "attempts", "message"], &rows);
            }
            Ok(Ended::Well)
        }
        Command::Show { number, json } => {
            let Some(letter) = find(&client, number).await? else { return Ok(Ended::Refused) };
            if json {
                say!("{}", serde_json::to_string_pretty(&letter)?);
            } else {
                show(&letter);
            }
            Ok(Ended::Well)
        }
        Command::Requeue { numbers, json } => requeue(&client, &numbers, json).await,
    }
}

async fn find(client: &Client, number: u64) -> Result<Option<DeadLetter>, Error> {
    let found = client.dead_letter(number).await?;
    if found.is_none() {
        eprintln!("tandem: there is no dead letter {number}; `tandem dead list` has those that there are");
    }
    Ok(found)
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let attempts = letter.attempts.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let message: String = letter.message.chars().take(80).collect();
    vec![
        letter.sequence.to_string(),
        letter.tenant.clone(),
        letter.id.clone(),
        letter.reason.clone(),
        attempts,
        message,
    ]
}

fn show(letter: &DeadLetter) {
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    eprintln!("{} of tenant {}: {} ({})", letter.id, letter.tenant, letter.message, letter.reason);
    eprintln!(
        "submitted on {} as number {}, {} attempts, set aside at {} ms",
        letter.subject,
        number(letter.submitted.and_then(|n| i64::try_from(n).ok())),
        number(letter.attempts.map(i64::from)),
        number(letter.at_ms),
    );
    say!("{}", letter.body.as_deref().unwrap_or("(the body was left out or is no text)"));
}

async fn requeue(client: &Client, numbers: &[u64], json: bool) -> Result<Ended, Error> {
    let mut done = vec![];
    let mut ended = Ended::Well;
    for number in numbers {
        let Some(letter) = find(client, *number).await? else {
            ended = Ended::Refused;
            continue;
        };
        if !letter.has_body() {
            eprintln!("tandem: the body of {number} was left out: there is nothing to submit");
            ended = Ended::Refused;
            continue;
        }
        let (submitted, left) = client.requeue(&letter).await?;
        if let Some(error) = &left {
            eprintln!("tandem: {number} was submitted again, but still lies there: {}", super::chain(error));
        }
        if !json {
            say!("{}", letter.id);
            eprintln!("submitted again as number {}; its result: tandem result {}", submitted.sequence, letter.id);
        }
        done.push(json!({"number": number, "id": letter.id, "tenant": letter.tenant, "sequence": submitted.sequence,
            "removed": left.is_none()}));
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&done)?);
    }
    Ok(ended)
}
