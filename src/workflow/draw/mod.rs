//! Pictures: a graph as Mermaid, DOT and SVG, a run as a timeline. Pure; whatever a name or a description holds, it can't
//! get out of its place in the picture.

mod dot;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

use std::collections::{HashMap, HashSet};

pub use timeline::{Bar, End, Row, Timeline, timeline};

use crate::domain::workflow::TaskState as State;

/// The most tasks, edges and attempts that are drawn: beyond it nobody sees anything, and browsers give up.
pub const MOST_TASKS: usize = 1_000;
pub const MOST_EDGES: usize = 5_000;
pub const MOST_BARS: usize = 5_000;

#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub title: String,
    pub tasks: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub id: String,
    /// In words; may be empty.
    pub label: String,
    pub state: State,
    pub group: Option<String>,
    pub depends_on: Vec<String>,
}

/// Why something is not drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{found} {what} are too many to draw; at most {most} are")]
    TooLarge { what: &'static str, found: usize, most: usize },
    #[error("task '{task}' names '{missing}', which is not in the graph")]
    Unknown { task: String, missing: String },
}

pub fn mermaid(graph: &Graph) -> Result<String, Error> {
    Ok(mermaid::write(&Checked::new(graph)?))
}

pub fn dot(graph: &Graph) -> Result<String, Error> {
    Ok(dot::write(&Checked::new(graph)?))
}

pub fn svg(graph: &Graph) -> Result<String, Error> {
    svg::write(&Checked::new(graph)?)
}

impl State {
    /// What fills its box and what draws its border, on a light ground. Never the only sign: each has one of its own too.
    fn colors(self) -> (&'static str, &'static str) {
        match self {
            Self::Waiting => ("#f4f5f7", "#8b95a5"),
            Self::Ready => ("#fff7e0", "#c98a00"),
            Self::Running => ("#e3f0ff", "#1f6feb"),
            Self::Completed => ("#e4f7ea", "#1a7f46"),
            Self::Failed => ("#ffe9e7", "#cf3a2f"),
            Self::Cancelled => ("#f3ecfb", "#8250c4"),
            Self::Skipped => ("#f4f5f7", "#a3acb9"),
        }
    }

    /// The same on a dark ground.
    fn dark_colors(self) -> (&'static str, &'static str) {
        match self {
            Self::Waiting => ("#222831", "#768390"),
            Self::Ready => ("#3a2f12", "#e3b341"),
            Self::Running => ("#14294a", "#58a6ff"),
            Self::Completed => ("#12321f", "#3fb968"),
            Self::Failed => ("#43191b", "#ff7b72"),
            Self::Cancelled => ("#2e2147", "#bc8cff"),
            Self::Skipped => ("#222831", "#636e7b"),
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Waiting => "○",
            Self::Ready => "◔",
            Self::Running => "▶",
            Self::Completed => "✓",
            Self::Failed => "✗",
            Self::Cancelled => "⊘",
            Self::Skipped => "–",
        }
    }
}

/// A graph of which every name is known, and small enough.
struct Checked<'a> {
    graph: &'a Graph,
    /// By place in `graph.tasks`.
    parent: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    /// From a dependency to who waits for it; groups too.
    edges: Vec<(usize, usize)>,
}

impl<'a> Checked<'a> {
    fn new(graph: &'a Graph) -> Result<Self, Error> {
        let limit = |what, found, most| if found > most { Err(Error::TooLarge { what, found, most }) } else { Ok(()) };
        limit("tasks", graph.tasks.len(), MOST_TASKS)?;
        limit("edges", graph.tasks.iter().map(|t| t.depends_on.len()).sum(), MOST_EDGES)?;
        let index: HashMap<&str, usize> = graph.tasks.iter().enumerate().map(|(i, t)| (t.id.as_str(), i)).collect();
        let find = |task: &Node, name: &String| {
            let unknown = || Error::Unknown { task: task.id.clone(), missing: name.clone() };
            index.get(name.as_str()).copied().ok_or_else(unknown)
        };
        let mut checked = Self { graph, parent: vec![], children: vec![vec![]; graph.tasks.len()], edges: vec![] };
        for (i, task) in graph.tasks.iter().enumerate() {
            let parent = task.group.as_ref().map(|group| find(task, group)).transpose()?;
            if let Some(parent) = parent {
                checked.children[parent].push(i);
            }
            checked.parent.push(parent);
            for dependency in &task.depends_on {
                checked.edges.push((find(task, dependency)?, i));
            }
        }
        checked.edges.sort_unstable();
        checked.edges.dedup();
        Ok(checked)
    }

    fn is_group(&self, task: usize) -> bool {
        !self.children[task].is_empty()
    }

    fn leaves(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.graph.tasks.len()).filter(|&task| !self.is_group(task))
    }

    /// The work in a group; a task that is none, itself. A circle of groups, which no checked graph has, ends.
    fn work_in(&self, task: usize) -> Vec<usize> {
        let (mut found, mut open, mut seen) = (vec![], vec![task], HashSet::new());
        while let Some(task) = open.pop() {
            if seen.insert(task) {
                if self.is_group(task) {
                    open.extend(&self.children[task]);
                } else {
                    found.push(task);
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// The work in a group at none of whose edges within the group it is the end that `which` names.
    fn ends_of(&self, task: usize, which: impl Fn((usize, usize)) -> usize) -> Vec<usize> {
        let mut work = self.work_in(task);
        if self.is_group(task) {
            let inside: HashSet<usize> = work.iter().copied().collect();
            let edges = self.edges.iter().filter(|(a, b)| inside.contains(a) && inside.contains(b));
            let held: HashSet<usize> = edges.map(|&edge| which(edge)).collect();
            work.retain(|task| !held.contains(task));
        }
        work
    }

    /// Edges between work alone: what waits for a group waits for the last of it, and the first of a group wait for what
    /// the group waits for.
    fn work_edges(&self) -> Result<Vec<(usize, usize)>, Error> {
        let mut found = vec![];
        for &(from, to) in &self.edges {
            let (sources, targets) = (self.ends_of(from, |edge| edge.0), self.ends_of(to, |edge| edge.1));
            found.extend(sources.iter().flat_map(|&source| targets.iter().map(move |&target| (source, target))));
            if found.len() > MOST_EDGES {
                return Err(Error::TooLarge { what: "edges", found: found.len(), most: MOST_EDGES });
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
