//! What asking a model gives, in each wire format, over real HTTP.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test")]

#[path = "../support/fault.rs"]
mod fault;
#[path = "../support/provider.rs"]
mod provider;

mod answers;
mod batch;
mod costs;
mod faults;
mod limits;
mod route;
mod stream;

use std::error::Error as _;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::domain::{CorrelationId, Message, Tenant, Timestamp};
use tandem::llm::{Client, Credentials, Error, Key, Options, Prompt, Terms};
use tokio::time::Instant;

const CANARY: &str = "sk-canary-5f0d9a7be1c24433";
/// 2025-12-01: the table is dated, the tests are not to change with it.
const NOW: Timestamp = Timestamp(1_764_547_200_000);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Anthropic,
    OpenAi,
    Gemini,
}

use Format::{Anthropic, Gemini, OpenAi};

const FORMATS: [Format; 3] = [Anthropic, OpenAi, Gemini];

impl Format {
    fn model(self) -> &'static str {
        match self {
            Anthropic => "anthropic/claude-sonnet-4-5",
            OpenAi => "openai/gpt-5-mini",
            Gemini => "google/gemini-2.5-flash",
        }
    }

    fn credentials(self, base_url: String, secret: &str) -> Credentials {
        let key = Some(Key { secret: secret.into(), base_url });
        match self {
            Anthropic => Credentials { anthropic: key, ..Credentials::default() },
            OpenAi => Credentials { openai: key, ..Credentials::default() },
            Gemini => Credentials { google: key, ..Credentials::default() },
        }
    }

    fn client(self, base_url: String) -> Client {
        self.client_for(self.model(), base_url)
    }

    fn client_for(self, model: &str, base_url: String) -> Client {
        self.client_with(Options { route: vec![model.into()], max_retries: 0, ..Options::default() }, base_url)
    }

    fn client_with(self, options: Options, base_url: String) -> Client {
        Client::new(options, self.credentials(base_url, CANARY), None).unwrap()
    }

    /// A good answer with cached input and, where the format has them, thoughts.
    fn good(self, finish: &str) -> Value {
        match self {
            Anthropic => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
                "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "fn "},
                            {"type": "text", "text": "main() {}"}],
                "stop_reason": finish, "stop_sequence": null,
                "usage": {"input_tokens": 500, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 300,
                          "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 100},
                          "output_tokens": 40, "service_tier": "standard"}
            }),
            OpenAi => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini-2025-08-07",
                "choices": [{"index": 0, "finish_reason": finish,
                             "message": {"role": "assistant", "content": "fn main() {}", "refusal": null}}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 77, "total_tokens": 1077,
                          "prompt_tokens_details": {"cached_tokens": 333},
                          "completion_tokens_details": {"reasoning_tokens": 60}}
            }),
            Gemini => json!({
                "candidates": [{"index": 0, "finishReason": finish, "content": {"role": "model", "parts": [
                    {"text": "let me think", "thought": true}, {"text": "fn main() {}"}]}}],
                "usageMetadata": {"promptTokenCount": 1001, "cachedContentTokenCount": 1, "candidatesTokenCount": 5,
                                  "thoughtsTokenCount": 7, "totalTokenCount": 1013},
                "modelVersion": "gemini-2.5-flash"
            }),
        }
    }

    fn stop(self) -> &'static str {
        match self {
            Anthropic => "end_turn",
            OpenAi => "stop",
            Gemini => "STOP",
        }
    }

    fn error(self, message: &str) -> Value {
        match self {
            Anthropic => json!({"type": "error", "error": {"type": "some_error", "message": message}}),
            OpenAi => json!({"error": {"message": message, "type": "t", "param": null, "code": "some_error"}}),
            Gemini => json!({"error": {"code": 418, "message": message, "status": "some_error"}}),
        }
    }

    /// The same answer as [`Self::good`], as the events of a stream, each with its blank line.
    fn events(self, finish: &str) -> Vec<String> {
        let named = |kind: &str, mut data: Value| {
            data["type"] = json!(kind);
            format!("event: {kind}\ndata: {data}\n\n")
        };
        let plain = |data: Value| format!("data: {data}\n\n");
        match self {
            Anthropic => vec![
                named(
                    "message_start",
                    json!({"message": {"id": "msg_1", "model": "claude-sonnet-4-5-20250929",
                    "content": [], "stop_reason": null, "usage": {"input_tokens": 500, "output_tokens": 1,
                    "cache_creation_input_tokens": 200, "cache_read_input_tokens": 300,
                    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 100}}}}),
                ),
                named(
                    "content_block_start",
                    json!({"index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
                ),
                named("ping", json!({})),
                named(
                    "content_block_delta",
                    json!({"index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
                ),
                named("content_block_stop", json!({"index": 0})),
                named("content_block_start", json!({"index": 1, "content_block": {"type": "text", "text": ""}})),
                named("content_block_delta", json!({"index": 1, "delta": {"type": "text_delta", "text": "fn "}})),
                named("content_block_delta", json!({"index": 1, "delta": {"type": "text_delta", "text": "main() {}"}})),
                named("content_block_stop", json!({"index": 1})),
                named("message_delta", json!({"delta": {"stop_reason": finish}, "usage": {"output_tokens": 40}})),
                named("message_stop", json!({})),
            ],
            OpenAi => {
                let chunk = |choices: Value, usage: Value| {
                    plain(
                        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-5-mini-2025-08-07",
                                 "choices": choices, "usage": usage}),
                    )
                };
                let delta =
                    |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
                vec![
                    chunk(delta(json!({"role": "assistant", "content": ""}), Value::Null), Value::Null),
                    chunk(delta(json!({"content": "fn "}), Value::Null), Value::Null),
                    chunk(delta(json!({"content": "main() {}"}), Value::Null), Value::Null),
                    chunk(delta(json!({}), json!(finish)), Value::Null),
                    chunk(json!([]), self.good(finish)["usage"].clone()),
                    "data: [DONE]\n\n".to_owned(),
                ]
            }
            Gemini => {
                let part = |part: Value, finish: Value| {
                    json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]},
                           "finishReason": finish}], "usageMetadata": {"promptTokenCount": 1001},
                           "modelVersion": "gemini-2.5-flash"})
                };
                let mut last = part(json!({"text": "main() {}"}), json!(finish));
                last["usageMetadata"] = self.good(finish)["usageMetadata"].clone();
                vec![
                    plain(part(json!({"text": "hm", "thought": true}), Value::Null)),
                    plain(part(json!({"text": "fn "}), Value::Null)),
                    plain(last),
                ]
            }
        }
    }

    /// How the provider says that it is overloaded.
    fn overload(self) -> Value {
        match self {
            Anthropic => json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            OpenAi => {
                json!({"error": {"message": "The engine is overloaded", "type": "server_error", "code": "engine_overloaded"}})
            }
            Gemini => json!({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
        }
    }
}

fn prompt() -> Prompt {
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    Prompt {
        system: "Answer in Rust.".into(),
        messages: vec![
            message("user", "Write a program."),
            message("assistant", "Which?"),
            message("system", "Be short."),
            message("assistant", "  "),
            message("user", "An empty one."),
        ],
        max_output_tokens: Some(1234),
        ..Prompt::default()
    }
}

fn soon() -> Terms {
    by(Instant::now() + Duration::from_secs(30))
}

fn by(deadline: Instant) -> Terms {
    Terms::new(Tenant::default(), CorrelationId::generate(), deadline)
}

fn assert_no_canary(error: &Error) {
    let mut said = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(inner) = source {
        said += &format!(" {inner} {inner:?}");
        source = inner.source();
    }
    assert!(!said.contains("canary"), "{said}");
}
