use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Provider, Schema, Spent};
use crate::domain::{Counted, Message, NanoUsd, Usage};

/// What a model is asked.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    pub system: String,
    /// Oldest first. Messages of the role `system` are added to `system`, blank ones are left out.
    pub messages: Vec<Message>,
    /// Instead of the configured limit.
    pub max_output_tokens: Option<u32>,
    /// Instead of the configured one.
    pub temperature: Option<f32>,
    /// What the answer must be: JSON that fits. An answer that does not is an error.
    pub schema: Option<Schema>,
}

/// What a model answered, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub text: String,
    /// As the provider names it, which may be more exact than what was asked for.
    pub model: String,
    pub provider: Provider,
    /// Of the attempt that succeeded.
    pub tokens: Tokens,
    pub finish: Finish,
    /// Of all attempts together, this one included.
    pub spent: Spent,
    /// From asking to the last byte, with all attempts and pauses.
    pub time: Duration,
}

impl Completion {
    /// The model ended by itself and said something. Anything else must not pass as a success.
    pub fn is_complete(&self) -> bool {
        self.finish == Finish::Stop && !self.text.trim().is_empty()
    }

    /// What is known to have been spent.
    pub fn cost(&self) -> NanoUsd {
        self.spent.cost
    }

    pub fn usage(&self) -> Usage {
        self.spent.usage()
    }
}

impl Spent {
    pub fn usage(&self) -> Usage {
        Usage { input: self.input_tokens, output: self.output_tokens }
    }
}

/// Why a model stopped. Any other reason is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It ran into a limit: the text is cut.
    Length,
    /// It, or a filter of the provider, would not answer.
    Refused,
}

/// Tokens as the provider counted and bills them; `None` is what it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// All input, what was read from or written to the provider's cache included.
    pub input: u64,
    pub cache_read: Option<u64>,
    /// Written to the provider's cache, for however long.
    pub cache_write: Option<u64>,
    /// That part of `cache_write` which is kept for an hour, at its own price.
    pub cache_write_1h: Option<u64>,
    /// All output, thoughts included.
    pub output: u64,
    pub reasoning: Option<u64>,
}

impl Tokens {
    pub fn counted(&self) -> Counted {
        Counted {
            input: Some(self.input),
            output: Some(self.output),
            cached: self.cache_read,
            cache_write: self.cache_write,
            reasoning: self.reasoning,
        }
    }
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
    pub(super) schema: Option<&'a Schema>,
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

/// What a wire format reads out of a good response, or of the events of a good stream.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) model: Option<String>,
    pub(super) tokens: Tokens,
    /// The provider's word, where it is none that Tandem knows; `none` where it gave no reason.
    pub(super) finish: Result<Finish, String>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        model: &'a str,
        prompt: &'a Prompt,
        max_output_tokens: u32,
        temperature: Option<f32>,
    ) -> Result<Self, Error> {
        if prompt.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
            return Err(Error::Prompt { problem: "has a temperature that is not from 0 to 2" });
        }
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
        Ok(Self {
            model,
            system: system.join("\n\n"),
            turns,
            max_output_tokens,
            temperature,
            schema: prompt.schema.as_ref(),
        })
    }

    /// Input and output.
    pub(super) fn most_tokens(&self) -> u64 {
        self.most_input_tokens().saturating_add(self.max_output_tokens.into())
    }

    /// No tokenizer makes more tokens than there are bytes; roles and separators are added by the provider.
    pub(super) fn most_input_tokens(&self) -> u64 {
        const FRAME: usize = 64;
        const PER_TURN: usize = 16;
        let text: usize = self.turns.iter().map(|turn| turn.text.len() + PER_TURN).sum();
        let schema = self.schema.map_or(0, |schema| schema.json().get().len());
        (self.system.len() + text + schema + FRAME) as u64
    }
}
