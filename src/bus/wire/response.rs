use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Text;
use crate::domain::{self, Answer, CorrelationId, Method, ProjectFile, TaskType, Tier};
use crate::pipeline::rounded;

/// The answer to a request: the source's fields under the source's names, and what Tandem knows besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Response {
    /// The text that was asked for; in a fallback, what can be said instead.
    pub result: Text,
    /// The template that wrote it, of the original where it comes from the cache; null where none did.
    pub template_used: Option<String>,
    /// The model that wrote it, or the method where no model did.
    pub model_used: String,
    pub method: Method,
    pub metrics: Metrics,
    /// Made by the worker; feedback names the answer by it.
    pub correlation_id: String,
    /// As it was understood: given, named by the task, or the default.
    pub language: String,
    pub task_type: TaskType,
    /// Where the text belongs, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why there is no success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where a template wrote it and there was no model to do the rest: the phrases of the task that it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What was understood otherwise than written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where the goal was compound: its parts, in the order of the graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Where the goal was compound: what makes a project of the parts' files, a manifest and a module root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub project: Vec<ProjectFile>,
    /// Where the answer comes from the cache: which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheOrigin>,
}

/// In place of an answer that is too large for a message, to a sender who sent `Accept-Object-Store: true`: where it
/// is. What lies there is the answer as it would have been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StoredAnswer {
    /// A bucket of JetStream's object store.
    pub bucket: String,
    /// The object's name in it. It is kept for an hour.
    pub object: String,
    pub bytes: usize,
    pub correlation_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Metrics {
    /// From the arrival of the request to the answer, in milliseconds, to the microsecond.
    pub time_ms: f64,
    /// Tokens that models counted for this request, in and out.
    pub tokens_used: u64,
    /// What this request cost, in US dollars; 0 from the cache.
    pub cost_usd: f64,
    pub cache_hit: bool,
    /// 0 to 1, by the syntax tree; null where nothing was judged.
    pub quality: Option<f64>,
    /// Complete, and parses if it is code.
    pub success: bool,
}

/// One part of a compound answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Part {
    /// As in the graph: `root.1`.
    pub id: String,
    pub description: String,
    /// The ids of the parts that were done before.
    pub depends_on: Vec<String>,
    pub method: Method,
    pub template_used: Option<String>,
    pub model_used: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub result: Text,
    /// Why there is no success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where a template wrote it and there was no model to do the rest: the phrases of the task that it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    pub metrics: PartMetrics,
}

/// As [`Metrics`], for one part; parts run side by side, so the time stands only on the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PartMetrics {
    pub tokens_used: u64,
    pub cost_usd: f64,
    pub cache_hit: bool,
    pub quality: Option<f64>,
    pub success: bool,
}

/// Which answer of the cache was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CacheOrigin {
    pub tier: Tier,
    /// Cosine of the two tasks; 1 where they are the same.
    pub similarity: f64,
    /// How long ago the answer was made, in milliseconds.
    pub age_ms: u64,
    /// The correlation id of the request that it was made for.
    pub origin: String,
}

impl Response {
    /// `time` is from arrival to now.
    pub fn new(answer: Answer, correlation_id: &CorrelationId, time: Duration) -> Self {
        let model_used = answer.model_used().to_owned();
        let PartMetrics { tokens_used, cost_usd, cache_hit, quality, success } = PartMetrics::of(&answer);
        Self {
            result: Text::Plain(answer.text),
            template_used: answer.template.map(String::from),
            model_used,
            method: answer.method,
            metrics: Metrics { time_ms: millis(time), tokens_used, cost_usd, cache_hit, quality, success },
            correlation_id: correlation_id.to_string(),
            language: answer.language.to_string(),
            task_type: answer.task_type,
            file: answer.file,
            reason: answer.reason,
            left_out: answer.left_out,
            notes: answer.notes,
            parts: answer.parts.into_iter().map(Part::from).collect(),
            project: answer.project,
            cache: answer.hit.map(|hit| CacheOrigin {
                tier: hit.tier,
                similarity: rounded(hit.similarity),
                age_ms: u64::try_from(hit.age.as_millis()).unwrap_or(u64::MAX),
                origin: hit.origin.to_string(),
            }),
        }
    }
}

impl From<domain::Part> for Part {
    fn from(part: domain::Part) -> Self {
        let answer = part.answer;
        Self {
            id: part.id,
            description: part.description,
            depends_on: part.depends_on,
            method: answer.method,
            model_used: answer.model_used().to_owned(),
            metrics: PartMetrics::of(&answer),
            template_used: answer.template.map(String::from),
            file: answer.file,
            result: Text::Plain(answer.text),
            reason: answer.reason,
            left_out: answer.left_out,
        }
    }
}

impl PartMetrics {
    fn of(answer: &Answer) -> Self {
        Self {
            tokens_used: answer.usage.input.saturating_add(answer.usage.output),
            cost_usd: answer.cost.as_usd(),
            cache_hit: answer.method == Method::Cached,
            quality: answer.evaluation.map(|evaluation| rounded(evaluation.quality)),
            success: answer.success,
        }
    }
}

/// Three decimals: 0.4 ms must not read 0.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Evaluation, Language, NanoUsd, TemplateId, Timestamp, Usage};

    fn answer() -> Answer {
        Answer {
            text: "fn main() {}".into(),
            file: Some("src/main.rs".to_owned()),
            method: Method::LlmAssisted,
            task_type: TaskType::General,
            language: Language::Rust,
            template: None,
            model: Some("m-1".to_owned()),
            usage: Usage { input: 10, output: 5 },
            cost: NanoUsd(1_500_000),
            unknown: NanoUsd::ZERO,
            evaluation: Some(Evaluation { quality: 0.75, parses: true, lines: 1, cyclomatic: Some(1) }),
            success: true,
            reason: None,
            left_out: vec![],
            parts: vec![],
            project: vec![],
            notes: vec![],
            tags: vec![],
            hit: None,
            time: Duration::ZERO,
            made_at: Timestamp(0),
        }
    }

    #[test]
    fn the_fields_of_the_source_stand_under_their_names() {
        let id = CorrelationId::parse("exec_1").unwrap();
        let json = serde_json::to_value(Response::new(answer(), &id, Duration::from_nanos(412_345))).unwrap();
        let expected = serde_json::json!({
            "result": "fn main() {}", "template_used": null, "model_used": "m-1", "method": "llm_assisted",
            "metrics": {"time_ms": 0.412, "tokens_used": 15, "cost_usd": 0.0015, "cache_hit": false, "quality": 0.75,
                "success": true},
            "correlation_id": "exec_1", "language": "rust", "task_type": "general", "file": "src/main.rs"
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_part_shows_its_own_method_template_and_cost() {
        let id = CorrelationId::parse("exec_1").unwrap();
        let by_rules = Answer {
            method: Method::Autonomous,
            template: Some(TemplateId::parse("rust-test").unwrap()),
            model: None,
            cost: NanoUsd::ZERO,
            ..answer()
        };
        let part = domain::Part {
            id: "root.2".to_owned(),
            depends_on: vec!["root.1".to_owned()],
            description: "tests".to_owned(),
            answer: by_rules,
        };
        let whole = Response::new(Answer { parts: vec![part], ..answer() }, &id, Duration::ZERO);
        let part = &whole.parts[0];
        assert_eq!((part.model_used.as_str(), part.template_used.as_deref()), ("autonomous", Some("rust-test")));
        assert_eq!((part.metrics.cost_usd, whole.metrics.cost_usd), (0.0, 0.0015));
    }
}
