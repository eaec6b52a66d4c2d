//! A goal taken apart: which parts it names, and what must come before what. Pure.

use super::classify::{classify, types_of};
use super::words::{Form, LIMITERS, MOST, Word, words};
use crate::domain::{Dag, DagError, Limits, Task, TaskId, TaskType};

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
    let parts = clauses(goal);
    if parts.len() < 2 {
        return Dag::atomic(goal);
    }
    // A goal that names more than fits one level is rather not taken apart than cut short.
    graph(goal, &parts).unwrap_or_else(|_| Dag::atomic(goal))
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

/// A part that the text names.
#[derive(Debug, Clone)]
struct Clause {
    text: String,
    task_type: TaskType,
    /// It said "then": what stands before it comes first.
    after_previous: bool,
    /// Comes with the whole ("with tests and docs"), not beside it.
    extra: bool,
    /// It says what it is about ("for orders"); else it takes the first part's name.
    named: Option<String>,
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

/// The kinds of part that come with a whole: their bare word is enough ("with tests and docs").
fn comes_along(task_type: TaskType) -> bool {
    matches!(task_type, TaskType::Testing | TaskType::Documentation | TaskType::Devops)
}

/// More places than this where a part may begin, and the text is no list of parts.
const JOINTS: usize = 32;

fn clauses(goal: &str) -> Vec<Clause> {
    let words = words(goal);
    let joints: Vec<usize> = (1..words.len()).filter(|&at| joint(&words, at).is_some()).collect();
    // "without tests" asks for less, not for a part: what is left out is not for rules to say.
    let limits = |at: usize| {
        let first = words[at..].iter().find(|w| !is_joint_word(w));
        first.is_some_and(|w| LIMITERS.contains(&w.lower.as_str()))
    };
    if words.len() > MOST || joints.len() > JOINTS || joints.into_iter().any(limits) {
        return vec![];
    }
    let mut found: Vec<Clause> = vec![];
    let mut from = 0;
    let mut joined = "";
    for at in 1..=words.len() {
        let joint = if at == words.len() { Some("end") } else { joint(&words, at) };
        let Some(joint) = joint else { continue };
        let first = from + words[from..at].iter().take_while(|w| is_joint_word(w)).count();
        if let Some(clause) = clause(goal, &words[first.min(at)..at], joined, at == words.len() || !found.is_empty())
            .filter(|c| !found.last().is_some_and(|last| is_same_part(last, c)))
        {
            found.push(clause);
        } else if let (Some(last), Some(end)) = (found.last_mut(), words.get(at - 1)) {
            // It does not stand by itself: it belongs to what was said before.
            if let Some(begin) = goal.find(last.text.as_str()) {
                last.text = goal[begin..end.at + length_in(goal, end)].to_owned();
            }
        } else {
            // Nor is there anything before it: it begins what follows ("unit and integration tests").
            joined = joint;
            continue;
        }
        joined = joint;
        from = at;
    }
    found
}

/// Where a new clause may begin.
fn joint(words: &[Word], at: usize) -> Option<&'static str> {
    match words[at].lower.as_str() {
        "and" | "plus" => Some("and"),
        "then" => Some("then"),
        "with" | "including" => Some("with"),
        _ if words[at].after_break => Some("break"),
        _ => None,
    }
}

fn is_joint_word(word: &Word) -> bool {
    matches!(
        word.lower.as_str(),
        "and" | "plus" | "then" | "with" | "including" | "also" | "finally" | "after" | "that"
    )
}

/// A clause stands by itself where it begins like an order or a thing ("a consumer …", "write …") of a known type,
/// or names a kind that comes along ("tests").
fn clause(goal: &str, words: &[Word], joined: &str, may_come_along: bool) -> Option<Clause> {
    let first = words.first()?;
    let last = words.last()?;
    let task_type = classify(words).first().map(|c| c.task_type).filter(|t| *t != TaskType::General)?;
    let content: Vec<&Word> = words.iter().filter(|w| !w.is_filler()).collect();
    let opens = first.is_filler()
        && !matches!(first.lower.as_str(), "for" | "of" | "in" | "on" | "to" | "by" | "from" | "as" | "at");
    let head = content.first().is_some_and(|w| !types_of(w).is_empty());
    let alongside = may_come_along && comes_along(task_type) && content.len() <= 4 && !joined.is_empty();
    let stands = alongside
        || (joined.is_empty() && !content.is_empty())
        || (opens && joined != "with")
        || (head && joined == "break" && content.len() > 1);
    // "index integer" is a column, not a part.
    let is_field = content.len() == 2
        && content[1].form == Form::Plain
        && content[1].lower.len() > 2
        && TYPES.contains(&content[1].lower.as_str());
    if !stands || is_field {
        return None;
    }
    let text = goal[first.at..last.at + length_in(goal, last)].to_owned();
    let named = words
        .iter()
        .position(|w| matches!(w.lower.as_str(), "for" | "of" | "about" | "that"))
        .and_then(|at| words.get(at + 1..))
        .and_then(|rest| {
            let own: Vec<&str> =
                rest.iter().take_while(|w| !w.after_break && !w.is_boundary()).map(|w| w.text.as_str()).collect();
            (!own.is_empty()).then(|| own.join(" "))
        });
    let extra = comes_along(task_type) && !joined.is_empty();
    Some(Clause { text, task_type, after_previous: joined == "then", extra, named })
}

