//! Goals that say once what is wanted several times ("for each of users and orders"), or name the whole before its parts.

use super::super::classify::types_of;
use super::super::words::{Form, Word, words};
use super::PARTS;
use super::clauses::{Clause, comes_with_service, length_in, listed, name_of};
use crate::domain::{Language, TaskType};

/// "a table and an endpoint for each of users, orders and products": what is wanted, and of which things.
pub(super) fn over_things(text: &str) -> Option<(String, Vec<String>)> {
    let words = words(text);
    for at in 0..words.len() {
        if words[at].lower != "for" {
            continue;
        }
        let after = |n: usize| words.get(at + n).map(|w| w.lower.as_str());
        let each = match (after(1), after(2)) {
            (Some("each" | "every" | "all"), Some("of")) => 3,
            (Some("each" | "every" | "both"), _) => 2,
            _ if at > 0 && is_several(&words[at - 1]) => 1,
            _ => continue,
        };
        let Some((things, end)) = list(&words, at + each) else { continue };
        // "endpoints for memberships (gin)" are of one thing.
        if words[at..end].iter().any(|w| w.before.contains('(')) {
            continue;
        }
        let before = text[..words[at].at].trim_end();
        // "endpoints for users and orders" are one endpoint each.
        let before = match words[..at].last().filter(|_| each == 1) {
            Some(kind) => format!("{}{}", &text[..kind.at], pluralizer::pluralize(&kind.text, 1, false)),
            None => before.to_owned(),
        };
        let rest = words.get(end).map_or("", |w| &text[w.at..]);
        let wanted = format!("{before} {rest}");
        return Some((wanted.trim_matches([' ', ',', ':', '.']).to_owned(), things));
    }
    None
}

/// A kind of thing that is made, in the plural: "tables", but not "tests".
fn is_several(word: &Word) -> bool {
    let makes = |t: &TaskType| {
        matches!(t, TaskType::Database | TaskType::ApiEndpoint | TaskType::NatsConsumer | TaskType::WebComponent)
    };
    word.form == Form::Plain
        && word.lower != "nats"
        && word.lower.ends_with('s')
        && pluralizer::pluralize(&word.lower, 1, false) != word.lower
        && types_of(word).iter().any(makes)
}

/// "users, orders and products" from `at`: two to five phrases, and where they end.
fn list(words: &[Word], at: usize) -> Option<(Vec<String>, usize)> {
    let mut things: Vec<String> = vec![];
    let mut phrase: Vec<&str> = vec![];
    let mut end = at;
    let mut joined = false;
    while let Some(word) = words.get(end) {
        if end > at && word.before.contains(':') {
            break;
        }
        let separates = word.lower == "and" || (word.after_break && end > at);
        if separates && !phrase.is_empty() {
            things.push(phrase.join(" "));
            phrase.clear();
            joined = word.lower == "and";
        }
        if word.lower == "and" {
            end += 1;
            continue;
        }
        // What comes after a break and is not a thing of the list ends it.
        if word.form != Form::Plain || (word.is_boundary() && !(phrase.is_empty() && word.lower == "the")) {
            break;
        }
        if joined && word.after_break {
            break;
        }
        if word.lower != "the" {
            phrase.push(&word.text);
        }
        end += 1;
    }
    if !phrase.is_empty() {
        things.push(phrase.join(" "));
    }
    let short = things.iter().all(|t| t.split(' ').count() <= 3);
    // "for comments, Express" says what it is made with.
    let made_with = !joined && words[at..end].iter().any(|w| !types_of(w).is_empty());
    (PARTS.contains(&things.len()) && short && !made_with).then_some((things, end))
}

/// "an orders service: a table, a REST endpoint and tests", "a user service with …": the name of the whole, and its
/// parts. The whole is no part of its own.
pub(super) fn service(text: &str) -> Option<(Option<String>, Vec<Clause>)> {
    const WHOLES: [&str; 9] =
        ["service", "microservice", "app", "application", "system", "backend", "project", "platform", "feature"];
    let words = words(text);
    let at = words.iter().take(8).position(|w| WHOLES.contains(&w.lower.as_str()))?;
    let next = words.get(at + 1)?;
    let between = &text[words[at].at + length_in(text, &words[at])..next.at];
    let first = match next.lower.as_str() {
        "with" | "including" => at + 2,
        "consisting" | "made" => at + 3,
        _ if between.contains(':') => at + 1,
        _ => return None,
    };
    // "a search service: config, http server, graceful shutdown" lists what every service has.
    let has: Vec<&Word> = words[first..].iter().filter(|w| !w.is_filler()).collect();
    if comes_with_service(&has) {
        return None;
    }
    let parts = listed(&text[words.get(first)?.at..]);
    let makers = parts.iter().filter(|c| !c.extra).count();
    let name = name_of(&words[..=at]).filter(|name| !name.is_empty());
    (parts.len() >= 2 && makers >= 2).then_some((name, parts))
}

/// "trucks: a table, CRUD endpoints and tests", "build a fleet manager: …": what all of it is about stands before it.
pub(super) fn headed(text: &str) -> Option<(Option<String>, Vec<Clause>)> {
    let words = words(text);
    let first = words.iter().take(8).position(|w| w.before.contains(':'))?;
    let from = words[..first].iter().position(|w| !w.is_filler())?;
    let names = |w: &Word| {
        w.form == Form::Plain && !w.is_boundary() && types_of(w).is_empty() && Language::named(&w.lower).is_none()
    };
    let name = text[words[from].at..words[first - 1].at + length_in(text, &words[first - 1])].trim();
    let parts = listed(&text[words[first].at..]);
    let is_name = first - from <= 3 && words[from..first].iter().all(names);
    (is_name && parts.len() >= 2).then(|| (Some(name.to_owned()), parts))
}
