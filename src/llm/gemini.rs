//! Gemini generateContent, as Google AI Studio serves it: <https://ai.google.dev/api/generate-content>.

use reqwest::Url;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};

use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Unreadable, Wire, join, versioned};

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

    fn body(&self, _url: &Url, call: &Call<'_>) -> serde_json::Result<Vec<u8>> {
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
            },
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let usage = response.usage_metadata.ok_or(Unreadable::Lacks("usageMetadata"))?;
        let blocked = response.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        let (text, finish) = match response.candidates.into_iter().next() {
            Some(candidate) => {
                let parts = candidate.content.unwrap_or_default().parts;
                let said = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text);
                (said.collect(), finish(candidate.finish_reason.as_deref()))
            }
            None if blocked => (String::new(), Finish::Refused),
            None => return Err(Unreadable::Lacks("candidates")),
        };
        let thoughts = usage.thoughts_token_count.unwrap_or(0);
        let input = usage.prompt_token_count.saturating_add(usage.tool_use_prompt_token_count.unwrap_or(0));
        Ok(Answer {
            text,
            model: response.model_version,
            tokens: Tokens {
                input,
                cache_read: usage.cached_content_token_count.unwrap_or(0).min(input),
                // Gemini counts thoughts beside the answer, not inside.
                output: usage.candidates_token_count.unwrap_or(0).saturating_add(thoughts),
                reasoning: thoughts,
                ..Tokens::default()
            },
            finish,
        })
    }
}

fn finish(reason: Option<&str>) -> Finish {
    match reason {
        Some("STOP") => Finish::Stop,
        Some("MAX_TOKENS") => Finish::Length,
        Some("SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII") => Finish::Refused,
        other => Finish::Other(other.unwrap_or("none").to_owned()),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<RequestContent<'a>>,
    contents: Vec<RequestContent<'a>>,
    generation_config: GenerationConfig,
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
struct GenerationConfig {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
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
