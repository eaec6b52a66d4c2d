use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::subjects;
use crate::domain::Limits;
use crate::domain::workflow::{Decomposer, GoalType};

/// How this worker carries workflows on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many steps this worker does at a time. Most wait for a model or a service. 0: it takes none; it still starts
    /// workflows for others.
    pub max_concurrent: usize,
    /// How many tasks a graph may have.
    pub max_tasks: usize,
    /// How many levels of groups a graph may have. 20: as many as an `ml_pipeline`.
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
    /// Who takes goals apart that no rule knows.
    pub decomposer: DecomposerOptions,
    /// Bounds for goals of a type, where a rule or whoever starts it says of which type it is.
    pub decomposers: Decomposers,
    /// What is learnt from past runs.
    pub optimization: Optimization,
    /// How long taking a goal apart may take, in milliseconds, where its type is not known.
    pub decomposition_timeout_ms: u64,
}

/// Who takes goals apart that no rule knows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecomposerOptions {
    /// Who is asked where whoever starts a goal does not say. `hybrid`: rules, then your own service, then a model, as far as
    /// they are there.
    pub kind: Decomposer,
    /// The subject of your own service that takes goals apart. Empty: none. It is never one of the server's or of Tandem's.
    pub subject: String,
}

/// Bounds for goals of each type. The smaller one of these and of `max_depth` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decomposers {
    /// One thing.
    pub simple: GoalBounds,
    /// Services and what is between them.
    pub microservices: GoalBounds,
    /// Data on its way.
    pub data_pipeline: GoalBounds,
    /// Data, training, models.
    pub ml_pipeline: GoalBounds,
}

/// Bounds for taking a goal apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoalBounds {
    /// How many levels of groups its graph may have. As in the source.
    pub max_depth: usize,
    /// How long taking it apart may take, in milliseconds. As in the source.
    pub timeout_ms: u64,
}

impl Default for Decomposers {
    fn default() -> Self {
        let bounds = |max_depth, timeout_ms| GoalBounds { max_depth, timeout_ms };
        Self {
            simple: bounds(5, 30_000),
            microservices: bounds(15, 120_000),
            data_pipeline: bounds(10, 60_000),
            ml_pipeline: bounds(20, 300_000),
        }
    }
}

impl Decomposers {
    /// Levels of groups, and how long taking a goal of that type apart may take.
    pub fn of(&self, kind: GoalType) -> (usize, Duration) {
        let GoalBounds { max_depth, timeout_ms } = match kind {
            GoalType::Simple => self.simple,
            GoalType::Microservices => self.microservices,
            GoalType::DataPipeline => self.data_pipeline,
            GoalType::MlPipeline => self.ml_pipeline,
        };
        (max_depth, Duration::from_millis(timeout_ms))
    }
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

/// A day: for taking a goal apart, at most.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent: 64,
            max_tasks: 100_000,
            max_depth: 20,
            max_output_bytes: 1024 * 1024,
            max_context_chars: 8_000,
            step_subjects: vec![],
            lease_ms: 1_200,
            sweep_ms: 300,
            max_losses: 10,
            rules: String::new(),
            decomposer: DecomposerOptions::default(),
            decomposers: Decomposers::default(),
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
        for kind in GoalType::ALL {
            let (depth, timeout) = self.decomposers.of(kind);
            let key = format!("workflow.decomposers.{}", kind.as_str());
            if !(1..=100).contains(&depth) {
                return Err(format!("{key}.max_depth: must be from 1 to 100"));
            }
            if timeout.is_zero() || timeout > LONGEST {
                return Err(format!("{key}.timeout_ms: must be from 1 to {}", LONGEST.as_millis()));
            }
        }
        let subject = &self.decomposer.subject;
        if !subject.is_empty()
            && let Err(why) = subjects::allowed(subject, std::slice::from_ref(subject))
        {
            return Err(format!("workflow.decomposer.subject: {subject:?} {why}"));
        }
        if self.decomposer.kind == Decomposer::Remote && subject.is_empty() {
            return Err("workflow.decomposer.kind: remote needs workflow.decomposer.subject".to_owned());
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

    /// The longest that taking a goal apart may take, whatever its type.
    pub fn longest_decomposition(&self) -> Duration {
        let general = Duration::from_millis(self.decomposition_timeout_ms);
        GoalType::ALL.into_iter().map(|kind| self.decomposers.of(kind).1).fold(general, Duration::max)
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
