//! How sure it is that two near texts want the same answer, where no guard forbids it.
//!
//! A logistic regression over a few things that a person can read: how similar the vectors are, what share of the words
//! has its like in the other text, what kind of word has none. The weights are in `config/verifier.toml`;
//! `tandem cache calibrate --write` fits them to labelled pairs.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::align::{Weight, weight};
use super::guards::{Both, reordered};
use super::lexicon::Relation;
use super::reading::Token;

/// What is looked at, by name. The order is that of [`Features`].
pub(super) const NAMES: [&str; FEATURES] = [
    "always",
    "similarity",
    "similarity_above_0.8",
    "similarity_above_0.9",
    "words_with_a_like",
    "synonyms",
    "synonyms_in_an_order",
    "derived_words",
    "soft_words_more",
    "rating_words_more",
    "generic_words_more",
    "words_more",
    "words_instead",
    "words_more_in_an_order",
    "words_instead_in_an_order",
    "inverted",
    "other_phrases",
    "other_phrases_in_an_order",
    "asked_otherwise",
    "other_links",
    "few_words",
];

/// What can only speak for sharing, and what only against it; the rest may do either.
pub(super) fn may_weigh(name: &str, weight: f64) -> bool {
    match name {
        "always" | "few_words" | "synonyms_in_an_order" => true,
        "words_with_a_like" => weight >= 0.0,
        name if name.starts_with("similarity") => weight >= 0.0,
        _ => weight <= 0.0,
    }
}

pub(super) const FEATURES: usize = 21;

pub(super) type Features = [f64; FEATURES];

/// An order that has the same words in the same relation is at least as similar as this, whatever the vectors say: the
/// guards alone decide there, and served none of 1,059 traps.
const SAME: f64 = 0.95;

/// Counts above this say no more.
const MOST: usize = 3;

pub(super) fn features(similarity: f64, both: &Both<'_>) -> Features {
    let Both { a, b, aligned } = both;
    let is_order = a.is_order && b.is_order;
    // In an order a value is no element: nothing is generic there.
    let weighs = |token: &Token| match weight(token) {
        Weight::Generic | Weight::Rating if is_order => Weight::Hard,
        weight => weight,
    };
    let weights = |tokens: &[&Token]| tokens.iter().map(|token| weighs(token)).collect::<Vec<_>>();
    let (only_a, only_b) = (weights(&aligned.only_a), weights(&aligned.only_b));
    let count = |weights: &[Weight], of: Weight| weights.iter().filter(|weight| **weight == of).count();
    let in_one = |of| count(&only_a, of) + count(&only_b, of);
    let (hard_a, hard_b) = (count(&only_a, Weight::Hard), count(&only_b, Weight::Hard));
    let (more, instead) = (hard_a.abs_diff(hard_b).min(MOST) as f64, hard_a.min(hard_b).min(MOST) as f64);
    let by = |relation| aligned.pairs.iter().filter(|p| p.relation == Some(relation)).count().min(MOST) as f64;
    let order = f64::from(u8::from(is_order));
    let words = (aligned.a.len() + aligned.b.len()).max(1) as f64;
    let is_moved = reordered(both);
    let moved = f64::from(u8::from(is_moved));
    let all_alike = aligned.pairs.iter().all(|pair| pair.relation.is_none());
    let same = is_order && all_alike && aligned.only_a.is_empty() && aligned.only_b.is_empty() && !is_moved;
    let similarity = if same { similarity.max(SAME) } else { similarity };
    [
        1.0,
        similarity,
        (similarity - 0.8).max(0.0),
        (similarity - 0.9).max(0.0),
        2.0 * aligned.pairs.len() as f64 / words,
        by(Relation::Synonym),
        order * by(Relation::Synonym),
        by(Relation::Derived),
        in_one(Weight::Soft).min(MOST) as f64,
        in_one(Weight::Rating).min(MOST) as f64,
        in_one(Weight::Generic).min(MOST) as f64,
        more,
        instead,
        order * more,
        order * instead,
        aligned.inverted(),
        moved,
        order * moved,
        f64::from(u8::from(a.wants != b.wants)),
        aligned.links_changed().min(MOST) as f64,
        1.0 / aligned.pairs.len().max(1) as f64,
    ]
}

