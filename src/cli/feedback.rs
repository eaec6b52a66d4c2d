//! `tandem feedback`

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::{Answered, Common, ended};
use super::{Ended, Error};
use crate::config::Variables;

/// Say whether an answer was good or wrong. A wrong one is withdrawn from the cache of every worker, and its template
/// no longer answers that task for this tenant.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// As in the answer: exec_…
    correlation_id: String,
    verdict: Verdict,
    /// For those who look into it later.
    #[arg(long)]
    comment: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verdict {
    Good,
    Wrong,
}

pub(super) async fn run(arguments: Arguments, variables: &Variables) -> Result<Ended, Error> {
    let verdict = match arguments.verdict {
        Verdict::Good => "good",
        Verdict::Wrong => "wrong",
    };
    let mut body = json!({ "correlation_id": arguments.correlation_id, "verdict": verdict });
    if let Some(comment) = &arguments.comment {
        body["comment"] = json!(comment);
    }
    let answered: Answered<Value> = arguments.common.ask(variables, "execution.feedback", &body).await?;
    if let (Answered::Ok(judged), false) = (&answered, arguments.common.json) {
        say!(
            "{}: {} answers withdrawn, templates blocked for this task: {}",
            verdict,
            judged["withdrawn"],
            judged["blocked"]
        );
    }
    Ok(ended(&answered))
}
