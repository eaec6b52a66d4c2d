//! For documents that render Mermaid. Ids are made here, so that no name can be a keyword or end a line.

use std::fmt::Write as _;

use super::text::one_line;
use super::{Checked, State};

pub(super) fn write(graph: &Checked<'_>) -> String {
    let mut out = String::from("flowchart LR\n");
    for task in (0..graph.graph.tasks.len()).filter(|&task| graph.parent[task].is_none()) {
        node(graph, task, 1, &mut out);
    }
    for (from, to) in &graph.edges {
        _ = writeln!(out, "    n{from} --> n{to}");
    }
    for state in State::ALL {
        let of_state = graph.leaves().filter(|&task| graph.graph.tasks[task].state == state);
        let names: Vec<String> = of_state.map(|task| format!("n{task}")).collect();
        if !names.is_empty() {
            let (fill, stroke) = state.colors();
            _ = writeln!(out, "    classDef {} fill:{fill},stroke:{stroke},color:#1c2430", state.as_str());
            _ = writeln!(out, "    class {} {}", names.join(","), state.as_str());
        }
    }
    out
}

fn node(graph: &Checked<'_>, task: usize, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    let node = &graph.graph.tasks[task];
    if graph.is_group(task) {
        _ = writeln!(out, "{indent}subgraph n{task}[\"{}\"]", escaped(&node.id));
        for &child in &graph.children[task] {
            self::node(graph, child, depth + 1, out);
        }
        _ = writeln!(out, "{indent}end");
    } else {
        let label = if node.label.trim().is_empty() { String::new() } else { format!("<br>{}", escaped(&node.label)) };
        _ = writeln!(out, "{indent}n{task}[\"{} {}{label}\"]", node.state.sign(), escaped(&node.id));
    }
}

/// Mermaid reads `#38;` as `&`. Whatever Mermaid, Markdown or HTML could read as its own is written so.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text).chars() {
        if c.is_alphanumeric() || matches!(c, ' ' | '.' | ',' | '-' | '_' | '/' | '…') {
            out.push(c);
        } else {
            _ = write!(out, "#{};", c as u32);
        }
    }
    out
}
