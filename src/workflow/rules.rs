//! Goals taken apart by rules: files that a user edits. `config/workflows/microservices.toml` says what stands in one.
//! A word of a goal only ever becomes a word of a description: it names no task, no subject, and nothing reads it as code.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::options::Decomposers;
use crate::domain::workflow::GoalType;
use crate::domain::{Dag, DagError, Limits, Task, TaskId};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/workflows");

/// Of a goal that rules are asked for; a longer one is for a model.
const GOAL_WORDS: usize = 400;
/// Of what one name keeps of it.
const CAPTURE_CHARS: usize = 400;
const PATTERN_WORDS: usize = 64;
const FILE_BYTES: u64 = 1024 * 1024;
const FILES: usize = 1_000;
const TASKS: usize = 1_000;
const DESCRIPTION_CHARS: usize = 2_000;
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Who does a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    #[default]
    Agent,
    Model {
        model: Option<String>,
    },
    Nats {
        subject: String,
    },
    Native {
        name: String,
    },
}

/// A task and who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub task: Task,
    pub step: Step,
    /// It changes nothing, and what it comes to follows from its inputs alone.
    pub pure: bool,
}

/// What a rule says of a goal. Its tasks are a graph, which was checked when the rule was read; without any it says only of
/// which type the goal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decomposition<'a> {
    /// File and rule, as `service/build_service`.
    pub rule: &'a str,
    pub kind: GoalType,
    pub max_depth: usize,
    pub timeout: Duration,
    pub tasks: Vec<Planned>,
}

/// Why a file of rules can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RuleError {
    pub path: String,
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// All rules of this worker, those that go first on top.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    left_out: Vec<RuleError>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    kind: GoalType,
    max_depth: usize,
    timeout: Duration,
    pattern: Vec<Token>,
    tasks: Vec<Planned>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Vec<String>),
    Maybe(Vec<String>),
    Capture(String),
    Anything,
}

/// The goal as tasks, by the first rule that fits.
pub fn decompose<'a>(goal: &str, rules: &'a Rules) -> Option<Decomposition<'a>> {
    let words: Vec<&str> = goal.split_whitespace().take(GOAL_WORDS + 1).collect();
    if words.is_empty() || words.len() > GOAL_WORDS {
        return None;
    }
    let plain: Vec<String> = words.iter().map(|word| plain(word).to_lowercase()).collect();
    rules.rules.iter().find_map(|rule| {
        let captures = captures(&rule.pattern, &words, &plain)?;
        let tasks = rule.tasks.iter().map(|planned| {
            let task = Task { description: fill(&planned.task.description, &captures), ..planned.task.clone() };
            Planned { task, step: planned.step.clone(), pure: planned.pure }
        });
        let (kind, max_depth, timeout) = (rule.kind, rule.max_depth, rule.timeout);
        Some(Decomposition { rule: &rule.name, kind, max_depth, timeout, tasks: tasks.collect() })
    })
}

impl Rules {
    /// The rules in the binary, and those in `folder`, of which a file with the same name replaces a built-in.
    /// A broken file is left out and named in [`Self::left_out`]; the rest serves.
    pub fn load(folder: Option<&Path>, bounds: &Decomposers) -> Self {
        let mut left_out = vec![];
        let (own, mut built_in) = (read_folder(folder, bounds, &mut left_out), read_built_in(bounds, &mut left_out));
        built_in.retain(|stem, _| !own.contains_key(stem));
        let mut rules = vec![];
        for files in [own, built_in] {
            let mut of_origin: Vec<Rule> = files.into_values().flatten().collect();
            // What names more words means less.
            of_origin.sort_by_key(|rule| std::cmp::Reverse(weight(&rule.pattern)));
            rules.extend(of_origin);
        }
        Self { rules, left_out }
    }

    /// The files that could not be used, and why.
    pub fn left_out(&self) -> &[RuleError] {
        &self.left_out
    }

    /// Names of all rules, in the order in which they are tried.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }
}

/// Rules by the name of their file.
type Files = BTreeMap<String, Vec<Rule>>;

