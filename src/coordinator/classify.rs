//! Which kinds of task a text speaks of. Pure: words in, ranked types out.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::words::{Word, stem};
use crate::domain::TaskType;

/// A type that the words speak of.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct Classified {
    pub task_type: TaskType,
    /// The source's confidence of the type.
    pub confidence: f64,
    /// How many different words of the task belong to it.
    pub words: usize,
}

/// The words of each type, by stem. An alternative of two words must stand in a row.
const VOCABULARY: [(TaskType, &str); 14] = [
    (TaskType::Testing, "test|spec|unit test|integration test|pytest|exunit|vitest|jest|testing|assertion"),
    (TaskType::Bugfix, "fix|bug|bugfix|debug|crash|broken|repair|error message|stack trace"),
    (TaskType::NatsConsumer, "nats|jetstream|consumer|subscriber|subscription|listener"),
    (
        TaskType::ApiEndpoint,
        "api|endpoint|rest|restful|route|router|http|controller|crud|graphql|axum|fastapi|flask|express|fastify",
    ),
    (
        TaskType::Database,
        "database|db|schema|migration|table|repository|ecto|sqlalchemy|sqlx|orm|query|queries|column|persistence|sql",
    ),
    (
        TaskType::Security,
        "auth|authentication|authorization|authenticate|authorize|encryption|encrypt|jwt|oauth|login|password|security|secure|permission|role|rls",
    ),
    (TaskType::Microservice, "microservice|service|distributed|grpc|server|daemon|supervisor"),
    (TaskType::WebComponent, "ui|component|element|react|vue|frontend|widget|form|page|liveview|button"),
    (TaskType::Refactoring, "refactor|refactoring|restructure|cleanup|rewrite|simplify"),
    (TaskType::Documentation, "doc|docs|documentation|document|guide|tutorial|readme|runbook|manual|changelog"),
    (TaskType::Configuration, "config|configuration|configure|setting|env|environment"),
    (TaskType::Devops, "deploy|deployment|ci|cd|docker|dockerfile|kubernetes|helm|terraform|compose|container"),
    (
        TaskType::Performance,
        "performance|optimize|optimise|optimization|cache|caching|benchmark|index|indexes|profile|speed|latency",
    ),
    (
        TaskType::DataProcessing,
        "etl|pipeline|csv|transform|aggregate|aggregation|rollup|batch|import|ingest|parser|stream",
    ),
];

struct Vocabulary {
    single: HashMap<String, Vec<TaskType>>,
    rows: Vec<(Vec<String>, TaskType)>,
}

static WORDS: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut vocabulary = Vocabulary { single: HashMap::new(), rows: vec![] };
    for (task_type, alternatives) in VOCABULARY {
        for alternative in alternatives.split('|') {
            let stems: Vec<String> = alternative.split(' ').map(stem).collect();
            match <[String; 1]>::try_from(stems) {
                Ok([single]) => {
                    let types = vocabulary.single.entry(single).or_default();
                    if !types.contains(&task_type) {
                        types.push(task_type);
                    }
                }
                Err(row) => vocabulary.rows.push((row, task_type)),
            }
        }
    }
    vocabulary
});

/// The types that the words speak of, the likeliest first: by the source's confidence and how many words say so, then by
/// which word comes first ("indexes for the orders table" is about indexes), then in the source's order. `General` always
/// comes last.
pub fn classify(words: &[Word]) -> Vec<Classified> {
    let mut counts: HashMap<TaskType, (usize, usize)> = HashMap::new();
    let mut seen = HashSet::new();
    let mut count = |task_type: TaskType, at: usize| counts.entry(task_type).or_insert((0, at)).0 += 1;
    for word in words {
        if !seen.insert(&word.stem) {
            continue;
        }
        for task_type in types_of(word) {
            count(*task_type, word.at);
        }
    }
    for (row, task_type) in &WORDS.rows {
        if let Some(window) = words.windows(row.len()).find(|window| window.iter().map(|w| &w.stem).eq(row)) {
            count(*task_type, window[0].at);
        }
    }
    let mut found: Vec<(TaskType, usize, usize)> = counts.into_iter().map(|(t, (words, at))| (t, words, at)).collect();
    found.sort_by(|a, b| {
        let by =
            |(task_type, words, _): &(TaskType, usize, usize)| task_type.confidence() + 0.02 * ((*words).min(4) as f64);
        by(b).total_cmp(&by(a)).then(a.2.cmp(&b.2)).then(a.0.cmp(&b.0))
    });
    let classified = |(task_type, words, _): (TaskType, usize, usize)| Classified {
        task_type,
        confidence: task_type.confidence(),
        words,
    };
    let mut ranked: Vec<Classified> = found.into_iter().map(classified).collect();
    ranked.push(Classified { task_type: TaskType::General, confidence: TaskType::General.confidence(), words: 0 });
    ranked
}

/// The types that one word speaks of by itself.
pub fn types_of(word: &Word) -> &'static [TaskType] {
    WORDS.single.get(&word.stem).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::words::words;

    #[test]
    fn each_kind_of_task_is_known_by_its_words() {
        for (task, expected) in [
            ("Create a NATS consumer for processing user events", TaskType::NatsConsumer),
            ("Build a REST endpoint for orders", TaskType::ApiEndpoint),
            ("Write unit tests for the invoice parser", TaskType::Testing),
            ("Fix the crash in the login page", TaskType::Bugfix),
            ("Add a database migration for customers", TaskType::Database),
            ("JWT authentication for the admin area", TaskType::Security),
            ("A microservice for billing", TaskType::Microservice),
            ("React component that lists products", TaskType::WebComponent),
            ("Refactor the session module", TaskType::Refactoring),
            ("Document the payment flow", TaskType::Documentation),
            ("Typed configuration from the environment", TaskType::Configuration),
            ("Dockerfile for the worker", TaskType::Devops),
            ("Add caching to speed up lookups", TaskType::Performance),
            ("ETL pipeline for sales data", TaskType::DataProcessing),
            ("Find the longest palindrome", TaskType::General),
        ] {
            assert_eq!(classify(&words(task))[0].task_type, expected, "{task}");
        }
    }

    #[test]
    fn confidences_are_the_sources_and_general_is_always_an_alternative() {
        let ranked = classify(&words("nats consumer"));
        assert_eq!((ranked[0].confidence, ranked.last().unwrap().confidence), (0.9, 0.4));
    }
}
