//! A loud tenant beside quiet ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::future::join_all;
use serde_json::{Value, json};
use tandem::llm::Credentials;

use crate::fault::{report, size};
use crate::model::Slow;
use crate::nats::{Nats, header, json as read};
use crate::worker::{Place, Running};
use crate::{ask, counted, for_a_model, status, until};

const DELAY: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);

/// A worker with room for 32, each of which waits for a slow model.
async fn worker(nats: &Nats, model: &Slow) -> Running {
    let place = Place::new();
    let mut config = place.config(nats);
    config.nats.max_concurrent = 32;
    config.nats.max_concurrent_per_tenant = 16;
    let credentials: Credentials = model.known_to(&mut config);
    place.worker_with(config, credentials).await
}

fn slow(n: usize) -> Value {
    let mut body = for_a_model(n);
    body["cache"] = json!("off");
    body
}

/// Asks again and again from `tasks` places at once, after `pause` or when it is told to; how many were done.
async fn flood(client: &Client, tenant: &str, tasks: usize, pause: Option<Duration>, over: &AtomicBool) -> usize {
    let (done, subject) = (AtomicUsize::new(0), format!("execution.request.{tenant}"));
    let one = async |n: usize| {
        while !over.load(Ordering::Relaxed) {
            let reply = ask(client, &subject, &slow(n)).await;
            match status(&reply) {
                None => drop(done.fetch_add(1, Ordering::Relaxed)),
                Some(code) => {
                    assert_eq!(code, "503", "{}", read(&reply));
                    let told = Duration::from_millis(header(&reply, "Retry-After-Ms").unwrap().parse().unwrap());
                    tokio::time::sleep(pause.unwrap_or(told)).await;
                }
            }
        }
    };
    join_all((0..tasks).map(one)).await;
    done.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loud_tenant_leaves_room_for_a_quiet_one() {
    let (nats, model) = (Nats::start().await, Slow::start(DELAY).await);
    let _worker = worker(&nats, &model).await;
    let (loud, quiet) = (nats.client().await, nats.client().await);
    let over = AtomicBool::new(false);
    let count = size(40, 1_000);
    let asking = async {
        // The loud one is at work before the quiet one comes.
        let loud = async || (counted(&quiet, "shed").await >= 100).then_some(());
        until(LIMIT, "the loud one is shed", loud).await;
        let (mut served, mut longest) = (0, Duration::ZERO);
        for n in 0..count {
            let begun = Instant::now();
            let reply = ask(&quiet, "execution.request.quiet", &slow(n)).await;
            served += usize::from(status(&reply).is_none());
            longest = longest.max(begun.elapsed());
        }
        let refused = async || {
            let reply = ask(&quiet, "execution.request.loud", &slow(0)).await;
            status(&reply).map(|_| read(&reply)["message"].as_str().unwrap().to_owned())
        };
        let (refused, _) = until(LIMIT, "the loud one is refused", refused).await;
        over.store(true, Ordering::Relaxed);
        (served, longest, refused)
    };
    let ((served, longest, refused), done) = tokio::join!(asking, flood(&loud, "loud", 200, None, &over));
    let share = served as f64 / count as f64;
    report(
        "a tenant with 200 in flight beside a quiet one",
        format!(
            "{:.1} % of {count} quiet ones served at once, the slowest in {longest:?}; {done} loud ones",
            share * 100.0
        ),
        "≥ 99 %",
    );
    assert!(share >= 0.99, "{served} of {count}");
    assert!(refused.contains("nats.max_concurrent_per_tenant"), "{refused}");
    assert!(done > 0);
    assert_eq!(counted(&quiet, "tenants_at_work").await, 0, "who is idle is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_want_all_get_alike_whatever_their_manners() {
    let (nats, model) = (Nats::start().await, Slow::start(DELAY).await);
    let _worker = worker(&nats, &model).await;
    let clients = join_all((0..4).map(|_| nats.client())).await;
    let over = AtomicBool::new(false);
    let floods = join_all(clients.iter().enumerate().map(|(n, client)| {
        let (over, tenant) = (&over, format!("t{n}"));
        async move {
            // One after the other: who came first must not keep what it took.
            tokio::time::sleep(Duration::from_millis(100 * n as u64)).await;
            // All want more than there is. The first does not keep to what it is told.
            let (askers, pause) = if n == 0 { (60, Some(Duration::from_millis(10))) } else { (20, None) };
            flood(client, &tenant, askers, pause, over).await
        }
    }));
    let stop = async {
        tokio::time::sleep(Duration::from_secs(size(8, 60))).await;
        over.store(true, Ordering::Relaxed);
    };
    let (done, ()) = tokio::join!(floods, stop);
    let sum: f64 = done.iter().map(|x| *x as f64).sum();
    let squares: f64 = done.iter().map(|x| (*x as f64).powi(2)).sum();
    let jain = sum * sum / (done.len() as f64 * squares);
    report(
        "four tenants that want all, one of them without manners",
        format!("Jain's index {jain:.4} of {done:?}"),
        "≥ 0.95",
    );
    assert!(jain >= 0.95, "{jain} {done:?}");
    assert!(sum > 100.0, "{done:?}");
}

/// Queries have shares of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_floods_with_queries_leaves_room_for_those_of_others() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut config = place.config(&nats);
    config.nats.max_concurrent_queries = 4;
    let _worker = place.worker_with(config, Credentials::default()).await;
    let (loud, quiet) = (nats.client().await, nats.client().await);
    let over = AtomicBool::new(false);
    let one = async |_| {
        let mut shed = 0;
        while !over.load(Ordering::Relaxed) {
            // Renders and parses every template.
            let reply = ask(&loud, "template.check.loud", &json!({})).await;
            shed += usize::from(status(&reply) == Some("503"));
        }
        shed
    };
    let asking = async {
        let loud = async || (counted(&quiet, "shed").await > 0).then_some(());
        until(LIMIT, "the loud one is shed", loud).await;
        let mut served = 0;
        for _ in 0..20 {
            served += usize::from(status(&ask(&quiet, "cache.stats.quiet", &json!({})).await).is_none());
        }
        over.store(true, Ordering::Relaxed);
        served
    };
    let (served, shed) = tokio::join!(asking, join_all((0..16).map(one)));
    assert_eq!(served, 20);
    assert!(shed.iter().sum::<usize>() > 0);
}
