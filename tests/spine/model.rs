//! Tasks that the rules decline, with a model and without one.

use serde_json::{Value, json};
use tandem::config::Config;
use tandem::llm::{Credentials, Key, PriceOverride};

use crate::llmock::Llmock;
use crate::nats::Nats;
use crate::provider::{Reply, Server};
use crate::worker::{Place, Running};
use crate::{Asker, declined, example, text, with};

const CANARY: &str = "sk-canary-5f0d9a7be1c24433";

#[derive(Debug, Clone, Copy)]
enum Format {
    Anthropic,
    OpenAi,
    Gemini,
}

use Format::{Anthropic, Gemini, OpenAi};

impl Format {
    fn credentials(self, base_url: String) -> Credentials {
        let key = Some(Key { secret: CANARY.into(), base_url });
        match self {
            Anthropic => Credentials { anthropic: key, ..Credentials::default() },
            OpenAi => Credentials { openai: key, ..Credentials::default() },
            Gemini => Credentials { google: key, ..Credentials::default() },
        }
    }

    fn model(self) -> &'static str {
        match self {
            Anthropic => "anthropic/claude-sonnet-4-5",
            OpenAi => "openai/gpt-5-mini",
            Gemini => "google/gemini-2.5-flash",
        }
    }

    /// 1,000 tokens in and 200 out.
    fn says(self, text: &str, is_complete: bool) -> Reply {
        let body = match self {
            Anthropic => json!({
                "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
                "content": [{"type": "text", "text": text}],
                "stop_reason": if is_complete { "end_turn" } else { "max_tokens" },
                "usage": {"input_tokens": 1000, "output_tokens": 200}
            }),
            OpenAi => json!({
                "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
                "choices": [{
                    "index": 0, "message": {"role": "assistant", "content": text},
                    "finish_reason": if is_complete { "stop" } else { "length" }
                }],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
            }),
            Gemini => json!({
                "candidates": [{
                    "content": {"role": "model", "parts": [{"text": text}]},
                    "finishReason": if is_complete { "STOP" } else { "MAX_TOKENS" }
                }],
                "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 200, "totalTokenCount": 1200},
                "modelVersion": "gemini-2.5-flash"
            }),
        };
        Reply::json(200, body.to_string())
    }
}

const CODE: &str = "Here it is:\n\n```rust\npub fn minimum_cost(matrix: &[Vec<u32>]) -> Option<u32> {\n    matrix.first()?.first().copied()\n}\n```\n";

/// A worker that asks a scripted provider: 3 dollars for a million tokens in, 15 out.
async fn asking(nats: &Nats, place: &Place, format: Format, provider: &Server) -> Running {
    place.worker_with(priced(place.config(nats), format), format.credentials(provider.url())).await
}

fn priced(mut config: Config, format: Format) -> Config {
    let price = PriceOverride { input_usd_per_mtok: 3.0, output_usd_per_mtok: 15.0 };
    config.llm.prices = [(format.model().to_owned(), price)].into();
    config.llm.route = vec![format.model().to_owned()];
    config
}