fn read_built_in(bounds: &Decomposers, left_out: &mut Vec<RuleError>) -> Files {
    let mut files = Files::new();
    for file in BUILT_IN.files().filter(|file| is_toml(file.path())) {
        let text = file.contents_utf8().ok_or_else(|| "is not text".to_owned());
        add(&mut files, file.path(), text, bounds, left_out);
    }
    files
}

fn read_folder(folder: Option<&Path>, bounds: &Decomposers, left_out: &mut Vec<RuleError>) -> Files {
    let mut files = Files::new();
    let Some(folder) = folder else { return files };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A folder that is not there holds none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return files,
        Err(error) => {
            left_out.push(broken(folder, format!("can't be read: {error}")));
            return files;
        }
    };
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_toml(path) && path.is_file()).collect();
    paths.sort();
    if paths.len() > FILES {
        left_out.push(broken(folder, format!("holds {} files; the first {FILES} are read", paths.len())));
    }
    for path in paths.into_iter().take(FILES) {
        let text = read(&path);
        add(&mut files, &path, text.as_deref().map_err(Clone::clone), bounds, left_out);
    }
    files
}

/// No more of a file than it may have, whatever it is.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("can't be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES { Err(format!("is larger than {FILE_BYTES} bytes")) } else { Ok(text) }
}

fn add(
    files: &mut Files,
    path: &Path,
    text: Result<&str, String>,
    bounds: &Decomposers,
    left_out: &mut Vec<RuleError>,
) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match text.map(|text| parse(&stem, &path.display().to_string(), text, bounds)) {
        Ok(Ok(rules)) => _ = files.insert(stem, rules),
        Ok(Err(errors)) => left_out.extend(errors),
        Err(message) => left_out.push(broken(path, message)),
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn broken(path: &Path, message: String) -> RuleError {
    RuleError { path: path.display().to_string(), line: None, message }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "type")]
    kind: GoalType,
    max_depth: Option<Spanned<usize>>,
    timeout_s: Option<Spanned<u64>>,
    #[serde(default)]
    rule: Vec<FileRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    name: Spanned<String>,
    goal: Spanned<String>,
    #[serde(default)]
    task: Vec<FileTask>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTask {
    id: Spanned<String>,
    description: Spanned<String>,
    #[serde(default)]
    depends_on: Vec<Spanned<String>>,
    group: Option<Spanned<String>>,
    #[serde(default)]
    step: Option<Spanned<Step>>,
    #[serde(default)]
    pure: bool,
}

/// Errors of one file, with the lines that they are on.
struct Complaints<'a> {
    path: &'a str,
    text: &'a str,
    found: Vec<RuleError>,
}

impl Complaints<'_> {
    fn add(&mut self, at: usize, message: String) {
        let line = 1 + self.text.get(..at).unwrap_or_default().matches('\n').count();
        self.found.push(RuleError { path: self.path.to_owned(), line: Some(line), message });
    }
}

fn parse(stem: &str, path: &str, text: &str, bounds: &Decomposers) -> Result<Vec<Rule>, Vec<RuleError>> {
    let mut complaints = Complaints { path, text, found: vec![] };
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            complaints.add(error.span().map_or(0, |span| span.start), error.message().to_owned());
            return Err(complaints.found);
        }
    };
    let (mut max_depth, mut timeout) = bounds.of(file.kind);
    if let Some(depth) = &file.max_depth {
        max_depth = *depth.get_ref();
        if !(1..=100).contains(&max_depth) {
            complaints.add(depth.span().start, format!("max_depth is {max_depth}; it can be 1 to 100"));
        }
    }
    if let Some(seconds) = &file.timeout_s {
        timeout = Duration::from_secs(*seconds.get_ref());
        if timeout.is_zero() || timeout > LONGEST {
            let message = format!("timeout_s is {}; it can be 1 to {}", seconds.get_ref(), LONGEST.as_secs());
            complaints.add(seconds.span().start, message);
        }
    }
    let mut rules: Vec<Rule> = vec![];
    for rule in &file.rule {
        let name = format!("{stem}/{}", rule.name.get_ref());
        if rule.name.get_ref().is_empty() || rules.iter().any(|other| other.name == name) {
            let message = format!("two rules are called '{}', or it has no name", rule.name.get_ref());
            complaints.add(rule.name.span().start, message);
        }
        let pattern = pattern(rule.goal.get_ref()).unwrap_or_else(|message| {
            complaints.add(rule.goal.span().start, format!("goal: {message}"));
            vec![]
        });
        let tasks = tasks(rule, &pattern, max_depth, &mut complaints);
        rules.push(Rule { name, kind: file.kind, max_depth, timeout, pattern, tasks });
    }
    if complaints.found.is_empty() { Ok(rules) } else { Err(complaints.found) }
}

