//! From a goal to a graph: what was taken apart before, rules, then a model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{Error, Order, Workflows};
use crate::coordinator::{Bounds, language_of};
use crate::domain::record::Digest;
use crate::domain::workflow::{Graph, Node, Policy, RunOptions, Step};
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
        let key = key(goal);
        let known = self.shared.store.known_goal(tenant, &key).await?;
        let nodes = match known {
            Some(nodes) => nodes,
            None => {
                let nodes = self.take_apart(tenant, goal, limit).await?;
                self.shared.store.keep_goal(tenant, &key, &nodes, begun).await?;
                nodes
            }
        };
        let unfit = |why: String| Error::InvalidGoal { why };
        let graph = Graph::new(nodes, &self.options().limits()).map_err(|error| unfit(error.to_string()))?;
        Ok(Order {
            tenant: tenant.clone(),
            request: None,
            goal: Some(Arc::from(goal)),
            graph: Arc::new(graph),
            options,
            decomposed: Some((begun, Timestamp::now())),
        })
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

/// The same for the same words, however they are spaced.
fn key(goal: &str) -> Digest {
    let words: Vec<&str> = goal.split_whitespace().collect();
    Sha256::digest(words.join(" ")).into()
}
