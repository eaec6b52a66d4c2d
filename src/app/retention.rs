//! Deletes what was kept long enough, in small batches, for ever.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::domain::Timestamp;
use crate::store::{RetentionOptions, Rows, Store};
use crate::telemetry::meters;

/// Between two batches, so that others get their turn.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(store: Store, options: RetentionOptions) {
    if options.check_every_ms == 0 {
        return std::future::pending().await;
    }
    let mut tick = tokio::time::interval(Duration::from_millis(options.check_every_ms));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = look(&store, &options).await {
            warn!(error = &error as &dyn std::error::Error, "what is too old could not be deleted; it is tried again");
        }
    }
}

async fn look(store: &Store, options: &RetentionOptions) -> Result<(), crate::store::Error> {
    // What is in no sum yet must not be deleted.
    while store.count_in(options.batch).await? > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let mut all = Rows::default();
    loop {
        let gone = store.prune(options, Timestamp::now()).await?;
        if gone.is_empty() {
            break;
        }
        gone.named().into_iter().for_each(|(table, rows)| meters().purged(table, rows));
        all.add(&gone);
        tokio::time::sleep(PAUSE).await;
    }
    if !all.is_empty() {
        let Rows { executions, attempts, feedback, blocks, cache_entries, workflows, .. } = all;
        info!(executions, attempts, feedback, blocks, cache_entries, workflows, "deleted what was kept long enough");
    }
    Ok(())
}
