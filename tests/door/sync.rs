//! What workers tell each other.

use std::time::Duration;

use tandem::bus::{Change, Confirmed, Heard, Instance, Options, Sync};
use tandem::domain::record::EntryId;
use tokio::sync::mpsc::Receiver;

use crate::nats::Nats;

fn entry(n: u128) -> EntryId {
    EntryId(uuid::Uuid::from_u128(n))
}

async fn member(nats: &Nats, options: &Options) -> (Sync, Receiver<Heard>, Instance) {
    let instance = Instance::generate();
    let (sync, heard) = Sync::open(&nats.connection().await, instance.clone(), options).await.unwrap();
    (sync, heard, instance)
}

/// Presence is told by messages, so it takes a moment; without it this never ends, and the test's own limit speaks.
async fn until_live(sync: &Sync, others: usize) {
    while sync.live().len() != others {
        tokio::task::yield_now().await;
    }
}

async fn next(heard: &mut Receiver<Heard>) -> Heard {
    tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_change_reaches_the_others_and_not_oneself() {
    let nats = Nats::start().await;
    let (a, mut heard_a, _) = member(&nats, &nats.options()).await;
    let (b, mut heard_b, _) = member(&nats, &nats.options()).await;
    until_live(&a, 1).await;
    until_live(&b, 1).await;
    for change in [Change::Committed, Change::Removed(vec![entry(1), entry(2)]), Change::Blocks] {
        a.publish(&change).await.unwrap();
        assert_eq!(next(&mut heard_b).await.change, change);
    }
    b.publish(&Change::Committed).await.unwrap();
    // The first that `a` hears is of `b`: its own were passed over.
    assert_eq!(next(&mut heard_a).await.change, Change::Committed);
    assert!(heard_a.try_recv().is_err());
}

#[tokio::test]
async fn a_withdrawal_waits_for_those_who_live_and_names_who_was_silent() {
    let nats = Nats::start().await;
    let options = Options { confirm_timeout_ms: 5_000, ..nats.options() };
    let (a, _heard_a, _) = member(&nats, &options).await;
    assert_eq!(a.withdraw(&[entry(1)]).await.unwrap(), Confirmed { by: [].into(), missing: [].into() });

    let (b, mut heard_b, name_b) = member(&nats, &options).await;
    until_live(&a, 1).await;
    let confirming = tokio::spawn(async move {
        let heard = next(&mut heard_b).await;
        assert_eq!(heard.change, Change::Removed(vec![entry(1)]));
        heard.confirm.unwrap().send().await;
        heard_b
    });
    let done = a.withdraw(&[entry(1)]).await.unwrap();
    assert_eq!(done, Confirmed { by: [name_b.clone()].into(), missing: [].into() });

    let mut heard_b = confirming.await.unwrap();
    let impatient = Options { confirm_timeout_ms: 50, ..nats.options() };
    let (c, _heard_c, _) = member(&nats, &impatient).await;
    until_live(&b, 2).await;
    until_live(&c, 2).await;
    a.stop().await;
    until_live(&c, 1).await;
    let done = c.withdraw(&[entry(2)]).await.unwrap();
    assert_eq!(done, Confirmed { by: [].into(), missing: [name_b].into() }, "b heard it but did not confirm");
    assert!(next(&mut heard_b).await.confirm.is_some());
}

#[tokio::test]
async fn after_a_reconnect_everything_is_compared_with_the_database() {
    let nats = Nats::start().await;
    let (_a, mut heard, _) = member(&nats, &nats.options()).await;
    let nats = nats.restart().await;
    assert_eq!(next(&mut heard).await.change, Change::Resync);
    let (b, _heard_b, _) = member(&nats, &nats.options()).await;
    b.publish(&Change::Committed).await.unwrap();
    assert_eq!(next(&mut heard).await.change, Change::Committed);
}

#[tokio::test]
async fn strange_words_do_no_harm_and_newer_ones_ask_for_a_look() {
    let nats = Nats::start().await;
    let (_a, mut heard, _) = member(&nats, &nats.options()).await;
    let client = nats.client().await;
    for body in ["", "nope", "{}", r#"{"from": 1, "kind": "committed"}"#] {
        client.publish("tandem.sync.cache", body.into()).await.unwrap();
    }
    client.publish("tandem.sync.cache", r#"{"from": "x", "kind": "from_the_future", "a": 1}"#.into()).await.unwrap();
    assert_eq!(next(&mut heard).await.change, Change::Resync);
    assert!(heard.try_recv().is_err());
}
