//! What the other parts of a goal mean for one of them, so that they fit together.

use super::classify::classify;
use super::decompose::name_of;
use super::fields;
use super::library::Template;
use super::noun::Noun;
use super::slots::{Filled, Slot, Value};
use super::words::{Word, words};
use crate::domain::{Dag, Task, TaskId, TaskType};

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
}

impl Company {
    pub fn of(dag: &Dag) -> Self {
        if dag.tasks().len() == 1 {
            return Self::default();
        }
        Self { parts: dag.leaves().map(Member::of).collect() }
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
    /// Gives a part's template what it should know: `beside`, the kinds of the other parts about the same thing; and
    /// the fields that another of them lists, where its own task lists none.
    pub(super) fn introduce(&self, template: &Template, variables: &mut Filled) {
        let own = variables.name().cloned();
        let same = |member: &&&Member| {
            own.as_ref().zip(member.name.as_ref()).is_some_and(|(own, name)| own.is_same_thing(name))
        };
        let others: Vec<&Member> = self.others.iter().filter(same).copied().collect();
        let mut kinds: Vec<String> = others.iter().map(|m| m.task_type.to_string()).collect();
        kinds.sort();
        kinds.dedup();
        variables.set("beside", Value::Texts(kinds));
        if template.slots.contains(&Slot::Fields)
            && variables.is_default(Slot::Fields, &template.defaults)
            && let Some((fields, _)) = others.iter().find_map(|m| fields::find(&m.words, &template.details))
        {
            variables.set(&Slot::Fields.to_string(), Value::Fields(fields));
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
        }
    }
}
