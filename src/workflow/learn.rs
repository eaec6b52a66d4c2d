//! What past runs of the same graph say about the next one: their records as the optimizer reads them, and of its plan what
//! a run can be given: timeouts, attempts, the order of its steps, how many run at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::optimize::{
    self, Attempt, Backoff, Edit, Failure, History, Level, Outcome, Plan, Recommendations, Run, recommend,
};
use super::{Error, Order, Workflows, policy};
use crate::domain::record::Digest;
use crate::domain::workflow::{FailureKind, Graph, Node, OptimizationLevel, RunOptions, Step};
use crate::domain::{Dag, Tenant};
use crate::store::workflows::{Attempts, Listed};

/// Runs that are looked at, the newest: what was slower or faster half a year ago says little of today.
const RUNS: u32 = 200;
/// How long a plan is good for further runs.
const RECENT: Duration = Duration::from_secs(60);
/// Plans that are kept.
const PLANS: u64 = 1_000;

/// For whom, which graph, under which options, from how many records.
pub(super) type PlanKey = (Tenant, Digest, OptimizationLevel, bool, u32, u32);

pub(super) fn plans() -> moka::sync::Cache<PlanKey, Arc<Plan>> {
    moka::sync::Cache::builder().max_capacity(PLANS).time_to_live(RECENT).build()
}

/// Graphs of which there are as many records as are looked at: they need not be counted again.
pub(super) type OftenRun = moka::sync::Cache<(Tenant, Digest), ()>;

pub(super) fn often_run() -> OftenRun {
    moka::sync::Cache::builder().max_capacity(PLANS).time_to_live(RECENT).build()
}

/// Records that are read for a plan, roughly.
const ATTEMPTS: usize = 1_000_000;
/// Larger graphs run as they are: their records would take longer to read than they save.
const TASKS: usize = 1_000;

impl Workflows {
    /// What records say of a graph, for its tenant alone.
    pub async fn recommendations(
        &self,
        tenant: &Tenant,
        graph: &Graph,
        options: &RunOptions,
    ) -> Result<Recommendations, Error> {
        let (view, wishes) = (self.view(graph, options)?, self.wishes(options));
        let history = self.history(tenant, graph).await?;
        aside(move || recommend(&view, &history, &wishes)).await
    }

    /// What a run of this graph under these options would be given. It changes nothing.
    pub async fn plan(&self, tenant: &Tenant, graph: &Graph, options: &RunOptions) -> Result<Plan, Error> {
        let (view, wishes) = (self.view(graph, options)?, self.wishes(options));
        let history = self.history(tenant, graph).await?;
        Ok(aside(move || optimize::optimize(&view, &history, &wishes)).await??)
    }

    /// The order as past runs say that it should be; as it is where there are too few of them.
    pub(super) async fn learnt(&self, mut order: Order) -> Result<Order, Error> {
        let optimization = &self.options().optimization;
        let asks = order.options.optimization_level != OptimizationLevel::Basic;
        if !optimization.enabled || (order.graph.len() > TASKS && !asks) {
            return Ok(order);
        }
        let plan = self.recent_plan(&order).await?;
        // What is only advice changes no run.
        let given = plan.changes.iter().filter(|change| is_given(&change.edit)).count();
        if given == 0 {
            return Ok(order);
        }
        let arrangement = plan.apply(&self.view(&order.graph, &order.options)?).map_err(unfit)?;
        let nodes = order.graph.nodes().iter().map(|node| {
            let mut node = node.clone();
            if let Some(found) = arrangement.graph.policies.get(&node.task.id) {
                node.policy.timeout = Some(found.timeout);
                node.policy.retry_attempts = Some(found.attempts.saturating_sub(1));
            }
            node
        });
        let mut graph = Graph::new(nodes.collect(), &self.options().limits()).map_err(unfit)?;
        graph.prefer(&arrangement.priority);
        order.graph = graph.into();
        order.options.max_parallel = arrangement.graph.max_parallel.min(order.options.max_parallel);
        order.optimized = Some(format!("{given} changes by {} recorded runs", plan.runs));
        Ok(order)
    }

    /// The plan for an order; not made anew for each of many that start in the same minute.
    async fn recent_plan(&self, order: &Order) -> Result<Arc<Plan>, Error> {
        let Order { tenant, graph, options, .. } = order;
        let level = options.optimization_level;
        let shape = (tenant.clone(), graph.shape());
        let runs = match self.shared.often_run.contains_key(&shape) {
            true => RUNS,
            false => {
                let runs = self.shared.store.count_of_shape(tenant, &graph.shape(), RUNS).await?;
                if runs == RUNS {
                    self.shared.often_run.insert(shape, ());
                }
                runs
            }
        };
        // As many records as ten ago say nothing else, but where a level begins.
        let tens = runs / 10;
        let key = (tenant.clone(), graph.shape(), level, options.preserve_structure, options.max_parallel, tens);
        if let Some(known) = self.shared.plans.get(&key) {
            return Ok(known);
        }
        let plan = Arc::new(self.plan(tenant, graph, options).await?);
        self.shared.plans.insert(key, plan.clone());
        Ok(plan)
    }

