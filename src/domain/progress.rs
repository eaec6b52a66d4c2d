//! What happens to a piece of work, told while it happens.

use std::fmt;
use std::sync::Arc;

use super::Method;

/// A step on the way of one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taken, and waits: for another worker that has the same id, or for the database.
    Queued,
    /// Begun, for the `attempt`th time.
    Started { attempt: u32 },
    /// This is how it is being done.
    Deciding { method: Method },
}

/// Who is told of the stages. Clones tell the same one; the default tells nobody.
#[derive(Clone, Default)]
pub struct Watcher(Option<Arc<dyn Fn(Stage) + Send + Sync>>);

impl Watcher {
    /// `told` must not wait: it is called in the middle of the work.
    pub fn new(told: impl Fn(Stage) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    pub fn tell(&self, stage: Stage) {
        if let Some(told) = &self.0 {
            told(stage);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher(..)" } else { "Watcher(nobody)" })
    }
}
