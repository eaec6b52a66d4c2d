//! What Docker itself refuses and the grammar takes, and what makes an image one to run: stages, an own user, pinned
//! bases, a health check.

use tree_sitter::Node;

use super::{Role, Rules, Seen, kind_of, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" => Role::Comment,
        "source_file" | "shell_command" => Role::Look,
        kind if kind.ends_with("_instruction") => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    match node.kind() {
        "source_file" => begins_with_from(node, counts),
        "from_instruction" => {
            counts.types += 1.0;
            base(node, source, counts);
        }
        "run_instruction" | "copy_instruction" | "add_instruction" | "cmd_instruction" | "entrypoint_instruction"
            if kind_of(parents) == "source_file" =>
        {
            counts.solid += 0.5
        }
        "user_instruction" => {
            let user = node.child_by_field_name("user").map_or("", |n| text(n, source));
            if !matches!(user, "root" | "0") {
                counts.handled += 1.0;
            }
        }
        "healthcheck_instruction" => counts.handled += f64::from(u8::from(node.named_child_count() > 0)),
        "shell_command" => shell(node, source, counts),
        _ if kind_of(parents) == "source_file" => counts.statements += 1,
        _ => {}
    }
    Seen::Nothing
}

/// Only `ARG` may stand before the first `FROM`.
fn begins_with_from(file: Node<'_>, counts: &mut Counts) {
    let mut cursor = file.walk();
    let first = file.named_children(&mut cursor).find(|child| !matches!(child.kind(), "comment" | "arg_instruction"));
    match first {
        Some(first) if first.kind() == "from_instruction" || first.is_error() => {}
        Some(first) => counts.fault(first.start_position(), "expected `FROM`"),
        None => counts.fault(file.end_position(), "expected `FROM`"),
    }
}

/// A base that is pinned builds tomorrow what it builds today; `latest` does not.
fn base(from: Node<'_>, source: &str, counts: &mut Counts) {
    let mut cursor = from.walk();
    let Some(image) = from.named_children(&mut cursor).find(|child| child.kind() == "image_spec") else { return };
    let tag = image.child_by_field_name("tag").map(|tag| text(tag, source).trim_start_matches(':'));
    if image.child_by_field_name("digest").is_some() || tag.is_some_and(|tag| tag != "latest") {
        counts.handled += 0.5;
    } else if tag.is_some() {
        counts.swallowed += 0.5;
    }
}

/// What was meant as a list and is no JSON would be given to a shell, as a command that begins with a bracket.
fn shell(command: Node<'_>, source: &str, counts: &mut Counts) {
    let words = text(command, source);
    if words.strip_prefix('[').is_some_and(|rest| !rest.starts_with([' ', '[', '\\', '\t'])) {
        counts.fault(command.start_position(), "expected a list of JSON strings");
    }
    if words.contains("set -e") || words.contains("pipefail") {
        counts.handled += 0.5;
    }
    if words.contains("|| true") {
        counts.swallowed += 0.5;
    }
}
