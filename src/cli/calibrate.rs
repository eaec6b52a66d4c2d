//! `tandem templates calibrate`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::client::table;
use super::{Ended, Error};
use crate::coordinator::agent::Options;
use crate::coordinator::calibrate::{Measured, Verdict, confusion, measure, read_labels, summarize};
use crate::coordinator::library::Library;
use crate::domain::{Language, Share};

/// What is tried: nothing unknown, up to every second word.
const SHARES: [f64; 9] = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Labelled tasks: `tests/data/README.md` of the repository says how they are written. A file of lines
    /// `{"lang", "task"}` holds tasks that the rules must decline.
    file: PathBuf,
    /// Use the templates in this folder too.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The language of a task that names none.
    #[arg(long, short, default_value = "elixir")]
    language: String,
    /// Print every task that came out otherwise than its label says.
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Works without a worker: what it measures are the templates, not what was learnt of them.
pub(super) fn run(arguments: &Arguments) -> Result<Ended, Error> {
    let shown = arguments.file.display();
    let wrong = |problem: String| Error::Usage(format!("{shown}: {problem}"));
    let text = std::fs::read_to_string(&arguments.file).map_err(|e| wrong(format!("can't be read: {e}")))?;
    let labelled = read_labels(&text).map_err(|e| wrong(e.to_string()))?;
    let (library, broken) = Library::load(arguments.folder.as_deref());
    broken.iter().for_each(|error| eprintln!("left out: {error}"));
    let default = Language::from(arguments.language.clone());

    let shipped = Options::default().max_unknown_share;
    let at = |share| measure(&library, &labelled, &default, share, false);
    let details = at(shipped);
    let rows: Vec<_> = SHARES
        .iter()
        .map(|&share| if share == shipped { summarize(&details, share) } else { summarize(&at(share), share) })
        .collect();
    let leaving_out = summarize(&measure(&library, &labelled, &default, shipped, true), shipped);
    let pairs = confusion(&details);
    let good = |m: &&Measured| !matches!(m.verdict, Verdict::Right | Verdict::RightlyDeclined);
    let differing: Vec<&Measured> = details.iter().filter(good).collect();
    if arguments.json {
        let mut printed = json!({
            "tasks": labelled.len(), "templates": library.len(), "shipped": shipped, "thresholds": rows,
            "leaving_out": leaving_out, "confusion": pairs,
        });
        if arguments.verbose {
            printed["differing"] = json!(differing);
        }
        say!("{}", serde_json::to_string_pretty(&printed)?);
        return Ok(Ended::Well);
    }

    say!(
        "{} tasks, {} templates; * marks the shipped threshold; in brackets 95 % bounds. The last row counts what leaves \
         phrases of the task out and says so",
        labelled.len(),
        library.len()
    );
    let head = [
        "unknown share",
        "right type of answered",
        "answered of wanted",
        "where a template exists",
        "with all options",
        "of declines answered",
    ];
    let row = |name: String, r: &crate::coordinator::calibrate::AtThreshold| {
        let shares = [r.precision, r.recall, r.recall_of_existing, r.complete, r.overreached].map(percent);
        [name].into_iter().chain(shares).collect()
    };
    let name = |share: f64| format!("{share:.2}{}", if share == shipped { "*" } else { "" });
    let mut shown: Vec<Vec<String>> = rows.iter().map(|r| row(name(r.max_unknown_share), r)).collect();
    shown.push(row("without a model".to_owned(), &leaving_out));
    table(&head, &shown);
    if !pairs.is_empty() {
        say!("");
        let row = |(wanted, got, n): &(_, _, usize)| vec![format!("{wanted}"), format!("{got}"), n.to_string()];
        table(&["wanted", "taken for", "times"], &pairs.iter().map(row).collect::<Vec<_>>());
    }
    if arguments.verbose {
        say!("");
        for m in differing {
            let verdict = json!(m.verdict);
            say!("{}: {}", verdict.as_str().unwrap_or_default(), m.task);
            say!("    {} {}", m.templates.join(" + "), m.why);
        }
    }
    Ok(Ended::Well)
}

fn percent(share: Share) -> String {
    let Some(value) = share.share else { return "-".to_owned() };
    format!("{:.1} % ({}/{}; {:.0}–{:.0})", value * 100.0, share.count, share.of, share.low * 100.0, share.high * 100.0)
}
