//! In Elixir nearly everything is a call: the name called says what it is.

use tree_sitter::Node;

use super::{Body, Role, Rules, Seen, is_placeholder, kind_of, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" => Role::Comment,
        "stab_clause" | "&&" | "||" | "and" | "or" => Role::Decision,
        "anonymous_function" => Role::Choice,
        "call" | "unary_operator" | "tuple" | "do_block" | "else_block" | "rescue_block" | "catch_block"
        | "after_block" => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    match node.kind() {
        "call" => return call(node, kind_of(parents), source, counts),
        "unary_operator" => return attribute(node, source, counts),
        "tuple" => {
            let tag = node.named_child(0).map_or("", |n| text(n, source));
            match tag {
                ":error" => counts.handled += 1.0,
                ":stop" | ":EXIT" | ":DOWN" => counts.handled += 0.5,
                _ => {}
            }
        }
        // The first arm of `case`, `cond`, `receive` and of an `else` is no further path.
        "do_block" | "else_block" => counts.decisions -= i64::from(has_arms(node)),
        "rescue_block" | "catch_block" => {
            let nothing = |arm: Node<'_>| {
                arm.child_by_field_name("right")
                    .is_none_or(|body| matches!(text(body, source).trim(), "nil" | ":ok" | ""))
            };
            let mut cursor = node.walk();
            let swallowed = node.named_children(&mut cursor).filter(|n| n.kind() == "stab_clause").all(nothing);
            *(if swallowed { &mut counts.swallowed } else { &mut counts.handled }) += 1.0;
        }
        "after_block" => counts.handled += 0.5,
        _ => {}
    }
    Seen::Nothing
}

fn has_arms(block: Node<'_>) -> bool {
    let mut cursor = block.walk();
    block.named_children(&mut cursor).any(|child| child.kind() == "stab_clause")
}

fn call(node: Node<'_>, parent: &str, source: &str, counts: &mut Counts) -> Seen {
    let Some(target) = node.child_by_field_name("target") else { return Seen::Nothing };
    match text(target, source) {
        "def" | "defp" | "defmacro" | "defmacrop" | "test" | "setup" | "setup_all" | "property" => {
            if let Some(body) = body(node, source) {
                counts.function(body, 1.0);
                return Seen::Function;
            }
        }
        "defmodule" | "defprotocol" | "defimpl" => {
            let empty = block(node).is_some_and(|block| block.named_child_count() == 0);
            *(if empty { &mut counts.hollow } else { &mut counts.types }) += 1.0;
        }
        "defstruct" | "schema" | "embedded_schema" | "describe" | "scope" | "create" | "alter" => counts.types += 1.0,
        "defexception" => {
            counts.types += 1.0;
            counts.handled += 1.0;
        }
        "if" | "unless" | "for" => counts.decisions += 1,
        "with" => {
            counts.decisions += 1;
            counts.handled += 1.0;
        }
        "raise" | "reraise" | "throw" if !is_placeholder(text(node, source)) => counts.handled += 1.0,
        "assert_raise" | "Process.flag" => counts.handled += 1.0,
        "Supervisor.start_link" | "Supervisor.init" | "DynamicSupervisor.init" => counts.handled += 1.0,
        "Logger.error" | "Logger.warning" => counts.handled += 0.5,
        // A schema's own way to refuse a value.
        "validate_required" | "unique_constraint" | "foreign_key_constraint" | "check_constraint" => {
            counts.handled += 0.5
        }
        _ if parent == "source" => counts.statements += 1,
        _ => {}
    }
    Seen::Nothing
}

/// `@doc` and its like are no code.
fn attribute(node: Node<'_>, source: &str, counts: &mut Counts) -> Seen {
    let words = text(node, source);
    let documentation = words.starts_with("@doc")
        || words.starts_with("@moduledoc")
        || words.starts_with("@typedoc")
        || words.starts_with("@shortdoc");
    if documentation && is_placeholder(words) {
        counts.hollow += 0.5;
    }
    if documentation { Seen::Comment } else { Seen::Nothing }
}

fn block(call: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = call.walk();
    call.named_children(&mut cursor).find(|child| child.kind() == "do_block")
}

/// The body behind `do … end` or `, do: …`; `None` for a head without one.
fn body(call: Node<'_>, source: &str) -> Option<Body> {
    if let Some(block) = block(call) {
        let mut cursor = block.walk();
        let mut inner = block.named_children(&mut cursor).filter(|child| !child.is_extra());
        return Some(match (inner.next(), inner.next()) {
            (None, _) => Body::Hollow,
            (Some(only), None) => alone(text(only, source)),
            _ => Body::Solid,
        });
    }
    let arguments = call.named_child(1)?;
    let keywords = arguments.named_child(u32::try_from(arguments.named_child_count()).ok()?.checked_sub(1)?)?;
    let pair = keywords.named_child(0).filter(|pair| pair.kind() == "pair")?;
    let value = pair.child_by_field_name("value")?;
    // A clause on one line may well be a constant: `def name(:a), do: nil`.
    Some(match alone(text(value, source)) {
        Body::Hollow => Body::Trivial,
        other => other,
    })
}

fn alone(words: &str) -> Body {
    match words.trim() {
        "nil" | ":not_implemented" | "{:error, :not_implemented}" => Body::Hollow,
        ":ok" | "{:ok, nil}" => Body::Trivial,
        words if words.starts_with("raise") && is_placeholder(words) => Body::Hollow,
        _ => Body::Solid,
    }
}
