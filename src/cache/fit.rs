//! Fits the verifier to labelled pairs and measures it: `tandem cache calibrate`.

use serde::{Deserialize, Serialize};

use super::guards::{self, Guard};
use super::reading::Reading;
use super::verifier::{FEATURES, Features, NAMES, Threshold, Verifier, may_weigh};
use crate::domain::Share;

/// Two texts, and whether one answer may serve both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pair {
    pub a: String,
    pub b: String,
    /// 1: one answer may serve both; 0: it must not.
    pub label: u8,
    /// What kind of pair it is.
    #[serde(default)]
    pub category: String,
    /// Pairs of one group are about one thing. All of a group are fitted to, or none.
    #[serde(skip)]
    pub group: usize,
}

/// A line that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LabelError {
    pub line: usize,
    pub problem: String,
}

/// Reads labels: a JSON object `{"a", "b", "label", "category"}` a line, or groups as in `config/pairs/train.txt`.
pub fn read_pairs(text: &str) -> Result<Vec<Pair>, LabelError> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty());
    let mut lines = lines.map(|(i, line)| (i + 1, line)).peekable();
    if lines.peek().is_some_and(|(_, line)| line.starts_with('{')) {
        let read = |(i, (line, json)): (usize, (usize, &str))| {
            let problem = |problem: String| LabelError { line, problem };
            let pair: Pair = serde_json::from_str(json).map_err(|e| problem(e.to_string()))?;
            if pair.label > 1 {
                return Err(problem(format!("`label` is 0 or 1, not {}", pair.label)));
            }
            Ok(Pair { group: i, ..pair })
        };
        return lines.enumerate().map(read).collect();
    }
    let mut groups: Vec<Group<'_>> = vec![];
    for (line, text) in lines {
        let problem = |problem: &str| LabelError { line, problem: problem.to_owned() };
        let (mark, rest) = text.split_once(' ').ok_or_else(|| problem("a mark and a text are expected"))?;
        let last = groups.last_mut().ok_or_else(|| problem("a group begins with `@ KIND`"));
        match mark {
            "@" => groups.push(Group { kind: rest, same: vec![], traps: vec![] }),
            "=" => last?.same.push(rest),
            "!" => last?.traps.push(rest.split_once(' ').ok_or_else(|| problem("`! KIND TEXT` is expected"))?),
            _ => return Err(problem("a line begins with `@`, `=` or `!`")),
        }
    }
    Ok(groups.iter().enumerate().flat_map(|(i, group)| group.pairs(i)).collect())
}

/// Texts about one thing.
struct Group<'a> {
    kind: &'a str,
    /// One answer may serve any two of these.
    same: Vec<&'a str>,
    /// What kind of trap, and a text that must not share an answer with any of `same`.
    traps: Vec<(&'a str, &'a str)>,
}

impl Group<'_> {
    fn pairs(&self, group: usize) -> Vec<Pair> {
        let pair = |a: &str, b: &str, label, category: &str| Pair {
            a: a.to_owned(),
            b: b.to_owned(),
            label,
            category: category.to_owned(),
            group,
        };
        let mut pairs = vec![];
        for (i, a) in self.same.iter().enumerate() {
            pairs.extend(self.same[..i].iter().map(|b| pair(b, a, 1, self.kind)));
            pairs.extend(self.traps.iter().map(|(kind, b)| pair(a, b, 0, kind)));
        }
        pairs
    }
}

/// A pair, read by the guards.
#[derive(Debug, Clone)]
pub struct Read {
    pub similarity: f64,
    pub label: bool,
    pub category: String,
    pub group: usize,
    /// The guard that refuses it, or what the verifier looks at.
    pub(super) found: Result<Features, Guard>,
}

impl Read {
    pub fn of(pair: &Pair, similarity: f64) -> Self {
        let (a, b) = (Reading::of(&pair.a, None), Reading::of(&pair.b, None));
        let found = guards::features(&a, &b, similarity);
        Self { similarity, label: pair.label == 1, category: pair.category.clone(), group: pair.group, found }
    }

    /// The guard that forbids sharing, if one does.
    pub fn refused_by(&self) -> Option<Guard> {
        self.found.as_ref().err().copied()
    }

    /// How sure the verifier is; 0 where a guard forbids it.
    pub fn sure(&self, verifier: &Verifier) -> f64 {
        self.found.as_ref().map_or(0.0, |features| verifier.sure(features))
    }
}

/// How strongly weights are held near zero. With some thousand pairs it matters little, and keeps what no pair shows
/// from growing.
const RIDGE: f64 = 1.0;