    fn wishes(&self, options: &RunOptions) -> optimize::Options {
        let own = &self.options().optimization;
        optimize::Options {
            level: match options.optimization_level {
                OptimizationLevel::Basic => Level::Basic,
                OptimizationLevel::Advanced => Level::Advanced,
                OptimizationLevel::Aggressive => Level::Aggressive,
            },
            preserve_structure: options.preserve_structure,
            max_parallel: options.max_parallel,
            timeout_threshold: Duration::from_millis(own.timeout_threshold_ms),
            learning_enabled: own.learning_enabled,
            pattern_confidence_threshold: own.pattern_confidence_threshold,
        }
    }

    /// The graph as the optimizer sees it.
    fn view(&self, graph: &Graph, options: &RunOptions) -> Result<optimize::Graph, Error> {
        let tasks = graph.nodes().iter().map(|node| node.task.clone()).collect();
        let limits = crate::domain::Limits { tasks: graph.len(), depth: usize::MAX };
        let dag = Dag::new(tasks, &limits).map_err(unfit)?;
        let of = |node: &Node| {
            let policy = optimize::Policy {
                timeout: policy::timeout(options, &node.policy),
                attempts: node.policy.retry_attempts.unwrap_or(options.retry_attempts).saturating_add(1),
                backoff: Backoff { first: options.retry_delay, factor: 2.0 },
                // Each has the key of the step, by which a service does a thing once.
                idempotent: matches!(node.step, Step::Nats { .. } | Step::Native { .. }),
                ..optimize::Policy::default()
            };
            (node.task.id.clone(), policy)
        };
        let policies = graph.nodes().iter().map(of).collect();
        Ok(optimize::Graph { dag, policies, max_parallel: options.max_parallel })
    }

    /// The newest recorded runs of the same graph, oldest first.
    async fn history(&self, tenant: &Tenant, graph: &Graph) -> Result<History, Error> {
        let runs = u32::try_from(ATTEMPTS / graph.len().max(1)).unwrap_or(RUNS).clamp(1, RUNS);
        let found = self.shared.store.workflows_of_shape(tenant, &graph.shape(), runs).await?;
        let mut runs = Vec::with_capacity(found.len());
        for listed in found.iter().rev() {
            let attempts = self.shared.store.workflow_attempts(listed.number).await?;
            let slots = self.definition(listed.number, listed.id).await?.options.max_parallel;
            runs.push(run(listed, slots, &attempts, graph));
        }
        Ok(History { runs })
    }
}

/// Whether a run is given this change; the others are advice.
pub fn is_given(edit: &Edit) -> bool {
    matches!(edit, Edit::Timeout { .. } | Edit::Attempts { .. } | Edit::Order { .. } | Edit::MaxParallel { .. })
}

/// Where it keeps nobody waiting: a large graph takes a while to think about.
async fn aside<T: Send + 'static>(think: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(think).await.map_err(|_| Error::Stopping)
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::InvalidGoal { why: error.to_string() }
}

fn run(listed: &Listed, slots: u32, attempts: &[Attempts], graph: &Graph) -> Run {
    let mut made: HashMap<u32, u32> = HashMap::new();
    let begun = listed.created;
    let attempts = attempts.iter().filter_map(|attempt| {
        let node = graph.node(attempt.position)?;
        let number = made.entry(attempt.position).or_default();
        *number += 1;
        let started = attempt.started.since(begun);
        // Measured where it was done; the database's times are whole milliseconds.
        let ended = attempt.took.map_or_else(|| attempt.ended.since(begun), |took| started + took);
        Some(Attempt {
            task: node.task.id.clone(),
            number: *number,
            queued: attempt.queued.since(begun),
            started,
            ended,
            outcome: outcome(&attempt.outcome, attempt.failure.as_deref()),
            worker: Some(attempt.worker.as_str().into()),
            input_bytes: attempt.input_bytes.unwrap_or(0),
            output_bytes: attempt.output_bytes.unwrap_or(0),
            content_bytes: node.task.description.len() as u64,
            // Nobody watches what a step does with its inputs.
            read: None,
            input: None,
        })
    });
    let completed = listed.state == crate::domain::workflow::State::Completed;
    Run { slots, completed, attempts: attempts.collect() }
}

fn outcome(outcome: &str, failure: Option<&str>) -> Outcome {
    let is = |kind: FailureKind| failure == Some(kind.as_str());
    match outcome {
        "completed" => Outcome::Done,
        "lost" => Outcome::Failed(Failure::WorkerLost),
        _ if is(FailureKind::TimedOut) => Outcome::Failed(Failure::Timeout),
        _ if is(FailureKind::Unavailable) => Outcome::Failed(Failure::Unavailable),
        _ if is(FailureKind::WorkerLost) => Outcome::Failed(Failure::WorkerLost),
        _ if [FailureKind::Refused, FailureKind::BadOutput, FailureKind::Undone].into_iter().any(is) => {
            Outcome::Failed(Failure::Rejected)
        }
        _ => Outcome::Failed(Failure::Other),
    }
}
