//! What people ask about templates and the cache.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Error, Pipeline, rounded};
use crate::coordinator::Declined;
use crate::coordinator::classify::Classified;
use crate::coordinator::evaluate::first_error;
use crate::coordinator::graph::{self, Level};
use crate::coordinator::library::{Library, Template};
use crate::coordinator::select::Candidate;
use crate::domain::record::EntryKind;
use crate::domain::{
    Complexity, Context, CorrelationId, Goal, Language, Method, TaskType, TemplateId, Tenant, Timestamp,
};

/// Which templates to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct TemplateFilter {
    pub language: Option<Language>,
    pub task_type: Option<TaskType>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TemplateInfo {
    pub id: TemplateId,
    pub task_type: TaskType,
    /// Null: for any language.
    pub language: Option<Language>,
    pub description: String,
    pub example: String,
    /// The file of a user's own template; null for one in the binary.
    pub path: Option<String>,
    /// Uses by all workers, over all its edges.
    pub uses: u64,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct TemplateDetail {
    #[serde(flatten)]
    pub info: TemplateInfo,
    /// The whole file.
    pub source: String,
    pub edges: Vec<EdgeFigures>,
}

/// What was measured on one edge of the template graph.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct EdgeFigures {
    pub task_type: TaskType,
    pub language: Language,
    pub score: f64,
    pub success_rate: f64,
    pub quality: Option<f64>,
    pub time_ms: f64,
    pub uses: u64,
}

/// What the rules make of a task: the source's `select_template`, with its alternatives.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Selection {
    /// Null where the rules decline.
    pub id: Option<TemplateId>,
    pub task_type: TaskType,
    pub language: Language,
    /// The source's confidence of the type.
    pub confidence: f64,
    /// Every type that the words speak of, the likeliest first.
    pub types: Vec<Classified>,
    pub declined: Option<Declined>,
    pub candidates: Vec<CandidateInfo>,
    /// How the language was read.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct CandidateInfo {
    pub template: TemplateId,
    pub task_type: TaskType,
    pub level: Level,
    /// Null until it was used for this type and language.
    pub score: Option<f64>,
    /// Share of the task's words that it accounts for, 0 to 1.
    pub understood: f64,
    /// The words that it does not account for.
    pub unknown: Vec<String>,
    pub chosen: bool,
}

/// A stored task near to one that was asked about, and what speaks against serving its answer.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Neighbour {
    pub task: String,
    /// Cosine of the two texts.
    pub similarity: f64,
    /// Whether its answer would be served.
    pub served: bool,
    /// How sure it is that both want the same answer, 0 to 1; null where a guard forbids sharing before that is asked.
    pub sure: Option<f64>,
    /// How sure it must be; null where nothing would do, because `cache.max_false_hit_rate` is smaller than the
    /// calibration can promise.
    pub needed: Option<f64>,
    /// The guard that refuses it; null where none does.
    pub guard: Option<String>,
    /// For a person: why it is not served.
    pub why: Option<String>,
    pub method: Method,
    pub age_ms: u64,
    /// The request that the answer was made for.
    pub origin: CorrelationId,
}

/// What `templates check` found of one template.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TemplateCheck {
    pub template: String,
    /// Null where nothing is wrong.
    pub problem: Option<String>,
    /// Of the output for the template's own example.
    pub quality: Option<f64>,
    pub lines: Option<usize>,
    /// How long reading, rendering and evaluating the example took, in milliseconds.
    pub time_ms: f64,
}

impl Pipeline {
    pub fn templates(&self, filter: &TemplateFilter) -> Vec<TemplateInfo> {
        let figures = self.coordinator.agent().figures().snapshot();
        let uses = |id: &TemplateId| figures.iter().filter(|(edge, _)| edge.template == *id).map(|(_, s)| s.uses).sum();
        let wanted = |t: &&Template| {
            filter.task_type.is_none_or(|wanted| t.task_type == wanted)
                && filter.language.as_ref().is_none_or(|wanted| t.language.as_ref().is_none_or(|l| l == wanted))
        };
        self.coordinator.agent().library().iter().filter(wanted).map(|t| info(t, uses(&t.id))).collect()
    }

    pub fn template(&self, id: &TemplateId, now: Timestamp) -> Option<TemplateDetail> {
        let library = self.coordinator.agent().library();
        let template = library.get(id)?;
        let figures = self.coordinator.agent().figures().snapshot();
        let mut edges: Vec<EdgeFigures> = figures
            .iter()
            .filter(|(edge, _)| edge.template == *id)
            .map(|(edge, stats)| EdgeFigures {
                task_type: edge.task_type,
                language: edge.language.clone(),
                score: rounded(graph::score(stats, now)),
                success_rate: rounded(stats.success),
                quality: stats.quality.map(rounded),
                time_ms: rounded(stats.time_ms),
                uses: stats.uses,
            })
            .collect();
        edges.sort_by_key(|e| std::cmp::Reverse(e.uses));
        let uses = edges.iter().map(|e| e.uses).sum();
        Some(TemplateDetail { info: info(template, uses), source: template.source.to_string(), edges })
    }

