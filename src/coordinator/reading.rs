//! How far a template understands a task: every word is accounted for, or counted as not understood.

use super::fields;
use super::lexicon;
use super::library::Template;
use super::slots::{self, Filled, Slot};
use super::words::{Form, LIMITERS, Word, names_language};
use crate::domain::Language;

/// A task as a template reads it.
#[derive(Debug, Clone)]
pub struct Reading {
    pub filled: Filled,
    /// Words that carry meaning.
    pub content: usize,
    /// Those of them that neither trigger, word, slot nor language accounts for.
    pub unknown: Vec<String>,
    /// One of the unknown words weighs more than its share: it turns the meaning of the whole ("without", "only"), or
    /// it names something in particular (Redis, 500, "a.b").
    pub limited: bool,
    /// Words that are the template's triggers: the more of them, the more it is made for the task.
    pub triggered: usize,
}

impl Reading {
    /// The share of the words that the template does not understand, 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.unknown.len() as f64 / self.content.max(1) as f64
    }

    /// Whether the rules may answer with this template.
    pub fn is_sure(&self, max_unknown_share: f64) -> bool {
        !self.limited && self.unknown_share() <= max_unknown_share
    }
}

/// Why a template has no reading of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// A group of triggers was not found.
    Trigger,
    /// The task does not fill a slot that has no default.
    Slot(Slot),
}

/// Reads a task with a template, in the language that the answer will be in. `demands` are the words of what the answer
/// must fulfil besides: the template must account for them too, but they fill no slot.
pub fn read(template: &Template, words: &[Word], demands: &[Word], language: &Language) -> Result<Reading, Mismatch> {
    let mut triggers = vec![false; words.len()];
    // Where each group was found first: a trigger that comes again later may be part of a name ("endpoint for API keys").
    let mut spare = vec![true; words.len()];
    for group in &template.triggers {
        let mut marks = vec![false; words.len()];
        let mut found = false;
        for alternative in group {
            found |= mark(words, alternative, &mut marks);
        }
        let Some(first) = marks.iter().position(|m| *m).filter(|_| found) else { return Err(Mismatch::Trigger) };
        for (at, marked) in marks.into_iter().enumerate().filter(|(_, marked)| *marked) {
            triggers[at] |= marked;
            spare[at] &= first + 1 < at;
        }
    }
    let mut taken = triggers.clone();
    for row in &template.words {
        mark(words, row, &mut taken);
    }
    let names_language = |word: &Word| names_language(word, language);
    for (word, taken) in words.iter().zip(&mut taken) {
        *taken |= names_language(word);
    }
    let roles = slots::Roles { triggers: &triggers, spare: &spare };
    let mut filled = slots::fill(words, &template.slots, &template.details, &mut taken, &roles);
    filled.complete(&template.defaults, &template.slots).map_err(Mismatch::Slot)?;

    // "for my app", "of the project": whose it is asks for nothing.
    for at in 1..words.len() {
        taken[at] |=
            words[at - 1].is_filler() && matches!(words[at].lower.as_str(), "application" | "project" | "codebase");
    }
    let destroys = destroys(words, &triggers);
    destroys.iter().for_each(|&at| taken[at] = false);

    let mut met = vec![false; demands.len()];
    for row in template.triggers.iter().flatten().chain(&template.words) {
        mark(demands, row, &mut met);
    }
    let said = |word: &Word| names_language(word) || words.iter().any(|w| w.stem == word.stem);
    let met = demands.iter().zip(met).map(|(word, met)| (word, met || said(word)));
    let all = words.iter().zip(taken).chain(met).filter(|(word, _)| !word.is_filler());
    let content = all.clone().count();
    let left: Vec<&Word> = all.filter(|(_, taken)| !taken).map(|(word, _)| word).collect();
    let shouted = words.iter().filter(|w| w.is_capitalised()).count() * 2 > words.len();
    let particular = |w: &Word| w.form != Form::Plain || (w.at > 0 && w.is_capitalised() && !shouted);
    let lists_fields = template.slots.contains(&Slot::Fields);
    let of_field = |w: &Word| fields::is_detail(&w.lower) || (lists_fields && fields::is_type(&w.lower));
    let turns = |w: &Word| LIMITERS.contains(&w.lower.as_str()) || lexicon::is_foreign(&w.lower);
    let limited = !destroys.is_empty() || left.iter().any(|w| turns(w) || particular(w) || of_field(w));
    let triggered = words.iter().zip(&triggers).filter(|(word, is_trigger)| **is_trigger && !word.is_filler()).count();
    Ok(Reading { filled, content, unknown: left.iter().map(|w| w.text.clone()).collect(), limited, triggered })
}

/// Verbs for code or data that exist, where they are the order itself ("remove the consumer"), and those that spare
/// nothing ("delete all users"). A template that makes something new honours neither, whatever words it lists.
fn destroys(words: &[Word], triggers: &[bool]) -> Vec<usize> {
    let first = words.iter().position(|w| !w.is_filler());
    let acts = |at: usize| lexicon::changes(&words[at].lower) && !triggers[at];
    let all =
        |at: usize| words.get(at + 1).is_some_and(|w| matches!(w.lower.as_str(), "all" | "every" | "each" | "any"));
    let sweeps = |at: usize| {
        matches!(words[at].lower.as_str(), "delete" | "remove" | "drop" | "purge" | "truncate" | "wipe" | "clear")
            && all(at)
    };
    (0..words.len()).filter(|&at| (Some(at) == first && acts(at)) || sweeps(at)).collect()
}

/// Marks every place where the stems stand in a row. True if there is one.
fn mark(words: &[Word], row: &[String], marks: &mut [bool]) -> bool {
    let mut found = false;
    for at in 0..(words.len() + 1).saturating_sub(row.len().max(1)) {
        let here =
            words[at..at + row.len()].iter().zip(row).all(|(w, stem)| w.form != Form::Quoted && w.has_stem(stem));
        if here && !row.is_empty() {
            marks[at..at + row.len()].fill(true);
            found = true;
        }
    }
    found
}
