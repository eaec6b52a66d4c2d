//! From attempt to attempt and from model to model: what is tried again, what falls over, what it may cost and how long
//! it may take.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::domain::NanoUsd;
use tandem::llm::{BreakerOptions, Circuit, Client, Credentials, Error, Key, Options, Prompt, Reason, Schema, Terms};
use tokio::time::Instant;

use crate::Format::{Anthropic, Gemini, OpenAi};
use crate::provider::{Reply, Server};
use crate::{CANARY, FORMATS, Format, NOW, by, prompt, soon};

fn good(format: Format) -> Reply {
    Reply::json(200, format.good(format.stop()).to_string())
}

fn status(format: Format, status: u16) -> Reply {
    Reply::json(status, format.error("scripted").to_string())
}

/// Pauses of a millisecond, and a breaker that stays out of it.
fn quick(format: Format) -> Options {
    let breaker = BreakerOptions { failures: 0, ..BreakerOptions::default() };
    Options { route: vec![format.model().into()], backoff_ms: 1, breaker, ..Options::default() }
}

/// A client whose route is a model of each server, in order.
fn along(options: Options, servers: &[(Format, &Server)]) -> Client {
    let mut credentials = Credentials::default();
    let mut route = vec![];
    for (format, server) in servers {
        let key = Some(Key { secret: CANARY.into(), base_url: server.url() });
        match format {
            Anthropic => credentials.anthropic = key,
            OpenAi => credentials.openai = key,
            Gemini => credentials.google = key,
        }
        route.push(format.model().to_owned());
    }
    Client::new(Options { route, ..options }, credentials, None).unwrap()
}

#[tokio::test]
async fn what_can_succeed_is_tried_again_and_what_cannot_is_not() {
    for format in FORMATS {
        for (fault, attempts) in [
            (status(format, 429), 3),
            (status(format, 529), 3),
            (status(format, 500), 3),
            (status(format, 503), 3),
            (Reply::Reset, 3),
            (Reply::Cut, 3),
            (Reply::json(200, ""), 3),
            (status(format, 400), 1),
            (status(format, 401), 1),
            (status(format, 403), 1),
            (status(format, 404), 1),
            (status(format, 413), 1),
            (status(format, 402), 1),
            (Reply::json(200, "[]"), 1),
        ] {
            let server = Server::script([fault.clone(), fault.clone(), good(format)]).await;
            let answer = format.client_with(quick(format), server.url()).ask(&prompt(), &soon(), NOW).await;
            assert_eq!(answer.is_ok(), attempts == 3, "{format:?} {fault:?}: {answer:?}");
            assert_eq!(server.received().len(), attempts, "{format:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn as_many_attempts_are_made_as_allowed() {
    let server = Server::start(status(OpenAi, 500)).await;
    for retries in [0, 1, 3] {
        let before = server.received().len();
        let terms = Terms { retries: Some(retries), ..soon() };
        let failed = OpenAi.client_with(quick(OpenAi), server.url()).ask(&prompt(), &terms, NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Status { reason: Reason::Server, .. }));
        assert_eq!(server.received().len() - before, retries as usize + 1);
        assert_eq!(failed.spent.attempts, retries + 1);
        assert_eq!(failed.spent.cost + failed.spent.unknown, NanoUsd::ZERO, "what is turned away is not billed");
    }
}

#[tokio::test]
async fn what_the_provider_asked_for_is_waited_for_and_never_beyond_the_deadline() {
    for format in FORMATS {
        for (name, value, least) in [("retry-after", "1", 1_000), ("retry-after-ms", "300", 300)] {
            let server = Server::script([status(format, 429).header(name, value), good(format)]).await;
            format.client_with(quick(format), server.url()).ask(&prompt(), &soon(), NOW).await.unwrap();
            let received = server.received();
            let gap = (received[1].at - received[0].at).as_millis();
            assert!((least..least + 900).contains(&gap), "{format:?} {name}: {gap} ms");
        }
        let server = Server::start(status(format, 429).header("retry-after", "60")).await;
        let begun = Instant::now();
        let terms = by(begun + Duration::from_secs(20));
        let failed = format.client_with(quick(format), server.url()).ask(&prompt(), &terms, NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Status { reason: Reason::RateLimited, .. }));
        assert!(server.received().len() == 1 && begun.elapsed() < Duration::from_secs(5), "nobody waits in vain");
    }
}

#[tokio::test]
async fn a_date_is_counted_from_the_date_of_the_answer() {
    let dated = status(OpenAi, 429)
        .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("retry-after", "Sun, 06 Nov 1994 08:49:38 GMT");
    let server = Server::script([dated, good(OpenAi)]).await;
    OpenAi.client_with(quick(OpenAi), server.url()).ask(&prompt(), &soon(), NOW).await.unwrap();
    let received = server.received();
    let gap = received[1].at - received[0].at;
    assert!((1_000..1_900).contains(&gap.as_millis()), "{gap:?}");
}

#[tokio::test]
async fn one_deadline_is_over_all_attempts() {
    for format in FORMATS {
        let server = Server::start(Reply::Stalled).await;
        let begun = Instant::now();
        let terms = by(begun + Duration::from_millis(1_500));
        let failed = format.client_with(quick(format), server.url()).ask(&prompt(), &terms, NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Timeout { .. }), "{:?}", failed.error);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(failed.spent.unknown > NanoUsd::ZERO, "it was sent, and nobody knows what it cost");
    }
}