fn tasks(rule: &FileRule, pattern: &[Token], max_depth: usize, complaints: &mut Complaints<'_>) -> Vec<Planned> {
    for task in &rule.task {
        let id = task.id.get_ref();
        let is_id =
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !is_id {
            complaints.add(task.id.span().start, format!("id: {id:?} is not 1 to 64 of a-z, A-Z, 0-9, _ and -"));
        }
        let description = task.description.get_ref();
        if description.trim().is_empty() || description.chars().count() > DESCRIPTION_CHARS {
            let message = format!("description: it has 1 to {DESCRIPTION_CHARS} characters");
            complaints.add(task.description.span().start, message);
        }
        if let Err(message) = check_names(description, pattern) {
            complaints.add(task.description.span().start, format!("description: {message}"));
        }
        if let Some(step) = &task.step
            && let Err(message) = check_step(step.get_ref())
        {
            complaints.add(step.span().start, format!("step: {message}"));
        }
    }
    let planned: Vec<Planned> = rule
        .task
        .iter()
        .map(|task| Planned {
            task: Task {
                id: TaskId::new(task.id.get_ref()),
                description: task.description.get_ref().clone(),
                parent: task.group.as_ref().map(|group| TaskId::new(group.get_ref())),
                depends_on: task.depends_on.iter().map(|d| TaskId::new(d.get_ref())).collect(),
            },
            step: task.step.as_ref().map(|step| step.get_ref().clone()).unwrap_or_default(),
            pure: task.pure,
        })
        .collect();
    let limits = Limits { tasks: TASKS, depth: max_depth };
    // Without tasks it says of which type such a goal is: somebody else takes it apart.
    if !planned.is_empty()
        && let Err(error) = Dag::new(planned.iter().map(|p| p.task.clone()).collect(), &limits)
    {
        complaints.add(place_of(&error, rule), error.to_string());
    }
    planned
}

/// Where in the file a graph goes wrong.
fn place_of(error: &DagError, rule: &FileRule) -> usize {
    let task = |id: &TaskId| {
        let id = id.clone();
        rule.task.iter().filter(move |task| task.id.get_ref() == id.as_str())
    };
    let of = |id: &TaskId| task(id).next_back().map(|task| task.id.span().start);
    let place = match error {
        DagError::Empty | DagError::TooLarge { .. } => None,
        DagError::Duplicate(id) => of(id),
        DagError::TooDeep { task, .. } => of(task),
        DagError::UnknownDependency { task: id, missing } => task(id)
            .flat_map(|task| &task.depends_on)
            .find(|dependency| dependency.get_ref() == missing.as_str())
            .map(|dependency| dependency.span().start),
        DagError::UnknownParent { task: id, .. } => {
            task(id).find_map(|task| task.group.as_ref()).map(|group| group.span().start)
        }
        DagError::Cycle(ids) => ids.first().and_then(of),
    };
    place.unwrap_or(rule.name.span().start)
}

