//! What the records say of the templates. Every figure is computed from them; what they can't say is `None`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::graph::score;
use crate::domain::record::{EdgeKey, EdgeStats};
use crate::domain::{Language, TaskType, TemplateId, Timestamp};

/// The source's `analyze_performance`.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Analysis {
    /// Templates that exist.
    pub total_templates: usize,
    /// Templates that were used at least once.
    pub used_templates: usize,
    pub total_uses: u64,
    /// The best edges by score, the best first; at most ten.
    pub top_performers: Vec<Performer>,
    /// How the uses spread over the templates, the most used first.
    pub usage_distribution: Vec<Share>,
    pub quality_trends: QualityTrends,
    pub recommendations: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Performer {
    pub template: TemplateId,
    pub task_type: TaskType,
    pub language: Language,
    /// 0 to 1; see `docs/templates.md`.
    pub score: f64,
    /// Moving average, 0 to 1.
    pub success_rate: f64,
    /// Moving average, 0 to 1; null until it was measured.
    pub quality: Option<f64>,
    /// Moving average, milliseconds.
    pub time_ms: f64,
    pub uses: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Share {
    pub template: TemplateId,
    pub uses: u64,
    /// Of all uses, 0 to 1.
    pub share: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct QualityTrends {
    /// Null under twenty executions: too few to tell.
    pub trend: Option<Trend>,
    /// Mean over the newest executions looked at; null where there are none.
    pub average_quality: Option<f64>,
    /// Mean quality of their newer half less that of the older half; null under twenty executions.
    pub improvement_rate: Option<f64>,
    /// How many executions were looked at.
    pub executions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    Improving,
    Stable,
    Declining,
}

/// Below so many executions halves of them say nothing.
const ENOUGH: usize = 20;
/// A smaller change of the mean quality is no trend.
const NOTABLE: f64 = 0.01;

/// `qualities` are those of the newest executions, the oldest first.
pub fn analyze(total_templates: usize, edges: &[(EdgeKey, EdgeStats)], qualities: &[f64], now: Timestamp) -> Analysis {
    let mut performers: Vec<Performer> = edges
        .iter()
        .map(|(edge, stats)| Performer {
            template: edge.template.clone(),
            task_type: edge.task_type,
            language: edge.language.clone(),
            score: score(stats, now),
            success_rate: stats.success,
            quality: stats.quality,
            time_ms: stats.time_ms,
            uses: stats.uses,
        })
        .collect();
    performers.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.template.cmp(&b.template)));
    let total_uses = edges.iter().map(|(_, stats)| stats.uses).sum();
    let mut uses: BTreeMap<&TemplateId, u64> = BTreeMap::new();
    for (edge, stats) in edges {
        *uses.entry(&edge.template).or_default() += stats.uses;
    }
    let used_templates = uses.len();
    let mut usage_distribution: Vec<Share> = uses
        .into_iter()
        .map(|(template, uses)| Share {
            template: template.clone(),
            uses,
            share: uses as f64 / u64::max(total_uses, 1) as f64,
        })
        .collect();
    usage_distribution.sort_by(|a, b| b.uses.cmp(&a.uses).then_with(|| a.template.cmp(&b.template)));
    let recommendations = recommend(&performers);
    performers.truncate(10);
    Analysis {
        total_templates,
        used_templates,
        total_uses,
        top_performers: performers,
        usage_distribution,
        quality_trends: trends(qualities),
        recommendations,
    }
}

fn trends(qualities: &[f64]) -> QualityTrends {
    let mean = |q: &[f64]| (!q.is_empty()).then(|| q.iter().sum::<f64>() / q.len() as f64);
    let (older, newer) = qualities.split_at(qualities.len() / 2);
    let change = match (mean(older), mean(newer)) {
        (Some(older), Some(newer)) if qualities.len() >= ENOUGH => Some(newer - older),
        _ => None,
    };
    let trend = change.map(|change| match change {
        c if c > NOTABLE => Trend::Improving,
        c if c < -NOTABLE => Trend::Declining,
        _ => Trend::Stable,
    });
    QualityTrends { trend, average_quality: mean(qualities), improvement_rate: change, executions: qualities.len() }
}

/// What a person should look at. Nothing is said of edges with fewer than five uses.
fn recommend(performers: &[Performer]) -> Vec<String> {
    let known = || performers.iter().filter(|p| p.uses >= 5);
    let mut said = vec![];
    for p in known().filter(|p| p.success_rate < 0.5) {
        said.push(format!(
            "Mend or remove '{}' for {} in {}: {:.0} % of its latest uses succeeded",
            p.template,
            p.task_type,
            p.language,
            p.success_rate * 100.0
        ));
    }
    for p in known().filter(|p| p.quality.is_some_and(|q| q < 0.6)) {
        let quality = p.quality.unwrap_or_default();
        said.push(format!(
            "Improve '{}' for {} in {}: its quality is {quality:.2}",
            p.template, p.task_type, p.language
        ));
    }
    for (i, best) in performers.iter().enumerate().filter(|(_, p)| p.uses >= 5 && p.success_rate >= 0.9) {
        let worse = |p: &&Performer| {
            p.task_type == best.task_type
                && p.language == best.language
                && p.uses > best.uses
                && best.score - p.score > 0.05
        };
        if let Some(rival) = performers[i + 1..].iter().find(worse) {
            said.push(format!(
                "Prefer '{}' over '{}' for {} in {}: {:.0} % success at a score of {:.2} against {:.2}",
                best.template,
                rival.template,
                best.task_type,
                best.language,
                best.success_rate * 100.0,
                best.score,
                rival.score
            ));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::record::Sample;

    fn edge(template: &str, success: bool, uses: u64) -> (EdgeKey, EdgeStats) {
        let sample = Sample { at: Timestamp(0), success, quality: Some(0.8), time: Duration::from_millis(1) };
        let mut stats = EdgeStats::first(&sample);
        (1..uses).for_each(|_| stats.learn(&sample));
        let template = TemplateId::parse(template).unwrap();
        (EdgeKey { task_type: TaskType::Testing, language: Language::Rust, template }, stats)
    }

    #[test]
    fn figures_come_from_the_records_and_few_records_say_little() {
        let analysis = analyze(40, &[edge("good", true, 9), edge("bad", false, 30)], &[0.5, 0.9], Timestamp(0));
        assert_eq!((analysis.total_templates, analysis.used_templates, analysis.total_uses), (40, 2, 39));
        assert_eq!(analysis.top_performers[0].template.as_str(), "good");
        assert_eq!(analysis.usage_distribution[0].template.as_str(), "bad");
        assert_eq!((analysis.quality_trends.trend, analysis.quality_trends.average_quality), (None, Some(0.7)));
        assert!(analysis.recommendations.iter().any(|r| r.contains("'bad'") && r.contains("0 %")), "{analysis:?}");
        let none = analyze(40, &[], &[], Timestamp(0));
        assert_eq!((none.quality_trends.average_quality, none.recommendations.len()), (None, 0));
    }

    #[test]
    fn the_trend_compares_the_newer_half_with_the_older() {
        let rising: Vec<f64> = (0..40).map(|i| 0.5 + f64::from(i) * 0.01).collect();
        assert_eq!(analyze(1, &[], &rising, Timestamp(0)).quality_trends.trend, Some(Trend::Improving));
        assert_eq!(analyze(1, &[], &[0.7; 40], Timestamp(0)).quality_trends.trend, Some(Trend::Stable));
    }
}
