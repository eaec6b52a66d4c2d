//! `tandem cache`

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Answered, Common, ended, figure, table};
use super::{Ended, Error};
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
}

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Stats(common) => {
            let answered: Answered<Value> = common.ask(variables, "cache.stats", &json!({})).await?;
            if let (Answered::Ok(stats), false) = (&answered, common.json) {
                for key in ["entries", "exact_hits", "semantic_hits", "misses"] {
                    say!("{key:<14} {}", stats[key]);
                }
                say!("{:<14} {}", "hit_rate", figure(stats["hit_rate"].as_f64(), 3));
                say!("{:<14} {}", "refused", stats["refused"]);
            }
            Ok(ended(&answered))
        }
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
    }
}

fn print(explained: &Value) {
    let neighbours = explained["neighbours"].as_array().cloned().unwrap_or_default();
    if neighbours.is_empty() {
        say!("nothing is stored in this scope (tenant, language, complexity, criteria, context)");
        return;
    }
    let row = |n: &Value| {
        let served = if n["served"] == json!(true) { "yes" } else { "no" };
        let text = |key: &str| n[key].as_str().unwrap_or_default().to_owned();
        vec![figure(n["similarity"].as_f64(), 3), served.to_owned(), text("guard"), text("task"), text("why")]
    };
    table(&["cosine", "served", "guard", "stored task", "why not"], &neighbours.iter().map(row).collect::<Vec<_>>());
}
