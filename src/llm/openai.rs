//! OpenAI Chat Completions, and the servers that are compatible with it (Ollama, vLLM, llama.cpp and others):
//! <https://platform.openai.com/docs/api-reference/chat>.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Piece, Reader, Unreadable, Wire, join};
use super::sse::Event;

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

    fn body(&self, url: &Url, call: &Call<'_>, stream: bool) -> serde_json::Result<Vec<u8>> {
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
            response_format: call.schema.map(|schema| ResponseFormat {
                kind: "json_schema",
                json_schema: JsonSchema { name: "answer", schema: schema.json(), strict: schema.is_strict() },
            }),
            stream,
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let choice = response.choices.into_iter().next().ok_or(Unreadable::Lacks("choices"))?;
        // Without a count there is no cost, and a cost that is not known must not pass as zero.
        let usage = response.usage.ok_or(Unreadable::Lacks("usage"))?;
        let message = choice.message;
        Ok(Answer {
            finish: finish(choice.finish_reason, message.refusal.is_some()),
            text: message.content.or(message.refusal).unwrap_or_default(),
            model: response.model,
            tokens: usage.tokens(),
        })
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(Chunks::default())
    }
}

fn finish(reason: Option<String>, refused: bool) -> Result<Finish, String> {
    match reason.as_deref() {
        _ if refused => Ok(Finish::Refused),
        Some("stop") => Ok(Finish::Stop),
        Some("length") => Ok(Finish::Length),
        Some("content_filter") => Ok(Finish::Refused),
        _ => Err(reason.unwrap_or_else(|| "none".to_owned())),
    }
}

/// Chunks with a piece of the message each; the last ones bring the reason, then what was counted, then `[DONE]`.
#[derive(Default)]
struct Chunks {
    text: String,
    model: Option<String>,
    usage: Option<ResponseUsage>,
    finish_reason: Option<String>,
    refused: bool,
}

impl Reader for Chunks {
    fn event(&mut self, event: &Event) -> Result<Piece, Unreadable> {
        if event.trim_ascii() == b"[DONE]" {
            return Ok(Piece { is_last: true, ..Piece::default() });
        }
        let chunk: Chunk = serde_json::from_slice(event)?;
        if chunk.error.is_some() {
            return Err(Unreadable::Refusal);
        }
        self.model = self.model.take().or(chunk.model);
        self.usage = chunk.usage.or(self.usage.take());
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(Piece::default()) };
        self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        let delta = choice.delta.unwrap_or_default();
        self.refused |= delta.refusal.is_some();
        let text = delta.content.or(delta.refusal).filter(|text| !text.is_empty());
        self.text.push_str(text.as_deref().unwrap_or_default());
        let thought = delta.reasoning_content.is_some_and(|thought| !thought.is_empty());
        Ok(Piece { token: thought || text.is_some(), text, is_last: false })
    }

    /// Some servers leave out `[DONE]`; the reason is what says that the answer is whole.
    fn finish(self: Box<Self>) -> Result<Answer, Unreadable> {
        if self.finish_reason.is_none() {
            return Err(Unreadable::Cut("finish_reason"));
        }
        let tokens = self.usage.ok_or(Unreadable::Lacks("usage"))?.tokens();
        let finish = finish(self.finish_reason, self.refused);
        Ok(Answer { text: self.text, model: self.model, tokens, finish })
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
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct ResponseFormat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    json_schema: JsonSchema<'a>,
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: &'static str,
    schema: &'a RawValue,
    strict: bool,
}

/// Without it a stream counts nothing.
#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
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
struct Chunk {
    error: Option<IgnoredAny>,
    model: Option<String>,
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    usage: Option<ResponseUsage>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    delta: Option<ChunkDelta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct ChunkDelta {
    content: Option<String>,
    refusal: Option<String>,
    /// As vLLM, llama.cpp and others stream thoughts.
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct ResponseUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

impl ResponseUsage {
    fn tokens(self) -> Tokens {
        let input = self.prompt_tokens_details.unwrap_or_default();
        let output = self.completion_tokens_details.unwrap_or_default();
        let cache_read = input.cached_tokens.map(|cached| cached.min(self.prompt_tokens));
        let rest = self.prompt_tokens - cache_read.unwrap_or(0);
        Tokens {
            input: self.prompt_tokens,
            cache_read,
            cache_write: input.cache_write_tokens.map(|written| written.min(rest)),
            cache_write_1h: None,
            output: self.completion_tokens,
            reasoning: output.reasoning_tokens.map(|thought| thought.min(self.completion_tokens)),
        }
    }
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