fn check_step(step: &Step) -> Result<(), String> {
    let plain = |what: &str, text: &str| {
        let fits = (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
        if fits { Ok(()) } else { Err(format!("{what} {text:?} is not 1 to 128 printed characters without a space")) }
    };
    match step {
        Step::Agent | Step::Model { model: None } => Ok(()),
        Step::Model { model: Some(model) } => plain("model", model),
        Step::Native { name } => plain("name", name),
        Step::Nats { subject } => {
            plain("subject", subject)?;
            let whole = subject.split('.').all(|token| !token.is_empty()) && !subject.contains(['*', '>', '{', '}']);
            if !whole || subject.starts_with(['$', '_']) {
                return Err(format!(
                    "subject {subject:?} is not a plain subject: no wildcards, no empty tokens, no names of the goal, \
                     nothing that begins with $ or _"
                ));
            }
            Ok(())
        }
    }
}

fn pattern(goal: &str) -> Result<Vec<Token>, String> {
    let mut tokens = vec![];
    for word in goal.split_whitespace() {
        let inner = |open, close| word.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
        let token = if word == "..." {
            Token::Anything
        } else if let Some(name) = inner('{', '}') {
            if !is_name(name) {
                return Err(format!("{word:?} keeps words under no name of a-z and _"));
            }
            let token = Token::Capture(name.to_owned());
            if tokens.contains(&token) {
                return Err(format!("{word:?} stands there twice"));
            }
            token
        } else if let Some(words) = inner('[', ']') {
            Token::Maybe(alternatives(words)?)
        } else {
            Token::Word(alternatives(word)?)
        };
        tokens.push(token);
    }
    if !tokens.iter().any(|token| matches!(token, Token::Word(_))) {
        return Err("it names no word, so it would fit any goal".to_owned());
    }
    if tokens.len() > PATTERN_WORDS {
        return Err(format!("it has {} words; at most {PATTERN_WORDS} are allowed", tokens.len()));
    }
    Ok(tokens)
}

fn alternatives(words: &str) -> Result<Vec<String>, String> {
    let split: Vec<String> = words.split('|').map(|word| plain(word).to_lowercase()).collect();
    if split.iter().any(|word| word.is_empty() || word.contains(['{', '}', '[', ']'])) {
        return Err(format!("{words:?} is no word; write a|b, [a|b], {{name}} or ..."));
    }
    Ok(split)
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// A word without the punctuation around it.
fn plain(word: &str) -> &str {
    word.trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '`' | '(' | ')'))
}

/// Words that a goal must have, then those that it may have.
fn weight(pattern: &[Token]) -> (usize, usize) {
    let count = |is: fn(&Token) -> bool| pattern.iter().filter(|token| is(token)).count();
    (count(|token| matches!(token, Token::Word(_))), count(|token| matches!(token, Token::Maybe(_))))
}

/// What each name keeps, if the pattern fits the whole goal. Time is linear in both, whatever they hold.
fn captures<'a>(pattern: &'a [Token], words: &[&str], plain_words: &[String]) -> Option<HashMap<&'a str, String>> {
    let (rows, columns) = (pattern.len(), words.len());
    // fits[i][j]: what is left of the pattern from i fits what is left of the goal from j.
    let mut fits = vec![vec![false; columns + 1]; rows + 1];
    fits[rows][columns] = true;
    for i in (0..rows).rev() {
        // Whether a capture that has begun before j can end there or later.
        let mut ends_later = false;
        for j in (0..=columns).rev() {
            fits[i][j] = match &pattern[i] {
                Token::Word(any) => j < columns && any.contains(&plain_words[j]) && fits[i + 1][j + 1],
                Token::Maybe(any) => {
                    fits[i + 1][j] || (j < columns && any.contains(&plain_words[j]) && fits[i + 1][j + 1])
                }
                Token::Anything => fits[i + 1][j] || (j < columns && fits[i][j + 1]),
                Token::Capture(_) => ends_later,
            };
            ends_later |= fits[i + 1][j];
        }
    }
    if !fits[0][0] {
        return None;
    }
    let mut found = HashMap::new();
    let mut j = 0;
    for (i, token) in pattern.iter().enumerate() {
        match token {
            Token::Word(_) => j += 1,
            Token::Maybe(any) => {
                if j < columns && any.contains(&plain_words[j]) && fits[i + 1][j + 1] {
                    j += 1;
                }
            }
            Token::Anything => j += (j..=columns).position(|end| fits[i + 1][end])?,
            Token::Capture(name) => {
                let end = (j + 1..=columns).find(|&end| fits[i + 1][end])?;
                let kept: String = words[j..end].join(" ").chars().filter(|c| !c.is_control()).collect();
                let kept = kept.trim_end_matches(['.', ',', ';', ':', '!', '?']).to_owned();
                if kept.is_empty() || kept.chars().count() > CAPTURE_CHARS {
                    return None;
                }
                found.insert(name.as_str(), kept);
                j = end;
            }
        }
    }
    Some(found)
}

