//! What people write for the words that the rules know: `config/words.toml`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::words::stem;
use crate::domain::TaskType;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fillers: String,
    means: BTreeMap<String, String>,
    joined: BTreeMap<String, String>,
    spelling: Spelling,
    foreign: Foreign,
    verbs: Verbs,
    common: BTreeMap<TaskType, Vec<String>>,
    doers: Foreign,
    audience: Audience,
    versions: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Audience {
    openings: String,
    groups: String,
    wholes: String,
    purposes: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verbs {
    changing: String,
    taking: String,
    relating: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelling {
    corrected_to: String,
    kept: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    words: String,
}

#[derive(Debug, Default)]
pub(super) struct Lexicon {
    fillers: HashSet<String>,
    means: HashMap<String, String>,
    joined: HashMap<(String, String), String>,
    /// By first letter.
    spelled: HashMap<char, Vec<String>>,
    /// Stems of words that are no misspellings.
    known: HashSet<String>,
    foreign: HashSet<String>,
    changing: HashSet<String>,
    taking: HashSet<String>,
    relating: HashSet<String>,
    common: BTreeMap<TaskType, Vec<String>>,
    doers: HashSet<String>,
    openings: HashSet<String>,
    groups: HashSet<String>,
    wholes: HashSet<String>,
    purposes: HashSet<String>,
    versions: HashMap<String, Vec<String>>,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
    // A test reads the file: what can't be read is never shipped.
    toml::from_str::<File>(include_str!("../../config/words.toml")).map(Lexicon::from).unwrap_or_default()
});

impl From<File> for Lexicon {
    fn from(file: File) -> Self {
        let set = |text: &str| text.split_whitespace().map(str::to_owned).collect::<HashSet<String>>();
        let pairs = |table: BTreeMap<String, String>| table.into_iter();
        let means: HashMap<String, String> = pairs(file.means)
            .flat_map(|(word, all)| all.split(' ').map(|w| (w.to_owned(), word.clone())).collect::<Vec<_>>())
            .collect();
        let joined = pairs(file.joined)
            .flat_map(|(word, pairs)| {
                let two = |pair: &str| pair.split_once(' ').map(|(a, b)| ((a.to_owned(), b.to_owned()), word.clone()));
                pairs.split('|').filter_map(two).collect::<Vec<_>>()
            })
            .collect();
        let mut spelled: HashMap<char, Vec<String>> = HashMap::new();
        for word in file.spelling.corrected_to.split_whitespace() {
            for form in [word.to_owned(), format!("{word}s")] {
                spelled.entry(word.chars().next().unwrap_or_default()).or_default().push(form);
            }
        }
        let (fillers, foreign) = (set(&file.fillers), set(&file.foreign.words));
        let all = spelled.values().flatten().chain(means.keys()).chain(means.values()).chain(&fillers).chain(&foreign);
        let mut known: HashSet<String> = all.map(|w| stem(w)).collect();
        known.extend(file.spelling.kept.split_whitespace().map(stem));
        known.extend(super::classify::vocabulary().flat_map(str::split_whitespace).map(stem));
        let (changing, taking, relating) =
            (set(&file.verbs.changing), set(&file.verbs.taking), set(&file.verbs.relating));
        let (groups, wholes, purposes) =
            (set(&file.audience.groups), set(&file.audience.wholes), set(&file.audience.purposes));
        let versions = pairs(file.versions)
            .map(|(name, all)| (name, all.split_whitespace().map(str::to_owned).collect()))
            .collect();
        Self {
            fillers,
            means,
            joined,
            spelled,
            known,
            foreign,
            changing,
            taking,
            relating,
            common: file.common,
            doers: set(&file.doers.words),
            openings: set(&file.audience.openings),
            groups,
            wholes,
            purposes,
            versions,
        }
    }
}

/// What a lower-case word means, where people write something else for it.
pub(super) fn meaning(lower: &str) -> Option<&'static str> {
    LEXICON.means.get(lower).map(String::as_str)
}

/// The one word that two in a row are.
pub(super) fn joined(first: &str, second: &str) -> Option<&'static str> {
    LEXICON.joined.get(&(first.to_owned(), second.to_owned())).map(String::as_str)
}

/// The known word that a lower-case word most likely is a misspelling of.
pub(super) fn corrected(lower: &str) -> Option<&'static str> {
    if lower.len() < 5 || lower.len() > 20 || !lower.bytes().all(|b| b.is_ascii_lowercase()) {
        return None;
    }
    let candidates = LEXICON.spelled.get(&lower.chars().next()?)?;
    if LEXICON.known.contains(&stem(lower)) {
        return None;
    }
    if crate::cache::is_english(lower) {
        return None;
    }
    let near = |most: usize| candidates.iter().find(|word| is_near(lower.as_bytes(), word.as_bytes(), most));
    // In a long word two letters may be wrong.
    near(1).or_else(|| near(2).filter(|_| lower.len() >= 8)).map(String::as_str)
}

