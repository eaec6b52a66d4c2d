//! A user's verdict changes what is served next, on every worker, for that tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tandem::domain::{TemplateId, Tenant, Timestamp};

use crate::nats::Nats;
use crate::worker::{Place, Running};
use crate::{Asker, declined, example, until, with};

fn entries(worker: &Running) -> usize {
    worker.pipeline.cache_stats(&Tenant::default()).entries
}

/// What a worker knows of the example's template: uses and success.
fn edge(worker: &Running) -> Option<(u64, f64)> {
    let id = TemplateId::parse("elixir-nats-consumer").unwrap();
    let detail = worker.pipeline.template(&id, Timestamp::now()).unwrap();
    detail.edges.first().map(|edge| (edge.uses, edge.success_rate))
}

#[tokio::test]
async fn a_wrong_answer_is_gone_from_every_worker_when_the_verdict_is_acknowledged() {
    let nats = Nats::start().await;
    let place = Place::new();
    let workers = [place.worker(&nats).await, place.worker(&nats).await];
    let asker = Asker::of(&nats).await;
    let wrong = asker.request(&example()).await;
    let acme = asker.ask("execution.request.acme", &example()).await;
    until("both workers have the answer", async || workers.iter().all(|w| entries(w) == 1).then_some(())).await;
    until("both workers know the use", async || {
        workers.iter().all(|w| edge(w).is_some_and(|e| e.0 == 2)).then_some(())
    })
    .await;

    let judged = asker.judge("execution.feedback", &wrong, "wrong").await;
    assert_eq!(workers.each_ref().map(entries), [0, 0], "the answer is still in a worker's memory");
    assert_eq!((&judged["changed"], &judged["withdrawn"]), (&json!(true), &json!(1)), "{judged}");
    assert_eq!(judged["blocked"], json!(["elixir-nats-consumer"]));

    // Neither from the cache nor by the same template, whoever is asked.
    for _ in 0..20 {
        let answer = asker.request(&example()).await;
        assert_eq!(answer["metrics"]["cache_hit"], false, "{answer}");
        assert_ne!(answer["template_used"], "elixir-nats-consumer", "{answer}");
    }
    // Another task, and another tenant's same task, still get it; what the other tenant has cached stays.
    let other = with(&example(), json!({"task": "Create a NATS consumer for processing order events", "cache": "off"}));
    assert_eq!(asker.request(&other).await["template_used"], "elixir-nats-consumer");
    let cached = asker.ask("execution.request.acme", &example()).await;
    assert_eq!(cached["cache"]["origin"], acme["correlation_id"], "{cached}");
    let anew = asker.ask("execution.request.acme", &with(&example(), json!({"cache": "off"}))).await;
    assert_eq!(anew["template_used"], "elixir-nats-consumer");

    let again = asker.judge("execution.feedback", &wrong, "wrong").await;
    assert_eq!(again["changed"], false, "the same verdict again: {again}");
}

#[tokio::test]
async fn a_verdict_moves_the_template_s_score_on_every_worker() {
    let nats = Nats::start().await;
    let place = Place::new();
    let workers = [place.worker(&nats).await, place.worker(&nats).await];
    let asker = Asker::of(&nats).await;
    let answer = asker.request(&example()).await;
    until("both workers know the use", async || workers.iter().all(|w| edge(w) == Some((1, 1.0))).then_some(())).await;
    let score = async || {
        asker.ask("template.show", &json!({"id": "elixir-nats-consumer"})).await["edges"][0]["score"].as_f64().unwrap()
    };
    let before = score().await;

    asker.judge("execution.feedback", &answer, "wrong").await;
    let moved = |to: f64| {
        let workers = &workers;
        async move || {
            workers.iter().all(|w| edge(w).is_some_and(|(n, s)| n == 1 && (s - to).abs() < 1e-9)).then_some(())
        }
    };
    until("both workers see 0.7", moved(0.7)).await;
    assert!(score().await < before, "{} is not below {before}", score().await);

    // A verdict may be taken back: the block goes, the answer stays withdrawn.
    let judged = asker.judge("execution.feedback", &answer, "good").await;
    assert_eq!((&judged["changed"], &judged["blocked"]), (&json!(true), &json!([])), "{judged}");
    assert_eq!(edge(&workers[0]), Some((1, 0.7)), "the first verdict is the one that counts");
    let served = async || {
        let mut all = true;
        for _ in 0..8 {
            let answer = asker.request(&with(&example(), json!({"cache": "off"}))).await;
            all &= answer["template_used"] == "elixir-nats-consumer";
        }
        all.then_some(())
    };
    until("the template serves again", served).await;
}

