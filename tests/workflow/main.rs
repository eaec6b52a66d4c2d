//! Workflows on real workers, servers and databases: what is started comes to its end, once, whatever happens meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test"
)]

#[macro_use]
#[path = "../support/both.rs"]
mod both;
#[path = "../support/fault.rs"]
mod fault;
#[path = "../durable/model.rs"]
mod model;
#[path = "../support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "other tests take more of it")]
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/worker.rs"]
mod worker;

mod decompose;
mod engine;
mod events;
mod examples;
mod kill;
mod learn;
mod lease;
mod models;
mod plans;
mod stalls;
mod turns;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem::config::Config;
use tandem::domain::workflow::{Graph, Node, Policy, RunOptions, State, Step, TaskState, WorkflowId};
use tandem::domain::{Limits, Task, TaskId, Tenant};
use tandem::llm::Credentials;
use tandem::workflow::{Order, Seen, Workflows};

use nats::Nats;
use worker::Running;

/// A database and a bus, for any number of workers.
pub struct Place {
    pub nats: Nats,
    inner: worker::Place,
    server: Option<postgres::Postgres>,
}

/// Not yet started: the server starts on the test's runtime.
pub struct Kind(Option<postgres::Postgres>);

impl Kind {
    fn sqlite() -> Self {
        Self(None)
    }

    fn postgres() -> Self {
        Self(Some(postgres::Postgres::start()))
    }

    async fn place(self) -> Place {
        Place { nats: Nats::start().await, inner: worker::Place::new(), server: self.0 }
    }

    /// With the embedding model: for what the cache is asked.
    async fn place_with_model(self) -> Place {
        Place { inner: worker::Place::with_model(), ..self.place().await }
    }
}

impl Place {
    pub fn config(&self) -> Config {
        let mut config = self.inner.config(&self.nats);
        if let Some(server) = &self.server {
            config.database.url = server.url();
        }
        config
    }

    pub async fn worker(&self) -> Running {
        self.worker_with(self.config()).await
    }

    pub async fn worker_with(&self, config: Config) -> Running {
        self.with_credentials(config, Credentials::default()).await
    }

    pub async fn with_credentials(&self, config: Config, credentials: Credentials) -> Running {
        self.inner.worker_with(config, credentials).await
    }
}

pub fn native(id: &str, depends_on: &[&str]) -> Node {
    node(id, depends_on, Step::Native { name: "step".to_owned() })
}

pub fn node(id: &str, depends_on: &[&str], step: Step) -> Node {
    let depends_on = depends_on.iter().map(|d| TaskId::new(d)).collect();
    let task = Task { id: TaskId::new(id), description: format!("do {id}"), parent: None, depends_on };
    Node { task, step, policy: Policy::default() }
}

/// Quick to try again.
pub fn options() -> RunOptions {
    RunOptions { retry_delay: Duration::from_millis(5), ..RunOptions::default() }
}

pub fn order(nodes: Vec<Node>, options: RunOptions) -> Order {
    let graph = Arc::new(Graph::new(nodes, &Limits::default()).unwrap());
    let (tenant, goal, request) = (Tenant::default(), None, None);
    Order { tenant, request, goal, graph, options, decomposed: None, optimized: None, follows: None }
}

pub async fn status(workflows: &Workflows, id: WorkflowId) -> Seen {
    workflows.status(&Tenant::default(), id).await.unwrap()
}

/// How it stands once it is over.
pub async fn end(workflows: &Workflows, id: WorkflowId) -> Seen {
    let over = async || {
        let found = workflows.find(&Tenant::default(), id).await.unwrap();
        found.state.is_over().then_some(())
    };
    until("the workflow is over", over).await;
    status(workflows, id).await
}

pub fn states(seen: &Seen) -> Vec<TaskState> {
    seen.steps.iter().map(|step| step.state).collect()
}

pub async fn output(workflows: &Workflows, seen: &Seen, task: &str) -> String {
    let position = seen.graph.position(&TaskId::new(task)).unwrap();
    let mut found = workflows.outputs(seen.listed.number, &[position]).await.unwrap();
    found.pop().map(|(_, output)| output.to_string()).unwrap_or_default()
}

/// Looks until there is something to see; says what was missed after twenty seconds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub const DONE: State = State::Completed;
