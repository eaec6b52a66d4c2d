use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::EntryId;
use super::{CorrelationId, Language, NanoUsd, Tag, TaskType, TemplateId, Timestamp};

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By rules: a template.
    Autonomous,
    /// From the semantic cache.
    Cached,
    /// Written by a model.
    LlmAssisted,
    /// Nothing could do the task; the reason says why. Never a success, never cached.
    Fallback,
}

impl Method {
    pub const ALL: [Self; 4] = [Self::Autonomous, Self::Cached, Self::LlmAssisted, Self::Fallback];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Autonomous => "autonomous",
            Self::Cached => "cached",
            Self::LlmAssisted => "llm_assisted",
            Self::Fallback => "fallback",
        }
    }
}

/// Tokens that a model counted. Zero where no model was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}

/// What reading the syntax tree says about a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// 0 to 1, by the source's weights; at most 0.3 with a parse error.
    pub quality: f64,
    /// False where the text is code with a parse error.
    pub parses: bool,
    pub lines: usize,
    /// Cyclomatic complexity; `None` for prose, for what has no branches (a Dockerfile, YAML) and for languages without a grammar.
    pub cyclomatic: Option<u32>,
}

/// Which tier of the cache served a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    Exact,
    Semantic,
}

/// Where a cached answer came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub tier: Tier,
    /// Cosine of the two tasks; 1 in the exact tier.
    pub similarity: f64,
    pub age: Duration,
    /// The stored answer itself.
    pub entry: EntryId,
    /// The request that the answer was made for.
    pub origin: CorrelationId,
}

/// One part of a compound answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// As in the graph: `root.1`.
    pub id: String,
    pub depends_on: Vec<String>,
    pub description: String,
    pub answer: Answer,
}

/// A file that belongs to no part but makes a project of them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProjectFile {
    /// Relative to the workspace.
    pub path: String,
    pub text: Arc<str>,
}

/// The outcome of a goal, whichever way it was reached. The cache keeps its fields by their order alone: none may be left out
/// where it is empty (`skip_serializing_if`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub text: Arc<str>,
    /// Where the text belongs, relative to the workspace, if the template says so.
    pub file: Option<String>,
    pub method: Method,
    pub task_type: TaskType,
    pub language: Language,
    pub template: Option<TemplateId>,
    /// The model that wrote it, as the provider names it.
    pub model: Option<String>,
    pub usage: Usage,
    pub cost: NanoUsd,
    /// The most that model calls whose cost nobody knows can have cost beside.
    #[serde(default)]
    pub unknown: NanoUsd,
    pub evaluation: Option<Evaluation>,
    /// Complete, and parses if it is code.
    pub success: bool,
    /// Why there is no success.
    pub reason: Option<String>,
    /// The phrases of the task that a template left out because nobody was there who could do them; then there is no
    /// success.
    #[serde(default)]
    pub left_out: Vec<String>,
    pub parts: Vec<Part>,
    /// Of a compound goal: the manifest and module root that its files need to build together.
    #[serde(default)]
    pub project: Vec<ProjectFile>,
    /// What the sender should know of how the task was read.
    pub notes: Vec<String>,
    /// Of the goal that it was stored for.
    #[serde(default)]
    pub tags: Vec<Tag>,
    pub hit: Option<Hit>,
    /// How long it took to make, or to find.
    pub time: Duration,
    pub made_at: Timestamp,
}

impl Answer {
    /// A successful answer that cost nothing and of which nothing else is known.
    pub fn new(method: Method, task_type: TaskType, language: &Language, text: String, now: Timestamp) -> Self {
        Self {
            text: text.into(),
            file: None,
            method,
            task_type,
            language: language.clone(),
            template: None,
            model: None,
            usage: Usage::default(),
            cost: NanoUsd::ZERO,
            unknown: NanoUsd::ZERO,
            evaluation: None,
            success: true,
            reason: None,
            left_out: vec![],
            parts: vec![],
            project: vec![],
            notes: vec![],
            tags: vec![],
            hit: None,
            time: Duration::ZERO,
            made_at: now,
        }
    }

    /// The same answer as one that failed.
    pub fn failed(self, reason: String) -> Self {
        Self { success: false, reason: Some(reason), ..self }
    }

    /// Named on the wire as `model_used`: who wrote it, or the method where no model did.
    pub fn model_used(&self) -> &str {
        self.model.as_deref().unwrap_or(self.method.as_str())
    }

    /// Only what is complete may be given to somebody else. What came from the cache is there already: stored again
    /// it would live longer and lose its origin.
    pub fn cacheable(&self) -> bool {
        self.success
            && self.hit.is_none()
            && self.method != Method::Fallback
            && self.parts.iter().all(|p| p.answer.success)
    }
}
