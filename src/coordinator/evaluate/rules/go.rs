use tree_sitter::Node;

use super::{Body, Role, Rules, Seen, body_of, is_placeholder, kind_of, searched, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" => Role::Comment,
        "for_statement" | "expression_case" | "type_case" | "communication_case" | "default_case" | "&&" | "||" => {
            Role::Decision
        }
        "expression_switch_statement" | "type_switch_statement" | "select_statement" => Role::Choice,
        "function_declaration"
        | "method_declaration"
        | "func_literal"
        | "type_spec"
        | "type_alias"
        | "const_declaration"
        | "var_declaration"
        | "if_statement"
        | "call_expression"
        | "assignment_statement"
        | "short_var_declaration" => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    match node.kind() {
        "function_declaration" | "method_declaration" | "func_literal" => {
            if let Some(body) = node.child_by_field_name("body") {
                let weight = if node.kind() == "func_literal" { 0.5 } else { 1.0 };
                counts.function(body_of(statements(body), |only| alone(only, source)), weight);
                return Seen::Function;
            }
        }
        "type_spec" | "type_alias" => counts.types += 1.0,
        "const_declaration" | "var_declaration" => {
            counts.statements += usize::from(kind_of(parents) == "source_file");
        }
        "if_statement" => {
            counts.decisions += 1;
            let condition = node.child_by_field_name("condition").map_or("", |c| searched(c, source, counts));
            if asks_for_error(condition) {
                let empty = node.child_by_field_name("consequence").is_some_and(|body| body.named_child_count() == 0);
                *(if empty { &mut counts.swallowed } else { &mut counts.handled }) += 1.0;
            }
        }
        "call_expression" => match node.child_by_field_name("function").map_or("", |f| text(f, source)) {
            "fmt.Errorf" | "errors.New" | "errors.Is" | "errors.As" | "errors.Join" | "recover" => {
                counts.handled += 0.5
            }
            "panic" => counts.swallowed += 0.5,
            _ => {}
        },
        "assignment_statement" | "short_var_declaration" => {
            let side = |field| node.child_by_field_name(field);
            let left = side("left").map_or("", |l| searched(l, source, counts));
            let last = left.rsplit(',').next().unwrap_or_default().trim();
            let called = side("right").and_then(|r| r.named_child(0)).is_some_and(|r| r.kind() == "call_expression");
            if last == "_" && called {
                counts.swallowed += 0.5;
            }
        }
        _ => {}
    }
    Seen::Nothing
}

/// `err != nil`, `if dbErr := f(); dbErr != nil`, `err == nil`.
fn asks_for_error(condition: &str) -> bool {
    let Some((left, right)) = condition.split_once("!=").or_else(|| condition.split_once("==")) else {
        return condition.starts_with("errors.");
    };
    let name = left.trim().rsplit(['.', ' ', '(']).next().unwrap_or_default();
    right.trim_start().starts_with("nil") && (name == "e" || name.to_ascii_lowercase().contains("err"))
}

/// A block holds its statements in a list.
fn statements(body: Node<'_>) -> Node<'_> {
    let mut cursor = body.walk();
    body.named_children(&mut cursor).find(|n| n.kind() == "statement_list").unwrap_or(body)
}

fn alone(statement: Node<'_>, source: &str) -> Body {
    let words = text(statement, source);
    match words {
        "return" => Body::Hollow,
        "return nil" | "return nil, nil" | "return \"\", nil" | "return 0, nil" => Body::Trivial,
        _ if words.starts_with("panic(") && is_placeholder(words) => Body::Hollow,
        _ => Body::Solid,
    }
}
