//! From a goal to a graph: rules, what was taken apart before, the user's own decomposer, then a model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tracing::{debug, info, warn};

use super::rules::{self, Planned, Rules};
use super::step::Question;
use super::{Error, Order, Workflows};
use crate::coordinator::{Bounds, language_of};
use crate::domain::record::{Digest, EntryKind, hex};
use crate::domain::workflow::{Decomposer, FailureKind, GoalType, Graph, ModelStep, Node, Policy, RunOptions, Step};
use crate::domain::{
    Answer, CacheMode, Complexity, Context, CorrelationId, Dag, Goal, Limits, Method, TaskId, TaskType, Tenant,
    Timestamp,
};

/// How a goal is to be taken apart. What is `None` is as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    pub decomposer: Option<Decomposer>,
    /// Which bounds hold; `None`: as a rule that fits says, else those that hold for all.
    pub kind: Option<GoalType>,
    /// Levels of groups, at most.
    pub max_depth: Option<usize>,
}

/// A goal that is to be a workflow.
#[derive(Debug, Clone)]
pub struct Aim {
    pub goal: String,
    pub wish: Wish,
    /// Who does which of the tasks, in the place of whom the graph names.
    pub steps: BTreeMap<TaskId, Step>,
    pub options: RunOptions,
}

/// A goal that is to be taken apart, with all that its graph depends on.
struct Ask<'a> {
    tenant: &'a Tenant,
    goal: &'a Goal,
    way: Decomposer,
    wish: Wish,
    kind: Option<GoalType>,
    limits: Limits,
    /// No answer is waited for after this.
    deadline: Instant,
}

impl Workflows {
    /// What is to be started for a goal. A goal that was taken apart before is not taken apart again.
    pub async fn compose(&self, tenant: &Tenant, aim: Aim, limit: Duration) -> Result<Order, Error> {
        let Aim { goal, wish, steps, options } = aim;
        let goal = goal.as_str();
        let begun = Timestamp::now();
        let own = self.options();
        let way = wish.decomposer.unwrap_or(own.decomposer.kind);
        let rule = self.rule_for(goal).await;
        let kind = wish.kind.or(rule.as_ref().map(|rule| rule.kind));
        let general = (own.max_depth, Duration::from_millis(own.decomposition_timeout_ms));
        let (depth, longest) = match (wish.kind, &rule) {
            (Some(kind), _) => own.decomposers.of(kind),
            (None, Some(rule)) => rule.bounds,
            (None, None) => general,
        };
        let depth = depth.min(own.max_depth).min(wish.max_depth.unwrap_or(usize::MAX));
        let limits = Limits { depth, ..own.limits() };
        let by_rule = rule.map(|rule| rule.nodes).filter(|nodes| !nodes.is_empty() && way.asks_rules());
        let mut nodes = match by_rule {
            Some(nodes) => nodes,
            None => {
                let goal = whole(goal, self.shared.runner.default_language());
                let deadline = Instant::now() + limit.min(longest);
                let ask = Ask { tenant, goal: &goal, way, wish, kind, limits, deadline };
                self.known_or_taken_apart(&ask, begun).await?
            }
        };
        assign(&mut nodes, steps)?;
        let graph = Graph::new(nodes, &limits).map_err(|error| Error::InvalidGoal { why: error.to_string() })?;
        Ok(Order {
            tenant: tenant.clone(),
            request: None,
            goal: Some(Arc::from(goal)),
            graph: Arc::new(graph),
            options,
            decomposed: Some((begun, Timestamp::now())),
            optimized: None,
            follows: None,
        })
    }

