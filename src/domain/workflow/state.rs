use serde::{Deserialize, Serialize};

/// How a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "WorkflowState")]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// For the workflow before it to be over.
    Waiting,
    Running,
    /// Nothing of it is begun; what runs comes to its end.
    Paused,
    Completed,
    Failed,
    Cancelled,
}

/// What may be asked of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Cancel,
    Pause,
    Resume,
    /// Do again what failed, was skipped or cancelled; what is done stays done.
    Retry,
}

/// A command that makes no sense now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this workflow is {state}; {command} is for one that is {wanted}")]
pub struct NotAllowed {
    pub state: State,
    pub command: Command,
    wanted: &'static str,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Nothing more happens to it, unless it is retried.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    pub fn after(self, command: Command) -> Result<Self, NotAllowed> {
        let refused = |wanted| Err(NotAllowed { state: self, command, wanted });
        match (self, command) {
            (Self::Waiting | Self::Running | Self::Paused, Command::Cancel) => Ok(Self::Cancelled),
            (_, Command::Cancel) => refused("waiting, running or paused"),
            (Self::Running, Command::Pause) => Ok(Self::Paused),
            (_, Command::Pause) => refused("running"),
            (Self::Paused, Command::Resume) => Ok(Self::Running),
            (_, Command::Resume) => refused("paused"),
            (Self::Failed | Self::Cancelled, Command::Retry) => Ok(Self::Running),
            (_, Command::Retry) => refused("failed or cancelled"),
        }
    }

    /// Once every task has ended. A pause does not keep what is done from being done.
    pub fn at_the_end(self, any_failed: bool) -> Self {
        match self {
            Self::Running | Self::Paused if any_failed => Self::Failed,
            Self::Running | Self::Paused => Self::Completed,
            over => over,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Command {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a task stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// For what it depends on, or for its next attempt.
    #[default]
    Waiting,
    /// For a worker.
    Ready,
    Running,
    Completed,
    Failed,
    Cancelled,
    /// What it depends on failed.
    Skipped,
}

/// What may happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happening {
    /// All that it depends on is completed, or the pause before its next attempt is over.
    Freed,
    Claimed,
    Completed,
    /// It failed and is tried again later.
    Postponed,
    Failed,
    /// Its worker gave it back, or died.
    GivenBack,
    Cancelled,
    Skipped,
    /// Its workflow is retried, and it depends on others that are open too.
    Reopened,
    /// Its workflow is retried, and all that it depends on is completed.
    ReopenedFree,
}

impl TaskState {
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Ready, Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::Skipped];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// `None`: that can't happen to a task that stands so.
    pub fn after(self, happening: Happening) -> Option<Self> {
        use Happening as H;
        match (self, happening) {
            (Self::Waiting, H::Freed) | (Self::Running, H::GivenBack) => Some(Self::Ready),
            (Self::Ready, H::Claimed) => Some(Self::Running),
            (Self::Running, H::Completed) => Some(Self::Completed),
            (Self::Running, H::Postponed) => Some(Self::Waiting),
            (Self::Running, H::Failed) => Some(Self::Failed),
            (Self::Waiting | Self::Ready | Self::Running, H::Cancelled) => Some(Self::Cancelled),
            (Self::Waiting, H::Skipped) => Some(Self::Skipped),
            (Self::Failed | Self::Cancelled | Self::Skipped, H::Reopened) => Some(Self::Waiting),
            (Self::Failed | Self::Cancelled | Self::Skipped, H::ReopenedFree) => Some(Self::Ready),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HAPPENINGS: [Happening; 10] = [
        Happening::Freed,
        Happening::Claimed,
        Happening::Completed,
        Happening::Postponed,
        Happening::Failed,
        Happening::GivenBack,
        Happening::Cancelled,
        Happening::Skipped,
        Happening::Reopened,
        Happening::ReopenedFree,
    ];

    proptest! {
        /// What is completed stays so, nothing ends without having been claimed since it was last opened, and what is
        /// over is opened again only by a retry.
        #[test]
        fn a_task_goes_only_the_ways_there_are(path in prop::collection::vec(prop::sample::select(HAPPENINGS.to_vec()), 0..60)) {
            let (mut state, mut claims) = (TaskState::Waiting, 0u32);
            for happening in path {
                let Some(next) = state.after(happening) else { continue };
                claims = match happening {
                    Happening::Claimed => claims + 1,
                    Happening::Reopened | Happening::ReopenedFree => 0,
                    _ => claims,
                };
                prop_assert_ne!(state, TaskState::Completed);
                if matches!(next, TaskState::Completed | TaskState::Failed) {
                    prop_assert!(claims > 0);
                }
                if state.is_over() {
                    prop_assert!(matches!(happening, Happening::Reopened | Happening::ReopenedFree));
                }
                state = next;
            }
        }

        /// A workflow that is over comes back only by a retry, and a completed one never.
        #[test]
        fn a_workflow_goes_only_the_ways_there_are(
            path in prop::collection::vec((0..5usize, any::<bool>()), 0..40)
        ) {
            let commands = [Command::Cancel, Command::Pause, Command::Resume, Command::Retry];
            let mut state = State::Running;
            for (what, failed) in path {
                let next = match commands.get(what) {
                    Some(command) => match state.after(*command) {
                        Ok(next) => next,
                        Err(refused) => {
                            let words = refused.to_string();
                            prop_assert!(words.contains(state.as_str()) && words.contains(command.as_str()));
                            continue;
                        }
                    },
                    None => state.at_the_end(failed),
                };
                prop_assert!(state != State::Completed || next == State::Completed);
                prop_assert!(!state.is_over() || next == state || commands.get(what) == Some(&Command::Retry));
                state = next;
            }
        }
    }

    #[test]
    fn states_are_known_by_their_names() {
        assert!(State::ALL.into_iter().all(|state| State::named(state.as_str()) == Some(state)));
        assert!(TaskState::ALL.into_iter().all(|state| TaskState::named(state.as_str()) == Some(state)));
    }
}
