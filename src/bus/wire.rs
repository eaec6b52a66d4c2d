//! What crosses the bus, and how hostile input is read. Only here are states and methods strings.
//!
//! The JSON Schemas and the AsyncAPI document are derived from these types.

mod advice;
mod envelope;
mod error;
mod fields;
mod model;
mod order;
mod progress;
mod query;
mod request;
mod response;
mod text;
mod workflow;

pub use advice::{FailureWarning, PairAdvice, PlannedChange, RecommendQuery, ResourceAdvice, WorkflowAdvice};
pub(super) use advice::{Recommended, recommend_query};
pub use envelope::{ACCEPT_OBJECT_STORE, CORRELATION_ID, DEADLINE, Envelope, TRACEPARENT, trace_id};
pub(super) use error::Causes;
pub use error::{Code, Error, Refusal};
pub(super) use model::{Batch, batch, build, model_query, steps};
pub use model::{ModelBatch, ModelOptions, ModelPipeline, ModelQuery};
pub(super) use order::{
    Allowed, Asked, Noted, Wanted, What, answered_graph, event_query, workflow_decompose, workflow_filter,
    workflow_notify, workflow_query, workflow_ref, workflow_start,
};
pub use progress::{Progress, State};
pub use query::{
    CacheExplanation, Feedback, FeedbackAnswer, Invalidate, InvalidateAnswer, Nothing, Purge, PurgeAnswer,
    TemplateChecks, TemplateChoice, TemplateList, TemplateQuery, TemplateRef,
};
pub(super) use query::{
    Erasure, Judgement, feedback, invalidate, nothing, purge, template_choice, template_query, template_ref,
};
pub use request::{Context, Request, decode};
pub use response::{CacheOrigin, Metrics, Part, PartMetrics, Response, StoredAnswer};
pub use text::Text;
pub use workflow::{
    AttemptDetail, EventList, EventQuery, GoalStarted, OwnGoal, TaskDetail, TaskError, TaskStatus, WorkflowCommanded,
    WorkflowDecompose, WorkflowDecomposed, WorkflowDetail, WorkflowEvent, WorkflowFilter, WorkflowGoal, WorkflowGraph,
    WorkflowList, WorkflowNotified, WorkflowNotify, WorkflowOptions, WorkflowQuery, WorkflowRef, WorkflowStart,
    WorkflowStarted, WorkflowStatus, WorkflowStep, WorkflowSummary, WorkflowTask,
};
