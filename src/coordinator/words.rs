//! A task's text as words: what is said, and which of it carries meaning.

use std::collections::HashSet;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

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
    pub lower: String,
    pub stem: String,
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
        let lower = text.to_lowercase();
        let after_break = before.contains([',', ';', ':', '.', '!', '?', '(', ')', '\n']);
        Self { text: text.to_owned(), stem: stem(&lower), lower, form, after_break, before, at }
    }

    /// Says nothing by itself: articles, prepositions, "please", "create".
    pub fn is_filler(&self) -> bool {
        self.form == Form::Plain && FILLER.contains(self.lower.as_str())
    }

    /// Begins with a capital: in the middle of a sentence, most likely a proper name.
    pub fn is_capitalised(&self) -> bool {
        self.text.starts_with(char::is_uppercase)
    }

    /// Joins or begins phrases: a name ends before it.
    pub fn is_boundary(&self) -> bool {
        self.is_filler() || LIMITERS.contains(&self.lower.as_str())
    }
}

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// The English stem of a lower-case word: "processing", "processes" and "process" are one.
pub fn stem(lower: &str) -> String {
    // The stemmer does not join "auth" forms and keeps "apis" apart from "api": its rules are for prose.
    STEMMER.stem(lower).into_owned()
}

const FILLER_WORDS: &str = "a an the this that these those every each it its i we you me my our your their some any one each \
    to for of in on at by as from into via using use used with and or plus also then which who whose where when be is are was \
    will should can could would must need needs want wants like please kindly lets let us \
    create creates write writes build builds implement implements make makes add adds generate generates develop \
    develops provide provides produce scaffold define set up setup give show new simple basic small quick nice good clean \
    code implementation example sample boilerplate skeleton starter template snippet so just proper properly \
    language written has have having including includes include called named all";

static FILLER: LazyLock<HashSet<&str>> = LazyLock::new(|| FILLER_WORDS.split_whitespace().collect());

/// Words that change everything around them. Boilerplate never honours them, unless a template lists them.
pub const LIMITERS: [&str; 16] = [
    "without", "not", "no", "only", "except", "never", "instead", "unless", "don't", "dont", "cannot", "can't",
    "neither", "nor", "avoid", "exclude",
];

/// More words than this are a description that rules can't be sure of, and taking it apart would take too long.
pub const MOST: usize = 400;

/// Words that ask for an explanation, not for code.
const QUESTIONS: [&str; 12] =
    ["how", "why", "what", "explain", "compare", "difference", "whats", "describe", "which", "should", "is", "does"];

/// Whether the task asks something instead of ordering it.
pub fn is_question(words: &[Word], task: &str) -> bool {
    task.trim_end().ends_with('?') || words.first().is_some_and(|w| QUESTIONS.contains(&w.lower.as_str()))
}

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
        if c == '/' || is_word(c) {
            let end = end_of_token(task, at, c == '/');
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
    found
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
    } else if token.bytes().all(|b| b.is_ascii_digit()) {
        Form::Number
    } else if token.contains('.') && Language::named(token).is_none() {
        Form::Dotted
    } else {
        Form::Plain
    };
    found.push(Word::new(token, form, std::mem::take(before), at));
}

/// Tools that belong to one language: who names one has named the language.
const TOOLS: [(Language, &[&str]); 6] = [
    (Language::Elixir, &["phoenix", "ecto", "genserver", "exunit", "liveview", "gnat", "otp"]),
    (Language::Rust, &["axum", "tokio", "cargo", "actix", "crate", "serde"]),
    (Language::Python, &["fastapi", "django", "flask", "pytest", "pydantic", "sqlalchemy", "asyncio"]),
    (Language::TypeScript, &["tsx", "vitest", "nestjs", "angular"]),
    (Language::Go, &["goroutine", "gin"]),
    (Language::Sql, &["plpgsql"]),
];

/// The language that the task names, and the word that names it. SQL gives way to any other language named.
pub fn language_of(words: &[Word]) -> Option<Language> {
    let named = |word: &Word| -> Option<Language> {
        let language = Language::named(&word.lower)?;
        let go_the_verb = word.lower == "go" && word.text != "Go";
        let too_short = matches!(word.lower.as_str(), "ex" | "rs" | "py" | "ts" | "exs");
        (!too_short || word.lower == "ts").then_some(language).filter(|_| !go_the_verb || follows_in(words, word))
    };
    let all: Vec<Language> = words.iter().filter(|w| w.form != Form::Quoted).filter_map(named).collect();
    let tool = || {
        let of = |w: &Word| TOOLS.iter().find(|(_, tools)| tools.contains(&w.lower.as_str())).map(|(l, _)| l.clone());
        words.iter().find_map(of)
    };
    all.iter().find(|l| **l != Language::Sql).cloned().or_else(tool).or_else(|| all.first().cloned())
}

fn follows_in(words: &[Word], word: &Word) -> bool {
    let before = words.iter().take_while(|w| w.at < word.at).last();
    before.is_some_and(|w| matches!(w.lower.as_str(), "in" | "using" | "a" | "with"))
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
        assert!(forms("\u{0}\" ` {{ 🦀 }} ///").is_empty());
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
    }
}
