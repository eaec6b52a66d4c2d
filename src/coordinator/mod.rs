//! `execute(goal)`: the task graph says what is to be done and in which order, the template graph which template does
//! it best, the agent does it, the evaluation says how well.

pub mod agent;
pub mod analyze;
mod audience;
pub mod calibrate;
pub mod classify;
mod company;
pub mod decompose;
pub mod evaluate;
pub mod fields;
pub mod graph;
mod ident;
mod lexicon;
pub mod library;
mod naming;
pub mod noun;
pub mod project;
pub mod reading;
pub mod select;
pub mod slots;
pub mod words;

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

pub use agent::{Agent, Bounds, Undone, language_of, language_said, task_key};
pub use company::{Company, Neighbours};
pub use select::Declined;

use crate::domain::record::{Digest, Execution};
use crate::domain::{
    Answer, Complexity, CorrelationId, Dag, Evaluation, Goal, Language, Message, Method, NanoUsd, Part, ProjectFile,
    Schedule, Task, TaskId, Tenant, Timestamp, Usage,
};
use crate::llm::{Finish, Prompt, Spent};
use decompose::Piece;
use library::Library;

/// A goal taken apart, with what the rules have done of it already. Making one costs nothing but time.
#[derive(Debug)]
pub struct Plan {
    dag: Dag,
    by_rules: HashMap<TaskId, Result<Answer, Undone>>,
    /// What was done before the goal, and it must fit.
    earlier: String,
    started: Instant,
}

impl Plan {
    /// True if nothing is left to do: the rules were sure of every part.
    pub fn is_complete(&self) -> bool {
        self.by_rules.values().all(Result::is_ok)
    }

    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// With what was done before: whoever does what the rules leave open is shown it.
    pub fn after(self, earlier: String) -> Self {
        Self { earlier, ..self }
    }
}

/// Brings the two graphs and the agent together. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    agent: Agent,
}

impl Coordinator {
    pub fn new(agent: Agent) -> Self {
        Self { agent }
    }

    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The whole job: plan, then carry out.
    pub async fn execute(&self, goal: &Goal, bounds: &Bounds, now: Timestamp) -> Answer {
        let plan = self.plan(goal, &bounds.tenant, now);
        self.carry_out(goal, plan, bounds, now).await
    }

    /// Takes the goal apart and lets the rules do what they are sure of. No I/O.
    pub fn plan(&self, goal: &Goal, tenant: &Tenant, now: Timestamp) -> Plan {
        let started = Instant::now();
        let dag = decompose::by_rules(&goal.description);
        let by_rules = self.rules_for(&dag, goal, tenant, now);
        Plan { dag, by_rules, earlier: String::new(), started }
    }

    /// Does what the plan leaves open, in dependency order and in parallel, and puts the answer together.
    pub async fn carry_out(&self, goal: &Goal, mut plan: Plan, bounds: &Bounds, now: Timestamp) -> Answer {
        let mut planning = Spent::default();
        if self.wants_model_plan(goal, &plan) {
            if let Some(answer) = self.agent.recall_task(goal, bounds, now).await {
                return agent::placed(answer, goal);
            }
            match self.plan_by_model(goal, bounds, &mut planning, now).await {
                Ok(dag) => {
                    plan.by_rules = self.rules_for(&dag, goal, &bounds.tenant, now);
                    plan.dag = dag;
                }
                Err(why) => tracing::info!(%why, "no plan by a model; the goal stays whole"),
            }
        }
        let mut answer = match plan.dag.tasks() {
            [only] => match plan.by_rules.remove(&only.id) {
                Some(Ok(answer)) => answer,
                Some(Err(undone)) => {
                    let bounds = leaves(bounds, &planning);
                    self.agent.beyond_rules(goal, &bounds, undone, &plan.earlier, now).await
                }
                None => self.agent.process(goal, bounds, now).await,
            },
            _ => self.run_parts(goal, &mut plan, &leaves(bounds, &planning), now).await,
        };
        answer = agent::placed(answer, goal);
        answer.cost += planning.cost;
        answer.unknown += planning.unknown;
        answer.usage += planning.usage();
        // One task's time is that of the template or model alone.
        if !answer.parts.is_empty() {
            answer.time = plan.started.elapsed();
        }
        answer
    }

