//! A task's text as words: what is said, and which of it carries meaning.

use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

use super::lexicon::{self, spelling};
use crate::domain::Language;

/// What a word is written like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Number,
    /// Begins with `/`.
    Path,
    /// Has dots inside: a subject, a file, a qualified name.
    Dotted,
    /// Stood in quotes or back-ticks.
    Quoted,
}

/// One word of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    /// In lower case; where people write something else for a known word, that word: "endpoint" for "ep" and "endpont".
    pub lower: String,
    pub stem: String,
    /// The stem of what was written, where `lower` is another word.
    pub as_written: Option<String>,
    pub form: Form,
    /// Punctuation that ends a phrase stands before it.
    pub after_break: bool,
    /// The marks between it and the word before, without blanks: ",", "(", "):".
    pub before: String,
    /// Where it begins in the task, in bytes.
    pub at: usize,
}

impl Word {
    fn new(text: &str, form: Form, before: String, at: usize) -> Self {
        let written = text.to_lowercase();
        // "mit" is a word of German, MIT a licence.
        let shouted = !text.chars().any(char::is_lowercase);
        let meant = lexicon::meaning(&written).filter(|meant| !(shouted && lexicon::is_filler(meant)));
        let meant = meant.filter(|_| form != Form::Quoted).or_else(|| {
            let one_word = shouted || !text.chars().skip(1).any(char::is_uppercase);
            // "Termine" is a name of its own.
            let sure = !shouted && text.starts_with(char::is_uppercase) && at > 0;
            let mended = (form == Form::Plain && one_word).then(|| spelling::mended(&written, sure)).flatten();
            mended.map(|word| lexicon::meaning(word).unwrap_or(word))
        });
        let as_written = meant.map(|_| stem(&written));
        let lower = meant.map_or(written, str::to_owned);
        // "express.js" is a name, not a subject.
        let form = if form == Form::Dotted && as_written.is_some() { Form::Plain } else { form };
        let after_break = before.contains([',', ';', ':', '.', '!', '?', '(', ')', '\n']);
        Self { text: text.to_owned(), stem: stem(&lower), lower, as_written, form, after_break, before, at }
    }

    /// Says nothing by itself: articles, prepositions, "please", "create".
    pub fn is_filler(&self) -> bool {
        self.form == Form::Plain && lexicon::is_filler(&self.lower)
    }

    /// A verb that orders code: "write", "build".
    pub fn orders(&self) -> bool {
        ORDERS.contains(&self.lower.as_str())
    }

    /// Begins with a capital in the middle of a sentence: most likely a proper name. At its start only where all of it is
    /// in capitals.
    pub fn is_capitalised(&self) -> bool {
        let begins = self.before.contains(['.', '!', '?']) && self.text.chars().skip(1).any(char::is_lowercase);
        self.text.starts_with(char::is_uppercase) && !begins
    }

    /// Whether this is a form of the word that a stem stands for, as it is meant or as it was written.
    pub(super) fn has_stem(&self, stem: &str) -> bool {
        self.stem == stem || self.as_written.as_deref() == Some(stem)
    }

    /// Changes everything around it: "without", "only".
    pub(super) fn limits(&self) -> bool {
        LIMITERS.contains(&self.lower.as_str())
    }

    /// Joins or begins phrases: a name ends before it.
    pub fn is_boundary(&self) -> bool {
        self.is_filler()
            || [LIMITERS.as_slice(), &PREPOSITIONS].iter().any(|those| those.contains(&self.lower.as_str()))
    }
}

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// The English stem of a lower-case word: "processing", "processes" and "process" are one.
pub fn stem(lower: &str) -> String {
    // The stemmer does not join "auth" forms and keeps "apis" apart from "api": its rules are for prose.
    STEMMER.stem(lower).into_owned()
}

/// Words that change everything around them. Boilerplate never honours them, unless a template lists them.
pub const LIMITERS: [&str; 57] = [
    "leaks",
    "leaking",
    "hangs",
    "freezes",
    "crashes",
    "flaky",
    "without",
    "not",
    "no",
    "only",
    "except",
    "never",
    "instead",
    "unless",
    "don't",
    "dont",
    "cannot",
    "can't",
    "neither",
    "nor",
    "avoid",
    "exclude",
    "excluding",
    "but",
    "rather",
    "until",
    "besides",
    "ignoring",
    "skipping",
    "mustn't",
    "shouldn't",
    "doesn't",
    "behind",
    "like",
    "same",
    "existing",
    "previous",
    "below",
    "above",
    "attached",
    "everything",
    "anything",
    "something",
    "nothing",
    "twice",
    "half",
    "based",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "hundred",
];

