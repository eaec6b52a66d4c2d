use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::subjects;
use crate::domain::Limits;

/// How this worker carries workflows on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many steps this worker does at a time. Most wait for a model or a service. 0: it takes none; it still starts
    /// workflows for others.
    pub max_concurrent: usize,
    /// How many tasks a graph may have.
    pub max_tasks: usize,
    /// How many levels of groups a graph may have.
    pub max_depth: usize,
    /// The largest output of a step, in bytes of JSON.
    pub max_output_bytes: usize,
    /// How much of what its dependencies came to an agent or a model is shown, in characters.
    pub max_context_chars: usize,
    /// The subjects that steps of the kind `nats` may ask: `orders.reserve`, or with wildcards `orders.*`, `orders.>`.
    /// Empty: none. Whoever may start workflows can send requests there in this worker's name.
    pub step_subjects: Vec<String>,
    /// After how long without a sign a worker's steps are given to others, in milliseconds. It gives four signs in that
    /// time.
    pub lease_ms: u64,
    /// How often this worker looks for what is due and what nobody told it of, in milliseconds.
    pub sweep_ms: u64,
    /// After how many workers that died while they were at it a task has failed: it may be what kills them.
    pub max_losses: u32,
    /// A folder of rules by which goals are taken apart, `*.toml` as in `config/workflows`; they go before those in the binary.
    /// They are read for each goal. Empty: none.
    pub rules: String,
    /// What is learnt from past runs.
    pub optimization: Optimization,
    /// How long taking a goal apart may take, in milliseconds.
    pub decomposition_timeout_ms: u64,
}

/// What past runs of the same graph change in the next one: see `docs/workflows.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Optimization {
    /// Whether records change anything.
    pub enabled: bool,
    /// The timeout of a step that was never seen to take this long is left alone, in milliseconds.
    pub timeout_threshold_ms: u64,
    /// Whether a model of how long steps take may be learnt.
    pub learning_enabled: bool,
    /// How sure a pattern in the records must be to count, from 0.5 to 1.
    pub pattern_confidence_threshold: f64,
}

impl Default for Optimization {
    fn default() -> Self {
        Self { enabled: true, timeout_threshold_ms: 30_000, learning_enabled: true, pattern_confidence_threshold: 0.85 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent: 64,
            max_tasks: 100_000,
            max_depth: 16,
            max_output_bytes: 1024 * 1024,
            max_context_chars: 8_000,
            step_subjects: vec![],
            lease_ms: 1_200,
            sweep_ms: 300,
            max_losses: 10,
            rules: String::new(),
            optimization: Optimization::default(),
            decomposition_timeout_ms: 60_000,
        }
    }
}

impl Options {
    /// Names the first value that can't be meant.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, least) in [
            ("max_tasks", self.max_tasks as u64, 1),
            ("max_depth", self.max_depth as u64, 1),
            ("max_output_bytes", self.max_output_bytes as u64, 2),
            ("lease_ms", self.lease_ms, 200),
            ("sweep_ms", self.sweep_ms, 10),
            ("max_losses", u64::from(self.max_losses), 1),
            ("decomposition_timeout_ms", self.decomposition_timeout_ms, 1),
        ] {
            if value < least {
                return Err(format!("workflow.{key}: must be at least {least}"));
            }
        }
        if self.max_tasks > 1_000_000 || self.max_concurrent > 1_000_000 {
            return Err("workflow.max_tasks and workflow.max_concurrent: must be at most 1000000".to_owned());
        }
        if !(0.5..=1.0).contains(&self.optimization.pattern_confidence_threshold) {
            return Err("workflow.optimization.pattern_confidence_threshold: must be from 0.5 to 1".to_owned());
        }
        if !self.rules.is_empty() && !std::path::Path::new(&self.rules).is_dir() {
            return Err(format!("workflow.rules: {} is no folder", self.rules));
        }
        let wrong = |pattern: &String| subjects::pattern(pattern).err();
        match self.step_subjects.iter().find_map(wrong) {
            Some(why) => Err(format!("workflow.step_subjects: {why}")),
            None => Ok(()),
        }
    }

    pub fn limits(&self) -> Limits {
        Limits { tasks: self.max_tasks, depth: self.max_depth }
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.sweep_ms)
    }
}
