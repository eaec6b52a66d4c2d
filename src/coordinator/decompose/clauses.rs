//! The parts that a text names: cut at its joints, each with what it is about.

use super::super::classify::{classify, types_of};
use super::super::words::{Form, LIMITERS, METHODS, MOST, Word, words};
use super::super::{fields, lexicon};
use crate::domain::TaskType;

/// A part that the text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// As it stands there, without what joins it to the rest and without "it" and "them".
    pub text: String,
    pub task_type: TaskType,
    /// It said "then": what stands before it comes first.
    pub after_previous: bool,
    /// Comes with the whole ("with tests and docs"), not beside it.
    pub extra: bool,
    /// What it says it is about ("for orders", "the orders table"); else it is about what the others are about.
    pub name: Option<String>,
}

/// More places than this where a part may begin, and the text is no list of parts.
const JOINTS: usize = 32;

/// The same text with fewer ways to say the same. Each right side is a word that joins parts, or nothing.
const PLAINER: [(&str, &str); 22] = [
    ("+", "and"),
    ("as well as", "and"),
    ("along with", "and"),
    ("together with", "and"),
    ("and also", "and"),
    ("but also", "and"),
    ("&", "and"),
    ("after that", "then"),
    ("afterwards", "then"),
    ("after which", "then"),
    ("followed by", "then"),
    ("and finally", "then"),
    ("finally", "then"),
    ("lastly", "then"),
    ("and then", "then"),
    ("and next", "then"),
    ("after creating", "create"),
    ("after building", "build"),
    ("after adding", "add"),
    ("after writing", "write"),
    ("once you have created", "create"),
    ("first", ""),
];

/// Says the same in words that [`clauses`] knows. What stands in quotes stays as it is.
pub(super) fn plainly(goal: &str) -> String {
    let mut quoted = false;
    let outside = |part: &str| PLAINER.iter().fold(part.to_owned(), |text, (said, plain)| replace(&text, said, plain));
    let parts = goal.split('"').map(|part| {
        let plain = if quoted { part.to_owned() } else { outside(part) };
        quoted = !quoted;
        plain
    });
    parts.collect::<Vec<_>>().join("\"")
}

/// Replaces a phrase where it stands by itself, however it is capitalised.
fn replace(text: &str, phrase: &str, by: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut plain = String::with_capacity(text.len());
    let mut from = 0;
    for (at, _) in lower.match_indices(phrase) {
        let end = at + phrase.len();
        let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        if at >= from && apart(text[..at].chars().next_back()) && apart(text[end..].chars().next()) {
            plain.push_str(&text[from..at]);
            plain.push_str(by);
            from = end;
        }
    }
    plain.push_str(&text[from..]);
    plain
}

/// The parts that a text names, in its order. Fewer than two: it is about one thing, or rules can't say.
pub(super) fn clauses(text: &str) -> Vec<Clause> {
    cut(text, false)
}

/// As [`clauses`], of a text that is known to be a list of parts: a bare word is one ("…, authentication and tests").
pub(super) fn listed(text: &str) -> Vec<Clause> {
    cut(text, true)
}

fn cut(text: &str, listed: bool) -> Vec<Clause> {
    let words = words(text);
    let aside = bracketed(&words);
    let joints: Vec<usize> = (1..words.len()).filter(|&at| !aside[at] && joint(&words, at).is_some()).collect();
    // "without tests" asks for less, not for a part: what is left out is not for rules to say.
    let limits = |at: usize| {
        let first = words[at..].iter().find(|w| !is_joint_word(w));
        first.is_some_and(|w| LIMITERS.contains(&w.lower.as_str()))
    };
    if words.len() > MOST || joints.len() > JOINTS || joints.iter().copied().any(limits) {
        return vec![];
    }
    let mut found: Vec<Clause> = vec![];
    // Where the last clause that stands begins, and what joined it.
    let mut begun = (0, "");
    let mut from = 0;
    let mut joined = "";
    for at in joints.into_iter().chain([words.len()]) {
        let next = if at == words.len() { "" } else { joint(&words, at).unwrap_or("") };
        let span = opening(&words, from, at)..at;
        if span.is_empty() {
            joined = if joined == "then" { joined } else { next };
            from = at;
            continue;
        }
        let here = Place { joined, listed, may_come_along: at == words.len() || !found.is_empty(), last: found.last() };
        let stands =
            read(text, &words[span], here).filter(|c| !found.last().is_some_and(|last| is_same_part(last, c, joined)));
        if let Some(clause) = stands {
            found.push(clause);
            begun = (from, joined);
        } else if let Some(last) = found.pop() {
            // It does not stand by itself: it belongs to what was said before.
            let here = Place { joined: begun.1, listed, may_come_along: true, last: found.last() };
            let whole = read(text, &words[opening(&words, begun.0, at)..at], here);
            found.push(whole.map_or(last.clone(), |whole| Clause { task_type: last.task_type, ..whole }));
        } else {
            // Nor is there anything before it: it begins what follows ("unit and integration tests").
            continue;
        }
        joined = next;
        from = at;
    }
    found
}

