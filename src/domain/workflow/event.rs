use std::fmt;

use super::WorkflowId;
use crate::domain::{TaskId, Tenant, Timestamp};

/// What happened: the source's thirteen, those of commands, and a user's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventKind {
    DecompositionStarted,
    DecompositionCompleted,
    DecompositionFailed,
    ExecutionStarted,
    ExecutionCompleted,
    ExecutionFailed,
    TaskStarted,
    TaskCompleted,
    TaskFailed,
    TaskRetried,
    OptimizationStarted,
    OptimizationCompleted,
    OptimizationRecommended,
    ExecutionCancelled,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionRetried,
    Custom(Box<str>),
}

const NAMES: [(EventKind, &str); 17] = [
    (EventKind::DecompositionStarted, "decomposition_started"),
    (EventKind::DecompositionCompleted, "decomposition_completed"),
    (EventKind::DecompositionFailed, "decomposition_failed"),
    (EventKind::ExecutionStarted, "execution_started"),
    (EventKind::ExecutionCompleted, "execution_completed"),
    (EventKind::ExecutionFailed, "execution_failed"),
    (EventKind::TaskStarted, "task_started"),
    (EventKind::TaskCompleted, "task_completed"),
    (EventKind::TaskFailed, "task_failed"),
    (EventKind::TaskRetried, "task_retried"),
    (EventKind::OptimizationStarted, "optimization_started"),
    (EventKind::OptimizationCompleted, "optimization_completed"),
    (EventKind::OptimizationRecommended, "optimization_recommended"),
    (EventKind::ExecutionCancelled, "execution_cancelled"),
    (EventKind::ExecutionPaused, "execution_paused"),
    (EventKind::ExecutionResumed, "execution_resumed"),
    (EventKind::ExecutionRetried, "execution_retried"),
];

impl EventKind {
    pub fn named(text: &str) -> Self {
        let known = NAMES.into_iter().find(|(_, name)| *name == text).map(|(kind, _)| kind);
        known.unwrap_or_else(|| Self::Custom(text.into()))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            known => NAMES.iter().find(|(kind, _)| kind == known).map_or("", |(_, name)| name),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened in a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub workflow: WorkflowId,
    pub tenant: Tenant,
    /// Counted from 1 in each workflow, without a gap.
    pub number: u64,
    pub at: Timestamp,
    pub kind: EventKind,
    pub task: Option<TaskId>,
    /// Which attempt at the task, counted from 1.
    pub attempt: Option<u32>,
    /// For a person: why something failed.
    pub message: Option<String>,
}
