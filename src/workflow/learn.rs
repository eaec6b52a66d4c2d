//! What past runs of the same graph say about the next one: their records as the optimizer reads them, and of its plan what
//! a run can be given ([`is_given`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::optimize::{
    self, Arrangement, Attempt, Backoff, Change, Edit, Failure, History, Level, Outcome, Plan, Recommendations, Run,
    Verdict, recommend,
};
use super::{Error, Optimized, Order, Workflows, policy};
use crate::domain::record::Digest;
use crate::domain::workflow::{FailureKind, Graph, Node, OptimizationLevel, Policy, RunOptions, State};
use crate::domain::{Dag, Limits, TaskId, Tenant};
use crate::store::workflows::{Attempts, Listed};

/// Runs that are looked at, the newest: what was slower or faster half a year ago says little of today.
const RUNS: u32 = 200;
/// How long a plan is good for further runs.
const RECENT: Duration = Duration::from_secs(60);
/// Plans that are kept.
const PLANS: u64 = 1_000;

/// For whom, which graph, under which terms, from how many records.
pub(super) type PlanKey = (Tenant, Digest, Digest, u32);

pub(super) fn plans() -> moka::future::Cache<PlanKey, Arc<Decided>> {
    moka::future::Cache::builder().max_capacity(PLANS).time_to_live(RECENT).build()
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

/// Of larger graphs it is not looked ahead what a higher level would change: whoever starts one would wait for it.
const ADVISED: usize = 100;

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
        Ok(aside(move || planned(&view, &history, &wishes)).await??.0)
    }

    /// The order as past runs say that it should be; as it is where there are too few of them.
    pub(super) async fn learnt(&self, mut order: Order) -> Result<Order, Error> {
        let optimization = &self.options().optimization;
        let asks = order.options.optimization_level != OptimizationLevel::Basic;
        if !optimization.enabled || (order.graph.len() > TASKS && !asks) {
            return Ok(order);
        }
        let decided = self.recent_plan(&order).await?;
        let Decided { plan, advice } = &*decided;
        let mut optimized = Optimized { advice: advice.clone(), ..Optimized::default() };
        if !plan.changes.is_empty() {
            optimized.changed = Some(format!("{} changes by {} recorded runs", plan.changes.len(), plan.runs));
            optimized.planned = plan.changes.iter().any(|change| !is_patience(&change.edit));
            let arrangement = plan.apply(&self.view(&order.graph, &order.options)?).map_err(unfit)?;
            order.graph = arranged(&order.graph, &plan.changes, &arrangement, &self.options().limits())?.into();
            order.options.max_parallel = arrangement.graph.max_parallel.min(order.options.max_parallel);
        }
        order.optimized = (optimized != Optimized::default()).then_some(optimized);
        Ok(order)
    }

    /// What an order is given; not thought out anew for each of many that start in the same minute.
    async fn recent_plan(&self, order: &Order) -> Result<Arc<Decided>, Error> {
        let Order { tenant, graph, options, .. } = order;
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
        let key = (tenant.clone(), graph.shape(), terms(graph, options), tens);
        let made = async {
            let (view, wishes) = (self.view(graph, options)?, self.wishes(options));
            let history = self.history(tenant, graph).await?;
            Ok(Arc::new(aside(move || decide(&view, &history, &wishes)).await??))
        };
        // Who starts at the same time waits for the same.
        self.shared.plans.try_get_with(key, made).await.map_err(|error: Arc<Error>| (*error).clone())
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
        let limits = Limits { tasks: graph.len(), depth: usize::MAX };
        let dag = Dag::new(tasks, &limits).map_err(unfit)?;
        let of = |node: &Node| {
            let policy = optimize::Policy {
                timeout: policy::timeout(options, &node.policy),
                attempts: node.policy.retry_attempts.unwrap_or(options.retry_attempts).saturating_add(1),
                backoff: Backoff { first: options.retry_delay, factor: 2.0 },
                // Each has the key of the step, by which a service does a thing once.
                idempotent: node.step.is_keyed(),
                pure: node.policy.pure,
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
        // What a person broke off says neither how long it takes nor that it fails.
        for listed in found.iter().rev().filter(|listed| listed.state != State::Cancelled) {
            let attempts = self.shared.store.workflow_attempts(listed.number).await?;
            let slots = self.definition(listed.number, listed.id).await?.options.max_parallel;
            runs.push(run(listed, slots, &attempts, graph));
        }
        Ok(History { runs })
    }
}

/// The same for the same options and the same policies of the tasks: a plan for a task that is pure is none for one that is not.
fn terms(graph: &Graph, options: &RunOptions) -> Digest {
    let policies: Vec<&Policy> = graph.nodes().iter().map(|node| &node.policy).collect();
    Sha256::digest(serde_json::to_vec(&(options, policies)).unwrap_or_default()).into()
}

/// What is done about a graph as its records are now.
pub(super) struct Decided {
    /// What a run is given.
    plan: Plan,
    /// What it is not given, for a person.
    advice: Option<String>,
}

/// Whether a run is given this change; the others are advice.
pub fn is_given(edit: &Edit) -> bool {
    match edit {
        Edit::Backoff { failure, .. } => !kinds(*failure).is_empty(),
        // Where a step is done, how many workers stand ready, which steps are handed out together: for whoever runs workers.
        Edit::Split { .. } | Edit::Resources { .. } | Edit::Allot { .. } => false,
        _ => true,
    }
}

/// Whether it changes no more than how long is waited: that is kept where the rest is rolled back.
fn is_patience(edit: &Edit) -> bool {
    matches!(edit, Edit::Timeout { .. })
}

/// The plan. Where runs under one were worse than those without, only what changes nothing but patience, and why.
fn planned(
    view: &optimize::Graph,
    history: &History,
    wishes: &optimize::Options,
) -> Result<(Plan, Option<String>), optimize::Refused> {
    let mut plan = optimize::optimize(view, history, wishes)?;
    let Verdict::RollBack { reason } = judge(history) else { return Ok((plan, None)) };
    let why = format!("rolled back for now, runs under a plan were worse: {reason}");
    plan.changes.retain(|change| is_patience(&change.edit));
    plan.notes.push(why.clone());
    plan.replayed = None;
    Ok((plan, Some(why)))
}

/// What a run is given, and what it is not and why.
fn decide(view: &optimize::Graph, history: &History, wishes: &optimize::Options) -> Result<Decided, optimize::Refused> {
    let (mut plan, rolled_back) = planned(view, history, wishes)?;
    let mut advice: Vec<String> = rolled_back.into_iter().collect();
    if advice.is_empty() && view.dag.tasks().len() <= ADVISED {
        for level in [Level::Advanced, Level::Aggressive].into_iter().filter(|level| *level > wishes.level) {
            let preserve_structure = wishes.preserve_structure && level != Level::Aggressive;
            let further = optimize::Options { level, preserve_structure, ..wishes.clone() };
            // Not by this number of records.
            let Ok(more) = optimize::optimize(view, history, &further) else { continue };
            let known: HashSet<String> = plan.changes.iter().map(|change| change.edit.topic()).collect();
            let new =
                more.changes.iter().filter(|change| is_given(&change.edit) && !known.contains(&change.edit.topic()));
            let topics: Vec<String> = new.map(|change| change.edit.topic()).collect();
            if !topics.is_empty() {
                advice.push(format!("'{}' would also change {}", level.name(), listed(&topics)));
                break;
            }
        }
    }
    let by_hand = plan.changes.iter().filter(|c| matches!(c.edit, Edit::Split { .. } | Edit::Allot { .. }));
    let by_hand: Vec<String> = by_hand.map(|change| change.edit.topic()).collect();
    if !by_hand.is_empty() {
        advice.push(format!("left to people: {}", listed(&by_hand)));
    }
    plan.changes.retain(|change| is_given(&change.edit));
    Ok(Decided { plan, advice: (!advice.is_empty()).then(|| advice.join("; ")) })
}

fn listed(topics: &[String]) -> String {
    const SHOWN: usize = 5;
    match topics.len() {
        0..=SHOWN => topics.join(", "),
        more => format!("{} and {} more", topics[..SHOWN].join(", "), more - SHOWN),
    }
}

/// Runs under a plan against those without.
fn judge(history: &History) -> Verdict {
    let side = |planned: bool| {
        let runs: Vec<&Run> = history.runs.iter().filter(|run| run.planned == planned).collect();
        let times: Vec<Duration> = runs.iter().filter(|run| run.completed).map(|run| run.makespan()).collect();
        let failed = runs.len() - times.len();
        (times, failed)
    };
    let ((before, failed_before), (under, failed_under)) = (side(false), side(true));
    optimize::judge((&before, failed_before), (&under, failed_under))
}

/// The graph with what a plan changes in it.
fn arranged(graph: &Graph, changes: &[Change], found: &Arrangement, limits: &Limits) -> Result<Graph, Error> {
    let mut free: HashMap<&TaskId, Vec<TaskId>> = HashMap::new();
    for change in changes {
        if let Edit::DropEdge { task, dependency } = &change.edit {
            free.entry(task).or_default().push(dependency.clone());
        }
    }
    let follows: HashSet<&TaskId> = found.together.iter().flat_map(|chain| &chain[1..]).collect();
    let nodes = graph.nodes().iter().map(|node| {
        let mut node = node.clone();
        let id = &node.task.id;
        let policy = &mut node.policy;
        if let Some(found) = found.graph.policies.get(id) {
            policy.timeout = Some(found.timeout);
            policy.retry_attempts = Some(found.attempts.saturating_sub(1));
            let pauses = found.backoff_by_kind.iter();
            let by_kind = pauses.flat_map(|(failure, pause)| kinds(*failure).iter().map(|kind| (*kind, pause.first)));
            policy.backoff = by_kind.collect();
        }
        policy.follows = follows.contains(id);
        policy.second_after = found.speculate.get(id).map(|speculation| speculation.after);
        policy.recalls = policy.pure && found.memoised.contains(id);
        policy.free_of = free.remove(id).unwrap_or_default();
        node
    });
    let nodes: Vec<Node> = nodes.collect();
    let mut graph = Graph::new(nodes, limits).map_err(unfit)?;
    graph.prefer(&found.priority);
    Ok(graph)
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
    let over = |attempt: &Attempts| {
        let ended = attempt.ended.since(begun);
        // Measured where it was done; the database's times are whole milliseconds.
        attempt.took.map_or(ended, |took| attempt.started.since(begun) + took)
    };
    let done: HashMap<u32, Duration> =
        attempts.iter().filter(|a| a.outcome == "completed").map(|a| (a.position, over(a))).collect();
    let attempts = attempts.iter().filter_map(|attempt| {
        let node = graph.node(attempt.position)?;
        let number = made.entry(attempt.position).or_default();
        *number += 1;
        let mut queued = attempt.queued.since(begun);
        // What came before it had ended earlier than that was written down, if all of it has a time.
        let before = graph.needs(attempt.position).iter().map(|need| done.get(need).copied());
        if *number == 1
            && let Some(before) = before.collect::<Option<Vec<_>>>()
            && let Some(last) = before.into_iter().max()
        {
            queued = queued.min(last);
        }
        Some(Attempt {
            task: node.task.id.clone(),
            number: *number,
            queued,
            started: attempt.started.since(begun),
            ended: over(attempt),
            outcome: outcome(&attempt.outcome, attempt.failure.as_deref()),
            worker: Some(attempt.worker.as_str().into()),
            input_bytes: attempt.input_bytes.unwrap_or(0),
            output_bytes: attempt.output_bytes.unwrap_or(0),
            content_bytes: node.task.description.len() as u64,
            // What it is not given it can't look at; of the rest nobody knows.
            read: node.policy.inputs.clone(),
            input: attempt.inputs.map(i64::cast_unsigned),
            manner: attempt.manner,
        })
    });
    let completed = listed.state == State::Completed;
    Run { slots, completed, planned: listed.planned, attempts: attempts.collect() }
}

/// What the engine calls the failures that the optimizer knows: those after which there is a pause.
fn kinds(failure: Failure) -> &'static [FailureKind] {
    match failure {
        Failure::Timeout => &[FailureKind::TimedOut],
        Failure::Unavailable => &[FailureKind::Unavailable],
        Failure::Other => &[FailureKind::Failed, FailureKind::Panicked],
        Failure::Overloaded | Failure::WorkerLost | Failure::Rejected => &[],
    }
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