/// What stands in brackets is said of what stands before them: "a service (tokio, tracing, config from env)".
fn bracketed(words: &[Word]) -> Vec<bool> {
    let mut open = false;
    let inside = words.iter().map(|word| {
        for mark in word.before.chars() {
            open = match mark {
                '(' => true,
                ')' => false,
                _ => open,
            };
        }
        open
    });
    inside.collect()
}

/// What one thing does with what it got: "… and write it to the log".
const KEEPS: [&str; 10] = ["write", "print", "log", "save", "store", "put", "handle", "process", "keep", "show"];

/// Where a new clause may begin.
fn joint(words: &[Word], at: usize) -> Option<&'static str> {
    match words[at].lower.as_str() {
        // "GET and POST endpoints"
        "and" | "plus" if is_method(words, at - 1) && is_method(words, at + 1) => None,
        "and" | "plus" => Some("and"),
        "then" => Some("then"),
        "with" | "including" => Some("with"),
        _ if is_numeral(words, at) => Some("break"),
        _ if is_numeral(words, at - 1) => None,
        _ if words[at].after_break => Some("break"),
        _ => None,
    }
}

fn is_method(words: &[Word], at: usize) -> bool {
    words.get(at).is_some_and(|w| METHODS.contains(&w.text.to_ascii_uppercase().as_str()))
}

/// What a service has, or is made with: no part of its own where a service was asked for.
const OF_A_SERVICE: [&str; 80] = [
    "config",
    "configuration",
    "settings",
    "env",
    "environment",
    "variables",
    "vars",
    "health",
    "healthcheck",
    "healthz",
    "check",
    "checks",
    "readiness",
    "liveness",
    "ready",
    "readyz",
    "live",
    "probe",
    "probes",
    "endpoint",
    "endpoints",
    "route",
    "routes",
    "router",
    "http",
    "https",
    "rest",
    "api",
    "json",
    "server",
    "listener",
    "nats",
    "jetstream",
    "connection",
    "client",
    "transport",
    "broker",
    "logging",
    "logger",
    "logs",
    "log",
    "structured",
    "tracing",
    "slog",
    "metrics",
    "graceful",
    "gracefully",
    "shutdown",
    "stop",
    "signal",
    "signals",
    "handling",
    "error",
    "errors",
    "supervisor",
    "supervision",
    "tree",
    "main",
    "main.go",
    "main.py",
    "port",
    "main.rs",
    "status",
    "axum",
    "actix",
    "tokio",
    "fastapi",
    "flask",
    "express",
    "fastify",
    "hono",
    "phoenix",
    "plug",
    "bandit",
    "gin",
    "chi",
    "echo",
    "pino",
    "winston",
    "on",
];

/// "a billing service with health check, config and graceful shutdown".
pub(super) fn comes_with_service(content: &[&Word]) -> bool {
    !content.is_empty()
        && content
            .iter()
            .all(|w| OF_A_SERVICE.contains(&w.lower.as_str()) || matches!(w.form, Form::Number | Form::Path))
}

/// The "2" of "1) a table 2) an endpoint".
fn is_numeral(words: &[Word], at: usize) -> bool {
    let word = &words[at];
    word.form == Form::Number
        && word.text.len() == 1
        && !word.before.contains('(')
        && words.get(at + 1).is_some_and(|next| next.before.starts_with(')'))
}

