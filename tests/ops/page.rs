//! `/healthz`, `/readyz`, `/metrics`.

use serde_json::{Value, json};
use tandem::config::Config;
use tandem::llm::{Credentials, Key, PriceOverride};
use tandem::telemetry::metrics::TABLE;

use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::process::{Served, tandem};
use crate::provider::{Reply, Server};
use crate::worker::Place;
use crate::{ask, declined, example, get, sample, until};

fn with_page(mut config: Config) -> Config {
    config.http.listen = "127.0.0.1:0".to_owned();
    config
}

/// A provider whose model writes 200 tokens for 1,000, at 3 and 15 dollars a million.
async fn model(config: &mut Config) -> (Server, Credentials) {
    let text = "```rust\npub fn minimum_cost(matrix: &[Vec<u32>]) -> Option<u32> {\n    None\n}\n```";
    let said = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
    });
    let provider = Server::start(Reply::json(200, said.to_string())).await;
    let price = PriceOverride { input_usd_per_mtok: 3.0, output_usd_per_mtok: 15.0 };
    config.llm.prices = [("openai/gpt-5-mini".to_owned(), price)].into();
    config.llm.route = vec!["openai/gpt-5-mini".to_owned()];
    let key = Key { secret: "sk-canary".into(), base_url: provider.url() };
    (provider, Credentials { openai: Some(key), ..Credentials::default() })
}

#[tokio::test]
async fn a_scrape_shows_what_was_done_by_method_language_and_code_and_what_it_cost() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut config = with_page(place.config(&nats));
    let (_provider, credentials) = model(&mut config).await;
    let worker = place.worker_with(config, credentials).await;
    let address = worker.page().unwrap().to_string();
    let client = nats.client().await;
    for body in [example(), example(), example(), declined(), json!({"task": 7})] {
        ask(&client, "execution.request", &body).await;
    }
    let made_up = json!({"task": "why is the sky blue?", "language": "secret-tenant-language"});
    ask(&client, "execution.request.acme", &made_up).await;
    client.publish_with_reply("execution.request", "$JS.API.STREAM.DELETE.X", "{}".into()).await.unwrap();
    client.flush().await.unwrap();
    until("the refused reply is counted", async || {
        let (status, text) = get(&address, "/metrics").await;
        assert_eq!(status, 200);
        sample(&text, "tandem_refused_replies_total").filter(|n| *n == 1.0)
    })
    .await;
    let (_, text) = get(&address, "/metrics").await;
    for (name, value) in [
        ("tandem_requests_total{method=\"autonomous\",language=\"elixir\"}", 1.0),
        ("tandem_requests_total{method=\"cached\",language=\"elixir\"}", 2.0),
        ("tandem_requests_total{method=\"llm_assisted\",language=\"rust\"}", 1.0),
        ("tandem_request_seconds_count{method=\"cached\"}", 2.0),
        ("tandem_errors_total{code=\"invalid_field\"}", 1.0),
        ("tandem_cache_hits_total{tier=\"exact\"}", 2.0),
        ("tandem_model_cost_nanodollars_total", 12_000_000.0),
        ("tandem_model_tokens_total{direction=\"input\"}", 2000.0),
        ("tandem_model_tokens_total{direction=\"output\"}", 400.0),
        ("tandem_model_attempts_total{provider=\"openai\",model=\"gpt-5-mini\",outcome=\"done\"}", 2.0),
        ("tandem_model_circuit{model=\"openai/gpt-5-mini\"}", 0.0),
        ("tandem_shed_total", 0.0),
        ("tandem_dropped_messages_total", 0.0),
        ("tandem_nats_reconnects_total", 0.0),
        ("tandem_ready", 1.0),
    ] {
        assert_eq!(sample(&text, name), Some(value), "{name}: {text}");
    }
    assert!(sample(&text, "tandem_cache_entries").unwrap() >= 2.0);
    assert!(!text.contains("acme") && !text.contains("secret-tenant") && !text.contains("sky"), "{text}");
    // Nothing was purged, embedded, streamed or limited, and no workflow was started.
    let unused = [
        "tandem_workflow_steps_total",
        "tandem_workflow_step_seconds",
        "tandem_purged_rows_total",
        "tandem_embedding_seconds",
        "tandem_model_first_token_seconds",
        "tandem_model_limit_waiting",
        "tandem_model_limit_leased",
    ];
    for row in TABLE.iter().filter(|row| !unused.contains(&row.name)) {
        assert!(text.contains(&format!("\n# TYPE {} ", row.name)), "{} is not there: {text}", row.name);
    }
    worker.stop().await;
}

