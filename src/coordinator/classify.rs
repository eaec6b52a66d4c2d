//! Which kinds of task a text speaks of. Pure: words in, ranked types out.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
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
    /// The task only mentions it, beside another type that it names as wanted: "tests for the *endpoint*".
    #[serde(skip)]
    pub aside: bool,
}

/// The words of each type, by stem. An alternative of two words must stand in a row.
const VOCABULARY: [(TaskType, &str); 14] = [
    (
        TaskType::Testing,
        "test|spec|tabledriven|unit test|integration test|regression test|pytest|exunit|vitest|jest|unittest|pgtap|httptest|testing|assertion|mock|property based|k6|load test|mocks|testsuite|supertest|mocha|playwright|cypress|proptest|conftest|hypothesis|factory boy|locust|react testing library|factory|fixture|e2e|mockall|mox|testify|rtl|coverage",
    ),
    (
        TaskType::Bugfix,
        "fix|bug|bugfix|debug|crash|broken|repair|error message|stack trace|error handler|retry|backoff|panic|unhandled|wrap errors",
    ),
    (
        TaskType::NatsConsumer,
        "nats|jetstream|publisher|event handler|message handler|event listener|consumer|subscriber|subscription|listener|subscribe|consume",
    ),
    (
        TaskType::ApiEndpoint,
        "api|endpoint|rest|restful|route|router|http|controller|crud|graphql|axum|fastapi|flask|express|fastify|handler|openapi|swagger|drf|viewset|serializer|websocket|trpc|upload|sse|server sent|socket.io",
    ),
    (
        TaskType::Database,
        "database|db|schema|migration|table|repository|ecto|sqlalchemy|sqlx|orm|query|queries|column|persistence|sql|diesel|prisma|typeorm|knex|alembic|model|sqlite|storage|in postgres|in postgresql|pgx|asyncpg|data access|data layer|dao|context module|phoenix context|ecto context|many to many|join table|junction table|ddl|trigger|select over|paginated select|prepared statement|seed|seeds|seeding|seed script|audit log|audit trail|soft delete|view over|viewset|gorm|pool for|mongoose|dto|foreignkey|foreignkeys|references|upsert statement",
    ),
    (
        TaskType::Security,
        "auth|protect|authentication|authorization|authenticate|authorize|encryption|encrypt|jwt|oauth|login|password|security|secure|permission|role|rls|hmac|signature|cors|csrf|rate limit|rate limiter|rate limiting|api key|row level|argon2|bcrypt|bearer|token|hash|middleware|security header|secure header|secure http headers|hsts|webhook signature|encryption|rbac|fernet|pkce|guard",
    ),
    (
        TaskType::Microservice,
        "microservice|service|distributed|grpc|server|daemon|supervisor|otp application|supervision tree|application supervision|responder|nats service",
    ),
    (
        TaskType::WebComponent,
        "ui|sortable|paginated table|datatable|tableview|tabledisplay|component|element|react|vue|frontend|widget|form|page|liveview|button|modal|dialog|picker|svelte|jsx|tsx|table component|navbar|heex|jinja|jinja2|html|hook|custom hook|angular|sidebar|toast|carousel|dropdown|tabs|accordion|tooltip|spinner|search bar|search box|card|custom element",
    ),
    (
        TaskType::Refactoring,
        "refactor|refactoring|restructure|cleanup|rewrite|simplify|extract|adapter|strategy pattern|repository pattern|dependency injection|service layer",
    ),
    (
        TaskType::Documentation,
        "doc|docs|documentation|document|guide|tutorial|readme|runbook|user manual|manual for|manual of|changelog|moduledoc|jsdoc|docstring|openapi|decision record|adr|contributing|data dictionary|postmortem|post mortem|rfc|request for comments|checklist|faq|frequently asked questions|test plan|issue template|bug report template|design doc|onboarding|asyncapi|comment for|comment on|doc comment|code comment|tsdoc|typedoc|rustdoc|godoc|pydoc|security.md|disclosure|pull request template",
    ),
    (
        TaskType::Configuration,
        "config|configuration|configure|setting|env|environment|tsconfig|eslint|prettier|dotenv|pyproject.toml|logging|runtime.exs|config.exs|editorconfig|gitignore|nginx|process.env|env.ts|env.js|slog|logger|winston|pino|structlog|tracing|envexample|vite",
    ),
    (
        TaskType::Devops,
        "deploy|deployment|ci|cd|continuous integration|docker|dockerfile|kubernetes|helm|terraform|compose|container|github action|workflow|gitlab|makefile|systemd|manifest|backup|prometheus|alert rule|dependabot|precommit|git hook|production image|container image|docker image|image for|dockerignore|codeowners|renovate|circleci|hpa|autoscaler|configmap|cronjob|ingress|network policy|codeql|deploy script|ghcr",
    ),
    (
        TaskType::Performance,
        "performance|optimize|optimise|optimization|cache|caching|benchmark|index|indexes|profile|profiling|speed|latency|memoize|lru|pprof|load test|explain analyze|materialized view|batcher|debounce|throttle|worker pool|k6|load testing|connection pool|redis|partition|partitioned",
    ),
    (
        TaskType::DataProcessing,
        "etl|pipeline|csv|transform|aggregate|aggregation|rollup|batch|import|export|ingest|parser|stream|ndjson|jsonl|upsert|worker pool|broadway|totals|report|json lines|genstage|group by|pandas",
    ),
];

/// Every alternative of the vocabulary.
pub(super) fn vocabulary() -> impl Iterator<Item = &'static str> {
    VOCABULARY.iter().flat_map(|(_, alternatives)| alternatives.split('|'))
}

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