fn is_joint_word(word: &Word) -> bool {
    matches!(word.lower.as_str(), "and" | "plus" | "then" | "with" | "including" | "also" | "after" | "that")
}

/// Where the clause itself begins: after what joins it, its number in a list, and who wants it.
fn opening(words: &[Word], from: usize, to: usize) -> usize {
    const WISHES: [&str; 15] = [
        "i", "we", "you", "someone", "somebody", "please", "need", "needs", "want", "would", "like", "can", "could",
        "also", "next",
    ];
    let mut at = from;
    while at < to {
        let word = &words[at];
        let numbered = word.form == Form::Number && words.get(at + 1).is_some_and(|next| next.after_break);
        // "to create" after "I want", never "to" alone.
        let wished = at > from && word.lower == "to" && WISHES.contains(&words[at - 1].lower.as_str());
        if !(is_joint_word(word) || numbered || wished || WISHES.contains(&word.lower.as_str())) {
            break;
        }
        at += 1;
    }
    at
}

/// Where a clause stands in its text.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// What joins it to the clause before.
    joined: &'static str,
    /// In a list of parts.
    listed: bool,
    may_come_along: bool,
    last: Option<&'a Clause>,
}

/// A clause stands by itself where it begins like an order or a thing ("a consumer …", "write …") of a known type,
/// or names a kind that comes along ("tests").
fn read(text: &str, words: &[Word], here: Place<'_>) -> Option<Clause> {
    let Place { joined, listed, may_come_along, last } = here;
    let first = words.first()?;
    // "a table for users, one for orders": another of the same.
    let another = last.filter(|_| first.lower == "one" && words.get(1).is_some_and(|w| w.lower == "for"));
    let task_type = match another {
        Some(last) => last.task_type,
        None => classify(words).first().map(|c| c.task_type).filter(|t| *t != TaskType::General)?,
    };
    let content: Vec<&Word> = words.iter().filter(|w| !w.is_filler()).collect();
    let name = name_of(words);
    let opens = first.is_filler()
        && !matches!(first.lower.as_str(), "for" | "of" | "in" | "on" | "to" | "by" | "from" | "as" | "at");
    let head = content.first().is_some_and(|w| !types_of(w).is_empty());
    // "a shop: orders table, products table"
    let ends_in_kind = content.len() <= 3 && content.last().is_some_and(|w| !types_of(w).is_empty());
    // "a Makefile with build, test and lint", "a pyproject.toml with ruff and pytest" speak of tests that exist.
    let mentions = task_type == TaskType::Testing
        && last.is_some_and(|l| {
            let builds =
                |t: TaskType| matches!(t, TaskType::Devops | TaskType::Configuration | TaskType::Documentation);
            (builds(l.task_type) || classify(&self::words(&l.text)).iter().any(|c| builds(c.task_type) && !c.aside))
                && (joined == "with"
                    || l.text.contains([':', '('])
                    || [" with ", " that ", " runs ", " run ", " running "].iter().any(|runs| l.text.contains(runs)))
        });
    // "a kubernetes deployment and service", "listening at 9000" make nothing of their own.
    let part_of_last = last.is_some_and(|l| {
        l.task_type == TaskType::Devops
            && task_type == TaskType::Microservice
            && ["kubernetes", "k8s"].iter().any(|k| l.text.to_lowercase().contains(k))
    });
    let ported = content.len() <= if last.is_some() { 5 } else { 3 }
        && words.windows(2).any(|w| w[0].lower == "port" && w[1].form == Form::Number);
    let listens = ported
        || matches!(first.lower.as_str(), "listening" | "listens" | "serving" | "running" | "exposed")
            && words.iter().take(5).any(|w| w.form == Form::Number);
    let of_service = last.is_some_and(|l| l.task_type == TaskType::Microservice) && comes_with_service(&content);
    // "and log errors" is what it does.
    let logs = last.is_some() && matches!(first.lower.as_str(), "log" | "logs");
    let alongside = may_come_along && comes_along(task_type) && !mentions && content.len() <= 4 && !joined.is_empty();
    // "a consumer for order and table events" has no table; "a REST API and database for orders" has a database.
    // "a table for orders and table for customers" are two. "JWT auth middleware" needs no name.
    const WHOLE: [&str; 9] = [
        "middleware",
        "auth",
        "authentication",
        "authorization",
        "cache",
        "migration",
        "config",
        "configuration",
        "benchmark",
    ];
    let is_whole = content.len() > 1 && content.last().is_some_and(|w| WHOLE.contains(&w.lower.as_str()));
    // "a client with timeout and retries", "compose with postgres and nats": what it comes with.
    let attribute = joined == "and"
        && last.is_some_and(|l| l.text.contains(" with ") && (name.is_none() || l.task_type == TaskType::Devops));
    let beside = head
        && !attribute
        && last.is_some_and(|l| match l.task_type == task_type {
            true => {
                let before = self::words(&l.text);
                let again = before.iter().any(|w| w.stem == first.stem);
                (again && l.name.is_some() && name.is_some() && l.name != name) || are_two_files(&before, words)
            }
            false => l.name.is_none() || name.is_some() || is_whole,
        });
    let stands = alongside
        || (joined.is_empty() && !content.is_empty())
        || (opens && joined != "with")
        || (head && joined == "break" && content.len() > 1)
        || (listed && matches!(joined, "break" | "and") && (head || ends_in_kind))
        || (beside
            && matches!(joined, "and" | "then")
            && (content.len() > 1 || last.is_some_and(|l| are_two_files(&self::words(&l.text), words))));
    // "tests for the orders endpoint and the orders consumer" are tests of two things.
    let object = joined == "and"
        && last.is_some_and(|l| !l.extra && comes_along(l.task_type) && l.name.is_some())
        && !comes_along(task_type)
        && matches!(first.lower.as_str(), "the" | "its" | "their");
    // "handlers for orders: list, show" name what one of them does; "NATS connection included" comes with it.
    let ways = last.is_some()
        && (content.iter().all(|w| lexicon::takes(&w.lower)) && !comes_along(task_type)
            || words.get(1).is_some_and(|w| is_pronoun(w) || w.lower == "each")
                && KEEPS.contains(&first.lower.as_str())
                && joined == "and"
            || first.lower == "so"
            || content.last().is_some_and(|w| matches!(w.lower.as_str(), "included" | "enabled")));
    // "index/show/create" are ways to use the same.
    let slashed = words.get(1).is_some_and(|w| w.before == "/" && lexicon::takes(&w.lower));
    // "index integer" is a column, not a part, and so is all of "user, order and table fields".
    let is_field = content.last().is_some_and(|w| {
        (content.len() == 2 && w.form == Form::Plain && fields::is_type(&w.lower))
            || (content.len() <= 4 && content.get(1).is_some_and(|w| fields::is_type(&w.lower)))
            || matches!(w.lower.as_str(), "fields" | "columns" | "attributes" | "properties")
    });
    if !stands
        || is_field
        || object
        || part_of_last
        || of_service
        || listens
        || slashed
        || logs
        || ways
        || (mentions && name.is_none())
    {
        return None;
    }
    let said = match another {
        Some(last) => format!("{} for {}", head_of(&last.text), name.as_deref().unwrap_or_default()),
        None => spoken(text, words),
    };
    let extra = comes_along(task_type) && !joined.is_empty();
    Some(Clause { text: said, task_type, after_previous: joined == "then", extra, name })
}

