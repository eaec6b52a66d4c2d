//! From a goal to a graph: what was taken apart before, rules, then a model.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tracing::{debug, warn};

use super::rules::{self, Planned, Rules};
use super::{Error, Order, Workflows};
use crate::coordinator::{Bounds, language_of};
use crate::domain::record::Digest;
use crate::domain::workflow::{Graph, ModelStep, Node, Policy, RunOptions, Step};
use crate::domain::{CacheMode, Complexity, Context, CorrelationId, Dag, Goal, Tenant, Timestamp};

impl Workflows {
    /// What is to be started for a goal. A goal that was taken apart before is not taken apart again.
    pub async fn compose(
        &self,
        tenant: &Tenant,
        goal: &str,
        options: RunOptions,
        limit: Duration,
    ) -> Result<Order, Error> {
        let begun = Timestamp::now();
        let (nodes, depth) = match self.by_rules(goal).await {
            Some(found) => found,
            None => (self.known_or_taken_apart(tenant, goal, limit, begun).await?, usize::MAX),
        };
        let unfit = |why: String| Error::InvalidGoal { why };
        let mut limits = self.options().limits();
        limits.depth = limits.depth.min(depth);
        let graph = Graph::new(nodes, &limits).map_err(|error| unfit(error.to_string()))?;
        Ok(Order {
            tenant: tenant.clone(),
            request: None,
            goal: Some(Arc::from(goal)),
            graph: Arc::new(graph),
            options,
            decomposed: Some((begun, Timestamp::now())),
            optimized: None,
        })
    }

    /// By the rules in the binary and in `workflow.rules`, as the files are now; with how deep its groups may go.
    async fn by_rules(&self, goal: &str) -> Option<(Vec<Node>, usize)> {
        let (folder, goal) = (self.options().rules.clone(), goal.to_owned());
        let by_rules = move || {
            let rules = Rules::load((!folder.is_empty()).then(|| Path::new(&folder)));
            rules.left_out().iter().for_each(|problem| warn!(%problem, "rules of workflows are left out"));
            let found = rules::decompose(&goal, &rules)?;
            debug!(rule = found.rule, "a goal is taken apart by a rule");
            Some((found.tasks.into_iter().map(node).collect(), found.max_depth))
        };
        tokio::task::spawn_blocking(by_rules).await.ok().flatten()
    }

    async fn known_or_taken_apart(
        &self,
        tenant: &Tenant,
        goal: &str,
        limit: Duration,
        begun: Timestamp,
    ) -> Result<Vec<Node>, Error> {
        let key = key(goal);
        if let Some(nodes) = self.shared.store.known_goal(tenant, &key).await? {
            return Ok(nodes);
        }
        let nodes = self.take_apart(tenant, goal, limit).await?;
        self.shared.store.keep_goal(tenant, &key, &nodes, begun).await?;
        Ok(nodes)
    }

    async fn take_apart(&self, tenant: &Tenant, goal: &str, limit: Duration) -> Result<Vec<Node>, Error> {
        let coordinator = self.shared.runner.coordinator();
        let language = language_of(goal).unwrap_or_else(|| self.shared.runner.default_language().clone());
        let whole = Goal {
            description: goal.to_owned(),
            language: language.clone(),
            complexity: Complexity::Medium,
            acceptance_criteria: vec![],
            context: Context::default(),
            tags: vec![],
        };
        let now = Timestamp::now();
        let plan = coordinator.plan(&whole, tenant, now);
        let step = Step::Agent { language: Some(language), complexity: Complexity::Medium };
        // Several parts, or one that the rules are sure of.
        if plan.dag().tasks().len() > 1 || plan.is_complete() {
            return Ok(nodes(plan.dag(), &step));
        }
        if !coordinator.agent().llm().is_configured() {
            let why = "the rules can neither take it apart nor do it, and there is no model to ask; \
                       name its parts, or send a graph"
                .to_owned();
            return Err(Error::InvalidGoal { why });
        }
        let bounds = Bounds {
            tenant: tenant.clone(),
            correlation_id: CorrelationId::generate(),
            cache: CacheMode::Use,
            max_cost: None,
            deadline: Instant::now() + limit,
        };
        match coordinator.take_apart(&whole, &bounds, now).await {
            Ok(dag) => Ok(nodes(&dag, &step)),
            // A model is there to do it as one.
            Err(why) => {
                tracing::info!(%why, "no plan by a model; the goal stays whole");
                Ok(nodes(plan.dag(), &step))
            }
        }
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

/// The same for the same words, however they are spaced.
fn key(goal: &str) -> Digest {
    let words: Vec<&str> = goal.split_whitespace().collect();
    Sha256::digest(words.join(" ")).into()
}