    /// What is to be written down of an answer: of a goal as a whole, or of one of its parts.
    pub fn execution(
        &self,
        tenant: &Tenant,
        correlation_id: &CorrelationId,
        goal: &Goal,
        task_key: Digest,
        answer: &Answer,
        now: Timestamp,
    ) -> Execution {
        let llm = self.agent.llm();
        Execution {
            correlation_id: correlation_id.clone(),
            part: String::new(),
            tenant: tenant.clone(),
            at: now,
            task_key,
            task_type: answer.task_type,
            language: answer.language.clone(),
            method: answer.method,
            // A task that it was not made for says nothing of how good a template is.
            template: answer.template.clone().filter(|_| answer.left_out.is_empty()),
            model: answer.model.clone(),
            usage: answer.usage,
            cost: answer.cost,
            all_model_cost: (answer.method != Method::Fallback)
                .then(|| llm.estimate(goal.description.len() + PROMPT_CHARS, answer.text.len(), now))
                .flatten(),
            quality: answer.evaluation.map(|e| e.quality),
            success: answer.success,
            time: answer.time,
            made_in: answer.time,
            tier: answer.hit.as_ref().map(|h| h.tier),
            entry: answer.hit.as_ref().map(|h| h.entry),
            origin: answer.hit.as_ref().map(|h| h.origin.clone()),
            kept: false,
        }
    }

    fn rules_for(
        &self,
        dag: &Dag,
        goal: &Goal,
        tenant: &Tenant,
        now: Timestamp,
    ) -> HashMap<TaskId, Result<Answer, Undone>> {
        let mut company = Company::of(dag);
        let mut found = HashMap::new();
        let (last, first): (Vec<&Task>, Vec<&Task>) = dag.leaves().partition(|task| company.comes_last(&task.id));
        for task in first.into_iter().chain(last) {
            let answer = self.agent.by_rules(&part_goal(goal, task), &company.of_part(&task.id), tenant, now);
            if let Some(template) = answer.as_ref().ok().and_then(|answer| answer.template.as_ref()) {
                company.made(&task.id, template);
            }
            found.insert(task.id.clone(), answer);
        }
        found
    }

    /// Only where the rules can neither do the goal nor take it apart, and it is complex by its sender's word and by
    /// its own. Everything else stays one node and costs nothing extra.
    fn wants_model_plan(&self, goal: &Goal, plan: &Plan) -> bool {
        plan.dag.tasks().len() == 1
            && !plan.is_complete()
            && goal.complexity == Complexity::Complex
            && decompose::complexity(&goal.description) >= decompose::COMPLEX
            && self.agent.llm().is_configured()
    }

    /// Has a model take a goal apart. Why it could not is for people.
    pub async fn take_apart(&self, goal: &Goal, bounds: &Bounds, now: Timestamp) -> Result<Dag, String> {
        self.plan_by_model(goal, bounds, &mut Spent::default(), now).await
    }

    async fn plan_by_model(
        &self,
        goal: &Goal,
        bounds: &Bounds,
        spent: &mut Spent,
        now: Timestamp,
    ) -> Result<Dag, String> {
        let llm = self.agent.llm();
        let prompt = plan_prompt(goal);
        if let Some(max) = bounds.max_cost {
            let worst = llm.worst_case(&prompt, now).map_err(|e| e.to_string())?;
            // A plan must leave enough for the work itself.
            if worst.0.saturating_mul(3) > max.0 {
                return Err(format!("a plan may cost {worst}, too much of the {max} allowed"));
            }
        }
        let asked = llm.ask(&prompt, &bounds.terms(), now).await;
        let paid = asked.as_ref().map_or_else(|failed| failed.spent, |completion| completion.spent);
        *spent = paid;
        let completion = asked.map_err(|failed| failed.to_string())?;
        if completion.finish != Finish::Stop {
            return Err("the plan was cut short".to_owned());
        }
        read_plan(goal, &completion.text)
    }

    async fn run_parts(&self, goal: &Goal, plan: &mut Plan, bounds: &Bounds, now: Timestamp) -> Answer {
        let dag = &plan.dag;
        // What every part may spend, so that parts in parallel can't overrun the whole.
        let open = plan.by_rules.values().filter(|r| r.is_err()).count().max(1) as u64;
        let bounds = &Bounds { max_cost: bounds.max_cost.map(|max| NanoUsd(max.0 / open)), ..bounds.clone() };
        let mut schedule = Schedule::new(dag);
        let mut done: HashMap<TaskId, Answer> = HashMap::new();
        let mut running = FuturesUnordered::new();
        loop {
            for id in schedule.take_ready() {
                let Some(task) = dag.tasks().iter().find(|t| t.id == *id) else { continue };
                let by_rules = plan.by_rules.remove(id);
                let earlier = match by_rules {
                    Some(Ok(_)) => String::new(),
                    _ => plan.earlier.clone() + &earlier_work(dag, task, &done),
                };
                running.push(async move {
                    let part = part_goal(goal, task);
                    let answer = match by_rules {
                        Some(Ok(answer)) => answer,
                        Some(Err(undone)) => self.agent.beyond_rules(&part, bounds, undone, &earlier, now).await,
                        None => self.agent.process(&part, bounds, now).await,
                    };
                    (task.id.clone(), answer)
                });
            }
            let Some((id, answer)) = running.next().await else { break };
            schedule.complete(&id);
            done.insert(id, answer);
        }
        drop(running);
        assemble(goal, dag, done, &self.agent.library(), now)
    }
}

