//! How good a text is, read from the text itself.
//!
//! Code is parsed and its tree walked once (`code`, with what each grammar's nodes mean in `rules`). The weights are
//! the source's: 0.5 for being there, and up to 0.1 for error handling, 0.2 for structure, 0.2 for a reasonable length,
//! each by degrees. A parse error leaves three tenths of all that, so at most 0.3. SQL is read by its words (`sql`),
//! as its grammar takes too little of what databases take. A Dockerfile, YAML, TOML and JSON are parsed too; they don't branch. Code in a language without a grammar is judged by its
//! length and the shape of its lines: it can't earn what nobody read. Prose is judged as prose (`prose`).

mod code;
mod grammar;
mod markdown;
mod memory;
mod plain;
mod prose;
mod rules;
mod sql;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use tree_sitter::Point;

use self::code::Counts;
use self::grammar::Grammar;
use self::markdown::Block;
pub use self::memory::Memory;
use crate::domain::{Evaluation, Language};

/// What a text is taken for.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    Code(&'a Language),
    Prose,
    /// Lines of a form that nothing here can parse.
    Text,
    /// A model's answer: the text decides. The language is the one that was asked for.
    Unknown(&'a Language),
}

/// Grades a text. Never fails: what can't be read gets no credit for being good. Takes some 4 µs for a line of code,
/// three quarters of that in the parser; a text made to confuse the parser can keep it busy for a second.
///
/// - Code that is blank has quality 0.
/// - Code above 256 KiB, or so tangled that the parser gives up, is not vouched for: `parses` is false and the quality
///   at most 0.3, as with a parse error; `cyclomatic` is `None`, which tells the two apart.
/// - A Dockerfile, YAML, TOML and JSON have no `cyclomatic`.
/// - Text has none either, is graded by its length and the shape of its lines alone, and always `parses`.
/// - Prose has no `cyclomatic` and always `parses`, except Markdown whose fenced blocks of a known language do not.
///   Blocks that leave something out (`...` on a line) or show a shell session need not parse.
/// - A model's answer that is (nearly) one fenced block is code, of the language that the fence names or else the one
///   asked for. Several blocks, or a block in an explanation, are Markdown. Without a fence the share of lines that
///   read like sentences decides, against what the syntax tree holds.
pub fn evaluate(text: &str, kind: Kind<'_>) -> Evaluation {
    match kind {
        Kind::Code(language) => evaluate_code(text, language),
        Kind::Prose => evaluate_prose(text),
        Kind::Text => graded(text, &Language::Other("text".into()), &Reading::NoGrammar),
        Kind::Unknown(asked) => evaluate_unknown(text, asked),
    }
}

/// The first syntax error of a text; `None` where it parses or nothing here can parse its language. `file` is the name that the
/// text is to have, if that is known: it tells a Dockerfile or TSX from the language around it.
pub fn first_error(text: &str, language: &Language, file: Option<&str>) -> Option<SyntaxError> {
    let named = file.map_or_else(|| language.clone(), |file| language_of(file, language));
    let jsx = file.is_some_and(|file| file.ends_with(".tsx"));
    let reading = read(text, &named, jsx);
    let (point, what) = match reading {
        Reading::NoGrammar => plain::first_error(text, &named)?,
        Reading::Unread => (Point::default(), "too large or too tangled to be read".to_owned()),
        Reading::Read { fault, .. } => fault?,
    };
    let line = text.split('\n').nth(point.row).unwrap_or_default();
    let column = line.get(..point.column).map_or(point.column, |before| before.chars().count());
    Some(SyntaxError { line: point.row + 1, column: column + 1, what, excerpt: line.trim().chars().take(80).collect() })
}

/// Where a text stops being what its language takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub what: String,
    /// The line, at most 80 characters of it.
    pub excerpt: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, what, excerpt } = self;
        write!(f, "line {line}, column {column}: {what}: {excerpt}")
    }
}

/// The code of an answer that is one fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced<'a> {
    /// As the fence names it.
    pub language: Option<Language>,
    pub code: &'a str,
}

