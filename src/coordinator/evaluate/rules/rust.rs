use tree_sitter::Node;

use super::{Body, Role, Rules, Seen, body_of, is_placeholder, kind_of, searched, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "line_comment" | "block_comment" => Role::Comment,
        "if_expression" | "while_expression" | "for_expression" => Role::Decision,
        "match_block" => Role::Choice,
        "function_item" | "struct_item" | "enum_item" | "union_item" | "trait_item" | "impl_item" | "mod_item"
        | "type_item" | "macro_definition" | "const_item" | "static_item" | "call_expression" | "macro_invocation"
        | "match_arm" | "let_declaration" | "let_condition" | "attribute_item" | "try_expression" | "&&" | "||" => {
            Role::Look
        }
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    if matches!(node.kind(), "function_item" | "mod_item") && std::mem::take(&mut counts.test_follows) {
        counts.lenient_until = counts.lenient_until.max(node.end_byte());
    }
    match node.kind() {
        "function_item" => {
            if let Some(body) = node.child_by_field_name("body") {
                counts.function(body_of(body, |only| alone(only, source)), 1.0);
                return Seen::Function;
            }
        }
        "struct_item" | "enum_item" | "union_item" | "type_item" | "trait_item" | "macro_definition" => {
            counts.types += 1.0
        }
        "impl_item" | "mod_item" => match node.child_by_field_name("body") {
            Some(body) if body.named_child_count() == 0 && node.child_by_field_name("trait").is_none() => {
                counts.hollow += 0.5;
            }
            Some(_) => counts.types += 1.0,
            None => {}
        },
        "const_item" | "static_item" => counts.statements += 1,
        "&&" | "||" => {
            let binary = matches!(kind_of(parents), "binary_expression" | "let_chain");
            counts.decisions += i64::from(binary);
        }
        "try_expression" => {
            counts.decisions += 1;
            counts.handled += 1.0;
        }
        "match_arm" => {
            counts.decisions += 1;
            if let Some(pattern) = node.child_by_field_name("pattern")
                && is_err(searched(pattern, source, counts))
            {
                caught(node.child_by_field_name("value"), source, counts);
            }
        }
        "let_condition" => {
            if let Some(pattern) = node.child_by_field_name("pattern")
                && is_err(searched(pattern, source, counts))
            {
                counts.handled += 1.0;
            }
        }
        "let_declaration" => let_declaration(node, source, counts),
        "call_expression" => call(node, kind_of(parents), source, counts),
        "macro_invocation" => {
            let name = node.child_by_field_name("macro").map_or("", |n| text(n, source));
            match name.rsplit("::").next().unwrap_or_default() {
                "bail" | "ensure" | "anyhow" => counts.handled += 1.0,
                "todo" | "unimplemented" => counts.hollow += 0.5,
                "panic" if node.start_byte() >= counts.lenient_until => counts.swallowed += 0.5,
                _ => {}
            }
        }
        "attribute_item" => {
            let words = searched(node, source, counts);
            // In a test `unwrap` is how a failure is told.
            if words.contains("test") {
                counts.test_follows = true;
            } else if words.contains("Error") {
                counts.handled += 1.0;
            }
        }
        _ => {}
    }
    Seen::Nothing
}

fn is_err(pattern: &str) -> bool {
    pattern.starts_with("Err(") || pattern.contains("Some(Err(") || pattern.contains("::Err(")
}

fn caught(value: Option<Node<'_>>, source: &str, counts: &mut Counts) {
    match value {
        Some(value) if matches!(text(value, source), "{}" | "()" | "{ }") => counts.swallowed += 1.0,
        _ => counts.handled += 1.0,
    }
}

fn let_declaration(node: Node<'_>, source: &str, counts: &mut Counts) {
    if node.child_by_field_name("alternative").is_some() {
        counts.decisions += 1;
        counts.handled += 1.0;
    }
    let dropped = node.child_by_field_name("pattern").is_some_and(|p| text(p, source) == "_");
    let called =
        node.child_by_field_name("value").is_some_and(|v| matches!(v.kind(), "call_expression" | "await_expression"));
    if dropped && called && node.start_byte() >= counts.lenient_until {
        counts.swallowed += 0.5;
    }
}

fn call(node: Node<'_>, parent: &str, source: &str, counts: &mut Counts) {
    let Some(function) = node.child_by_field_name("function") else { return };
    let Some(field) = function.child_by_field_name("field") else {
        if matches!(text(function, source), "Err" | "Result::Err") {
            counts.handled += 1.0;
        }
        return;
    };
    match text(field, source) {
        "map_err" | "ok_or" | "ok_or_else" | "or_else" | "context" | "with_context" | "inspect_err" | "unwrap_or"
        | "unwrap_or_else" => counts.handled += 1.0,
        "unwrap" | "expect" | "unwrap_unchecked" if node.start_byte() >= counts.lenient_until => {
            counts.swallowed += 1.0
        }
        "ok" if parent == "expression_statement" => counts.swallowed += 1.0,
        _ => {}
    }
}

fn alone(statement: Node<'_>, source: &str) -> Body {
    let statement = match statement.kind() {
        "expression_statement" => statement.named_child(0).unwrap_or(statement),
        _ => statement,
    };
    let words = text(statement, source);
    if statement.kind() == "macro_invocation" {
        let stub = words.starts_with("todo!") || words.starts_with("unimplemented!");
        return if stub || (words.starts_with("panic!") && is_placeholder(words)) { Body::Hollow } else { Body::Solid };
    }
    match words {
        "()" | "return" => Body::Hollow,
        "Ok(())" | "None" | "Ok(None)" | "Default::default()" | "return Ok(())" | "return None" => Body::Trivial,
        _ => Body::Solid,
    }
}