/// The agent's own words around a task in a prompt, for estimates.
const PROMPT_CHARS: usize = 260;

/// The bounds of what comes after. What nobody knows counts at its worst.
fn leaves(bounds: &Bounds, spent: &Spent) -> Bounds {
    let left = bounds.max_cost.map(|max| NanoUsd(max.0.saturating_sub(spent.most().0)));
    Bounds { max_cost: left, ..bounds.clone() }
}

/// The goal of a part. A target file is the whole's, not each part's.
fn part_goal(goal: &Goal, task: &Task) -> Goal {
    let mut part = Goal { description: task.description.clone(), ..goal.clone() };
    if task.parent.is_some() {
        part.context.fields.remove("target_file");
    }
    part
}

/// The parts that a task waits for; a group stands for all in it.
fn waited_for<'a>(dag: &'a Dag, task: &Task) -> Vec<&'a Task> {
    let inside = |leaf: &Task, group: &TaskId| leaf.id == *group || leaf.parent.as_ref() == Some(group);
    dag.leaves().filter(|leaf| task.depends_on.iter().any(|d| inside(leaf, d))).collect()
}

/// What a part's dependencies came to, for a model that has to make it fit. Bounded: 8,000 characters.
fn earlier_work(dag: &Dag, task: &Task, done: &HashMap<TaskId, Answer>) -> String {
    let mut text = String::new();
    for leaf in waited_for(dag, task) {
        if let Some(answer) = done.get(&leaf.id).filter(|answer| answer.success) {
            text.push_str(&format!("## {}\n{}\n", leaf.description, answer.text));
        }
    }
    text.chars().take(8_000).collect()
}

/// One answer of many parts: Markdown for people, `parts` for programs.
fn assemble(goal: &Goal, dag: &Dag, mut done: HashMap<TaskId, Answer>, library: &Library, now: Timestamp) -> Answer {
    let mut parts: Vec<Part> = dag
        .leaves()
        .filter_map(|task| {
            let answer = done.remove(&task.id)?;
            let depends_on = waited_for(dag, task).into_iter().map(|leaf| leaf.id.to_string()).collect();
            Some(Part { id: task.id.to_string(), depends_on, description: task.description.clone(), answer })
        })
        .collect();
    keep_files_apart(&mut parts);
    let text = parts.iter().map(section).collect::<Vec<_>>().join("\n");
    let undone: Vec<&str> = parts.iter().filter(|p| !p.answer.success).map(|p| p.id.as_str()).collect();
    let reason = (!undone.is_empty()).then(|| format!("these parts were not done: {}", undone.join(", ")));
    // The costliest way that a part took names the whole; a part that nothing could do makes it a fallback.
    let method = parts.iter().map(|p| p.answer.method).max_by_key(|m| match m {
        Method::Cached => 0,
        Method::Autonomous => 1,
        Method::LlmAssisted => 2,
        Method::Fallback => 3,
    });
    let mut usage = Usage::default();
    parts.iter().for_each(|p| usage += p.answer.usage);
    let task_type = parts.first().map_or(crate::domain::TaskType::General, |p| p.answer.task_type);
    let answer = Answer {
        model: parts.iter().find_map(|p| p.answer.model.clone()),
        usage,
        cost: parts.iter().map(|p| p.answer.cost).sum(),
        unknown: parts.iter().map(|p| p.answer.unknown).sum(),
        evaluation: mean(&parts),
        left_out: parts.iter().flat_map(|p| p.answer.left_out.iter().cloned()).collect(),
        project: project_of(&goal.language, &parts, library),
        parts,
        ..Answer::new(method.unwrap_or(Method::Fallback), task_type, &goal.language, text, now)
    };
    match reason {
        Some(reason) => answer.failed(reason),
        None => answer,
    }
}

/// Two parts can't be one file: the later one says its kind in its name.
fn keep_files_apart(parts: &mut [Part]) {
    let mut taken: HashSet<String> = HashSet::new();
    for part in parts {
        let Some(file) = &part.answer.file else { continue };
        let (stem, extension) = file.rsplit_once('.').unwrap_or((file, ""));
        let kinds = [part.answer.task_type.to_string(), part.id.replace('.', "_")];
        let others = kinds.iter().map(|kind| format!("{stem}_{kind}.{extension}"));
        let free = std::iter::once(file.clone()).chain(others).find(|file| !taken.contains(file));
        taken.extend(free.clone());
        part.answer.file = free;
    }
}