/// A model's answer as code where it is (nearly) one fenced block: at most a fifth of it, and 400 bytes, stand outside.
/// A fence that was never closed counts: the answer was cut off, and its code will not parse.
pub fn unfence(text: &str) -> Option<Fenced<'_>> {
    only_block(text, &markdown::blocks(text)).map(|block| Fenced { language: labelled(block.label), code: block.code })
}

/// The language of a file by its name: a Dockerfile asked for by somebody who writes Go is no Go. A name without a
/// known ending is taken for `asked` if it has none, else for the language that is called like its ending.
pub fn language_of(file: &str, asked: &Language) -> Language {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    match name.rsplit_once('.') {
        Some(("Dockerfile" | "Containerfile", _)) => Language::Other("dockerfile".into()),
        Some((stem, ending)) if !stem.is_empty() => labelled(ending).unwrap_or_else(|| asked.clone()),
        Some((_, hidden)) => Language::Other(hidden.to_lowercase().into()),
        None if matches!(name, "Dockerfile" | "Makefile" | "Procfile" | "Justfile" | "justfile" | "Containerfile") => {
            Language::Other(name.to_lowercase().into())
        }
        None => asked.clone(),
    }
}

/// Whether what is written in it is for people.
pub fn is_prose(language: &Language) -> bool {
    matches!(language.as_str(), "md" | "markdown" | "txt" | "text")
}

/// What reading a program gave.
enum Reading {
    NoGrammar,
    /// Too large, or the parser gave up.
    Unread,
    Read {
        counts: Counts,
        fault: Option<(Point, String)>,
    },
}

fn read(text: &str, language: &Language, jsx: bool) -> Reading {
    let Some(grammar) = Grammar::of(language) else { return Reading::NoGrammar };
    if text.len() > grammar::MAX_BYTES {
        return Reading::Unread;
    }
    let reading = match grammar {
        Grammar::Sql => {
            let (counts, fault) = sql::read(text);
            Reading::Read { counts, fault }
        }
        Grammar::TypeScript if jsx => parse(text, Grammar::Tsx),
        // `<T>x` is a cast, or a component, which is closed by `</T>` or `/>`.
        Grammar::TypeScript if text.contains("</") || text.contains("/>") => match parse(text, Grammar::TypeScript) {
            Reading::Read { fault: Some(fault), counts } => match parse(text, Grammar::Tsx) {
                Reading::Read { fault: None, counts } => Reading::Read { fault: None, counts },
                _ => Reading::Read { fault: Some(fault), counts },
            },
            other => other,
        },
        grammar => parse(text, grammar),
    };
    // No language takes it outside of a literal, the grammars often do.
    match (reading, text.find('\0')) {
        (Reading::Read { counts, .. }, Some(at)) => {
            let before = &text[..at];
            let column = at - before.rfind('\n').map_or(0, |newline| newline + 1);
            let point = Point { row: before.matches('\n').count(), column };
            Reading::Read { counts, fault: Some((point, "NUL character".to_owned())) }
        }
        (reading, _) => reading,
    }
}

fn parse(text: &str, grammar: Grammar) -> Reading {
    let Some(tree) = grammar.parse(text) else { return Reading::Unread };
    let counts = code::count(&tree, grammar, text);
    let fault = grammar::first_error(&tree).or_else(|| counts.fault.map(|(at, what)| (at, what.to_owned())));
    Reading::Read { counts, fault }
}

fn evaluate_code(text: &str, language: &Language) -> Evaluation {
    if is_prose(language) {
        return evaluate_prose(text);
    }
    graded(text, language, &read(text, language, false))
}