    /// The first rule that fits, of those in the binary and in `workflow.rules`, as the files are now.
    async fn rule_for(&self, goal: &str) -> Option<Fitting> {
        let (folder, goal, bounds) =
            (self.options().rules.clone(), goal.to_owned(), self.options().decomposers.clone());
        let by_rules = move || {
            let rules = Rules::load((!folder.is_empty()).then(|| Path::new(&folder)), &bounds);
            rules.left_out().iter().for_each(|problem| warn!(%problem, "rules of workflows are left out"));
            let found = rules::decompose(&goal, &rules)?;
            debug!(rule = found.rule, "a rule fits a goal");
            let bounds = (found.max_depth, found.timeout);
            Some(Fitting { kind: found.kind, bounds, nodes: found.tasks.into_iter().map(node).collect() })
        };
        tokio::task::spawn_blocking(by_rules).await.ok().flatten()
    }

    async fn known_or_taken_apart(&self, ask: &Ask<'_>, begun: Timestamp) -> Result<Vec<Node>, Error> {
        let (store, key) = (&self.shared.store, ask.key());
        if let Some(nodes) = store.known_goal(ask.tenant, &key).await? {
            return Ok(nodes);
        }
        let coordinator = self.shared.runner.coordinator();
        let plan = coordinator.plan(ask.goal, ask.tenant, begun);
        let step = Step::Agent { language: Some(ask.goal.language.clone()), complexity: Complexity::Medium };
        let as_planned = || nodes(plan.dag(), &step);
        let parts = plan.dag().tasks().len();
        // Who has a decomposer of his own knows better than rules that are not sure of every part.
        let has_better = ask.way == Decomposer::Hybrid && !self.options().decomposer.subject.is_empty();
        let (found, lasts) = if ask.way.asks_rules() && (plan.is_complete() || (parts > 1 && !has_better)) {
            (as_planned(), true)
        } else if let Some(near) = self.near(ask).await {
            (near, true)
        } else {
            match self.take_apart(ask, &step).await {
                Ok((Some(nodes), _)) => {
                    self.remember_for_others(ask, &key);
                    (nodes, true)
                }
                // A model is there to do it as one.
                Ok((None, lasts)) => (as_planned(), lasts),
                Err(error) if ask.way == Decomposer::Hybrid && parts > 1 => {
                    info!(%error, "a goal is taken apart by rules that are not sure of it");
                    (as_planned(), matches!(error, Error::InvalidGoal { .. }))
                }
                Err(error) => return Err(error),
            }
        };
        if lasts {
            store.keep_goal(ask.tenant, &key, &found, begun).await?;
        }
        Ok(found)
    }

    /// By the user's own decomposer, else by a model; `None` where the goal stays whole, and whether that would be so again.
    async fn take_apart(&self, ask: &Ask<'_>, step: &Step) -> Result<(Option<Vec<Node>>, bool), Error> {
        let coordinator = self.shared.runner.coordinator();
        let has_model = coordinator.agent().llm().is_configured();
        let subject = &self.options().decomposer.subject;
        let refused = |why: &str| Err(Error::InvalidGoal { why: why.to_owned() });
        match ask.way {
            Decomposer::Rules => return refused("no rule can take it apart or do it"),
            Decomposer::Remote if subject.is_empty() => {
                return refused("this worker knows no decomposer; its operator sets workflow.decomposer.subject");
            }
            Decomposer::Model if !has_model => return refused("there is no model to ask"),
            _ => {}
        }
        let mut lasts = true;
        if ask.way != Decomposer::Model && !subject.is_empty() {
            let may_go_on = ask.way == Decomposer::Hybrid && has_model;
            match self.by_service(subject, ask, may_go_on).await {
                Ok(nodes) => return Ok((Some(nodes), true)),
                Err(error) if may_go_on => {
                    info!(%error, "a model is asked in its place");
                    lasts = matches!(error, Error::InvalidGoal { .. });
                }
                Err(error) => return Err(error),
            }
        }
        if !has_model {
            return refused(
                "the rules can neither take it apart nor do it, and there is no model to ask; name its parts, or send a graph",
            );
        }
        let bounds = ask.bounds();
        match coordinator.take_apart(ask.goal, &bounds, Timestamp::now()).await {
            Ok(dag) => Ok((Some(nodes(&dag, step)), true)),
            Err(why) if ask.way == Decomposer::Model => Err(Error::InvalidGoal { why }),
            Err(why) => {
                info!(%why, "no plan by a model; the goal stays whole");
                Ok((None, lasts))
            }
        }
    }