#[tokio::test]
async fn a_route_falls_over_by_the_kind_of_failure() {
    let better = |reply: Reply, retries: u32| async move {
        let (first, second) = (Server::start(reply).await, Server::start(good(OpenAi)).await);
        let options = Options { max_retries: retries, ..quick(OpenAi) };
        let answer = along(options, &[(Anthropic, &first), (OpenAi, &second)]).ask(&prompt(), &soon(), NOW).await;
        (first.received().len(), second.received().len(), answer)
    };
    // Tried again first, then left.
    for code in [429, 500] {
        let (first, second, answer) = better(status(Anthropic, code), 2).await;
        assert_eq!((first, second), (3, 1), "{code}");
        assert_eq!(answer.unwrap().provider.as_str(), "openai");
    }
    // Left at once.
    for code in [529, 503, 404, 401, 403, 402] {
        let (first, second, answer) = better(status(Anthropic, code), 2).await;
        assert_eq!((first, second, answer.is_ok()), (1, 1, true), "{code}");
    }
    // Whoever asks for too long a pause is left too.
    let (first, second, _) = better(status(Anthropic, 429).header("retry-after", "45"), 2).await;
    assert_eq!((first, second), (1, 1));
    // Wrong everywhere.
    for code in [400, 413] {
        let (first, second, answer) = better(status(Anthropic, code), 2).await;
        assert_eq!((first, second, answer.is_err()), (1, 0, true), "{code}");
    }
}

#[tokio::test]
async fn a_wrong_key_rules_out_all_models_that_it_opens() {
    let server = Server::start(status(OpenAi, 401)).await;
    let route = vec!["openai/gpt-5-mini".to_owned(), "openai/gpt-5".to_owned()];
    let client = OpenAi.client_with(Options { route, ..quick(OpenAi) }, server.url());
    let failed = client.ask(&prompt(), &soon(), NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::Status { reason: Reason::Unauthorized, .. }));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn one_model_of_the_route_can_be_asked_for() {
    let (first, second) = (Server::start(good(Anthropic)).await, Server::start(good(Gemini)).await);
    let client = along(quick(Gemini), &[(Anthropic, &first), (Gemini, &second)]);
    let terms = Terms { model: Some(Gemini.model().to_owned()), ..soon() };
    assert_eq!(client.ask(&prompt(), &terms, NOW).await.unwrap().provider.as_str(), "google");
    let terms = Terms { model: Some("openai/gpt-5".to_owned()), ..soon() };
    let failed = client.ask(&prompt(), &terms, NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::NotInRoute { .. }));
    assert_eq!((first.received().len(), second.received().len()), (0, 1));
}

