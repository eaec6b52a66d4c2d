//! What a task says, put into the places that a template has for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::classify::types_of;
use super::fields::{self, Detail, Field};
use super::lexicon;
use super::noun::Noun;
use super::words::{Form, Word};
use crate::domain::Language;

/// A place that a template can have. What each takes from a task is in `docs/templates.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    Name,
    Subject,
    Queue,
    Port,
    Path,
    Fields,
}

/// What stands in a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Noun(Box<Noun>),
    Text(String),
    Number(u16),
    Fields(Vec<Field>),
    Texts(Vec<String>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Noun(noun) => noun.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Fields(fields) => fields.serialize(serializer),
            Self::Texts(texts) => texts.serialize(serializer),
        }
    }
}

/// The variables of one rendering.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Filled(BTreeMap<String, Value>);

impl Filled {
    /// From a table as a template's `defaults` has it. The error says which value can't stand in its slot.
    pub fn from_table(table: &BTreeMap<String, toml::Value>) -> Result<Self, String> {
        let mut filled = Self::default();
        for (slot, value) in table {
            let wrong = |what: &str| format!("`{slot}` must be {what}");
            let value = match (slot.as_str(), value) {
                ("name", toml::Value::String(text)) => {
                    Value::Noun(Box::new(Noun::new(text).ok_or_else(|| wrong("a name"))?))
                }
                ("name", _) => return Err(wrong("a name in quotes")),
                ("port", toml::Value::Integer(port)) => {
                    Value::Number(u16::try_from(*port).map_err(|_| wrong("a port, 0 to 65535"))?)
                }
                ("port", _) => return Err(wrong("an integer")),
                ("fields", toml::Value::Array(items)) => {
                    let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
                    let listed = texts.ok_or_else(|| wrong("a list of texts: \"total decimal\""))?.join(", ");
                    Value::Fields(fields::parse(&listed).ok_or_else(|| wrong("\"name type\" each"))?)
                }
                ("subject" | "queue" | "path", toml::Value::String(text)) => Value::Text(text.clone()),
                _ => return Err(format!("no slot is called `{slot}`, or its value has the wrong type")),
            };
            filled.0.insert(slot.clone(), value);
        }
        Ok(filled)
    }

    /// What a template with these slots would take of it: a list with a field that asks for more than the template
    /// honours is left out, as such a task is declined.
    pub(super) fn as_taken(&self, slots: &[Slot], details: &[Detail]) -> Self {
        let takes = |key: &String, value: &Value| {
            let honoured = match value {
                Value::Fields(fields) => fields.iter().all(|field| field.is_within(details)),
                _ => true,
            };
            honoured && slots.iter().any(|slot| slot.to_string() == *key)
        };
        let taken = self.0.iter().filter(|(key, value)| takes(key, value));
        Self(taken.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    pub(super) fn name(&self) -> Option<&Noun> {
        match self.0.get("name") {
            Some(Value::Noun(noun)) => Some(noun),
            _ => None,
        }
    }

    /// Whether a slot holds what the template puts there by itself.
    pub(super) fn is_default(&self, slot: Slot, defaults: &Self) -> bool {
        let key = slot.to_string();
        self.0.get(&key) == defaults.0.get(&key)
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.0.contains_key(&slot.to_string())
    }

    /// Adds what is missing from the template's defaults, then what follows from the name.
    pub(super) fn complete(&mut self, defaults: &Self, slots: &[Slot]) -> Result<(), Slot> {
        for (key, value) in &defaults.0 {
            self.0.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for slot in slots {
            if self.has(*slot) {
                continue;
            }
            let derived = self.name().and_then(|name| {
                Some(match slot {
                    Slot::Subject => name.dotted().to_owned(),
                    Slot::Queue => format!("{}-workers", name.kebab()),
                    Slot::Path => format!("/{}", name.many_kebab()),
                    _ => return None,
                })
            });
            self.set(&slot.to_string(), Value::Text(derived.ok_or(*slot)?));
        }
        Ok(())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Subject => "subject",
            Self::Queue => "queue",
            Self::Port => "port",
            Self::Path => "path",
            Self::Fields => "fields",
        })
    }
}

/// What words are to a template.
pub(super) struct Roles<'a> {
    /// Says what is wanted, and so never what it is called…
    pub(super) triggers: &'a [bool],
    /// …but where the same was said before.
    pub(super) spare: &'a [bool],
}