/// Prepositions that are no fillers: what follows is a condition, never a part of a name.
const PREPOSITIONS: [&str; 19] = [
    "over", "under", "between", "within", "during", "before", "after", "against", "per", "across", "through", "inside",
    "outside", "since", "while", "if", "than", "among", "towards",
];

/// More words than this are a description that rules can't be sure of, and taking it apart would take too long.
pub const MOST: usize = 400;

/// Words that ask for an explanation, not for code.
const QUESTIONS: [&str; 25] = [
    "how",
    "why",
    "what",
    "explain",
    "compare",
    "difference",
    "whats",
    "what's",
    "describe",
    "which",
    "should",
    "is",
    "does",
    "are",
    "who",
    "when",
    "where",
    "can",
    "could",
    "would",
    "will",
    "do",
    "did",
    "wer",
    "wann",
];

/// Whether the task asks something instead of ordering it. "Could you write …?" is an order.
pub fn is_question(words: &[Word], task: &str) -> bool {
    let greeting = |w: &&Word| matches!(w.lower.as_str(), "hey" | "hi" | "hello" | "please" | "thanks");
    let words: Vec<&Word> = words.iter().skip_while(greeting).collect();
    let [first, rest @ ..] = words.as_slice() else { return false };
    let kindly = asks_kindly(first, rest)
        || (1..words.len()).any(|at| {
            words[at].after_break && (words[at].lower == "kindly" || asks_kindly(words[at], &words[at + 1..]))
        });
    // In capitals it is SQL.
    let does =
        first.lower == "do" && rest.first().is_some_and(|w| matches!(w.lower.as_str(), "a" | "an" | "the" | "me"));
    let asks = QUESTIONS.contains(&first.lower.as_str()) && first.text != "EXPLAIN" && !does;
    // "How they belong together is clear, write the table."
    let ends_as_order = words.iter().skip(1).any(|w| w.after_break && w.orders()) && !task.contains('?');
    !kindly && ((asks && !ends_as_order) || task.trim_end().ends_with('?'))
}

/// "Could you write", "is it possible to have": an order, though it asks.
fn asks_kindly(first: &Word, rest: &[&Word]) -> bool {
    let possible = first.lower == "is" && rest.iter().take(3).any(|w| w.lower == "possible");
    let whom =
        |w: &&Word| matches!(w.lower.as_str(), "you" | "we" | "i" | "someone" | "somebody" | "anyone" | "anybody");
    // In Spanish the verb says whom.
    let spanish = first.before.ends_with('¿');
    let asked = matches!(first.lower.as_str(), "can" | "could" | "would" | "will")
        && (spanish || rest.first().is_some_and(whom))
        && rest.iter().skip(usize::from(!spanish)).take(8).any(|w| w.orders());
    // "¿Me das el esqueleto?"
    let given = spanish && matches!(first.text.to_lowercase().as_str(), "me" | "nos");
    possible || asked || given
}

/// Verbs that order code.
const ORDERS: [&str; 19] = [
    "create",
    "write",
    "build",
    "implement",
    "make",
    "add",
    "generate",
    "develop",
    "provide",
    "scaffold",
    "start",
    "give",
    "get",
    "have",
    "set",
    "start",
    "do",
    "draft",
    "prepare",
];

