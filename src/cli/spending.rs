//! `tandem llm stats`, `reset` and `budget`

use serde_json::json;

use super::client::{Answered, Common, ended, figure, table};
use super::{Ended, Error};
use crate::config::Variables;
use crate::domain::NanoUsd;
use crate::pipeline::{BudgetPeriod, BudgetScope, BudgetState, Budgets, ModelFigures, ModelStats};

pub(super) async fn stats(common: &Common, subject: &str, variables: &Variables) -> Result<Ended, Error> {
    let answered: Answered<ModelStats> = common.ask(variables, subject, &json!({})).await?;
    if let (Answered::Ok(stats), false) = (&answered, common.json) {
        let heading = ["model", "attempts", "good", "failed", "cost $", "unknown ≤ $", "mean ms", "tokens in", "out"];
        let row = |name: String, of: &ModelFigures| {
            let counts = [of.attempts, of.successes, of.failures].map(|n| n.to_string());
            let money = [of.cost_nanodollars, of.unknown_nanodollars].map(usd);
            let rest = [figure(of.average_time_ms, 1), of.input_tokens.to_string(), of.output_tokens.to_string()];
            [name].into_iter().chain(counts).chain(money).chain(rest).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> =
            stats.models.iter().map(|m| row(format!("{}/{}", m.provider, m.model), &m.figures)).collect();
        rows.push(row("all".to_owned(), &stats.total));
        table(&heading, &rows);
        let bad = stats.outcomes.iter().filter(|(outcome, _)| *outcome != "done");
        bad.for_each(|(outcome, count)| say!("{outcome}: {count}"));
        if stats.abandoned > 0 {
            say!("{} parts of budgets were lost with workers that died; they are in the unknown", stats.abandoned);
        }
    }
    Ok(ended(&answered))
}

pub(super) async fn budget(common: &Common, variables: &Variables) -> Result<Ended, Error> {
    let answered: Answered<Budgets> = common.ask(variables, "llm.budget", &json!({})).await?;
    if let (Answered::Ok(Budgets { budgets, .. }), false) = (&answered, common.json) {
        if budgets.is_empty() {
            say!("nothing bounds what tenant {} may spend: see llm.budget in docs/configuration.md", common.tenant);
        } else {
            let row = |of: &BudgetState| {
                let scope = match of.scope {
                    BudgetScope::All => "all tenants",
                    BudgetScope::Tenant => "this tenant",
                };
                let period = match of.period {
                    BudgetPeriod::Total => "ever",
                    BudgetPeriod::Day => "today",
                };
                let money =
                    [of.limit_nanodollars, of.used_nanodollars, of.unknown_nanodollars, of.reserved_nanodollars];
                let money = money.into_iter().chain([of.left_nanodollars]).map(usd);
                [scope, period].map(str::to_owned).into_iter().chain(money).collect::<Vec<_>>()
            };
            let heading = ["of", "when", "limit $", "used $", "of it unknown $", "set aside $", "left $"];
            table(&heading, &budgets.iter().map(row).collect::<Vec<_>>());
        }
    }
    Ok(ended(&answered))
}

/// To the nano-dollar.
fn usd(nanos: u64) -> String {
    NanoUsd(nanos).to_string().trim_start_matches('$').to_owned()
}