    /// By the service at `workflow.decomposer.subject`. It gets half of the time where somebody else can come after it.
    async fn by_service(&self, subject: &str, ask: &Ask<'_>, is_shared: bool) -> Result<Vec<Node>, Error> {
        let left = ask.deadline.saturating_duration_since(Instant::now());
        let question = Question {
            goal: ask.goal.description.clone(),
            kind: ask.kind,
            limits: ask.limits,
            timeout: if is_shared { left / 2 } else { left },
        };
        let runner = &self.shared.runner;
        let nodes = runner.take_apart(subject, &question).await.map_err(|failure| match failure.kind {
            FailureKind::Refused | FailureKind::BadOutput => Error::InvalidGoal { why: failure.message },
            _ => Error::NoDecomposer { why: failure.message },
        })?;
        let unknown = nodes.iter().find_map(|node| match &node.step {
            Step::Native { name } if !runner.knows(name) => Some(name),
            _ => None,
        });
        match unknown {
            Some(name) => Err(Error::InvalidGoal { why: format!("no step called '{name}' is built into this worker") }),
            None => Ok(nodes),
        }
    }

    /// What a goal in other words was taken apart into, where the semantic cache is sure that they want the same.
    async fn near(&self, ask: &Ask<'_>) -> Option<Vec<Node>> {
        let bounds = ask.bounds();
        let agent = self.shared.runner.coordinator().agent();
        let found = agent.recall_task(&ask.as_cached(), &bounds, Timestamp::now()).await?;
        let key = read_hex(&found.text)?;
        // Purged, or a database that is away: then it is taken apart anew.
        let nodes = self.shared.store.known_goal(ask.tenant, &key).await.ok().flatten()?;
        debug!("a goal is taken apart as one in other words was");
        Some(nodes)
    }

    /// The cache leads from the goal's words to where its graph is.
    fn remember_for_others(&self, ask: &Ask<'_>, key: &Digest) {
        let (goal, now) = (ask.as_cached(), Timestamp::now());
        let cache = self.shared.runner.coordinator().agent().cache();
        let answer = Answer::new(Method::LlmAssisted, TaskType::General, &goal.language, hex(key), now);
        let key = cache.key(ask.tenant, EntryKind::Task, &goal);
        cache.put(&key, Arc::new(answer), CorrelationId::generate(), now);
    }
}

/// What a rule says of a goal.
struct Fitting {
    kind: GoalType,
    /// Levels of groups, and how long taking it apart may take.
    bounds: (usize, Duration),
    /// None where the rule only says of which type it is.
    nodes: Vec<Node>,
}

impl Decomposer {
    fn asks_rules(self) -> bool {
        matches!(self, Self::Hybrid | Self::Rules)
    }
}

impl Ask<'_> {
    fn bounds(&self) -> Bounds {
        Bounds {
            tenant: self.tenant.clone(),
            correlation_id: CorrelationId::generate(),
            cache: CacheMode::Use,
            max_cost: None,
            deadline: self.deadline,
        }
    }

    /// The same for the same words, however they are spaced, under the same wishes.
    fn key(&self) -> Digest {
        let words: Vec<&str> = self.goal.description.split_whitespace().collect();
        let words = words.join(" ");
        match self.terms() {
            None => Sha256::digest(words).into(),
            Some(terms) => Sha256::digest(format!("{words}\0{terms}")).into(),
        }
    }

    /// What else than its words a goal's graph depends on, where it is not as usual.
    fn terms(&self) -> Option<String> {
        let Wish { kind, max_depth, .. } = self.wish;
        let is_usual = self.way == Decomposer::Hybrid && kind.is_none() && max_depth.is_none();
        let kind = kind.map_or("", GoalType::as_str);
        let depth = max_depth.map(|depth| depth.to_string()).unwrap_or_default();
        (!is_usual).then(|| format!("{} {kind} {depth}", self.way.as_str()))
    }

    /// As the cache knows it: apart from tasks with the same words.
    fn as_cached(&self) -> Goal {
        let mut goal = self.goal.clone();
        goal.acceptance_criteria = vec![format!("a graph of tasks {}", self.terms().unwrap_or_default())];
        goal
    }
}

