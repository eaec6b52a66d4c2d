//! Which word of one text says what which word of the other says.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::lexicon::{self, Relation, spelt_alike};
use super::reading::{Case, Join, Kind, Reading, Said, Token, is_unit};
use super::words::{GENERIC, RATING, SOFT};

/// Two texts, word by word.
pub(super) struct Alignment<'a> {
    /// Places in `a` and `b`, by the place in `a`.
    pub(super) pairs: Vec<Pair>,
    pub(super) a: Vec<&'a Token>,
    pub(super) b: Vec<&'a Token>,
    /// What stands in one text only.
    pub(super) only_a: Vec<&'a Token>,
    pub(super) only_b: Vec<&'a Token>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) a: usize,
    pub(super) b: usize,
    /// `None`: the same word, or one that the tables of this room call the same.
    pub(super) relation: Option<Relation>,
}

/// More words than these left over on a side are not compared one by one: such texts say different things.
const MANY: usize = 24;

impl<'a> Alignment<'a> {
    pub(super) fn of(a: &'a Reading, b: &'a Reading) -> Self {
        let (a, b): (Vec<_>, Vec<_>) = (a.said().collect(), b.said().collect());
        let mut places: HashMap<(Kind, &str), Vec<usize>> = HashMap::with_capacity(b.len());
        for (place, token) in b.iter().enumerate().rev() {
            places.entry((token.kind, &token.text)).or_default().push(place);
        }
        let mut taken = vec![false; b.len()];
        let (mut pairs, mut open) = (vec![], vec![]);
        for (place, token) in a.iter().enumerate() {
            match places.get_mut(&(token.kind, token.text.as_str())).and_then(Vec::pop) {
                Some(other) => {
                    taken[other] = true;
                    pairs.push(Pair { a: place, b: other, relation: None });
                }
                None => open.push((place, Plain::of(token))),
            }
        }
        let free = (0..b.len()).filter(|place| !taken[*place]);
        let free: Vec<_> = free.map(|place| (place, Plain::of(b[place]))).collect();
        if open.len() <= MANY && free.len() <= MANY {
            for wanted in [Relation::Synonym, Relation::Derived] {
                open.retain(|(place, word)| {
                    let fits = |(other, like): &&(usize, Option<Plain<'_>>)| {
                        !taken[*other] && related(word.as_ref(), like.as_ref()) == Some(wanted)
                    };
                    let Some(&(other, _)) = free.iter().find(fits) else { return true };
                    taken[other] = true;
                    pairs.push(Pair { a: *place, b: other, relation: Some(wanted) });
                    false
                });
            }
        }
        pairs.sort_unstable_by_key(|pair| pair.a);
        let only_a = open.iter().map(|(place, _)| a[*place]).collect();
        let only_b = (0..b.len()).filter(|place| !taken[*place]).map(|place| b[place]).collect();
        Self { pairs, a, b, only_a, only_b }
    }

    /// What both texts say, in the order of each, by the words of the first.
    pub(super) fn shared(&self) -> (Vec<Said<'a>>, Vec<Said<'a>>) {
        let mut here: Vec<Option<&str>> = vec![None; self.a.len()];
        let mut there: Vec<Option<&str>> = vec![None; self.b.len()];
        let technology = |t: &Token| t.kind == Kind::Technology;
        // "A Rust client", "a client in Rust": where there is but one, its place says nothing.
        let alone = self.a.iter().filter(|t| technology(t)).count() == 1
            && self.b.iter().filter(|t| technology(t)).count() == 1;
        for pair in self.pairs.iter().filter(|p| !(alone && technology(self.a[p.a]))) {
            here[pair.a] = Some(&self.a[pair.a].text);
            there[pair.b] = Some(&self.a[pair.a].text);
        }
        (said(&self.a, &here), said(&self.b, &there))
    }

    /// How many words hang on another preposition than their like.
    pub(super) fn links_changed(&self) -> usize {
        let changed = |p: &&Pair| match (self.a[p.a].link, self.b[p.b].link) {
            (Some(x), Some(y)) => x != y && !self.a[p.a].join().fits(self.b[p.b].join()),
            _ => false,
        };
        self.pairs.iter().filter(changed).count()
    }