/// Fills the given slots from the task. On entry `taken[i]` is true for the words that the template or the language
/// accounts for; it becomes true for each word that a slot took.
pub(super) fn fill(
    words: &[Word],
    slots: &[Slot],
    details: &[Detail],
    taken: &mut [bool],
    roles: &Roles<'_>,
) -> Filled {
    let mut filled = Filled::default();
    let (triggers, spare) = (roles.triggers, roles.spare);
    let says_more = |i: usize| (!triggers[i] || spare[i]) && Language::named(&words[i].lower).is_none();
    let mut honoured: Vec<bool> = (0..words.len()).map(|i| taken[i] && says_more(i)).collect();
    for slot in [Slot::Port, Slot::Queue, Slot::Path, Slot::Subject, Slot::Fields, Slot::Name] {
        if !slots.contains(&slot) {
            continue;
        }
        let found = match slot {
            Slot::Port => port(words),
            Slot::Queue => queue(words),
            Slot::Path => path(words),
            Slot::Subject => subject(words, taken),
            Slot::Fields => fields::find(words, details).map(|(fields, span)| (Value::Fields(fields), span)),
            Slot::Name => name(words, taken, &honoured, triggers),
        };
        if let Some((value, span)) = found {
            honoured[span.clone()].fill(false);
            taken[span].fill(true);
            filled.set(&slot.to_string(), value);
        }
    }
    filled
}

type Found = Option<(Value, std::ops::Range<usize>)>;

/// "port 8080", "port=8080", "listening at 8080", "on :8080", "on 8080".
fn port(words: &[Word]) -> Found {
    let verbs =
        ["listen", "listens", "listening", "run", "runs", "running", "serve", "serves", "serving", "bind", "exposed"];
    words.iter().enumerate().find_map(|(at, word)| {
        let port: u16 = word.text.parse().ok().filter(|port| word.form == Form::Number && *port > 0)?;
        let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
        // The beginning of what says "port", where these words stand in front of it.
        let after = |from: usize, those: &[&str]| if from > 0 && is(from - 1, those) { from - 1 } else { from };
        let numbered = after(at, &["number"]);
        let named = after(numbered, &["port"]);
        let place = after(at, &["on", "at", "localhost"]);
        let listens = after(place, &verbs);
        let colon = word.before.ends_with(':') && port >= 1_000 && (at == 0 || words[at - 1].is_filler() || place < at);
        let ends = words.get(at + 1).is_none_or(|w| w.after_break || w.is_filler());
        let from = if named < numbered {
            named
        } else if colon || (listens < place) || (is(place, &["on"]) && place < at && port >= 1_024 && ends) {
            listens
        } else {
            return None;
        };
        Some((Value::Number(port), from..at + 1))
    })
}

/// "queue group billing", "queue=billing", "in the billing queue group". A name may have dashes.
fn queue(words: &[Word]) -> Found {
    let safe = |w: &Word| w.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    (0..words.len()).filter(|&at| words[at].lower == "queue").find_map(|at| {
        let group = words.get(at + 1).is_some_and(|w| w.lower == "group");
        let named = at + 1 + usize::from(group);
        let assigned = words.get(named).is_some_and(|w| w.before.contains(['=', ':']));
        let named = named + usize::from(!assigned && words.get(named).is_some_and(|w| w.is_filler()));
        let word = words.get(named).filter(|w| assigned || !w.after_break || w.form == Form::Quoted);
        match word.filter(|w| (group || assigned) && safe(w) && !w.is_filler()) {
            Some(word) => {
                let mut text = word.text.clone();
                let rest = words[named + 1..].iter().take_while(|w| w.before == "-" && safe(w));
                let end = named + 1 + rest.map(|w| text.push_str(&format!("-{}", w.text))).count();
                Some((Value::Text(text), at..end))
            }
            None => {
                let before = at.checked_sub(1).map(|i| &words[i]).filter(|w| group && safe(w) && !w.is_boundary())?;
                Some((Value::Text(before.text.clone()), at - 1..at + 2))
            }
        }
    })
}

fn path(words: &[Word]) -> Found {
    let at = words.iter().position(|w| w.form == Form::Path)?;
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.');
    let trimmed = words[at].text.trim_end_matches('/');
    let named = at > 0 && matches!(words[at - 1].lower.as_str(), "path" | "route" | "url" | "prefix" | "under");
    let from = at - usize::from(named);
    trimmed.bytes().all(safe).then(|| (Value::Text(format!("/{}", trimmed.trim_start_matches('/'))), from..at + 1))
}

