//! What users said of answers that the semantic tier gave, and how it moves what is needed for another near them.

use std::collections::HashMap;

use super::index::dot;
use crate::domain::record::{CacheVerdict, Digest};

/// So many verdicts of a scope are weighed; the newest come first.
const MOST: usize = 200;

/// A verdict counts in full on the same text and not at all from this cosine on.
const NEAR: f64 = 0.75;

/// The calibration weighs as much as so many verdicts.
const PRIOR: f64 = 20.0;

/// Good verdicts make it easier by at most this much, in logits: the calibrated bound is not given up for a few.
const EASIER: f64 = 1.0;

#[derive(Default)]
pub(super) struct Evidence(HashMap<Digest, Vec<CacheVerdict>>);

impl Evidence {
    pub(super) fn of(verdicts: Vec<CacheVerdict>) -> Self {
        let mut by_scope: HashMap<Digest, Vec<CacheVerdict>> = HashMap::new();
        for verdict in verdicts {
            let scope = by_scope.entry(verdict.scope).or_default();
            if scope.len() < MOST {
                scope.push(verdict);
            }
        }
        Self(by_scope)
    }

    /// How sure the verifier must be of a hit at `vector`, where the calibration asks for `needed` and then expects
    /// `wrong_of_hits` of the hits to be wrong. Each verdict near it counts as a hit seen.
    pub(super) fn needed(&self, scope: &Digest, vector: &[f32], needed: f64, wrong_of_hits: f64) -> f64 {
        let Some(verdicts) = self.0.get(scope).filter(|_| needed < 1.0) else { return needed };
        let (mut wrong, mut all) = (0.0, 0.0);
        for verdict in verdicts.iter().filter(|verdict| verdict.vector.len() == vector.len()) {
            let weight = ((f64::from(dot(&verdict.vector, vector)) - NEAR) / (1.0 - NEAR)).clamp(0.0, 1.0);
            all += weight;
            wrong += if verdict.good { 0.0 } else { weight };
        }
        let prior = wrong_of_hits.clamp(0.001, 0.5);
        let expected = (prior * PRIOR + wrong) / (PRIOR + all);
        let harder = (logit(expected) - logit(prior)).max(-EASIER);
        1.0 / (1.0 + (-(logit(needed) + harder)).exp())
    }
}

fn logit(share: f64) -> f64 {
    let share = share.clamp(1e-9, 1.0 - 1e-9);
    (share / (1.0 - share)).ln()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn evidence(verdicts: &[([f32; 2], bool)]) -> Evidence {
        let verdict = |(vector, good): &([f32; 2], bool)| CacheVerdict {
            scope: [1; 32],
            vector: Arc::from(*vector),
            good: *good,
        };
        Evidence::of(verdicts.iter().map(verdict).collect())
    }

    fn needed(verdicts: &[([f32; 2], bool)], at: [f32; 2]) -> f64 {
        evidence(verdicts).needed(&[1; 32], &at, 0.8, 0.02)
    }

    #[test]
    fn a_wrong_hit_makes_it_harder_near_it_and_good_ones_a_little_easier() {
        let here = [1.0, 0.0];
        assert!((needed(&[], here) - 0.8).abs() < 1e-9);
        let once = needed(&[(here, false)], here);
        let twice = needed(&[(here, false), (here, false)], here);
        assert!(once > 0.9 && twice > once, "{once} {twice}");
        assert!((needed(&[(here, false)], [0.0, 1.0]) - 0.8).abs() < 1e-9, "not elsewhere");
        let good = needed(&[(here, true); 20], here);
        let many = needed(&[(here, true); 2_000], here);
        assert!(good < 0.8 && many <= good && many > 0.5, "{good} {many}");
    }

    #[test]
    fn other_scopes_and_what_can_not_be_promised_stay_as_they_are() {
        let seen = evidence(&[([1.0, 0.0], false)]);
        assert!((seen.needed(&[2; 32], &[1.0, 0.0], 0.8, 0.02) - 0.8).abs() < 1e-9);
        assert!(seen.needed(&[1; 32], &[1.0, 0.0], 2.0, 0.02) > 1.0);
    }
}
