//! An answer at once: what is asked, what is read, what it cost; what is no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::domain::{Message, NanoUsd};
use tandem::llm::{Client, Completion, Credentials, Error, Finish, Key, Options, PriceOverride, Prompt, Provider};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::Format::{Anthropic, Gemini, OpenAi};
use crate::provider::{Reply, Server};
use crate::{CANARY, FORMATS, Format, NOW, assert_no_canary, by, prompt, soon};

async fn ask(format: Format, reply: Reply) -> Result<Completion, Error> {
    let server = Server::start(reply).await;
    let answer = format.client(server.url()).ask(&prompt(), &soon(), NOW).await;
    assert_eq!(server.received().len(), 1, "one attempt");
    answer.map_err(|failed| failed.error)
}

/// The error, after making sure that nothing that can be printed of it holds the key.
async fn refused(format: Format, reply: Reply) -> Error {
    let error = ask(format, reply).await.unwrap_err();
    assert_no_canary(&error);
    error
}

#[tokio::test]
async fn a_good_answer_has_text_true_tokens_and_exact_cost() {
    for (format, model, input, output, nanos) in [
        // 500 × 3,000 + 100 × 3,750 + 100 × 6,000 (kept an hour) + 300 × 300 + 40 × 15,000
        (Anthropic, "claude-sonnet-4-5-20250929", 1000, 40, 3_165_000),
        // 667 × 250 + 333 × 25 + 77 × 2,000
        (OpenAi, "gpt-5-mini-2025-08-07", 1000, 77, 329_075),
        // 1,000 × 300 + 1 × 30 + 12 × 2,500
        (Gemini, "gemini-2.5-flash", 1001, 12, 330_030),
    ] {
        let answer = ask(format, Reply::json(200, format.good(format.stop()).to_string())).await.unwrap();
        assert_eq!(answer.text, "fn main() {}", "{format:?}");
        assert_eq!(answer.model, model);
        assert_eq!((answer.usage().input, answer.usage().output), (input, output), "{format:?}");
        assert_eq!(answer.cost(), NanoUsd(nanos), "{format:?}");
        assert_eq!(answer.finish, Finish::Stop);
        assert!(answer.is_complete() && !answer.time.is_zero());
    }
}

#[tokio::test]
async fn each_provider_is_asked_in_its_own_format_with_the_key_in_a_header_only() {
    for format in FORMATS {
        let server = Server::start(Reply::json(200, format.good(format.stop()).to_string())).await;
        format.client(server.url()).ask(&prompt(), &soon(), NOW).await.unwrap();
        let request = server.received().remove(0);
        let (path, header, key, body) = match format {
            Anthropic => (
                "/v1/messages",
                "x-api-key",
                CANARY.to_owned(),
                json!({
                    "model": "claude-sonnet-4-5", "max_tokens": 1234, "system": "Answer in Rust.\n\nBe short.",
                    "messages": [{"role": "user", "content": "Write a program."},
                                 {"role": "assistant", "content": "Which?"}, {"role": "user", "content": "An empty one."}]
                }),
            ),
            OpenAi => (
                "/v1/chat/completions",
                "authorization",
                format!("Bearer {CANARY}"),
                json!({
                    "model": "gpt-5-mini", "max_tokens": 1234,
                    "messages": [{"role": "system", "content": "Answer in Rust.\n\nBe short."},
                                 {"role": "user", "content": "Write a program."},
                                 {"role": "assistant", "content": "Which?"}, {"role": "user", "content": "An empty one."}]
                }),
            ),
            Gemini => (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                "x-goog-api-key",
                CANARY.to_owned(),
                json!({
                    "systemInstruction": {"parts": [{"text": "Answer in Rust.\n\nBe short."}]},
                    "contents": [{"role": "user", "parts": [{"text": "Write a program."}]},
                                 {"role": "model", "parts": [{"text": "Which?"}]},
                                 {"role": "user", "parts": [{"text": "An empty one."}]}],
                    "generationConfig": {"maxOutputTokens": 1234}
                }),
            ),
        };
        assert_eq!(request.path, path);
        assert_eq!(request.headers[header], key);
        assert_eq!(request.headers.values().filter(|v| v.to_str().unwrap().contains(CANARY)).count(), 1);
        assert_eq!(request.body, body);
        if format == Anthropic {
            assert_eq!(request.headers["anthropic-version"], "2023-06-01");
        }
    }
}

