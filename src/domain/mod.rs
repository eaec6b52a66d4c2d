//! Pure types that every room shares: no I/O, no async, no clock.

pub mod answer;
pub mod attempt;
pub mod dag;
pub mod goal;
pub mod ids;
pub mod language;
pub mod money;
pub mod progress;
pub mod record;
pub mod schedule;
pub mod share;
pub mod task_type;
pub mod time;
pub mod workflow;

pub use answer::{Answer, Evaluation, Hit, Method, Part, ProjectFile, Tier, Usage};
pub use attempt::{Attempt, Counted, Outcome, Tally};
pub use dag::{Dag, DagError, Limits, Task, TaskId};
pub use goal::{CacheMode, Complexity, Context, Goal, Message, Request};
pub use ids::{CorrelationId, IdError, RequestId, Tag, TemplateId, Tenant};
pub use language::Language;
pub use money::NanoUsd;
pub use progress::{Stage, Watcher};
pub use schedule::Schedule;
pub use share::Share;
pub use task_type::TaskType;
pub use time::Timestamp;
pub use workflow::WorkflowId;
