//! What `tandem workflow show --format` draws, and what `recommend` says.

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::{Answered, Common, ended, table};
use super::{Ended, Error};
use crate::bus::wire::{AttemptDetail, RecommendQuery, WorkflowAdvice, WorkflowDetail};
use crate::config::Variables;
use crate::domain::Timestamp;
use crate::domain::workflow::OptimizationLevel;
use crate::workflow::draw::{self, Bar, End, Graph, Node, Row, Timeline};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables.
    Table,
    /// The graph, for Markdown.
    Mermaid,
    /// The graph, for Graphviz.
    Dot,
    /// The graph as a picture, coloured by state.
    Svg,
    /// The run as a picture: when each attempt waited, began and ended.
    Timeline,
}

#[derive(Debug, Args)]
pub(super) struct RecommendArguments {
    /// As `tandem workflow start` printed it; the records are those of all runs of the same graph.
    workflow: String,
    /// basic, advanced or aggressive, in the place of the workflow's own.
    #[arg(long, value_parser = level)]
    level: Option<OptimizationLevel>,
    /// Allow plans that change what waits for what; aggressive needs it.
    #[arg(long)]
    restructure: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn level(text: &str) -> Result<OptimizationLevel, String> {
    match text {
        "basic" => Ok(OptimizationLevel::Basic),
        "advanced" => Ok(OptimizationLevel::Advanced),
        "aggressive" => Ok(OptimizationLevel::Aggressive),
        _ => Err("must be basic, advanced or aggressive".to_owned()),
    }
}

pub(super) fn draw(detail: &WorkflowDetail, format: Format, now: Timestamp) -> Result<String, Error> {
    let drawn = match format {
        Format::Table => return Ok(String::new()),
        Format::Mermaid => draw::mermaid(&graph(detail)),
        Format::Dot => draw::dot(&graph(detail)),
        Format::Svg => draw::svg(&graph(detail)),
        Format::Timeline => draw::timeline(&timeline(detail, now)),
    };
    drawn.map_err(|error| Error::Usage(error.to_string()))
}

fn title(detail: &WorkflowDetail) -> String {
    detail.goal.clone().unwrap_or_else(|| detail.workflow_id.clone())
}

fn graph(detail: &WorkflowDetail) -> Graph {
    let node = |task: &crate::bus::wire::TaskDetail| Node {
        id: task.id.clone(),
        label: task.description.clone(),
        state: task.status,
        group: task.parent.clone(),
        depends_on: task.depends_on.clone(),
    };
    Graph { title: title(detail), tasks: detail.tasks.iter().map(node).collect() }
}

fn timeline(detail: &WorkflowDetail, now: Timestamp) -> Timeline {
    let begun = detail.attempts.iter().map(|of| of.queued_ms).min().unwrap_or(now.0);
    let last = detail.attempts.iter().map(|of| of.ended_ms).max().unwrap_or(begun);
    let since = |ms: i64| Duration::from_millis(u64::try_from(ms - begun).unwrap_or(0));
    let mut bars: HashMap<&str, Vec<Bar>> = HashMap::new();
    for of in &detail.attempts {
        bars.entry(&of.task).or_default().push(Bar {
            queued: since(of.queued_ms),
            started: Some(since(of.started_ms)),
            ended: Some(since(of.ended_ms)),
            end: end(of),
            worker: Some(of.worker.clone()),
        });
    }
    let rows = detail.tasks.iter().filter(|task| task.kind != "group").map(|task| Row {
        id: task.id.clone(),
        label: task.description.clone(),
        bars: bars.remove(task.id.as_str()).unwrap_or_default(),
    });
    let until = if detail.status.is_over() { last } else { now.0.max(last) };
    Timeline { title: title(detail), length: since(until), rows: rows.collect() }
}

fn end(of: &AttemptDetail) -> End {
    match of.outcome.as_str() {
        "completed" => End::Completed,
        "retried" | "failed" | "lost" => End::Failed,
        _ => End::Cancelled,
    }
}

pub(super) async fn recommend(arguments: RecommendArguments, variables: &Variables) -> Result<Ended, Error> {
    let RecommendArguments { workflow, level, restructure, common } = arguments;
    let preserve_structure = restructure.then_some(false);
    let query = RecommendQuery { workflow_id: workflow, optimization_level: level, preserve_structure };
    let answered: Answered<WorkflowAdvice> = common.ask(variables, "workflow.recommend", &query).await?;
    if let (Answered::Ok(advice), false) = (&answered, common.json) {
        print(advice);
    }
    Ok(ended(&answered))
}

fn print(advice: &WorkflowAdvice) {
    say!("{} recorded runs", advice.runs);
    let rows = |rows: Vec<Vec<String>>, head: &[&str]| {
        if !rows.is_empty() {
            say!("");
            table(head, &rows);
        }
    };
    let ms = |ms: f64| format!("{ms:.1}");
    let pairs = advice.parallelizable_pairs.iter();
    rows(
        pairs.map(|p| vec![p.first.clone(), p.second.clone(), p.runs.to_string(), ms(p.waited_ms)]).collect(),
        &["could run beside", "", "runs", "ms a run"],
    );
    let timeouts = advice.timeout_adjustments.iter();
    rows(timeouts.map(|(task, ms)| vec![task.clone(), ms.to_string()]).collect(), &["timeout of", "should be ms"]);
    let warnings = advice.failed_pattern_warnings.iter();
    let sure = |share: f64| format!("{:.0} %", 100.0 * share);
    rows(
        warnings.map(|w| vec![w.task.clone(), super::workflow::plain(&w.message), sure(w.confidence)]).collect(),
        &["fails", "how", "sure"],
    );
    let resources = advice.resource_allocation.iter();
    let class = |r: &crate::bus::wire::ResourceAdvice| format!("{:?}", r.class).to_lowercase();
    rows(
        resources.map(|(task, r)| vec![task.clone(), class(r), ms(r.p95_ms), r.bytes.to_string()]).collect(),
        &["needs", "class", "p95 ms", "bytes"],
    );
    say!("\n{}", advice.diff.trim_end());
    if advice.changes.iter().any(|change| !change.carried_out) {
        let given: Vec<&str> =
            advice.changes.iter().filter(|change| change.carried_out).map(|change| change.topic.as_str()).collect();
        let given = if given.is_empty() { "none of it".to_owned() } else { given.join(", ") };
        say!("\na run at this level is given: {given}; the rest is advice");
    }
}
