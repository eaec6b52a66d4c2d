//! `tandem templates`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Answered, Common, ended, figure, table};
use super::{Ended, Error};
use crate::config::Variables;
use crate::coordinator::library::Library;
use crate::pipeline::{TemplateCheck, check};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The templates, with how often each was used.
    List {
        #[arg(long, short)]
        language: Option<String>,
        /// As in `templates list`: nats_consumer, api_endpoint, …
        #[arg(long)]
        task_type: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// One template: its text and its figures.
    Show {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Which template a task would get, which others were near, and which words none accounts for.
    Select {
        task: String,
        #[arg(long, short)]
        language: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// How the templates do, from the recorded executions of all workers.
    Analyze(Common),
    /// Render every template for its own example and parse what comes out.
    Check(Check),
    /// Measure on labelled tasks what the rules answer and how much of it is right, without a worker.
    Calibrate(super::calibrate::Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Check the templates in the binary and in this folder, without a worker.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::List { language, task_type, common } => {
            let body = without_nulls(json!({ "language": language, "task_type": task_type }));
            let answered: Answered<Value> = common.ask(variables, "template.list", &body).await?;
            if let (Answered::Ok(list), false) = (&answered, common.json) {
                let cell = |t: &Value, key: &str| t[key].as_str().map_or_else(|| "any".to_owned(), str::to_owned);
                let row = |t: &Value| {
                    let mut row: Vec<String> = ["id", "task_type", "language"].map(|key| cell(t, key)).to_vec();
                    row.extend([t["uses"].to_string(), cell(t, "description")]);
                    row
                };
                let rows: Vec<Vec<String>> = items(&list["templates"]).map(row).collect();
                table(&["id", "task type", "language", "uses", "description"], &rows);
            }
            Ok(ended(&answered))
        }
        Command::Show { id, common } => {
            let answered: Answered<Value> = common.ask(variables, "template.show", &json!({ "id": id })).await?;
            if let (Answered::Ok(shown), false) = (&answered, common.json) {
                say!("{}", shown["source"].as_str().unwrap_or_default());
                for edge in items(&shown["edges"]) {
                    eprintln!(
                        "{} in {}: score {}, success {}, {} uses",
                        edge["task_type"].as_str().unwrap_or_default(),
                        edge["language"].as_str().unwrap_or_default(),
                        figure(edge["score"].as_f64(), 3),
                        figure(edge["success_rate"].as_f64(), 2),
                        edge["uses"]
                    );
                }
            }
            Ok(ended(&answered))
        }
        Command::Select { task, language, common } => {
            let body = without_nulls(json!({ "task": task, "language": language }));
            let answered: Answered<Value> = common.ask(variables, "template.select", &body).await?;
            if let (Answered::Ok(selection), false) = (&answered, common.json) {
                print_selection(selection);
            }
            Ok(ended(&answered))
        }
        Command::Analyze(common) => {
            let answered: Answered<Value> = common.ask(variables, "template.analyze", &json!({})).await?;
            if let (Answered::Ok(analysis), false) = (&answered, common.json) {
                print_analysis(analysis);
            }
            Ok(ended(&answered))
        }
        Command::Check(arguments) => run_check(arguments, variables).await,
        Command::Calibrate(arguments) => super::calibrate::run(&arguments),
    }
}

async fn run_check(arguments: Check, variables: &Variables) -> Result<Ended, Error> {
    let common = &arguments.common;
    let checks: Vec<TemplateCheck> = match &arguments.folder {
        Some(folder) => {
            let (library, errors) = Library::load(Some(folder));
            let broken = errors.into_iter().map(|e| TemplateCheck {
                template: e.path,
                problem: Some(e.message),
                quality: None,
                lines: None,
                time_ms: 0.0,
            });
            let checks: Vec<TemplateCheck> = broken.chain(check(&library)).collect();
            if common.json {
                say!("{}", serde_json::to_string_pretty(&json!({ "templates": checks }))?);
            }
            checks
        }
        None => {
            let answered: Answered<Value> = common.ask(variables, "template.check", &json!({})).await?;
            let Answered::Ok(answer) = answered else { return Ok(Ended::Refused) };
            serde_json::from_value(answer["templates"].clone())?
        }
    };
    if !common.json {
        let row = |c: &TemplateCheck| {
            let lines = c.lines.map_or_else(|| "-".to_owned(), |n| n.to_string());
            vec![
                c.template.clone(),
                c.problem.clone().unwrap_or_else(|| "ok".to_owned()),
                figure(c.quality, 2),
                lines,
                format!("{:.2}", c.time_ms),
            ]
        };
        table(&["template", "finding", "quality", "lines", "ms"], &checks.iter().map(row).collect::<Vec<_>>());
    }
    Ok(if checks.iter().all(|c| c.problem.is_none()) { Ended::Well } else { Ended::Refused })
}

fn print_selection(selection: &Value) {
    match selection["id"].as_str() {
        Some(id) => say!(
            "{id} ({}, {})",
            selection["task_type"].as_str().unwrap_or_default(),
            selection["language"].as_str().unwrap_or_default()
        ),
        None => say!("the rules decline: {}", selection["declined"]),
    }
    let row = |c: &Value| {
        let unknown: Vec<&str> = items(&c["unknown"]).filter_map(Value::as_str).collect();
        vec![
            c["template"].as_str().unwrap_or_default().to_owned(),
            c["level"].as_str().unwrap_or_default().to_owned(),
            figure(c["understood"].as_f64(), 2),
            figure(c["score"].as_f64(), 3),
            unknown.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = items(&selection["candidates"]).map(row).collect();
    if !rows.is_empty() {
        table(&["candidate", "level", "understood", "score", "not understood"], &rows);
    }
    items(&selection["notes"]).filter_map(Value::as_str).for_each(|note| eprintln!("note: {note}"));
}

fn print_analysis(analysis: &Value) {
    say!(
        "{} templates, {} of them used, {} uses",
        analysis["total_templates"],
        analysis["used_templates"],
        analysis["total_uses"]
    );
    let row = |p: &Value| {
        let text = |key: &str| p[key].as_str().unwrap_or_default().to_owned();
        vec![
            text("template"),
            text("task_type"),
            text("language"),
            figure(p["score"].as_f64(), 3),
            figure(p["success_rate"].as_f64(), 2),
            figure(p["quality"].as_f64(), 2),
            figure(p["time_ms"].as_f64(), 2),
            p["uses"].to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = items(&analysis["top_performers"]).map(row).collect();
    if !rows.is_empty() {
        table(&["template", "task type", "language", "score", "success", "quality", "ms", "uses"], &rows);
    }
    let trends = &analysis["quality_trends"];
    say!(
        "quality {} over {} executions, trend {}",
        figure(trends["average_quality"].as_f64(), 3),
        trends["executions"],
        trends["trend"].as_str().unwrap_or("unknown: fewer than 20 executions")
    );
    items(&analysis["recommendations"]).filter_map(Value::as_str).for_each(|r| say!("- {r}"));
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, v| !v.is_null());
    }
    value
}
