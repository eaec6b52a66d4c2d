//! What makes a YAML file one: entries under names that are there once.

use std::collections::HashSet;

use tree_sitter::Node;

use super::{Role, Rules, Seen, text};
use crate::coordinator::evaluate::code::Counts;

pub(super) const RULES: Rules = Rules { role, look };

fn role(kind: &str) -> Role {
    match kind {
        "comment" => Role::Comment,
        "block_mapping" | "flow_mapping" | "block_sequence" => Role::Look,
        _ => Role::Plain,
    }
}

fn look(node: Node<'_>, parents: &[Node<'_>], source: &str, counts: &mut Counts) -> Seen {
    // Document, node, mapping.
    let top = parents.len() <= 3;
    if top {
        counts.statements += node.named_child_count();
    } else if node.kind() != "flow_mapping" {
        counts.types += 1.0;
    }
    if node.kind() != "block_sequence" {
        keys(node, source, counts);
    }
    Seen::Nothing
}

/// Of two values under one key every reader takes another one, or none.
fn keys(mapping: Node<'_>, source: &str, counts: &mut Counts) {
    let mut seen = HashSet::new();
    let mut cursor = mapping.walk();
    for pair in mapping.named_children(&mut cursor) {
        let Some(key) = pair.child_by_field_name("key") else { continue };
        let words = text(key, source);
        // Merged mappings may be several; a long key may be cut.
        if words != "<<" && words.len() < 512 && !seen.insert(words.trim_matches(['"', '\''])) {
            counts.fault(key.start_position(), "the key is there twice");
        }
    }
}
