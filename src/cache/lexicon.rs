//! What common English words have to do with each other, out of `config/wordnet.tsv`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::words::{NEAR, UNSTEMMED};
use rust_stemmers::{Algorithm, Stemmer};

/// How two words are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// They mean the same in some usual sense.
    Synonym,
    /// One is made from the other: "meditate", "meditation".
    Derived,
    Opposite,
}

const TABLE: &str = include_str!("../../config/wordnet.tsv");

/// A word of the tables, by its stem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Known(u32);

/// Whether a lower-case word is one of the common words of English, or the name of a thing in the world.
pub(crate) fn is_english(word: &str) -> bool {
    LEXICON.names.contains(word) || LEXICON.known.contains_key(&*LEXICON.stemmer.stem(word))
}

struct Lexicon {
    known: HashMap<String, Known>,
    /// By word: what it is related to. A lookup asks this of every two words that differ, so nothing is hashed for it.
    related: Vec<Vec<(Known, Relation)>>,
    names: HashSet<&'static str>,
    stemmer: Stemmer,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
    let mut lexicon = Lexicon {
        known: HashMap::new(),
        related: vec![],
        names: HashSet::new(),
        stemmer: Stemmer::create(Algorithm::English),
    };
    for line in TABLE.lines() {
        let mut words = line.split(' ');
        let relation = match words.next() {
            Some("=") => Relation::Synonym,
            Some("+") => Relation::Derived,
            Some("!") => Relation::Opposite,
            Some("@") => {
                lexicon.names.extend(words);
                continue;
            }
            _ => continue,
        };
        let Some(head) = words.next().map(|word| lexicon.add(word)) else { continue };
        for other in words {
            let other = lexicon.add(other);
            if other != head {
                lexicon.relate(head, other, relation);
            }
        }
    }
    for words in NEAR {
        let words: Vec<Known> = words.split(' ').map(|word| lexicon.add(word)).collect();
        for (i, a) in words.iter().enumerate() {
            words[..=i].iter().for_each(|b| lexicon.relate(*a, *b, Relation::Synonym));
        }
    }
    lexicon
});

impl Lexicon {
    fn add(&mut self, word: &str) -> Known {
        let next = Known(u32::try_from(self.known.len()).unwrap_or(u32::MAX));
        let known = *self.known.entry(self.stemmer.stem(word).into_owned()).or_insert(next);
        self.related.resize(self.known.len(), vec![]);
        known
    }

    /// What is said last counts: the opposites stand last in the table, and [`NEAR`] comes after it.
    fn relate(&mut self, a: Known, b: Known, relation: Relation) {
        for (a, b) in [(a, b), (b, a)] {
            let related = &mut self.related[a.0 as usize];
            match related.iter_mut().find(|(other, _)| *other == b) {
                Some(known) => known.1 = relation,
                None => related.push((b, relation)),
            }
        }
    }
}

/// The word, as written in lower case, if the tables have it. "Wealthiest" is "wealthy".
pub(super) fn known(word: &str) -> Option<Known> {
    // Of some words the stem is that of a word with another meaning.
    if !word.is_ascii() || word.len() > 40 || UNSTEMMED.contains(&word) {
        return None;
    }
    let find = |word: &str| LEXICON.known.get(LEXICON.stemmer.stem(word).as_ref()).copied();
    find(word).or_else(|| {
        let plain = word.strip_suffix("est").filter(|rest| rest.len() > 3)?;
        plain.strip_suffix('i').map_or_else(|| find(plain), |plain| find(&format!("{plain}y")))
    })
}

/// How two known words are related, if they are.
pub(super) fn relation(a: Known, b: Known) -> Option<Relation> {
    let related = LEXICON.related[a.0 as usize].iter().find(|(other, _)| *other == b).map(|(_, relation)| *relation);
    related.or((a == b).then_some(Relation::Derived))
}

/// Whether the word, in lower case, names a country, a city, a person, a day or the like, and nothing else.
pub(super) fn is_name(word: &str) -> bool {
    LEXICON.names.contains(word)
}

/// British and American spellings.
pub(super) fn spelt_alike(a: &str, b: &str) -> bool {
    let american = |word: &str| {
        let word = word.replace("our", "or").replace("isation", "ization").replace("yre", "ire");
        let word = word.replace("ise", "ize").replace("ising", "izing").replace("yse", "yze").replace("ll", "l");
        word.strip_suffix("tre").map(|stem| format!("{stem}ter")).unwrap_or(word)
    };
    a.len().abs_diff(b.len()) <= 1 && a.chars().next() == b.chars().next() && american(a) == american(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_related_whatever_their_ending_and_whichever_comes_first() {
        for (a, b, wanted) in [
            ("buying", "purchases", Some(Relation::Synonym)),
            ("wealthiest", "richest", Some(Relation::Synonym)),
            ("decides", "decision", Some(Relation::Derived)),
            ("rising", "falls", Some(Relation::Opposite)),
            ("orders", "users", None),
        ] {
            let of = |a: &str, b: &str| relation(known(a)?, known(b)?);
            assert_eq!((of(a, b), of(b, a)), (wanted, wanted), "{a} {b}");
        }
        assert_eq!(known("frobnicate"), None);
        assert!(spelt_alike("colour", "color") && spelt_alike("summarise", "summarize") && !spelt_alike("cat", "car"));
        assert!(is_name("denmark") && !is_name("turkeys") && !is_name("order"));
    }
}