#[tokio::test]
async fn a_call_never_goes_over_what_it_may_cost_whatever_its_attempts_came_to() {
    let client = |server: &Server| OpenAi.client_with(quick(OpenAi), server.url());
    let server = Server::script([Reply::Cut, good(OpenAi)]).await;
    let worst = client(&server).worst_case(&prompt(), NOW).unwrap();
    let terms = |max| Terms { max_cost: Some(NanoUsd(max)), ..soon() };
    let failed = client(&server).ask(&prompt(), &terms(worst.0 - 1), NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::OverCost { .. }), "{:?}", failed.error);
    assert_eq!((server.received().len(), failed.spent.attempts), (0, 0));
    // The first attempt may have cost its worst: there is nothing left for a second, and how it failed is told.
    let failed = client(&server).ask(&prompt(), &terms(2 * worst.0 - 1), NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::Interrupted { .. }), "{:?}", failed.error);
    assert_eq!((server.received().len(), failed.spent.unknown), (1, worst));
    server.says(good(OpenAi));
    assert!(client(&server).ask(&prompt(), &terms(worst.0), NOW).await.is_ok());
}

#[tokio::test]
async fn a_model_that_is_too_dear_is_left_for_a_cheaper_one() {
    let (dear, cheap) = (Server::start(good(Anthropic)).await, Server::start(good(OpenAi)).await);
    let servers = [(Anthropic, &dear), (OpenAi, &cheap)];
    let worst = OpenAi.client_with(quick(OpenAi), cheap.url()).worst_case(&prompt(), NOW).unwrap();
    let terms = Terms { max_cost: Some(worst), ..soon() };
    let answer = along(quick(OpenAi), &servers).ask(&prompt(), &terms, NOW).await.unwrap();
    assert_eq!((answer.provider.as_str(), dear.received().len()), ("openai", 0));
    // Where the cheaper one failed, that is told, and not that the other one is too dear.
    cheap.says(status(OpenAi, 500));
    let options = Options { max_retries: 0, ..quick(OpenAi) };
    let client = along(options, &[servers[1], servers[0]]);
    let failed = client.ask(&prompt(), &terms, NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::Status { status: 500, .. }), "{:?}", failed.error);
    assert_eq!(dear.received().len(), 0);
}

#[tokio::test]
async fn a_model_that_keeps_failing_is_left_alone_and_asked_again_once() {
    let server = Server::start(status(OpenAi, 500)).await;
    let breaker = BreakerOptions { failures: 3, open_ms: 300, longest_open_ms: 60_000 };
    let options = Options { breaker, max_retries: 0, ..quick(OpenAi) };
    let client = OpenAi.client_with(options, server.url());
    let ask = || async { client.ask(&prompt(), &soon(), NOW).await };
    for _ in 0..3 {
        assert!(matches!(ask().await.unwrap_err().error, Error::Status { .. }));
    }
    assert_eq!(client.health()[0].circuit, Circuit::Open);
    let failed = ask().await.unwrap_err();
    assert!(matches!(failed.error, Error::CircuitOpen { .. }), "{:?}", failed.error);
    assert_eq!((server.received().len(), failed.spent.attempts), (3, 0));
    let opens_in = client.health()[0].opens_in.unwrap();
    server.says(Reply::Stalled);
    tokio::time::sleep(opens_in).await;
    // One probes, and the others are told so.
    let probe = tokio::spawn({
        let client = client.clone();
        async move { client.ask(&prompt(), &soon(), NOW).await }
    });
    while server.received().len() < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        assert!(matches!(ask().await.unwrap_err().error, Error::CircuitOpen { .. }));
    }
    assert_eq!(client.health()[0].circuit, Circuit::HalfOpen);
    // Whoever asked gives up: the next one probes, and all is well.
    probe.abort();
    let _ = probe.await;
    server.says(good(OpenAi));
    ask().await.unwrap();
    assert_eq!(client.health()[0].circuit, Circuit::Closed);
}