fn subject(words: &[Word], taken: &[bool]) -> Found {
    let dotted = |w: &Word| {
        matches!(w.form, Form::Dotted | Form::Quoted)
            && !w.text.trim_end_matches('>').contains('>')
            && w.text.split('.').all(|token| {
                token == "*"
                    || token == ">"
                    || (!token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
            })
    };
    // "subject=orders" has no dot.
    let assigned = |at: usize| {
        let said = at > 0 && matches!(words[at - 1].lower.as_str(), "subject" | "topic");
        said && words[at].form == Form::Plain && words[at].before.contains(['=', ':']) && !words[at].is_boundary()
    };
    let at = (0..words.len()).find(|&i| (!taken[i] && dotted(&words[i])) || assigned(i))?;
    let first = at
        .saturating_sub(usize::from(at > 0 && matches!(words[at - 1].lower.as_str(), "subject" | "topic" | "channel")));
    Some((Value::Text(words[at].text.clone()), first..at + 1))
}

/// Words before the thing itself that say no more than that it is worked on: "for *processing* user events".
const RELATIONS: [&str; 21] = [
    "processing",
    "process",
    "processes",
    "handling",
    "handle",
    "handles",
    "consuming",
    "consume",
    "consumes",
    "managing",
    "manage",
    "manages",
    "receiving",
    "receive",
    "receives",
    "keep",
    "keeps",
    "keeping",
    "storing",
    "store",
    "stores",
];

/// Verbs whose object is what a task is about: "to *list* orders", "*import* products".
const VERBS: [&str; 42] = [
    "list",
    "lists",
    "listing",
    "create",
    "creates",
    "update",
    "updates",
    "delete",
    "deletes",
    "show",
    "shows",
    "display",
    "displays",
    "render",
    "renders",
    "edit",
    "edits",
    "serve",
    "serves",
    "expose",
    "exposes",
    "track",
    "tracks",
    "cache",
    "caches",
    "validate",
    "validates",
    "test",
    "document",
    "benchmark",
    "profile",
    "parse",
    "parses",
    "import",
    "imports",
    "export",
    "exports",
    "load",
    "read",
    "reads",
    "stream",
    "memoize",
];

/// The longest phrase that a name may be. A longer one is a description, and the rest of it is not understood.
const NAME_WORDS: usize = 3;

/// The phrase that the task is about: the first one that follows a preposition, else one that stands beside what the
/// template is ("an order events consumer"). At least one word of it is not accounted for otherwise.
fn name(words: &[Word], taken: &[bool], honoured: &[bool], triggers: &[bool]) -> Found {
    let free = |i: usize| !taken[i] && !words[i].is_boundary() && !lexicon::is_foreign(&words[i].lower);
    // A word that the template honours may be part of a name that has a word of its own.
    let usable = |i: usize| free(i) || (honoured[i] && !words[i].is_boundary());
    let phrase = |from: usize, usable: &dyn Fn(usize) -> bool| {
        // "orders.created" is a name by itself.
        if words.get(from).is_some_and(|w| w.form == Form::Dotted) {
            return from..from + 1;
        }
        let mut end = from;
        // "orders returning CSV", "users sorted by age": what is said of a plural is no part of its name.
        let says =
            |i: usize| words[i - 1].lower.ends_with('s') && ["ing", "ed"].iter().any(|e| words[i].lower.ends_with(e));
        let plain = |i: usize| words[i].form != Form::Dotted && (i == from || !(words[i].after_break || says(i)));
        while end < words.len() && end - from < NAME_WORDS && usable(end) && plain(end) {
            end += 1;
        }
        from..end
    };
    let is_named = |span: &std::ops::Range<usize>| {
        span.clone().any(|i| (free(i) && words[i].form != Form::Number) || words[i].form == Form::Dotted)
    };
    let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
    let follow = |those: &'static [&'static str]| (0..words.len()).filter(move |&at| is(at, those));
    // "based on distroless", "runs on arm" name no thing that is made.
    let said = |at: usize| {
        at > 0 && !is(at - 1, &["run", "runs", "running"]) && (triggers[at - 1] || words[at - 1].is_filler())
    };
    for at in follow(&["for", "of", "about", "to", "that", "which", "called", "named", "on", "over"]) {
        if is(at, &["to", "on", "over"]) && !said(at) {
            continue;
        }
        let mut from = at + 1;
        while words
            .get(from)
            .is_some_and(|w| (w.is_filler() || RELATIONS.contains(&w.lower.as_str())) && !w.after_break)
        {
            from += 1;
        }
        let related = from;
        // "that keeps sessions", "to list and create vehicles": verbs come first, which the template honours or which say
        // nothing of their own.
        if is(at, &["that", "which", "to"]) {
            let heard = at > 0 && ["subscri", "listen", "react"].iter().any(|v| words[at - 1].lower.starts_with(v));
            let known = |i: usize| (honoured[i] && is(i, &VERBS)) || words[i].is_filler() || is(i, &RELATIONS);
            let begin = from;
            while from + 1 < words.len()
                && known(from)
                && !words[from + 1].after_break
                && !is_named(&phrase(from, &free))
            {
                from += 1;
            }
            let acted = begin < from || words[at + 1..from].iter().any(|w| RELATIONS.contains(&w.lower.as_str()));
            if !acted && !heard {
                continue;
            }
        }
        let span = phrase(from, &usable);
        let acts = is(span.start, &ACTIONS);
        if is_named(&span) && !(acts && is(at, &["to"])) {
            let (value, span) = noun(words, span)?;
            // What only relates the name to the rest is understood with it.
            let begin = if from == related { at + 1 } else { span.start };
            return Some((value, begin..span.end));
        }
    }
    // "an order events consumer", "table orders": beside the word that says what is wanted.
    let beside = |span: &std::ops::Range<usize>| {
        let kind = |i: usize| !types_of(&words[i]).is_empty();
        triggers.get(span.end).is_some_and(|t| *t)
            || (span.start > 0 && triggers[span.start - 1] && !span.clone().any(|i| free(i) && kind(i)))
    };
    // "a view refreshed at night": what is said of the thing is not its name.
    let says = |i: usize| i > 0 && triggers[i - 1] && words[i].lower.ends_with("ed");
    let starts = (0..words.len()).filter(|&i| free(i) && !is(i, &ACTIONS) && !says(i));
    if let Some(span) = starts.map(|from| phrase(from, &usable)).find(|span| is_named(span) && beside(span)) {
        return noun(words, span);
    }
    // "import products", "benchmark the parser": what the order is about.
    if let Some(first) = (0..words.len()).find(|&i| !words[i].is_filler()).filter(|&i| taken[i] && is(i, &VERBS)) {
        let from = (first + 1..words.len()).find(|&i| !is(i, &["a", "an", "the", "our", "my"]));
        if let Some(span) = from.map(|from| phrase(from, &usable)).filter(is_named) {
            return noun(words, span);
        }
    }
    // "a bug in orders"; then "for todos", "for the validator", though the template knows the word for something else.
    let inside = follow(&["in"]).find_map(|at| {
        let the = is(at + 1, &["the", "our"]);
        let span = phrase(at + 1 + usize::from(the), &usable);
        (is_named(&span) && (the || words[span.end - 1].lower.ends_with('s'))).then_some(span)
    });
    let known = || {
        follow(&["for"]).find_map(|at| {
            let the = is(at + 1, &["the", "our"]);
            let span = phrase(at + 1 + usize::from(the), &|i| honoured[i] && !words[i].is_boundary());
            let last = span.clone().next_back().filter(|_| span.len() <= 2)?;
            (the || words[last].lower.ends_with('s')).then_some(span)
        })
    };
    noun(words, inside.or_else(known)?)
}

