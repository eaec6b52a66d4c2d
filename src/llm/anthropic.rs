//! Anthropic Messages: <https://docs.anthropic.com/en/api/messages>.

use reqwest::Url;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::{Answer, Call, Finish, Speaker, Tokens};
use super::provider::{Piece, Reader, Unreadable, Wire, join, versioned};
use super::sse::Event;

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

    fn body(&self, _url: &Url, call: &Call<'_>, stream: bool) -> serde_json::Result<Vec<u8>> {
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
            output_config: call
                .schema
                .map(|schema| OutputConfig { format: Format { kind: "json_schema", schema: schema.json() } }),
            stream,
        })
    }

    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable> {
        let response: Response = serde_json::from_slice(body)?;
        let text = response.content.into_iter().filter(|block| block.kind == "text").filter_map(|block| block.text);
        Ok(Answer {
            text: text.collect(),
            model: response.model,
            tokens: response.usage.tokens().ok_or(Unreadable::Lacks("usage"))?,
            finish: finish(response.stop_reason),
        })
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(Events::default())
    }
}

fn finish(reason: Option<String>) -> Result<Finish, String> {
    match reason.as_deref() {
        Some("end_turn" | "stop_sequence") => Ok(Finish::Stop),
        Some("max_tokens" | "model_context_window_exceeded") => Ok(Finish::Length),
        Some("refusal") => Ok(Finish::Refused),
        _ => Err(reason.unwrap_or_else(|| "none".to_owned())),
    }
}

/// `message_start`, then `content_block_delta` again and again, then `message_delta` with the reason and what was
/// counted, then `message_stop`.
#[derive(Default)]
struct Events {
    text: String,
    model: Option<String>,
    usage: ResponseUsage,
    stop_reason: Option<String>,
    stopped: bool,
}

impl Reader for Events {
    fn event(&mut self, event: &Event) -> Result<Piece, Unreadable> {
        match serde_json::from_slice(event)? {
            StreamEvent::MessageStart { message } => {
                self.model = message.model;
                // What was written by then is not what is billed.
                self.usage.update(ResponseUsage { output_tokens: None, ..message.usage });
            }
            StreamEvent::ContentBlockStart { content_block } => {
                return Ok(self.piece(content_block.text.filter(|text| !text.is_empty()), false));
            }
            StreamEvent::ContentBlockDelta { delta } => {
                let thought = delta.thinking.is_some_and(|thought| !thought.is_empty());
                return Ok(self.piece(delta.text, thought));
            }
            StreamEvent::MessageDelta { delta, usage } => {
                self.stop_reason = delta.stop_reason.or(self.stop_reason.take());
                self.usage.update(usage);
            }
            StreamEvent::MessageStop {} => {
                self.stopped = true;
                return Ok(Piece { is_last: true, ..Piece::default() });
            }
            StreamEvent::Error {} => return Err(Unreadable::Refusal),
            // `ping`, the end of a block, and what may be added: clients are asked to ignore it.
            StreamEvent::Other => {}
        }
        Ok(Piece::default())
    }

    fn finish(self: Box<Self>) -> Result<Answer, Unreadable> {
        if !self.stopped {
            return Err(Unreadable::Cut("message_stop"));
        }
        let tokens = self.usage.tokens().ok_or(Unreadable::Lacks("usage"))?;
        Ok(Answer { text: self.text, model: self.model, tokens, finish: finish(self.stop_reason) })
    }
}

impl Events {
    fn piece(&mut self, text: Option<String>, thought: bool) -> Piece {
        self.text.push_str(text.as_deref().unwrap_or_default());
        Piece { token: thought || text.is_some(), text, is_last: false }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    format: Format<'a>,
}

#[derive(Serialize)]
struct Format<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'a RawValue,
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
    #[serde(default)]
    usage: ResponseUsage,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum StreamEvent {
    MessageStart {
        message: StartedMessage,
    },
    ContentBlockStart {
        content_block: Block,
    },
    ContentBlockDelta {
        delta: Delta,
    },
    MessageDelta {
        delta: MessageEnd,
        #[serde(default)]
        usage: ResponseUsage,
    },
    MessageStop {},
    Error {},
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct StartedMessage {
    model: Option<String>,
    #[serde(default)]
    usage: ResponseUsage,
}

#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    thinking: Option<String>,
}

#[derive(Deserialize)]
struct MessageEnd {
    stop_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct ResponseUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens_details: Option<OutputDetails>,
}

impl ResponseUsage {
    /// Counts are cumulative: what is said later replaces what was said before.
    fn update(&mut self, later: Self) {
        let Self { input_tokens, output_tokens, cache_creation_input_tokens, .. } = later;
        self.input_tokens = input_tokens.or(self.input_tokens);
        self.output_tokens = output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation.take());
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details.take());
    }

    /// `None` where input or output were not counted: a cost that is not known must not pass as zero.
    fn tokens(&self) -> Option<Tokens> {
        let (written, read) = (self.cache_creation_input_tokens, self.cache_read_input_tokens);
        let (cache_write, cache_read) = (written.unwrap_or(0), read.unwrap_or(0));
        let hour = self.cache_creation.as_ref().and_then(|created| created.ephemeral_1h_input_tokens);
        Some(Tokens {
            // Anthropic counts what went through its cache beside the input, not inside.
            input: self.input_tokens?.saturating_add(cache_write).saturating_add(cache_read),
            cache_read: read,
            cache_write: written,
            cache_write_1h: hour.map(|hour| hour.min(cache_write)),
            output: self.output_tokens?,
            reasoning: self.output_tokens_details.as_ref().and_then(|details| details.thinking_tokens),
        })
    }
}

#[derive(Deserialize, Default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}