/// Splits a task into its words, in order.
pub fn words(task: &str) -> Vec<Word> {
    let mut found = vec![];
    let mut before = String::new();
    let mut rest = task.char_indices().peekable();
    while let Some(&(at, c)) = rest.peek() {
        if matches!(c, '"' | '`') {
            let inner = at + c.len_utf8();
            if let Some(length) = task[inner..].find(c).filter(|&n| n > 0 && n <= 200) {
                found.push(Word::new(&task[inner..inner + length], Form::Quoted, std::mem::take(&mut before), at));
                while rest.next_if(|(i, _)| *i <= inner + length).is_some() {}
                continue;
            }
        }
        // "and/or" are two words, "at /orders" has a path.
        let path = c == '/' && !task[..at].ends_with(is_word);
        if path || is_word(c) {
            let mut end = end_of_token(task, at, path);
            // "orders.csv" is a CSV of orders.
            if !path && let Some(stem) = FILES.iter().find_map(|kind| task[at..end].strip_suffix(kind)) {
                end = at + stem.len();
            }
            if end > at {
                push_token(&task[at..end], at, &mut before, &mut found);
                while rest.next_if(|(i, _)| *i < end).is_some() {}
                continue;
            }
        }
        if (c == '\n' || !c.is_whitespace()) && before.len() < 16 {
            before.push(c);
        }
        rest.next();
    }
    let mut words = join(found);
    for at in 1..words.len() {
        // "tests 4 the cart": no number where something is counted, or of something.
        let next = words.get(at + 1).filter(|w| matches!(w.form, Form::Plain | Form::Path) && !w.after_break);
        let counts = next.is_none_or(|w| COUNTED.contains(&w.lower.as_str()));
        let led = matches!(
            words[at - 1].lower.as_str(),
            "port"
                | "version"
                | "node"
                | "max"
                | "maximum"
                | "every"
                | "each"
                | "of"
                | "at"
                | "to"
                | "last"
                | "top"
                | "limit"
                | "all"
                | "after"
        );
        let word = &mut words[at];
        if word.text == "4" && word.form == Form::Number && word.before.is_empty() && !counts && !led {
            (word.lower, word.stem, word.form) = ("for".to_owned(), stem("for"), Form::Plain);
        }
    }
    for at in 1..words.len() {
        // "GET /orders" is an endpoint.
        if words[at].form == Form::Path && METHODS.contains(&words[at - 1].text.as_str()) {
            let method = &mut words[at - 1];
            (method.as_written, method.lower) = (Some(method.stem.clone()), "endpoint".to_owned());
            method.stem = stem(&method.lower);
        }
    }
    words
}

/// What "4" counts, and is then no "for".
const COUNTED: [&str; 22] = [
    "times",
    "attempts",
    "retries",
    "tries",
    "workers",
    "goroutines",
    "threads",
    "requests",
    "calls",
    "items",
    "entries",
    "connections",
    "replicas",
    "seconds",
    "minutes",
    "hours",
    "days",
    "jobs",
    "fields",
    "columns",
    "rows",
    "and",
];

/// What a file has in it, where its name says so.
const FILES: [&str; 3] = [".csv", ".ndjson", ".jsonl"];

/// The methods of HTTP, as they are written.
pub(super) const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Puts two words together that people write apart: "docker file".
fn join(words: Vec<Word>) -> Vec<Word> {
    let mut joined: Vec<Word> = Vec::with_capacity(words.len());
    for word in words {
        if let Some(last) = joined.last_mut().filter(|_| word.form == Form::Plain && !word.after_break)
            && let Some(one) = lexicon::joined(&last.lower, &word.lower)
            && word.at == last.at + last.text.len() + 1
        {
            last.text = format!("{} {}", last.text, word.text);
            (last.lower, last.stem) = (one.to_owned(), stem(one));
            continue;
        }
        joined.push(word);
    }
    joined
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A token goes on over `.`, `'`, `-` and, in a path, `/` and the marks of path parameters, when a word follows.
fn end_of_token(task: &str, at: usize, path: bool) -> usize {
    let mut end = at;
    let mut chars = task[at..].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let next_is_word = chars.peek().is_some_and(|&(_, n)| is_word(n));
        let joins = match c {
            '/' | ':' | '{' | '}' => {
                path && (next_is_word || c == '}' || chars.peek().is_some_and(|&(_, n)| n == '{' || n == ':'))
            }
            '.' | '\'' => next_is_word || (c == '.' && chars.peek().is_some_and(|&(_, n)| n == '>' || n == '*')),
            '-' => path && next_is_word,
            '>' | '*' => i > 0 && task[at..at + i].ends_with('.'),
            // "text[]" is one word, and no type that a field can have.
            '[' => i > 0 && chars.peek().is_some_and(|&(_, n)| n == ']'),
            ']' => task[at..at + i].ends_with('['),
            _ => is_word(c),
        };
        if !joins {
            break;
        }
        end = at + i + c.len_utf8();
    }
    end
}

fn push_token(token: &str, at: usize, before: &mut String, found: &mut Vec<Word>) {
    let form = if token.starts_with('/') {
        Form::Path
    } else if token.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        // "3.12" too: a version, never a subject.
        Form::Number
    } else if token.contains('.') && Language::named(token).is_none() {
        Form::Dotted
    } else {
        Form::Plain
    };
    found.push(Word::new(token, form, std::mem::take(before), at));
}

