//! Why two near texts must not share an answer. Cosine hardly sees a "not", a number or a swapped order; these do.

use std::collections::HashMap;

use super::reading::{Kind, Reading, Role, Token};
use super::words::{OPPOSITES, TURNING_PREFIXES};
use crate::domain::Language;

/// What kind of difference forbids sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    Numbers,
    Identifiers,
    Paths,
    Quotes,
    Technologies,
    Negation,
    Opposites,
    Words,
    Order,
}

/// A guard's no.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    pub guard: Guard,
    /// For a person: `"user" against "order"`.
    pub detail: String,
}

type Check = fn(&Reading, &Reading) -> Option<String>;

/// Each guard, its check, and why it is there. The first that says no names the refusal, so the telling ones stand
/// before those that catch everything.
const TABLE: [(Guard, Check, &str); 9] = [
    (Guard::Numbers, |a, b| differ(a, b, Kind::Number), "31 days are not 36, 5 s not 5 min; 1,000 is 1000"),
    (Guard::Quotes, |a, b| differ(a, b, Kind::Quote), "what is quoted stands in the answer letter by letter"),
    (Guard::Paths, |a, b| differ(a, b, Kind::Path), "a route or a file is another one if one letter differs"),
    (Guard::Identifiers, |a, b| differ(a, b, Kind::Identifier), "a name in code is another one if its case differs"),
    (Guard::Technologies, technologies, "an answer for PostgreSQL is none for SQLite; order is another guard's matter"),
    (Guard::Negation, negation, "the same words with a \"not\" ask for the contrary (cosine 0.99)"),
    (Guard::Opposites, opposites, "first and last, encode and decode: near in meaning, contrary as answers"),
    (Guard::Words, words, "user events are no order events: what remains after fillers and synonyms must be the same"),
    (Guard::Order, order, "from A to B is not from B to A; whole phrases may move, words may not"),
];

impl Guard {
    pub const ALL: [Self; 9] = {
        let mut all = [Self::Numbers; 9];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].0;
            i += 1;
        }
        all
    };

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Identifiers => "identifiers",
            Self::Paths => "paths",
            Self::Quotes => "quotes",
            Self::Technologies => "technologies",
            Self::Negation => "negation",
            Self::Opposites => "opposites",
            Self::Words => "words",
            Self::Order => "order",
        }
    }

    /// Why this guard is there, in a sentence.
    pub fn reason(self) -> &'static str {
        TABLE.iter().find(|(guard, ..)| *guard == self).map_or("", |(.., reason)| reason)
    }
}

/// Whether the answer to `stored` may serve `asked`, by what the two say. `language` is the one that both are in:
/// naming it or not changes nothing. Symmetric. Linear in the texts' lengths.
pub fn compare(asked: &str, stored: &str, language: Option<&Language>) -> Result<(), Refusal> {
    check(&Reading::of(asked, language), &Reading::of(stored, language))
}

pub(super) fn check(asked: &Reading, stored: &Reading) -> Result<(), Refusal> {
    if asked.tokens.is_empty() || stored.tokens.is_empty() {
        return Err(Refusal { guard: Guard::Words, detail: "a text without words is like no other".into() });
    }
    for (guard, check, _) in TABLE {
        if let Some(detail) = check(asked, stored) {
            return Err(Refusal { guard, detail });
        }
    }
    Ok(())
}

/// What only one of the texts has, each as often as it has it more.
fn only<'a>(a: &'a Reading, b: &'a Reading, kind: Kind) -> (Vec<&'a Token>, Vec<&'a Token>) {
    let mut balance: HashMap<&str, i32> = HashMap::new();
    for token in a.of_kind(kind) {
        *balance.entry(&token.text).or_default() += 1;
    }
    for token in b.of_kind(kind) {
        *balance.entry(&token.text).or_default() -= 1;
    }
    let take = |reading: &'a Reading, sign: i32| {
        let mut left: HashMap<&str, i32> = balance.iter().map(|(text, n)| (*text, n * sign)).collect();
        let more = |token: &&Token| left.get_mut(token.text.as_str()).is_some_and(|n| std::mem::replace(n, *n - 1) > 0);
        reading.of_kind(kind).filter(more).collect::<Vec<_>>()
    };
    (take(a, 1), take(b, -1))
}

fn differ(a: &Reading, b: &Reading, kind: Kind) -> Option<String> {
    let (a, b) = only(a, b, kind);
    against(&a, &b)
}

