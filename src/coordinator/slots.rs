//! What a task says, put into the places that a template has for it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

use super::classify::types_of;
use super::fields::{self, Detail, Field};
use super::naming;
use super::noun::Noun;
use super::words::{Form, Word, names_language};
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
    Version,
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
                ("options", toml::Value::Array(items)) => {
                    let texts: Option<Vec<String>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
                    Value::Texts(texts.ok_or_else(|| wrong("a list of texts"))?)
                }
                ("subject" | "queue" | "path" | "version", toml::Value::String(text)) => Value::Text(text.clone()),
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

    pub(super) fn set_default(&mut self, key: &str, value: Value) {
        self.0.entry(key.to_owned()).or_insert(value);
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

    /// Whether no task names the path: it is absent, or what follows from the name.
    pub(super) fn is_derived_path(&self, name: &Noun) -> bool {
        self.0.get("path").is_none_or(|path| *path == derived_path(name))
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
                Some(Value::Text(match slot {
                    Slot::Subject => name.dotted().to_owned(),
                    Slot::Queue => format!("{}-workers", name.kebab()),
                    Slot::Path => return Some(derived_path(name)),
                    _ => return None,
                }))
            });
            self.set(&slot.to_string(), derived.ok_or(*slot)?);
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
            Self::Version => "version",
        })
    }
}

/// The path of what has this name, where no task names one.
pub(super) fn derived_path(name: &Noun) -> Value {
    Value::Text(format!("/{}", name.many_kebab()))
}

/// What words are to a template.
pub(super) struct Roles<'a> {
    /// Says what is wanted, and so never what it is called…
    pub(super) triggers: &'a [bool],
    /// …but where the same was said before.
    pub(super) spare: &'a [bool],
    /// For whom it is: no name.
    pub(super) audience: &'a [bool],
}

/// Fills the given slots from the task. On entry `taken[i]` is true for the words that the template or the language
/// accounts for; it becomes true for each word that a slot took.
pub(super) fn fill(
    words: &[Word],
    slots: &[Slot],
    details: &[Detail],
    language: &Language,
    taken: &mut [bool],
    roles: &Roles<'_>,
) -> Filled {
    let mut filled = Filled::default();
    let (triggers, spare) = (roles.triggers, roles.spare);
    let says_more =
        |i: usize| !roles.audience[i] && (!triggers[i] || spare[i]) && Language::named(&words[i].lower).is_none();
    let mut honoured: Vec<bool> = (0..words.len()).map(|i| taken[i] && says_more(i)).collect();
    for slot in [Slot::Version, Slot::Port, Slot::Queue, Slot::Path, Slot::Subject, Slot::Fields, Slot::Name] {
        if !slots.contains(&slot) {
            continue;
        }
        let found = match slot {
            Slot::Version => version(words, language),
            Slot::Port => port(words),
            Slot::Queue => queue(words),
            Slot::Path => path(words),
            Slot::Subject => subject(words, taken),
            Slot::Fields => fields::find(words, details, taken).map(|(fields, span)| (Value::Fields(fields), span)),
            Slot::Name => naming::name(words, taken, &honoured, triggers).and_then(|span| noun(words, span)),
        };
        // "a consumer on sensors.readings" is about sensor readings.
        if slot == Slot::Name && found.is_none() {
            let named = match filled.0.get("subject") {
                Some(Value::Text(subject)) => name_of_subject(subject),
                _ => None,
            };
            named.into_iter().for_each(|noun| filled.set("name", Value::Noun(Box::new(noun))));
        }
        if let Some((value, span)) = found {
            honoured[span.clone()].fill(false);
            taken[span].fill(true);
            filled.set(&slot.to_string(), value);
        }
    }
    filled
}

pub(super) type Found = Option<(Value, Range<usize>)>;

/// "order placed" of "orders.placed", "order" of "orders.*".
fn name_of_subject(subject: &str) -> Option<Noun> {
    let tokens: Vec<&str> = subject.split('.').filter(|t| !matches!(*t, "*" | ">")).collect();
    let last = tokens.len().checked_sub(1)?;
    let one = |(i, token): (usize, &&str)| {
        if i == last { (*token).to_owned() } else { pluralizer::pluralize(token, 1, false) }
    };
    Noun::new(&tokens.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")).filter(|_| tokens.len() <= 3)
}

/// "node 22", "Python 3.12": the version of the language that the answer is in.
fn version(words: &[Word], language: &Language) -> Found {
    (1..words.len()).find_map(|at| {
        let version = version_in(&words[at]).filter(|_| names_language(&words[at - 1], language))?;
        Some((Value::Text(version.to_owned()), at..at + 1))
    })
}

/// "22", "3.12", "v5": up to three numbers, of which none is a port.
pub(super) fn version_in(word: &Word) -> Option<&str> {
    let version = word.text.strip_prefix(['v', 'V']).unwrap_or(&word.text);
    let small = |n: &str| (1..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
    let known = matches!(word.form, Form::Number | Form::Plain | Form::Dotted) && !word.after_break;
    (known && version.split('.').count() <= 3 && version.split('.').all(small)).then_some(version)
}

/// "port 8080", "port=8080", "listening at 8080", "on :8080", "on 8080".
fn port(words: &[Word]) -> Found {
    let verbs = [
        "listen",
        "listens",
        "listening",
        "run",
        "runs",
        "running",
        "serve",
        "serves",
        "serving",
        "bind",
        "expose",
        "exposes",
        "exposing",
        "exposed",
    ];
    words.iter().enumerate().find_map(|(at, word)| {
        let port: u16 = word.text.parse().ok().filter(|port| word.form == Form::Number && *port > 0)?;
        let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
        // The beginning of what says "port", where these words stand in front of it.
        let after = |from: usize, those: &[&str]| if from > 0 && is(from - 1, those) { from - 1 } else { from };
        // "port should be 9000"
        let spoken = (at.saturating_sub(3)..at).rev().find(|&i| !words[i].is_filler()).filter(|&i| is(i, &["port"]));
        let numbered = spoken.map_or(after(at, &["number"]), |i| i + 1);
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
            // "queue mailers" at the end of a phrase.
            None if !group && at > 0 && (words[at - 1].is_filler() || words[at].after_break) => {
                // "a queue subscriber" is a kind of thing.
                let named = |w: &&Word| safe(w) && !w.after_break && !w.is_boundary() && types_of(w).is_empty();
                let word = words.get(at + 1).filter(named)?;
                let ends = words.get(at + 2).is_none_or(|w| w.after_break || w.is_filler());
                ends.then(|| (Value::Text(word.text.clone()), at..at + 2))
            }
            None => {
                let before = at.checked_sub(1).map(|i| &words[i]).filter(|w| group && safe(w) && !w.is_boundary())?;
                Some((Value::Text(before.text.clone()), at - 1..at + 2))
            }
        }
    })
}

pub(super) fn path(words: &[Word]) -> Found {
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

/// The noun of a phrase, and the words that are understood with it.
fn noun(words: &[Word], (phrase, with): (Range<usize>, Range<usize>)) -> Found {
    let mut text: Vec<&str> = words[phrase].iter().map(|w| w.text.as_str()).collect();
    // "the orders table" is called orders.
    if text.len() > 1 && text.last().is_some_and(|w| w.eq_ignore_ascii_case("table")) {
        text.pop();
    }
    Noun::new(&text.join(" ")).map(|noun| (Value::Noun(Box::new(noun)), with))
}