/// The kinds of part that come with a whole: their bare word is enough ("with tests and docs").
fn comes_along(task_type: TaskType) -> bool {
    matches!(task_type, TaskType::Testing | TaskType::Documentation | TaskType::Devops)
}

/// "a schema and migration for orders" is one part: of one type, and only one of the two has a name. Two things to
/// deploy with are two files.
fn is_same_part(last: &Clause, next: &Clause, joined: &str) -> bool {
    last.task_type == next.task_type
        && !are_two_files(&words(&last.text), &words(&next.text))
        && (last.task_type != TaskType::Devops || joined == "with" || are_one_image(&last.text, &next.text))
        && (last.name.is_none() || next.name.is_none() || last.name == next.name)
}

/// "a docker image: multi-stage Dockerfile": the same said twice.
fn are_one_image(one: &str, other: &str) -> bool {
    let builds =
        |text: &str| ["dockerfile", "docker image", "container"].iter().any(|w| text.to_lowercase().contains(w));
    builds(one) && builds(other)
}

/// "an ESLint and Prettier config": a file each.
fn are_two_files(one: &[Word], other: &[Word]) -> bool {
    const FILES: [&str; 12] = [
        "eslint",
        "prettier",
        "tsconfig",
        "gitignore",
        "editorconfig",
        "readme",
        "changelog",
        "contributing",
        "nginx",
        "systemd",
        "makefile",
        "dependabot",
    ];
    let of = |words: &[Word]| FILES.into_iter().find(|file| words.iter().any(|w| w.lower == *file));
    matches!((of(one), of(other)), (Some(a), Some(b)) if a != b)
}

