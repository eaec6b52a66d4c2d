//! What the nodes of each grammar mean. One file per language; the walk over the tree is in `code`.

mod dockerfile;
mod elixir;
mod go;
mod javascript;
mod python;
mod rust;
mod yaml;

use tree_sitter::Node;

use super::code::Counts;
use super::grammar::Grammar;

/// What a kind of node means wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    /// Not code: neither its lines nor what is in it count.
    Comment,
    /// One more path through the program.
    Decision,
    /// Holds arms: the first of these is no further path.
    Choice,
    /// Needs to be looked at.
    Look,
}

pub(super) struct Rules {
    pub(super) role: fn(&str) -> Role,
    /// Takes the node, the nodes around it (the nearest last: `Node::parent` searches from the root each time), and
    /// the source.
    pub(super) look: fn(Node<'_>, &[Node<'_>], &str, &mut Counts) -> Seen,
}

/// What the walk should know of a node that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    /// A function: its lines are counted.
    Function,
    /// Documentation: skipped like a comment.
    Comment,
}

/// The sources of what reads a program: `memory` takes from them which words matter.
pub(super) const SOURCES: [&str; 6] = [
    include_str!("mod.rs"),
    include_str!("elixir.rs"),
    include_str!("go.rs"),
    include_str!("javascript.rs"),
    include_str!("python.rs"),
    include_str!("rust.rs"),
];

pub(super) fn of(grammar: Grammar) -> &'static Rules {
    match grammar {
        Grammar::Rust => &rust::RULES,
        Grammar::Python => &python::RULES,
        Grammar::Go => &go::RULES,
        Grammar::JavaScript | Grammar::TypeScript | Grammar::Tsx => &javascript::RULES,
        Grammar::Elixir => &elixir::RULES,
        Grammar::Dockerfile => &dockerfile::RULES,
        Grammar::Yaml => &yaml::RULES,
        // Judged by its words, see `sql`.
        Grammar::Sql => &Rules { role: |_| Role::Plain, look: |_, _, _, _| Seen::Nothing },
    }
}

/// How much a body does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing, or says that it is to be written.
    Hollow,
    /// Gives back the nearest nothing (`None`, `Ok(())`, `nil`): an honest default or a stub, so half of each.
    Trivial,
    Solid,
}

/// Reads a body by its first statements: `judge` is asked of a statement that stands alone.
fn body_of(body: Node<'_>, judge: impl Fn(Node<'_>) -> Body) -> Body {
    let mut cursor = body.walk();
    let mut only = None;
    for child in body.named_children(&mut cursor) {
        if child.is_extra() {
            continue;
        }
        if only.replace(child).is_some() {
            return Body::Solid;
        }
    }
    only.map_or(Body::Hollow, judge)
}

/// A node's text, at most half a KiB of it: deep nodes are asked too, and all their texts together have no bound.
fn text<'a>(node: Node<'_>, source: &'a str) -> &'a str {
    let text = source.get(node.byte_range()).unwrap_or_default();
    &text[..text.floor_char_boundary(512)]
}

/// The text of a node that is searched, not compared: how long such nodes get is counted, as what stands behind the
/// first half KiB is not seen.
fn searched<'a>(node: Node<'_>, source: &'a str, counts: &mut Counts) -> &'a str {
    counts.widest = counts.widest.max(node.byte_range().len());
    text(node, source)
}

fn kind_of<'t>(parents: &[Node<'t>]) -> &'t str {
    parents.last().map_or("", Node::kind)
}

/// The words with which people and models leave a thing undone.
const UNDONE: [&str; 14] = [
    "todo",
    "fixme",
    "not implemented",
    "not yet implemented",
    "implement me",
    "implement this",
    "implementation goes here",
    "implementation here",
    "your code here",
    "your logic here",
    "code goes here",
    "rest of the code",
    "rest of the implementation",
    "omitted for brevity",
];

pub(super) fn is_placeholder(words: &str) -> bool {
    // Long comments explain; only their beginning can be a note to oneself.
    let words: String = words.chars().take(200).flat_map(char::to_lowercase).collect();
    let elided = words.trim_matches(['/', '#', '*', '-', ' ', '\n']);
    matches!(elided, "..." | "…") || UNDONE.iter().any(|undone| contains_words(&words, undone))
}

/// Whether such words stand anywhere in a text, be it code or comment.
pub(super) fn is_placeholder_anywhere(text: &str) -> bool {
    let lower = text.to_lowercase();
    UNDONE.iter().any(|undone| contains_words(&lower, undone))
}

/// `todo` is in "TODO: x", not in "todos".
fn contains_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(text[..at].chars().next_back()) && !letter(text[at + words.len()..].chars().next())
    })
}
