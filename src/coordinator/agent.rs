//! The hybrid agent: rules first, what was done before second, a model last.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::company::Neighbours;
use super::evaluate::{self, Kind, evaluate};
use super::graph::{self, Figures};
use super::library::{Library, Template, TemplateError};
use super::reading::Mismatch;
use super::select::{Candidate, Declined, Knowledge, Selected, select};
use super::slots::{Filled, Value};
use crate::cache::{Cache, Found, Key};
use crate::domain::record::{Block, Digest, EntryKind};
use crate::domain::{
    Answer, CacheMode, Complexity, Context, CorrelationId, Goal, Language, Message, Method, NanoUsd, TaskType,
    TemplateId, Tenant, Timestamp,
};
use crate::llm::{Client, Finish, Prompt, Spent, Terms};

/// How the agent works.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Above this share of a task's words that neither trigger, word, slot nor language of a template accounts for,
    /// the rules decline. 0.15: one unknown word in seven; with fewer words none may be unknown.
    /// Calibrated: see docs/templates.md.
    pub max_unknown_share: f64,
    /// How the agent chooses among templates that understand a task equally well.
    pub choice: graph::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_unknown_share: 0.15, choice: graph::Options::default() }
    }
}

/// For whom and within which bounds the agent works.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub tenant: Tenant,
    pub correlation_id: CorrelationId,
    pub cache: CacheMode,
    /// What model calls may cost together; `None`: no bound of the request's own.
    pub max_cost: Option<NanoUsd>,
    pub deadline: Instant,
}

impl Bounds {
    /// What a model is told of them.
    pub fn terms(&self) -> Terms {
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let terms = Terms::new(self.tenant.clone(), self.correlation_id.clone(), deadline);
        Terms { max_cost: self.max_cost, ..terms }
    }
}

/// Why no model answered, and what it cost nevertheless.
struct Unasked {
    why: String,
    spent: Spent,
}

/// What the rules did not do.
#[derive(Debug)]
pub struct Undone {
    pub why: Declined,
    /// What a template makes of it all the same, without whole phrases of the task: no success, yet better than nothing
    /// where nobody else can do it.
    pub incomplete: Option<Box<Answer>>,
}

impl From<Declined> for Undone {
    fn from(why: Declined) -> Self {
        Self { why, incomplete: None }
    }
}

/// Does one task. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    options: Arc<Options>,
    library: Arc<RwLock<Arc<Library>>>,
    figures: Figures,
    blocks: Arc<RwLock<HashSet<Block>>>,
    /// When the files of the folder's templates were changed.
    changed: Arc<RwLock<HashMap<TemplateId, Timestamp>>>,
    cache: Cache,
    llm: Client,
}

impl Agent {
    pub fn new(options: Options, library: Library, cache: Cache, llm: Client) -> Self {
        Self {
            options: Arc::new(options),
            changed: Arc::new(RwLock::new(changed(&library))),
            library: Arc::new(RwLock::new(Arc::new(library))),
            figures: Figures::default(),
            blocks: Arc::default(),
            cache,
            llm,
        }
    }

    /// Rules, then what was done before, then a model; where nothing can do it, an answer that says why.
    pub async fn process(&self, goal: &Goal, bounds: &Bounds, now: Timestamp) -> Answer {
        match self.by_rules(goal, &Neighbours::default(), &bounds.tenant, now) {
            Ok(answer) => answer,
            Err(undone) => self.beyond_rules(goal, bounds, undone, "", now).await,
        }
    }

    /// A template's output, or why no template will do.
    pub fn by_rules(
        &self,
        goal: &Goal,
        neighbours: &Neighbours<'_>,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<Answer, Undone> {
        let started = Instant::now();
        if !goal.context.messages.is_empty() && self.shows("messages") {
            return Err(Declined::Conversation.into());
        }
        let library = self.library();
        let selected = self.select_in(&library, goal, tenant, now);
        answer_with(&library, selected, goal, neighbours, started, now)
    }

