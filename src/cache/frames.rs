//! What a sentence wants, by how it begins: "How do I…", "What is the best way to…" and "How to…" all want a way.
//!
//! A beginning that only says what is wanted is taken off, so that what remains is what it is wanted of.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What kind of answer a sentence asks for. An order has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// A way to do something. An order wants the same: "How do I write a loop?", "Write a loop".
    Way,
    Thing,
    Meaning,
    Difference,
    Reason,
    Time,
    Place,
    Person,
    Count,
    Amount,
    Duration,
    Frequency,
    Size,
    Height,
    Depth,
    Width,
    Weight,
    Distance,
    Age,
    Speed,
    Manner,
    Permission,
    Advice,
    /// Which of those named.
    Choice,
    /// Whether something is so.
    Truth,
    /// It does not say what: "Songs for a long run?"
    Unsaid,
}

impl Want {
    /// For a person: what is asked.
    pub(super) fn say(self) -> &'static str {
        match self {
            Self::Way => "how to do it",
            Self::Thing => "what or which",
            Self::Meaning => "what it means",
            Self::Difference => "what the difference is",
            Self::Reason => "why",
            Self::Time => "when",
            Self::Place => "where",
            Self::Person => "who",
            Self::Count => "how many",
            Self::Amount => "how much",
            Self::Duration => "how long",
            Self::Frequency => "how often",
            Self::Size => "how large",
            Self::Height => "how high",
            Self::Depth => "how deep",
            Self::Width => "how wide",
            Self::Weight => "how heavy",
            Self::Distance => "how far",
            Self::Age => "how old",
            Self::Speed => "how fast",
            Self::Manner => "how",
            Self::Permission => "whether one can",
            Self::Advice => "whether one should",
            Self::Choice => "which of them",
            Self::Truth => "whether it is so",
            Self::Unsaid => "something",
        }
    }
}

/// Sets of words that rows name in braces.
const SETS: &[(&str, &str)] = &[
    ("{do}", "do does did can could should would will might may must shall"),
    ("{is}", "is are was were"),
    ("{who}", "i we you u one someone somebody anyone anybody people"),
    ("{a}", "a an the some any your my"),
    ("{good}", "best good proper right correct possible ideal optimal better effective great different common"),
    ("{way}", "way ways method methods approach steps process procedure command technique techniques tips strategy"),
    ("{ask}", "what how why where when who which if whether"),
    ("{can}", "can could would will"),
    ("{you}", "you someone anyone somebody anybody"),
    ("{tell}", "tell explain show describe teach"),
    ("{most}", "easiest simplest fastest quickest cheapest safest healthiest"),
];

