//! How far a template understands a task: every word is accounted for, or counted as not understood.

use std::ops::Range;

use super::audience;
use super::classify::types_of;
use super::fields;
use super::lexicon;
use super::library::Template;
use super::slots::{self, Filled, Slot, Value};
use super::words::{Form, LIMITERS, Word, names_language, stem};
use crate::domain::{Language, TaskType};

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
    /// Where in the task, in bytes, the phrases stand that the template would leave out, if it does all that the rest
    /// asks for; `None` where no answer without them is worth having.
    pub left_out: Option<Vec<Range<usize>>>,
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
    let mut options = vec![];
    for (option, alternatives) in &template.options {
        let said = alternatives.iter().filter(|row| mark(words, row, &mut taken)).count() > 0;
        options.extend(said.then(|| option.clone()));
    }
    let names_language = |word: &Word| names_language(word, language);
    for (word, taken) in words.iter().zip(&mut taken) {
        *taken |= names_language(word);
    }
    let audience = audience::groups(words);
    audience.iter().zip(&mut taken).for_each(|(aside, taken)| *taken |= aside);
    let roles = slots::Roles { triggers: &triggers, spare: &spare, audience: &audience };
    let mut filled = slots::fill(words, &template.slots, &template.details, language, &mut taken, &roles);
    let together = template.details.contains(&fields::Detail::Together);
    if together && !filled.has(Slot::Fields) {
        return Err(Mismatch::Slot(Slot::Fields));
    }
    // What only the task can say: a default would be another thing than the one that is asked for.
    if template.slots.contains(&Slot::Other) && !filled.has(Slot::Other) {
        return Err(Mismatch::Slot(Slot::Other));
    }
    filled.set("options", Value::Texts(options));
    filled.complete(&template.defaults, &template.slots).map_err(Mismatch::Slot)?;

    for at in 1..words.len() {
        taken[at] |= is_version_of(template, &words[at - 1], &words[at], language);
    }
    audience::account(words, &mut taken);
    // What has its name is said again: "listen to orders.created and handle each order".
    if let Some(name) = filled.name().filter(|_| !filled.is_default(Slot::Name, &template.defaults)) {
        let parts: Vec<String> = name.words().split(' ').map(stem).collect();
        for (word, taken) in words.iter().zip(&mut taken) {
            *taken |= word.form == Form::Plain && (parts.contains(&word.stem) || is_made_of(word, &parts, template));
        }
    }
    for at in 1..words.len() {
        // "stream-based", "JWT support": what is said of it is known.
        let based = words[at].lower == "based" && words.get(at + 1).is_none_or(|w| w.lower != "on");
        let support = matches!(words[at].lower.as_str(), "support" | "integration" | "handling" | "functionality")
            && !template.slots.is_empty()
            && words.get(at + 1).is_none_or(|w| w.after_break || w.is_filler());
        let is_known = taken[at - 1] && (based || (support && !words[at - 1].is_filler()));
        taken[at] |= is_known;
    }
    let destroys = destroys(words, &triggers);
    destroys.iter().for_each(|&at| taken[at] = false);

    let nameless = template.slots.contains(&Slot::Name) && filled.is_default(Slot::Name, &template.defaults);
    let mut met = vec![false; demands.len()];
    for row in template.triggers.iter().flatten().chain(&template.words) {
        mark(demands, row, &mut met);
    }
    let said = |word: &Word| names_language(word) || words.iter().any(|w| w.stem == word.stem);
    let met: Vec<bool> = demands.iter().zip(met).map(|(word, met)| met || said(word)).collect();
    let all_met = demands.iter().zip(&met).all(|(word, met)| *met || word.is_filler());
    let may_leave_out = all_met && !nameless && destroys.is_empty();
    let left_out = may_leave_out.then(|| phrases_left_out(words, &taken, &triggers)).flatten();
    let met = demands.iter().zip(met);
    let all = words.iter().zip(taken).chain(met).filter(|(word, _)| !word.is_filler());
    let content = all.clone().count();
    let left: Vec<&Word> = all.filter(|(_, taken)| !taken).map(|(word, _)| word).collect();
    let shouted = words.iter().filter(|w| w.is_capitalised()).count() * 2 > words.len();
    let particular = |w: &Word| w.form != Form::Plain || (w.at > 0 && w.is_capitalised() && !shouted);
    let lists_fields = template.slots.contains(&Slot::Fields);
    let of_field = |w: &Word| fields::is_detail(&w.lower) || (lists_fields && fields::is_type(&w.lower));
    let turns = |w: &Word| LIMITERS.contains(&w.lower.as_str()) || lexicon::is_foreign(&w.lower);
    // "a class called Logger" is no class that holds a value.
    let doer = Some(&filled)
        .filter(|_| template.task_type == TaskType::General)
        .and_then(|f| f.name()?.words().rsplit(' ').next().map(str::to_owned))
        .filter(|last| {
            lexicon::does(last) && words.iter().any(|w| w.lower == *last || w.text.to_lowercase().ends_with(last))
        });
    // What it is about is among the words that are left over.
    let nameless = nameless && !left.is_empty();
    // Another kind of thing that it would leave out.
    let other_kind = |w: &&&Word| !types_of(w).is_empty();
    let limited = left.iter().find(other_kind).is_some()
        || nameless
        || doer.is_some()
        || !destroys.is_empty()
        || left.iter().any(|w| turns(w) || particular(w) || of_field(w));
    let triggered = words.iter().zip(&triggers).filter(|(word, is_trigger)| **is_trigger && !word.is_filler()).count();
    let left_out = left_out.filter(|_| doer.is_none());
    let unknown = left.iter().map(|w| w.text.clone()).chain(doer).collect();
    Ok(Reading { filled, content, unknown, limited, triggered, left_out })
}