/// "a table" of "a table for users".
fn head_of(text: &str) -> &str {
    text.split_once(" for ").map_or(text, |(head, _)| head)
}

const PRONOUNS: [&str; 7] = ["it", "them", "they", "both", "everything", "those", "these"];

fn is_pronoun(word: &Word) -> bool {
    PRONOUNS.contains(&word.lower.as_str())
}

/// Verbs by which one part only says that it stands on another.
const STANDS_ON: [&str; 8] = ["uses", "use", "calls", "call", "needs", "reads", "imports", "requires"];

/// What a clause is about: the phrase after "for", "of" or "about", what its relative clause is about ("that lists
/// products"), or what stands before its kind ("the orders table").
pub(in crate::coordinator) fn name_of(words: &[Word]) -> Option<String> {
    let phrase = |from: usize| {
        let skipped = |w: &&Word| w.is_filler() || lexicon::relates(&w.lower);
        let from = from + words.get(from..)?.iter().take_while(skipped).count();
        let named: Vec<&str> = words[from..]
            .iter()
            .enumerate()
            .take_while(|(i, w)| (*i == 0 || !w.after_break) && !w.is_boundary() && !is_pronoun(w))
            .map(|(_, w)| w.text.as_str())
            .collect();
        (!named.is_empty()).then(|| named.join(" "))
    };
    for (at, word) in words.iter().enumerate() {
        let found = match word.lower.as_str() {
            "for" | "of" if part_meant(words, at + 1).is_some() => None,
            "for" | "of" | "about" | "called" | "named" => phrase(at + 1),
            "that" | "which" if words.get(at + 2).is_some_and(|w| !w.is_boundary() && !is_pronoun(w)) => phrase(at + 2),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    // Before the first word of a kind: "the user orders table".
    let kind = words.iter().position(|w| w.form == Form::Plain && !types_of(w).is_empty())?;
    let from = words[..kind].iter().rposition(Word::is_boundary).map_or(0, |at| at + 1);
    let before: Vec<&str> = words[from..kind].iter().map(|w| w.text.as_str()).collect();
    let qualifies = |w: &&str| {
        matches!(
            w.to_lowercase().as_str(),
            "unit" | "integration" | "nats" | "rest" | "restful" | "json" | "background" | "dead"
        ) || lexicon::is_foreign(&w.to_lowercase())
            || crate::domain::Language::named(&w.to_lowercase()).is_some()
    };
    (!before.is_empty() && !before.iter().any(qualifies) && !orders(&words[from])).then(|| before.join(" "))
}

/// Where "the endpoint" names a part by nothing but its kind: the kind's first word. "the orders endpoint" does not.
fn part_meant(words: &[Word], at: usize) -> Option<usize> {
    words.get(at).filter(|w| matches!(w.lower.as_str(), "the" | "this" | "that" | "its" | "their"))?;
    let mut phrase =
        words[at + 1..].iter().enumerate().take_while(|(i, w)| !w.is_boundary() && (*i == 0 || !w.after_break));
    let is_kind = |w: &Word| w.form == Form::Plain && !types_of(w).is_empty();
    words.get(at + 1).is_some_and(is_kind).then_some(at + 1).filter(|_| phrase.all(|(_, w)| is_kind(w)))
}

/// "that lists them", "deploy it": who fills in the name puts it there.
fn is_object(words: &[Word], at: usize) -> bool {
    let relative = at >= 2 && matches!(words[at - 2].lower.as_str(), "that" | "which");
    is_pronoun(&words[at]) && (relative || (at == 1 && (orders(&words[0]) || !types_of(&words[0]).is_empty())))
}

/// The clause in words that can be read by themselves: what points to another part is left out, or named.
fn spoken(text: &str, words: &[Word]) -> String {
    let mut left_out = vec![false; words.len()];
    for at in 0..words.len() {
        if !is_pronoun(&words[at]) {
            continue;
        }
        let before = |n: usize| at.checked_sub(n).map(|i| words[i].lower.as_str());
        let stands_on = |w: Option<&str>| w.is_some_and(|w| STANDS_ON.contains(&w));
        let range = if matches!(before(2), Some("that" | "which")) && stands_on(before(1)) {
            at - 2..at + 1
        } else if is_object(words, at) {
            continue;
        } else if stands_on(words.get(at + 1).map(|w| w.lower.as_str())) {
            at..at + 2
        } else if matches!(before(1), Some("for" | "of" | "to" | "on" | "around" | "about" | "behind")) {
            at - 1..at + 1
        } else {
            at..at + 1
        };
        left_out[range].fill(true);
    }
    let mut said = String::new();
    let mut kept_before = None;
    for (i, word) in words.iter().enumerate().filter(|(i, _)| !left_out[*i]) {
        let end = word.at + length_in(text, word);
        match kept_before {
            Some((previous, ended)) if previous + 1 == i => said.push_str(&text[ended..end]),
            Some(_) => said.push_str(&format!(" {}", &text[word.at..end])),
            None => said.push_str(&text[word.at..end]),
        }
        kept_before = Some((i, end));
    }
    said
}

/// The clause's text with its own name or, where it has none, with `name`.
pub(super) fn named(clause: &Clause, name: Option<&str>) -> String {
    let text = clause.text.trim();
    let (None, Some(name)) = (&clause.name, name) else { return text.to_owned() };
    let words = words(text);
    // Who may call is not asked of one thing alone.
    let for_all = matches!(clause.task_type, TaskType::Security | TaskType::Configuration)
        && words.last().is_some_and(|w| {
            matches!(w.lower.as_str(), "middleware" | "auth" | "authentication" | "config" | "configuration")
        });
    if for_all {
        return text.to_owned();
    }
    let said = words.iter().map(|w| w.lower.as_str()).collect::<Vec<_>>().join(" ");
    let meant =
        |at: usize| matches!(words[at].lower.as_str(), "for" | "of").then(|| part_meant(&words, at + 1)).flatten();
    if let Some(kind) = (0..words.len()).find_map(meant) {
        let (before, kind) = text.split_at(words[kind].at);
        return format!("{before}{name} {kind}");
    }
    match (0..words.len()).find(|&at| is_object(&words, at)).map(|at| &words[at]) {
        Some(pronoun) => format!("{}{name}{}", &text[..pronoun.at], &text[pronoun.at + pronoun.text.len()..]),
        // A path that ends so, "/api/orders", is no name.
        None if format!(" {said}").ends_with(&format!(" {}", name.to_lowercase())) => text.to_owned(),
        None => format!("{text} for {name}"),
    }
}

/// Whether a clause begins with its verb.
pub(super) fn orders(word: &Word) -> bool {
    word.orders() || matches!(word.lower.as_str(), "define" | "document" | "deploy" | "test")
}

pub(super) fn length_in(text: &str, word: &Word) -> usize {
    let quotes = if word.form == Form::Quoted { 2 } else { 0 };
    (word.text.len() + quotes).min(text.len() - word.at)
}

/// A text about one thing as a clause, if it is of a known kind.
pub(super) fn one(text: &str) -> Option<Clause> {
    let words = words(text);
    let here = Place { joined: "", listed: false, may_come_along: false, last: None };
    read(text, &words[opening(&words, 0, words.len())..], here)
}