#[tokio::test]
async fn ready_names_the_component_that_is_away_and_is_well_again_after_it() {
    let mut nats = Nats::start().await;
    let mut postgres = Postgres::start();
    let place = Place::new();
    let mut config = with_page(place.config(&nats));
    config.database.url = postgres.url();
    let worker = place.worker_with(config, Credentials::default()).await;
    let address = worker.page().unwrap().to_string();
    let ready = async || {
        let (status, body) = get(&address, "/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], status == 200, "{body}");
        (status, body["components"].clone())
    };
    let becomes = async |status: u16, component: &str, state: &str| {
        until(&format!("{component} is {state}"), async || {
            let (said, components) = ready().await;
            (said == status && components[component]["status"] == state).then_some(())
        })
        .await;
    };
    becomes(200, "database", "ok").await;
    postgres.pause();
    becomes(503, "database", "down").await;
    let (_, components) = ready().await;
    assert_eq!((&components["nats"]["status"], &components["door"]["status"]), (&json!("ok"), &json!("ok")));
    let (_, text) = get(&address, "/metrics").await;
    assert_eq!(sample(&text, "tandem_ready"), Some(0.0));
    assert!(sample(&text, "tandem_database_errors_total").unwrap() > 0.0, "{text}");
    assert_eq!(get(&address, "/healthz").await, (200, "ok\n".to_owned()), "it lives all the same");
    assert!(postgres.resume());
    becomes(200, "database", "ok").await;

    let port = nats.server.port();
    let folder = tempfile::tempdir().unwrap();
    nats.server.stop().await.unwrap();
    becomes(503, "nats", "down").await;
    nats.server =
        tandem::app::nats_server::NatsServer::start(&crate::nats::binary(), folder.path(), Some(port)).await.unwrap();
    becomes(200, "nats", "ok").await;
    let (_, text) = get(&address, "/metrics").await;
    assert!(sample(&text, "tandem_nats_reconnects_total").unwrap() >= 1.0, "{text}");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_says_so_until_it_has_answered_everybody() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let provider = Server::start(Reply::Stalled).await;
    let database = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let variables = [
        ("NATS_URL", nats.server.url()),
        ("DATABASE_URL", &database),
        ("OPENAI_API_KEY", "sk-canary"),
        ("OPENAI_BASE_URL", &provider.url()),
        ("TANDEM__LLM__ROUTE", "openai/gpt-5-mini"),
    ];
    let mut serving = Served::start(tandem(folder.path(), &variables, &["serve", "--grace", "20"]));
    serving.ready().await;
    let address = serving.says("health, readiness").await["http.address"].as_str().unwrap().to_owned();
    assert_eq!(get(&address, "/readyz").await.0, 200);
    let client = nats.client().await;
    let body = json!({"task": declined()["task"], "language": "rust", "timeout_ms": 4000});
    let asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "execution.request", &body).await }
    });
    until("it is being done", async || {
        let (_, text) = get(&address, "/metrics").await;
        sample(&text, "tandem_in_flight{lane=\"work\"}").filter(|n| *n == 1.0)
    })
    .await;
    serving.signal("TERM");
    let body = until("it says that it stops", async || {
        let (status, body) = get(&address, "/readyz").await;
        (status == 503).then_some(body)
    })
    .await;
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["components"]["door"]["status"], "down", "{said}");
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert!(asked.await.unwrap().get("error").is_some() || !serving.log().is_empty());
    assert!(serving.ended().await.success());
}