/// How a sentence begins, and what it then wants. Words between bars stand for each other, `?` marks what may be left
/// out, `>` what must follow and is not taken off. Of the rows that fit, the one that takes most words is
/// meant, and of those one that looks ahead.
const ROWS: &[(&str, Option<Want>)] = &[
    // Says only that something is asked; what it is comes next.
    ("please? {can} {you} please? {tell} to? me|us? >{ask}", None),
    ("please? {tell} to? me|us? >{ask}", None),
    ("i want|need|like to know >{ask}", None),
    ("i would like to know >{ask}", None),
    ("do|does {you} know >{ask}", None),
    ("what do you think {is} {a}?", Some(Want::Thing)),
    ("what do you think {is} {a}? meaning of", Some(Want::Meaning)),
    ("tell me about? {a}?", Some(Want::Thing)),
    ("name {a}", Some(Want::Thing)),
    ("please? {can} {you} please? {tell} to? me|us?", None),
    ("please? {can} {you} please? explain|describe to? me|us? {a}?", Some(Want::Thing)),
    ("please? {can} {you} please? recommend|suggest to? me|us? {a}?", Some(Want::Thing)),
    ("what do|would|can you recommend|suggest >{a}", Some(Want::Thing)),
    ("how {do} {who}", Some(Want::Way)),
    ("how {do} {who} best|go about?", Some(Want::Way)),
    ("how {is} {who} able to", Some(Want::Way)),
    ("how best? to best?", Some(Want::Way)),
    ("how i|we|you", Some(Want::Way)),
    ("how {who} {do}", Some(Want::Way)),
    ("what {way} {do} {who} take|follow|use to", Some(Want::Way)),
    ("what would|will|could|can be {a}? {good}? {good}? {way} to|of|for", Some(Want::Way)),
    ("{good}? {way} to|for", Some(Want::Way)),
    ("walk|guide|talk me|us through how? to?", Some(Want::Way)),
    ("show|give|tell me|us {a}? {good}? {way} to|of|for", Some(Want::Way)),
    ("what|which {is} {a}? {good}? {good}? {way} to|of|for|in order? to?", Some(Want::Way)),
    ("what|which {is} {a}? most? effective|efficient {way} to|of|for", Some(Want::Way)),
    ("what|which {is} {a}? {most} {way} to|of|for", Some(Want::Way)),
    ("what can|should|must be done to", Some(Want::Way)),
    ("is|are there {a}? {good}? {way} {who} can|could", Some(Want::Way)),
    ("what|which {is} {a}? {good}? {good}? {way} {who} can|could|should", Some(Want::Way)),
    ("what {do} {who} do to", Some(Want::Way)),
    ("what {do} {who} do in order to", Some(Want::Way)),
    ("what {do} {who} have|need to do to", Some(Want::Way)),
    ("what {do} {who} have|need to do in order to", Some(Want::Way)),
    ("what does it take to", Some(Want::Way)),
    ("is|are there {a}? {good}? {way} to|of|for", Some(Want::Way)),
    ("what exactly? {is} exactly? {a}?", Some(Want::Thing)),
    ("what {is} meant by", Some(Want::Meaning)),
    ("what do you mean by", Some(Want::Meaning)),
    ("what {is} {a}? exact|real|true? meaning|definition of {a}? word|term|phrase?", Some(Want::Meaning)),
    ("what does {a}? word|term|phrase?", Some(Want::Thing)),
    ("define {a}? word|term|phrase?", Some(Want::Meaning)),
    ("what {is} {a}? main|major|key? difference|differences between", Some(Want::Difference)),
    ("what {is} {a}? difference|differences between", Some(Want::Difference)),
    ("explain {a}? difference|differences between", Some(Want::Difference)),
    ("what {is} {a}? main|real? reason|reasons for|why|that|of|behind?", Some(Want::Reason)),
    ("what {is} {a}? main|real? cause|causes of|for", Some(Want::Reason)),
    ("what exactly? {do}? cause|causes|caused|makes", Some(Want::Reason)),
    ("how come", Some(Want::Reason)),
    ("for what reason", Some(Want::Reason)),
    ("why", Some(Want::Reason)),
    ("why {do}", Some(Want::Reason)),
    ("why {is}", Some(Want::Reason)),
    ("when {do}", Some(Want::Time)),
    ("when {is}", Some(Want::Time)),
    ("when should|shall|can {who}", Some(Want::Time)),
    ("when {is} {a}? {good}? time to|for", Some(Want::Time)),
    ("what|which {is} {a}? {good} time to|for", Some(Want::Time)),
    ("what|which {is} {a}? {good} time of {a}? year|day|week to|for", Some(Want::Time)),
    ("what|which year|date|day|time {do}", Some(Want::Time)),
    ("what|which year|date|day|time {is}", Some(Want::Time)),
    ("in|on|at what|which year|date|day|month|time|times {do}", Some(Want::Time)),
    ("in|on|at what|which year|date|day|month|time|times {is}", Some(Want::Time)),
    ("where {do}", Some(Want::Place)),
    ("where {is}", Some(Want::Place)),
    ("in|at what|which place|city|town|country|state {do}", Some(Want::Place)),
    ("in|at what|which place|city|town|country|state {is}", Some(Want::Place)),
    ("who", Some(Want::Person)),
    ("who {is} {a}?", Some(Want::Person)),
    ("what {is} {a}? name of {a}? >president|king|queen|author|writer|founder|inventor|leader|ceo", Some(Want::Person)),
    ("what|which person|author|writer|artist|painter|scientist|man|woman", Some(Want::Person)),
    ("how many", Some(Want::Count)),
    ("what {is} {a}? total? number of", Some(Want::Count)),
    ("how much", Some(Want::Amount)),
    ("how much money?", Some(Want::Amount)),
    ("how much {do} it cost to", Some(Want::Amount)),
    ("how expensive {is} it? to?", Some(Want::Amount)),
    ("what {is} {a}? price|cost|costs of|for", Some(Want::Amount)),
    ("how long", Some(Want::Duration)),
    ("how often", Some(Want::Frequency)),
    ("how big|large", Some(Want::Size)),
    ("what {is} {a}? size of", Some(Want::Size)),
    ("how tall|high", Some(Want::Height)),
    ("what {is} {a}? height of", Some(Want::Height)),
    ("how deep", Some(Want::Depth)),
    ("what {is} {a}? depth of", Some(Want::Depth)),
    ("how wide", Some(Want::Width)),
    ("what {is} {a}? width of", Some(Want::Width)),
    ("how heavy", Some(Want::Weight)),
    ("what {is} {a}? weight of", Some(Want::Weight)),
    ("how far away?", Some(Want::Distance)),
    ("what {is} {a}? distance between|from|to", Some(Want::Distance)),
    ("how old", Some(Want::Age)),
    ("what {is} {a}? age of", Some(Want::Age)),
    ("how fast|quickly", Some(Want::Speed)),
    ("what {is} {a}? speed of", Some(Want::Speed)),
    ("what {is} it like to|for|when|in?", Some(Want::Manner)),
    ("how {do} it feel to|for|when?", Some(Want::Manner)),
    ("what {do} it feel like to|for|when?", Some(Want::Manner)),
    ("how", Some(Want::Manner)),
    ("how {do}", Some(Want::Manner)),
    ("how {is}", Some(Want::Manner)),
    ("what|which", Some(Want::Thing)),
    ("what|which {do}", Some(Want::Thing)),
    ("which {is} {a}?", Some(Want::Thing)),
    ("which|what one|ones {is}?", Some(Want::Thing)),
    // An order in the form of a question.
    ("can|could|would|will you please?", None),
    ("can|could|may i|we >get|have", None),
    ("can|could|may i|we|one|people|someone|anyone", Some(Want::Permission)),
    ("{is} it possible|safe|ok|okay|allowed|alright|fine for|to?", Some(Want::Permission)),
    ("am i allowed|able to", Some(Want::Permission)),
    ("can", Some(Want::Permission)),
    ("should|shall", Some(Want::Advice)),
    ("should {who}", Some(Want::Advice)),
    ("would|is it be? better|best|wise to", Some(Want::Advice)),
    ("is|are|was|were|am|does|did|has|had|have|will|would", Some(Want::Truth)),
];

