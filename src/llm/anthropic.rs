//! Anthropic Messages: <https://docs.anthropic.com/en/api/messages>.

use reqwest::Url;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};

use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Unreadable, Wire, join, versioned};

pub(super) struct Messages;

impl Wire for Messages {
    fn public_url(&self) -> &'static str {
        "https://api.anthropic.com"
    }

    fn url(&self, base: Url, _model: &str) -> Url {
        join(versioned(base, &["v1"], "v1"), &["messages"])
    }

    fn key(&self, secret: &str) -> (HeaderName, String) {
        (HeaderName::from_static("x-api-key"), secret.to_owned())
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", "2023-06-01")]
    }

    fn body(&self, _url: &Url, call: &Call<'_>) -> serde_json::Result<Vec<u8>> {
        let messages = call.turns.iter().map(|turn| RequestMessage {
            role: match turn.speaker {
                Speaker::User => "user",
                Speaker::Assistant => "assistant",
            },
            content: turn.text,
        });
        serde_json::to_vec(&Request {
            model: call.model,
            max_tokens: call.max_output_tokens,
            system: &call.system,
            messages: messages.collect(),
            temperature: call.temperature,
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let text = response.content.into_iter().filter(|block| block.kind == "text").filter_map(|block| block.text);
        let usage = response.usage;
        let written = usage.cache_creation.unwrap_or_default();
        let (cache_write, cache_read) =
            (usage.cache_creation_input_tokens.unwrap_or(0), usage.cache_read_input_tokens.unwrap_or(0));
        Ok(Answer {
            text: text.collect(),
            model: response.model,
            tokens: Tokens {
                // Anthropic counts what went through its cache beside the input, not inside.
                input: usage.input_tokens.saturating_add(cache_write).saturating_add(cache_read),
                cache_read,
                cache_write,
                cache_write_1h: written.ephemeral_1h_input_tokens.unwrap_or(0).min(cache_write),
                output: usage.output_tokens,
                reasoning: usage.output_tokens_details.unwrap_or_default().thinking_tokens.unwrap_or(0),
            },
            finish: match response.stop_reason.as_deref() {
                Some("end_turn" | "stop_sequence") => Finish::Stop,
                Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
                Some("refusal") => Finish::Refused,
                other => Finish::Other(other.unwrap_or("none").to_owned()),
            },
        })
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    system: &'a str,
    messages: Vec<RequestMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
}

#[derive(Serialize)]
struct RequestMessage<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Deserialize)]
struct Response {
    model: Option<String>,
    content: Vec<Block>,
    stop_reason: Option<String>,
    usage: ResponseUsage,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct ResponseUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize, Default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}