/// As sets: naming a technology twice says nothing new.
fn technologies(a: &Reading, b: &Reading) -> Option<String> {
    let missing = |from: &Reading, token: &&Token| !from.of_kind(Kind::Technology).any(|t| t.text == token.text);
    let only_a: Vec<_> = a.of_kind(Kind::Technology).filter(|t| missing(b, t)).collect();
    let only_b: Vec<_> = b.of_kind(Kind::Technology).filter(|t| missing(a, t)).collect();
    against(&only_a, &only_b)
}

fn negation(a: &Reading, b: &Reading) -> Option<String> {
    if a.negated == b.negated {
        return None;
    }
    let say = |negated: &[String]| match negated {
        [] => "nothing".to_owned(),
        some => some.iter().map(|word| format!("\"{}\"", shown(word))).collect::<Vec<_>>().join(", "),
    };
    Some(format!("denied here: {}; denied there: {}", say(&a.negated), say(&b.negated)))
}

fn opposites(a: &Reading, b: &Reading) -> Option<String> {
    let (a, b) = only(a, b, Kind::Word);
    let opposed = |x: &str, y: &str| {
        let listed = OPPOSITES.iter().any(|(p, q)| (same(x, p) && same(y, q)) || (same(x, q) && same(y, p)));
        listed || turned(x, y) || turned(y, x)
    };
    let pairs = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
    pairs.into_iter().find(|(x, y)| opposed(&x.written, &y.written)).and_then(|(x, y)| against(&[x], &[y]))
}

/// The same word, one of them perhaps with an ending: "increments" and "increment".
fn same(written: &str, word: &str) -> bool {
    written == word
        || written.strip_prefix(word).is_some_and(|ending| matches!(ending, "s" | "d" | "es" | "ed" | "ing"))
}

/// "unsorted" and "sorted".
fn turned(long: &str, short: &str) -> bool {
    short.len() > 2 && TURNING_PREFIXES.iter().any(|prefix| long.strip_prefix(prefix).is_some_and(|rest| rest == short))
}

fn words(a: &Reading, b: &Reading) -> Option<String> {
    let (only_a, only_b) = only(a, b, Kind::Word);
    if let Some(difference) = against(&only_a, &only_b) {
        return Some(difference);
    }
    let asks = |reading: &Reading| reading.of_kind(Kind::Question).next().is_some();
    if asks(a) && asks(b) { differ(a, b, Kind::Question) } else { None }
}

fn order(a: &Reading, b: &Reading) -> Option<String> {
    let roles = |reading: &Reading, role: Role| -> Vec<String> {
        reading.tokens.iter().filter(|t| t.role == Some(role)).map(|t| t.text.clone()).collect()
    };
    let (sources, targets) = (roles(a, Role::Source), roles(a, Role::Target));
    let swapped = |token: &&Token| match token.role {
        Some(Role::Source) => targets.contains(&token.text) && !sources.contains(&token.text),
        Some(Role::Target) => sources.contains(&token.text) && !targets.contains(&token.text),
        None => false,
    };
    if let Some(token) = b.tokens.iter().find(swapped) {
        return Some(format!("\"{}\" is the source in one text and the target in the other", shown(&token.written)));
    }
    if texts(a) == texts(b) || phrases(a) == phrases(b) || a.compounded() == b.compounded() {
        return None;
    }
    let first = a.said().zip(b.said()).find(|(x, y)| x.text != y.text);
    Some(match first {
        Some((x, y)) => {
            format!("the same words in another order, from \"{}\" and \"{}\" on", shown(&x.written), shown(&y.written))
        }
        None => "the same words in another order".to_owned(),
    })
}

fn texts(reading: &Reading) -> Vec<&str> {
    reading.said().map(|t| t.text.as_str()).collect()
}

/// The phrases, in an order of their own: as wholes they may stand anywhere.
fn phrases(reading: &Reading) -> Vec<(bool, Vec<&str>)> {
    let mut phrases: Vec<(bool, Vec<&str>)> = vec![];
    for phrase in reading.phrases() {
        phrases.push((phrase[0].role == Some(Role::Source), phrase.into_iter().map(|t| t.text.as_str()).collect()));
    }
    phrases.sort();
    phrases
}

fn against(a: &[&Token], b: &[&Token]) -> Option<String> {
    let say = |tokens: &[&Token]| {
        tokens.iter().take(4).map(|t| format!("\"{}\"", shown(&t.written))).collect::<Vec<_>>().join(", ")
    };
    match (a, b) {
        ([], []) => None,
        (a, []) => Some(format!("{} only here", say(a))),
        ([], b) => Some(format!("{} only there", say(b))),
        (a, b) => Some(format!("{} against {}", say(a), say(b))),
    }
}

/// A hostile token may be a megabyte long.
fn shown(text: &str) -> String {
    if text.len() <= 60 { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(60)]) }
}
