//! `tandem request`

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::{Answered, Common};
use super::out::Out;
use super::{Ended, Error};
use crate::bus::wire;
use crate::config::Variables;

/// Send a task and print the answer: the text on standard output, what is known of it on standard error.
///
///   tandem request "Create a NATS consumer for processing user events" --language elixir
///   tandem request "REST endpoint for orders and a consumer for order events, with tests and docs" --language rust --json
///   tandem request "Create a table for orders and an endpoint that lists them" --language rust --out shop
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// What is to be done, in plain words.
    #[arg(required_unless_present = "raw")]
    task: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    out: Out,
    /// Send this body as it is instead, right or wrong.
    #[arg(long, value_name = "BODY", conflicts_with_all = ["task", "language", "complexity", "context", "criterion", "cache", "max_cost_usd", "timeout_ms", "tag", "id"])]
    raw: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What a task may come with, by whichever door.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// elixir, rust, typescript, go, python, javascript or sql; without it the task's own words say.
    #[arg(long, short)]
    language: Option<String>,
    /// simple, medium or complex.
    #[arg(long)]
    complexity: Option<String>,
    /// A field of the context, as name=value. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    context: Vec<String>,
    /// What the answer must fulfil. May be given several times.
    #[arg(long, value_name = "TEXT")]
    criterion: Vec<String>,
    /// What the cache may do.
    #[arg(long, value_enum)]
    cache: Option<Cache>,
    /// What a model may cost, in US dollars.
    #[arg(long, value_name = "USD")]
    max_cost_usd: Option<f64>,
    /// How long the worker may take, in milliseconds.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// A name under which the answer can be taken back from the cache. May be given several times.
    #[arg(long, value_name = "NAME")]
    tag: Vec<String>,
    /// An id of your own: the same id and request get the same answer.
    #[arg(long)]
    pub(super) id: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cache {
    Use,
    Refresh,
    Off,
}

pub(super) async fn run(arguments: Arguments, variables: &Variables) -> Result<Ended, Error> {
    let body = match &arguments.raw {
        Some(raw) => raw.clone().into_bytes(),
        None => serde_json::to_vec(&arguments.wanted.body(arguments.task.as_deref())?)?,
    };
    let answered: Answered<wire::Response> = arguments.common.ask_raw(variables, "execution.request", body).await?;
    ended(&answered, &arguments.out, arguments.common.json)
}

/// Prints an answer that is not printed yet, and says how the command ends.
pub(super) fn ended(answered: &Answered<wire::Response>, out: &Out, json: bool) -> Result<Ended, Error> {
    let Answered::Ok(response) = answered else { return Ok(Ended::Refused) };
    if !json {
        if !out.is_wanted() {
            say!("{}", response.result.get().trim_end_matches('\n'));
        }
        print_about(response);
    }
    out.write(response, json)?;
    Ok(if response.metrics.success { Ended::Well } else { Ended::Undone })
}

impl Wanted {
    /// The body of a request or submit.
    pub(super) fn body(&self, task: Option<&str>) -> Result<Value, Error> {
        let mut body = Map::new();
        body.insert("task".to_owned(), json!(task));
        let mut optional = |key: &str, value: Value| {
            if !value.is_null() {
                body.insert(key.to_owned(), value);
            }
        };
        optional("language", json!(self.language));
        optional("complexity", json!(self.complexity));
        optional("max_cost_usd", json!(self.max_cost_usd));
        optional("timeout_ms", json!(self.timeout_ms));
        optional("id", json!(self.id));
        optional("cache", json!(self.cache.and_then(|c| c.to_possible_value().map(|v| v.get_name().to_owned()))));
        if !self.criterion.is_empty() {
            optional("acceptance_criteria", json!(self.criterion));
        }
        if !self.tag.is_empty() {
            optional("tags", json!(self.tag));
        }
        let mut context = Map::new();
        for pair in &self.context {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Error::Usage(format!("--context {pair:?} must be NAME=VALUE")));
            };
            context.insert(name.to_owned(), json!(value));
        }
        if !context.is_empty() {
            optional("context", Value::Object(context));
        }
        Ok(Value::Object(body))
    }
}

fn print_about(response: &wire::Response) {
    let m = &response.metrics;
    let by = response.template_used.as_deref().unwrap_or(&response.model_used);
    let quality = m.quality.map_or_else(|| "-".to_owned(), |q| format!("{q:.2}"));
    eprintln!(
        "\n{} by {by} in {:.1} ms, ${:.6}, quality {quality} ({})",
        response.method.as_str(),
        m.time_ms,
        m.cost_usd,
        response.correlation_id
    );
    for part in &response.parts {
        let by = part.template_used.as_deref().unwrap_or(&part.model_used);
        eprintln!("  {} {}: {} by {by}", part.id, part.description, part.method.as_str());
    }
    for note in &response.notes {
        eprintln!("note: {note}");
    }
}
