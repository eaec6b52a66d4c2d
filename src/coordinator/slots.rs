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
    /// The second thing of a pair: "between students and *courses*". Only the task can fill it.
    Other,
    /// How many: "100 requests", "at most 20".
    Count,
    /// How long or how often, in seconds: "every five minutes".
    Every,
}

/// What stands in a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Noun(Box<Noun>),
    Text(String),
    Number(u16),
    Seconds(u32),
    Fields(Vec<Field>),
    Texts(Vec<String>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Noun(noun) => noun.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Seconds(seconds) => seconds.serialize(serializer),
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
                ("name" | "other", toml::Value::String(text)) => {
                    Value::Noun(Box::new(Noun::new(text).ok_or_else(|| wrong("a name"))?))
                }
                ("name" | "other", _) => return Err(wrong("a name in quotes")),
                ("port", toml::Value::Integer(port)) => {
                    Value::Number(u16::try_from(*port).map_err(|_| wrong("a port, 0 to 65535"))?)
                }
                ("count", toml::Value::Integer(count)) => {
                    Value::Number(u16::try_from(*count).map_err(|_| wrong("a number, 0 to 65535"))?)
                }
                ("every", toml::Value::Integer(seconds)) => {
                    Value::Seconds(u32::try_from(*seconds).map_err(|_| wrong("seconds"))?)
                }
                ("port" | "count" | "every", _) => return Err(wrong("an integer")),
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
            Self::Other => "other",
            Self::Count => "count",
            Self::Every => "every",
        })
    }
}

/// The path of what has this name, where no task names one.
pub(super) fn derived_path(name: &Noun) -> Value {
    Value::Text(format!("/{}", name.many_kebab()))
}

/// The order in which slots take their words: what is written like nothing else first, the name last.
const ORDER: [Slot; 10] = [
    Slot::Version,
    Slot::Port,
    Slot::Every,
    Slot::Count,
    Slot::Queue,
    Slot::Path,
    Slot::Subject,
    Slot::Fields,
    Slot::Other,
    Slot::Name,
];

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
    if slots.contains(&Slot::Other) {
        // "between students and courses" is sure; "courses with books" may be said of one thing.
        let pair = pair(words, taken);
        let referred = referred(words, taken).filter(|_| !pair.as_ref().is_some_and(|pair| pair.is_led));
        if let Some((other, span)) = referred {
            filled.set("other", Value::Noun(Box::new(other)));
            honoured[span.clone()].fill(false);
            taken[span].fill(true);
        } else if let Some(Pair { one, other, span, .. }) = pair {
            filled.set("name", Value::Noun(Box::new(one)));
            filled.set("other", Value::Noun(Box::new(other)));
            taken[span].fill(true);
        }
    }
    for slot in ORDER {
        if !slots.contains(&slot) || filled.has(slot) {
            continue;
        }
        let found = match slot {
            Slot::Other => None,
            Slot::Every => every(words),
            Slot::Count => count(words),
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
        let spoken = (at.saturating_sub(3)..at)
            .rev()
            .find(|&i| !words[i].is_filler() && words[i].lower != "default")
            .filter(|&i| is(i, &["port"]));
        let numbered = spoken.map_or(after(at, &["number"]), |i| i + 1);
        let named = after(numbered, &["port"]);
        let place = after(at, &["on", "at", "localhost"]);
        let listens = after(place, &verbs);
        let colon = word.before.ends_with(':') && port >= 1_000 && (at == 0 || words[at - 1].is_filler() || place < at);
        let ends = words.get(at + 1).is_none_or(|w| w.after_break || w.is_filler());
        let from = if named < numbered {
            // "listening on port 8080"
            after(after(named, &["on", "at"]), &verbs)
        } else if colon || (listens < place) || (is(place, &["on"]) && place < at && port >= 1_024 && ends) {
            listens
        } else {
            return None;
        };
        Some((Value::Number(port), from..at + 1))
    })
}

/// "5", "five".
fn number(word: &Word) -> Option<u32> {
    const NUMERALS: [(&str, u32); 15] = [
        ("one", 1),
        ("two", 2),
        ("three", 3),
        ("four", 4),
        ("five", 5),
        ("six", 6),
        ("eight", 8),
        ("ten", 10),
        ("fifteen", 15),
        ("twenty", 20),
        ("thirty", 30),
        ("fifty", 50),
        ("sixty", 60),
        ("hundred", 100),
        ("thousand", 1_000),
    ];
    match word.form {
        Form::Number => word.text.parse().ok(),
        Form::Plain => NUMERALS.iter().find(|(numeral, _)| *numeral == word.lower).map(|(_, number)| *number),
        _ => None,
    }
}

