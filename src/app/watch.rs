//! What the page for operators is told, from the rooms that know.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::{Connection, Desk, DoorCounts};
use crate::cache::Cache;
use crate::http::{Readiness, Sources};
use crate::llm::{Circuit, Client};
use crate::pipeline::{ComponentHealth, Status};
use crate::store::{Recorder, Store};
use crate::telemetry::{Figures, meters};
use crate::workflow::Workflows;

/// How long the database may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker as seen from outside. It can be looked at before there is a worker, and while it stops.
#[derive(Clone, Default)]
pub(super) struct Watch {
    parts: Arc<OnceLock<Parts>>,
    pub(super) stopping: CancellationToken,
}

/// What is looked at, once the door is open.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) connection: Connection,
    pub(super) door: DoorCounts,
    pub(super) desk: Desk,
    pub(super) cache: Cache,
    pub(super) recorder: Recorder,
    pub(super) llm: Client,
    pub(super) workflows: Workflows,
}

impl Watch {
    /// The door is open.
    pub(super) fn opened(&self, parts: Parts) {
        // A worker opens one door in its life.
        let _ = self.parts.set(parts);
    }

    pub(super) fn sources(&self) -> Sources {
        let (ready, metrics) = (self.clone(), self.clone());
        Sources {
            ready: Box::new(move || {
                let watch = ready.clone();
                Box::pin(async move { watch.readiness().await })
            }),
            metrics: Box::new(move || {
                let watch = metrics.clone();
                Box::pin(async move {
                    let ready = watch.readiness().await.ready;
                    meters().render(&watch.figures(), ready)
                })
            }),
        }
    }

    async fn readiness(&self) -> Readiness {
        let say = |status, message: &str| ComponentHealth { status, message: Some(message.to_owned()) };
        let mut components = BTreeMap::new();
        let Some(parts) = self.parts.get() else {
            components.insert("door", say(Status::Down, "the worker starts"));
            return Readiness::of(components);
        };
        let door = match self.stopping.is_cancelled() {
            true => say(Status::Down, "the worker stops"),
            false => say(Status::Ok, "open"),
        };
        let database = match tokio::time::timeout(PATIENCE, parts.store.ping()).await {
            Ok(Ok(())) => say(Status::Ok, parts.store.backend().as_str()),
            Ok(Err(_)) => say(Status::Down, "it does not answer; the log says why"),
            Err(_) => say(Status::Down, "no answer within 2 s"),
        };
        components.insert("door", door);
        components.insert("nats", parts.connection.health());
        components.insert("database", database);
        Readiness::of(components)
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        if let Some(parts) = self.parts.get() {
            parts.door.write(&mut figures);
            parts.desk.write(&mut figures);
            figures.cache_entries = parts.cache.len();
            figures.workflow_steps = parts.workflows.running();
            figures.recorder_waiting = parts.recorder.waiting();
            figures.recorder_dropped = parts.recorder.dropped();
            figures.recorder_refused = parts.recorder.refused();
            for model in parts.llm.health() {
                let state = match model.circuit {
                    Circuit::Closed => 0,
                    Circuit::Open => 1,
                    Circuit::HalfOpen => 2,
                };
                meters().circuit(&model.model, state);
                if let Some(limit) = model.limit {
                    meters().limit(&model.model, limit.waiting, limit.leased);
                }
            }
        }
        figures
    }
}
