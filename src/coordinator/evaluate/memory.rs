//! Grades of one template's outputs, remembered by shape.
//!
//! Parsing is most of what an answer by rules costs, and the outputs of one template differ in little but names. Two
//! texts have the same shape where they are equal but for runs of letters, digits and `_`, and no run that differs can
//! mean anything to a grammar or a grader: then one parse speaks for both. Whatever is doubtful is parsed.

use std::collections::{HashSet, VecDeque};
use std::sync::{LazyLock, PoisonError, RwLock};

use super::grammar::Grammar;
use super::rules::{SOURCES, is_placeholder_anywhere};
use super::{Kind, Reading, evaluate, graded, is_prose, read};
use crate::domain::{Evaluation, Language};

/// Shapes kept for a template: names of one word, two and three, lists of fields, options.
const MOST_SHAPES: usize = 8;

/// Bytes of a text that is remembered. Far from where the parser gives up.
const MOST_BYTES: usize = 16 * 1024;

/// A grader searches the first 512 bytes of a node. What it searched was at most a quarter of that, and no run may
/// become more than four times as long: so it sees the whole node here and there.
const WIDEST: usize = 128;
const GROWTH: usize = 4;

/// Runs this short can be the prefix of a literal (`rb"…"`), longer ones than that are no names.
const TOO_SHORT: usize = 2;
const TOO_LONG: usize = 64;

/// What one template's outputs were graded.
#[derive(Debug, Default)]
pub struct Memory {
    shapes: RwLock<VecDeque<Shape>>,
}

#[derive(Debug)]
struct Shape {
    language: Language,
    text: Box<str>,
    evaluation: Evaluation,
}

impl Memory {
    /// The same as [`evaluate`], without parsing where a text of the same shape was parsed before. Texts in SQL, prose,
    /// YAML and the like are always read: their graders compare words with each other.
    pub fn evaluate(&self, text: &str, kind: Kind<'_>) -> Evaluation {
        let Kind::Code(language) = kind else { return evaluate(text, kind) };
        let is_parsed = Grammar::of(language).is_some_and(Grammar::ignores_names);
        if !is_parsed || is_prose(language) || text.len() > MOST_BYTES {
            return evaluate(text, kind);
        }
        if let Some(known) = self.known(text, language) {
            return known;
        }
        let reading = read(text, language, false);
        let evaluation = graded(text, language, &reading);
        // A note that something is undone counts by where in its comment it stands.
        if let Reading::Read { counts, fault: None } = reading
            && counts.widest <= WIDEST
            && !is_placeholder_anywhere(text)
        {
            let shape = Shape { language: language.clone(), text: text.into(), evaluation };
            let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
            shapes.truncate(MOST_SHAPES - 1);
            shapes.push_front(shape);
        }
        evaluation
    }

    fn known(&self, text: &str, language: &Language) -> Option<Evaluation> {
        let shapes = self.shapes.read().unwrap_or_else(PoisonError::into_inner);
        shapes
            .iter()
            .find(|shape| shape.language == *language && same_shape(&shape.text, text))
            .map(|shape| shape.evaluation)
    }
}

/// Whether what was found in `old` must be found in `new`.
fn same_shape(old: &str, new: &str) -> bool {
    let (first, second) = (old.as_bytes(), new.as_bytes());
    // The pairs of runs that were compared last: a name comes again and again.
    let mut seen: [(&[u8], &[u8]); 8] = [(&[], &[]); 8];
    let mut next = 0;
    let (mut i, mut j) = (0, 0);
    loop {
        let (mut a, mut b) = (run(&first[i..]), run(&second[j..]));
        (i, j) = (i + a.len(), j + b.len());
        if a != b {
            let before = old[..i - a.len()].chars().next_back().unwrap_or('\n');
            if !is_apart(before, old[i..].chars().next().unwrap_or('\n')) {
                return false;
            }
            // After `\n` of a string the run begins with the second letter.
            if before == '\\' {
                let (Some((x, rest)), Some((y, other))) = (a.split_first(), b.split_first()) else { return false };
                if x != y || !matches!(x, b'n' | b't' | b'r') {
                    return false;
                }
                (a, b) = (rest, other);
            }
            if !seen.contains(&(a, b)) {
                if !are_alike(a, b) {
                    return false;
                }
                seen[next % seen.len()] = (a, b);
                next += 1;
            }
        }
        match (first.get(i), second.get(j)) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
        (i, j) = (i + 1, j + 1);
    }
}

