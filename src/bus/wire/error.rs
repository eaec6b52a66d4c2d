use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::CorrelationId;
use crate::pipeline;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the body is no JSON object.
    InvalidJson,
    /// 400: a field that is needed is not there.
    MissingField,
    /// 400: a field has the wrong type or a value that can't be meant.
    InvalidField,
    /// 413: the task, the body or the answer is too long.
    TooLarge,
    /// 400: the goal can't be made a workflow.
    InvalidGoal,
    /// 409: the `id` was used with another body.
    IdConflict,
    /// 409: it can't be done as things stand: a workflow that has ended can't be cancelled.
    NotAllowed,
    /// 408: the time that the sender gave has passed.
    DeadlineExceeded,
    /// 404: what the request names does not exist.
    NotFound,
    /// 503: this worker is full; try again after `Retry-After-Ms`.
    Overloaded,
    /// 503: something that is needed is away (the database, a worker that stops).
    Unavailable,
    /// 500: a fault of the worker.
    Internal,
}

impl Code {
    /// As in HTTP; stands in the header `Nats-Service-Error-Code`.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidJson | Self::MissingField | Self::InvalidField | Self::InvalidGoal => 400,
            Self::NotFound => 404,
            Self::DeadlineExceeded => 408,
            Self::IdConflict | Self::NotAllowed => 409,
            Self::TooLarge => 413,
            Self::Internal => 500,
            Self::Overloaded | Self::Unavailable => 503,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::TooLarge => "too_large",
            Self::InvalidGoal => "invalid_goal",
            Self::IdConflict => "id_conflict",
            Self::NotAllowed => "not_allowed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is sent in place of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Error {
    pub error: Code,
    /// For a person: what is wrong and how to mend it.
    pub message: String,
    /// The field that is wrong: `context.messages[1].role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names this request in every log line of the worker.
    pub correlation_id: String,
    pub metrics: ErrorMetrics,
}

/// As in the source: an error is no success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorMetrics {
    /// Always `false`.
    pub success: bool,
}

/// An error before it is known which request it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    pub field: Option<String>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    pub fn at(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: Some(field.into()) }
    }

    pub fn to_error(&self, correlation_id: &CorrelationId) -> Error {
        Error {
            error: self.code,
            message: self.message.clone(),
            field: self.field.clone(),
            correlation_id: correlation_id.to_string(),
            metrics: ErrorMetrics { success: false },
        }
    }
}

impl From<pipeline::Error> for Refusal {
    fn from(error: pipeline::Error) -> Self {
        use pipeline::Error as E;
        match &error {
            E::IdConflict { id } => Self::at(
                Code::IdConflict,
                "id",
                format!("the id '{id}' was used with another body; a new request needs a new id"),
            ),
            E::DeadlineExceeded => Self::new(Code::DeadlineExceeded, "the time given to this request has passed"),
            E::Superseded => Self::new(Code::Internal, error.to_string()),
            E::UnknownCorrelationId { id } => {
                Self::at(Code::NotFound, "correlation_id", format!("this tenant has no answer with the id '{id}'"))
            }
            // The cause is in the log; a stranger needs no names of tables and hosts.
            E::Unavailable(_) | E::Unwritten(_) | E::NoEmbedding(_) => {
                tracing::warn!(error = %Causes(&error), "a request could not be served");
                Self::new(Code::Unavailable, error.to_string())
            }
            E::Damaged(_) => {
                tracing::error!(error = %Causes(&error), "a stored answer is damaged");
                Self::new(Code::Internal, error.to_string())
            }
        }
    }
}

/// An error with its causes, for the log.
pub(in crate::bus) struct Causes<'a>(pub(in crate::bus) &'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