/// Tools that belong to one language: who names one has named the language.
const TOOLS: [(Language, &[&str]); 7] = [
    (
        Language::Elixir,
        &[
            "phoenix",
            "ecto",
            "genserver",
            "exunit",
            "liveview",
            "gnat",
            "otp",
            "genstage",
            "broadway",
            "benchee",
            "moduledoc",
            "heex",
            "oban",
            "gettext",
            "mix",
            "exdoc",
        ],
    ),
    (
        Language::Rust,
        &[
            "axum",
            "tokio",
            "cargo",
            "actix",
            "crate",
            "serde",
            "sqlx",
            "diesel",
            "clap",
            "thiserror",
            "leptos",
            "criterion",
            "rustdoc",
            "proptest",
            "reqwest",
            "clippy",
        ],
    ),
    (
        Language::Python,
        &[
            "fastapi",
            "django",
            "flask",
            "pytest",
            "pydantic",
            "sqlalchemy",
            "asyncio",
            "alembic",
            "argparse",
            "unittest",
            "pyproject",
            "dataclass",
            "jinja",
            "jinja2",
            "uvicorn",
            "asyncpg",
            "docstring",
            "docstrings",
            "mypy",
            "starlette",
        ],
    ),
    (
        Language::TypeScript,
        &["tsx", "vitest", "nestjs", "angular", "prisma", "typeorm", "zod", "tsconfig", "tsdoc", "typedoc", "kysely"],
    ),
    (
        Language::JavaScript,
        &[
            "express",
            "knex",
            "jsdoc",
            "eslint",
            "react",
            "jsx",
            "supertest",
            "prettier",
            "jest",
            "vue",
            "svelte",
            "fastify",
            "npm",
            "vuejs",
        ],
    ),
    (Language::Go, &["goroutine", "gin", "pprof", "httptest", "gofmt", "godoc", "pgx", "slog", "goroutines"]),
    (Language::Sql, &["plpgsql", "pgtap"]),
];

/// Every word that is known here by itself.
pub(super) fn vocabulary() -> impl Iterator<Item = &'static str> {
    let languages =
        ["elixir", "rust", "python", "typescript", "javascript", "golang", "postgres", "postgresql", "sqlite"];
    let small = LIMITERS.into_iter().chain(PREPOSITIONS).chain(QUESTIONS).chain(ORDERS).chain(COUNTED);
    TOOLS.iter().flat_map(|(_, tools)| *tools).copied().chain(languages).chain(small)
}

/// The language that the task names, and the word that names it. SQL gives way to any other language named.
pub fn language_of(words: &[Word]) -> Option<Language> {
    let named = |word: &Word| -> Option<Language> {
        let language = Language::named(&word.lower)?;
        let go_the_verb = word.lower == "go" && word.text != "Go";
        let too_short = matches!(word.lower.as_str(), "ex" | "rs" | "exs");
        let stands_for_it = !(too_short || go_the_verb) || follows_in(words, word);
        stands_for_it.then_some(language)
    };
    let all: Vec<Language> = words.iter().filter(|w| w.form != Form::Quoted).filter_map(named).collect();
    let tool = || {
        let of = |w: &Word| TOOLS.iter().find(|(_, tools)| tools.contains(&w.lower.as_str())).map(|(l, _)| l.clone());
        words.iter().find_map(of)
    };
    // Node runs TypeScript too.
    let typed = all.contains(&Language::TypeScript).then_some(Language::TypeScript);
    typed.or_else(|| all.iter().find(|l| **l != Language::Sql).cloned()).or_else(tool).or_else(|| all.first().cloned())
}

/// The one language that the task names by its own name, if that is not the one given with it: "a *golang* endpoint". A
/// tool names none here, nor does SQL, which goes with any; Node runs TypeScript too.
pub fn language_said(words: &[Word], given: &Language) -> Option<Language> {
    let by_name = |w: &&Word| Language::named(&w.lower).is_some() && w.form == Form::Plain;
    let mut said: Vec<Language> =
        words.iter().filter(by_name).filter_map(|w| language_of(std::slice::from_ref(w))).collect();
    said.retain(|language| *language != Language::Sql);
    if said.contains(&Language::TypeScript) {
        said.retain(|language| *language != Language::JavaScript);
    }
    said.dedup();
    let same = |one: &Language| one == given || (*one == Language::JavaScript && *given == Language::TypeScript);
    match said.as_slice() {
        [only] if !same(only) => Some(only.clone()),
        _ => None,
    }
}

