//! `tandem purge`

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use serde_json::json;

use super::client::{Answered, Common, ended, table};
use super::{Ended, Error};
use crate::bus::wire;
use crate::config::Variables;

/// Delete what a tenant has: executions, figures, verdicts, blocked templates, kept replies, cached answers; in the
/// database and in every worker's memory. Figures of templates stay: they are everybody's and hold no text.
///
///   tandem purge --tenant acme --dry-run
///   tandem purge --tenant acme --older-than 30d --yes
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Only what is older: 30d, 12h, 90m, 45s.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<u64>,
    /// Only say how much it would be.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask first.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

fn parse_age(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} must be a number with d, h, m or s behind it, as 30d");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds)).ok_or_else(wrong)
}

pub(super) async fn run(arguments: Arguments, variables: &Variables) -> Result<Ended, Error> {
    let Arguments { older_than, dry_run, yes, common } = arguments;
    let tenant = common.tenant.as_str();
    if !dry_run && !yes && !agreed(tenant)? {
        return Err(Error::Usage("nothing was deleted".to_owned()));
    }
    let body = json!({ "confirm": tenant, "older_than_s": older_than, "dry_run": dry_run });
    let mut rows = crate::store::Rows::default();
    loop {
        let answered: Answered<wire::PurgeAnswer> = common.ask(variables, "execution.purge", &body).await?;
        let Answered::Ok(purged) = &answered else { return Ok(ended(&answered)) };
        rows.add(&purged.rows);
        if !purged.complete {
            continue;
        }
        if !common.json {
            say!("{} of tenant {tenant}:", if dry_run { "would be deleted" } else { "deleted" });
            let row = |(name, count): (&str, u64)| vec![name.replace('_', " "), count.to_string()];
            table(&["what", "rows"], &rows.named().map(row));
            if purged.unconfirmed_workers > 0 {
                say!(
                    "{} workers did not confirm in time; they follow the database within seconds",
                    purged.unconfirmed_workers
                );
            }
        }
        return Ok(Ended::Well);
    }
}

/// Asks on a terminal; without one, `--yes` must say it.
fn agreed(tenant: &str) -> Result<bool, Error> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::Usage("a purge can't be undone: add --yes, or --dry-run to see how much it is".to_owned()));
    }
    eprint!("Everything of tenant '{tenant}' that is in reach will be deleted. Write its name to go on: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line.trim() == tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(parse_age("30d"), Ok(30 * 24 * 3600));
        assert_eq!(parse_age("90m"), Ok(5400));
        for wrong in ["", "d", "30", "30 d", "-1d", "3w", "é", "99999999999999999999d", "999999999999999999d"] {
            assert!(parse_age(wrong).is_err(), "{wrong:?}");
        }
    }
}
