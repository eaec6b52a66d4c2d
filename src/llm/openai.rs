//! OpenAI Chat Completions, and the servers that are compatible with it (Ollama, vLLM, llama.cpp and others):
//! <https://platform.openai.com/docs/api-reference/chat>.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName};
use serde::{Deserialize, Serialize};

use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Unreadable, Wire, join};

pub(super) struct ChatCompletions;

impl Wire for ChatCompletions {
    fn public_url(&self) -> &'static str {
        "https://api.openai.com/v1"
    }

    /// The base includes the version, as in OpenAI's own clients (some providers have another path); an address without
    /// any path (`http://localhost:11434`) gets `/v1`, where every compatible server listens.
    fn url(&self, base: Url, _model: &str) -> Url {
        let base = if base.path() == "/" { join(base, &["v1"]) } else { base };
        join(base, &["chat", "completions"])
    }

    fn key(&self, secret: &str) -> (HeaderName, String) {
        (AUTHORIZATION, format!("Bearer {secret}"))
    }

    fn body(&self, url: &Url, call: &Call<'_>) -> serde_json::Result<Vec<u8>> {
        let system = (!call.system.is_empty()).then_some(RequestMessage { role: "system", content: &call.system });
        let turns = call.turns.iter().map(|turn| RequestMessage {
            role: match turn.speaker {
                Speaker::User => "user",
                Speaker::Assistant => "assistant",
            },
            content: turn.text,
        });
        // OpenAI's thinking models refuse `max_tokens`; many compatible servers know nothing else.
        let (new, old) = match url.host_str() {
            Some("api.openai.com") => (Some(call.max_output_tokens), None),
            _ => (None, Some(call.max_output_tokens)),
        };
        serde_json::to_vec(&Request {
            model: call.model,
            messages: system.into_iter().chain(turns).collect(),
            max_completion_tokens: new,
            max_tokens: old,
            temperature: call.temperature,
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let choice = response.choices.into_iter().next().ok_or(Unreadable::Lacks("choices"))?;
        // Without a count there is no cost, and a cost that is not known must not pass as zero.
        let usage = response.usage.ok_or(Unreadable::Lacks("usage"))?;
        let input = usage.prompt_tokens_details.unwrap_or_default();
        let output = usage.completion_tokens_details.unwrap_or_default();
        let cache_read = input.cached_tokens.unwrap_or(0).min(usage.prompt_tokens);
        Ok(Answer {
            finish: match choice.finish_reason.as_deref() {
                _ if choice.message.refusal.is_some() => Finish::Refused,
                Some("stop") => Finish::Stop,
                Some("length") => Finish::Length,
                Some("content_filter") => Finish::Refused,
                other => Finish::Other(other.unwrap_or("none").to_owned()),
            },
            text: choice.message.content.or(choice.message.refusal).unwrap_or_default(),
            model: response.model,
            tokens: Tokens {
                input: usage.prompt_tokens,
                cache_read,
                cache_write: input.cache_write_tokens.unwrap_or(0).min(usage.prompt_tokens - cache_read),
                cache_write_1h: 0,
                output: usage.completion_tokens,
                reasoning: output.reasoning_tokens.unwrap_or(0).min(usage.completion_tokens),
            },
        })
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<RequestMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
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
    choices: Vec<Choice>,
    usage: Option<ResponseUsage>,
}

#[derive(Deserialize)]
struct Choice {
    message: ResponseMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ResponseMessage {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct ResponseUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize, Default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}