/// The manifest and module root of all parts' files, with the packages that their templates name.
fn project_of(language: &Language, parts: &[Part], library: &Library) -> Vec<ProjectFile> {
    let mut packages = [project::Packages::default(), project::Packages::default()];
    for template in parts.iter().filter_map(|part| library.get(part.answer.template.as_ref()?)) {
        if template.language.as_ref() == Some(language) {
            packages[0].add(&template.packages);
            packages[1].add(&template.dev_packages);
        }
    }
    let paths: Vec<&str> = parts.iter().filter_map(|part| part.answer.file.as_deref()).collect();
    let own: Vec<ProjectFile> = project::files(language, &paths, &packages[0], &packages[1]);
    own.into_iter().filter(|file| !paths.contains(&file.path.as_str())).collect()
}

fn section(part: &Part) -> String {
    let title = part.answer.file.as_deref().unwrap_or(&part.description);
    let text = part.answer.text.trim_end();
    let asked = &part.answer.language;
    let language = part.answer.file.as_deref().map_or_else(|| asked.clone(), |file| evaluate::language_of(file, asked));
    // What has no branches is prose, or a file of another kind: a Dockerfile, YAML.
    let branches = part.answer.evaluation.is_some_and(|e| e.cyclomatic.is_some());
    if !branches && (language == *asked || evaluate::is_prose(&language)) {
        return format!("## {title}\n\n{text}\n");
    }
    // A fence longer than any inside can't be closed by the code.
    let longest = text.lines().map(|l| l.trim_start().chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("## {title}\n\n{fence}{language}\n{text}\n{fence}\n")
}

/// The parts' figures as one: quality is their mean, lines and complexity their sum.
fn mean(parts: &[Part]) -> Option<Evaluation> {
    let all: Vec<Evaluation> = parts.iter().filter_map(|p| p.answer.evaluation).collect();
    if all.is_empty() {
        return None;
    }
    let cyclomatic: Vec<u32> = all.iter().filter_map(|e| e.cyclomatic).collect();
    Some(Evaluation {
        quality: all.iter().map(|e| e.quality).sum::<f64>() / all.len() as f64,
        parses: all.iter().all(|e| e.parses),
        lines: all.iter().map(|e| e.lines).sum(),
        cyclomatic: (!cyclomatic.is_empty()).then(|| cyclomatic.iter().sum()),
    })
}

fn plan_prompt(goal: &Goal) -> Prompt {
    let system = "You plan work for developers. Answer with JSON only: a list of 2 to 5 objects {\"name\", \
                  \"description\", \"depends_on\"}. A name is short and unique; depends_on lists names of this list that \
                  must be done before; a description is one order that can be carried out by itself."
        .to_owned();
    let content = format!("Goal: {}\nLanguage: {}", goal.description, goal.language);
    let messages = vec![Message { role: "user".to_owned(), content }];
    Prompt { system, messages, max_output_tokens: Some(1_000), ..Prompt::default() }
}

/// A model's plan is text from outside: parsed, bounded, and checked as a graph before anything is done with it.
fn read_plan(goal: &Goal, text: &str) -> Result<Dag, String> {
    let from = text.find('[').ok_or("the plan is no JSON list")?;
    let to = text.rfind(']').filter(|to| *to > from).ok_or("the plan is no JSON list")?;
    let pieces: Vec<Piece> =
        serde_json::from_str(&text[from..=to]).map_err(|e| format!("the plan can't be read: {e}"))?;
    if !decompose::PARTS.contains(&pieces.len()) {
        return Err(format!("the plan has {} parts; 2 to 5 are asked for", pieces.len()));
    }
    let sound = |p: &Piece| {
        !p.description.trim().is_empty() && p.description.len() <= 2_000 && !p.name.is_empty() && p.name.len() <= 100
    };
    if !pieces.iter().all(sound) {
        return Err("the plan has a part without a name or description, or with one that is too long".to_owned());
    }
    decompose::from_pieces(&goal.description, &pieces).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CacheMode;

    #[test]
    fn what_nobody_knows_is_taken_at_its_worst_from_what_may_be_spent() {
        let bounds = Bounds {
            tenant: Tenant::default(),
            correlation_id: CorrelationId::generate(),
            cache: CacheMode::Off,
            max_cost: Some(NanoUsd(1_000)),
            deadline: Instant::now(),
        };
        let spent = Spent { cost: NanoUsd(100), unknown: NanoUsd(300), ..Spent::default() };
        assert_eq!(leaves(&bounds, &spent).max_cost, Some(NanoUsd(600)));
    }
}