/// Whether a word names the language, or what it runs on. A database's name is none: its SQL is not another's, so a
/// template lists the database that it is for.
pub(super) fn names_language(word: &Word, language: &Language) -> bool {
    word.form == Form::Plain
        && !matches!(word.lower.as_str(), "sqlite" | "postgres" | "postgresql")
        && Language::named(&word.lower)
            .is_some_and(|l| l == *language || (l == Language::JavaScript && *language == Language::TypeScript))
}

fn follows_in(words: &[Word], word: &Word) -> bool {
    let before = words.iter().take_while(|w| w.at < word.at).last();
    before.is_some_and(|w| matches!(w.lower.as_str(), "in" | "using" | "a" | "with" | "for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(task: &str) -> Vec<(String, Form)> {
        words(task).into_iter().map(|w| (w.text, w.form)).collect()
    }

    #[test]
    fn tokens_keep_paths_subjects_and_quotes_whole() {
        assert_eq!(
            forms("Serve /api/orders/{id} on \"orders.created\", then user.events.> in node.js."),
            [
                ("Serve", Form::Plain),
                ("/api/orders/{id}", Form::Path),
                ("on", Form::Plain),
                ("orders.created", Form::Quoted),
                ("then", Form::Plain),
                ("user.events.>", Form::Dotted),
                ("in", Form::Plain),
                ("node.js", Form::Plain),
            ]
            .map(|(t, f)| (t.to_owned(), f))
        );
        assert_eq!(forms("port 8080, please")[1], ("8080".to_owned(), Form::Number));
        assert_eq!(forms("real-time").len(), 2);
        assert_eq!(forms("parse orders.csv")[1..], ["orders", "csv"].map(|w| (w.to_owned(), Form::Plain)));
        assert!(forms("\u{0}\" ` {{ 🦀 }} ///").is_empty());
    }

    #[test]
    fn words_are_read_as_they_are_meant() {
        let read: Vec<String> = words("GET /orders, get orders").into_iter().map(|w| w.lower).collect();
        assert_eq!(read, ["endpoint", "/orders", "get", "orders"]);
        let read = words("Schreibe einen EP für Bestellungen mit docker file, MIT and/or CI/CD");
        let meant: Vec<&str> = read.iter().map(|w| w.lower.as_str()).collect();
        assert_eq!(
            meant,
            ["write", "a", "endpoint", "for", "bestellungen", "with", "dockerfile", "mit", "and", "or", "ci", "cd"],
            "MIT is no German word"
        );
        assert_eq!(words("an ep for Msgs")[1].lower, "endpoint");
        assert_eq!(
            (words("the endpiont")[1].lower.as_str(), words("the endpiont")[1].text.as_str()),
            ("endpoint", "endpiont")
        );
    }

    #[test]
    fn orders_may_be_kind_and_questions_need_no_mark() {
        for (task, asks) in [
            ("Could you write a Dockerfile for my app?", false),
            ("hey, can you please add tests?", false),
            ("Can a queue group span two clusters?", true),
            ("what is a consumer", true),
            ("EXPLAIN ANALYZE for slow queries", false),
            ("a consumer?", true),
            ("Is it possible to have a consumer?", false),
            ("We walk dogs, could you write an endpoint?", false),
            ("How they belong together is clear, write the table", false),
            ("¿Me das el esqueleto de un servicio?", false),
            ("Hola. ¿Puedes escribir un módulo?", false),
            ("¿Qué es un consumidor?", true),
            ("Do a component with a name", false),
            ("Kannst du mir ein Testmodul schreiben?", false),
        ] {
            assert_eq!(is_question(&words(task), task), asks, "{task}");
        }
    }

    #[test]
    fn the_language_is_read_from_names_and_tools() {
        let of = |task| language_of(&words(task));
        assert_eq!(of("a consumer in Go"), Some(Language::Go));
        assert_eq!(of("go and write a consumer"), None);
        assert_eq!(of("a FastAPI endpoint"), Some(Language::Python));
        assert_eq!(of("a PostgreSQL repository in Rust"), Some(Language::Rust));
        assert_eq!(of("a PostgreSQL table"), Some(Language::Sql));
        assert_eq!(of("a consumer"), None);
        assert_eq!(of("nats consumer in py"), Some(Language::Python));
        assert_eq!(of("Node typescript service"), Some(Language::TypeScript));
        assert_eq!(of("typscript service"), Some(Language::TypeScript));
    }
}
