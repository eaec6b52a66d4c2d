//! What is asked of a model directly, as people and programs are told of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Pipeline};
use crate::domain::{Counted, Message, NanoUsd, Timestamp};
use crate::llm::{Answered, Finish, Query, Spent, Terms};
use crate::store;

/// What writing an answer's attempts down may take beyond its deadline.
const WRITING: Duration = Duration::from_millis(1_500);

/// What came of one query.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelAnswer {
    /// As it was asked. Null where the answer would be too large to be sent with it.
    pub prompt: Option<String>,
    /// True where the model ended by itself and said something, and it fits the schema if there is one.
    pub success: bool,
    /// What the model said; it may be cut where `success` is false. Null where there is no answer.
    pub text: Option<String>,
    /// The conversation, the answer at its end. Null where `prompt` is.
    pub messages: Option<Vec<Message>>,
    /// Names the query in the worker's log, and its attempts in the ledger.
    pub session_id: String,
    /// As the provider names it.
    pub model: Option<String>,
    pub provider: Option<String>,
    /// Why the model stopped.
    pub finish: Option<Finish>,
    /// Of all attempts together, in US dollars. Null where an attempt was sent whose cost nobody knows.
    pub cost_usd: Option<f64>,
    /// The same, exact, in billionths of a US dollar.
    pub cost_nanodollars: Option<u64>,
    /// What attempts of unknown cost can have cost at most, in billionths of a US dollar.
    pub unknown_nanodollars: u64,
    /// Of the attempt that succeeded.
    pub tokens: Option<Counted>,
    /// Requests that were sent, or tried to be.
    pub attempts: u32,
    /// From asking to the last byte, with all attempts and pauses; null where there is no answer.
    pub time_ms: Option<f64>,
    /// Why there is no answer, or none that is complete.
    pub error: Option<ModelError>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelError {
    /// For programs: `rate_limited`, `over_cost`, `circuit_open`, `timed_out`, `cut`, `mismatch`, `truncated`, …
    pub code: String,
    /// For a person.
    pub message: String,
    /// Whether asking the same again later can help.
    pub transient: bool,
    /// Not before this has passed, where that is known: the provider asked for it, or a limit or a circuit is closed until
    /// then.
    pub retry_after_ms: Option<u64>,
}

/// What came of several queries, in their order.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelAnswers {
    pub results: Vec<ModelAnswer>,
}

/// What came of several steps.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelSteps {
    /// True where every step succeeded.
    pub success: bool,
    /// The first step that did not succeed, counted from 0; no later one was asked.
    pub failed_step: Option<usize>,
    /// The steps that were asked now, in order. Those of `done` are not among them.
    pub results: Vec<ModelAnswer>,
    /// The answers to all steps that succeeded: as `done` of the same steps they are not paid again.
    pub done: Vec<String>,
}

impl Pipeline {
    pub async fn query_model(&self, query: Query, terms: Terms, now: Timestamp) -> Result<ModelAnswer, Error> {
        let deadline = terms.deadline;
        let answer = ModelAnswer::from(self.coordinator.agent().llm().query(query, terms, now).await);
        self.paid(deadline, [&answer]).await?;
        Ok(answer)
    }

    /// `told` hears of each as it ends, with its place.
    pub async fn query_models(
        &self,
        queries: Vec<Query>,
        max_concurrent: Option<usize>,
        terms: &Terms,
        now: Timestamp,
        told: impl Fn(usize, &Answered),
    ) -> Result<ModelAnswers, Error> {
        let llm = self.coordinator.agent().llm();
        let most = max_concurrent.unwrap_or(llm.batch().max_concurrent);
        let answered = llm.query_parallel(queries, most, terms, now, told).await;
        let results: Vec<ModelAnswer> = answered.into_iter().map(ModelAnswer::from).collect();
        self.paid(terms.deadline, &results).await?;
        Ok(ModelAnswers { results })
    }

