use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::subjects;
use crate::domain::Limits;
use crate::domain::workflow::{Decomposer, EventKind, GoalType, OptimizationLevel, RunOptions};

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
    /// The terms of workflows whose sender does not say otherwise.
    pub execution: Execution,
    /// What is learnt from past runs.
    pub optimization: Optimization,
    /// Events as they happen.
    pub notifications: Notifications,
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decomposers {
    /// One thing.
    pub simple: Simple,
    /// Services and what is between them.
    pub microservices: Microservices,
    /// Data on its way.
    pub data_pipeline: DataPipeline,
    /// Data, training, models.
    pub ml_pipeline: MlPipeline,
}

/// Bounds for taking a goal of one type apart, with the defaults of that type: either may be set without the other.
macro_rules! bounds {
    ($name:ident, $max_depth:literal, $timeout_ms:literal) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// How many levels of groups its graph may have. As in the source.
            pub max_depth: usize,
            /// How long taking it apart may take, in milliseconds. As in the source.
            pub timeout_ms: u64,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { max_depth: $max_depth, timeout_ms: $timeout_ms }
            }
        }

        impl $name {
            fn get(self) -> (usize, Duration) {
                (self.max_depth, Duration::from_millis(self.timeout_ms))
            }
        }
    };
}
bounds!(Simple, 5, 30_000);
bounds!(Microservices, 15, 120_000);
bounds!(DataPipeline, 10, 60_000);
bounds!(MlPipeline, 20, 300_000);

impl Decomposers {
    /// Levels of groups, and how long taking a goal of that type apart may take.
    pub fn of(&self, kind: GoalType) -> (usize, Duration) {
        match kind {
            GoalType::Simple => self.simple.get(),
            GoalType::Microservices => self.microservices.get(),
            GoalType::DataPipeline => self.data_pipeline.get(),
            GoalType::MlPipeline => self.ml_pipeline.get(),
        }
    }
}

/// The terms of workflows whose sender does not say otherwise; the defaults are the source's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Execution {
    /// From a workflow's start to its end, pauses left out, in milliseconds.
    pub timeout_ms: u64,
    /// Tasks of one workflow that run at a time, on all workers together.
    pub max_parallel: u32,
    /// Attempts at a task after the first.
    pub retry_attempts: u32,
    /// The longest pause before the second attempt, in milliseconds; it doubles with each further one.
    pub retry_delay_ms: u64,
    /// For one attempt at one task, in milliseconds.
    pub task_timeout_ms: u64,
    /// Whether events are kept.
    pub monitor: bool,
}

impl Default for Execution {
    fn default() -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let terms = RunOptions::default();
        Self {
            timeout_ms: ms(terms.timeout),
            max_parallel: terms.max_parallel,
            retry_attempts: terms.retry_attempts,
            retry_delay_ms: ms(terms.retry_delay),
            task_timeout_ms: ms(terms.task_timeout),
            monitor: terms.monitoring,
        }
    }
}

/// Events as they happen: see `docs/workflows.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Notifications {
    /// Whether events of workflows are published whose sender does not say.
    pub real_time: bool,
    /// Which are published: `task_failed`, say; `custom` is every event of a user's own. Empty: all. All are kept.
    pub event_types: Vec<String>,
    /// How long publishing one event may take before it is tried again, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Notifications {
    fn default() -> Self {
        Self { real_time: false, event_types: vec![], timeout_ms: 5_000 }
    }
}

impl Notifications {
    /// What stands for every event of a user's own.
    const CUSTOM: &str = "custom";

    /// For publishing one event.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn wants(&self, kind: &EventKind) -> bool {
        let name = if matches!(kind, EventKind::Custom(_)) { Self::CUSTOM } else { kind.as_str() };
        self.event_types.is_empty() || self.event_types.iter().any(|wanted| wanted == name)
    }
}

/// What past runs of the same graph change in the next one: see `docs/workflows.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Optimization {
    /// Whether records change anything.
    pub enabled: bool,
    /// How far that goes where a workflow's sender does not say.
    pub level: OptimizationLevel,
    /// Whether what must come before what stays as it was given, where a workflow's sender does not say. `aggressive` needs
    /// false.
    pub preserve_structure: bool,
    /// The timeout of a step that was never seen to take this long is left alone, in milliseconds.
    pub timeout_threshold_ms: u64,
    /// Whether a model of how long steps take may be learnt.
    pub learning_enabled: bool,
    /// How sure a pattern in the records must be to count, from 0.5 to 1.
    pub pattern_confidence_threshold: f64,
}

