//! A name from a task in every spelling that code needs.

use serde::Serialize;

/// The spellings of one name. `one` and `many` are its singular and plural.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Noun {
    #[serde(flatten)]
    forms: Forms,
    one: Forms,
    many: Forms,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Forms {
    words: String,
    title: String,
    snake: String,
    kebab: String,
    pascal: String,
    camel: String,
    r#const: String,
    dotted: String,
}

impl Noun {
    /// From a phrase as people write it: "user events", "UserEvents", "user_events", "API keys".
    /// `None` where nothing of it can stand in an identifier.
    pub fn new(phrase: &str) -> Option<Self> {
        let mut words = split(phrase);
        if let [only] = words.as_slice() {
            let forms = [only.clone(), number(only, 1), number(only, 2)];
            // "unit tests for type": no language takes that as a name, "type item" all do.
            if forms.iter().any(|form| RESERVED.contains(&form.as_str())) {
                words.push("item".to_owned());
            }
        }
        Self::of_words(&words)
    }

    /// The name of a column, member or property, which is kept as it was given: a column may be called `type`. Where
    /// the code needs an identifier, the template's filter `ident` escapes it.
    pub fn of_field(name: &str) -> Option<Self> {
        Self::of_words(&split(name))
    }

    fn of_words(words: &[String]) -> Option<Self> {
        let last = words.last()?;
        let with_last = |last: String| {
            let mut words = words.to_vec();
            if let Some(end) = words.last_mut() {
                *end = last;
            }
            Forms::new(&words)
        };
        let one = with_last(number(last, 1));
        let many = with_last(number(last, 2));
        Some(Self { forms: Forms::new(words), one, many })
    }

    /// "orders" and "order" are names of one thing.
    pub fn is_same_thing(&self, other: &Self) -> bool {
        self.one == other.one
    }

    pub fn dotted(&self) -> &str {
        &self.forms.dotted
    }

    pub fn kebab(&self) -> &str {
        &self.forms.kebab
    }

    pub fn words(&self) -> &str {
        &self.forms.words
    }

    pub fn many_kebab(&self) -> &str {
        &self.many.kebab
    }
}

impl Forms {
    fn new(words: &[String]) -> Self {
        let pascal: String = words.iter().map(|w| capital(w)).collect();
        let camel = words.iter().enumerate().map(|(i, w)| if i == 0 { w.clone() } else { capital(w) }).collect();
        let spaced = words.join(" ");
        Self {
            title: capital(&spaced),
            snake: words.join("_"),
            kebab: words.join("-"),
            r#const: words.join("_").to_uppercase(),
            dotted: words.join("."),
            words: spaced,
            pascal,
            camel,
        }
    }
}

/// Words that one of the seven languages keeps for itself, or that its libraries make unusable as a name.
const RESERVED: [&str; 91] = [
    "abstract",
    "after",
    "and",
    "any",
    "as",
    "assert",
    "async",
    "await",
    "bool",
    "boolean",
    "box",
    "break",
    "case",
    "catch",
    "chan",
    "class",
    "const",
    "continue",
    "crate",
    "create",
    "def",
    "default",
    "defer",
    "del",
    "delete",
    "do",
    "dyn",
    "elif",
    "else",
    "end",
    "enum",
    "except",
    "export",
    "extends",
    "extern",
    "fallthrough",
    "false",
    "final",
    "finally",
    "float",
    "fn",
    "for",
    "from",
    "func",
    "function",
    "global",
    "go",
    "goto",
    "if",
    "impl",
    "import",
    "in",
    "int",
    "interface",
    "is",
    "lambda",
    "let",
    "loop",
    "map",
    "match",
    "mod",
    "mut",
    "nil",
    "none",
    "not",
    "null",
    "or",
    "package",
    "pass",
    "print",
    "pub",
    "raise",
    "range",
    "rescue",
    "return",
    "select",
    "self",
    "static",
    "string",
    "struct",
    "super",
    "switch",
    "trait",
    "true",
    "try",
    "type",
    "union",
    "var",
    "while",
    "with",
    "yield",
];

