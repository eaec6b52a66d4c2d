//! A goal taken apart: which parts it names, and what must come before what. Pure.

mod clauses;
mod spread;

use super::audience;
use super::words::{is_question, words};
use crate::domain::{Dag, DagError, Limits, Task, TaskId, TaskType};
pub(super) use clauses::name_of;
use clauses::{Clause, clauses, named, orders, plainly};

/// How far a goal is taken apart, as in the source: two to five parts, five levels.
pub const LIMITS: Limits = Limits { tasks: 64, depth: 5 };
pub const PARTS: std::ops::RangeInclusive<usize> = 2..=5;

/// A goal at or above this is complex enough to ask a model for a plan; below it is atomic, as in the source.
pub const COMPLEX: u32 = 5;

/// A part by the name that its author gave it, not yet an id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    pub name: String,
    pub description: String,
    #[serde(default)]
    pub depends_on: Vec<String>,
}

/// The goal as a hierarchical graph, by rules. What can't be taken apart is one node.
pub fn by_rules(goal: &str) -> Dag {
    let words = words(goal);
    let said = &words[audience::opening(&words)..];
    if is_question(said, goal) {
        return Dag::atomic(goal);
    }
    let begin = said[audience::background(said)..].first().map_or(0, |word| word.at);
    // A goal that names more than fits one level is rather not taken apart than cut short.
    take_apart(goal, &goal[begin..]).and_then(Result::ok).unwrap_or_else(|| Dag::atomic(goal))
}

/// Takes apart what is said of the goal after its opening.
fn take_apart(goal: &str, said: &str) -> Option<Result<Dag, DagError>> {
    let text = plainly(said);
    let mut tasks = vec![];
    let root = tasks_add(&mut tasks, None, "root", goal, vec![]);
    let arranged = if let Some((each, things)) = spread::over_things(&text) {
        let parts = whole(&each);
        things.iter().enumerate().try_for_each(|(i, thing)| match parts.as_slice() {
            [] => Err(DagError::Empty),
            [only] => {
                let id = format!("{root}.{}", i + 1);
                tasks_add(&mut tasks, Some(&root), &id, &describe(only, Some(thing)), vec![]);
                Ok(())
            }
            parts => {
                let group = tasks_add(
                    &mut tasks,
                    Some(&root),
                    &format!("{root}.{}", i + 1),
                    &format!("{each} for {thing}"),
                    vec![],
                );
                arrange(&mut tasks, &group, parts, Some(thing))
            }
        })
    } else if let Some((name, parts)) = spread::service(&text).or_else(|| spread::headed(&text)) {
        arrange(&mut tasks, &root, &parts, name.as_deref())
    } else {
        let parts = clauses(&text);
        if parts.len() < 2 {
            return None;
        }
        arrange(&mut tasks, &root, &parts, None)
    };
    Some(arranged.and_then(|()| Dag::new(tasks, &LIMITS)))
}

/// The parts of a text, or the text itself where it is about one thing.
fn whole(text: &str) -> Vec<Clause> {
    let parts = clauses(text);
    if parts.len() > 1 { parts } else { clauses::one(text).into_iter().collect() }
}

fn tasks_add(
    tasks: &mut Vec<Task>,
    parent: Option<&TaskId>,
    id: &str,
    description: &str,
    depends_on: Vec<TaskId>,
) -> TaskId {
    let id = TaskId::new(id);
    tasks.push(Task { id: id.clone(), description: description.to_owned(), parent: parent.cloned(), depends_on });
    id
}

/// A plan of pieces with local names as a graph: the names become ids, and what they name must exist.
pub fn from_pieces(goal: &str, pieces: &[Piece]) -> Result<Dag, DagError> {
    if pieces.len() > *PARTS.end() {
        return Err(DagError::TooLarge { found: pieces.len(), limit: *PARTS.end() });
    }
    let root = TaskId::new("root");
    let id = |i: usize| TaskId::new(&format!("root.{}", i + 1));
    let mut tasks = vec![Task { id: root.clone(), description: goal.to_owned(), parent: None, depends_on: vec![] }];
    for (i, piece) in pieces.iter().enumerate() {
        if pieces[..i].iter().any(|p| p.name == piece.name) {
            return Err(DagError::Duplicate(TaskId::new(&piece.name)));
        }
        let mut depends_on = vec![];
        for name in &piece.depends_on {
            let at = pieces.iter().position(|p| p.name == *name).ok_or_else(|| DagError::UnknownDependency {
                task: TaskId::new(&piece.name),
                missing: TaskId::new(name),
            })?;
            depends_on.push(id(at));
        }
        tasks.push(Task { id: id(i), description: piece.description.clone(), parent: Some(root.clone()), depends_on });
    }
    Dag::new(tasks, &LIMITS)
}

