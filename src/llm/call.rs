use std::time::Duration;

use super::{Error, Provider};
use crate::domain::{Message, NanoUsd, Usage};

/// What a model is asked.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    pub system: String,
    /// Oldest first. Messages of the role `system` are added to `system`, blank ones are left out.
    pub messages: Vec<Message>,
    /// Instead of the configured limit.
    pub max_output_tokens: Option<u32>,
}

/// What a model answered, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub text: String,
    /// As the provider names it, which may be more exact than what was asked for.
    pub model: String,
    pub provider: Provider,
    pub tokens: Tokens,
    pub cost: NanoUsd,
    pub finish: Finish,
    /// From sending to the last byte.
    pub time: Duration,
}

impl Completion {
    /// The model ended by itself and said something. Anything else must not pass as a success.
    pub fn is_complete(&self) -> bool {
        self.finish == Finish::Stop && !self.text.trim().is_empty()
    }

    pub fn usage(&self) -> Usage {
        Usage { input: self.tokens.input, output: self.tokens.output }
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It ran into a limit: the text is cut.
    Length,
    /// It, or a filter of the provider, would not answer.
    Refused,
    /// The provider's word, where it is none that Tandem knows; `none` where the provider gave no reason.
    Other(String),
}

/// Tokens as the provider counted and bills them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// All input, what was read from or written to the provider's cache included.
    pub input: u64,
    pub cache_read: u64,
    /// Written to the provider's cache, for however long.
    pub cache_write: u64,
    /// That part of `cache_write` which is kept for an hour, at its own price.
    pub cache_write_1h: u64,
    /// All output, thoughts included.
    pub output: u64,
    pub reasoning: u64,
}

/// A checked prompt with its settings: what a wire format needs to write the request.
pub(super) struct Call<'a> {
    pub(super) model: &'a str,
    /// Empty where there is none.
    pub(super) system: String,
    /// Never empty.
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) max_output_tokens: u32,
    pub(super) temperature: Option<f32>,
}

pub(super) struct Turn<'a> {
    pub(super) speaker: Speaker,
    pub(super) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    User,
    Assistant,
}

/// What a wire format reads out of a good response.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) model: Option<String>,
    pub(super) tokens: Tokens,
    pub(super) finish: Finish,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        model: &'a str,
        prompt: &'a Prompt,
        max_output_tokens: u32,
        temperature: Option<f32>,
    ) -> Result<Self, Error> {
        if max_output_tokens == 0 {
            return Err(Error::Prompt { problem: "allows no output: max_output_tokens is 0" });
        }
        let mut system = vec![prompt.system.as_str()];
        let mut turns = Vec::with_capacity(prompt.messages.len());
        for message in &prompt.messages {
            let speaker = match message.role.as_str() {
                "system" => {
                    system.push(&message.content);
                    continue;
                }
                "user" => Speaker::User,
                "assistant" => Speaker::Assistant,
                _ => return Err(Error::Prompt { problem: "has a role that is none of user, assistant and system" }),
            };
            if !message.content.trim().is_empty() {
                turns.push(Turn { speaker, text: &message.content });
            }
        }
        if turns.is_empty() {
            return Err(Error::Prompt { problem: "has an empty conversation" });
        }
        system.retain(|text| !text.trim().is_empty());
        Ok(Self { model, system: system.join("\n\n"), turns, max_output_tokens, temperature })
    }

    /// No tokenizer makes more tokens than there are bytes; roles and separators are added by the provider.
    pub(super) fn most_input_tokens(&self) -> u64 {
        const FRAME: usize = 64;
        const PER_TURN: usize = 16;
        let text: usize = self.turns.iter().map(|turn| turn.text.len() + PER_TURN).sum();
        (self.system.len() + text + FRAME) as u64
    }
}