const TYPES: [&str; 12] =
    ["integer", "int", "text", "string", "decimal", "numeric", "boolean", "bool", "timestamp", "date", "uuid", "json"];

/// "a schema and migration for orders" is one part: of one type, and only one of the two has a name.
fn is_same_part(last: &Clause, next: &Clause) -> bool {
    last.task_type == next.task_type && (last.named.is_none() || next.named.is_none() || last.named == next.named)
}

fn length_in(goal: &str, word: &Word) -> usize {
    let quotes = if word.form == Form::Quoted { 2 } else { 0 };
    (word.text.len() + quotes).min(goal.len() - word.at)
}

fn graph(goal: &str, clauses: &[Clause]) -> Result<Dag, DagError> {
    if clauses.len() > *PARTS.end() {
        return Err(DagError::TooLarge { found: clauses.len(), limit: *PARTS.end() });
    }
    let name = clauses.iter().find_map(|c| c.named.as_deref());
    let root = TaskId::new("root");
    let mut tasks = vec![Task { id: root.clone(), description: goal.to_owned(), parent: None, depends_on: vec![] }];
    // Several parts that make the thing form a group of their own, so that what comes along waits for all of them.
    let makers = clauses.iter().filter(|c| !c.extra).count();
    let grouped = makers >= 2 && makers < clauses.len();
    let group = TaskId::new("root.1");
    if grouped {
        let text = clauses.iter().filter(|c| !c.extra).map(|c| c.text.as_str()).collect::<Vec<_>>().join(" and ");
        tasks.push(Task { id: group.clone(), description: text, parent: Some(root.clone()), depends_on: vec![] });
    }
    let (mut inside, mut beside) = (0, usize::from(grouped));
    let ids: Vec<TaskId> = clauses
        .iter()
        .map(|c| {
            let counter = if grouped && !c.extra { &mut inside } else { &mut beside };
            *counter += 1;
            let parent = if grouped && !c.extra { &group } else { &root };
            TaskId::new(&format!("{parent}.{counter}"))
        })
        .collect();
    for (i, clause) in clauses.iter().enumerate() {
        let before = |j: usize| rank(clauses[j].task_type) < rank(clause.task_type);
        let nearest = (0..clauses.len()).filter(|&j| before(j)).map(|j| rank(clauses[j].task_type)).max();
        let mut depends_on: Vec<TaskId> = (0..clauses.len())
            .filter(|&j| before(j) && Some(rank(clauses[j].task_type)) == nearest)
            .map(|j| if grouped && clause.extra && !clauses[j].extra { group.clone() } else { ids[j].clone() })
            .collect();
        if clause.after_previous && i > 0 && rank(clauses[i - 1].task_type) <= rank(clause.task_type) {
            depends_on.push(ids[i - 1].clone());
        }
        depends_on.sort();
        depends_on.dedup();
        let parent = if grouped && !clause.extra { group.clone() } else { root.clone() };
        tasks.push(Task { id: ids[i].clone(), description: describe(clause, name), parent: Some(parent), depends_on });
    }
    Dag::new(tasks, &LIMITS)
}

/// A part that can be read by itself: an order, with the name that it shares with the others.
fn describe(clause: &Clause, name: Option<&str>) -> String {
    let text = clause.text.trim();
    let ordered = words(text).first().is_some_and(|w| VERBS.contains(&w.lower.as_str()));
    let verb = if ordered {
        ""
    } else if clause.extra {
        "Write "
    } else {
        "Create "
    };
    match (&clause.named, name) {
        (None, Some(name)) => format!("{verb}{text} for {name}"),
        _ => format!("{verb}{text}"),
    }
}

const VERBS: [&str; 14] = [
    "create",
    "write",
    "build",
    "implement",
    "make",
    "add",
    "generate",
    "develop",
    "provide",
    "define",
    "document",
    "deploy",
    "test",
    "set",
];

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