/// The phrases with words that nothing accounts for, where all of them only add to what the template is about: it stands
/// in a phrase of its own, before them, that is understood to the last word. `None` where a phrase could turn the meaning
/// of the whole, and where there is none.
fn phrases_left_out(words: &[Word], taken: &[bool], triggers: &[bool]) -> Option<Vec<Range<usize>>> {
    if (0..words.len()).all(|at| taken[at] || words[at].is_filler()) {
        return None;
    }
    let starts = |at: usize| at == 0 || words[at].after_break || ADDS.contains(&words[at].lower.as_str());
    let bounds: Vec<usize> = (0..words.len()).filter(|&at| starts(at)).chain([words.len()]).collect();
    let is_trigger = |at: usize| triggers[at] && !words[at].is_filler();
    let told = audience::background(words);
    let head = (told..words.len()).find(|&at| is_trigger(at))?;
    let turns = |at: usize| words[at].limits() || lexicon::is_foreign(&words[at].lower);
    let mut left = vec![];
    for phrase in bounds.windows(2).map(|pair| pair[0]..pair[1]) {
        if phrase.clone().all(|at| taken[at] || words[at].is_filler()) {
            continue;
        }
        let adds = phrase.start > head || phrase.end <= told;
        if !adds || phrase.clone().any(|at| is_trigger(at) || turns(at)) {
            return None;
        }
        let last = &words[phrase.end - 1];
        let quotes = if last.form == Form::Quoted { 2 } else { 0 };
        left.push(words[phrase.start].at..last.at + last.text.len() + quotes);
    }
    Some(left)
}

/// Words that begin a phrase which adds to what was said before.
const ADDS: [&str; 14] =
    ["and", "with", "that", "which", "where", "plus", "including", "if", "when", "using", "via", "by", "so", "then"];

/// "MeterReadingsConsumer" for a consumer of meter readings: a name in code, of the name and what the template is.
fn is_made_of(word: &Word, name: &[String], template: &Template) -> bool {
    let Some(coded) = super::noun::Noun::new(&word.text)
        .filter(|_| word.text.chars().skip(1).any(char::is_uppercase) || word.text.contains('_'))
    else {
        return false;
    };
    let known = |part: &str| {
        let part = stem(part);
        let honoured = |rows: &[Vec<String>]| rows.iter().any(|row| row.contains(&part));
        name.contains(&part) || honoured(&template.words) || template.triggers.iter().any(|group| honoured(group))
    };
    coded.words().split(' ').all(known)
}

/// "axum 0.8", "Python 3.12": the version that the output is for anyway. What runs it or says how it is built has its own.
fn is_version_of(template: &Template, of: &Word, word: &Word, language: &Language) -> bool {
    let Some(version) = slots::version_in(word) else { return false };
    let is_code = !matches!(template.task_type, TaskType::Devops | TaskType::Configuration);
    let name = if names_language(of, language) { language.as_str() } else { &of.lower };
    let named = |package: &str| package.split(['/', '@', '_']).any(|part| part == of.lower);
    let packaged = |required: &str| {
        let digits = required.trim_start_matches(|c: char| !c.is_ascii_digit());
        lexicon::is_same_version(digits, version)
    };
    (is_code && (lexicon::is_for_version(name, version) || lexicon::is_for_version(&of.lower, version)))
        || template.packages.iter().chain(template.dev_packages.iter()).any(|(n, p)| named(n) && packaged(p.version()))
}

/// Verbs for code or data that exist, where they are the order itself ("remove the consumer"), and those that spare
/// nothing ("delete all users"). A template that makes something new honours neither, whatever words it lists.
fn destroys(words: &[Word], triggers: &[bool]) -> Vec<usize> {
    let told = audience::background(words);
    let first = words[told..].iter().position(|w| !w.is_filler()).map(|first| told + first);
    let acts = |at: usize| lexicon::changes(&words[at].lower) && !triggers[at];
    let all =
        |at: usize| words.get(at + 1).is_some_and(|w| matches!(w.lower.as_str(), "all" | "every" | "each" | "any"));
    let sweeps = |at: usize| SWEEPS.contains(&words[at].stem.as_str()) && all(at);
    // "make it faster"
    let reworks = |at: usize| {
        words[at].lower == "make"
            && words.get(at + 1).is_some_and(|w| matches!(w.lower.as_str(), "it" | "this" | "that" | "them" | "these"))
    };
    (0..words.len()).filter(|&at| (Some(at) == first && acts(at)) || sweeps(at) || reworks(at)).collect()
}

/// Stems of verbs that spare nothing if "all" follows.
const SWEEPS: [&str; 10] = ["delet", "remov", "drop", "purg", "truncat", "wipe", "clear", "ignor", "discard", "skip"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_that_spare_nothing_stand_as_their_stems() {
        let verbs =
            ["delete", "removes", "drop", "purging", "truncate", "wipe", "clear", "ignores", "discards", "skips"];
        assert_eq!(verbs.map(stem), SWEEPS);
    }
}