    /// What is left when the rules declined: the cache at task scope, then a model, then what the rules can do of it, then
    /// a fallback.
    /// `earlier` is what the parts that this one depends on came to.
    pub async fn beyond_rules(
        &self,
        goal: &Goal,
        bounds: &Bounds,
        undone: Undone,
        earlier: &str,
        now: Timestamp,
    ) -> Answer {
        let Undone { why: declined, incomplete } = undone;
        tracing::info!(why = %declined, "the rules declined");
        let key = self.cache.key(&bounds.tenant, EntryKind::Task, goal);
        // With other parts' output at hand the answer depends on more than its own words.
        let may_recall = bounds.cache == CacheMode::Use && earlier.is_empty();
        if may_recall && let Some(answer) = self.recall(&key, now).await {
            return placed(answer, goal);
        }
        match self.ask(goal, bounds, earlier, now).await {
            Ok(answer) => {
                if bounds.cache != CacheMode::Off && earlier.is_empty() && answer.cacheable() {
                    self.cache.put(&key, Arc::new(answer.clone()), bounds.correlation_id.clone(), now);
                }
                answer
            }
            Err(Unasked { why, spent }) => {
                let answer = match incomplete {
                    Some(answer) => {
                        let left_out = answer.left_out.join("; ");
                        answer.failed(format!("{why}; the rules left out: {left_out}"))
                    }
                    None => fallback(goal, format!("{why}; {declined}"), now),
                };
                Answer { cost: spent.cost, unknown: spent.unknown, usage: spent.usage(), ..answer }
            }
        }
    }

    /// What was done before, at task scope.
    pub async fn recall_task(&self, goal: &Goal, bounds: &Bounds, now: Timestamp) -> Option<Answer> {
        if bounds.cache != CacheMode::Use {
            return None;
        }
        self.recall(&self.cache.key(&bounds.tenant, EntryKind::Task, goal), now).await
    }