#[tokio::test]
async fn what_the_rules_decline_comes_back_from_each_provider_with_its_tokens_and_cost() {
    for format in [Anthropic, OpenAi, Gemini] {
        let provider = Server::start(format.says(CODE, true)).await;
        let nats = Nats::start().await;
        let place = Place::new();
        let _worker = asking(&nats, &place, format, &provider).await;
        let asker = Asker::of(&nats).await;
        let answer = asker.request(&declined()).await;
        assert_eq!(answer["method"], "llm_assisted", "{format:?}: {answer}");
        assert!(text(&answer, "result").starts_with("pub fn minimum_cost"), "the code without its fence: {answer}");
        assert!(format.model().ends_with(text(&answer, "model_used")), "{answer}");
        let metrics = &answer["metrics"];
        assert_eq!((&metrics["tokens_used"], &metrics["success"]), (&json!(1200), &json!(true)), "{answer}");
        // 1,000 × 3 $ + 200 × 15 $, for a million each.
        assert_eq!(metrics["cost_usd"].as_f64(), Some(0.006), "{answer}");

        let hit = asker.request(&declined()).await;
        assert_eq!((&hit["method"], &hit["model_used"]), (&json!("cached"), &answer["model_used"]));
        assert_eq!((hit["metrics"]["cost_usd"].as_f64(), &hit["metrics"]["tokens_used"]), (Some(0.0), &json!(0)));
        assert_eq!(provider.received().len(), 1);
        let stats = asker.ask("execution.stats", &json!({})).await;
        assert_eq!(
            (stats["cost"]["spent_usd"].as_f64(), &stats["tokens_used"]),
            (Some(0.006), &json!(1200)),
            "{stats}"
        );

        // What the rules can do costs nothing.
        asker.request(&example()).await;
        assert_eq!(provider.received().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_in_prose_is_a_success_and_is_cached() {
    let prose = "Heap allocation is slower because it asks the allocator for room, and the stack only moves a pointer.";
    let provider = Server::start(OpenAi.says(prose, true)).await;
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = asking(&nats, &place, OpenAi, &provider).await;
    let asker = Asker::of(&nats).await;
    let question = json!({"task": "Why is heap allocation slower than stack allocation?", "language": "rust"});
    let answer = asker.request(&question).await;
    assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("llm_assisted"), &json!(true)), "{answer}");
    assert_eq!(answer["result"], prose);
    assert_eq!(asker.request(&question).await["cache"]["tier"], "exact");
}

#[tokio::test]
async fn an_answer_that_was_cut_short_or_does_not_parse_is_no_success_and_not_cached() {
    for (reply, says) in [
        (OpenAi.says("```rust\npub fn minimum_cost(matrix", false), "stopped early"),
        (OpenAi.says(CODE, false), "stopped early"),
        (OpenAi.says("```rust\npub fn ( -> {\n```", true), "syntax error"),
        (OpenAi.says("", true), "empty"),
    ] {
        let provider = Server::start(reply).await;
        let nats = Nats::start().await;
        let place = Place::new();
        let _worker = asking(&nats, &place, OpenAi, &provider).await;
        let asker = Asker::of(&nats).await;
        for asked in 1..=2 {
            let answer = asker.request(&declined()).await;
            assert_eq!(answer["metrics"]["success"], false, "{answer}");
            assert_eq!(answer["metrics"]["cache_hit"], false, "{answer}");
            assert!(text(&answer, "reason").contains(says), "{says}: {answer}");
            assert_eq!(provider.received().len(), asked);
        }
        let stats = asker.ask("execution.stats", &json!({})).await;
        assert_eq!(stats["cost"]["spent_usd"].as_f64(), Some(0.012), "what was spent in vain was spent: {stats}");
        assert_eq!(stats["success_rate"].as_f64(), Some(0.0));
    }
}

#[tokio::test]
async fn too_small_a_budget_is_a_fallback_that_says_so_and_asks_nobody() {
    let provider = Server::start(Anthropic.says(CODE, true)).await;
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = asking(&nats, &place, Anthropic, &provider).await;
    let asker = Asker::of(&nats).await;
    for budget in [0.0, 0.000_001, 0.001] {
        let answer = asker.request(&with(&declined(), json!({"max_cost_usd": budget}))).await;
        assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("fallback"), &json!(false)), "{answer}");
        assert!(text(&answer, "reason").contains("max_cost_usd"), "{answer}");
    }
    assert_eq!(provider.received().len(), 0);
    assert_eq!(asker.request(&with(&declined(), json!({"max_cost_usd": 1}))).await["method"], "llm_assisted");
}

#[tokio::test]
async fn without_a_key_it_is_a_fallback_that_says_which_and_is_never_cached() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    for _ in 0..2 {
        let answer = asker.request(&declined()).await;
        assert_eq!((&answer["method"], &answer["model_used"]), (&json!("fallback"), &json!("fallback")), "{answer}");
        let metrics = &answer["metrics"];
        assert_eq!((&metrics["success"], &metrics["cache_hit"]), (&json!(false), &json!(false)), "{answer}");
        assert_eq!((metrics["cost_usd"].as_f64(), &metrics["quality"]), (Some(0.0), &json!(null)), "{answer}");
        for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_AI_STUDIO_API_KEY"] {
            assert!(text(&answer, "reason").contains(name), "{answer}");
        }
    }
    assert_eq!(asker.ask("cache.stats", &json!({})).await["entries"], 0);
}

#[tokio::test]
async fn what_rules_do_alone_says_which_phrases_it_leaves_out_and_is_no_success() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let body = json!({"task": "NATS consumer for orders with exactly once semantics", "language": "go"});
    for _ in 0..2 {
        let answer = asker.request(&body).await;
        assert_eq!(
            (&answer["method"], &answer["metrics"]["success"]),
            (&json!("autonomous"), &json!(false)),
            "{answer}"
        );
        assert_eq!(answer["left_out"], json!(["with exactly once semantics"]), "{answer}");
        assert!(text(&answer, "reason").contains("with exactly once semantics"), "{answer}");
        assert!(text(&answer, "result").contains("type Order struct"), "{answer}");
    }
    assert_eq!(asker.ask("cache.stats", &json!({})).await["entries"], 0);
    let parts =
        json!({"task": "NATS consumer for orders with exactly once semantics and tests for orders", "language": "go"});
    let compound = asker.request(&parts).await;
    assert_eq!(compound["left_out"], json!(["with exactly once semantics"]), "{compound}");
    // Not where a phrase turns the meaning, nor for what its sender calls a criterion.
    for refused in [
        json!({"task": "NATS consumer for orders, without acknowledging", "language": "go"}),
        json!({"task": "NATS consumer for orders", "language": "go", "acceptance_criteria": ["exactly once semantics"]}),
    ] {
        assert_eq!(asker.request(&refused).await["method"], "fallback", "{refused}");
    }

    let provider = Server::start(OpenAi.says("package main", true)).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _worker = asking(&nats, &place, OpenAi, &provider).await;
    let answer = Asker::of(&nats).await.request(&body).await;
    assert_eq!((&answer["method"], &answer["left_out"]), (&json!("llm_assisted"), &json!(null)), "{answer}");
}

