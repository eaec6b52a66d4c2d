//! What crosses the bus, and how hostile input is read. Only here are states and methods strings.
//!
//! The JSON Schemas and the AsyncAPI document are derived from these types.

mod envelope;
mod error;
mod fields;
mod progress;
mod query;
mod request;
mod response;

pub use envelope::{CORRELATION_ID, DEADLINE, Envelope, TRACEPARENT};
pub(super) use error::Causes;
pub use error::{Code, Error, Refusal};
pub use progress::{Progress, State};
pub use query::{
    CacheExplanation, Feedback, FeedbackAnswer, Nothing, TemplateChecks, TemplateChoice, TemplateList, TemplateQuery,
    TemplateRef,
};
pub(super) use query::{Judgement, feedback, nothing, template_choice, template_query, template_ref};
pub use request::{Context, Request, decode};
pub use response::{CacheOrigin, Metrics, Part, PartMetrics, Response};