/// What ships: `config/verifier.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verifier {
    /// By name, for the features as they are.
    pub weights: std::collections::BTreeMap<String, f64>,
    /// From what a sum of weighted features is served, by the share of false hits that may be. Measured on pairs that
    /// the weights were not fitted to.
    pub thresholds: Vec<Threshold>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Threshold {
    pub max_false_hit_rate: f64,
    /// How sure it must be, 0 to 1.
    pub sure: f64,
    /// Of the pairs served at that: the share that must not share.
    pub wrong_of_hits: f64,
}

/// Why a file holds no verifier.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} is no verifier; make one with `tandem cache calibrate PAIRS --write {}`", file.display(), file.display())]
    Parse { file: PathBuf, source: toml::de::Error },
    #[error("{} weighs {name:?}, which nothing measures; make it again with `tandem cache calibrate`", file.display())]
    Unknown { file: PathBuf, name: String },
}

static SHIPPED: LazyLock<Verifier> = LazyLock::new(|| {
    // A table that can't be read serves nothing by meaning; a test holds that it can.
    toml::from_str(include_str!("../../config/verifier.toml"))
        .unwrap_or(Verifier { weights: Default::default(), thresholds: vec![] })
});

impl Verifier {
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// Reads what `tandem cache calibrate --write` wrote.
    pub fn read(file: &Path) -> Result<Self, VerifierError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| VerifierError::Read { file: file.to_owned(), source })?;
        let read: Self =
            toml::from_str(&text).map_err(|source| VerifierError::Parse { file: file.to_owned(), source })?;
        match read.weights.keys().find(|name| !NAMES.contains(&name.as_str())) {
            Some(name) => Err(VerifierError::Unknown { file: file.to_owned(), name: name.clone() }),
            None => Ok(read),
        }
    }

    /// 0 to 1.
    pub fn sure(&self, features: &Features) -> f64 {
        let sum: f64 = NAMES.iter().zip(features).map(|(name, x)| self.weights.get(*name).unwrap_or(&0.0) * x).sum();
        1.0 / (1.0 + (-sum).exp())
    }

    /// How sure it must be, so that at most this share of what must not be shared is. Above 1, which nothing reaches,
    /// where the calibration can't promise as much.
    pub fn needed(&self, max_false_hit_rate: f64) -> f64 {
        self.row(max_false_hit_rate).map_or(2.0, |row| row.sure)
    }

    /// The share of hits that is then expected to be wrong.
    pub fn wrong_of_hits(&self, max_false_hit_rate: f64) -> f64 {
        self.row(max_false_hit_rate).map_or(0.0, |row| row.wrong_of_hits)
    }

    fn row(&self, max_false_hit_rate: f64) -> Option<&Threshold> {
        let good = self.thresholds.iter().filter(|t| t.max_false_hit_rate <= max_false_hit_rate);
        good.min_by(|x, y| x.sure.total_cmp(&y.sure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_can_be_read_and_weighs_what_is_measured() {
        let shipped: Verifier = toml::from_str(include_str!("../../config/verifier.toml")).unwrap();
        let mut names: Vec<&str> = shipped.weights.keys().map(String::as_str).collect();
        let mut measured = NAMES.to_vec();
        names.sort_unstable();
        measured.sort_unstable();
        assert_eq!(names, measured);
        assert!(shipped.weights.iter().all(|(name, weight)| may_weigh(name, *weight)));
        let needed = shipped.needed(super::super::Options::default().max_false_hit_rate);
        assert!((0.5..1.0).contains(&needed), "{needed}");
        assert!(shipped.needed(0.0) > 1.0);
    }

    #[test]
    fn a_file_that_is_no_verifier_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Verifier::read(&file).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(read("thresholds = []\n[weights]\nsimilarity = 1.0"), Ok(()));
        for (bad, says) in
            [("thresholds = 1", "no verifier"), ("thresholds = []\n[weights]\nlength = 1.0", "\"length\"")]
        {
            let error = read(bad).unwrap_err();
            assert!(error.contains("mine.toml") && error.contains(says), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(Verifier::read(&file), Err(VerifierError::Read { .. })));
    }
}