/// How much of what is wanted a word says, by where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// After a preposition: "tests for the *endpoint*".
    Aside,
    /// Before the first preposition: "*API* documentation".
    Head,
    /// The last of these, which the others only describe: "API *documentation*".
    Last,
    /// The order itself: "*test* the endpoint".
    Order,
}

/// Verbs that are a type's own order.
const ORDERS: [&str; 20] = [
    "protect",
    "test",
    "document",
    "deploy",
    "cache",
    "benchmark",
    "profile",
    "configure",
    "import",
    "export",
    "secure",
    "optimize",
    "optimise",
    "refactor",
    "fix",
    "debug",
    "authenticate",
    "extract",
    "memoize",
    "reproduce",
];

/// What a thing is made with says little of what it is: "*FastAPI* dependency for JWT auth".
const MADE_WITH: [&str; 15] = [
    "axum", "fastapi", "flask", "express", "fastify", "hono", "phoenix", "ecto", "plug", "react", "vue", "sql", "http",
    "redis", "query",
];

/// Where a task goes on to say what for, with what, or where.
fn goes_on(word: &Word) -> bool {
    matches!(
        word.lower.as_str(),
        "for"
            | "of"
            | "with"
            | "that"
            | "which"
            | "to"
            | "in"
            | "on"
            | "from"
            | "using"
            | "about"
            | "by"
            | "as"
            | "at"
            | "into"
    )
}

/// The types that the words speak of, the likeliest first: what the task names as wanted before what it only mentions,
/// then by the source's confidence and how many words say so, then by which word comes first, then in the source's
/// order. `General` always comes last.
pub fn classify(words: &[Word]) -> Vec<Classified> {
    let first = words.iter().position(|w| !w.is_filler()).unwrap_or(words.len());
    let head_end = words.iter().skip(first + 1).position(goes_on).map_or(words.len(), |n| first + 1 + n);
    let rows: Vec<(Range<usize>, TaskType)> = WORDS
        .rows
        .iter()
        .filter_map(|(row, task_type)| {
            let at = words.windows(row.len()).position(|window| window.iter().map(|w| &w.stem).eq(row))?;
            Some((at..at + row.len(), *task_type))
        })
        .collect();
    let speaks = |at: usize| !types_of(&words[at]).is_empty() || rows.iter().any(|(row, _)| row.end == at + 1);
    let last = (first..head_end).rev().find(|&at| speaks(at));
    let orders = first < words.len() && ORDERS.contains(&words[first].lower.as_str()) && words.len() > first + 1;
    let standing = |at: usize| match at {
        at if at == first && orders => Standing::Order,
        at if Some(at) == last => Standing::Last,
        at if at < head_end => Standing::Head,
        _ => Standing::Aside,
    };
    let mut counts: HashMap<TaskType, (usize, usize, Standing)> = HashMap::new();
    let mut count = |task_type: TaskType, at: usize, standing: Standing| {
        let entry = counts.entry(task_type).or_insert((0, words[at].at, standing));
        (entry.0, entry.2) = (entry.0 + 1, entry.2.max(standing));
    };
    let mut seen = HashSet::new();
    for (at, word) in words.iter().enumerate() {
        let again = !seen.insert(&word.stem);
        // "a documented endpoint" is no document.
        if again || word.lower == "documented" {
            continue;
        }
        // "a CI pipeline" processes no data.
        let builds = word.lower == "pipeline"
            && at > 0
            && matches!(
                words[at - 1].lower.as_str(),
                "ci" | "cd" | "gitlab" | "build" | "deploy" | "deployment" | "release" | "actions"
            );
        for task_type in types_of(word).iter().filter(|t| !(builds && **t == TaskType::DataProcessing)) {
            count(*task_type, at, standing(at));
        }
    }
    for (row, task_type) in &rows {
        count(*task_type, row.start, standing(row.start).max(standing(row.end - 1)));
    }
    let mut found: Vec<_> = counts.into_iter().collect();
    found.sort_by(|(a, (a_words, a_at, a_standing)), (b, (b_words, b_at, b_standing))| {
        let by = |task_type: &TaskType, words: usize| task_type.confidence() + 0.02 * (words.min(4) as f64);
        let likelier = by(b, *b_words).total_cmp(&by(a, *a_words));
        b_standing.cmp(a_standing).then(likelier).then(a_at.cmp(b_at)).then(a.cmp(b))
    });
    let only_made_with = last.is_some_and(|last| {
        (first..=last).filter(|&at| speaks(at)).all(|at| MADE_WITH.contains(&words[at].lower.as_str()))
    });
    let wanted = !only_made_with && found.first().is_some_and(|(_, (.., standing))| *standing >= Standing::Last);
    let classified = |(task_type, (words, _, standing)): (TaskType, (usize, usize, Standing))| Classified {
        task_type,
        confidence: task_type.confidence(),
        words,
        aside: wanted && standing == Standing::Aside,
    };
    let mut ranked: Vec<Classified> = found.into_iter().map(classified).collect();
    ranked.push(Classified {
        task_type: TaskType::General,
        confidence: TaskType::General.confidence(),
        words: 0,
        aside: false,
    });
    ranked
}

/// The types that one word speaks of by itself.
pub fn types_of(word: &Word) -> &'static [TaskType] {
    // "a fixed window", "a routed message" mend and serve nothing.
    if matches!(word.lower.as_str(), "fixed" | "fixes") {
        return &[];
    }
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
            ("async tests for the HTTP client", TaskType::Testing),
            ("API documentation for invoices", TaskType::Documentation),
            ("test the users API endpoint", TaskType::Testing),
            ("REST endpoint for OAuth tokens", TaskType::ApiEndpoint),
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
