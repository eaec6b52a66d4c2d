//! For Graphviz.

use std::fmt::Write as _;

use super::Checked;
use super::text::{one_line, two_lines};

pub(super) fn write(graph: &Checked<'_>) -> String {
    let mut out = String::from("digraph workflow {\n");
    out.push_str(
        "    graph [rankdir=LR, compound=true, bgcolor=\"white\", fontname=\"Helvetica\", nodesep=0.25, ranksep=0.5",
    );
    if !graph.graph.title.trim().is_empty() {
        _ = write!(out, ", labelloc=t, label=\"{}\"", escaped(&graph.graph.title));
    }
    out.push_str("];\n");
    out.push_str("    node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fontsize=11];\n");
    out.push_str("    edge [color=\"#8b95a5\", arrowsize=0.7];\n");
    for task in (0..graph.graph.tasks.len()).filter(|&task| graph.parent[task].is_none()) {
        node(graph, task, 1, &mut out);
    }
    for &(from, to) in &graph.edges {
        // Graphviz has no edges to clusters: they go to a task inside and are cut at its border.
        let mut cut = vec![];
        if graph.is_group(from) {
            cut.push(format!("ltail=cluster_{from}"));
        }
        if graph.is_group(to) {
            cut.push(format!("lhead=cluster_{to}"));
        }
        if let (Some(tail), Some(head)) = (graph.work_in(from).last(), graph.work_in(to).first()) {
            let cut = if cut.is_empty() { String::new() } else { format!(" [{}]", cut.join(", ")) };
            _ = writeln!(out, "    n{tail} -> n{head}{cut};");
        }
    }
    out.push_str("}\n");
    out
}

fn node(graph: &Checked<'_>, task: usize, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    let node = &graph.graph.tasks[task];
    if graph.is_group(task) {
        _ = writeln!(out, "{indent}subgraph cluster_{task} {{");
        _ = writeln!(out, "{indent}    label=\"{}\"; style=\"rounded\"; color=\"#a3acb9\";", escaped(&node.id));
        for &child in &graph.children[task] {
            self::node(graph, child, depth + 1, out);
        }
        _ = writeln!(out, "{indent}}}");
    } else {
        let (fill, stroke) = node.state.colors();
        let lines = two_lines(&node.label, 34.0).iter().map(|line| format!("\\n{}", escaped(line))).collect::<String>();
        let label = format!("{} {}{lines}", node.state.sign(), escaped(&node.id));
        let tip = escaped(&format!("{}: {}", node.state.as_str(), node.label));
        _ = writeln!(
            out,
            "{indent}n{task} [label=\"{label}\", fillcolor=\"{fill}\", color=\"{stroke}\", tooltip=\"{tip}\"];"
        );
    }
}

/// In a quoted string. A backslash is an escape there (`\N` is the node's name), so it is doubled; `&` begins an entity.
fn escaped(text: &str) -> String {
    one_line(text).replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}
