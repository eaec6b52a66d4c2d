//! What records of past runs say of a workflow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::fields::Fields;
use super::order::{flag, optimization_level, the_workflow};
use crate::domain::workflow::{OptimizationLevel, WorkflowId};
use crate::workflow::is_given;
use crate::workflow::optimize::{Change, Class, PairReason, Plan, Recommendations};

/// Of which workflow; the records are those of all runs of the same graph.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RecommendQuery {
    pub workflow_id: String,
    /// How far the plan goes. Default: the workflow's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimization_level: Option<OptimizationLevel>,
    /// Default: the workflow's own; `aggressive` needs false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_structure: Option<bool>,
}

/// What records say, and what a run would be given. What they can't say is not there.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkflowAdvice {
    pub workflow_id: String,
    /// Recorded runs of the same graph, at most the newest 200.
    pub runs: usize,
    pub parallelizable_pairs: Vec<PairAdvice>,
    /// Milliseconds, by task.
    pub timeout_adjustments: BTreeMap<String, u64>,
    pub failed_pattern_warnings: Vec<FailureWarning>,
    /// By task.
    pub resource_allocation: BTreeMap<String, ResourceAdvice>,
    pub changes: Vec<PlannedChange>,
    /// The plan as a difference of two documents, for a person.
    pub diff: String,
}

/// Two tasks that could run side by side.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PairAdvice {
    pub first: String,
    pub second: String,
    /// `no_free_slot`, or `output_unread`: the second never looks at what the first returns.
    pub reason: PairReason,
    /// In how many runs it was seen.
    pub runs: usize,
    /// What it costs a run, on average of these.
    pub waited_ms: f64,
}

/// A pattern in which a task fails.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FailureWarning {
    pub task: String,
    pub message: String,
    pub failed: usize,
    pub attempts: usize,
    /// How sure it is that this is no chance.
    pub confidence: f64,
}

/// What a task was seen to need.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ResourceAdvice {
    pub class: Class,
    pub p95_ms: f64,
    /// In and out together, the most.
    pub bytes: u64,
}

/// One change of a plan.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedChange {
    /// `a: timeout`, `order`, …
    pub topic: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Whether a run that is started at this level is given it. The others are advice.
    pub carried_out: bool,
}

/// The workflow, and with which options in the place of its own.
pub(crate) type Recommended = (WorkflowId, Option<OptimizationLevel>, Option<bool>);

pub(crate) fn recommend_query(body: &[u8]) -> Result<Recommended, Refusal> {
    let mut fields = Fields::parse(body, r#"{"workflow_id": "..."}"#)?;
    let id = the_workflow(&mut fields)?;
    let level = optimization_level(&mut fields)?;
    let preserve = flag(&mut fields, "preserve_structure")?;
    fields.nothing_else()?;
    Ok((id, level, preserve))
}

impl WorkflowAdvice {
    pub(crate) fn new(id: WorkflowId, found: Recommendations, plan: &Plan) -> Self {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let pairs = found.parallelizable_pairs.into_iter().map(|pair| PairAdvice {
            first: pair.first.to_string(),
            second: pair.second.to_string(),
            reason: pair.reason,
            runs: pair.runs,
            waited_ms: ms(pair.waited),
        });
        let warnings = found.failed_pattern_warnings.into_iter().map(|warning| FailureWarning {
            task: warning.task.to_string(),
            message: warning.message,
            failed: warning.failed,
            attempts: warning.attempts,
            confidence: warning.confidence,
        });
        let resources = found.resource_allocation.into_iter().map(|(task, needs)| {
            (task.to_string(), ResourceAdvice { class: needs.class, p95_ms: ms(needs.time), bytes: needs.bytes })
        });
        let change = |change: &Change| PlannedChange {
            topic: change.edit.topic(),
            reason: change.reason.clone(),
            expected: change.gain.map(|gain| gain.to_string()),
            carried_out: is_given(&change.edit),
        };
        Self {
            workflow_id: id.to_string(),
            runs: plan.runs,
            parallelizable_pairs: pairs.collect(),
            timeout_adjustments: found.timeout_adjustments.into_iter().map(|(t, ms)| (t.to_string(), ms)).collect(),
            failed_pattern_warnings: warnings.collect(),
            resource_allocation: resources.collect(),
            changes: plan.changes.iter().map(change).collect(),
            diff: plan.to_string(),
        }
    }
}