impl Default for Optimization {
    fn default() -> Self {
        let terms = RunOptions::default();
        Self {
            enabled: true,
            level: terms.optimization_level,
            preserve_structure: terms.preserve_structure,
            timeout_threshold_ms: 30_000,
            learning_enabled: true,
            pattern_confidence_threshold: 0.85,
        }
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
            execution: Execution::default(),
            optimization: Optimization::default(),
            notifications: Notifications::default(),
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
        let of = &self.execution;
        for (key, value, least, most) in [
            ("execution.timeout_ms", of.timeout_ms, 1, RunOptions::LONGEST_MS),
            ("execution.max_parallel", of.max_parallel.into(), 1, RunOptions::MOST_PARALLEL),
            ("execution.retry_attempts", of.retry_attempts.into(), 0, RunOptions::MOST_RETRIES),
            ("execution.retry_delay_ms", of.retry_delay_ms, 0, RunOptions::LONGEST_MS),
            ("execution.task_timeout_ms", of.task_timeout_ms, 1, RunOptions::LONGEST_MS),
            ("notifications.timeout_ms", self.notifications.timeout_ms, 1, 60_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("workflow.{key}: must be from {least} to {most}"));
            }
        }
        if self.notifications.real_time && !of.monitor {
            return Err("workflow.notifications.real_time: publishes what workflow.execution.monitor keeps".to_owned());
        }
        let known = |name: &&String| *name == Notifications::CUSTOM || EventKind::is_known(name);
        if let Some(name) = self.notifications.event_types.iter().find(|name| !known(name)) {
            return Err(format!("workflow.notifications.event_types: {name:?} is no type of event"));
        }
        if self.optimization.level == OptimizationLevel::Aggressive && self.optimization.preserve_structure {
            return Err("workflow.optimization.level: aggressive needs preserve_structure = false".to_owned());
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

    /// The terms of workflows whose sender does not say otherwise.
    pub fn terms(&self) -> RunOptions {
        let (of, learnt) = (&self.execution, &self.optimization);
        RunOptions {
            optimization_level: learnt.level,
            monitoring: of.monitor,
            real_time_notifications: self.notifications.real_time,
            preserve_structure: learnt.preserve_structure,
            max_parallel: of.max_parallel,
            timeout: Duration::from_millis(of.timeout_ms),
            retry_attempts: of.retry_attempts,
            retry_delay: Duration::from_millis(of.retry_delay_ms),
            task_timeout: Duration::from_millis(of.task_timeout_ms),
            priority: 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_that_can_not_be_meant_is_named() {
        let wrong = |change: fn(&mut Options)| {
            let mut options = Options::default();
            assert_eq!(options.check(), Ok(()));
            change(&mut options);
            options.check().unwrap_err().split(':').next().unwrap_or_default().to_owned()
        };
        let found = [
            wrong(|o| o.execution.max_parallel = 0),
            wrong(|o| o.execution.retry_attempts = 21),
            wrong(|o| o.execution.task_timeout_ms = 0),
            wrong(|o| o.notifications.event_types = vec!["task_done".to_owned()]),
            wrong(|o| (o.notifications.real_time, o.execution.monitor) = (true, false)),
            wrong(|o| o.notifications.timeout_ms = 0),
            wrong(|o| o.optimization.level = OptimizationLevel::Aggressive),
            wrong(|o| o.decomposers.ml_pipeline.max_depth = 0),
            wrong(|o| o.decomposers.simple.timeout_ms = 0),
        ];
        assert_eq!(
            found.map(|key| key.strip_prefix("workflow.").unwrap_or_default().to_owned()),
            [
                "execution.max_parallel",
                "execution.retry_attempts",
                "execution.task_timeout_ms",
                "notifications.event_types",
                "notifications.real_time",
                "notifications.timeout_ms",
                "optimization.level",
                "decomposers.ml_pipeline.max_depth",
                "decomposers.simple.timeout_ms",
            ]
        );
    }

    #[test]
    fn what_nobody_configures_is_as_the_source_says() {
        assert_eq!(Options::default().terms(), RunOptions::default());
    }

    #[test]
    fn only_what_is_listed_is_published() {
        let mut notifications = Notifications::default();
        assert!(notifications.wants(&EventKind::TaskStarted) && notifications.wants(&EventKind::named("mine")));
        notifications.event_types = vec!["task_failed".to_owned()];
        assert!(notifications.wants(&EventKind::TaskFailed) && !notifications.wants(&EventKind::named("mine")));
        notifications.event_types.push("custom".to_owned());
        assert!(notifications.wants(&EventKind::named("mine")) && !notifications.wants(&EventKind::TaskStarted));
    }
}