#[tokio::test]
async fn who_helped_to_open_the_circuit_waits_for_the_probe() {
    let server = Server::script([status(OpenAi, 500), status(OpenAi, 500), status(OpenAi, 500), good(OpenAi)]).await;
    let breaker = BreakerOptions { failures: 3, open_ms: 200, longest_open_ms: 60_000 };
    let client = OpenAi.client_with(Options { breaker, ..quick(OpenAi) }, server.url());
    client.ask(&prompt(), &soon(), NOW).await.unwrap();
    let received = server.received();
    assert!(received[3].at - received[2].at >= Duration::from_millis(190));
}

#[tokio::test]
async fn where_another_model_could_answer_nobody_waits_for_the_probe() {
    let (ill, well) = (Server::start(status(OpenAi, 500)).await, Server::start(good(Anthropic)).await);
    let breaker = BreakerOptions { failures: 2, open_ms: 200, longest_open_ms: 60_000 };
    let client = along(Options { breaker, ..quick(OpenAi) }, &[(OpenAi, &ill), (Anthropic, &well)]);
    let answer = client.ask(&prompt(), &soon(), NOW).await.unwrap();
    assert_eq!((answer.provider.as_str(), ill.received().len()), ("anthropic", 2));
}

#[tokio::test]
async fn a_slow_answer_is_asked_for_a_second_time_and_the_loser_is_cancelled() {
    let server = Server::start(good(OpenAi)).await;
    let hedge = |hedge| OpenAi.client_with(Options { hedge, ..quick(OpenAi) }, server.url());
    for (hedges, attempts) in [(false, 1), (true, 2)] {
        let client = hedge(hedges);
        for _ in 0..20 {
            client.ask(&prompt(), &soon(), NOW).await.unwrap();
        }
        let before = server.received().len();
        server.script_on([Reply::Stalled, good(OpenAi)]);
        let terms = by(Instant::now() + Duration::from_secs(if hedges { 30 } else { 1 }));
        let answer = client.ask(&prompt(), &terms, NOW).await;
        assert_eq!((answer.is_ok(), server.received().len() - before), (hedges, attempts));
        if let Ok(answer) = answer {
            assert_eq!(answer.spent.attempts, 2);
        }
        let begun = Instant::now();
        while server.cancels() < usize::from(hedges) + 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the loser was not cancelled");
            tokio::task::yield_now().await;
        }
        server.says(good(OpenAi));
    }
}

fn wanted() -> Value {
    json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false})
}

#[tokio::test]
async fn a_structured_answer_is_asked_for_in_each_format_and_checked_in_any_case() {
    for format in FORMATS {
        let said = |text: &str| {
            let mut body = format.good(format.stop());
            let place = match format {
                Anthropic => {
                    body["content"] = json!([{"type": "text", "text": text}]);
                    return Reply::json(200, body.to_string());
                }
                OpenAi => "/choices/0/message/content",
                Gemini => "/candidates/0/content/parts/1/text",
            };
            *body.pointer_mut(place).unwrap() = json!(text);
            Reply::json(200, body.to_string())
        };
        let server = Server::script([said(r#"{"n": 3}"#), said(r#"{"n": "three"}"#), said("three")]).await;
        let client = format.client_with(quick(format), server.url());
        let asked = Prompt { schema: Some(Schema::new(&wanted()).unwrap()), ..prompt() };
        assert_eq!(client.ask(&asked, &soon(), NOW).await.unwrap().text, r#"{"n": 3}"#);
        let request = server.received().remove(0).body;
        let place = match format {
            Anthropic => "/output_config/format/schema",
            OpenAi => "/response_format/json_schema/schema",
            Gemini => "/generationConfig/responseJsonSchema",
        };
        assert_eq!(request.pointer(place), Some(&wanted()), "{request}");
        for _ in 0..2 {
            let failed = client.ask(&asked, &soon(), NOW).await.unwrap_err();
            assert!(matches!(failed.error, Error::Mismatch { .. }), "{:?}", failed.error);
            assert!(failed.spent.cost > NanoUsd::ZERO, "it was paid all the same");
        }
        assert_eq!(server.received().len(), 3, "the same model says the same again");
    }
}