    /// What the rules would do, for people who want to know.
    pub fn explain<T>(&self, goal: &Goal, tenant: &Tenant, now: Timestamp, read: impl FnOnce(Selected<'_>) -> T) -> T {
        let library = self.library();
        read(self.select_in(&library, goal, tenant, now))
    }

    pub fn library(&self) -> Arc<Library> {
        self.library.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the templates anew. Those that can't be used are named; the rest serves.
    pub fn reload(&self, folder: Option<&Path>) -> Vec<TemplateError> {
        let (library, errors) = Library::load(folder);
        *self.changed.write().unwrap_or_else(PoisonError::into_inner) = changed(&library);
        *self.library.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(library);
        errors
    }

    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    pub fn llm(&self) -> &Client {
        &self.llm
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Puts the database's blocks in place of what was known.
    pub fn replace_blocks(&self, blocks: Vec<Block>) {
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = blocks.into_iter().collect();
    }

    /// Whether this tenant found what made this answer wrong for this task, or for one of its parts. Such an answer can
    /// be stored still, or again, for a task that is worded otherwise; it must not come back from there.
    /// `task_key` is that of the goal.
    pub fn is_found_wrong(&self, answer: &Answer, goal: &Goal, task_key: Digest, tenant: &Tenant) -> bool {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        if blocks.is_empty() {
            return false;
        }
        let is_blocked = |answer: &Answer, task_key| {
            answer.template.as_ref().is_some_and(|template| {
                blocks.contains(&Block { task_key, tenant: tenant.clone(), template: template.clone() })
            })
        };
        let part_key =
            |description: &str| self::task_key(tenant, &Goal { description: description.to_owned(), ..goal.clone() });
        is_blocked(answer, task_key) || answer.parts.iter().any(|p| is_blocked(&p.answer, part_key(&p.description)))
    }

    /// Whether a template of the folder that made this answer, or a part of it, was changed since: it is another version's.
    pub fn is_outdated(&self, answer: &Answer) -> bool {
        let changed = self.changed.read().unwrap_or_else(PoisonError::into_inner);
        let is_older = |answer: &Answer| {
            let at = answer.template.as_ref().and_then(|template| changed.get(template));
            at.is_some_and(|at| answer.made_at < *at)
        };
        !changed.is_empty() && (is_older(answer) || answer.parts.iter().any(|part| is_older(&part.answer)))
    }

    fn select_in<'a>(&self, library: &'a Library, goal: &Goal, tenant: &Tenant, now: Timestamp) -> Selected<'a> {
        let figures = self.figures.snapshot();
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let task_key = task_key(tenant, goal);
        let is_blocked = |template: &TemplateId| {
            !blocks.is_empty()
                && blocks.contains(&Block { tenant: tenant.clone(), task_key, template: template.clone() })
        };
        let knowledge = Knowledge {
            library,
            figures: &figures,
            options: &self.options.choice,
            max_unknown_share: self.options.max_unknown_share,
            now,
        };
        select(&goal.description, &self.demands(goal), &goal.language, is_blocked, &knowledge, &mut rand::rng())
    }

    /// What the answer must fulfil beside the task's own words: the criteria, and the context that changes an answer.
    fn demands(&self, goal: &Goal) -> Vec<String> {
        // Where the answer goes and what it may resemble ask for nothing.
        let asks = |name: &str| !matches!(name, "target_file" | "similar_code") && self.shows(name);
        let fields =
            goal.context.fields.iter().filter(|(name, _)| asks(name)).map(|(_, value)| value.trim_matches('"'));
        goal.acceptance_criteria.iter().map(String::as_str).chain(fields).map(str::to_owned).collect()
    }

    /// Whether a field of the context is one that changes an answer.
    fn shows(&self, field: &str) -> bool {
        self.cache.options().context_fields.iter().any(|listed| listed == field)
    }

    async fn recall(&self, key: &Key, now: Timestamp) -> Option<Answer> {
        if let Some(found) = self.cache.exact(key, now) {
            return Some(found.into_answer());
        }
        match self.cache.semantic(key, now).await {
            Ok(found) => found.map(Found::into_answer),
            Err(error) => {
                tracing::warn!(%error, "the semantic tier can't be asked");
                None
            }
        }
    }

    async fn ask(&self, goal: &Goal, bounds: &Bounds, earlier: &str, now: Timestamp) -> Result<Answer, Unasked> {
        let unasked = |why: String, spent| Unasked { why, spent };
        if !self.llm.is_configured() {
            let why = "no model is configured: set ANTHROPIC_API_KEY, OPENAI_API_KEY or GOOGLE_AI_STUDIO_API_KEY";
            return Err(unasked(why.to_owned(), Spent::default()));
        }
        let prompt = prompt(goal, &self.cache.options().context_fields, earlier);
        let asked = self.llm.ask(&prompt, &bounds.terms(), now).await;
        let completion = asked.map_err(|failed| unasked(failed.error.chain(), failed.spent))?;
        // A hostile text may take the parser a second.
        let (answered, language) = (completion.text.clone(), goal.language.clone());
        let evaluation = tokio::task::spawn_blocking(move || evaluate(&answered, Kind::Unknown(&language)));
        let evaluation = evaluation
            .await
            .map_err(|e| unasked(format!("the answer could not be evaluated: {e}"), completion.spent))?;
        let text = evaluate::unfence(&completion.text).map_or(completion.text.as_str(), |fenced| fenced.code);
        let complete = matches!(completion.finish, Finish::Stop);
        let reason = if !complete {
            Some(format!("the model stopped early ({:?}); the answer is not complete", completion.finish))
        } else if text.trim().is_empty() {
            Some("the model's answer is empty".to_owned())
        } else if !evaluation.parses {
            Some("the model's code has a syntax error".to_owned())
        } else {
            None
        };
        let usage = completion.usage();
        let answer = Answer {
            model: Some(completion.model),
            usage,
            cost: completion.spent.cost,
            unknown: completion.spent.unknown,
            evaluation: Some(evaluation),
            time: completion.time,
            ..Answer::new(Method::LlmAssisted, likeliest_type(goal), &goal.language, text.to_owned(), now)
        };
        Ok(match reason {
            Some(reason) => answer.failed(reason),
            None => answer,
        })
    }
}

fn changed(library: &Library) -> HashMap<TemplateId, Timestamp> {
    let changed = |template: &Template| {
        let at = template.path.as_ref()?.metadata().and_then(|file| file.modified()).ok()?;
        let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((template.id.clone(), Timestamp(since.as_millis() as i64)))
    };
    library.iter().filter_map(changed).collect()
}

/// What these templates alone make of a task: nothing is learnt or blocked, and the first of equals is taken.
pub fn by_templates(
    library: &Library,
    goal: &Goal,
    neighbours: &Neighbours<'_>,
    max_unknown_share: f64,
    now: Timestamp,
) -> Result<Answer, Undone> {
    let (started, figures, options) = (Instant::now(), HashMap::new(), graph::Options { explore: 0.0, near: 0.0 });
    let knowledge = Knowledge { library, figures: &figures, options: &options, max_unknown_share, now };
    let selected = select(&goal.description, &[], &goal.language, |_| false, &knowledge, &mut rand::rng());
    answer_with(library, selected, goal, neighbours, started, now)
}

/// The output of the chosen template, if it parses.
fn answer_with(
    library: &Library,
    selected: Selected<'_>,
    goal: &Goal,
    neighbours: &Neighbours<'_>,
    started: Instant,
    now: Timestamp,
) -> Result<Answer, Undone> {
    let made = |candidate: &Candidate<'_>, task_type| {
        let template = candidate.template;
        match render(library, candidate, goal, neighbours) {
            Ok((text, file)) => {
                let answer = by_template(template, task_type, goal, text, file, started, now);
                if answer.success {
                    return Ok(answer);
                }
                tracing::warn!(template.id = %template.id, "what a template made of a task does not parse");
                Err(Declined::DoesNotParse { template: template.id.clone() })
            }
            Err(error) => {
                tracing::error!(template.id = %template.id, %error, "a template failed");
                Err(Declined::NoTemplate)
            }
        }
    };
    if let Some(chosen) = selected.chosen {
        return Ok(made(&chosen, selected.task_type)?);
    }
    let incomplete = selected.incomplete.and_then(|nearest| {
        let answer = made(&nearest, nearest.task_type).ok()?;
        let phrases = nearest.reading.left_out.iter().flatten();
        let left_out = phrases.filter_map(|at| goal.description.get(at.clone())).map(one_line).collect();
        Some(Box::new(Answer { left_out, ..answer }))
    });
    Err(Undone { why: selected.declined.unwrap_or(Declined::NoTemplate), incomplete })
}