#[tokio::test]
async fn a_provider_that_fails_is_a_fallback_with_the_reason() {
    for (reply, says) in [
        (Reply::json(401, r#"{"error": {"message": "bad key", "type": "auth", "code": "invalid_api_key"}}"#), "401"),
        (Reply::json(529, "{}"), "529"),
        (Reply::json(200, "not json"), ""),
        (Reply::Cut, ""),
    ] {
        let provider = Server::start(reply).await;
        let nats = Nats::start().await;
        let place = Place::new();
        let _worker = asking(&nats, &place, OpenAi, &provider).await;
        let asker = Asker::of(&nats).await;
        let answer = asker.request(&declined()).await;
        assert_eq!((&answer["method"], &answer["metrics"]["success"]), (&json!("fallback"), &json!(false)), "{answer}");
        assert!(text(&answer, "reason").contains(says), "{says}: {answer}");
    }
    let provider = Server::start(Reply::Stalled).await;
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = asking(&nats, &place, OpenAi, &provider).await;
    let asker = Asker::of(&nats).await;
    let hurried = with(&declined(), json!({"timeout_ms": 300}));
    let message = asker.message("execution.request", &hurried).await;
    let answer: Value = crate::nats::json(&message);
    let fallback = answer["method"] == "fallback" && answer["metrics"]["success"] == false;
    assert!(fallback || answer["error"] == "deadline_exceeded", "within its time: {answer}");
}

#[tokio::test]
async fn a_task_may_cross_into_another_complexity_by_the_task_scope_only_where_it_is_the_same_task() {
    let provider = Server::start(OpenAi.says(CODE, true)).await;
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = asking(&nats, &place, OpenAi, &provider).await;
    let asker = Asker::of(&nats).await;
    asker.request(&declined()).await;
    for other in [json!({"complexity": "simple"}), json!({"language": "go"}), json!({"acceptance_criteria": ["O(n)"]})]
    {
        let answer = asker.request(&with(&declined(), other.clone())).await;
        assert_eq!(answer["metrics"]["cache_hit"], false, "{other}: {answer}");
    }
    assert_eq!(provider.received().len(), 4);
}

#[tokio::test]
async fn llmock_as_each_provider_is_asked_and_finds_nothing_wrong_with_us() {
    let llmock = Llmock::start().await;
    llmock.says("fn main() {}").await;
    let nats = Nats::start().await;
    for (key, base_url, at) in [
        ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic"),
        ("OPENAI_API_KEY", "OPENAI_BASE_URL", "v1"),
        ("GOOGLE_AI_STUDIO_API_KEY", "GOOGLE_GEMINI_BASE_URL", "gemini"),
    ] {
        let variables = [(key.to_owned(), CANARY.to_owned()), (base_url.to_owned(), llmock.url(at))].into();
        let place = Place::new();
        let worker = place.worker_with(place.config(&nats), tandem::config::credentials(&variables)).await;
        let asker = Asker::of(&nats).await;
        let answer = asker.request(&declined()).await;
        assert_eq!(
            (&answer["method"], &answer["result"]),
            (&json!("llm_assisted"), &json!("fn main() {}")),
            "{answer}"
        );
        let metrics = &answer["metrics"];
        assert!(metrics["tokens_used"].as_u64().unwrap() > 20, "{answer}");
        let cost = metrics["cost_usd"].as_f64().unwrap();
        assert!(cost > 0.0 && cost < 0.01, "{cost}");
        assert_eq!(metrics["success"], true, "{answer}");
        worker.stop().await;
    }
    let asked = llmock.requests().await.to_string();
    for path in ["/anthropic/v1/messages", "/v1/chat/completions", "gemini-2.5-flash:generateContent"] {
        assert!(asked.contains(path), "{path} is not in {asked}");
    }
    let verdict = llmock.verdict().await;
    assert!(verdict.contains("PASS") && !verdict.contains("FAIL") && !verdict.contains("WARN"), "{verdict}");
}
