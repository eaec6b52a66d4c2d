//! What an answer came from, how long it is kept, and what a verdict on it reaches.

use serde_json::json;
use tandem::domain::record::Verdict;
use tandem::domain::{CorrelationId, Tenant, Timestamp};
use tandem::llm::Credentials;
use tandem::store::{Sequence, Store};

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, example, until, with};

#[tokio::test]
async fn what_one_worker_has_no_room_for_others_and_the_database_keep() {
    let nats = Nats::start().await;
    let place = Place::new();
    let mut small = place.config(&nats);
    small.cache.max_entries = 2;
    let small = place.worker_with(small, Credentials::default()).await;
    let asker = Asker::of(&nats).await;
    let events = ["user", "order", "billing", "audit", "login", "payment", "invoice", "session"];
    for event in events {
        let task = format!("Create a NATS consumer for processing {event} events");
        asker.request(&with(&example(), json!({ "task": task }))).await;
    }
    let large = place.worker(&nats).await;
    let held = |worker: &crate::worker::Running| worker.pipeline.cache_stats(&Tenant::default()).entries;
    until("the larger worker has them all", async || (held(&large) == events.len()).then_some(())).await;
    assert_eq!(held(&small), 2);
    small.stop().await;
    large.stop().await;

    let store = Store::open(&place.config(&nats).database).await.unwrap();
    let kept = store.changes_since(Sequence::default(), Timestamp::now(), 100).await.unwrap();
    assert_eq!((kept.put.len(), kept.withdrawn.len()), (events.len(), 0));
}

#[tokio::test]
async fn a_verdict_of_which_no_word_came_is_followed_all_the_same() {
    let nats = Nats::start().await;
    let place = Place::new();
    let _worker = place.worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let anew = with(&example(), json!({"cache": "off"}));
    let answer = asker.request(&anew).await;
    let id = CorrelationId::parse(answer["correlation_id"].as_str().unwrap()).unwrap();
    // Taken down by somebody whose words this worker does not hear.
    let elsewhere = Store::open(&place.config(&nats).database).await.unwrap();
    until("the verdict is down", async || {
        elsewhere.judge(&Tenant::default(), &id, Verdict::Wrong, None, Timestamp::now()).await.unwrap()
    })
    .await;
    until("the template is used no more", async || {
        (asker.request(&anew).await["template_used"] != answer["template_used"]).then_some(())
    })
    .await;
}
