//! What a task says, put into the places that a template has for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::fields::{self, Detail, Field};
use super::noun::Noun;
use super::words::{Form, Word};

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

/// Fills the given slots from the task. On entry `taken[i]` is true for the words that the template or the language
/// accounts for; it becomes true for each word that a slot took. `triggers[i]` is true where a trigger matched: such a
/// word says what is wanted, never what it is called.
pub(super) fn fill(
    words: &[Word],
    slots: &[Slot],
    details: &[Detail],
    taken: &mut [bool],
    triggers: &[bool],
) -> Filled {
    let mut filled = Filled::default();
    let honoured: Vec<bool> = taken.iter().zip(triggers).map(|(taken, trigger)| *taken && !trigger).collect();
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
            taken[span].fill(true);
            filled.set(&slot.to_string(), value);
        }
    }
    filled
}

type Found = Option<(Value, std::ops::Range<usize>)>;

fn port(words: &[Word]) -> Found {
    let at = words.iter().position(|w| w.lower == "port")?;
    let number = at + 1 + usize::from(words.get(at + 1)?.lower == "number");
    let port = words.get(number)?.text.parse().ok()?;
    Some((Value::Number(port), at..number + 1))
}

fn queue(words: &[Word]) -> Found {
    let at = words.windows(2).position(|w| w[0].lower == "queue" && w[1].lower == "group")?;
    let named = at + 2 + usize::from(words.get(at + 2)?.is_filler());
    let word = words.get(named).filter(|w| !w.after_break || w.form == Form::Quoted)?;
    let safe = word.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    (safe && !word.is_filler()).then(|| (Value::Text(word.text.clone()), at..named + 1))
}

fn path(words: &[Word]) -> Found {
    let at = words.iter().position(|w| w.form == Form::Path)?;
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.');
    let trimmed = words[at].text.trim_end_matches('/');
    trimmed.bytes().all(safe).then(|| (Value::Text(format!("/{}", trimmed.trim_start_matches('/'))), at..at + 1))
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
    let at = words.iter().zip(taken).position(|(w, taken)| !taken && dotted(w))?;
    let first = at
        .saturating_sub(usize::from(at > 0 && matches!(words[at - 1].lower.as_str(), "subject" | "topic" | "channel")));
    Some((Value::Text(words[at].text.clone()), first..at + 1))
}

/// Words before the thing itself that say no more than that it is worked on: "for *processing* user events".
const RELATIONS: [&str; 15] = [
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
];

/// The longest phrase that a name may be. A longer one is a description, and the rest of it is not understood.
const NAME_WORDS: usize = 3;

/// The phrase that the task is about: the first one that follows a preposition, else one that stands beside what the
/// template is ("an order events consumer"). At least one word of it is not accounted for otherwise.
fn name(words: &[Word], taken: &[bool], honoured: &[bool], triggers: &[bool]) -> Found {
    let free = |i: usize| !taken[i] && !words[i].is_boundary();
    // A word that the template honours, or that a subject took, may be part of a name that has a word of its own.
    let usable = |i: usize| free(i) || ((honoured[i] || words[i].form == Form::Dotted) && !words[i].is_boundary());
    let phrase = |from: usize, usable: &dyn Fn(usize) -> bool| {
        let mut end = from;
        while end < words.len() && end - from < NAME_WORDS && usable(end) && (end == from || !words[end].after_break) {
            end += 1;
        }
        from..end
    };
    let is_named = |span: &std::ops::Range<usize>| {
        span.clone().any(|i| (free(i) && words[i].form != Form::Number) || words[i].form == Form::Dotted)
    };
    let prepositions = words.iter().enumerate().filter(|(_, w)| {
        matches!(
            w.lower.as_str(),
            "for" | "of" | "about" | "to" | "that" | "which" | "from" | "called" | "named" | "on" | "over"
        )
    });
    for (at, preposition) in prepositions {
        let mut from = at + 1;
        let skipped = |w: &Word| w.is_filler() || RELATIONS.contains(&w.lower.as_str());
        while words.get(from).is_some_and(|w| skipped(w) && !w.after_break) {
            from += 1;
        }
        let related = from;
        // "that keeps sessions": a verb comes first. Whether it is honoured is for the template's words to say.
        let clause = matches!(preposition.lower.as_str(), "that" | "which") && related == at + 1;
        if clause && words.get(from + 1).is_some_and(|w| !w.is_boundary() && !w.after_break) {
            from += 1;
        }
        let span = phrase(from, &usable);
        let acts = words.get(span.start).is_some_and(|w| ACTIONS.contains(&w.lower.as_str()));
        if is_named(&span) && !(acts && preposition.lower == "to") {
            let (value, span) = noun(words, span)?;
            // What only relates the name to the rest is understood with it.
            let begin = if from == related { at + 1 } else { span.start };
            return Some((value, begin..span.end));
        }
    }
    // "an order events consumer", "table orders": beside the word that says what is wanted.
    let beside = |span: &std::ops::Range<usize>| {
        triggers.get(span.end).is_some_and(|t| *t) || (span.start > 0 && triggers[span.start - 1])
    };
    let starts = (0..words.len()).filter(|&i| free(i) && !ACTIONS.contains(&words[i].lower.as_str()));
    let span = starts.map(|from| phrase(from, &usable)).find(|span| is_named(span) && beside(span))?;
    noun(words, span)
}

/// What is done to code that exists: never a name, and never what a template does.
const ACTIONS: [&str; 24] = [
    "fix", "refactor", "optimize", "optimise", "delete", "remove", "update", "change", "debug", "rename", "move",
    "convert", "migrate", "port", "replace", "drop", "improve", "review", "extend", "rewrite", "merge", "upgrade",
    "repair", "modify",
];

fn noun(words: &[Word], span: std::ops::Range<usize>) -> Found {
    let mut text: Vec<&str> = words[span.clone()].iter().map(|w| w.text.as_str()).collect();
    // "the orders table" is called orders.
    if text.len() > 1 && text.last().is_some_and(|w| w.eq_ignore_ascii_case("table")) {
        text.pop();
    }
    Noun::new(&text.join(" ")).map(|noun| (Value::Noun(Box::new(noun)), span))
}