struct Row {
    words: Vec<Slot>,
    /// Must follow what the row takes.
    ahead: Option<Vec<&'static str>>,
    want: Option<Want>,
}

struct Slot {
    any: Vec<&'static str>,
    optional: bool,
}

/// The rows by their first words.
static TABLE: LazyLock<HashMap<&'static str, Vec<Row>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<Row>> = HashMap::new();
    for (pattern, want) in ROWS {
        let slots: Vec<&'static str> = pattern.split(' ').collect();
        let lead = slots.iter().take_while(|slot| slot.ends_with('?')).count();
        // A row may begin with any of its optional words or with the first that must be there.
        for start in 0..=lead {
            let words = || slots[start..].iter().filter(|slot| !slot.starts_with('>'));
            let ahead = slots.iter().find_map(|slot| slot.strip_prefix('>')).map(alternatives);
            for first in words().take(1).flat_map(|slot| alternatives(slot)) {
                let row = Row {
                    words: words().map(|s| Slot { any: alternatives(s), optional: s.ends_with('?') }).collect(),
                    ahead: ahead.clone(),
                    want: *want,
                };
                table.entry(first).or_default().push(row);
            }
        }
    }
    table
});

fn alternatives(slot: &'static str) -> Vec<&'static str> {
    let one = |word: &'static str| match SETS.iter().find(|(name, _)| *name == word) {
        Some((_, words)) => words.split(' ').collect(),
        None => vec![word],
    };
    slot.trim_end_matches('?').split('|').flat_map(one).collect()
}