/// What a template makes of its own example, or why it can't be used for it.
pub fn try_template(library: &Library, template: &Template, language: &Language) -> Result<Answer, String> {
    let goal = Goal {
        description: template.example.clone(),
        language: language.clone(),
        complexity: Complexity::default(),
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    };
    let (words, started) = (super::words::words(&goal.description), Instant::now());
    let reading = super::reading::read(template, &words, &[], language).map_err(|mismatch| match mismatch {
        Mismatch::Trigger => "its example lacks one of its triggers".to_owned(),
        Mismatch::Slot(slot) => format!("its example does not fill the slot `{slot}`, which has no default"),
    })?;
    if !reading.unknown.is_empty() {
        return Err(format!("its example has words that it does not account for: {}", reading.unknown.join(", ")));
    }
    let (text, file) = library.render(template, &variables(&reading.filled, &goal)).map_err(|e| e.message)?;
    Ok(by_template(template, template.task_type, &goal, text, file, started, Timestamp(0)))
}

/// A template's text and file without a task that was read: `given` fills its slots, its defaults the rest.
pub fn render_with(
    library: &Library,
    template: &Template,
    given: &Filled,
    goal: &Goal,
) -> Result<(String, Option<String>), TemplateError> {
    let failed = |slot| TemplateError {
        path: template.id.to_string(),
        message: format!("the slot `{slot}` is not filled and has no default"),
    };
    let mut filled = given.as_taken(&template.slots, &template.details);
    filled.complete(&template.defaults, &template.slots).map_err(failed)?;
    library.render(template, &variables(&filled, goal))
}

/// An answer that belongs where its sender wants it, as far as that is a place inside the workspace.
pub fn placed(answer: Answer, goal: &Goal) -> Answer {
    let inside = |path: &&str| {
        !path.is_empty()
            && path.len() <= 500
            && !path.starts_with(['/', '\\', '~'])
            && !path.contains(|c: char| c.is_control() || c == ':')
            && path.split(['/', '\\']).all(|step| !matches!(step, "" | "." | ".."))
    };
    let wanted = goal.context.fields.get("target_file").map(|text| text.trim_matches('"')).filter(inside);
    match wanted {
        Some(wanted) if answer.parts.is_empty() => Answer { file: Some(wanted.to_owned()), ..answer },
        _ => answer,
    }
}