#[tokio::test]
async fn base_urls_work_with_and_without_slash_and_version() {
    for (format, suffixes, path) in [
        (Anthropic, &["", "/", "/v1", "/v1/"][..], "/v1/messages"),
        (Anthropic, &["/anthropic", "/anthropic/", "/anthropic/v1"], "/anthropic/v1/messages"),
        (OpenAi, &["", "/", "/v1", "/v1/"], "/v1/chat/completions"),
        (OpenAi, &["/groq/openai/v1", "/groq/openai/v1/"], "/groq/openai/v1/chat/completions"),
        (Gemini, &["", "/", "/v1beta", "/v1beta/"], "/v1beta/models/gemini-2.5-flash:generateContent"),
        (Gemini, &["/gemini", "/gemini/"], "/gemini/v1beta/models/gemini-2.5-flash:generateContent"),
    ] {
        let server = Server::start(Reply::json(200, format.good(format.stop()).to_string())).await;
        for suffix in suffixes {
            format.client(format!("{}{suffix}", server.url())).ask(&prompt(), &soon(), NOW).await.unwrap();
            assert_eq!(server.received().last().unwrap().path, path, "{format:?} {suffix:?}");
        }
    }
}

#[tokio::test]
async fn a_local_server_without_a_key_is_asked_without_a_header_and_priced_by_the_configuration() {
    let mut body = OpenAi.good("stop");
    // What it calls itself does not make it cost what the table says.
    body["model"] = json!("gpt-4o");
    let server = Server::start(Reply::json(200, body.to_string())).await;
    let free = PriceOverride { input_usd_per_mtok: 0.0, output_usd_per_mtok: 0.0375 };
    let options = Options {
        route: vec!["openai/meta/llama-3.2:1b".into()],
        prices: BTreeMap::from([("openai/meta/llama-3.2:1b".to_owned(), free)]),
        ..Options::default()
    };
    let client = Client::new(options, OpenAi.credentials(server.url(), ""), None).unwrap();
    assert!(client.is_configured());
    let answer = client.ask(&prompt(), &soon(), NOW).await.unwrap();
    // 77 × 37.5 = 2,887.5
    assert_eq!(answer.cost(), NanoUsd(2_888));
    let request = server.received().remove(0);
    assert!(!request.headers.contains_key("authorization"));
    assert_eq!(request.body["model"], "meta/llama-3.2:1b");
}

