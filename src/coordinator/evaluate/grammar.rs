//! Parsing within limits, and saying where a parse went wrong.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use tree_sitter::{Node, ParseOptions, Parser, Point, Tree};

use super::rules::{self, Role};
use crate::domain::Language;

/// Texts above this are not parsed: it is far more than a model writes in one answer, and bounds memory.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Hundreds of parser operations allowed, and bytes of text that allow one more. A thousand files of the languages'
/// own libraries needed 0.005 to 0.018 a byte; what needs more keeps the error recovery busy on purpose. Counted, not
/// timed: the verdict is the same on every machine. The worst texts found take some 3 µs a byte.
const MAX_STEPS: usize = 200;
const BYTES_PER_STEP: usize = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    Rust,
    Python,
    Go,
    JavaScript,
    TypeScript,
    Tsx,
    Elixir,
    Sql,
    Dockerfile,
    Yaml,
}

const COUNT: usize = 10;

thread_local! {
    static PARSERS: RefCell<[Option<Parser>; COUNT]> = const { RefCell::new([const { None }; COUNT]) };
}

impl Grammar {
    pub(super) const ALL: [Self; COUNT] = [
        Self::Rust,
        Self::Python,
        Self::Go,
        Self::JavaScript,
        Self::TypeScript,
        Self::Tsx,
        Self::Elixir,
        Self::Sql,
        Self::Dockerfile,
        Self::Yaml,
    ];

    pub(super) fn of(language: &Language) -> Option<Self> {
        Some(match language {
            Language::Rust => Self::Rust,
            Language::Python => Self::Python,
            Language::Go => Self::Go,
            Language::JavaScript => Self::JavaScript,
            Language::TypeScript => Self::TypeScript,
            Language::Elixir => Self::Elixir,
            Language::Sql => Self::Sql,
            Language::Other(name) => match &**name {
                "dockerfile" | "containerfile" | "docker" => Self::Dockerfile,
                "yaml" | "yml" => Self::Yaml,
                _ => return None,
            },
        })
    }

    /// Whether what is written in it branches.
    pub(super) fn is_program(self) -> bool {
        !matches!(self, Self::Dockerfile | Self::Yaml)
    }

    /// Whether its graders compare no two words of a text with each other.
    pub(super) fn ignores_names(self) -> bool {
        !matches!(self, Self::Sql | Self::Dockerfile | Self::Yaml)
    }

    /// What its tokens and nodes are called: every keyword is among them.
    pub(super) fn kinds(self) -> Vec<String> {
        let language = self.language();
        let kind = |id| u16::try_from(id).ok().and_then(|id| language.node_kind_for_id(id));
        (0..language.node_kind_count()).filter_map(kind).map(str::to_owned).collect()
    }

    fn language(self) -> tree_sitter::Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::Elixir => tree_sitter_elixir::LANGUAGE.into(),
            Self::Sql => tree_sitter_sequel::LANGUAGE.into(),
            Self::Dockerfile => tree_sitter_containerfile::LANGUAGE.into(),
            Self::Yaml => tree_sitter_yaml::LANGUAGE.into(),
        }
    }

    /// The role of every kind of node, by the kind's number: asked for each node of each text.
    pub(super) fn roles(self) -> &'static [Role] {
        static ROLES: [OnceLock<Box<[Role]>>; COUNT] = [const { OnceLock::new() }; COUNT];
        ROLES[self as usize].get_or_init(|| {
            let (language, rules) = (self.language(), rules::of(self));
            (0..language.node_kind_count())
                .map(|id| u16::try_from(id).ok().and_then(|id| language.node_kind_for_id(id)))
                .map(|kind| kind.map_or(Role::Plain, rules.role))
                .collect()
        })
    }

    /// `None` where the text is too large, or too tangled, to be read.
    pub(super) fn parse(self, text: &str) -> Option<Tree> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut parser = PARSERS.with_borrow_mut(|parsers| parsers[self as usize].take()).or_else(|| {
            let mut parser = Parser::new();
            parser.set_language(&self.language()).ok()?;
            Some(parser)
        })?;
        let mut used = 0_usize;
        let most = MAX_STEPS + text.len() / BYTES_PER_STEP;
        let mut progress = |_: &_| {
            used += 1;
            if used > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let mut read = |at: usize, _| text.as_bytes().get(at..).unwrap_or_default();
        let tree = parser.parse_with_options(&mut read, None, Some(options));
        if tree.is_some() {
            PARSERS.with_borrow_mut(|parsers| parsers[self as usize] = Some(parser));
        }
        tree
    }
}

/// Where a tree's first error is and what it looks like.
pub(super) fn first_error(tree: &Tree) -> Option<(Point, String)> {
    let mut node = tree.root_node();
    if !node.has_error() {
        return None;
    }
    loop {
        let mut cursor = node.walk();
        match node.children(&mut cursor).find(Node::has_error) {
            Some(child) if child.is_missing() => return Some(missing(child, node)),
            Some(child) => node = child,
            None => return Some(within(node)),
        }
    }
}

/// A bracket that is missing is missed where its text ends; what tells more is where it was opened.
fn missing(node: Node<'_>, parent: Node<'_>) -> (Point, String) {
    let opening = match node.kind() {
        ")" => "(",
        "]" => "[",
        "}" => "{",
        "end" => "do",
        other => return (node.start_position(), format!("missing `{other}`")),
    };
    let mut cursor = parent.walk();
    match parent.children(&mut cursor).find(|child| child.kind() == opening) {
        Some(bracket) => (bracket.start_position(), format!("unclosed `{opening}`")),
        None => (node.start_position(), format!("missing `{}`", node.kind())),
    }
}

/// An error node spans all that the parser gave up on; an opening bracket in it that nothing closes tells more.
fn within(error: Node<'_>) -> (Point, String) {
    let mut open: Vec<Node<'_>> = Vec::new();
    let mut last = error;
    let mut cursor = error.walk();
    for child in error.children(&mut cursor) {
        last = child;
        match child.kind() {
            "(" | "[" | "{" | "do" => open.push(child),
            ")" | "]" | "}" | "end" => drop(open.pop()),
            _ => {}
        }
    }
    if let Some(bracket) = open.first() {
        return (bracket.start_position(), format!("unclosed `{}`", bracket.kind()));
    }
    let many_lines = error.end_position().row > error.start_position().row;
    (if many_lines { last } else { error }.start_position(), "unexpected".to_owned())
}