/// "every 5 minutes", "per minute", "hourly", "a TTL of 60s": in seconds.
fn every(words: &[Word]) -> Found {
    let unit = |text: &str| {
        Some(match text {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" | "hourly" => 3_600,
            "day" | "days" | "daily" | "nightly" | "night" => 86_400,
            "week" | "weeks" | "weekly" => 604_800,
            _ => return None,
        })
    };
    let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
    (0..words.len()).find_map(|at| {
        let word = &words[at];
        let digits = word.lower.bytes().take_while(u8::is_ascii_digit).count();
        let (seconds, mut from) = if digits > 0 && word.form == Form::Plain {
            (word.lower[..digits].parse::<u32>().ok()?.checked_mul(unit(&word.lower[digits..])?)?, at)
        } else {
            let unit = unit(&word.lower).filter(|_| word.form == Form::Plain && word.lower.len() > 1)?;
            match at.checked_sub(1).and_then(|i| number(&words[i])).filter(|_| !word.after_break) {
                Some(number) => (number.checked_mul(unit)?, at - 1),
                None if word.lower.ends_with("ly") => (unit, at),
                None if at > 0 && is(at - 1, &["every", "each", "per", "an", "once"]) => (unit, at),
                None if at > 1 && is(at - 1, &["a"]) && is(at - 2, &["once"]) => (unit, at),
                None => return None,
            }
        };
        let leads = ["every", "each", "per", "all", "after", "once", "a", "an", "of", "for", "within", "in"];
        while from > 0 && is(from - 1, &leads) && !words[from].after_break {
            from -= 1;
        }
        (seconds > 0).then_some((Value::Seconds(seconds), from..at + 1))
    })
}

/// "100 requests", "at most 20", "batches of 50".
fn count(words: &[Word]) -> Found {
    const COUNTED: [&str; 44] = [
        "replica",
        "replicas",
        "pods",
        "instances",
        "request",
        "requests",
        "call",
        "calls",
        "hit",
        "hits",
        "attempt",
        "attempts",
        "retry",
        "retries",
        "try",
        "tries",
        "time",
        "times",
        "worker",
        "workers",
        "goroutine",
        "goroutines",
        "thread",
        "threads",
        "task",
        "tasks",
        "job",
        "jobs",
        "item",
        "items",
        "entry",
        "entries",
        "element",
        "elements",
        "message",
        "messages",
        "record",
        "records",
        "row",
        "rows",
        "connection",
        "connections",
        "event",
        "events",
    ];
    let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
    (0..words.len()).find_map(|at| {
        let count =
            number(&words[at]).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0 && words[at].lower != "one")?;
        let mut end = at + 1;
        // "20 concurrent jobs"
        let counted = (at + 1..at + 3).find(|&i| is(i, &COUNTED) && !words[i].after_break);
        end = counted.map_or(end, |i| i + 1);
        let mut from = at;
        while from > 0
            && !words[from].after_break
            && is(
                from - 1,
                &[
                    "max", "maximum", "most", "at", "to", "up", "limit", "limited", "of", "size", "batch", "batches",
                    "capacity", "chunks",
                ],
            )
        {
            from -= 1;
        }
        let led = (from..at).any(|i| {
            is(
                i,
                &["max", "maximum", "most", "up", "limit", "limited", "size", "batch", "batches", "capacity", "chunks"],
            )
        });
        (counted.is_some() || led).then_some((Value::Number(count), from..end))
    })
}

/// "references *patients*", "foreign key to *customers*", "belongs to a *user*".
fn referred(words: &[Word], taken: &[bool]) -> Option<(Noun, Range<usize>)> {
    let is = |at: usize, those: &[&str]| words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()));
    let free = |i: usize| {
        words.get(i).is_some_and(|w| {
            w.form == Form::Plain && !taken[i] && !w.is_boundary() && !super::lexicon::is_foreign(&w.lower)
        })
    };
    (0..words.len()).find_map(|at| {
        let refers = is(
            at,
            &[
                "references",
                "referencing",
                "references to",
                "reference",
                "refers",
                "belongs",
                "belonging",
                "key",
                "foreignkey",
                "pointing",
                "points",
                "linked",
            ],
        );
        let begin = (at + 1..words.len()).find(|&i| !is(i, &["to", "the", "a", "an", "our", "on", "into", "via"]))?;
        let told = begin > at + 1 || is(at, &["references", "referencing"]);
        let ends = (begin..words.len().min(begin + 2)).take_while(|&i| free(i) && !words[i].after_break).count();
        let phrase = words[begin..begin + ends].iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        (refers && told && ends > 0).then(|| Noun::new(&phrase)).flatten().map(|noun| (noun, at..begin + ends))
    })
}

