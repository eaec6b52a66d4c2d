//! `tandem stats` and `tandem health`

use serde_json::{Value, json};

use super::client::{Answered, Common, ended, figure, table};
use super::{Ended, Error};
use crate::config::Variables;

pub(super) async fn stats(common: &Common, variables: &Variables) -> Result<Ended, Error> {
    let answered: Answered<Value> = common.ask(variables, "execution.stats", &json!({})).await?;
    if let (Answered::Ok(stats), false) = (&answered, common.json) {
        say!(
            "{} executions, success {}, quality {}, mean {} ms",
            stats["total_executions"],
            figure(stats["success_rate"].as_f64(), 3),
            figure(stats["average_quality"].as_f64(), 3),
            figure(stats["average_time_ms"].as_f64(), 2)
        );
        let latency = &stats["latency_ms"];
        let at = |key: &str| figure(latency[key].as_f64(), 2);
        say!("latency p50 {} ms, p95 {} ms, p99 {} ms", at("p50"), at("p95"), at("p99"));
        let cost = &stats["cost"];
        say!(
            "spent ${}, all-model estimate ${}, times cheaper {}",
            figure(cost["spent_usd"].as_f64(), 6),
            figure(cost["all_model_usd"].as_f64(), 6),
            figure(cost["times_cheaper"].as_f64(), 1)
        );
        if let Some(methods) = stats["methods"].as_object() {
            let row = |(m, s): (&String, &Value)| {
                vec![m.clone(), s["executions"].to_string(), figure(s["share"].as_f64(), 3)]
            };
            table(&["method", "executions", "share"], &methods.iter().map(row).collect::<Vec<_>>());
        }
    }
    Ok(ended(&answered))
}

pub(super) async fn health(common: &Common, variables: &Variables) -> Result<Ended, Error> {
    let answered: Answered<Value> = common.ask(variables, "execution.health", &json!({})).await?;
    if let (Answered::Ok(health), false) = (&answered, common.json) {
        say!("{} (tandem {})", health["status"].as_str().unwrap_or("?"), health["version"].as_str().unwrap_or("?"));
        if let Some(components) = health["components"].as_object() {
            let text = |c: &Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
            let row = |(name, c): (&String, &Value)| vec![name.clone(), text(c, "status"), text(c, "message")];
            table(&["component", "status", ""], &components.iter().map(row).collect::<Vec<_>>());
        }
    }
    Ok(ended(&answered))
}
