use tree_sitter::Node;

use super::{Body, Role, Rules, Seen, is_placeholder, kind_of, searched, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" => Role::Comment,
        "if_statement"
        | "elif_clause"
        | "for_statement"
        | "while_statement"
        | "conditional_expression"
        | "boolean_operator"
        | "case_clause"
        | "for_in_clause"
        | "if_clause" => Role::Decision,
        "match_statement" => Role::Choice,
        "function_definition"
        | "class_definition"
        | "block"
        | "except_clause"
        | "raise_statement"
        | "finally_clause"
        | "with_statement"
        | "call"
        | "expression_statement" => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    match node.kind() {
        "function_definition" => {
            if let Some(body) = node.child_by_field_name("body")
                && !is_abstract(node, parents, source, counts)
            {
                counts.function(read(body, source), 1.0);
            }
            return Seen::Function;
        }
        "class_definition" => match node.child_by_field_name("body").map(|body| read(body, source)) {
            Some(Body::Hollow) if node.child_by_field_name("superclasses").is_none() => counts.hollow += 0.5,
            _ => counts.types += 1.0,
        },
        // The grammar takes `def f():` followed by nothing; Python does not.
        "block" => {
            let mut cursor = node.walk();
            if !node.named_children(&mut cursor).any(|child| !child.is_extra()) {
                counts.fault(node.start_position(), "expected an indented block");
            }
        }
        "except_clause" => {
            counts.decisions += 1;
            let mut cursor = node.walk();
            let body = node.named_children(&mut cursor).find(|n| n.kind() == "block");
            if body.is_some_and(|body| read(body, source) == Body::Hollow) {
                counts.swallowed += 1.0;
            } else {
                let bare = node.child_by_field_name("value").is_none();
                counts.handled += if bare { 0.5 } else { 1.0 };
            }
        }
        "raise_statement" => {
            let words = searched(node, source, counts);
            if !words.contains("NotImplementedError") {
                counts.handled += 1.0;
            }
        }
        "finally_clause" | "with_statement" => counts.handled += 0.5,
        "call" => match node.child_by_field_name("function").map_or("", |f| text(f, source)) {
            "pytest.raises" | "self.assertRaises" | "self.assertRaisesRegex" => counts.handled += 1.0,
            "suppress" | "contextlib.suppress" => counts.swallowed += 0.5,
            _ => {}
        },
        "expression_statement" => {
            let alone = node.named_child_count() == 1;
            if alone && node.named_child(0).is_some_and(|only| only.kind() == "string") {
                if is_placeholder(text(node, source)) {
                    counts.hollow += 0.5;
                }
                return Seen::Comment;
            }
            counts.statements += usize::from(kind_of(parents) == "module");
        }
        _ => {}
    }
    Seen::Nothing
}

/// What a body does beyond its documentation.
fn read(body: Node<'_>, source: &str) -> Body {
    let mut cursor = body.walk();
    let mut rest = body.named_children(&mut cursor).filter(|child| !child.is_extra() && !is_string(*child));
    match (rest.next(), rest.next()) {
        (None, _) => Body::Hollow,
        (Some(only), None) => alone(only, source),
        _ => Body::Solid,
    }
}

fn is_string(statement: Node<'_>) -> bool {
    statement.kind() == "expression_statement" && statement.named_child(0).is_some_and(|only| only.kind() == "string")
}

fn alone(statement: Node<'_>, source: &str) -> Body {
    let words = text(statement, source);
    match words {
        "pass" | "..." | "return" => Body::Hollow,
        "return None" | "return {}" | "return []" => Body::Trivial,
        _ if words.starts_with("raise NotImplemented") => Body::Hollow,
        _ if words.starts_with("raise") && is_placeholder(words) => Body::Hollow,
        _ => Body::Solid,
    }
}

/// Declared for others to write: an abstract method, an overload, a member of a protocol.
fn is_abstract(function: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> bool {
    let mut around = parents.iter().rev().peekable();
    if let Some(outer) = around.next_if(|p| p.kind() == "decorated_definition") {
        let decorators = source.get(outer.start_byte()..function.start_byte()).unwrap_or_default();
        if decorators.contains("abstract") || decorators.contains("overload") {
            return true;
        }
    }
    around
        .nth(1)
        .filter(|class| class.kind() == "class_definition")
        .and_then(|class| class.child_by_field_name("superclasses"))
        .is_some_and(|bases| searched(bases, source, counts).contains("Protocol"))
}
