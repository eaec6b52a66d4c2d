use serde::{Deserialize, Serialize};

use super::Code;
use crate::domain::{Method, Stage};

/// What is happening to a submit, or to queries of a model. Told while it happens, on `execution.progress.<id>`, and kept
/// nowhere: one that got lost is not sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Progress {
    pub id: String,
    pub state: State,
    /// Of the attempt; names it in the worker's log.
    pub correlation_id: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// With `started`, `retrying`, `dead` and `writing`: the how manieth attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// With `deciding` and `done`: who does it, who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// With `done` and `ended`: whether it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// With `done` and `dead`: why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Code>,
    /// With `writing`: what the model wrote since the last message. With another `attempt` the answer begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// With `ended`: which query or step, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// Where a submit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Taken by a worker, and waits: for another that has the same id, or for the database.
    Queued,
    Started,
    /// The method is known.
    Deciding,
    /// An attempt failed; the next comes after a pause.
    Retrying,
    /// The result is at `execution.result.<id>`.
    Done,
    /// Set aside; the result says why.
    Dead,
    /// A model writes.
    Writing,
    /// One query of a batch, or one step, has ended.
    Ended,
}

impl Progress {
    pub(in crate::bus) fn new(id: &str, correlation_id: &str, at_ms: i64, state: State) -> Self {
        Self {
            id: id.to_owned(),
            state,
            correlation_id: correlation_id.to_owned(),
            at_ms,
            attempt: None,
            method: None,
            success: None,
            error: None,
            text: None,
            index: None,
        }
    }

    pub(in crate::bus) fn at(self, stage: Stage) -> Self {
        match stage {
            Stage::Queued => Self { state: State::Queued, ..self },
            Stage::Started { attempt } => Self { state: State::Started, attempt: Some(attempt), ..self },
            Stage::Deciding { method } => Self { state: State::Deciding, method: Some(method), ..self },
        }
    }
}
