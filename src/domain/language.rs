use std::fmt;

use serde::{Deserialize, Serialize};

/// A programming language. `Other` is one that Tandem has no templates for: a model may still write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(with = "String")]
#[serde(from = "String", into = "String")]
pub enum Language {
    Elixir,
    Rust,
    TypeScript,
    Go,
    Python,
    JavaScript,
    Sql,
    Other(Box<str>),
}

/// The spellings under which a language is known, the canonical one first.
const NAMES: [(Language, &[&str]); 7] = [
    (Language::Elixir, &["elixir", "ex", "exs"]),
    (Language::Rust, &["rust", "rs", "rustlang"]),
    (Language::TypeScript, &["typescript", "ts", "tsx"]),
    (Language::Go, &["go", "golang"]),
    (Language::Python, &["python", "py", "python3"]),
    (Language::JavaScript, &["javascript", "js", "node", "nodejs", "node.js", "ecmascript"]),
    (Language::Sql, &["sql", "postgresql", "postgres", "sqlite", "psql"]),
];

impl Language {
    /// The languages that templates exist for.
    pub fn known() -> impl Iterator<Item = Language> {
        NAMES.iter().map(|(language, _)| language.clone())
    }

    pub fn as_str(&self) -> &str {
        if let Self::Other(name) = self {
            return name;
        }
        NAMES.iter().find(|(language, _)| language == self).map_or("", |(_, names)| names[0])
    }

    /// By canonical name or alias, in any case. `None` where no known language is called so.
    pub fn named(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        NAMES.iter().find(|(_, names)| names.contains(&text.as_str())).map(|(language, _)| language.clone())
    }

    /// The known language that a misspelt name most likely means ("pyhton"): one or two letters off a long name.
    pub fn nearest(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        NAMES
            .iter()
            .map(|(language, names)| (edits(&text, names[0]), names[0].len(), language))
            .filter(|(edits, length, _)| *length >= 4 && *edits <= if *length >= 6 { 2 } else { 1 })
            .min_by_key(|(edits, ..)| *edits)
            .map(|(.., language)| language.clone())
    }
}

impl From<String> for Language {
    fn from(text: String) -> Self {
        Self::named(&text).unwrap_or_else(|| Self::Other(text.trim().to_lowercase().into()))
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.as_str().to_owned()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Edit distance in which two swapped neighbours are one edit (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_misspellings_find_their_language_and_strangers_none() {
        assert_eq!(Language::named("TS"), Some(Language::TypeScript));
        assert_eq!(Language::nearest("pyhton"), Some(Language::Python));
        assert_eq!(Language::nearest("ruts"), Some(Language::Rust));
        assert_eq!(Language::nearest("java"), None, "Java is no misspelt JavaScript");
        assert_eq!(Language::nearest("cobol"), None);
        assert_eq!(Language::from("Kotlin".to_owned()).as_str(), "kotlin");
    }
}
