//! `tandem cache calibrate`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::client::table;
use super::{Ended, Error};
use crate::cache::fit::{Measured, Pair, Read, cross_validated, fit, measure, read_pairs, thresholds, wrong_of_hits};
use crate::cache::{Options, Verifier};
use crate::config::{Paths, Variables};
use crate::domain::Share;
use crate::embed::{self, Embedder};

/// What is tried beside the threshold in force.
const TRIED: [f64; 8] = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Labelled pairs: a JSON object {"a", "b", "label", "category"} a line (label 1: one answer may serve both), or
    /// groups as in config/pairs/train.txt of the repository.
    file: PathBuf,
    /// Fit weights and thresholds to these pairs and write them here; measured is then, by tenths, what was fitted to
    /// the other nine. Name the file in `cache.verifier` to use it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "verifier.toml")]
    write: Option<PathBuf>,
    /// Measure with the verifier in this file, not with the one that ships.
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    verifier: Option<PathBuf>,
    /// The share of false hits that is allowed.
    #[arg(long, default_value_t = Options::default().max_false_hit_rate)]
    max_false_hit_rate: f64,
    /// Print every pair that is decided otherwise than its label says.
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Works without a worker: with the model of the assets folder, and with what the guards of this binary say.
pub(super) async fn run(arguments: &Arguments, variables: &Variables) -> Result<Ended, Error> {
    let shown = arguments.file.display();
    let wrong = |problem: String| Error::Usage(format!("{shown}: {problem}"));
    let text = std::fs::read_to_string(&arguments.file).map_err(|e| wrong(format!("can't be read: {e}")))?;
    let pairs = read_pairs(&text).map_err(|e| wrong(e.to_string()))?;
    let reads = read(&pairs, variables).await?;

    let rate = arguments.max_false_hit_rate;
    let (verifier, sure) = match (&arguments.write, &arguments.verifier) {
        (Some(_), _) => {
            let mut verifier = fit(&reads.iter().collect::<Vec<_>>());
            let sure = cross_validated(&reads);
            verifier.thresholds = thresholds(&reads, &sure);
            (verifier, sure)
        }
        (None, file) => {
            let verifier = match file {
                Some(file) => Verifier::read(file).map_err(|e| Error::Usage(e.to_string()))?,
                None => Verifier::shipped().clone(),
            };
            let sure = reads.iter().map(|read| read.sure(&verifier)).collect();
            (verifier, sure)
        }
    };
    let needed = verifier.needed(rate);
    let mut at: Vec<f64> = TRIED.into_iter().chain([needed]).filter(|sure| *sure <= 1.0).collect();
    at.sort_by(f64::total_cmp);
    let rows: Vec<Measured> = at.iter().map(|needed| measure(&reads, &sure, *needed)).collect();
    let cosine: Vec<f64> = reads.iter().map(|read| read.similarity).collect();
    let bare = at_most(&reads, &cosine, rate);
    if let Some(file) = &arguments.write {
        let text = format!("{HEADER}{}", toml::to_string(&verifier).map_err(|e| Error::Usage(e.to_string()))?);
        std::fs::write(file, text).map_err(|e| Error::Usage(format!("{}: can't be written: {e}", file.display())))?;
    }
    if arguments.json {
        let refused = by_guard(&reads);
        let printed = json!({ "pairs": reads.len(), "needed": needed, "at": rows, "similarity_alone": bare,
            "wrong_of_hits": wrong_of_hits(&reads, &sure, needed), "guards": refused });
        say!("{}", serde_json::to_string_pretty(&printed)?);
        return Ok(Ended::Well);
    }
    let count = |label| reads.iter().filter(|r| r.label == label).count();
    say!("{} pairs: {} may share an answer, {} must not", reads.len(), count(true), count(false));
    if needed > 1.0 {
        say!("no threshold promises at most {} of false hits: nothing is served", percent_of(rate));
    } else {
        say!(
            "* is in force for at most {} of false hits; in brackets counts and 95 % bounds (Wilson)",
            percent_of(rate)
        );
    }
    say!("");
    let head = ["how sure", "false hits of must-not", "recall of may-share", "precision"];
    let row = |m: &Measured| {
        let mark = if m.sure == needed { "*" } else { "" };
        vec![format!("{:.3}{mark}", m.sure), percent(m.false_hits), percent(m.recall), percent(m.precision)]
    };
    let alone =
        vec!["similarity alone".into(), percent(bare.false_hits), percent(bare.recall), percent(bare.precision)];
    table(&head, &rows.iter().map(row).chain([alone]).collect::<Vec<_>>());
    say!("");
    let guards = by_guard(&reads);
    let row = |(guard, right, wrong): &(String, usize, usize)| {
        vec![guard.clone(), right.to_string(), wrong.to_string(), percent(Share::new(*right, right + wrong))]
    };
    table(&["guard", "traps refused", "paraphrases refused", "precision"], &guards.iter().map(row).collect::<Vec<_>>());
    if arguments.verbose {
        let differs = |(read, sure): (&Read, &f64)| read.label != (*sure >= needed);
        for ((pair, read), sure) in pairs.iter().zip(&reads).zip(&sure).filter(|((_, r), s)| differs((r, s))) {
            let why = read.refused_by().map_or_else(|| format!("{sure:.3}"), |guard| guard.as_str().to_owned());
            let what = if read.label { "missed" } else { "false hit" };
            say!("\n{what} ({why}, cosine {:.3}):\n    {}\n    {}", read.similarity, pair.a, pair.b);
        }
    }
    Ok(Ended::Well)
}

