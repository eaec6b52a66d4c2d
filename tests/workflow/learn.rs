//! What past runs change in the next one.

use std::time::Duration;

use tandem::domain::Tenant;
use tandem::domain::workflow::{OptimizationLevel, RunOptions, State};
use tandem::workflow::{Error, Given, optimize};

use crate::{Kind, end, native, options, order};

on_both!(Kind: what_takes_longest_goes_first_once_that_was_seen);

/// Three tasks and one at a time: what the last one waits for longest is given last.
async fn what_takes_longest_goes_first_once_that_was_seen(kind: Kind) {
    let place = kind.place().await;
    let worker = place.worker().await;
    let workflows = &worker.workflows;
    workflows.register("step", |given: Given| async move {
        let pause = if given.task.as_str() == "long" { 20 } else { 1 };
        // The work that the step is there for.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok("1".to_owned())
    });
    let graph = || vec![native("short", &[]), native("other", &[]), native("long", &[]), native("last", &["long"])];
    let terms = || RunOptions { max_parallel: 1, ..options() };
    let tenant = Tenant::default();
    let first = order(graph(), terms());
    assert!(workflows.plan(&tenant, &first.graph, &first.options).await.unwrap().changes.is_empty());
    for _ in 0..20 {
        let id = workflows.launch(order(graph(), terms())).await.unwrap();
        assert_eq!(end(workflows, id).await.listed.state, State::Completed);
    }
    let plan = workflows.plan(&tenant, &first.graph, &first.options).await.unwrap();
    assert_eq!(plan.runs, 20);
    assert!(plan.changes.iter().any(|change| matches!(change.edit, optimize::Edit::Order { .. })), "{plan}");
    // Another tenant's records are nobody else's.
    let other = Tenant::parse("other").unwrap();
    assert_eq!(workflows.plan(&other, &first.graph, &first.options).await.unwrap().runs, 0);

    let id = workflows.launch(order(graph(), terms())).await.unwrap();
    end(workflows, id).await;
    let events = workflows.events(&tenant, Some(id), 0, 100).await.unwrap();
    let told: Vec<String> = events.iter().map(|event| event.kind.as_str().to_owned()).collect();
    assert!(told.contains(&"optimization_completed".to_owned()), "{told:?}");
    let begun: Vec<&str> = events
        .iter()
        .filter(|event| event.kind.as_str() == "task_started")
        .filter_map(|event| event.task.as_ref().map(|task| task.as_str()))
        .collect();
    assert_eq!(begun.first(), Some(&"long"), "{begun:?}");

    let recommended = workflows.recommendations(&tenant, &first.graph, &first.options).await.unwrap();
    assert!(!recommended.parallelizable_pairs.is_empty(), "{recommended}");
    let asks = |preserve_structure| RunOptions {
        optimization_level: OptimizationLevel::Aggressive,
        preserve_structure,
        ..terms()
    };
    for preserve in [true, false] {
        let refused = workflows.launch(order(graph(), asks(preserve))).await.unwrap_err();
        assert!(matches!(refused, Error::NotOptimized(_)), "{refused}");
    }
    worker.stop().await;
}
