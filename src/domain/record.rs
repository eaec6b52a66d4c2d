//! What is kept of what happened. No record here holds a text of a tenant but [`CacheEntry`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Answer, CorrelationId, Language, Method, NanoUsd, Tag, TaskType, TemplateId, Tenant, Tier, Timestamp, Usage,
};

/// SHA-256.
pub type Digest = [u8; 32];

/// As text: two characters of `0-9a-f` a byte.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// One executed request (`part` empty) or one part of a compound one.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    pub correlation_id: CorrelationId,
    /// Empty for the request as a whole, else the part's id in the graph.
    pub part: String,
    pub tenant: Tenant,
    pub at: Timestamp,
    /// Same for the same task of one tenant in one language; tells which task a verdict is about.
    pub task_key: Digest,
    pub task_type: TaskType,
    pub language: Language,
    pub method: Method,
    pub template: Option<TemplateId>,
    pub model: Option<String>,
    pub usage: Usage,
    pub cost: NanoUsd,
    /// Estimate of what the reference model would have cost; `None` where no price is known.
    pub all_model_cost: Option<NanoUsd>,
    pub quality: Option<f64>,
    pub success: bool,
    /// From the request's arrival to its answer.
    pub time: Duration,
    /// What the rules or the model took of that: a template is not slower because the cache was asked first.
    pub made_in: Duration,
    pub tier: Option<Tier>,
    /// The cache entry that served it or was stored from it.
    pub entry: Option<EntryId>,
    /// The request that a served entry was made for; `None` for what was made now.
    pub origin: Option<CorrelationId>,
    /// A reply is kept under its correlation id for a client's `id`. Only for writing it down: not read back.
    pub kept: bool,
}

impl Execution {
    /// What the template graph learns from this, if a template was at work.
    pub fn sample(&self) -> Option<(EdgeKey, Sample)> {
        // A hit tells nothing of the template: it did not run.
        if self.method != Method::Autonomous {
            return None;
        }
        let template = self.template.clone()?;
        let key = EdgeKey { task_type: self.task_type, language: self.language.clone(), template };
        let sample = Sample { at: self.at, success: self.success, quality: self.quality, time: self.made_in };
        Some((key, sample))
    }
}

/// An edge of the template graph: how `template` does for this kind of task in this language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeKey {
    pub task_type: TaskType,
    pub language: Language,
    pub template: TemplateId,
}

/// One use of a template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub at: Timestamp,
    pub success: bool,
    pub quality: Option<f64>,
    pub time: Duration,
}

/// Weight of the newest sample in the moving averages, as in the source.
pub const EMA_ALPHA: f64 = 0.3;

/// What is known of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EdgeStats {
    pub uses: u64,
    /// Moving average of successes, 0 to 1.
    pub success: f64,
    /// Moving average of quality, 0 to 1; `None` until one was measured.
    pub quality: Option<f64>,
    /// Moving average of the time taken, in milliseconds.
    pub time_ms: f64,
    pub last_used: Timestamp,
}

impl EdgeStats {
    /// The first sample is the average: one success reads 1.0, not 0.3.
    pub fn first(sample: &Sample) -> Self {
        Self {
            uses: 1,
            success: f64::from(u8::from(sample.success)),
            quality: sample.quality,
            time_ms: sample.time.as_secs_f64() * 1e3,
            last_used: sample.at,
        }
    }

    pub fn learn(&mut self, sample: &Sample) {
        let towards = |old: f64, new: f64| old + EMA_ALPHA * (new - old);
        self.uses += 1;
        self.success = towards(self.success, f64::from(u8::from(sample.success)));
        self.quality = match (self.quality, sample.quality) {
            (Some(old), Some(new)) => Some(towards(old, new)),
            (old, new) => new.or(old),
        };
        self.time_ms = towards(self.time_ms, sample.time.as_secs_f64() * 1e3);
        self.last_used = self.last_used.max(sample.at);
    }

    /// A user's first verdict on one answer: success moves, use and time stay.
    pub fn judge(&mut self, good: bool) {
        self.success += EMA_ALPHA * (f64::from(u8::from(good)) - self.success);
    }
}

/// A cache entry's id: made by the worker that stored it, the same on every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub uuid::Uuid);

/// Whole requests and their parts never answer each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Request,
    Task,
}

/// A stored answer.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    pub id: EntryId,
    pub tenant: Tenant,
    pub kind: EntryKind,
    /// Digest of everything that must be equal for a semantic hit; see `cache::Scope`.
    pub scope: Digest,
    /// Digest of the scope and the normalised task: the exact tier's key. One live entry per key.
    pub exact: Digest,
    /// The task as its sender wrote it.
    pub task: Arc<str>,
    pub answer: Arc<Answer>,
    /// Unit length; `None` until it was computed.
    pub vector: Option<Arc<[f32]>>,
    pub origin: CorrelationId,
    pub created: Timestamp,
    pub expires: Timestamp,
}

/// Which cached answers are not to be served any more: those that all fields fit that are given; without any, all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sweep {
    pub task_type: Option<TaskType>,
    /// Made by it, in any of its versions.
    pub template: Option<TemplateId>,
    /// Made for a request that had it.
    pub tag: Option<Tag>,
}

impl Sweep {
    /// An answer goes with its parts.
    pub fn takes(&self, answer: &Answer) -> bool {
        let fits = |answer: &Answer| {
            self.task_type.is_none_or(|wanted| wanted == answer.task_type)
                && self.template.as_ref().is_none_or(|wanted| answer.template.as_ref() == Some(wanted))
                && self.tag.as_ref().is_none_or(|wanted| answer.tags.contains(wanted))
        };
        fits(answer) || answer.parts.iter().any(|part| fits(&part.answer))
    }
}

/// A user's verdict on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    Wrong,
}

/// A user's verdict on what the semantic tier gave.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheVerdict {
    /// Of the entry that was given.
    pub scope: Digest,
    pub vector: Arc<[f32]>,
    pub good: bool,
}

/// A template that a tenant found wrong for a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    pub tenant: Tenant,
    pub task_key: Digest,
    pub template: TemplateId,
}

/// Sums over a tenant's executions (requests, not parts).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    pub executions: u64,
    pub successes: u64,
    pub by_method: Vec<(Method, u64)>,
    pub by_template: Vec<(TemplateId, u64)>,
    pub cost: NanoUsd,
    /// Sum of the estimates, and of how many executions there was one.
    pub all_model_cost: NanoUsd,
    pub all_model_priced: u64,
    pub tokens: Usage,
    /// Mean of the time taken; `None` where nothing was executed.
    pub mean_time: Option<Duration>,
    pub mean_quality: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(success: bool, quality: f64) -> Sample {
        Sample { at: Timestamp(1), success, quality: Some(quality), time: Duration::from_millis(10) }
    }

    #[test]
    fn one_success_reads_one_and_a_failure_then_reads_seven_tenths() {
        let mut stats = EdgeStats::first(&sample(true, 0.8));
        assert_eq!((stats.success, stats.quality, stats.uses), (1.0, Some(0.8), 1));
        stats.learn(&sample(false, 0.3));
        assert!((stats.success - 0.7).abs() < 1e-9);
        assert!((stats.quality.unwrap() - 0.65).abs() < 1e-9);
        assert_eq!(stats.uses, 2);
    }
}