    pub async fn query_steps(
        &self,
        steps: Vec<Query>,
        use_context: bool,
        mut done: Vec<String>,
        terms: &Terms,
        now: Timestamp,
        told: impl Fn(usize, &Answered),
    ) -> Result<ModelSteps, Error> {
        done.truncate(steps.len());
        let llm = self.coordinator.agent().llm();
        let taken = llm.query_pipeline(steps, use_context, done.clone(), terms, now, told).await;
        let results: Vec<ModelAnswer> = taken.taken.into_iter().map(ModelAnswer::from).collect();
        self.paid(terms.deadline, &results).await?;
        done.extend(results.iter().filter(|r| r.success).filter_map(|r| r.text.clone()));
        Ok(ModelSteps { success: taken.failed.is_none(), failed_step: taken.failed, results, done })
    }

    /// What was asked is in the ledger, and committed, before its answer leaves.
    async fn paid<'a>(
        &self,
        deadline: tokio::time::Instant,
        answers: impl IntoIterator<Item = &'a ModelAnswer>,
    ) -> Result<(), Error> {
        if answers.into_iter().all(|answer| answer.attempts == 0) {
            return Ok(());
        }
        let limit = deadline.max(tokio::time::Instant::now()) + WRITING;
        match tokio::time::timeout_at(limit, self.recorder.flush()).await {
            Ok(written) => written.map_err(Error::Unwritten),
            Err(_) => {
                let late = store::Error::Timeout { action: "write down what a model was paid", limit: WRITING };
                Err(Error::Unwritten(late))
            }
        }
    }

    /// When a batch that brings no time of its own must have ended.
    pub fn batch_timeout(&self) -> Duration {
        Duration::from_millis(self.coordinator.agent().llm().batch().timeout_ms)
    }

    /// The longest that one query may take.
    pub fn query_timeout(&self) -> Duration {
        self.coordinator.agent().llm().timeout()
    }
}

impl ModelAnswer {
    /// Leaves out what the sender knows: what a model said is paid for, and must not be lost because its question was long.
    pub fn shorten(&mut self) {
        (self.prompt, self.messages) = (None, None);
    }
}

impl ModelAnswers {
    pub fn shorten(&mut self) {
        self.results.iter_mut().for_each(ModelAnswer::shorten);
    }
}

impl ModelSteps {
    pub fn shorten(&mut self) {
        self.results.iter_mut().for_each(ModelAnswer::shorten);
    }
}

impl From<Answered> for ModelAnswer {
    fn from(answered: Answered) -> Self {
        let success = answered.is_success();
        let Answered { prompt, messages, outcome, session_id } = answered;
        let spent = outcome.as_ref().map_or_else(|failed| failed.spent, |completion| completion.spent);
        let Spent { cost, unknown, attempts, .. } = spent;
        let known = (unknown == NanoUsd::ZERO).then_some(cost);
        let unanswered = Self {
            prompt: Some(prompt),
            success,
            text: None,
            messages: Some(messages),
            session_id: session_id.to_string(),
            model: None,
            provider: None,
            finish: None,
            cost_usd: known.map(NanoUsd::as_usd),
            cost_nanodollars: known.map(|cost| cost.0),
            unknown_nanodollars: unknown.0,
            tokens: None,
            attempts,
            time_ms: None,
            error: None,
        };
        match outcome {
            Err(failed) => {
                let (code, transient) = (failed.error.code().to_owned(), failed.error.is_transient());
                let retry_after_ms = failed.error.retry_after().map(|after| after.as_millis() as u64);
                let error = ModelError { code, message: failed.error.chain(), transient, retry_after_ms };
                Self { error: Some(error), ..unanswered }
            }
            Ok(completion) => {
                let problem = match completion.finish {
                    Finish::Stop if success => None,
                    Finish::Stop => Some(("empty", "the model said nothing")),
                    Finish::Length => Some(("truncated", "the model ran into the limit of output tokens")),
                    Finish::Refused => Some(("refused", "the model would not answer")),
                };
                let error = |(code, message): (&str, &str)| ModelError {
                    code: code.to_owned(),
                    message: message.to_owned(),
                    transient: false,
                    retry_after_ms: None,
                };
                Self {
                    text: Some(completion.text),
                    model: Some(completion.model),
                    provider: Some(completion.provider.as_str().to_owned()),
                    finish: Some(completion.finish),
                    tokens: Some(completion.tokens.counted()),
                    time_ms: Some(completion.time.as_secs_f64() * 1e3),
                    error: problem.map(error),
                    ..unanswered
                }
            }
        }
    }
}
