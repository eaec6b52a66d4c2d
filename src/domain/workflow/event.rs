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

/// What names of events begin with that are not a user's own, now or some day.
const OWN: [&str; 4] = ["decomposition_", "optimization_", "execution_", "task_"];
/// Of a user's own event.
const LONGEST_NAME: usize = 64;

impl EventKind {
    /// A user's own event; the error says what its name must be.
    pub fn custom(name: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(format!("must be 1 to {LONGEST_NAME} of the characters A-Z a-z 0-9 _ . and -"));
        }
        match OWN.iter().find(|own| name.starts_with(*own)) {
            Some(own) => Err(format!("can't begin with {own}: these are Tandem's own events")),
            None => Ok(Self::Custom(name.into())),
        }
    }

    /// Those that are not a user's own.
    pub fn is_known(text: &str) -> bool {
        NAMES.iter().any(|(_, name)| *name == text)
    }

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
    /// JSON that a user's own event brings along.
    pub payload: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_own_event_has_a_name_of_its_own() {
        for good in ["deployed", "order.shipped", "A-1_b", &"x".repeat(64)] {
            let kind = EventKind::custom(good).unwrap();
            assert_eq!((kind.as_str(), EventKind::named(good)), (good, kind.clone()));
        }
        for bad in ["", "a b", "ä", "a\n", "task_completed", "execution_done", &"x".repeat(65)] {
            assert!(EventKind::custom(bad).is_err(), "{bad:?}");
        }
        assert!(NAMES.iter().all(|(_, name)| EventKind::custom(name).is_err() && EventKind::is_known(name)));
    }
}
