//! What people write for the words that the rules know: `config/words.toml`.

pub(super) mod spelling;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

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
    /// By the first word and the second.
    joined: HashMap<String, HashMap<String, String>>,
    /// Words that a misspelling may stand for.
    spelled: Vec<String>,
    /// Words that are no misspellings.
    unmended: Vec<String>,
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
        let mut joined: HashMap<String, HashMap<String, String>> = HashMap::new();
        for (word, two) in &file.joined {
            for (first, second) in two.split('|').filter_map(|two| two.split_once(' ')) {
                joined.entry(first.to_owned()).or_default().insert(second.to_owned(), word.clone());
            }
        }
        let (fillers, foreign) = (set(&file.fillers), set(&file.foreign.words));
        let listed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut spelled = listed(&file.spelling.corrected_to);
        spelled.extend(fillers.iter().chain(means.values()).chain(file.joined.keys()).cloned());
        for text in [&file.verbs.changing, &file.verbs.taking, &file.verbs.relating] {
            spelled.extend(listed(text));
        }
        spelled.extend(file.common.values().flatten().cloned());
        let mut unmended = listed(&file.spelling.kept);
        unmended.extend(means.keys().chain(&foreign).cloned());
        let audience = [&file.audience.openings, &file.audience.groups, &file.audience.wholes, &file.audience.purposes];
        unmended.extend(audience.into_iter().chain([&file.doers.words]).flat_map(|text| listed(text)));
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
            unmended,
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
    LEXICON.joined.get(first)?.get(second).map(String::as_str)
}

/// Words, some of them two in a row or several to choose from, that a misspelling may stand for.
pub(super) fn vocabulary() -> impl Iterator<Item = &'static str> {
    LEXICON.spelled.iter().map(String::as_str)
}

/// Words that look like misspellings of others, and are none.
pub(super) fn unmended() -> impl Iterator<Item = &'static str> {
    LEXICON.unmended.iter().map(String::as_str)
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
}