/// How much a goal asks for, 1 to 10: its words, its sentences and list items, its demands.
pub fn complexity(goal: &str) -> u32 {
    let words = words(goal);
    let content = words.iter().filter(|w| !w.is_filler()).count() as u32;
    let breaks = words.iter().skip(1).filter(|w| w.after_break || w.lower == "and").count() as u32;
    (1 + content / 8 + breaks / 2).min(10)
}

/// What must be there before what, by type of task.
fn rank(task_type: TaskType) -> u8 {
    match task_type {
        TaskType::Configuration => 0,
        TaskType::Database => 1,
        TaskType::General | TaskType::DataProcessing | TaskType::Microservice => 2,
        TaskType::NatsConsumer | TaskType::ApiEndpoint | TaskType::WebComponent | TaskType::Bugfix => 3,
        TaskType::Security | TaskType::Performance | TaskType::Refactoring => 4,
        TaskType::Testing => 5,
        TaskType::Documentation => 6,
        TaskType::Devops => 7,
    }
}

/// Puts parts under a task, in the order in which they must be done. `name` is what those are about that don't say it;
/// else it is what the nearest part before them is about.
fn arrange(tasks: &mut Vec<Task>, under: &TaskId, clauses: &[Clause], name: Option<&str>) -> Result<(), DagError> {
    // Several parts that make the thing form a group of their own, so that what comes along waits for all of them.
    let makers = clauses.iter().filter(|c| !c.extra).count();
    let grouped = makers >= 2 && makers < clauses.len();
    let widest = if grouped { makers.max(1 + clauses.len() - makers) } else { clauses.len() };
    if widest > *PARTS.end() {
        return Err(DagError::TooLarge { found: widest, limit: *PARTS.end() });
    }
    let group = TaskId::new(&format!("{under}.1"));
    if grouped {
        let text = clauses.iter().filter(|c| !c.extra).map(|c| c.text.as_str()).collect::<Vec<_>>().join(" and ");
        tasks_add(tasks, Some(under), group.as_str(), &text, vec![]);
    }
    let is_inside = |clause: &Clause| grouped && !clause.extra;
    let (mut inside, mut beside) = (0, usize::from(grouped));
    let ids: Vec<TaskId> = clauses
        .iter()
        .map(|clause| {
            let counter = if is_inside(clause) { &mut inside } else { &mut beside };
            *counter += 1;
            TaskId::new(&format!("{}.{counter}", if is_inside(clause) { &group } else { under }))
        })
        .collect();
    for (i, clause) in clauses.iter().enumerate() {
        let before = |j: usize| rank(clauses[j].task_type) < rank(clause.task_type);
        let nearest = (0..clauses.len()).filter(|&j| before(j)).map(|j| rank(clauses[j].task_type)).max();
        let id = |j: usize| if clause.extra && is_inside(&clauses[j]) { group.clone() } else { ids[j].clone() };
        let mut depends_on: Vec<TaskId> =
            (0..clauses.len()).filter(|&j| before(j) && Some(rank(clauses[j].task_type)) == nearest).map(id).collect();
        if clause.after_previous && i > 0 && rank(clauses[i - 1].task_type) <= rank(clause.task_type) {
            depends_on.push(id(i - 1));
        }
        depends_on.sort();
        depends_on.dedup();
        let parent = if is_inside(clause) { &group } else { under };
        let first = clauses.iter().find_map(|c| c.name.as_deref());
        let near = clauses[..i].iter().rev().find_map(|c| c.name.as_deref()).filter(|_| !clause.extra);
        let text = describe(clause, name.or(near).or(first));
        tasks_add(tasks, Some(parent), ids[i].as_str(), &text, depends_on);
    }
    Ok(())
}

