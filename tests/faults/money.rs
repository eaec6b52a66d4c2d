//! Workers that share a budget are killed in the middle of what they pay for.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::fault::{report, size};
use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::process::Served;
use crate::provider::{Act, Reply, Server};
use crate::{answer, serve, until};

/// Of one answer: 20 tokens in and 40 out, at 3 and 15 dollars for a million.
const COST: u64 = 660_000;
const PRICES: &str = r#"{"openai/gpt-5-mini": {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}}"#;
/// What it may cost at most: 84 tokens in for a question of this length, 50 out.
const WORST: u64 = 1_002_000;

/// It takes its time, so that there is always something on the way.
fn slowly() -> Reply {
    let message = json!({"role": "assistant", "content": "because"});
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60});
    let body = json!({"model": "gpt-5-mini", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                      "usage": usage});
    let acts = vec![Act::Pause(Duration::from_millis(300)), Act::Send(body.to_string().into_bytes())];
    Reply::Stream { content_type: "application/json", acts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_spend_no_more_than_the_budget_on_sqlite() {
    killed_workers_spend_no_more_than_the_budget("SQLite", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_spend_no_more_than_the_budget_on_postgres() {
    let server = Postgres::start();
    killed_workers_spend_no_more_than_the_budget("PostgreSQL", Some(&server.url())).await;
}

async fn killed_workers_spend_no_more_than_the_budget(database: &str, url: Option<&str>) {
    let (calls, paid_for) = size((200, 50), (1_000, 100));
    let budget = paid_for * COST;
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let provider = Server::start(slowly()).await;
    let (address, limit) = (provider.url(), format!("{}", budget as f64 / 1e9));
    let mut variables = vec![
        ("OPENAI_BASE_URL", address.as_str()),
        ("TANDEM__LLM__ROUTE", "openai/gpt-5-mini"),
        ("TANDEM__LLM__PRICES", PRICES),
        ("TANDEM__LLM__MAX_OUTPUT_TOKENS", "50"),
        ("TANDEM__LLM__MAX_RETRIES", "0"),
        ("TANDEM__LLM__MAX_CONCURRENT", "1000"),
        ("TANDEM__LLM__BUDGET__TOTAL_USD", limit.as_str()),
        ("TANDEM__LLM__BUDGET__LEASE_MS", "2000"),
        ("TANDEM__NATS__MAX_CONCURRENT", "1000"),
        ("TANDEM__NATS__MAX_CONCURRENT_PER_TENANT", "1000"),
    ];
    variables.extend(url.map(|url| ("DATABASE_URL", url)));
    // By the key it sends: so the provider's log tells whose a request is.
    let mut workers: Vec<(String, Served)> = vec![];
    for number in 1..=4 {
        let key = format!("sk-worker-{number}");
        let mut own = variables.clone();
        own.push(("OPENAI_API_KEY", key.as_str()));
        let worker = serve(&nats, folder.path(), &own).await;
        workers.push((key, worker));
    }
    let client = nats.client().await;

    // All at once; two workers die while their calls are on the way.
    let ask = async || {
        let asked = client.request("llm.query", json!({"prompt": "why?"}).to_string().into());
        let said = tokio::time::timeout(Duration::from_secs(20), asked).await.ok()?.ok()?;
        Some(serde_json::from_slice::<Value>(&said.payload).unwrap())
    };
    let mut asked: FuturesUnordered<_> = (0..calls).map(|_| ask()).collect();
    let asking = async {
        let mut said = vec![];
        while let Some(answer) = asked.next().await {
            said.push(answer);
        }
        said
    };
    let killing = async {
        for many in [paid_for as usize / 8, paid_for as usize / 4] {
            let (busy, _) = until(Duration::from_secs(30), "calls are on the way", async || {
                let received = provider.received();
                let last = received.last().filter(|_| received.len() >= many)?;
                workers
                    .iter()
                    .position(|(key, _)| last.headers["authorization"].to_str().unwrap().ends_with(key.as_str()))
            })
            .await;
            let (_, mut killed) = workers.remove(busy);
            killed.signal("KILL");
            killed.ended().await;
        }
    };
    let (said, ()) = tokio::join!(asking, killing);
    let good = said.iter().flatten().filter(|answer| answer["success"] == true).count() as u64;
    let refused = said.iter().flatten().filter(|answer| answer["error"]["code"] == "over_budget").count() as u64;
    let unanswered = said.iter().filter(|answer| answer.is_none()).count();
    assert!(refused > 0, "the budget was never reached");

    // What the dead had is settled; what the living do not need is given back, and can be spent to the end.
    let of_budget = async || answer(&client, "llm.budget", &json!({})).await["budgets"][0].clone();
    let settled = async || {
        let state = of_budget().await;
        (state["reserved_nanodollars"] == 0).then_some(state)
    };
    until(Duration::from_secs(30), "nothing is set aside", settled).await;
    let mut more = 0;
    // What one worker keeps at hand, another can't have until it is given back.
    let state = loop {
        let mut last = ask().await.unwrap();
        while last["success"] == true {
            more += 1;
            last = ask().await.unwrap();
        }
        assert_eq!(last["error"]["code"], "over_budget", "{last}");
        let (state, _) = until(Duration::from_secs(30), "nothing is set aside", settled).await;
        if state["left_nanodollars"].as_u64().unwrap() < WORST {
            break state;
        }
    };

    let stats = answer(&client, "llm.stats", &json!({})).await;
    let figure = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}: {stats} {state}"));
    let (known, unknown) = (figure(&stats["total"]["successes"]), figure(&stats["total"]["unknown_nanodollars"]));
    let (used, left) = (figure(&state["used_nanodollars"]), figure(&state["left_nanodollars"]));
    // The provider bills whatever reached it, whether its answer was waited for or not.
    let billed = provider.received().len() as u64;
    report(
        &format!("kill -9 of 2 of 4 workers on one budget, {database}"),
        format!(
            "{calls} calls, budget for {paid_for}: {billed} billed, {known} in the ledger, {} with the dead and ≤ {:.1} unknown, \
             {refused} refused, {unanswered} unanswered, {:.1} left",
            billed - known,
            unknown as f64 / COST as f64,
            left as f64 / COST as f64
        ),
        "billed ≤ budget; billed = ledger + the dead's; these ≤ unknown ≤ the worst of what the dead had begun; used + left = budget",
    );
    assert!(billed * COST <= budget, "{billed} calls were billed, {paid_for} were paid for");
    assert!(known >= good + more, "{known} in the ledger, {} acknowledged", good + more);
    assert_eq!(figure(&stats["total"]["cost_nanodollars"]), known * COST);
    assert!((billed - known) * COST <= unknown, "{billed} billed, {known} known, {unknown} unknown");
    // What they had leased and never begun to send came back. A request that they had begun need not have arrived.
    let begun = billed - known + 32;
    assert!(unknown <= begun * WORST, "{unknown} unknown, {} of the dead were billed", billed - known);
    assert_eq!(used, known * COST + unknown, "{state}");
    assert_eq!(used + left, budget, "{state}");
    assert!(left < WORST, "{left} could have been spent");
    assert!(figure(&stats["abandoned"]) >= 1 && figure(&state["unknown_nanodollars"]) == unknown, "{stats} {state}");
    assert!(provider.cancels() > 0, "nobody was killed in the middle of a call");
}