/// What is done to code that exists, or asked of a person: never a name, and never what a template does.
pub(super) const ACTIONS: [&str; 67] = [
    "fix",
    "refactor",
    "optimize",
    "optimise",
    "delete",
    "remove",
    "update",
    "change",
    "debug",
    "rename",
    "move",
    "convert",
    "migrate",
    "port",
    "replace",
    "drop",
    "improve",
    "review",
    "extend",
    "rewrite",
    "merge",
    "upgrade",
    "repair",
    "modify",
    "split",
    "bump",
    "translate",
    "summarize",
    "summarise",
    "estimate",
    "draw",
    "plan",
    "suggest",
    "send",
    "sort",
    "reverse",
    "compute",
    "calculate",
    "find",
    "count",
    "solve",
    "shuffle",
    "flatten",
    "remember",
    "check",
    "determine",
    "return",
    "print",
    "encrypt",
    "decrypt",
    "blog",
    "essay",
    "restart",
    "start",
    "stop",
    "kill",
    "run",
    "execute",
    "show",
    "monitor",
    "watch",
    "notify",
    "email",
    "call",
    "open",
    "close",
    "poem",
];

fn noun(words: &[Word], span: std::ops::Range<usize>) -> Found {
    let mut text: Vec<&str> = words[span.clone()].iter().map(|w| w.text.as_str()).collect();
    // "the orders table" is called orders.
    if text.len() > 1 && text.last().is_some_and(|w| w.eq_ignore_ascii_case("table")) {
        text.pop();
    }
    Noun::new(&text.join(" ")).map(|noun| (Value::Noun(Box::new(noun)), span))
}