/// Lower-case ASCII words, the first of which begins with a letter, as identifiers in all seven languages need.
fn split(phrase: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    let mut previous = ' ';
    let letters: Vec<char> = phrase.chars().take(120).flat_map(plain).collect();
    for (at, &c) in letters.iter().enumerate() {
        // "HTTPServer" is two words; "APIs" and "OAuth" are one.
        let acronym_ends = c.is_ascii_uppercase()
            && at >= 2
            && letters[at - 2..at].iter().all(char::is_ascii_uppercase)
            && letters.get(at + 1..at + 3).is_some_and(|next| next.iter().all(char::is_ascii_lowercase));
        let begins = !previous.is_ascii_alphanumeric()
            || (previous.is_ascii_lowercase() && c.is_ascii_uppercase())
            || acronym_ends;
        if c.is_ascii_alphanumeric() {
            if begins || words.is_empty() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
        }
        previous = c;
    }
    if words.first().is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit())) {
        words.insert(0, "n".to_owned());
    }
    words
}

/// A letter without its marks, as people write it where only ASCII will do: "ä" is "ae".
fn plain(letter: char) -> impl Iterator<Item = char> {
    let lower = letter.to_lowercase().next().unwrap_or(letter);
    let (first, second) = match lower {
        'ä' | 'æ' => ('a', Some('e')),
        'ö' | 'œ' => ('o', Some('e')),
        'ü' => ('u', Some('e')),
        'ß' => ('s', Some('s')),
        'á' | 'à' | 'â' | 'ã' | 'å' => ('a', None),
        'é' | 'è' | 'ê' | 'ë' => ('e', None),
        'í' | 'ì' | 'î' | 'ï' => ('i', None),
        'ó' | 'ò' | 'ô' | 'õ' | 'ø' => ('o', None),
        'ú' | 'ù' | 'û' => ('u', None),
        'ç' => ('c', None),
        'ñ' => ('n', None),
        _ => (letter, None),
    };
    let first = if letter.is_uppercase() { first.to_ascii_uppercase() } else { first };
    [Some(first), second].into_iter().flatten()
}

/// Words that have no other number in code, whatever grammars say.
const SAME: [&str; 18] = [
    "analytics",
    "kubernetes",
    "postgres",
    "redis",
    "data",
    "feedback",
    "hardware",
    "info",
    "information",
    "logic",
    "media",
    "metadata",
    "news",
    "series",
    "software",
    "staff",
    "storage",
    "telemetry",
];

/// Words that the rules of plurals get wrong, in the singular and the plural.
const IRREGULAR: [(&str, &str); 5] =
    [("axis", "axes"), ("cache", "caches"), ("headache", "headaches"), ("lens", "lenses"), ("virus", "viruses")];

/// The singular (1) or plural (2) of a word.
fn number(word: &str, count: isize) -> String {
    if SAME.contains(&word) {
        return word.to_owned();
    }
    if let Some((one, many)) = IRREGULAR.iter().find(|(one, many)| word == *one || word == *many) {
        return if count == 1 { one } else { many }.to_string();
    }
    pluralizer::pluralize(word, count, false)
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_phrase_has_every_spelling() {
        let noun = Noun::new("user events").unwrap();
        assert_eq!(
            (noun.forms.pascal.as_str(), noun.forms.r#const.as_str(), noun.dotted()),
            ("UserEvents", "USER_EVENTS", "user.events")
        );
        assert_eq!(noun.one.pascal, "UserEvent");
        assert_eq!(Noun::new("category").unwrap().many_kebab(), "categories");
        for (written, one, many) in [
            ("people", "person", "people"),
            ("analyses", "analysis", "analyses"),
            ("indices", "index", "indices"),
            ("statuses", "status", "statuses"),
            ("data", "data", "data"),
            ("caches", "cache", "caches"),
            ("HTTP APIs", "http_api", "http_apis"),
            ("IDs", "id", "ids"),
            ("OAuth tokens", "oauth_token", "oauth_tokens"),
            ("HTTPServer", "http_server", "http_servers"),
        ] {
            let noun = Noun::new(written).unwrap();
            assert_eq!((noun.one.snake.as_str(), noun.many.snake.as_str()), (one, many), "{written}");
        }
        assert_eq!(Noun::new("Mietverträge").unwrap().forms.pascal, "Mietvertraege");
        assert_eq!(Noun::new("Ölwechsel año").unwrap().forms.snake, "oelwechsel_ano");
        assert_eq!(Noun::new("OrderItems").unwrap().forms.snake, "order_items");
        assert_eq!(Noun::new("types").unwrap().one.snake, "types_item", "`type` is no name in Rust");
        assert_eq!(Noun::new("3d models").unwrap().forms.snake, "n_3d_models");
    }

    #[test]
    fn what_is_no_identifier_never_gets_into_one() {
        assert_eq!(Noun::new("{{ 7*7 }}; DROP").unwrap().forms.snake, "n_7_7_drop");
        assert_eq!(Noun::new("🦀 — …"), None);
    }
}
