//! Which known word a misspelt one stands for.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::super::words::{self, stem};
use super::super::{classify, library};

/// A word that a misspelling may stand for.
struct Known {
    word: String,
    /// Which letters it has, one bit each: words that have other letters are never near.
    letters: u32,
    /// How often templates and lexicon list it.
    listed: usize,
}

struct Spelling {
    /// By first letter.
    known: HashMap<u8, Vec<Known>>,
    /// Stems of words that are no misspellings.
    stems: HashSet<String>,
}

static SPELLING: LazyLock<Spelling> = LazyLock::new(|| {
    let plain = |word: &&str| word.len() >= 4 && word.bytes().all(|b| b.is_ascii_lowercase());
    let mut stems: HashSet<String> = super::unmended().map(stem).collect();
    let mut listed: HashMap<&'static str, usize> = HashMap::new();
    let all = library::vocabulary().chain(classify::vocabulary()).chain(super::vocabulary()).chain(words::vocabulary());
    for word in all.flat_map(|text| text.split([' ', '|', '-', '_'])) {
        stems.insert(stem(word));
        if plain(&word) {
            *listed.entry(word).or_default() += 1;
        }
    }
    let mut known: HashMap<u8, Vec<Known>> = HashMap::new();
    let mut add = |word: String, listed: usize| {
        let letters = letters(&word);
        known.entry(word.as_bytes()[0]).or_default().push(Known { word, letters, listed });
    };
    for (word, times) in &listed {
        add((*word).to_owned(), *times);
        // A form of it that nobody lists is one all the same.
        let ending = |ending: &str| format!("{}{ending}", word.strip_suffix('e').unwrap_or(word));
        let forms = [format!("{word}s"), ending("ing"), ending("ed")];
        let verb = !["ing", "ed", "ly", "ion"].iter().any(|end| word.ends_with(end));
        let of_kind = if word.ends_with('s') {
            0
        } else if verb {
            3
        } else {
            1
        };
        let unlisted = forms.into_iter().take(of_kind).filter(|form| !listed.contains_key(form.as_str()));
        unlisted.for_each(|form| add(form, 0));
    }
    Spelling { known, stems }
});

/// A longer word is none that a person misspells.
const LONGEST: usize = 20;

/// Words of English that are short enough to be taken for others, sorted.
static WORDNET: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../../../config/english.txt").lines().filter(|l| !l.starts_with('#')).collect());

/// The known word that a lower-case word most likely is a misspelling of: one edit away, in a longer word two, and begins
/// like it. `sure` asks that it also looks alike, so that a name is left alone.
pub(in super::super) fn mended(lower: &str, sure: bool) -> Option<&'static str> {
    if lower.len() < 3 || lower.len() > LONGEST || !lower.bytes().all(|b| b.is_ascii_lowercase()) {
        return None;
    }
    let candidates = SPELLING.known.get(&lower.as_bytes()[0])?;
    if SPELLING.stems.contains(&stem(lower)) || is_english(lower) {
        return None;
    }
    let own = letters(lower);
    let most = if lower.len() < 8 { 1 } else { 2 };
    let near = |known: &&Known| {
        known.word.len().abs_diff(lower.len()) <= most && (known.letters ^ own).count_ones() as usize <= 2 * most
    };
    // In a short word the vowels say much.
    let silent: &[u8] = if lower.len() < 5 { b"" } else { b"aeiouy" };
    let ranked = candidates.iter().filter(near).filter_map(|known| {
        let edits = edits(lower.as_bytes(), known.word.as_bytes(), most);
        let swapped = edits == 1 && known.word.len() == lower.len() && known.letters == own;
        let alike = swapped || sounds(lower, silent).eq(sounds(&known.word, silent));
        let allowed = edits <= most && (alike || (!sure && known.listed > 0 && lower.len() >= 5));
        allowed.then_some((2 * edits + usize::from(!alike), Reverse(known.listed), known.word.as_str()))
    });
    let (cost, _, word) = ranked.min()?;
    let alike = cost % 2 == 0;
    // "scraper", "mailer": what does it is a word too.
    let doer = || {
        let verb =
            |end| lower.strip_suffix(end).is_some_and(|verb| is_english(verb) || is_english(&format!("{verb}e")));
        ["er", "ers"].into_iter().any(verb)
    };
    (word != lower && (alike || !doer())).then_some(word)
}