/// What the sentence that begins here wants, if its beginning says so, and what comes after that beginning. Nothing is
/// taken off where nothing would remain.
pub(super) fn beginning(text: &str) -> Option<Beginning<'_>> {
    let words = Words::of(text);
    let rows = TABLE.get(words.0.first()?.0.as_ref())?;
    let (taken, row) = rows
        .iter()
        .filter_map(|row| Some((row.taken(&words.0)?, row)))
        .max_by_key(|(n, row)| (*n, row.ahead.is_some()))?;
    let end = words.0[taken - 1].1;
    let rest = text[end..].trim_start();
    rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '\'' | '`' | '(' | '/' | '$' | '.' | '“'))
        .then(|| Beginning { want: row.want, says: words.0[..taken].iter().find_map(|(word, _)| telling(word)), rest })
}

/// How a sentence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning<'a> {
    /// `None` where it only says that something is asked.
    pub(super) want: Option<Want>,
    /// A word of it that says something of what is wanted: "the cheapest way to".
    pub(super) says: Option<&'static str>,
    pub(super) rest: &'a str,
}

fn telling(word: &str) -> Option<&'static str> {
    ["fastest", "quickest", "cheapest", "safest", "healthiest"].into_iter().find(|telling| *telling == word)
}

impl Row {
    /// How many of `words` it takes; `None` where it does not fit.
    fn taken(&self, words: &[(std::borrow::Cow<'_, str>, usize)]) -> Option<usize> {
        let mut at = 0;
        for slot in &self.words {
            match words.get(at) {
                Some((word, _)) if slot.any.contains(&word.as_ref()) => at += 1,
                _ if slot.optional => {}
                _ => return None,
            }
        }
        let follows = |any: &Vec<&str>| words.get(at).is_some_and(|(word, _)| any.contains(&word.as_ref()));
        (at > 0 && self.ahead.as_ref().is_none_or(follows)).then_some(at)
    }
}

/// The first words of a sentence in lower case, each with where it ends in the text. "What's" is two words.
struct Words<'a>(Vec<(std::borrow::Cow<'a, str>, usize)>);

/// No row is longer.
const LOOKED_AT: usize = 12;

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = vec![];
        let mut at = 0;
        for piece in text.split(char::is_whitespace) {
            let end = at + piece.len();
            at = end + text[end..].chars().next().map_or(0, char::len_utf8);
            if piece.is_empty() {
                continue;
            }
            let bare = piece.trim_end_matches([',', '?', '!', '.', ':', ';']);
            let lower = if bare.chars().any(char::is_uppercase) { bare.to_lowercase().into() } else { bare.into() };
            let lower: std::borrow::Cow<'_, str> = lower;
            let short = lower.strip_suffix("'s").or_else(|| lower.strip_suffix("’s"));
            match short.filter(|s| matches!(*s, "what" | "who" | "where" | "how" | "when" | "why" | "which")) {
                Some(short) => {
                    words.push((short.to_owned().into(), end));
                    words.push(("is".into(), end));
                }
                None => words.push((lower, end)),
            }
            // Nothing is taken beyond the end of a clause.
            if bare.len() != piece.len() || words.len() >= LOOKED_AT {
                break;
            }
        }
        Self(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wants(want: Option<Want>, rest: &str, text: &str) {
        assert_eq!(beginning(text).map(|b| (b.want, b.rest)), Some((want, rest)), "{text}");
    }

    #[test]
    fn the_beginning_says_what_is_wanted_and_the_longest_fits() {
        for text in [
            "How do I lose weight",
            "What is the best way to lose weight",
            "How to lose weight",
            "What's a good way to lose weight",
            "Is there a way to lose weight",
            "what can I do to lose weight",
        ] {
            wants(Some(Want::Way), "lose weight", text);
        }
        wants(Some(Want::Meaning), "life?", "What is the meaning of life?");
        wants(Some(Want::Thing), "machine learning?", "What exactly is machine learning?");
        wants(Some(Want::Reason), "earthquakes?", "What is the cause of earthquakes?");
        wants(Some(Want::Count), "planets are there?", "How many planets are there?");
        wants(None, "what a pod is", "Can you explain what a pod is");
    }

    #[test]
    fn an_order_is_left_as_it_is_and_so_is_what_would_leave_nothing() {
        for text in ["Write a parser", "Why?", "how", "", "???", "Whatever works"] {
            assert_eq!(beginning(text), None, "{text}");
        }
    }
}