    /// What the rules would do with a task. Nothing is executed or recorded.
    pub fn select(&self, tenant: &Tenant, task: &str, language: Option<&str>, now: Timestamp) -> Selection {
        let mut notes = vec![];
        let language = self.read_language(language, task, &mut notes);
        let goal = plain_goal(task, language.clone());
        self.coordinator.agent().explain(&goal, tenant, now, |selected| {
            let confidence = rounded(selected.task_type.confidence());
            let chosen = selected.chosen.iter().map(|c| candidate(c, true));
            let candidates = chosen.chain(selected.others.iter().map(|c| candidate(c, false))).collect();
            Selection {
                id: selected.chosen.as_ref().map(|c| c.template.id.clone()),
                task_type: selected.task_type,
                language,
                confidence,
                types: selected
                    .types
                    .into_iter()
                    .map(|t| Classified { confidence: rounded(t.confidence), ..t })
                    .collect(),
                declined: selected.declined,
                candidates,
                notes,
            }
        })
    }

    pub async fn explain(&self, tenant: &Tenant, goal: &Goal, now: Timestamp) -> Result<Vec<Neighbour>, Error> {
        let key = self.cache.key(tenant, EntryKind::Request, goal);
        let near = self.cache.explain(&key, now, 10).await.map_err(Error::NoEmbedding)?;
        Ok(near.into_iter().map(neighbour).collect())
    }

    /// Renders every template of this worker for its own example and parses the output.
    pub fn check_templates(&self) -> Vec<TemplateCheck> {
        check(&self.coordinator.agent().library())
    }
}

/// Renders each template for its own example, in its language, and parses what comes out. A universal template is
/// checked in every language.
pub fn check(library: &Library) -> Vec<TemplateCheck> {
    let mut found = vec![];
    for template in library.iter() {
        let languages: Vec<Language> = match &template.language {
            Some(language) => vec![language.clone()],
            None => Language::known().collect(),
        };
        for language in languages {
            let started = Instant::now();
            let outcome = crate::coordinator::agent::try_template(library, template, &language);
            let time_ms = started.elapsed().as_secs_f64() * 1e3;
            let shown = match &template.language {
                Some(_) => template.id.to_string(),
                None => format!("{} ({language})", template.id),
            };
            let (problem, evaluation) = match outcome {
                Ok(answer) => {
                    let written = template.format.language(answer.file.as_deref(), &language);
                    let error = written.and_then(|written| first_error(&answer.text, &written, None));
                    let problem = error.map(|e| format!("its output does not parse: {e}")).or(answer.reason);
                    (problem, answer.evaluation)
                }
                Err(problem) => (Some(problem), None),
            };
            found.push(TemplateCheck {
                template: shown,
                problem,
                quality: evaluation.map(|e| rounded(e.quality)),
                lines: evaluation.map(|e| e.lines),
                time_ms: rounded(time_ms),
            });
        }
    }
    found
}

fn info(template: &Template, uses: u64) -> TemplateInfo {
    TemplateInfo {
        id: template.id.clone(),
        task_type: template.task_type,
        language: template.language.clone(),
        description: template.description.clone(),
        example: template.example.clone(),
        path: template.path.as_ref().map(|p| p.display().to_string()),
        uses,
    }
}

fn neighbour(near: crate::cache::Neighbour) -> Neighbour {
    let guard = near.refusal.as_ref().map(|r| r.guard.as_str().to_owned());
    let too_far = || "not similar enough".to_owned();
    let why = near.refusal.as_ref().map(|r| format!("{} ({})", r.detail, r.guard.reason()));
    Neighbour {
        task: near.task.to_string(),
        similarity: rounded(near.similarity),
        served: near.near_enough && near.refusal.is_none(),
        sure: near.sure.map(rounded),
        needed: Some(near.needed).filter(|needed| *needed <= 1.0).map(rounded),
        guard,
        why: if near.near_enough { why } else { Some(why.unwrap_or_else(too_far)) },
        method: near.method,
        age_ms: u64::try_from(near.age.as_millis()).unwrap_or(u64::MAX),
        origin: near.origin,
    }
}

fn candidate(candidate: &Candidate<'_>, chosen: bool) -> CandidateInfo {
    CandidateInfo {
        template: candidate.template.id.clone(),
        task_type: candidate.task_type,
        level: candidate.level,
        score: candidate.score.map(rounded),
        understood: rounded(1.0 - candidate.reading.unknown_share()),
        unknown: candidate.reading.unknown.clone(),
        chosen,
    }
}

fn plain_goal(task: &str, language: Language) -> Goal {
    Goal {
        description: task.to_owned(),
        language,
        complexity: Complexity::default(),
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    }
}
