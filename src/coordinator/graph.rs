//! The template-performance graph: from a type of task by way of its language's own templates and the language's
//! generic ones to the universal ones, with what was measured on each edge.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use rand::Rng;
use rand::seq::IteratorRandom;
use serde::{Deserialize, Serialize};

use super::library::{Library, Template};
use crate::domain::record::{EdgeKey, EdgeStats};
use crate::domain::{Language, TaskType, TemplateId, Timestamp};

/// How near a template is to the task. The walk goes from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Made for this type of task in this language.
    Specific,
    /// Made for the language, whatever the type.
    LanguageGeneric,
    /// Made for any language.
    Universal,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Specific, Self::LanguageGeneric, Self::Universal];
}

/// How templates are chosen among those that understand a task.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Share of choices that try one of the near-equals instead of the best, 0 to 1. 0.05 keeps figures of all
    /// variants fresh at the price of one choice in twenty that is at most `near` worse.
    pub explore: f64,
    /// Scores this close to the best count as near-equal. 0.05 is half the weight of recency.
    pub near: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { explore: 0.05, near: 0.05 }
    }
}

/// Figures of all workers, as last read from the database. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<RwLock<Arc<HashMap<EdgeKey, EdgeStats>>>>);

impl Figures {
    /// Puts the database's figures in place of what was known.
    pub fn replace(&self, edges: impl IntoIterator<Item = (EdgeKey, EdgeStats)>) {
        let edges = Arc::new(edges.into_iter().collect());
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = edges;
    }

    /// A consistent view.
    pub fn snapshot(&self) -> Arc<HashMap<EdgeKey, EdgeStats>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// The templates that a node leads to, level by level.
pub fn templates_of<'a, 'b>(
    library: &'a Library,
    task_type: TaskType,
    language: &'b Language,
    level: Level,
) -> impl Iterator<Item = &'a Template> + use<'a, 'b> {
    library.iter().filter(move |template| match level {
        Level::Specific => template.task_type == task_type && template.language.as_ref() == Some(language),
        Level::LanguageGeneric => {
            task_type != TaskType::General
                && template.task_type == TaskType::General
                && template.language.as_ref() == Some(language)
        }
        Level::Universal => {
            template.language.is_none() && (template.task_type == task_type || template.task_type == TaskType::General)
        }
    })
}

const DAY_MS: f64 = 86_400_000.0;

/// How good an edge is, 0 to 1: the source's formula. Quality that was never measured counts for nothing.
pub fn score(stats: &EdgeStats, now: Timestamp) -> f64 {
    let days = now.since(stats.last_used).as_millis() as f64 / DAY_MS;
    0.3 * stats.success
        + 0.3 * stats.quality.unwrap_or(0.0)
        + 0.2 * (1.0 - (stats.time_ms / 10_000.0).min(1.0))
        + 0.1 * (-days / 30.0).exp()
        + 0.1 * ((stats.uses as f64 + 1.0).ln() / 10.0).min(1.0)
}

/// The index of the chosen one: the best score, or now and then one of its near-equals. A template that was never
/// measured is near-equal to any: without that a newcomer would never be tried. Ties go to the first.
pub fn choose(scores: &[Option<f64>], options: &Options, rng: &mut impl Rng) -> Option<usize> {
    let best = scores.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let near = |score: &Option<f64>| score.is_none_or(|s| s >= best - options.near);
    if scores.len() > 1 && rng.random_bool(options.explore.clamp(0.0, 1.0)) {
        return scores.iter().enumerate().filter(|(_, s)| near(s)).map(|(i, _)| i).choose(rng);
    }
    scores.iter().position(|s| *s == Some(best)).or(if scores.is_empty() { None } else { Some(0) })
}

/// The edge along which a template serves a task.
pub fn edge(task_type: TaskType, language: &Language, template: &TemplateId) -> EdgeKey {
    EdgeKey { task_type, language: language.clone(), template: template.clone() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::domain::record::Sample;

    fn stats(success: bool, quality: f64) -> EdgeStats {
        EdgeStats::first(&Sample { at: Timestamp(0), success, quality: Some(quality), time: Duration::ZERO })
    }

    #[test]
    fn the_score_is_the_sources() {
        let fresh = score(&stats(true, 1.0), Timestamp(0));
        assert!((fresh - (0.3 + 0.3 + 0.2 + 0.1 + 0.1 * 2f64.ln() / 10.0)).abs() < 1e-9, "{fresh}");
        let month = score(&stats(true, 1.0), Timestamp(30 * 86_400_000));
        assert!((fresh - month - 0.1 * (1.0 - (-1f64).exp())).abs() < 1e-9, "recency decays by e in thirty days");
    }

    #[test]
    fn the_best_is_chosen_and_near_equals_are_tried_now_and_then() {
        let mut rng = StdRng::seed_from_u64(7);
        let options = Options { explore: 0.1, near: 0.05 };
        let scores = [Some(0.9), Some(0.5), Some(0.88), None];
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            counts[choose(&scores, &options, &mut rng).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0, "a clearly worse one is never tried");
        assert!(counts[0] > 9_000 && counts[2] > 200 && counts[3] > 200, "{counts:?}");
        assert_eq!(choose(&[], &options, &mut rng), None);
        assert_eq!(choose(&[None, None], &Options { explore: 0.0, near: 0.0 }, &mut rng), Some(0));
    }
}
