//! JavaScript, TypeScript and their JSX forms: the grammars share their names.

use tree_sitter::Node;

use super::{Body, Role, Rules, Seen, body_of, is_placeholder, kind_of, searched, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" | "html_comment" => Role::Comment,
        "for_statement" | "for_in_statement" | "while_statement" | "do_statement" | "switch_case"
        | "switch_default" | "ternary_expression" | "&&" | "||" | "??" => Role::Decision,
        "switch_body" => Role::Choice,
        "function_declaration"
        | "generator_function_declaration"
        | "method_definition"
        | "function_expression"
        | "generator_function"
        | "arrow_function"
        | "class_declaration"
        | "class"
        | "abstract_class_declaration"
        | "interface_declaration"
        | "enum_declaration"
        | "type_alias_declaration"
        | "internal_module"
        | "if_statement"
        | "catch_clause"
        | "finally_clause"
        | "throw_statement"
        | "call_expression"
        | "lexical_declaration"
        | "expression_statement" => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    match node.kind() {
        "function_declaration"
        | "generator_function_declaration"
        | "method_definition"
        | "function_expression"
        | "generator_function"
        | "arrow_function" => return function(node, kind_of(parents), source, counts),
        "class_declaration" | "abstract_class_declaration" | "class" => {
            let empty = node.child_by_field_name("body").is_some_and(|body| body.named_child_count() == 0);
            let extends = || {
                let mut cursor = node.walk();
                node.named_children(&mut cursor).any(|n| n.kind() == "class_heritage")
            };
            if node.is_named() && empty && !extends() {
                counts.hollow += 0.5;
            } else if node.is_named() {
                counts.types += 1.0;
            }
        }
        "interface_declaration" | "enum_declaration" | "type_alias_declaration" | "internal_module" => {
            counts.types += 1.0
        }
        "if_statement" => {
            counts.decisions += 1;
            let condition = node.child_by_field_name("condition").map_or("", |c| searched(c, source, counts));
            if asks_for_error(condition) {
                counts.handled += 1.0;
            }
        }
        "catch_clause" => {
            counts.decisions += 1;
            let body = node.child_by_field_name("body").map(|body| body_of(body, |only| alone(only, source)));
            *(if body == Some(Body::Hollow) { &mut counts.swallowed } else { &mut counts.handled }) += 1.0;
        }
        "finally_clause" => counts.handled += 0.5,
        "throw_statement" if !is_placeholder(text(node, source)) => counts.handled += 1.0,
        "call_expression" => call(node, source, counts),
        "lexical_declaration" | "expression_statement" => {
            counts.statements += usize::from(matches!(kind_of(parents), "program" | "export_statement"));
        }
        _ => {}
    }
    Seen::Nothing
}

fn function(node: Node<'_>, parent: &str, source: &str, counts: &mut Counts) -> Seen {
    let Some(body) = node.child_by_field_name("body") else { return Seen::Nothing };
    let expression = matches!(node.kind(), "function_expression" | "generator_function" | "arrow_function");
    let named = !expression
        || matches!(
            parent,
            "variable_declarator"
                | "public_field_definition"
                | "field_definition"
                | "pair"
                | "assignment_expression"
                | "export_statement"
        );
    let worth = if body.kind() == "statement_block" {
        body_of(body, |only| alone(only, source))
    } else if named {
        Body::Solid
    } else {
        return Seen::Nothing;
    };
    // `constructor(private readonly x: X) {}` does its work in its parameters.
    let assigns = |counts: &mut Counts| {
        node.child_by_field_name("parameters").is_some_and(|parameters| {
            let words = searched(parameters, source, counts);
            words.contains("private ")
                || words.contains("readonly ")
                || words.contains("public ")
                || words.contains("protected ")
        })
    };
    if worth != Body::Hollow || !assigns(counts) {
        counts.function(worth, if named { 1.0 } else { 0.5 });
    }
    Seen::Function
}

/// `if (err)`, `if (error instanceof X)`, `if (!response.ok)`, `if (!result.success)`.
fn asks_for_error(condition: &str) -> bool {
    let asked = condition.trim_matches(['(', ')', ' ']);
    let first = asked.trim_start_matches('!').split([' ', '.', ')']).next().unwrap_or_default();
    matches!(first, "err" | "error" | "e")
        || asked.starts_with('!') && (asked.ends_with(".ok") || asked.ends_with(".success"))
        || asked.contains("instanceof") && asked.contains("Error")
}

fn call(node: Node<'_>, source: &str, counts: &mut Counts) {
    let Some(function) = node.child_by_field_name("function") else { return };
    let arguments = node.child_by_field_name("arguments");
    let argument = |at| arguments.and_then(|a| a.named_child(at));
    let Some(property) = function.child_by_field_name("property") else {
        let name = text(function, source);
        let passes_on = matches!(name, "next" | "callback" | "cb" | "done")
            && argument(0).is_some_and(|a| matches!(text(a, source), "err" | "error" | "e"));
        if passes_on || name == "reject" {
            counts.handled += 1.0;
        }
        return;
    };
    match text(property, source) {
        "catch" => {
            let body = argument(0).and_then(|handler| handler.child_by_field_name("body"));
            let empty = body.is_some_and(|b| b.kind() == "statement_block" && b.named_child_count() == 0);
            *(if empty { &mut counts.swallowed } else { &mut counts.handled }) += 1.0;
        }
        "on" | "once" | "addEventListener" => {
            let event = argument(0).map_or("", |a| text(a, source)).trim_matches(['"', '\'', '`']);
            if matches!(event, "error" | "uncaughtException" | "unhandledRejection") {
                counts.handled += 1.0;
            }
        }
        "toThrow" | "toThrowError" | "throws" | "rejects" | "reject" => counts.handled += 1.0,
        "safeParse" | "safeParseAsync" | "allSettled" => counts.handled += 0.5,
        _ => {}
    }
}

fn alone(statement: Node<'_>, source: &str) -> Body {
    let words = text(statement, source).trim_end_matches(';');
    match words {
        "return" | ";" | "" => Body::Hollow,
        "return null" | "return undefined" | "return {}" | "return []" | "return Promise.resolve()" => Body::Trivial,
        _ if statement.kind() == "throw_statement" && is_placeholder(words) => Body::Hollow,
        _ => Body::Solid,
    }
}