/// A part that can be read by itself: an order, with what it is about.
fn describe(clause: &Clause, name: Option<&str>) -> String {
    let text = named(clause, name);
    // "A consumer" in the middle of a sentence.
    let text = text.strip_prefix("A ").map_or(text.clone(), |rest| format!("a {rest}"));
    let verb = match words(&text).first() {
        Some(first) if orders(first) => "",
        _ if clause.extra => "Write ",
        _ => "Create ",
    };
    let text = format!("{verb}{text}");
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(goal: &str) -> Vec<String> {
        let dag = by_rules(goal);
        dag.leaves().map(|t| format!("{}: {}", t.id, t.description)).collect()
    }

    #[test]
    fn a_compound_goal_is_a_tree_in_which_tests_wait_for_what_they_test() {
        let goal = "REST endpoint for orders and a consumer for order events, with tests and docs";
        assert_eq!(
            parts(goal),
            [
                "root.1.1: Create REST endpoint for orders",
                "root.1.2: Create a consumer for order events",
                "root.2: Write tests for orders",
                "root.3: Write docs for orders",
            ]
        );
        let dag = by_rules(goal);
        let of = |id: &str| dag.tasks().iter().find(|t| t.id.as_str() == id).unwrap().depends_on.clone();
        assert_eq!(of("root.2"), [TaskId::new("root.1")], "tests wait for the whole group");
        assert_eq!(of("root.3"), [TaskId::new("root.2")]);
        assert!(of("root.1.1").is_empty() && of("root.1.2").is_empty(), "these two can run side by side");
    }

    /// `tests/data/goals.tsv`: how people name several things at once, and what must become of it.
    #[test]
    fn goals_are_taken_apart_as_a_person_would() {
        for line in include_str!("../../../tests/data/goals.tsv").lines().skip(1) {
            let (goal, expected) = line.split_once('\t').unwrap();
            let dag = by_rules(&goal.replace(" / ", "\n"));
            let part = |task: &Task| {
                let waits: Vec<&str> = task.depends_on.iter().map(TaskId::as_str).collect();
                let waits = if waits.is_empty() { String::new() } else { format!(" <- {}", waits.join(" ")) };
                format!("{}: {}{waits}", task.id, task.description)
            };
            let parts: Vec<String> = dag.leaves().map(part).collect();
            let found = if parts.len() < 2 { "-".to_owned() } else { parts.join(" | ") };
            assert_eq!(found, expected, "{goal}");
        }
    }

    #[test]
    fn openings_headings_and_inline_numbers_are_no_parts() {
        for (goal, expected) in [
            (
                "One more: a table for orders and an endpoint that lists them",
                ["root.1: Create a table for orders", "root.2: Create an endpoint that lists orders"].as_slice(),
            ),
            (
                "Could somebody add a table for orders and a REST endpoint for orders",
                &["root.1: Add a table for orders", "root.2: Create a REST endpoint for orders"],
            ),
            (
                "Orders: 1) postgres repository 2) REST API 3) Dockerfile",
                &[
                    "root.1.1: Create postgres repository for Orders",
                    "root.1.2: Create REST API for Orders",
                    "root.2: Write Dockerfile for Orders",
                ],
            ),
            (
                "trucks: table and CRUD endpoints",
                &["root.1: Create table for trucks", "root.2: Create CRUD endpoints for trucks"],
            ),
        ] {
            assert_eq!(parts(goal), expected, "{goal}");
        }
    }

    #[test]
    fn what_is_one_thing_stays_one_node() {
        for goal in [
            "Create a NATS consumer for processing user events",
            "A table for orders with customer_id integer, total decimal and note text",
            "REST endpoint for users and orders",
            "Write unit and integration tests for the parser",
            "database schema and migration for orders",
            "",
            "and and, with with",
            "REST endpoint for orders and a consumer for order events, without tests",
            "REST endpoint for orders and a consumer for order events, with no docs",
            "HTTP client with timeout and retries",
            "docker-compose with postgres and nats for local development",
            "subscribe to votes.cast and handle votes; log errors",
            "GitHub Actions workflow that runs lint and tests",
            "One more: REST endpoint for orders",
        ] {
            assert_eq!(by_rules(goal).tasks().len(), 1, "{goal}: {:?}", parts(goal));
        }
    }

    #[test]
    fn a_flood_of_words_is_one_node_at_once() {
        let goal: String = (0..4_000).map(|i| format!("q{i}x and ")).collect();
        let begun = std::time::Instant::now();
        assert_eq!(by_rules(&goal).tasks().len(), 1);
        assert!(begun.elapsed().as_secs() < 5, "it took 42 s before there was a limit: {:?}", begun.elapsed());
    }

    #[test]
    fn a_table_comes_before_its_endpoint() {
        let dag = by_rules("Create a REST endpoint for orders and a database table for orders, then write tests");
        let find = |what: &str| dag.leaves().find(|t| t.description.contains(what)).unwrap();
        assert_eq!(find("endpoint").depends_on, [find("table").id.clone()]);
    }

    #[test]
    fn local_names_become_ids_and_unknown_ones_are_named() {
        let piece = |name: &str, depends_on: &[&str]| Piece {
            name: name.to_owned(),
            description: format!("make {name}"),
            depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
        };
        let dag = from_pieces("goal", &[piece("schema", &[]), piece("api", &["schema"])]).unwrap();
        assert_eq!(dag.tasks()[2].depends_on, [TaskId::new("root.1")]);
        let unknown = from_pieces("goal", &[piece("a", &["zzz"]), piece("b", &[])]).unwrap_err();
        assert!(unknown.to_string().contains("zzz"));
        let cycle = from_pieces("goal", &[piece("a", &["b"]), piece("b", &["a"])]).unwrap_err();
        assert!(matches!(cycle, DagError::Cycle(_)), "{cycle}");
    }
}