/// Whether so many edits at most lead from one to the other.
fn is_near(a: &[u8], b: &[u8], most: usize) -> bool {
    match most {
        1 => is_one_edit_away(a, b),
        _ => {
            // One edit, where they begin to differ, and the rest is one edit away.
            let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
            let (a, b) = (&a[same..], &b[same..]);
            let near =
                |i: usize, j: usize| a.get(i..).zip(b.get(j..)).is_some_and(|(a, b)| a == b || is_one_edit_away(a, b));
            let swapped = a.len() > 1 && b.len() > 1 && a[0] == b[1] && a[1] == b[0];
            near(1, 1) || near(1, 0) || near(0, 1) || (swapped && near(2, 2))
        }
    }
}

pub(super) fn is_filler(lower: &str) -> bool {
    LEXICON.fillers.contains(lower)
}

pub(super) fn is_foreign(lower: &str) -> bool {
    LEXICON.foreign.contains(lower)
}

/// A verb for code or data that exist.
pub(super) fn changes(lower: &str) -> bool {
    LEXICON.changing.contains(lower)
}

/// A verb whose object the task is about.
pub(super) fn takes(lower: &str) -> bool {
    LEXICON.taking.contains(lower)
}

/// A verb that says no more than that a thing is worked on.
pub(super) fn relates(lower: &str) -> bool {
    LEXICON.relating.contains(lower)
}

/// Words that every template of a type honours.
pub(super) fn common(task_type: TaskType) -> &'static [String] {
    LEXICON.common.get(&task_type).map_or(&[], Vec::as_slice)
}

/// A name that promises what only code of its own does: "logger", "heap".
pub(super) fn does(lower: &str) -> bool {
    LEXICON.doers.contains(lower)
}

/// A word of what stands before a task: "*again*:", "one *more*:".
pub(super) fn opens(lower: &str) -> bool {
    LEXICON.openings.contains(lower)
}

/// People that a thing is made for: "the billing *team*".
pub(super) fn is_group(lower: &str) -> bool {
    LEXICON.groups.contains(lower)
}

/// What a thing is a part of: "our *app*".
pub(super) fn is_whole(lower: &str) -> bool {
    LEXICON.wholes.contains(lower)
}

/// What a purpose may say without asking for more: "so that other services can *use* it".
pub(super) fn is_purpose(lower: &str) -> bool {
    LEXICON.purposes.contains(lower)
}

/// Whether all code of the templates is for this version of a language or database.
pub(super) fn is_for_version(name: &str, version: &str) -> bool {
    LEXICON.versions.get(name).is_some_and(|all| all.iter().any(|known| is_same_version(known, version)))
}

/// "2" and "2.0" are "2.0.51".
pub(super) fn is_same_version(one: &str, other: &str) -> bool {
    one.split('.').zip(other.split('.')).all(|(a, b)| a == b)
}

/// One letter changed, left out, put in, or two neighbours swapped.
fn is_one_edit_away(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    match long.len() - short.len() {
        0 => {
            let rest = |skip: usize| short.get(same + skip..) == long.get(same + skip..);
            let swapped = same + 1 < short.len() && short[same] == long[same + 1] && short[same + 1] == long[same];
            same < short.len() && (rest(1) || (swapped && rest(2)))
        }
        1 => short[same..] == long[same + 1..],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read_and_no_word_means_two_things() {
        let file: File = toml::from_str(include_str!("../../config/words.toml")).unwrap();
        let mut seen = HashSet::new();
        for word in file.means.values().flat_map(|all| all.split(' ')) {
            assert!(seen.insert(word.to_owned()), "{word} stands twice");
            assert!(!file.means.contains_key(word), "{word} means something and is meant");
        }
        assert!(file.joined.values().flat_map(|all| all.split('|')).all(|two| two.split(' ').count() == 2));
    }

    #[test]
    fn misspellings_are_mended_and_words_of_their_own_are_left_alone() {
        for (written, meant) in [
            ("consmer", "consumer"),
            ("endpont", "endpoint"),
            ("dokcerfile", "dockerfile"),
            ("subsriber", "subscriber"),
            ("procesing", "processing"),
            ("tset", ""),
            ("texts", ""),
            ("provider", ""),
            ("cached", ""),
            ("logic", ""),
            ("orders", ""),
            ("customer", ""),
        ] {
            assert_eq!(corrected(written).unwrap_or_default(), meant, "{written}");
        }
    }
}