/// Gives tasks the steps that whoever starts the goal has for them.
fn assign(nodes: &mut [Node], steps: BTreeMap<TaskId, Step>) -> Result<(), Error> {
    for (task, step) in steps {
        if !nodes.iter().any(|node| node.task.id == task) {
            let there: Vec<&str> = nodes.iter().map(|node| node.task.id.as_str()).take(20).collect();
            let why = format!("'steps' names '{task}', and its tasks are {}", there.join(", "));
            return Err(Error::InvalidGoal { why });
        }
        if nodes.iter().any(|node| node.task.parent.as_ref() == Some(&task)) {
            return Err(Error::InvalidGoal {
                why: format!("'steps' names '{task}', which is a group and has no step"),
            });
        }
        nodes.iter_mut().filter(|node| node.task.id == task).for_each(|node| node.step = step.clone());
    }
    Ok(())
}

fn whole(goal: &str, default_language: &crate::domain::Language) -> Goal {
    Goal {
        description: goal.to_owned(),
        language: language_of(goal).unwrap_or_else(|| default_language.clone()),
        complexity: Complexity::Medium,
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    }
}

fn nodes(dag: &Dag, step: &Step) -> Vec<Node> {
    let node = |task: &crate::domain::Task| Node { task: task.clone(), step: step.clone(), policy: Policy::default() };
    dag.tasks().iter().map(node).collect()
}

fn node(Planned { task, step, pure }: Planned) -> Node {
    let step = match step {
        rules::Step::Agent => Step::default(),
        rules::Step::Model { model } => Step::Model(ModelStep { model, ..ModelStep::default() }),
        rules::Step::Nats { subject } => Step::Nats { subject },
        rules::Step::Native { name } => Step::Native { name },
    };
    Node { task, step, policy: Policy { pure, ..Policy::default() } }
}

fn read_hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is_one() {
        let digest: Digest = Sha256::digest("a goal").into();
        assert_eq!(read_hex(&hex(&digest)), Some(digest));
        for other in ["", "00", &"g".repeat(64), &"ä".repeat(32), &hex(&digest)[1..]] {
            assert_eq!(read_hex(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_a_graph_depends_on_is_in_its_key() {
        let (tenant, goal) = (Tenant::default(), whole("Build  it", &crate::domain::Language::Rust));
        let ask = |way, wish| Ask {
            tenant: &tenant,
            goal: &goal,
            way,
            wish,
            kind: None,
            limits: Limits::default(),
            deadline: Instant::now(),
        };
        let usual = ask(Decomposer::Hybrid, Wish::default());
        // As before there were wishes: what is remembered stays so.
        assert_eq!(usual.key(), Digest::from(Sha256::digest("Build it")));
        let others = [
            ask(Decomposer::Remote, Wish::default()),
            ask(Decomposer::Hybrid, Wish { max_depth: Some(3), ..Wish::default() }),
            ask(Decomposer::Hybrid, Wish { kind: Some(GoalType::Simple), ..Wish::default() }),
        ];
        for other in &others {
            assert_ne!(other.key(), usual.key());
            assert_ne!(other.as_cached().acceptance_criteria, usual.as_cached().acceptance_criteria);
        }
    }
}
