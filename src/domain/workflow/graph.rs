use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Policy, Step};
use crate::domain::record::Digest;
use crate::domain::{Dag, DagError, Limits, Task, TaskId};

/// A task and who does it. A group has no step: it ends when what is in it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    #[serde(flatten)]
    pub task: Task,
    #[serde(default)]
    pub step: Step,
    #[serde(default)]
    pub policy: Policy,
}

/// Why there is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error(transparent)]
    Dag(#[from] DagError),
    /// Groups that wait for groups multiply.
    #[error("the graph has more than {limit} dependencies, counted with those that its groups bring along")]
    TooManyDependencies { limit: usize },
    #[error("the task '{task}' takes '{input}', which it doesn't depend on")]
    UnknownInput { task: TaskId, input: TaskId },
}

/// Dependencies in one graph, at most: ten for each task of the largest.
const MOST_DEPENDENCIES: usize = 1_000_000;

/// A checked graph with all that running it needs. A task is known by its position.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<TaskId, u32>,
    is_group: Vec<bool>,
    children: Vec<Vec<u32>>,
    needs: Vec<Vec<u32>>,
    dependants: Vec<Vec<u32>>,
    ranks: Vec<u32>,
    definitions: Vec<Digest>,
    shape: Digest,
}

impl Graph {
    pub fn new(nodes: Vec<Node>, limits: &Limits) -> Result<Self, GraphError> {
        let dag = Dag::new(nodes.iter().map(|node| node.task.clone()).collect(), limits)?;
        let count = nodes.len();
        let is_group: Vec<bool> = (0..count).map(|i| dag.is_group(i)).collect();
        // A graph has at most `Limits::tasks` tasks: far below 2^32.
        let index: HashMap<TaskId, u32> =
            nodes.iter().enumerate().map(|(i, node)| (node.task.id.clone(), i as u32)).collect();
        let at = |id: &TaskId| index.get(id).copied();
        let parents: Vec<Option<u32>> = nodes.iter().map(|n| n.task.parent.as_ref().and_then(at)).collect();
        let mut children = vec![vec![]; count];
        for (i, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent as usize].push(i as u32);
            }
        }
        let (mut needs, mut edges) = (Vec::with_capacity(count), 0);
        for (i, node) in nodes.iter().enumerate() {
            let mut own: Vec<u32> = if is_group[i] { children[i].clone() } else { vec![] };
            own.extend(node.task.depends_on.iter().filter_map(at));
            let mut above = parents[i].filter(|_| !is_group[i]);
            while let Some(group) = above {
                own.extend(nodes[group as usize].task.depends_on.iter().filter_map(at));
                above = parents[group as usize];
            }
            own.sort_unstable();
            own.dedup();
            edges += own.len();
            if edges > MOST_DEPENDENCIES {
                return Err(GraphError::TooManyDependencies { limit: MOST_DEPENDENCIES });
            }
            needs.push(own);
        }
        for (node, needs) in nodes.iter().zip(&needs) {
            let unknown = |input: &&TaskId| at(input).is_none_or(|input| !needs.contains(&input));
            if let Some(input) = node.policy.inputs.iter().flatten().find(unknown) {
                return Err(GraphError::UnknownInput { task: node.task.id.clone(), input: input.clone() });
            }
        }
        let mut dependants = backwards(&needs);
        let order = in_order(&needs, &dependants);
        let mut ranks = vec![1u32; count];
        for &i in order.iter().rev() {
            let longest = dependants[i].iter().map(|d| ranks[*d as usize]).max().unwrap_or(0);
            ranks[i] = longest + u32::from(!is_group[i]);
        }
        let mut definitions = vec![Digest::default(); count];
        for &i in &order {
            definitions[i] = definition(&nodes[i], needs[i].iter().map(|need| definitions[*need as usize]));
        }
        let mut whole = Sha256::new();
        for (node, definition) in nodes.iter().zip(&definitions) {
            whole.update(node.task.id.as_str());
            whole.update([0]);
            whole.update(definition);
        }
        let shape = whole.finalize().into();
        // What a task is and what its results are worth later does not change with what it need not wait for.
        if nodes.iter().any(|node| !node.policy.free_of.is_empty()) {
            for (node, needs) in nodes.iter().zip(&mut needs) {
                needs.retain(|need| !node.policy.free_of.contains(&nodes[*need as usize].task.id));
            }
            dependants = backwards(&needs);
        }
        Ok(Self { nodes, index, is_group, children, needs, dependants, ranks, definitions, shape })
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a graph has tasks.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, position: u32) -> Option<&Node> {
        self.nodes.get(position as usize)
    }

    pub fn position(&self, id: &TaskId) -> Option<u32> {
        self.index.get(id).copied()
    }

    pub fn is_group(&self, position: u32) -> bool {
        self.is_group.get(position as usize).copied().unwrap_or(false)
    }

    /// The positions that must be completed before it begins; of a group, before it ends.
    pub fn needs(&self, position: u32) -> &[u32] {
        self.needs.get(position as usize).map_or(&[], Vec::as_slice)
    }

    pub fn dependants(&self, position: u32) -> &[u32] {
        self.dependants.get(position as usize).map_or(&[], Vec::as_slice)
    }

    /// Who is done in the same hand after this task: all that it waits for is there then.
    pub fn follower(&self, position: u32) -> Option<u32> {
        let before = self.needs(position);
        self.dependants(position).iter().copied().find(|next| {
            let follows = self.node(*next).is_some_and(|node| node.policy.follows) && !self.is_group(*next);
            follows && self.needs(*next).iter().all(|need| *need == position || before.contains(need))
        })
    }

    /// All that can't be done where this can't.
    pub fn all_dependants(&self, position: u32) -> Vec<u32> {
        let mut seen = vec![false; self.len()];
        let (mut found, mut open) = (vec![], vec![position]);
        while let Some(at) = open.pop() {
            for &next in self.dependants(at) {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    found.push(next);
                    open.push(next);
                }
            }
        }
        found
    }

    /// The tasks on the longest way from here to the end, this one counted: what has more is begun first.
    pub fn rank(&self, position: u32) -> u32 {
        self.ranks.get(position as usize).copied().unwrap_or(0)
    }

    /// What has the longest of these ways to its end is begun first, in the place of what [`Self::rank`] says.
    pub fn prefer(&mut self, ways: &HashMap<TaskId, Duration>) {
        for (node, rank) in self.nodes.iter().zip(&mut self.ranks) {
            if let Some(way) = ways.get(&node.task.id) {
                *rank = u32::try_from(way.as_micros() / 100).unwrap_or(u32::MAX);
            }
        }
    }

    /// The same while the task, its step and all that it depends on are the same.
    pub fn definition(&self, position: u32) -> Digest {
        self.definitions.get(position as usize).copied().unwrap_or_default()
    }

    /// The same for graphs whose tasks are all the same.
    pub fn shape(&self) -> Digest {
        self.shape
    }

    /// Whose outputs a task is given, by name: those that it names, and those that its groups name. A group stands for the
    /// tasks in it.
    pub fn inputs(&self, position: u32) -> Vec<u32> {
        let mut open: Vec<u32> = if self.is_group(position) { vec![] } else { self.needs(position).to_vec() };
        if let Some(taken) = self.node(position).and_then(|node| node.policy.inputs.as_ref()) {
            open.retain(|need| self.node(*need).is_some_and(|node| taken.contains(&node.task.id)));
        }
        let mut found = vec![];
        while let Some(at) = open.pop() {
            match self.is_group(at) {
                true => open.extend(&self.children[at as usize]),
                false => found.push(at),
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn backwards(needs: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut dependants = vec![vec![]; needs.len()];
    for (i, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| dependants[*need as usize].push(i as u32));
    }
    dependants
}

/// First what is needed.
fn in_order(needs: &[Vec<u32>], dependants: &[Vec<u32>]) -> Vec<usize> {
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..needs.len()).filter(|&i| open[i] == 0).collect();
    let mut next = 0;
    while let Some(&i) = order.get(next) {
        next += 1;
        for &d in &dependants[i] {
            open[d as usize] -= 1;
            if open[d as usize] == 0 {
                order.push(d as usize);
            }
        }
    }
    order
}

fn definition(node: &Node, needs: impl Iterator<Item = Digest>) -> Digest {
    let mut hash = Sha256::new();
    // How long it may take and how often it is tried changes no result.
    let step = serde_json::to_vec(&node.step).unwrap_or_default();
    for part in [node.task.id.as_str().as_bytes(), node.task.description.as_bytes(), &step] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    if let Some(inputs) = &node.policy.inputs {
        hash.update(b"inputs");
        let mut inputs: Vec<&str> = inputs.iter().map(TaskId::as_str).collect();
        inputs.sort_unstable();
        inputs.iter().for_each(|input| {
            hash.update((input.len() as u64).to_le_bytes());
            hash.update(input);
        });
    }
    let mut needs: Vec<Digest> = needs.collect();
    needs.sort_unstable();
    needs.iter().for_each(|need| hash.update(need));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, parent: Option<&str>, depends_on: &[&str]) -> Node {
        let task = Task {
            id: TaskId::new(id),
            description: format!("do {id}"),
            parent: parent.map(TaskId::new),
            depends_on: depends_on.iter().map(|d| TaskId::new(d)).collect(),
        };
        Node { task, step: Step::default(), policy: Policy::default() }
    }

    fn graph(nodes: Vec<Node>) -> Graph {
        Graph::new(nodes, &Limits::default()).unwrap()
    }

    #[test]
    fn groups_bring_what_they_wait_for_and_stand_for_what_is_in_them() {
        let graph = graph(vec![
            node("first", None, &[]),
            node("group", None, &["first"]),
            node("a", Some("group"), &[]),
            node("b", Some("group"), &["a"]),
            node("last", None, &["group"]),
        ]);
        assert_eq!(graph.needs(2), [0]);
        assert_eq!(graph.needs(3), [0, 2]);
        assert_eq!(graph.needs(1), [0, 2, 3]);
        assert_eq!(graph.needs(4), [1]);
        assert_eq!(graph.inputs(4), [2, 3]);
        assert_eq!(graph.rank(0), 4);
        let mut after = graph.all_dependants(2);
        after.sort_unstable();
        assert_eq!(after, [1, 3, 4]);
    }

    #[test]
    fn a_change_shows_in_all_that_depends_on_it_and_nowhere_else() {
        let nodes = vec![node("a", None, &[]), node("b", None, &["a"]), node("c", None, &[])];
        let before = graph(nodes.clone());
        let mut changed = nodes.clone();
        changed[0].step = Step::Nats { subject: "orders.reserve".to_owned() };
        let after = graph(changed);
        assert_ne!(before.definition(0), after.definition(0));
        assert_ne!(before.definition(1), after.definition(1));
        assert_eq!(before.definition(2), after.definition(2));
        assert_ne!(before.shape(), after.shape());
        let mut patient = nodes;
        patient[0].policy.retry_attempts = Some(9);
        assert_eq!(graph(patient).shape(), before.shape());
    }

    #[test]
    fn who_need_not_wait_is_the_same_task_and_who_takes_less_is_another() {
        let nodes = vec![node("a", None, &[]), node("b", None, &["a"]), node("c", None, &["a", "b"])];
        let before = graph(nodes.clone());
        let mut free = nodes.clone();
        free[2].policy.free_of = vec![TaskId::new("a")];
        let after = graph(free);
        assert_eq!((after.needs(2), after.dependants(0)), (&[1][..], &[1][..]));
        assert_eq!((after.shape(), after.definition(2)), (before.shape(), before.definition(2)));
        let mut less = nodes.clone();
        less[2].policy.inputs = Some(vec![TaskId::new("b")]);
        let less = graph(less);
        assert_eq!((less.needs(2), less.inputs(2)), (&[0, 1][..], vec![1]));
        assert_ne!(less.definition(2), before.definition(2));
        let mut wrong = nodes;
        wrong[1].policy.inputs = Some(vec![TaskId::new("c")]);
        let refused = Graph::new(wrong, &Limits::default()).unwrap_err();
        assert!(matches!(refused, GraphError::UnknownInput { .. }), "{refused}");
    }

    #[test]
    fn who_waits_for_more_follows_nobody() {
        let mut nodes =
            vec![node("a", None, &[]), node("b", None, &["a"]), node("x", None, &[]), node("c", None, &["b", "x"])];
        nodes.iter_mut().for_each(|node| node.policy.follows = true);
        let graph = graph(nodes);
        assert_eq!((graph.follower(0), graph.follower(1), graph.follower(2)), (Some(1), None, None));
    }

    #[test]
    fn groups_that_multiply_dependencies_are_refused() {
        let mut nodes: Vec<Node> = (0..1_100).map(|i| node(&format!("f{i}"), None, &[])).collect();
        let names: Vec<String> = (0..1_100).map(|i| format!("f{i}")).collect();
        nodes.push(node("group", None, &names.iter().map(String::as_str).collect::<Vec<_>>()));
        nodes.extend((0..1_100).map(|i| node(&format!("g{i}"), Some("group"), &[])));
        let refused = Graph::new(nodes, &Limits::default()).unwrap_err();
        assert!(matches!(refused, GraphError::TooManyDependencies { .. }));
    }
}