/// Fits weights to what the guards let through. A weight that comes out against what its name says is left out and the
/// rest fitted again: so few pairs can say anything by chance.
pub fn fit(pairs: &[&Read]) -> Verifier {
    let rows: Vec<(&Features, f64)> =
        pairs.iter().filter_map(|p| Some((p.found.as_ref().ok()?, f64::from(u8::from(p.label))))).collect();
    let mut out = [false; FEATURES];
    let weights = loop {
        let weights = newton(&rows, &out);
        let wrong = |i: &usize| !out[*i] && !may_weigh(NAMES[*i], weights[*i]);
        match (0..FEATURES).filter(wrong).max_by(|x, y| weights[*x].abs().total_cmp(&weights[*y].abs())) {
            Some(worst) => out[worst] = true,
            None => break weights,
        }
    };
    let rounded = |w: f64| (w * 1e4).round() / 1e4;
    let weights = NAMES.iter().zip(weights).map(|(name, w)| ((*name).to_owned(), rounded(w))).collect();
    Verifier { weights, thresholds: vec![] }
}

/// Logistic regression by Newton's method; what is `out` weighs nothing.
fn newton(rows: &[(&Features, f64)], out: &[bool; FEATURES]) -> Features {
    let mut weights = [0.0; FEATURES];
    for _ in 0..30 {
        let mut gradient = weights.map(|w| -RIDGE * w);
        let mut curvature = [[0.0; FEATURES]; FEATURES];
        for (i, row) in curvature.iter_mut().enumerate() {
            row[i] = RIDGE;
        }
        for (x, label) in rows {
            let sum: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
            let sure = 1.0 / (1.0 + (-sum).exp());
            for i in (0..FEATURES).filter(|i| !out[*i] && x[*i] != 0.0) {
                gradient[i] += (label - sure) * x[i];
                for j in (0..FEATURES).filter(|j| !out[*j]) {
                    curvature[i][j] += sure * (1.0 - sure) * x[i] * x[j];
                }
            }
        }
        let step = solve(curvature, gradient);
        weights.iter_mut().zip(step).for_each(|(w, s)| *w += s.clamp(-2.0, 2.0));
        if step.iter().all(|s| s.abs() < 1e-6) {
            break;
        }
    }
    weights
}

/// Solves a symmetric positive system by Gauss' elimination with pivots.
fn solve(mut a: [[f64; FEATURES]; FEATURES], mut b: Features) -> Features {
    for column in 0..FEATURES {
        let pivot =
            (column..FEATURES).max_by(|x, y| a[*x][column].abs().total_cmp(&a[*y][column].abs())).unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            continue;
        }
        for row in column + 1..FEATURES {
            let factor = a[row][column] / a[column][column];
            let upper = a[column];
            a[row].iter_mut().zip(upper).for_each(|(x, y)| *x -= factor * y);
            b[row] -= factor * b[column];
        }
    }
    let mut x = [0.0; FEATURES];
    for row in (0..FEATURES).rev() {
        let known: f64 = (row + 1..FEATURES).map(|j| a[row][j] * x[j]).sum();
        x[row] = if a[row][row].abs() < 1e-12 { 0.0 } else { (b[row] - known) / a[row][row] };
    }
    x
}

/// Parts that each measure what was fitted to the others.
const FOLDS: usize = 10;

/// How sure a verifier is of each pair that was fitted to the groups of the other folds.
pub fn cross_validated(pairs: &[Read]) -> Vec<f64> {
    let verifiers: Vec<Verifier> =
        (0..FOLDS).map(|fold| fit(&pairs.iter().filter(|p| p.group % FOLDS != fold).collect::<Vec<_>>())).collect();
    pairs.iter().map(|p| p.sure(&verifiers[p.group % FOLDS])).collect()
}

/// The shares of false hits that thresholds are looked for.
const RATES: [f64; 5] = [0.002, 0.005, 0.01, 0.02, 0.05];

/// For each rate that these pairs can promise: the lowest threshold at which the upper 95 % bound of false hits is no
/// greater. `sure` holds how sure the verifier is of each pair.
pub fn thresholds(pairs: &[Read], sure: &[f64]) -> Vec<Threshold> {
    let mut wrong: Vec<f64> = pairs.iter().zip(sure).filter(|(p, _)| !p.label).map(|(_, s)| *s).collect();
    wrong.sort_by(|a, b| b.total_cmp(a));
    let allows = |rate: f64, least: f64| {
        let served = wrong.iter().take_while(|sure| **sure >= least).count();
        Share::new(served, wrong.len()).high <= rate
    };
    let row = |rate: f64| {
        // As sure as of the last wrong one that may be served: a little lower none of these would be served either, but
        // what would others do? Where none may be, half way from the surest of them to certainty.
        let beyond = wrong.first().map_or(1.0, |surest| (surest + 1.0) / 2.0);
        let least = wrong.iter().copied().take_while(|least| allows(rate, *least)).last();
        let needed = least.or_else(|| allows(rate, beyond).then_some(beyond))?;
        let needed = (needed * 1e4).ceil() / 1e4;
        let wrong = (wrong_of_hits(pairs, sure, needed) * 1e4).round() / 1e4;
        Some(Threshold { max_false_hit_rate: rate, sure: needed, wrong_of_hits: wrong })
    };
    RATES.into_iter().filter_map(row).collect()
}

