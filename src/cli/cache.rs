//! `tandem cache`

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Answered, Common, ended, figure};
use super::{Ended, Error};
use crate::bus::wire::InvalidateAnswer;
use crate::config::Variables;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What the cache of one worker holds and did.
    Stats(Common),
    /// Which stored tasks are near to this one, and why each would or would not be served.
    Explain {
        task: String,
        #[arg(long, short)]
        language: Option<String>,
        #[arg(long)]
        complexity: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// How right the cache is on labelled pairs of texts; with --write, weights and thresholds fitted to them.
    Calibrate(super::verify::Arguments),
    /// Take stored answers of a tenant back, on all workers: those that all given options fit.
    Invalidate {
        /// Made by this template, in any of its versions.
        #[arg(long, required_unless_present_any = ["task_type", "tag", "everything"])]
        template: Option<String>,
        /// Of this type: testing, database, …
        #[arg(long)]
        task_type: Option<String>,
        /// Made for a request with this tag.
        #[arg(long)]
        tag: Option<String>,
        /// All that the tenant has stored.
        #[arg(long, conflicts_with_all = ["template", "task_type", "tag"])]
        everything: bool,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Stats(common) => {
            let answered: Answered<Value> = common.ask(variables, "cache.stats", &json!({})).await?;
            if let (Answered::Ok(stats), false) = (&answered, common.json) {
                for key in ["entries", "held", "bytes", "max_bytes", "in_step", "exact_hits", "semantic_hits", "misses"]
                {
                    say!("{key:<14} {}", stats[key]);
                }
                say!("{:<14} {}", "hit_rate", figure(stats["hit_rate"].as_f64(), 3));
                say!("{:<14} {}", "refused", stats["refused"]);
            }
            Ok(ended(&answered))
        }
        Command::Calibrate(arguments) => super::verify::run(&arguments, variables).await,
        Command::Explain { task, language, complexity, common } => {
            let mut body = json!({ "task": task });
            for (key, value) in [("language", language), ("complexity", complexity)] {
                if let Some(value) = value {
                    body[key] = json!(value);
                }
            }
            let answered: Answered<Value> = common.ask(variables, "cache.explain", &body).await?;
            if let (Answered::Ok(explained), false) = (&answered, common.json) {
                print(explained);
            }
            Ok(ended(&answered))
        }
        Command::Invalidate { template, task_type, tag, everything, common } => {
            let body = json!({
                "template": template, "task_type": task_type, "tag": tag, "everything": everything.then_some(true),
            });
            let mut withdrawn = 0;
            loop {
                let answered: Answered<InvalidateAnswer> = common.ask(variables, "cache.invalidate", &body).await?;
                let Answered::Ok(swept) = &answered else { return Ok(ended(&answered)) };
                withdrawn += swept.withdrawn;
                if !swept.complete {
                    continue;
                }
                if !common.json {
                    say!("{withdrawn} stored answers of tenant {} are taken back", swept.tenant);
                    if swept.unconfirmed_workers > 0 {
                        say!(
                            "{} workers did not confirm in time; they follow the database within seconds",
                            swept.unconfirmed_workers
                        );
                    }
                }
                return Ok(Ended::Well);
            }
        }
    }
}

/// One stored task after the other, the nearest first: whether it would serve, and why not.
fn print(explained: &Value) {
    let neighbours = explained["neighbours"].as_array().cloned().unwrap_or_default();
    if neighbours.is_empty() {
        say!("nothing is stored in this scope (tenant, language, complexity, criteria, context)");
        return;
    }
    for n in &neighbours {
        let text = |key: &str| n[key].as_str().unwrap_or_default();
        let verdict = if n["served"] == json!(true) { "serves" } else { "does not serve" };
        say!("{verdict}: {}", text("task"));
        let sure = match (n["sure"].as_f64(), n["needed"].as_f64()) {
            (Some(sure), Some(needed)) => format!(", {:.1} % sure of {:.1} % needed", sure * 100.0, needed * 100.0),
            _ => String::new(),
        };
        say!("    cosine {}{sure}", figure(n["similarity"].as_f64(), 3));
        if !text("why").is_empty() {
            let guard = if text("guard").is_empty() { String::new() } else { format!("{}: ", text("guard")) };
            say!("    {guard}{}", text("why"));
        }
    }
}