/// Same for the same task of one tenant in one language, however it is spaced and capitalised.
pub fn task_key(tenant: &Tenant, goal: &Goal) -> Digest {
    use sha2::{Digest as _, Sha256};
    let words: Vec<String> = super::words::words(&goal.description).into_iter().map(|w| w.lower).collect();
    let mut hash = Sha256::new();
    for part in [tenant.as_str(), goal.language.as_str(), &words.join(" ")] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn render(
    library: &Library,
    chosen: &Candidate<'_>,
    goal: &Goal,
    neighbours: &Neighbours<'_>,
) -> Result<(String, Option<String>), TemplateError> {
    let mut variables = variables(&chosen.reading.filled, goal);
    neighbours.introduce(chosen.template, &mut variables);
    library.render(chosen.template, &variables)
}

fn variables(filled: &Filled, goal: &Goal) -> Filled {
    let mut variables = filled.clone();
    variables.set("task", Value::Text(one_line(&goal.description)));
    variables.set("language", Value::Text(goal.language.to_string()));
    variables.set("beside", Value::Texts(vec![]));
    variables.set_default("options", Value::Texts(vec![]));
    variables.set("complexity", Value::Text(goal.complexity.to_string()));
    variables
}

fn by_template(
    template: &Template,
    task_type: TaskType,
    goal: &Goal,
    text: String,
    file: Option<String>,
    started: Instant,
    now: Timestamp,
) -> Answer {
    let language = template.format.language(file.as_deref(), &goal.language);
    let evaluation = template.grades.evaluate(&text, template.format.kind(language.as_ref()));
    let answer = Answer {
        file,
        template: Some(template.id.clone()),
        evaluation: Some(evaluation),
        time: started.elapsed(),
        ..Answer::new(Method::Autonomous, task_type, &goal.language, text, now)
    };
    if evaluation.parses { answer } else { answer.failed("the template's output has a syntax error".to_owned()) }
}

fn fallback(goal: &Goal, reason: String, now: Timestamp) -> Answer {
    let text = format!("This task was not done: {reason}.");
    Answer::new(Method::Fallback, likeliest_type(goal), &goal.language, text, now).failed(reason)
}

/// What the words of a task speak of first.
pub fn likeliest_type(goal: &Goal) -> TaskType {
    let words = super::words::words(&goal.description);
    super::classify::classify(&words).first().map_or(TaskType::General, |c| c.task_type)
}

/// The task where a comment or a string holds it: one line, and nothing that ends either or starts a template.
fn one_line(task: &str) -> String {
    let clean: String = task
        .chars()
        .take(200)
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}') { ' ' } else { c })
        .filter(|c| !matches!(c, '"' | '\'' | '`' | '\\' | '$' | '#'))
        .collect();
    let clean = clean
        .replace("*/", "* /")
        .replace("/*", "/ *")
        .replace("--", "- -")
        .replace("<!", "< !")
        .replace("{{", "{ {")
        .replace("}}", "} }")
        .replace("{%", "{ %")
        .replace("%}", "% }");
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn prompt(goal: &Goal, context_fields: &[String], earlier: &str) -> Prompt {
    let system = format!(
        "You write {} for developers. Answer with one fenced code block and nothing else, unless the task asks for \
         prose. Handle errors. Write no placeholders. Use the names that the task uses.",
        goal.language
    );
    let mut text =
        format!("Task: {}\nLanguage: {}\nComplexity: {}\n", goal.description, goal.language, goal.complexity);
    if !goal.acceptance_criteria.is_empty() {
        text.push_str("It is accepted if:\n");
        goal.acceptance_criteria.iter().for_each(|c| text.push_str(&format!("- {c}\n")));
    }
    let shown = goal.context.fields.iter().filter(|(name, _)| context_fields.contains(name));
    shown.for_each(|(name, value)| text.push_str(&format!("Context, {name}: {value}\n")));
    if !earlier.is_empty() {
        text.push_str("It must fit what was made before:\n");
        text.push_str(earlier);
    }
    // What the key leaves out, a model must not see: its answer may be served to whoever has the same key.
    let conversation = context_fields.iter().any(|listed| listed == "messages");
    let mut messages = if conversation { goal.context.messages.clone() } else { vec![] };
    messages.push(Message { role: "user".to_owned(), content: text });
    let max_output_tokens = match goal.complexity {
        Complexity::Simple => Some(1_024),
        Complexity::Medium | Complexity::Complex => None,
    };
    Prompt { system, messages, max_output_tokens, ..Prompt::default() }
}

/// The language that a task names, else the given default.
pub fn language_of(task: &str) -> Option<Language> {
    super::words::language_of(&super::words::words(task))
}

/// The language that a task itself asks for by name, where another was given with it.
pub fn language_said(task: &str, given: &Language) -> Option<Language> {
    super::words::language_said(&super::words::words(task), given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_can_end_no_comment_and_start_no_template() {
        let hostile = "a */ b \"\"\" c -- d \n e {{ 7*7 }} {% x %} \u{2028} ${boom} #{x}";
        let line = one_line(hostile);
        for bad in ["*/", "\"", "--", "\n", "{{", "{%", "\u{2028}", "${", "#{"] {
            assert!(!line.contains(bad), "{bad:?} in {line:?}");
        }
    }
}
