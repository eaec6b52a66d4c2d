//! Which template answers a task, if any. Decides; renders nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use rand::Rng;
use serde::Serialize;

use super::audience;
use super::classify::{Classified, classify};
use super::graph::{self, Level};
use super::library::{Library, Template};
use super::reading::{Reading, read};
use super::words::{MOST, Word, is_question, words};
use crate::domain::record::{EdgeKey, EdgeStats};
use crate::domain::{Language, TaskType, TemplateId, Timestamp};

/// A template that the graph leads to, and how it reads the task.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub template: &'a Template,
    pub task_type: TaskType,
    pub level: Level,
    pub reading: Reading,
    /// `None` until the edge was used.
    pub score: Option<f64>,
}

/// What the rules say of a task.
#[derive(Debug)]
pub struct Selected<'a> {
    /// The type of the chosen template, else the likeliest type.
    pub task_type: TaskType,
    pub types: Vec<Classified>,
    pub chosen: Option<Candidate<'a>>,
    /// The others that read the task, the nearest first.
    pub others: Vec<Candidate<'a>>,
    pub declined: Option<Declined>,
    /// Of a declined task: what does most of it, and leaves whole phrases out.
    pub incomplete: Option<Candidate<'a>>,
}

/// Why the rules leave a task to the cache and the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Declined {
    /// It asks something.
    Question,
    /// No template is about this.
    NoTemplate,
    /// The nearest template does not account for these words.
    NotUnderstood { template: TemplateId, words: Vec<String> },
    /// It has more words than rules can be sure of.
    TooLong,
    /// It goes on a conversation, which rules can't read.
    Conversation,
    /// What the template made of it does not parse.
    DoesNotParse { template: TemplateId },
    /// Its sender found what the rules make of it wrong.
    FoundWrong { template: TemplateId },
}

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Question => write!(f, "the task asks a question"),
            Self::NoTemplate => write!(f, "no template is about this task"),
            Self::TooLong => write!(f, "the task is too long for rules"),
            Self::Conversation => write!(f, "the task goes on a conversation, which rules can't read"),
            Self::DoesNotParse { template } => write!(f, "what template {template} made of this task does not parse"),
            Self::NotUnderstood { template, words } => {
                write!(f, "the nearest template, {template}, does not account for: {}", words.join(", "))
            }
            Self::FoundWrong { template } => write!(f, "template {template} was found wrong for this task"),
        }
    }
}

/// What selecting needs to know.
pub struct Knowledge<'a, 'k> {
    pub library: &'a Library,
    pub figures: &'k HashMap<EdgeKey, EdgeStats>,
    pub options: &'k graph::Options,
    /// Above this share of words that nothing accounts for the rules decline.
    pub max_unknown_share: f64,
    pub now: Timestamp,
}

/// Walks the graph from the likeliest type: its own templates, the language's generic ones, the universal ones.
/// The first node with a template that is sure decides; among its equals the score does.
pub fn select<'a>(
    task: &str,
    demands: &[String],
    language: &Language,
    is_blocked: impl Fn(&TemplateId) -> bool,
    knowledge: &Knowledge<'a, '_>,
    rng: &mut impl Rng,
) -> Selected<'a> {
    let (all, demands) = (words(task), words(&demands.join("\n")));
    let words = &all[audience::opening(&all)..];
    let types = classify(words);
    let likeliest = types.first().map_or(TaskType::General, |t| t.task_type);
    if words.len() + demands.len() > MOST {
        return Selected {
            task_type: likeliest,
            types,
            chosen: None,
            others: vec![],
            declined: Some(Declined::TooLong),
            incomplete: None,
        };
    }
    let mut candidates = read_all(words, &demands, &types, language, knowledge);
    let declined = |declined, others| Selected {
        task_type: likeliest,
        types: types.clone(),
        chosen: None,
        others,
        declined: Some(declined),
        incomplete: None,
    };
    if is_question(words, task) {
        return declined(Declined::Question, candidates);
    }
    let sure = |c: &Candidate<'_>| c.reading.is_sure(knowledge.max_unknown_share);
    let fits = |c: &Candidate<'_>| sure(c) && !is_blocked(&c.template.id);
    let Some(first) = candidates.iter().find(|c| fits(c)) else {
        let wrong =
            candidates.iter().find(|c| sure(c)).map(|c| Declined::FoundWrong { template: c.template.id.clone() });
        let nearest = candidates.iter().min_by(|a, b| a.reading.unknown_share().total_cmp(&b.reading.unknown_share()));
        let why = wrong.or_else(|| {
            nearest
                .map(|c| Declined::NotUnderstood { template: c.template.id.clone(), words: c.reading.unknown.clone() })
        });
        let leaves = |c: &Candidate<'_>| {
            let left = c.reading.left_out.as_ref()?;
            (!is_blocked(&c.template.id))
                .then(|| (left.iter().map(Range::len).sum::<usize>(), Reverse(c.reading.triggered)))
        };
        let least = (0..candidates.len()).filter_map(|i| Some((leaves(&candidates[i])?, i))).min();
        let incomplete = least.map(|(_, i)| candidates.remove(i));
        return Selected { incomplete, ..declined(why.unwrap_or(Declined::NoTemplate), candidates) };
    };
    // The equals of the first: same node, as many words understood, as much made for them.
    let (node, unknown) = ((first.task_type, first.level), first.reading.unknown.len());
    let triggered = first.reading.triggered;
    let equals: Vec<usize> = (0..candidates.len())
        .filter(|&i| {
            let c = &candidates[i];
            fits(c)
                && (c.task_type, c.level) == node
                && c.reading.unknown.len() == unknown
                && c.reading.triggered == triggered
        })
        .collect();
    let scores: Vec<Option<f64>> = equals.iter().map(|&i| candidates[i].score).collect();
    let chosen = graph::choose(&scores, knowledge.options, rng).map(|i| candidates.remove(equals[i]));
    Selected { task_type: node.0, types, chosen, others: candidates, declined: None, incomplete: None }
}

/// Every template on the walk that reads the task, nearest node first, best understood first within a node, then
/// the one that more of the words trigger.
fn read_all<'a>(
    words: &[Word],
    demands: &[Word],
    types: &[Classified],
    language: &Language,
    knowledge: &Knowledge<'a, '_>,
) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = vec![];
    // "tests for the endpoint" are no endpoint. A service may be wanted for what it does: it says little by itself.
    let likeliest = types.first().map(|t| t.task_type);
    let wanted = types.iter().filter(|t| !t.aside || likeliest == Some(TaskType::Microservice));
    // A template knows best what it is about: one of a type that no word speaks of comes last.
    let unsaid = TaskType::ALL.iter().filter(|unsaid| !types.iter().any(|t| t.task_type == **unsaid));
    for task_type in wanted.map(|t| &t.task_type).chain(unsaid) {
        for level in Level::ALL {
            let from = found.len();
            for template in graph::templates_of(knowledge.library, *task_type, language, level) {
                if found.iter().any(|c| c.template.id == template.id) {
                    continue;
                }
                let Ok(reading) = read(template, words, demands, language) else { continue };
                let edge = graph::edge(*task_type, language, &template.id);
                let score = knowledge.figures.get(&edge).map(|stats| graph::score(stats, knowledge.now));
                found.push(Candidate { template, task_type: *task_type, level, reading, score });
            }
            found[from..].sort_by_key(|c| (c.reading.unknown.len(), Reverse(c.reading.triggered)));
        }
    }
    found
}