/// Whether a name between these is a name for itself: a letter that is not ASCII would belong to it, `?` and `~` make
/// it a literal in Elixir, `&…;` a character in JSX.
fn is_apart(before: char, behind: char) -> bool {
    let mark = |c: char| c.is_ascii() || matches!(c, '\u{2010}'..='\u{2027}');
    mark(before) && mark(behind) && !matches!(before, '?' | '~') && (before, behind) != ('&', ';')
}

fn run(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !is_of_a_name(*byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether two different runs are the same to every grammar and grader.
fn are_alike(a: &[u8], b: &[u8]) -> bool {
    let sized = |run: &[u8]| (TOO_SHORT + 1..=TOO_LONG).contains(&run.len());
    let number = |run: &[u8]| run.iter().all(u8::is_ascii_digit) && run.first() != Some(&b'0');
    if number(a) && number(b) {
        return a.len() <= TOO_LONG && b.len() <= TOO_LONG && b.len() <= a.len() * GROWTH;
    }
    if !sized(a) || !sized(b) || b.len() > a.len() * GROWTH || case(a[0]) != case(b[0]) {
        return false;
    }
    let (from, behind) = (common_start(a, b), common_end(a, b));
    !is_watched(a, from, behind) && !is_watched(b, from, behind)
}

/// `None` for what begins no name.
fn case(first: u8) -> Option<u8> {
    match first {
        b'a'..=b'z' => Some(b'a'),
        b'A'..=b'Z' => Some(b'A'),
        b'_' => Some(b'_'),
        _ => None,
    }
}

/// Bytes of the words that both runs begin with.
fn common_start(a: &[u8], b: &[u8]) -> usize {
    let mut same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    while same > 0 && !(begins_word(a, same) && begins_word(b, same)) {
        same -= 1;
    }
    same
}

/// Bytes of the words that both end with, those of the start left out.
fn common_end(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len()) - common_start(a, b);
    let mut same = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    while same > 0 && !(begins_word(a, a.len() - same) && begins_word(b, b.len() - same)) {
        same -= 1;
    }
    same
}

/// Whether a word of a name begins here: `order_Id`, `orderId`.
fn begins_word(name: &[u8], at: usize) -> bool {
    match (at.checked_sub(1).map(|before| name[before]), name.get(at)) {
        (None, _) | (_, None) => true,
        (Some(before), Some(here)) => before == b'_' || here.is_ascii_uppercase() && !before.is_ascii_uppercase(),
    }
}

/// Whether a run is a word that something looks at, or holds one in the part that the other run has not: its bytes but
/// for the first `from` and last `behind`.
fn is_watched(name: &[u8], from: usize, behind: usize) -> bool {
    let mut lower = [0; TOO_LONG];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let to = name.len() - behind;
    let mut word = from;
    for at in from + 1..=to {
        if at == to || name[at] == b'_' || begins_word(name, at) {
            if WATCHED.whole.contains(&lower[word..at]) {
                return true;
            }
            word = if name.get(at) == Some(&b'_') { at + 1 } else { at };
        }
    }
    let within = |part: &[u8]| {
        let around = part.len() - 1;
        let window = &lower[from.saturating_sub(around)..(to + around).min(name.len())];
        window.windows(part.len()).any(|w| w == part)
    };
    WATCHED.whole.contains(&*lower) || WATCHED.parts.iter().any(|part| within(part))
}

/// The words that are not like others, in lower case.
struct Watched {
    /// As a run, or as a word of one.
    whole: HashSet<Box<[u8]>>,
    /// Wherever in a run they stand.
    parts: Vec<Box<[u8]>>,
}

/// Words that grammars treat in a way of their own without a node that is called so.
const UNNAMED: [&str; 18] = [
    "make", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "usize", "isize", "f32", "f64",
    "bool", "str", "char",
];

/// Each grammar's words are the names of its tokens; each grader's words are the literals of its source, so that none
/// can be forgotten here.
static WATCHED: LazyLock<Watched> = LazyLock::new(|| {
    let mut watched = Watched { whole: HashSet::new(), parts: vec![] };
    let kinds = Grammar::ALL.iter().filter(|grammar| grammar.ignores_names()).flat_map(|grammar| grammar.kinds());
    for kind in kinds.chain(UNNAMED.map(str::to_owned)) {
        watched.whole.extend(words(&kind));
    }
    for literal in SOURCES.iter().flat_map(|source| literals(source)) {
        for word in words(literal.text) {
            if literal.searched && word.len() > TOO_SHORT {
                watched.parts.push(word.clone());
            }
            watched.whole.insert(word);
        }
    }
    watched.parts.sort();
    watched.parts.dedup();
    watched
});

fn words(text: &str) -> impl Iterator<Item = Box<[u8]>> {
    text.as_bytes()
        .split(|byte| !is_of_a_name(*byte))
        .filter(|word| !word.is_empty())
        .map(|w| w.to_ascii_lowercase().into())
}

struct Literal<'a> {
    text: &'a str,
    /// What some text is searched for, not compared with.
    searched: bool,
}

