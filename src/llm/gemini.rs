//! Gemini generateContent, as Google AI Studio serves it: <https://ai.google.dev/api/generate-content>.

use reqwest::Url;
use reqwest::header::HeaderName;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Schema;
use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Piece, Reader, Unreadable, Wire, join, versioned};
use super::sse::Event;

pub(super) struct GenerateContent;

impl Wire for GenerateContent {
    fn public_url(&self) -> &'static str {
        "https://generativelanguage.googleapis.com"
    }

    fn url(&self, base: Url, model: &str) -> Url {
        let model = model.strip_prefix("models/").unwrap_or(model);
        join(versioned(base, &["v1beta", "v1"], "v1beta"), &["models", &format!("{model}:generateContent")])
    }

    fn key(&self, secret: &str) -> (HeaderName, String) {
        (HeaderName::from_static("x-goog-api-key"), secret.to_owned())
    }

    fn stream_url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        let path = url.path().replace(":generateContent", ":streamGenerateContent");
        url.set_path(&path);
        url.set_query(Some("alt=sse"));
        url
    }

    fn body(&self, _url: &Url, call: &Call<'_>, _stream: bool) -> serde_json::Result<Vec<u8>> {
        let contents = call.turns.iter().map(|turn| RequestContent {
            role: Some(match turn.speaker {
                Speaker::User => "user",
                Speaker::Assistant => "model",
            }),
            parts: [RequestPart { text: turn.text }],
        });
        serde_json::to_vec(&Request {
            system_instruction: (!call.system.is_empty())
                .then_some(RequestContent { role: None, parts: [RequestPart { text: &call.system }] }),
            contents: contents.collect(),
            generation_config: GenerationConfig {
                max_output_tokens: call.max_output_tokens,
                temperature: call.temperature,
                response_mime_type: call.schema.map(|_| "application/json"),
                response_json_schema: call.schema.map(Schema::json),
            },
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let mut said = Said::default();
        said.add(response)?;
        if said.finish_reason.is_none() && !said.blocked && !said.has_candidate {
            return Err(Unreadable::Lacks("candidates"));
        }
        said.answer()
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(Said::default())
    }
}

fn finish(reason: Option<String>) -> Result<Finish, String> {
    match reason.as_deref() {
        Some("STOP") => Ok(Finish::Stop),
        Some("MAX_TOKENS") => Ok(Finish::Length),
        Some("SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII") => Ok(Finish::Refused),
        _ => Err(reason.unwrap_or_else(|| "none".to_owned())),
    }
}

/// Every event is a whole response with a piece of the text; the last one brings the reason. Counts are cumulative.
#[derive(Default)]
struct Said {
    text: String,
    model: Option<String>,
    usage: Option<UsageMetadata>,
    finish_reason: Option<String>,
    has_candidate: bool,
    blocked: bool,
}

impl Reader for Said {
    fn event(&mut self, event: &Event) -> Result<Piece, Unreadable> {
        self.add(serde_json::from_slice(event)?)
    }

    fn finish(self: Box<Self>) -> Result<Answer, Unreadable> {
        if self.finish_reason.is_none() && !self.blocked {
            return Err(Unreadable::Cut("finishReason"));
        }
        self.answer()
    }
}

impl Said {
    fn add(&mut self, response: Response) -> Result<Piece, Unreadable> {
        if response.error.is_some() {
            return Err(Unreadable::Refusal);
        }
        self.model = self.model.take().or(response.model_version);
        let counted = response.usage_metadata;
        self.blocked |= response.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        let Some(candidate) = response.candidates.into_iter().next() else {
            self.usage = counted.or(self.usage.take());
            return Ok(Piece::default());
        };
        self.has_candidate = true;
        self.finish_reason = candidate.finish_reason.or(self.finish_reason.take());
        let parts = candidate.content.unwrap_or_default().parts;
        let token = !parts.is_empty();
        // A count that is older than the last piece is too small.
        self.usage = counted.or(self.usage.take().filter(|_| !token));
        let text: String = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text).collect();
        self.text.push_str(&text);
        Ok(Piece { token, text: Some(text).filter(|text| !text.is_empty()), is_last: false })
    }

    fn answer(self) -> Result<Answer, Unreadable> {
        let usage = self.usage.ok_or(Unreadable::Lacks("usageMetadata"))?;
        let finish = match self.finish_reason {
            None if self.blocked => Ok(Finish::Refused),
            reason => finish(reason),
        };
        // Without a count there is no cost, and a cost that is not known must not pass as zero.
        if usage.candidates_token_count.is_none() && !self.text.is_empty() {
            return Err(Unreadable::Lacks("candidatesTokenCount"));
        }
        let input = usage.prompt_token_count.saturating_add(usage.tool_use_prompt_token_count.unwrap_or(0));
        let tokens = Tokens {
            input,
            cache_read: usage.cached_content_token_count.map(|cached| cached.min(input)),
            // Gemini counts thoughts beside the answer, not inside.
            output: usage.candidates_token_count.unwrap_or(0).saturating_add(usage.thoughts_token_count.unwrap_or(0)),
            reasoning: usage.thoughts_token_count,
            ..Tokens::default()
        };
        Ok(Answer { text: self.text, model: self.model, tokens, finish })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<RequestContent<'a>>,
    contents: Vec<RequestContent<'a>>,
    generation_config: GenerationConfig<'a>,
}

#[derive(Serialize)]
struct RequestContent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: [RequestPart<'a>; 1],
}

#[derive(Serialize)]
struct RequestPart<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    error: Option<IgnoredAny>,
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<PromptFeedback>,
    usage_metadata: Option<UsageMetadata>,
    model_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageMetadata {
    prompt_token_count: u64,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
}