/// Two things that belong together.
struct Pair {
    one: Noun,
    other: Noun,
    span: Range<usize>,
    /// A word says that there are two: "between".
    is_led: bool,
}

/// "between students and courses", "links orders to products", "students <-> courses".
fn pair(words: &[Word], taken: &[bool]) -> Option<Pair> {
    let free = |i: usize| {
        words.get(i).is_some_and(|w| {
            w.form == Form::Plain && !taken[i] && !w.is_boundary() && !super::lexicon::is_foreign(&w.lower)
        })
    };
    let article = |i: usize| {
        words.get(i).is_some_and(|w| matches!(w.lower.as_str(), "the" | "our" | "a" | "an" | "their" | "many"))
    };
    let phrase =
        |range: Range<usize>| Noun::new(&words[range].iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" "));
    (1..words.len()).find_map(|at| {
        let joins = matches!(words[at].lower.as_str(), "and" | "to" | "with" | "und" | "y") && !words[at].after_break;
        let marked = matches!(words[at].before.as_str(), "/" | "<->" | "-" | "->" | "+" | "&") && free(at);
        let begin = if joins {
            at + 1
        } else if marked {
            at
        } else {
            return None;
        };
        let begin = begin + (begin..words.len()).take_while(|&i| article(i)).count();
        let ends = (begin..words.len().min(begin + 2))
            .take_while(|&i| free(i) && (i == begin || !words[i].after_break))
            .count();
        let starts = (0..at).rev().take(2).take_while(|&i| free(i)).count();
        // "orders products" before the join are two words of one name only where no break stands between.
        let starts = if starts == 2 && words[at - 1].after_break { 1 } else { starts };
        if ends == 0 || starts == 0 {
            return None;
        }
        let (one, other) = (phrase(at - starts..at)?, phrase(begin..begin + ends)?);
        let led = (at - starts).checked_sub(1).filter(|&i| {
            matches!(
                words[i].lower.as_str(),
                "between" | "links" | "linking" | "link" | "connects" | "connecting" | "joins" | "joining"
            )
        });
        let span = led.unwrap_or(at - starts)..begin + ends;
        (!one.is_same_thing(&other)).then_some(Pair { one, other, span, is_led: led.is_some() })
    })
}

/// "queue group billing", "queue=billing", "in the billing queue group". A name may have dashes.
fn queue(words: &[Word]) -> Found {
    let safe = |w: &Word| w.text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    // "fleet-trackers" is one name.
    let hyphened = |at: usize| {
        let rest = words[at + 1..].iter().take_while(|w| w.before == "-" && safe(w)).map(|w| w.text.as_str());
        let parts: Vec<&str> = std::iter::once(words[at].text.as_str()).chain(rest).collect();
        (parts.join("-"), at + parts.len())
    };
    (0..words.len()).filter(|&at| words[at].lower == "queue").find_map(|at| {
        let group = words.get(at + 1).is_some_and(|w| w.lower == "group");
        let named = at + 1 + usize::from(group);
        let assigned = words.get(named).is_some_and(|w| w.before.contains(['=', ':']));
        let named = named + usize::from(!assigned && words.get(named).is_some_and(|w| w.is_filler()));
        let word = words.get(named).filter(|w| assigned || !w.after_break || w.form == Form::Quoted);
        match word.filter(|w| (group || assigned) && safe(w) && !w.is_filler()) {
            Some(_) => {
                let (text, end) = hyphened(named);
                Some((Value::Text(text), at..end))
            }
            // "queue mailers" at the end of a phrase.
            None if !group && at > 0 && (words[at - 1].is_filler() || words[at].after_break) => {
                // "a queue subscriber" is a kind of thing.
                let named = |w: &&Word| safe(w) && !w.after_break && !w.is_boundary() && types_of(w).is_empty();
                words.get(at + 1).filter(named)?;
                let (text, end) = hyphened(at + 1);
                let ends = words.get(end).is_none_or(|w| w.after_break || w.is_filler());
                ends.then_some((Value::Text(text), at..end))
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
