//! Events leave through the database: they are committed with what they tell of, and published afterwards, each workflow's in
//! their order. One worker at a time does that. What a crash leaves is published by the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Shared, Workflows};
use crate::domain::workflow::Event;
use crate::store;
use crate::store::workflows::Publication;

/// Where events are told.
pub trait Announce: Send + Sync {
    /// Comes back when it is kept where listeners find it. The same event may be told twice; its id is the same.
    fn announce<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), String>>;
}

/// Events read at a time.
const PAGE: u32 = 500;
/// Workflows whose events are told side by side.
const SIDE_BY_SIDE: usize = 32;
/// How long a worker has the turn, at least. Longer than telling a page takes, and than the time after which telling one counts as
/// failed.
const TURN: Duration = Duration::from_secs(10);
/// Between two looks where nobody said that there is something.
const LOOK: Duration = Duration::from_millis(500);

impl Workflows {
    /// Publishes events until the end.
    pub async fn announce(self, to: Arc<dyn Announce>) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = self.shared.announced.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match publish(&self, &*to).await {
                Ok(true) => {
                    if std::mem::take(&mut failing) {
                        info!("events are published again");
                    }
                    // There may be more.
                    self.shared.announced.notify_one();
                }
                Ok(false) => {}
                Err(why) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(why, "events can't be published now; they are kept and tried again");
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
}

/// Publishes a page. False where there is nothing, or it is another worker's turn.
async fn publish(workflows: &Workflows, to: &dyn Announce) -> Result<bool, String> {
    let turn = TURN.max(workflows.options().notifications.limit() * 2);
    let shared: &Shared = &workflows.shared;
    let away = |error: store::Error| {
        debug!(%error, "events can't be read");
        "the database is away".to_owned()
    };
    let waiting = shared.store.waiting_events(PAGE).await.map_err(away)?;
    if waiting.is_empty() || !shared.store.publishes(&shared.worker, turn).await.map_err(away)? {
        return Ok(false);
    }
    // Read again under the turn: another may have published what was there before.
    let waiting = shared.store.waiting_events(PAGE).await.map_err(away)?;
    let mut of: BTreeMap<i64, Vec<Publication>> = BTreeMap::new();
    waiting.into_iter().for_each(|event| of.entry(event.of).or_default().push(event));
    let told = futures::stream::iter(of.into_values().map(|events| tell(workflows, to, events)))
        .buffer_unordered(SIDE_BY_SIDE)
        .collect::<Vec<_>>();
    let Ok(told) = timeout(turn / 2, told).await else { return Err("they take too long".to_owned()) };
    let (mut done, mut problem) = (vec![], None);
    for (of_one, why) in told {
        done.extend(of_one);
        problem = problem.or(why);
    }
    if !done.is_empty() {
        shared.store.published(&done).await.map_err(away)?;
    }
    match problem {
        Some(why) => Err(why),
        None => Ok(!done.is_empty()),
    }
}

/// A workflow's events one after the other. Where one can't be told, no later one is.
async fn tell(workflows: &Workflows, to: &dyn Announce, events: Vec<Publication>) -> (Vec<(i64, u64)>, Option<String>) {
    let notifications = &workflows.options().notifications;
    let limit = notifications.limit();
    let mut done = vec![];
    for event in events {
        let key = (event.of, event.number);
        if !notifications.wants(&event.kind) {
            done.push(key);
            continue;
        }
        let event = workflows.named(event).await;
        match timeout(limit, to.announce(&event)).await {
            Ok(Ok(())) => done.push(key),
            Ok(Err(why)) => return (done, Some(why)),
            Err(_) => return (done, Some("the stream does not answer".to_owned())),
        }
    }
    (done, None)
}