/// The string literals of a Rust source without raw strings, up to its tests.
fn literals(source: &str) -> Vec<Literal<'_>> {
    let bytes = source.as_bytes();
    let mut found = vec![];
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at);
            }
            // The character `'"'` opens nothing.
            b'\'' if bytes[at..].starts_with(b"'\"'") => at += 3,
            b'"' => {
                let start = at + 1;
                at = start;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                let searched = ["contains(\"", "starts_with(\"", "ends_with(\""];
                let before = source.get(..start).unwrap_or_default();
                let searched = searched.iter().any(|call| before.ends_with(call));
                found.push(Literal { text: source.get(start..at).unwrap_or_default(), searched });
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::coordinator::library::{Library, Template};
    use crate::coordinator::noun::Noun;
    use crate::coordinator::slots::{Filled, Value};
    use crate::coordinator::words::words as words_of;

    const ORDINARY: [&str; 12] = [
        "order",
        "user events",
        "payment",
        "invoice",
        "customer",
        "audit log entry",
        "device readings",
        "product",
        "session",
        "email notification",
        "ticket",
        "job",
    ];

    const HOSTILE: [&str; 100] = [
        "unwrap",
        "expect",
        "todo",
        "error",
        "test",
        "fn",
        "class",
        "panic",
        "result",
        "Result",
        "a",
        "x",
        "b2",
        "r",
        "f",
        "rb",
        "API",
        "HTTP API",
        "api key",
        "URL",
        "OAuth token",
        "2024 report",
        "order 66",
        "0",
        "if",
        "else",
        "match",
        "case",
        "type",
        "print",
        "exec",
        "async",
        "await",
        "in",
        "in stock",
        "instanceof",
        "do",
        "docs",
        "domain",
        "end",
        "vendor",
        "android",
        "order",
        "nil",
        "nullable",
        "vanilla",
        "none",
        "some",
        "err",
        "ferry",
        "merry row",
        "row",
        "deferred",
        "latest",
        "contest",
        "abstract",
        "overload",
        "protocol",
        "private",
        "public",
        "readonly",
        "raise",
        "raised bed",
        "not implemented",
        "implemented",
        "here",
        "fixme",
        "make",
        "new",
        "u8",
        "string",
        "str",
        "int",
        "char",
        "map",
        "list",
        "self",
        "this",
        "super",
        "crate",
        "mod",
        "pub",
        "use",
        "import",
        "package",
        "func",
        "defer",
        "go",
        "select",
        "chan",
        "defmodule",
        "def",
        "stop",
        "ok",
        "next",
        "reject",
        "catch",
        "throw",
        "finally",
        "when",
    ];

    fn code(language: &Language) -> Kind<'_> {
        Kind::Code(language)
    }

    /// Every built-in template for its own example, under another name.
    fn render(library: &Library, template: &Template, language: &Language, name: &str) -> Option<String> {
        let words = words_of(&template.example);
        let mut filled: Filled = crate::coordinator::reading::read(template, &words, &[], language).ok()?.filled;
        let noun = Noun::new(name)?;
        for (key, value) in [
            ("subject", Value::Text(noun.dotted().to_owned())),
            ("queue", Value::Text(format!("{}-workers", noun.kebab()))),
            ("path", Value::Text(format!("/{}", noun.many_kebab()))),
            ("name", Value::Noun(Box::new(noun))),
            ("task", Value::Text(format!("Make something for {name}"))),
            ("language", Value::Text(language.to_string())),
            ("complexity", Value::Text("medium".to_owned())),
        ] {
            filled.set(key, value);
        }
        library.render(template, &filled).ok().map(|(text, _)| text)
    }

    fn templates(library: &Library) -> Vec<(&Template, Language)> {
        let language = |t: &Template| t.format.language(None, t.language.as_ref().unwrap_or(&Language::Rust));
        let found = library.iter().filter_map(|t| language(t).map(|language| (t, language)));
        found.filter(|(_, language)| Grammar::of(language).is_some_and(Grammar::ignores_names)).collect()
    }

    #[test]
    fn a_remembered_grade_is_the_one_that_parsing_gives_for_one_half_of_the_templates() {
        a_remembered_grade_is_the_one_that_parsing_gives(0);
    }

    #[test]
    fn a_remembered_grade_is_the_one_that_parsing_gives_for_the_other_half() {
        a_remembered_grade_is_the_one_that_parsing_gives(1);
    }

    /// Of every second template, with every name.
    fn a_remembered_grade_is_the_one_that_parsing_gives(half: usize) {
        let library = Library::load(None).0;
        let (mut remembered, mut all) = (0, 0);
        for (number, (template, language)) in templates(&library).into_iter().enumerate().skip(half).step_by(2) {
            // All hostile names with all templates would take minutes: each template has its share of them.
            let hostile = HOSTILE.iter().skip(number % 5).step_by(5);
            let texts: Vec<_> =
                ORDINARY.iter().chain(hostile).filter_map(|name| render(&library, template, &language, name)).collect();
            let parsed: Vec<_> = texts.iter().map(|text| evaluate(text, code(&language))).collect();
            let memory = Memory::default();
            for (i, (text, parsed)) in texts.iter().zip(&parsed).enumerate() {
                if i < ORDINARY.len() {
                    remembered += usize::from(memory.known(text, &language).is_some());
                    all += 1;
                }
                assert_eq!(memory.evaluate(text, code(&language)), *parsed, "{text}");
            }
            // Each against each: whatever is taken for the same was graded the same.
            for (i, old) in texts.iter().enumerate().step_by(5) {
                for (j, new) in texts.iter().enumerate() {
                    assert!(parsed[i] == parsed[j] || !same_shape(old, new), "{old}\n{new}");
                }
            }
        }
        assert!(remembered * 10 > all * 6, "{remembered} of {all} outputs with an ordinary name were remembered");
    }

    #[test]
    fn what_is_no_name_is_parsed() {
        let cases: &[(Language, &str, &str, &str)] = &[
            (Language::Rust, "fn handle() { let x = load().NAME(); }", "parsed", "unwrap"),
            (Language::Rust, "#[NAME]\nfn handle() { let x = load().unwrap(); }", "cached", "latest"),
            (Language::Rust, "#[derive(Debug, NAME)]\nstruct A;", "Display", "Error"),
            (Language::Rust, "// NAME: keep\nfn handle() { load(); }", "order", "todo"),
            (Language::Rust, "// rest of the NAME\nfn handle() { load(); }", "orders", "code"),
            (Language::Rust, "NAME handle() {}", "fn", "order"),
            (Language::Go, "package a\nfunc b() error { if NAME != nil { return c } }", "order", "ferry"),
            (Language::Go, "package a\nfunc b() error { if NAMERow != nil { return c } }", "item", "order"),
            (Language::Go, "package a\nfunc b() error { if err != NAME { return c } }", "order", "nil"),
            (Language::Python, "class A(NAME):\n    def b(self):\n        pass\n", "Ordering", "Protocol"),
            (Language::Python, "def a():\n    raise NAME()\n", "OrderMissing", "NotImplementedError"),
            (Language::Python, "x = NAME'{'\n", "f", "b"),
            (Language::Python, "x = '\\NAME'\n", "orders", "N1234"),
            (Language::JavaScript, "a\nNAME\nb\n", "orders", "in_stock"),
            (Language::JavaScript, "if (NAME) { load(); }", "order", "error"),
            (Language::Elixir, "def a do\n  NAME(\"x\")\nend\n", "order", "raise"),
            (Language::Elixir, "defmodule NAME do\nend\n", "Orders", "orders"),
            (Language::Elixir, "@NAME \"x\"\n", "order", "doc"),
            (Language::Elixir, "a = ?NAME\n", "orders", "x"),
            (Language::Rust, "let x = NAME;", "17", "017"),
            (Language::Rust, "let é = NAMEé;", "order", "items"),
        ];
        for (language, text, first, then) in cases {
            let (first, then) = (text.replace("NAME", first), text.replace("NAME", then));
            assert!(!same_shape(&first, &then), "{language}: {first} {then}");
        }
    }

    #[test]
    fn what_is_only_named_otherwise_is_not_parsed_again() {
        let memory = Memory::default();
        let text = |name: &str, port: u16| {
            format!(
                "/// {name}\nfn create_{name}(port: u16) -> Result<(), {name}Error> {{\n    load({port})?;\n    Ok(())\n}}\n"
            )
        };
        let evaluation = memory.evaluate(&text("orders", 8080), code(&Language::Rust));
        assert_eq!(memory.known(&text("invoices", 443), &Language::Rust), Some(evaluation));
        assert_eq!(memory.known(&text("invoices", 443), &Language::Go), None, "another language is another grammar");
        assert_eq!(memory.known(&text("invoice_lines", 443).replace("Ok", "Err"), &Language::Rust), None);
        assert_eq!(memory.known(&text(&"o".repeat(65), 1), &Language::Rust), None);
        assert_eq!(
            memory.known(&text(&"o".repeat(25), 1), &Language::Rust),
            None,
            "nodes may grow beyond what is searched"
        );
    }

    #[test]
    fn what_was_searched_and_is_long_or_may_be_a_note_is_not_remembered() {
        let memory = Memory::default();
        let long = format!("#[derive({})]\nstruct A {{ a: u8 }}\n", "Orders, ".repeat(20));
        let undone = "fn a() { load(); }\nconst B: &str = \"todo: buy milk\";\n";
        let broken = "fn a( { load(); }\n";
        for text in [long.as_str(), undone, broken] {
            memory.evaluate(text, code(&Language::Rust));
            assert_eq!(memory.known(text, &Language::Rust), None, "{text}");
        }
        for kind in [Kind::Prose, code(&Language::Sql), code(&Language::Other("yaml".into()))] {
            memory.evaluate("SELECT a FROM b;", kind);
        }
        assert!(memory.shapes.read().unwrap().is_empty());
    }

    #[test]
    fn a_memory_is_bounded() {
        let memory = Memory::default();
        let text = |count: usize| "fn orders() { load(); }\n".repeat(count);
        for count in 1..=3 * MOST_SHAPES {
            memory.evaluate(&text(count), code(&Language::Rust));
        }
        assert_eq!(memory.shapes.read().unwrap().len(), MOST_SHAPES);
        assert!(memory.known(&text(3 * MOST_SHAPES), &Language::Rust).is_some());
        assert!(memory.known(&text(1), &Language::Rust).is_none());
    }

    #[test]
    fn a_template_of_the_folder_that_is_read_anew_begins_without_grades() {
        let folder = tempfile::tempdir().unwrap();
        let (built_in, _) = Library::load(None);
        let source = &built_in.iter().next().unwrap().source;
        std::fs::write(folder.path().join("own.jinja"), &**source).unwrap();
        let (library, anew) = (Library::load(Some(folder.path())).0, Library::load(Some(folder.path())).0);
        let (one, other) = (library.iter().next().unwrap(), anew.iter().next().unwrap());
        assert!(one.path.is_some() && !Arc::ptr_eq(&one.grades, &other.grades));
    }

    #[test]
    fn every_word_that_is_looked_at_is_watched() {
        for word in [
            "fn",
            "defmodule",
            "instanceof",
            "nil",
            "unwrap",
            "map_err",
            "foreign_key_constraint",
            "brevity",
            "readonly",
        ] {
            assert!(WATCHED.whole.contains(word.as_bytes()), "{word}");
        }
        let parts: Vec<_> = WATCHED.parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        for part in ["err", "error", "test", "doc", "moduledoc", "nil", "protocol", "abstract", "private", "instanceof"]
        {
            assert!(parts.iter().any(|p| p == part), "{part} in {parts:?}");
        }
        // A search for what is no literal at the call would be overlooked.
        for source in SOURCES {
            for call in ["contains(", "starts_with(", "ends_with("] {
                for (at, _) in source.match_indices(call) {
                    let argument = &source[at + call.len()..];
                    let literal = argument.starts_with(['"', '\'', '[', '|', '&']);
                    assert!(literal, "{call}{}", argument.lines().next().unwrap());
                }
            }
        }
    }
}