#[tokio::test]
async fn what_a_provider_refuses_is_told_with_status_and_its_own_words() {
    for format in FORMATS {
        for (status, transient) in [(401, false), (403, false), (400, false), (429, true), (500, true), (529, true)] {
            let body = format.error(&format!("no: {CANARY}\nis {}", "wrong ".repeat(100)));
            match refused(format, Reply::json(status, body.to_string())).await {
                Error::Status { status: found, ref code, ref message, retry_after, ref model, .. } => {
                    assert_eq!((found, code.as_deref(), retry_after), (status, Some("some_error"), None), "{format:?}");
                    assert!(message.starts_with("no: [redacted] is wrong"), "{message}");
                    assert!(message.chars().count() <= 300);
                    assert_eq!(model, format.model());
                }
                other => panic!("{format:?} {status}: {other:?}"),
            }
            let error = refused(format, Reply::json(status, "")).await;
            assert_eq!(error.is_transient(), transient, "{status}");
            assert!(matches!(error, Error::Status { code: None, .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_in_seconds_and_milliseconds() {
    for format in FORMATS {
        for (name, value, expected) in [
            ("retry-after", "7", Some(Duration::from_secs(7))),
            ("retry-after", "0.5", Some(Duration::from_millis(500))),
            ("retry-after-ms", "250", Some(Duration::from_millis(250))),
            ("retry-after", "-1", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1e400", None),
        ] {
            let reply = Reply::json(429, format.error("slow down").to_string()).header(name, value);
            let error = refused(format, reply).await;
            assert!(
                matches!(error, Error::Status { status: 429, retry_after, .. } if retry_after == expected),
                "{value}"
            );
        }
    }
}

#[tokio::test]
async fn an_empty_account_is_not_worth_another_attempt() {
    let body =
        json!({"error": {"message": "check your plan", "type": "insufficient_quota", "code": "insufficient_quota"}});
    assert!(!refused(OpenAi, Reply::json(429, body.to_string())).await.is_transient());
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    for format in FORMATS {
        let good = format.good(format.stop()).to_string();
        let html = Reply::Full { status: 200, headers: vec![("content-type", "text/html".into())], body: good.into() };
        let typed = json!({"model": {"leak": CANARY}, "content": CANARY, "choices": CANARY, "candidates": CANARY});
        let (garbled, malformed) = (true, false);
        for (what, reply, kind) in [
            ("the body is empty", Reply::json(200, ""), garbled),
            ("content type", html, malformed),
            ("it is no JSON", Reply::json(200, format!("{{\"model\": \"{CANARY}")), garbled),
            ("it is no JSON", Reply::json(200, "\u{feff}{}{}"), garbled),
            ("another form", Reply::json(200, typed.to_string()), malformed),
            ("another form", Reply::json(200, "[]"), malformed),
        ] {
            let error = refused(format, reply).await;
            let (is_garbled, said) = match &error {
                Error::Garbled { problem, .. } => (true, problem),
                Error::Malformed { problem, .. } => (false, problem),
                other => panic!("{format:?} {what}: {other:?}"),
            };
            assert!(said.contains(what), "{format:?} {what}: {error}");
            // What is never in the right form will not be next time.
            assert_eq!((is_garbled, error.is_transient()), (kind, kind), "{format:?} {what}: {error}");
        }
        let mut uncounted = format.good(format.stop());
        uncounted.as_object_mut().unwrap().retain(|name, _| !name.starts_with("usage"));
        let error = refused(format, Reply::json(200, uncounted.to_string())).await;
        assert!(matches!(error, Error::Malformed { .. }), "an unknown cost must not pass as zero: {error:?}");
        let (usage, output) = match format {
            Anthropic => ("/usage", "output_tokens"),
            OpenAi => ("/usage", "completion_tokens"),
            Gemini => ("/usageMetadata", "candidatesTokenCount"),
        };
        let mut uncounted = format.good(format.stop());
        uncounted.pointer_mut(usage).unwrap().as_object_mut().unwrap().remove(output).unwrap();
        let error = refused(format, Reply::json(200, uncounted.to_string())).await;
        assert!(matches!(error, Error::Malformed { .. }), "{format:?}: there is text, so there was output: {error:?}");
    }
}

#[tokio::test]
async fn a_count_of_tokens_that_can_not_be_is_no_answer() {
    for format in FORMATS {
        let fields = match format {
            Anthropic => ["/usage/input_tokens", "/usage/output_tokens", "/usage/cache_read_input_tokens"],
            OpenAi => ["/usage/prompt_tokens", "/usage/completion_tokens", "/usage/completion_tokens"],
            Gemini => [
                "/usageMetadata/promptTokenCount",
                "/usageMetadata/candidatesTokenCount",
                "/usageMetadata/thoughtsTokenCount",
            ],
        };
        for (field, count) in fields.into_iter().flat_map(|f| [(f, 1_u64 << 63), (f, u64::MAX), (f, 100_000_001)]) {
            let mut absurd = format.good(format.stop());
            *absurd.pointer_mut(field).unwrap() = json!(count);
            let error = refused(format, Reply::json(200, absurd.to_string())).await;
            assert!(matches!(error, Error::Malformed { .. }), "{format:?} {field} {count}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for format in FORMATS {
        // One request reaches the server: `ask` counts them.
        for status in [301, 302, 307, 308] {
            let error = refused(format, Reply::json(status, "").header("location", "/elsewhere")).await;
            assert!(matches!(error, Error::Status { status: found, .. } if found == status), "{error:?}");
            assert!(!error.is_transient() && error.to_string().contains("base URL"));
        }
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    for format in FORMATS {
        let mut server = Server::start(Reply::Endless).await;
        let error = format.client(server.url()).ask(&prompt(), &soon(), NOW).await.unwrap_err().error;
        assert!(matches!(error, Error::TooLarge { limit: 8_388_608, .. }), "{error:?}");
        timeout(Duration::from_secs(10), server.cancelled()).await.unwrap();
    }
}

#[tokio::test]
async fn at_the_deadline_the_request_is_really_cancelled() {
    for format in FORMATS {
        for reply in [Reply::Stalled, Reply::StalledBody] {
            let mut server = Server::start(reply.clone()).await;
            let client = format.client(server.url());
            let deadline = Instant::now() + Duration::from_millis(500);
            let error = client.ask(&prompt(), &by(deadline), NOW).await.unwrap_err().error;
            assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
            assert!(error.is_transient() && deadline.elapsed() < Duration::from_secs(5));
            assert_no_canary(&error);
            timeout(Duration::from_secs(10), server.cancelled()).await.unwrap();
        }
        let mut server = Server::start(Reply::Stalled).await;
        let options = Options { route: vec![format.model().into()], timeout_ms: 500, ..Options::default() };
        let client = Client::new(options, format.credentials(server.url(), CANARY), None).unwrap();
        let error = client.ask(&prompt(), &soon(), NOW).await.unwrap_err().error;
        assert!(matches!(error, Error::Timeout { .. }), "the configured timeout counts too: {error:?}");
        timeout(Duration::from_secs(10), server.cancelled()).await.unwrap();
    }
}

#[tokio::test]
async fn after_the_deadline_nothing_is_sent() {
    let server = Server::start(Reply::json(200, "")).await;
    let error = OpenAi.client(server.url()).ask(&prompt(), &by(Instant::now()), NOW).await.unwrap_err().error;
    assert!(matches!(error, Error::Timeout { .. }));
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn a_connection_that_fails_is_told_from_one_that_breaks() {
    for format in FORMATS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = format.client(url).ask(&prompt(), &soon(), NOW).await.unwrap_err().error;
        assert!(matches!(error, Error::Connect { .. }) && error.is_transient(), "{error:?}");
        assert_no_canary(&error);
        let error = refused(format, Reply::Cut).await;
        assert!(matches!(error, Error::Interrupted { .. }) && error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn why_a_model_stopped_is_kept() {
    for (format, word, finish) in [
        (Anthropic, "stop_sequence", Finish::Stop),
        (Anthropic, "max_tokens", Finish::Length),
        (Anthropic, "refusal", Finish::Refused),
        (OpenAi, "length", Finish::Length),
        (OpenAi, "content_filter", Finish::Refused),
        (Gemini, "MAX_TOKENS", Finish::Length),
        (Gemini, "SAFETY", Finish::Refused),
    ] {
        let answer = ask(format, Reply::json(200, format.good(word).to_string())).await.unwrap();
        assert_eq!(answer.finish, finish, "{format:?} {word}");
        assert_eq!(answer.is_complete(), finish == Finish::Stop);
        assert!(answer.cost() > NanoUsd::ZERO, "what was cut or refused is billed too");
    }
}

#[tokio::test]
async fn a_reason_that_nobody_knows_is_an_error_and_what_it_cost_is_known() {
    for (format, sent, told) in [
        (Anthropic, "tool_use", "tool_use"),
        (OpenAi, "surprise", "surprise"),
        (Gemini, "SURPRISE\n", "SURPRISE"),
        (Gemini, CANARY, "[redacted]"),
    ] {
        let server = Server::start(Reply::json(200, format.good(sent).to_string())).await;
        let failed = format.client(server.url()).ask(&prompt(), &soon(), NOW).await.unwrap_err();
        assert!(matches!(&failed.error, Error::UnknownFinish { word, .. } if word == told), "{:?}", failed.error);
        assert!(failed.spent.cost > NanoUsd::ZERO && failed.spent.unknown == NanoUsd::ZERO);
    }
}

#[tokio::test]
async fn an_answer_without_text_is_not_complete() {
    let mut anthropic = Anthropic.good("end_turn");
    anthropic["content"] = json!([]);
    let mut openai = OpenAi.good("stop");
    openai["choices"][0]["message"]["content"] = Value::Null;
    let mut gemini = Gemini.good("STOP");
    gemini["candidates"][0]["content"] = json!({"role": "model"});
    for (format, body) in [(Anthropic, anthropic), (OpenAi, openai), (Gemini, gemini)] {
        let answer = ask(format, Reply::json(200, body.to_string())).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.is_complete()), ("", false), "{format:?}");
    }
}

#[tokio::test]
async fn a_blocked_prompt_is_a_refusal() {
    let body = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}});
    let answer = ask(Gemini, Reply::json(200, body.to_string())).await.unwrap();
    assert_eq!((answer.finish, answer.cost()), (Finish::Refused, NanoUsd(3_000)));
    let mut body = OpenAi.good("stop");
    body["choices"][0]["message"] = json!({"role": "assistant", "content": null, "refusal": "I can't"});
    let answer = ask(OpenAi, Reply::json(200, body.to_string())).await.unwrap();
    assert_eq!((answer.finish, answer.text.as_str()), (Finish::Refused, "I can't"));
}

#[tokio::test]
async fn long_input_costs_what_its_tier_says() {
    for (input, nanos) in [(200_000, 600_000_000 + 15_000), (200_001, 1_200_006_000 + 22_500)] {
        let mut body = Anthropic.good("end_turn");
        body["usage"] = json!({"input_tokens": input, "output_tokens": 1});
        let answer = ask(Anthropic, Reply::json(200, body.to_string())).await.unwrap();
        assert_eq!(answer.cost(), NanoUsd(nanos));
    }
}

#[tokio::test]
async fn a_negative_count_is_refused() {
    let mut body = Anthropic.good("end_turn");
    body["usage"] = json!({"input_tokens": -5, "output_tokens": 1});
    assert!(matches!(refused(Anthropic, Reply::json(200, body.to_string())).await, Error::Malformed { .. }));
}

#[tokio::test]
async fn an_unknown_name_in_the_answer_is_priced_as_the_model_asked_for() {
    let mut body = OpenAi.good("stop");
    body["model"] = json!("something-of-ours");
    let answer = ask(OpenAi, Reply::json(200, body.to_string())).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.cost()), ("something-of-ours", NanoUsd(329_075)));
}

#[tokio::test]
async fn a_conversation_that_says_nothing_is_refused() {
    let client = Anthropic.client("http://127.0.0.1:9".into());
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    for messages in [vec![], vec![message("user", " \n")], vec![message("system", "x")], vec![message("tool", "x")]] {
        let prompt = Prompt { system: "x".into(), messages, ..Prompt::default() };
        let failed = client.ask(&prompt, &soon(), NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Prompt { .. }));
        assert!(matches!(client.worst_case(&prompt, NOW), Err(Error::Prompt { .. })));
    }
}

#[tokio::test]
async fn without_a_key_no_model_is_configured() {
    let options = Options { route: vec!["openai/gpt-5-mini".into()], ..Options::default() };
    for (options, credentials) in
        [(Options::default(), Credentials::default()), (options, Anthropic.credentials(String::new(), CANARY))]
    {
        let client = Client::new(options, credentials, None).unwrap();
        assert!(!client.is_configured() && client.models().is_empty());
        let failed = client.ask(&prompt(), &soon(), NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::NotConfigured));
        assert!(matches!(client.worst_case(&prompt(), NOW), Err(Error::NotConfigured)));
    }
}

#[test]
fn the_default_route_has_a_model_of_every_provider_with_a_key() {
    let key = || Some(Key { secret: CANARY.into(), base_url: String::new() });
    let client = |credentials| Client::new(Options::default(), credentials, None).unwrap().models();
    let all = Credentials { anthropic: key(), openai: key(), google: key() };
    assert!(!format!("{all:?}").contains("canary"));
    assert_eq!(client(all), FORMATS.map(Format::model));
    assert_eq!(client(Credentials { google: key(), ..Credentials::default() }), [Gemini.model()]);
}

#[test]
fn what_is_configured_wrongly_is_refused_at_the_start() {
    let new =
        |options, base: &str, secret: &str| Client::new(options, OpenAi.credentials(base.into(), secret), None).err();
    let route = |model: &str| Options { route: vec![model.into()], ..Options::default() };
    for model in ["gpt-5-mini", "mistral/x", "openai/", "openai/a b", "openai/ü"] {
        assert!(matches!(new(route(model), "", CANARY), Some(Error::Model { .. })), "{model}");
    }
    for model in ["openai/no-such-model", "openai/whisper-1", "openai/text-embedding-3-small"] {
        assert!(matches!(new(route(model), "", CANARY), Some(Error::Unpriced { .. })), "{model}");
    }
    for base in ["localhost", "ftp://x", "http://u:canary@h/", "https://h/?key=canary", "http://"] {
        let error = new(Options::default(), base, CANARY).unwrap();
        assert!(matches!(error, Error::BaseUrl { provider: Provider::OpenAi, .. }), "{base}");
        assert_no_canary(&error);
    }
    let error = new(Options::default(), "", "sk-canary\nx").unwrap();
    assert!(matches!(error, Error::Key { .. }));
    assert_no_canary(&error);
    let price = |usd| {
        BTreeMap::from([("openai/x".into(), PriceOverride { input_usd_per_mtok: usd, output_usd_per_mtok: 1.0 })])
    };
    for options in [
        Options { timeout_ms: 0, ..Options::default() },
        Options { max_output_tokens: 0, ..Options::default() },
        Options { temperature: Some(f32::NAN), ..Options::default() },
        Options { prices: price(-1.0), ..Options::default() },
        Options { prices: price(f64::INFINITY), ..Options::default() },
    ] {
        assert!(matches!(new(options, "", CANARY), Some(Error::Option { .. })));
    }
    assert!(serde_json::from_value::<Options>(json!({"timeout": 5})).is_err());
}

#[tokio::test]
async fn the_worst_case_is_above_what_the_call_can_cost() {
    let client = Anthropic.client("http://127.0.0.1:9".into());
    let bytes: u64 = ["Answer in Rust.\n\nBe short.", "Write a program.", "Which?", "An empty one."]
        .iter()
        .map(|text| text.len() as u64)
        .sum();
    let worst = client.worst_case(&prompt(), NOW).unwrap();
    assert!(worst > NanoUsd(bytes * 3_750 + 1234 * 15_000), "{worst}");
    assert!(worst < NanoUsd((bytes + 200) * 6_000 + 1234 * 15_000), "{worst}");
    // Twelve characters are three tokens in, five are two out.
    assert_eq!(client.estimate(12, 5, NOW), Some(NanoUsd(3 * 3_000 + 2 * 15_000)));
    let options = Options { reference_model: "openai/nobody-knows".into(), ..Options::default() };
    assert_eq!(Client::new(options, Credentials::default(), None).unwrap().estimate(12, 5, NOW), None);
}
