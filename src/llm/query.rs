//! What people and programs ask a model directly: one query, several beside each other, several after each other.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Client, Completion, Error, Failed, Prompt, Schema, Terms};
use crate::domain::{CorrelationId, Message, NanoUsd, Timestamp};

/// One question with its settings; what is `None` is as configured.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub prompt: String,
    pub system: String,
    /// The conversation before it, oldest first.
    pub messages: Vec<Message>,
    pub schema: Option<Schema>,
    pub max_output_tokens: Option<u32>,
    pub temperature: Option<f32>,
    /// One model of the route.
    pub model: Option<String>,
    /// Attempts on one model after the first; 0: one attempt.
    pub max_retries: Option<u32>,
    pub backoff: Option<Duration>,
    pub max_cost: Option<NanoUsd>,
    pub timeout: Option<Duration>,
}

/// What came of one query.
#[derive(Debug)]
pub struct Answered {
    pub prompt: String,
    /// The conversation that was had, the answer at its end where there is one.
    pub messages: Vec<Message>,
    pub outcome: Result<Completion, Failed>,
    /// Names the query in the log.
    pub session_id: CorrelationId,
}

/// What came of several steps.
#[derive(Debug)]
pub struct Steps {
    /// Those that were taken now, in order; the last one may have failed.
    pub taken: Vec<Answered>,
    /// Counted from 0, over all steps.
    pub failed: Option<usize>,
}

impl Answered {
    /// The model ended by itself and said something.
    pub fn is_success(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Completion::is_complete)
    }
}

impl Client {
    /// One query. What goes wrong is in the outcome.
    pub async fn query(&self, query: Query, terms: Terms, now: Timestamp) -> Answered {
        let session_id = terms.correlation_id.clone();
        let deadline = query.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let terms = Terms {
            deadline: deadline.map_or(terms.deadline, |deadline| deadline.min(terms.deadline)),
            max_cost: query.max_cost.or(terms.max_cost),
            model: query.model.or(terms.model),
            retries: query.max_retries.or(terms.retries),
            backoff: query.backoff.or(terms.backoff),
            ..terms
        };
        let asked = Message { role: "user".to_owned(), content: query.prompt.clone() };
        let mut prompt = Prompt {
            system: query.system,
            messages: query.messages,
            max_output_tokens: query.max_output_tokens,
            temperature: query.temperature,
            schema: query.schema,
        };
        prompt.messages.push(asked);
        let outcome = self.ask(&prompt, &terms, now).await;
        let mut messages = prompt.messages;
        if let Ok(completion) = &outcome {
            messages.push(Message { role: "assistant".to_owned(), content: completion.text.clone() });
        }
        Answered { prompt: query.prompt, messages, outcome, session_id }
    }

    /// Queries beside each other, at most `max_concurrent` at a time, all within `terms.deadline`: those that run then are
    /// cancelled, those that did not begin never do. The answers are in the order of the queries, failures among them.
    /// `told` hears of each as it ends. Each has a session of its own.
    pub async fn query_parallel(
        &self,
        queries: Vec<Query>,
        max_concurrent: usize,
        terms: &Terms,
        now: Timestamp,
        told: impl Fn(usize, &Answered),
    ) -> Vec<Answered> {
        let begun = Instant::now();
        let mut answered: Vec<(usize, Answered)> = Vec::with_capacity(queries.len());
        let mut waiting = queries.into_iter().enumerate();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < max_concurrent.max(1)
                && let Some((index, query)) = waiting.next()
            {
                let terms = Terms { correlation_id: CorrelationId::generate(), ..terms.clone() };
                running.push(async move {
                    let late = Instant::now() >= terms.deadline;
                    let now = after(now, begun.elapsed());
                    let answer = if late { not_begun(query, terms) } else { self.query(query, terms, now).await };
                    (index, answer)
                });
            }
            let Some((index, answer)) = running.next().await else { break };
            told(index, &answer);
            answered.push((index, answer));
        }
        answered.sort_by_key(|(index, _)| *index);
        answered.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Steps after each other. With `use_context` each is shown the step before it and what that came to. The first that
    /// does not succeed is the last. `done` are the answers to the first steps where they are known already: these are
    /// not asked again.
    pub async fn query_pipeline(
        &self,
        steps: Vec<Query>,
        use_context: bool,
        done: Vec<String>,
        terms: &Terms,
        now: Timestamp,
        told: impl Fn(usize, &Answered),
    ) -> Steps {
        let begun = Instant::now();
        let mut done = done.into_iter();
        let mut before: Option<(String, String)> = None;
        let mut taken = vec![];
        for (index, mut step) in steps.into_iter().enumerate() {
            if let Some(text) = done.next() {
                before = Some((step.prompt, text));
                continue;
            }
            if let Some((prompt, text)) = before.take().filter(|_| use_context) {
                let message = |role: &str, content| Message { role: role.to_owned(), content };
                step.messages.extend([message("user", prompt), message("assistant", text)]);
            }
            let terms = Terms { correlation_id: CorrelationId::generate(), ..terms.clone() };
            let answer = match Instant::now() >= terms.deadline {
                true => not_begun(step, terms),
                false => self.query(step, terms, after(now, begun.elapsed())).await,
            };
            told(index, &answer);
            if let (true, Ok(completion)) = (answer.is_success(), &answer.outcome) {
                before = Some((answer.prompt.clone(), completion.text.clone()));
                taken.push(answer);
            } else {
                taken.push(answer);
                return Steps { taken, failed: Some(index) };
            }
        }
        Steps { taken, failed: None }
    }
}

fn not_begun(query: Query, terms: Terms) -> Answered {
    let outcome = Err(Error::NotBegun.into());
    Answered { prompt: query.prompt, messages: query.messages, outcome, session_id: terms.correlation_id }
}

fn after(now: Timestamp, passed: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
}