/// The names in a description: `{name}`, and `{{` for a brace.
fn pieces(description: &str) -> Vec<Result<&str, &str>> {
    let mut found = vec![];
    let mut rest = description;
    while let Some(open) = rest.find('{') {
        let (text, from) = rest.split_at(open);
        found.push(Ok(text));
        if let Some(after) = from.strip_prefix("{{") {
            found.push(Ok("{"));
            rest = after;
        } else if let Some((name, after)) = from[1..].split_once('}') {
            found.push(Err(name));
            rest = after;
        } else {
            found.push(Err(&from[1..]));
            rest = "";
        }
    }
    found.push(Ok(rest));
    found
}

fn check_names(description: &str, pattern: &[Token]) -> Result<(), String> {
    let kept = |name: &str| pattern.iter().any(|token| matches!(token, Token::Capture(kept) if kept == name));
    match pieces(description).into_iter().find_map(|piece| piece.err().filter(|name| !kept(name))) {
        Some(name) => Err(format!("the goal keeps nothing under the name {name:?}; write {{{{ for a brace")),
        None => Ok(()),
    }
}

/// In one pass, so that a brace in a kept word stays a brace.
fn fill(description: &str, captures: &HashMap<&str, String>) -> String {
    let pieces = pieces(description).into_iter();
    pieces.map(|piece| piece.unwrap_or_else(|name| captures.get(name).map_or("", String::as_str))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<'a>(found: &'a Decomposition<'_>) -> Vec<&'a str> {
        found.tasks.iter().map(|planned| planned.task.id.as_str()).collect()
    }

    fn file(rule: &str) -> Result<Vec<Rule>, Vec<RuleError>> {
        parse("own", "own.toml", rule, &Decomposers::default())
    }

    fn rules(text: &str) -> Rules {
        Rules { rules: file(text).unwrap(), left_out: vec![] }
    }

    const TASK: &str = "[[rule.task]]\nid = \"a\"\ndescription = \"does a\"\n";

    #[test]
    fn the_built_in_rules_can_all_be_used() {
        let rules = Rules::load(None, &Decomposers::default());
        assert_eq!(rules.left_out(), []);
        assert!(rules.names().count() >= 4);
    }

    #[test]
    fn the_guides_three_examples_are_taken_apart() {
        let rules = Rules::load(None, &Decomposers::default());
        let goal = "Design a scalable microservices architecture for an e-commerce platform";
        let found = decompose(goal, &rules).unwrap();
        assert_eq!(
            ids(&found),
            ["analyze_requirements", "identify_domains", "design_services", "plan_deployment", "create_documentation"]
        );
        assert_eq!((found.kind, found.max_depth, found.timeout.as_secs()), (GoalType::Microservices, 15, 120));
        assert_eq!(found.tasks[0].task.description, "Analyze the business requirements of e-commerce platform");
        let found = decompose("Optimize our data processing pipeline for 10x throughput", &rules).unwrap();
        assert_eq!(found.rule, "data_pipeline/optimize_pipeline");
        assert_eq!(ids(&found).len(), 6);
        assert_eq!(found.tasks[4].task.description, "Benchmark the results against 10x throughput");
        for name in ["user", "product", "order"] {
            let goal = format!("Build {name} service API");
            let found = decompose(&goal, &rules).unwrap();
            assert_eq!(ids(&found), ["design_schema", "implement_endpoints", "add_tests"]);
            assert_eq!(found.tasks[0].task.description, format!("Design the schema of the {name} service"));
            let tasks = found.tasks.into_iter().map(|planned| planned.task).collect();
            assert!(Dag::new(tasks, &Limits::default()).is_ok());
        }
    }

    #[test]
    fn a_rule_may_say_that_a_task_is_pure() {
        let rules = rules(
            r#"
            [[rule]]
            name = "count"
            goal = "count words"
            [[rule.task]]
            id = "read"
            description = "Read the words"
            [[rule.task]]
            id = "count"
            description = "Count them"
            depends_on = ["read"]
            pure = true
            "#,
        );
        let found = decompose("count words", &rules).unwrap();
        assert_eq!(found.tasks.iter().map(|task| task.pure).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_no_rule_knows_is_none() {
        let rules = Rules::load(None, &Decomposers::default());
        for goal in
            ["", "  ", "Make me a sandwich", "Build", "Build service", "Design a microservices architecture for"]
        {
            assert_eq!(decompose(goal, &rules), None, "{goal:?}");
        }
        let long = format!("Build {} service", "very ".repeat(100_000));
        assert_eq!(decompose(&long, &rules), None);
        assert_eq!(decompose(&format!("Build {} service", "x".repeat(5_000)), &rules), None);
    }

    #[test]
    fn words_fit_in_any_case_with_options_and_gaps() {
        let rules =
            rules(&format!("[[rule]]\nname = \"r\"\ngoal = \"ship|send [the] {{what}} to ... {{whom}} now\"\n{TASK}"));
        let fits = |goal: &str| decompose(goal, &rules).is_some();
        assert!(fits("SHIP the red boxes to Ada now!"));
        assert!(fits("send boxes to my friend Ada, now."));
        assert!(!fits("send boxes to now"), "nobody is named");
        assert!(!fits("send to Ada now"), "nothing is named");
        assert!(!fits("please send boxes to Ada now"), "it has to fit from the first word");
    }

    #[test]
    fn what_a_goal_says_stays_text() {
        let text = "[[rule]]\nname = \"r\"\ngoal = \"build {name} {more} service\"\n\
                    [[rule.task]]\nid = \"a\"\ndescription = \"{{literal}} {name} and {more}\"\n";
        let rules = rules(text);
        let found = decompose("Build {more} {{name}}\u{7}${x}<b> service", &rules).unwrap();
        assert_eq!(found.tasks[0].task.description, "{literal}} {more} and {{name}}${x}<b>");
    }

    #[test]
    fn a_pattern_of_captures_is_read_in_linear_time() {
        let names: Vec<String> =
            (0..20).map(|i| format!("{{{}}}", "abcdefghijklmnopqrst".as_bytes()[i] as char)).collect();
        let rules = rules(&format!("[[rule]]\nname = \"r\"\ngoal = \"x {} end\"\n{TASK}", names.join(" ")));
        assert_eq!(decompose(&format!("x {}", "y ".repeat(390)), &rules), None);
        assert!(decompose(&format!("x {} end", "y ".repeat(200)), &rules).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_goal_and_any_file_are_survived(goal in ".{0,200}", text in ".{0,200}", name in "\\PC{1,40}") {
            let rules = Rules::load(None, &Decomposers::default());
            let _ = decompose(&goal, &rules);
            let _ = file(&text);
            let _ = file(&format!("[[rule]]\nname = \"r\"\ngoal = '''\n{text}\n'''\n{TASK}"));
            // Whatever is kept is in the description, and nowhere else.
            if let Some(found) = decompose(&format!("build {name} service"), &rules) {
                assert_eq!(ids(&found), ["design_schema", "implement_endpoints", "add_tests"]);
                assert!(found.tasks.iter().all(|planned| planned.step == Step::Agent));
            }
        }
    }

    #[test]
    fn every_fault_names_its_line() {
        let fault = |text: &str| file(text).unwrap_err().into_iter().map(|e| e.to_string()).collect::<Vec<_>>();
        let rule = "[[rule]]\nname = \"r\"\ngoal = \"build {x}\"\n";
        let found =
            |text: &str, says: &str| {
                let errors = fault(text);
                assert!(
                    errors.iter().any(|e| e.starts_with(says.split('~').next().unwrap())
                        && e.contains(says.split('~').nth(1).unwrap())),
                    "{says}: {errors:?}"
                );
            };
        found("type = \"tiny\"", "own.toml:1: ~unknown variant");
        found("[[rule]\n", "own.toml:1: ~");
        found(&format!("{rule}colour = 1\n"), "own.toml:4: ~unknown field `colour`");
        found("[[rule]]\nname = \"r\"\ngoal = \"{x}\"\n", "own.toml:3: ~fit any goal");
        found("[[rule]]\nname = \"r\"\ngoal = \"a {x} {x}\"\n", "own.toml:3: ~twice");
        found(&format!("{rule}{TASK}depends_on = [\"b\"]\n"), "own.toml:7: ~'b', which is not in the graph");
        found(&format!("{rule}{TASK}depends_on = [\"a\"]\n"), "own.toml:5: ~wait for each other: a -> a");
        found(&format!("{rule}{TASK}{TASK}"), "own.toml:8: ~two tasks are called 'a'");
        found(
            &format!("{rule}[[rule.task]]\nid = \"a\"\ndescription = \"{{y}}\"\n"),
            "own.toml:6: ~under the name \"y\"",
        );
        found(&format!("{rule}[[rule.task]]\nid = \"a b\"\ndescription = \"y\"\n"), "own.toml:5: ~id: ");
        for subject in ["$SYS.x", "a.*", "a..b", "a.{x}", "_INBOX.x", ""] {
            let text = format!("{rule}{TASK}step = {{ kind = \"nats\", subject = \"{subject}\" }}\n");
            found(&text, "own.toml:7: ~step: subject");
        }
        found(&format!("{rule}{TASK}step = {{ kind = \"shell\" }}\n"), "own.toml:7: ~unknown variant `shell`");
        found(&format!("max_depth = 0\n{rule}{TASK}"), "own.toml:1: ~max_depth is 0");
        found(&format!("timeout_s = 0\n{rule}{TASK}"), "own.toml:1: ~timeout_s is 0");
    }

    #[test]
    fn a_rule_without_tasks_says_of_which_type_a_goal_is() {
        let rules =
            rules("type = \"ml_pipeline\"\ntimeout_s = 7\n[[rule]]\nname = \"r\"\ngoal = \"train ... model\"\n");
        let found = decompose("Train our churn model", &rules).unwrap();
        assert_eq!((found.kind, found.max_depth, found.timeout.as_secs()), (GoalType::MlPipeline, 20, 7));
        assert!(found.tasks.is_empty());
    }

    #[test]
    fn groups_go_as_deep_as_the_type_allows() {
        let tasks = |levels: usize| {
            let task = |i: usize| {
                let group = if i > 0 { format!("group = \"t{}\"\n", i - 1) } else { String::new() };
                format!("[[rule.task]]\nid = \"t{i}\"\ndescription = \"x\"\n{group}")
            };
            let tasks: String = (0..levels).map(task).collect();
            format!("type = \"simple\"\n[[rule]]\nname = \"r\"\ngoal = \"build\"\n{tasks}")
        };
        assert!(file(&tasks(5)).is_ok());
        assert!(file(&tasks(6)).unwrap_err()[0].message.contains("'t5' lies 5 levels deep or deeper"));
    }

    #[test]
    fn a_broken_file_is_named_and_the_rest_serves() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("broken.toml", "type = ");
        write("binary.toml", "");
        std::fs::write(folder.path().join("binary.toml"), [0xff, 0xfe, 0x00]).unwrap();
        write("note.txt", "not a rule");
        write("service.toml", &format!("[[rule]]\nname = \"mine\"\ngoal = \"build {{x}} service api\"\n{TASK}"));
        let rules = Rules::load(Some(folder.path()), &Decomposers::default());
        let errors: Vec<String> = rules.left_out().iter().map(RuleError::to_string).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors.iter().any(|e| e.contains("broken.toml:1: ")), "{errors:?}");
        assert!(errors.iter().any(|e| e.contains("binary.toml: can't be read")), "{errors:?}");
        let found = decompose("Build user service API", &rules).unwrap();
        assert_eq!(found.rule, "service/mine", "a user's file replaces the built-in of its name");
        assert!(!rules.names().any(|name| name == "service/build_service"));
        assert!(decompose("Optimize the data processing pipeline", &rules).is_some());
        assert_eq!(Rules::load(Some(&folder.path().join("none")), &Decomposers::default()).left_out(), []);
    }
}