fn graded(text: &str, language: &Language, reading: &Reading) -> Evaluation {
    let (quality, parses, cyclomatic) = match reading {
        Reading::NoGrammar => {
            let parses = plain::first_error(text, language).is_none();
            (plain::quality(text), parses, None)
        }
        Reading::Unread => (plain::quality(text), false, None),
        Reading::Read { counts, fault } => {
            let quality = match counts.lines {
                0 => 0.0,
                _ => 0.5 + 0.1 * counts.error_handling() + 0.2 * counts.structure() + 0.2 * counts.length(),
            };
            let branches = Grammar::of(language).is_some_and(Grammar::is_program);
            (quality, fault.is_none(), branches.then(|| counts.cyclomatic()))
        }
    };
    Evaluation {
        quality: if parses { quality } else { 0.3 * quality },
        parses,
        lines: text.lines().count(),
        cyclomatic,
    }
}

fn evaluate_prose(text: &str) -> Evaluation {
    let blocks = markdown::blocks(text);
    let quality = prose::quality(text, &blocks);
    let parses = blocks.iter().all(block_parses);
    let quality = if parses { quality } else { 0.3 * quality };
    Evaluation { quality, parses, lines: text.lines().count(), cyclomatic: None }
}

/// A block without a label may be anything, a command's output as well.
fn block_parses(block: &Block<'_>) -> bool {
    let Some(language) = labelled(block.label) else { return true };
    if markdown::is_excerpt(block.code) || is_template(block.code, &language) {
        return true;
    }
    let code = outdented(block.code, block.indent);
    match read(&code, &language, false) {
        Reading::NoGrammar => true,
        Reading::Unread => false,
        Reading::Read { fault, .. } => fault.is_none(),
    }
}

fn evaluate_unknown(text: &str, asked: &Language) -> Evaluation {
    let blocks = markdown::blocks(text);
    if let Some(block) = only_block(text, &blocks) {
        let language = labelled(block.label).unwrap_or_else(|| asked.clone());
        let rendered_later = is_template(block.code, &language);
        let language = if rendered_later { Language::Other("template".into()) } else { language };
        let evaluation = evaluate_code(&outdented(block.code, block.indent), &language);
        return Evaluation { lines: text.lines().count(), ..evaluation };
    }
    if !blocks.is_empty() {
        return evaluate_prose(text);
    }
    if plain::is_json(text) {
        return evaluate_code(text, &Language::Other("json".into()));
    }
    let reading = read(text, asked, false);
    let parsed = match &reading {
        Reading::Read { counts, fault } => Some((counts, fault.is_none())),
        Reading::NoGrammar | Reading::Unread => None,
    };
    if prose::is_code(text, parsed, *asked == Language::Elixir) {
        graded(text, asked, &reading)
    } else {
        evaluate_prose(text)
    }
}

fn only_block<'a, 'b>(text: &str, blocks: &'b [Block<'a>]) -> Option<&'b Block<'a>> {
    let [block] = blocks else { return None };
    let outside = text[..block.start].trim().len() + text[block.end..].trim().len();
    (outside <= 400 && outside * 4 <= block.code.len()).then_some(block)
}

/// The language behind a fence's label or a file's ending.
fn labelled(label: &str) -> Option<Language> {
    Some(match label.to_ascii_lowercase().as_str() {
        "" => return None,
        "jsx" | "mjs" | "cjs" => Language::JavaScript,
        "mts" | "cts" => Language::TypeScript,
        "pyi" => Language::Python,
        label => Language::from(label.to_owned()),
    })
}

/// YAML that is still to be rendered (Helm, Ansible's Jinja): no YAML yet, and nothing that can be vouched for.
fn is_template(text: &str, language: &Language) -> bool {
    Grammar::of(language) == Some(Grammar::Yaml)
        && (text.contains("{%") || text.contains("{{-") || text.lines().any(|line| line.trim_start().starts_with("{{")))
}

/// Takes the columns of an indented fence off each line.
fn outdented(code: &str, indent: usize) -> Cow<'_, str> {
    if indent == 0 {
        return Cow::Borrowed(code);
    }
    let cut = |line: &'_ str| {
        let spaces = line.bytes().take(indent).take_while(|b| matches!(b, b' ' | b'\t')).count();
        line[spaces..].to_owned()
    };
    Cow::Owned(code.split_inclusive('\n').map(cut).collect())
}