const HEADER: &str = "\
# How sure it is that two near texts want the same answer: a logistic regression over what src/cache/verifier.rs says.
# Made by `tandem cache calibrate config/pairs/train.txt --write config/verifier.toml`. See docs/cache.md.

";

async fn read(pairs: &[Pair], variables: &Variables) -> Result<Vec<Read>, Error> {
    let assets = Paths::new(variables).assets;
    let options = embed::Options::default();
    let loaded = tokio::task::spawn_blocking(move || Embedder::load(&assets, options)).await;
    let embedder = loaded.map_err(|e| Error::Usage(e.to_string()))?.map_err(|e| Error::Usage(e.to_string()))?;
    let mut reads = Vec::with_capacity(pairs.len());
    // Some at a time: the queue of the embedding thread is bounded.
    for pair in pairs {
        let (a, b) = (embedder.embed(&pair.a), embedder.embed(&pair.b));
        let failed = |e: embed::Error| Error::Usage(e.to_string());
        let (a, b) = (a.await.map_err(failed)?, b.await.map_err(failed)?);
        let similarity: f32 = a.iter().zip(b.iter()).map(|(x, y)| x * y).sum();
        reads.push(Read::of(pair, f64::from(similarity)));
    }
    Ok(reads)
}

/// With the lowest threshold that serves at most `rate` of what must not be served, chosen on these very pairs.
fn at_most(reads: &[Read], sure: &[f64], rate: f64) -> Measured {
    let mut wrong: Vec<f64> = reads.iter().zip(sure).filter(|(r, _)| !r.label).map(|(_, s)| *s).collect();
    wrong.sort_by(|a, b| b.total_cmp(a));
    let first = wrong.get((wrong.len() as f64 * rate) as usize).copied().unwrap_or(0.0);
    measure(reads, sure, first + 1e-9)
}

/// What each guard refuses: its name, traps, paraphrases.
fn by_guard(reads: &[Read]) -> Vec<(String, usize, usize)> {
    let mut found = std::collections::BTreeMap::<&str, (usize, usize)>::new();
    for read in reads {
        if let Some(guard) = read.refused_by() {
            let (traps, paraphrases) = found.entry(guard.as_str()).or_default();
            *if read.label { paraphrases } else { traps } += 1;
        }
    }
    found.into_iter().map(|(guard, (traps, paraphrases))| (guard.to_owned(), traps, paraphrases)).collect()
}

fn percent(share: Share) -> String {
    let Some(value) = share.share else { return "-".to_owned() };
    let (low, high) = (share.low * 100.0, share.high * 100.0);
    format!("{:.2} % ({}/{}; {low:.2}–{high:.2})", value * 100.0, share.count, share.of)
}

fn percent_of(rate: f64) -> String {
    format!("{} %", (rate * 1e4).round() / 100.0)
}
