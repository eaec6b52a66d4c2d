//! What the other parts of a goal mean for one of them, so that they fit together.

use super::classify::classify;
use super::decompose::name_of;
use super::fields;
use super::library::Template;
use super::noun::Noun;
use super::slots::{self, Filled, Slot, Value};
use super::words::{Word, words};
use crate::domain::{Dag, Task, TaskId, TaskType, TemplateId};

/// What parts about one thing have where no task lists its fields: else each would have its own template's.
const FIELDS: &str = "name text";

/// The parts of one goal, as far as they matter to each other. Empty for a goal of one part.
#[derive(Debug, Default)]
pub struct Company {
    parts: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: TaskId,
    task_type: TaskType,
    name: Option<Noun>,
    words: Vec<Word>,
    made_by: Option<TemplateId>,
}

impl Company {
    pub fn of(dag: &Dag) -> Self {
        if dag.tasks().len() == 1 {
            return Self::default();
        }
        Self { parts: dag.leaves().map(Member::of).collect() }
    }

    /// Whether a part is about what the others come to, and so is made after them.
    pub fn comes_last(&self, part: &TaskId) -> bool {
        self.parts.iter().any(|member| member.id == *part && member.task_type == TaskType::Testing)
    }

    /// A template has made this part.
    pub fn made(&mut self, part: &TaskId, by: &TemplateId) {
        if let Some(member) = self.parts.iter_mut().find(|member| member.id == *part) {
            member.made_by = Some(by.clone());
        }
    }

    /// All but one.
    pub fn of_part(&self, part: &TaskId) -> Neighbours<'_> {
        Neighbours { others: self.parts.iter().filter(|member| member.id != *part).collect() }
    }
}

/// The other parts of a goal.
#[derive(Debug, Default)]
pub struct Neighbours<'a> {
    others: Vec<&'a Member>,
}

impl Neighbours<'_> {
    /// Gives a part's template what it should know: `beside`, the kinds of the other parts about the same thing and the
    /// templates that made them; and the path and the fields that another of them names, where its own task names none.
    pub(super) fn introduce(&self, template: &Template, variables: &mut Filled) {
        let Some(own) = variables.name().cloned() else { return };
        let same = |member: &&&Member| member.name.as_ref().is_some_and(|name| own.is_same_thing(name));
        let others: Vec<&Member> = self.others.iter().filter(same).copied().collect();
        if others.is_empty() {
            return;
        }
        let kinds = others.iter().map(|m| m.task_type.to_string());
        let mut beside: Vec<String> =
            kinds.chain(others.iter().filter_map(|m| Some(m.made_by.as_ref()?.to_string()))).collect();
        beside.sort();
        beside.dedup();
        variables.set("beside", Value::Texts(beside));
        if variables.is_derived_path(&own) {
            let path = others.iter().find_map(|m| slots::path(&m.words)).map(|(path, _)| path);
            variables.set(&Slot::Path.to_string(), path.unwrap_or_else(|| slots::derived_path(&own)));
        }
        // The fields of a configuration are its settings.
        let has_fields = |kind: TaskType| kind != TaskType::Configuration;
        if has_fields(template.task_type) && variables.is_default(Slot::Fields, &template.defaults) {
            let mut sharing = others.iter().filter(|m| has_fields(m.task_type)).peekable();
            let common = sharing.peek().and_then(|_| fields::parse(FIELDS));
            let listed = sharing
                .find_map(|m| fields::find(&m.words, &template.details, &vec![true; m.words.len()]))
                .map(|(fields, _)| fields);
            if let Some(fields) = listed.or(common) {
                variables.set(&Slot::Fields.to_string(), Value::Fields(fields));
            }
        }
    }
}

impl Member {
    fn of(task: &Task) -> Self {
        let words = words(&task.description);
        Self {
            id: task.id.clone(),
            task_type: classify(&words).first().map_or(TaskType::General, |c| c.task_type),
            name: name_of(&words).and_then(|name| Noun::new(&name)),
            words,
            made_by: None,
        }
    }
}