/// Of the pairs that are served: the share that must not be.
pub fn wrong_of_hits(pairs: &[Read], sure: &[f64], needed: f64) -> f64 {
    measure(pairs, sure, needed).precision.share.map_or(0.0, |right| 1.0 - right)
}

/// How a verifier does at one threshold.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub sure: f64,
    /// Of the pairs that may share: those served.
    pub recall: Share,
    /// Of the pairs that must not: those served.
    pub false_hits: Share,
    /// Of the pairs served: those that may share.
    pub precision: Share,
}

pub fn measure(pairs: &[Read], sure: &[f64], needed: f64) -> Measured {
    let count = |label: bool, served: bool| {
        pairs.iter().zip(sure).filter(|(p, s)| p.label == label && (!served || **s >= needed)).count()
    };
    let (right, wrong) = (count(true, true), count(false, true));
    Measured {
        sure: needed,
        recall: Share::new(right, count(true, false)),
        false_hits: Share::new(wrong, count(false, false)),
        precision: Share::new(right, right + wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "# heading\n@ code\n= Sort a list\n= Order a list\n! opposite Shuffle a list\n\n@ ops\n= Restart it\n! scope Restart all";

    /// Pairs of which the first feature that differs from pair to pair is the similarity.
    fn read(similarity: f64, label: bool, group: usize) -> Read {
        let pair = Pair {
            a: "Restart the web server".into(),
            b: "Restart the web server machine".into(),
            label: u8::from(label),
            category: String::new(),
            group,
        };
        Read::of(&pair, similarity)
    }

    #[test]
    fn groups_and_objects_are_read_and_what_is_no_label_is_named_with_its_line() {
        let pairs = read_pairs(GROUPS).unwrap();
        let read: Vec<_> =
            pairs.iter().map(|p| (p.a.as_str(), p.b.as_str(), p.label, p.category.as_str(), p.group)).collect();
        assert_eq!(
            read,
            [
                ("Sort a list", "Shuffle a list", 0, "opposite", 0),
                ("Sort a list", "Order a list", 1, "code", 0),
                ("Order a list", "Shuffle a list", 0, "opposite", 0),
                ("Restart it", "Restart all", 0, "scope", 1),
            ]
        );
        let object = r#"{"a": "x", "b": "y", "label": 1, "category": "c"}"#;
        assert_eq!(read_pairs(object).unwrap()[0].category, "c");
        for (bad, line) in [
            ("= no group", 1),
            ("@ g\n? x", 2),
            ("@ g\n! alone", 2),
            ("\n{\"a\": 1}", 2),
            (r#"{"a": "x", "b": "y", "label": 2}"#, 1),
        ] {
            assert_eq!(read_pairs(bad).map_err(|e| e.line), Err(line), "{bad}");
        }
    }

    #[test]
    fn what_is_fitted_tells_the_similar_from_the_others_and_keeps_its_promise() {
        let pairs: Vec<Read> = (0..1_000)
            .map(|i| {
                let right = i % 2 == 0;
                // One in fifty of the wrong ones is as similar as the right ones.
                let similarity = if right || i % 100 == 1 { 0.95 } else { 0.75 } + f64::from(i % 7) * 0.004;
                read(similarity, right, i as usize / 2)
            })
            .collect();
        let verifier = fit(&pairs.iter().collect::<Vec<_>>());
        assert!(read(0.95, true, 0).sure(&verifier) > 0.8 && read(0.75, false, 0).sure(&verifier) < 0.2);
        let sure = cross_validated(&pairs);
        for threshold in thresholds(&pairs, &sure) {
            let measured = measure(&pairs, &sure, threshold.sure);
            assert!(measured.false_hits.high <= threshold.max_false_hit_rate, "{threshold:?} {measured:?}");
        }
        let strict = Verifier { thresholds: thresholds(&pairs, &sure), ..verifier };
        assert!(strict.needed(0.05) < strict.needed(0.01), "2 % of the traps look right: only the first allows them");
        assert!(strict.needed(0.0001) > 1.0, "a thousand pairs can't promise that");
    }

    #[test]
    fn a_weight_against_its_own_name_is_left_out() {
        // The less similar, the likelier the same: no such weight ships.
        let pairs: Vec<Read> = (0..200).map(|i| read(if i % 2 == 0 { 0.75 } else { 0.95 }, i % 2 == 0, i)).collect();
        let verifier = fit(&pairs.iter().collect::<Vec<_>>());
        let of = |name: &str| verifier.weights.get(name).copied();
        assert_eq!((of("similarity"), of("similarity_above_0.8")), (Some(0.0), Some(0.0)));
    }
}