    /// Share of pairs of words that stand in another order, 0 to 1.
    pub(super) fn inverted(&self) -> f64 {
        let count = self.pairs.len();
        if !(2..=200).contains(&count) {
            return 0.0;
        }
        let turned: usize =
            self.pairs.iter().enumerate().map(|(i, p)| self.pairs[..i].iter().filter(|q| q.b > p.b).count()).sum();
        turned as f64 / (count * (count - 1) / 2) as f64
    }
}

/// The tokens that have a text. What hung on one that has none hangs on the next.
fn said<'a>(tokens: &[&'a Token], texts: &[Option<&'a str>]) -> Vec<Said<'a>> {
    let (mut said, mut link, mut join) = (vec![], None, Join::None);
    for (token, text) in tokens.iter().zip(texts) {
        if token.link.is_some() {
            (link, join) = (token.link, token.join());
        }
        if let Some(text) = text {
            said.push(Said { text, join, link });
            (link, join) = (None, Join::None);
        }
    }
    said
}

/// A word that may have synonyms; names and code have none.
struct Plain<'a> {
    token: &'a Token,
    is_unit: bool,
}

impl<'a> Plain<'a> {
    fn of(token: &'a Token) -> Option<Self> {
        (token.kind == Kind::Word && !is_name(token)).then(|| Self { token, is_unit: is_unit(&token.written) })
    }
}

/// A unit is no synonym of another.
fn related(a: Option<&Plain<'_>>, b: Option<&Plain<'_>>) -> Option<Relation> {
    let (a, b) = (a?, b?);
    if a.is_unit && b.is_unit {
        return None;
    }
    if spelt_alike(&a.token.written, &b.token.written) {
        return Some(Relation::Synonym);
    }
    lexicon::relation(a.token.known?, b.token.known?)
}

/// Names one thing in the world: by its capital where capitals say something, or by being known.
pub(super) fn is_name(token: &Token) -> bool {
    token.kind == Kind::Word && (token.named || matches!(token.case, Some(Case::Capital | Case::Upper)))
}

/// How much a word weighs that only one text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// "really", "given": says next to nothing.
    Soft,
    /// "best", "many": how good or how many.
    Rating,
    /// "person", "value": says little beside what it stands with.
    Generic,
    Hard,
}

pub(super) fn weight(token: &Token) -> Weight {
    match token.written.as_str() {
        _ if token.kind != Kind::Word || is_name(token) => Weight::Hard,
        word => WEIGHTS.get(word).copied().unwrap_or(Weight::Hard),
    }
}

static WEIGHTS: LazyLock<HashMap<&str, Weight>> = LazyLock::new(|| {
    let of = |words: &'static [&'static str], weight| words.iter().map(move |word| (*word, weight));
    // What stands in two tables is the softer.
    of(GENERIC, Weight::Generic).chain(of(RATING, Weight::Rating)).chain(of(SOFT, Weight::Soft)).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn only(a: &str, b: &str) -> (Vec<String>, Vec<String>) {
        let (a, b) = (Reading::of(a, None), Reading::of(b, None));
        let aligned = Alignment::of(&a, &b);
        let written = |tokens: &[&Token]| tokens.iter().map(|t| t.written.clone()).collect();
        (written(&aligned.only_a), written(&aligned.only_b))
    }

    #[test]
    fn words_are_paired_by_stem_by_synonym_and_by_what_they_are_made_from() {
        let none: (Vec<String>, Vec<String>) = (vec![], vec![]);
        assert_eq!(only("How do I lose weight fast?", "What is the best way of losing weight quickly?"), none);
        assert_eq!(only("Why is meditation good?", "Why is meditating beneficial?"), none);
        let left = only("Restart the web server", "Restart the database server in staging");
        assert_eq!(left, (vec!["web".into()], vec!["database".into(), "staging".into()]));
    }

    #[test]
    fn names_and_units_have_no_synonyms() {
        let (a, b) = only("How many requests per minute?", "How many requests per second?");
        assert_eq!((a.len(), b.len()), (1, 1));
        let (a, b) = only("Who won in Holland?", "Who won in Netherlands?");
        assert_eq!((a.len(), b.len()), (1, 1));
    }
}