/// A word of WordNet, or a form of one.
fn is_english(lower: &str) -> bool {
    let listed = |word: &str| WORDNET.binary_search(&word).is_ok() || crate::cache::is_english(word);
    let formed = |ending: &str| {
        let base = lower.strip_suffix(ending).filter(|base| base.len() > 3);
        base.is_some_and(|base| listed(base) || (!ending.starts_with('s') && listed(&format!("{base}e"))))
    };
    listed(lower) || ["s", "es", "ed", "ing", "est"].into_iter().any(formed)
}

/// How many letters are to be changed, left out, put in, or swapped with their neighbour to make one of the other; more
/// than `most` where there are more. No word is longer than `LONGEST` and those `most`.
fn edits(a: &[u8], b: &[u8], most: usize) -> usize {
    const MANY: u8 = 100;
    // Row i says for the first i letters of a, and for so many of b, how many edits: only near the diagonal are there few.
    let (mut before, mut last) = ([MANY; LONGEST + 4], [MANY; LONGEST + 4]);
    (0_u8..).zip(&mut last[..=most]).for_each(|(j, edits)| *edits = j);
    for i in 1..=a.len() {
        let mut row = [MANY; LONGEST + 4];
        row[0] = last[0].saturating_add(1);
        let mut least = row[0];
        for j in i.saturating_sub(most).max(1)..=b.len().min(i + most) {
            let mut edits = (last[j - 1] + u8::from(a[i - 1] != b[j - 1])).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before[j - 2] + 1);
            }
            row[j] = edits;
            least = least.min(edits);
        }
        if usize::from(least) > most {
            return usize::from(least);
        }
        (before, last) = (last, row);
    }
    usize::from(last[b.len()])
}

/// A word without doubled letters and those that are hardly heard: "expnsive" and "expensive" are one.
fn sounds(word: &str, silent: &[u8]) -> impl Iterator<Item = u8> {
    let heard = word.bytes().enumerate().filter(|(at, b)| *at == 0 || !silent.contains(b)).map(|(_, b)| b);
    let mut last = 0;
    heard.filter(move |b| std::mem::replace(&mut last, *b) != *b)
}

fn letters(word: &str) -> u32 {
    word.bytes().fold(0, |letters, b| letters | 1 << (b.wrapping_sub(b'a') & 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_mended_and_words_of_their_own_are_left_alone() {
        assert!(WORDNET.is_sorted() && WORDNET.len() > 20_000);
        for (written, meant) in [
            ("consmer", "consumer"),
            ("endpont", "endpoint"),
            ("dokcerfile", "dockerfile"),
            ("subsriber", "subscriber"),
            ("procesing", "processing"),
            ("conifg", "config"),
            ("validaton", "validation"),
            ("configuraton", "configuration"),
            ("subscirbers", "subscribers"),
            ("itmes", "items"),
            ("frist", "first"),
            ("nul", "null"),
            ("redme", "readme"),
            ("generting", "generating"),
            // Words that a template is triggered by, of English, and made from one.
            ("typer", ""),
            ("hives", ""),
            ("schadensmeldung", ""),
            ("costume", ""),
            ("scraper", ""),
            ("tset", ""),
            ("texts", ""),
            ("provider", ""),
            ("cached", ""),
            ("logic", ""),
            ("orders", ""),
            ("customer", ""),
        ] {
            assert_eq!(mended(written, false).unwrap_or_default(), meant, "{written}");
        }
    }
}