#[tokio::test]
async fn a_verdict_given_at_once_is_taken_by_whichever_worker_gets_it() {
    let nats = Nats::start().await;
    let place = Place::new();
    let _workers = [place.worker(&nats).await, place.worker(&nats).await, place.worker(&nats).await];
    let asker = Asker::of(&nats).await;
    for i in 0..12 {
        let task = format!("Create a NATS consumer for processing {} events", ["user", "order", "billing"][i % 3]);
        let answer = asker.request(&with(&example(), json!({"task": task, "cache": "refresh"}))).await;
        let judged = asker.judge("execution.feedback", &answer, "wrong").await;
        assert_eq!(judged["withdrawn"], 1, "the {i}th: {judged}");
        let next = asker.request(&with(&example(), json!({ "task": task }))).await;
        assert_eq!(next["metrics"]["cache_hit"], false, "the {i}th: {next}");
        asker.judge("execution.feedback", &answer, "good").await;
    }
}

#[tokio::test]
async fn what_was_found_wrong_for_a_task_is_not_served_for_it_in_another_complexity_either() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let simple = with(&example(), json!({"complexity": "simple"}));
    asker.request(&simple).await;
    let wrong = asker.request(&example()).await;
    assert_eq!(wrong["template_used"], "elixir-nats-consumer");
    asker.judge("execution.feedback", &wrong, "wrong").await;
    let answer = asker.request(&simple).await;
    assert_ne!(answer["template_used"], "elixir-nats-consumer", "{answer}");

    // The same of a compound goal: the whole is withdrawn, and each of its parts is made otherwise.
    let goal = json!({"task": "REST endpoint for orders and a consumer for order events", "language": "rust"});
    let compound = asker.request(&goal).await;
    assert_eq!(compound["metrics"]["success"], true, "{compound}");
    let judged = asker.judge("execution.feedback", &compound, "wrong").await;
    assert_eq!((&judged["withdrawn"], judged["blocked"].as_array().unwrap().len()), (&json!(1), 2), "{judged}");
    let again = asker.request(&with(&goal, json!({"complexity": "simple"}))).await;
    let old: Vec<_> = compound["parts"].as_array().unwrap().iter().map(|p| &p["template_used"]).collect();
    for part in again["parts"].as_array().unwrap() {
        assert!(part["template_used"].is_null() || !old.contains(&&part["template_used"]), "{part}");
    }
}

#[tokio::test]
async fn only_an_answer_s_own_tenant_may_judge_it() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let answer = asker.ask("execution.request.acme", &example()).await;
    let verdict = json!({"correlation_id": answer["correlation_id"], "verdict": "wrong"});
    for subject in ["execution.feedback", "execution.feedback.other"] {
        let (status, error) = asker.refused(subject, &verdict).await;
        assert_eq!((status.as_str(), &error["field"]), ("404", &json!("correlation_id")), "{subject}: {error}");
    }
    let made_up = json!({"correlation_id": "exec_0190a1b2c3d4", "verdict": "good"});
    assert_eq!(asker.refused("execution.feedback.acme", &made_up).await.0, "404");
    assert_eq!(asker.ask("execution.request.acme", &example()).await["metrics"]["cache_hit"], true, "untouched");
    assert_eq!(asker.ask("execution.feedback.acme", &verdict).await["withdrawn"], 1);
}

#[tokio::test]
async fn what_a_hit_was_served_from_and_a_fallback_can_be_judged_too() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    asker.request(&example()).await;
    let hit = asker.request(&example()).await;
    assert_eq!(hit["metrics"]["cache_hit"], true);
    let judged: Value = asker.judge("execution.feedback", &hit, "wrong").await;
    assert_eq!((&judged["withdrawn"], &judged["blocked"]), (&json!(1), &json!(["elixir-nats-consumer"])), "{judged}");
    assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], false);

    let fallback = asker.request(&declined()).await;
    let judged = asker.judge("execution.feedback", &fallback, "wrong").await;
    assert_eq!((&judged["withdrawn"], &judged["blocked"]), (&json!(0), &json!([])), "{judged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_busy_a_worker_is_what_was_found_wrong_a_moment_after_it_was_stored_never_comes_back() {
    let nats = Nats::start().await;
    let place = Place::new();
    let worker = place.worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let (asker, stop, done) = (asker.clone(), stop.clone(), done.clone());
            let body = with(&example(), json!({"language": "rust", "cache": "refresh"}));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    asker.request(&body).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("the worker is busy", async || (done.load(Ordering::Relaxed) > 300).then_some(())).await;
    for i in 0..6 {
        let answer = asker.request(&with(&example(), json!({"cache": "refresh"}))).await;
        assert_eq!(answer["template_used"], "elixir-nats-consumer", "{answer}");
        let judged = asker.judge("execution.feedback", &answer, "wrong").await;
        assert_eq!(judged["withdrawn"], 1, "the {i}th: {judged}");
        assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], false, "the {i}th");
        // Takes the block back, so that the template serves the next round.
        asker.judge("execution.feedback", &answer, "good").await;
    }
    stop.store(true, Ordering::Relaxed);
    for busy in busy {
        busy.await.unwrap();
    }
    worker.stop().await;
    let _again = place.worker(&nats).await;
    assert_eq!(asker.request(&example()).await["metrics"]["cache_hit"], false, "it came back with a restart");
}
