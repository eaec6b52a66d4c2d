//! What workers tell each other.

use std::time::Duration;

use futures::StreamExt;
use tandem::bus::{Change, Confirmed, Heard, Instance, Options, Sync};
use tandem::domain::record::{EntryId, Sweep};
use tandem::domain::{Tag, TaskType, TemplateId, Tenant, Timestamp};
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
    let newer = [
        r#"{"from": "x", "wire": 1, "kind": "from_the_future", "a": 1}"#,
        r#"{"from": "x", "wire": 1, "kind": "removed", "ids": "all of them"}"#,
        r#"{"from": "x", "wire": 1}"#,
        // The same name, and who knows what it means there.
        r#"{"from": "x", "wire": 2, "kind": "committed"}"#,
        r#"{"from": "x", "wire": 2, "kind": "removed", "ids": []}"#,
    ];
    for body in newer {
        let inbox = client.new_inbox();
        client.publish_with_reply("tandem.sync.cache", inbox, body.into()).await.unwrap();
        let word = next(&mut heard).await;
        assert_eq!(word.change, Change::Resync, "{body}");
        assert!(word.confirm.is_none(), "what was not understood is not confirmed: {body}");
    }
    assert!(heard.try_recv().is_err());
}

/// Signs of life are of every version, and one more field is nobody's harm.
#[tokio::test]
async fn a_worker_of_a_newer_version_counts_as_one() {
    let nats = Nats::start().await;
    let (a, mut heard, _) = member(&nats, &nats.options()).await;
    let client = nats.client().await;
    let tell = async |body: &'static str| client.publish("tandem.sync.hello", body.into()).await.unwrap();
    tell(r#"{"from": "newer", "wire": 9, "kind": "alive", "load": 0.5}"#).await;
    until_live(&a, 1).await;
    tell(r#"{"from": "newer", "wire": 1, "kind": "committed", "rows": 7}"#).await;
    assert_eq!(next(&mut heard).await.change, Change::Committed);
    tell(r#"{"from": "newer", "wire": 9, "kind": "bye", "load": 0.5}"#).await;
    until_live(&a, 0).await;
    assert!(heard.try_recv().is_err(), "no sign of life asks for a look");
}

/// Byte by byte: a running worker of today's version must understand tomorrow's. Change a line here only together with
/// `bus::WIRE`, as docs/upgrading.md says.
#[tokio::test]
async fn the_words_of_this_version_are_written_so() {
    let nats = Nats::start().await;
    let mut all = nats.client().await.subscribe("tandem.sync.>").await.unwrap();
    // Known to the server before anybody speaks.
    let probe = nats.client().await;
    while let Err(_late) = tokio::time::timeout(Duration::from_millis(50), all.next()).await {
        probe.publish("tandem.sync.probe", "".into()).await.unwrap();
    }
    let (a, _heard, name) = member(&nats, &nats.options()).await;
    a.publish(&Change::Committed).await.unwrap();
    a.publish(&Change::Removed(vec![entry(1), entry(0xabc)])).await.unwrap();
    a.publish(&Change::Blocks).await.unwrap();
    a.publish(&Change::Workflows).await.unwrap();
    let (tenant, until) = (Tenant::parse("acme").unwrap(), Timestamp(1_700_000_000_000));
    a.publish(&Change::Purged { tenant: tenant.clone(), until }).await.unwrap();
    let (template, tag) = (TemplateId::parse("rust-testing").unwrap(), Tag::parse("billing").unwrap());
    let what = Sweep { task_type: Some(TaskType::Testing), template: Some(template), tag: Some(tag) };
    a.publish(&Change::Swept { tenant, until, what }).await.unwrap();
    // Nobody needs to confirm, and the word is the same.
    a.withdraw(&[entry(2)]).await.unwrap();
    let mut said = vec![];
    loop {
        let message = tokio::time::timeout(Duration::from_secs(5), all.next()).await.unwrap().unwrap();
        let body = std::str::from_utf8(&message.payload).unwrap().replace(name.as_str(), "A");
        let line = format!("{} {body}{}", message.subject, if message.reply.is_some() { " ?" } else { "" });
        // Signs of life come when they come, and again.
        if said.contains(&line) || line.starts_with("tandem.sync.probe") {
            continue;
        }
        said.push(line);
        if said.last().is_some_and(|line| line.contains("bye")) {
            break;
        }
        if said.len() == 9 {
            a.stop().await;
        }
    }
    said.sort();
    let written = [
        r#"tandem.sync.blocks {"from":"A","wire":1,"kind":"blocks"}"#,
        r#"tandem.sync.cache {"from":"A","wire":1,"kind":"removed","ids":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000abc"]}"#,
        r#"tandem.sync.cache {"from":"A","wire":1,"kind":"removed","ids":["00000000-0000-0000-0000-000000000002"]} ?"#,
        r#"tandem.sync.committed {"from":"A","wire":1,"kind":"committed"}"#,
        r#"tandem.sync.hello {"from":"A","wire":1,"kind":"alive"}"#,
        r#"tandem.sync.hello {"from":"A","wire":1,"kind":"bye"}"#,
        r#"tandem.sync.hello {"from":"A","wire":1,"kind":"hello"}"#,
        r#"tandem.sync.purged {"from":"A","wire":1,"kind":"purged","tenant":"acme","until_ms":1700000000000}"#,
        r#"tandem.sync.swept {"from":"A","wire":1,"kind":"swept","tenant":"acme","until_ms":1700000000000,"task_type":"testing","template":"rust-testing","tag":"billing"}"#,
        r#"tandem.sync.workflows {"from":"A","wire":1,"kind":"workflows"}"#,
    ];
    assert_eq!(said, written);
}

/// As the first version wrote them, which did not yet say `wire`.
#[tokio::test]
async fn the_words_of_the_first_version_are_understood() {
    let nats = Nats::start().await;
    let (a, mut heard, name) = member(&nats, &nats.options()).await;
    let client = nats.client().await;
    let tell = async |subject: &'static str, body: &'static str| client.publish(subject, body.into()).await.unwrap();
    tell("tandem.sync.hello", r#"{"from":"old","kind":"hello"}"#).await;
    until_live(&a, 1).await;
    tell("tandem.sync.committed", r#"{"from":"old","kind":"committed"}"#).await;
    assert_eq!(next(&mut heard).await.change, Change::Committed);
    tell("tandem.sync.blocks", r#"{"from":"old","kind":"blocks"}"#).await;
    assert_eq!(next(&mut heard).await.change, Change::Blocks);
    let inbox = client.new_inbox();
    let mut confirmed = client.subscribe(inbox.clone()).await.unwrap();
    let body = r#"{"from":"old","kind":"removed","ids":["00000000-0000-0000-0000-000000000001"]}"#;
    client.publish_with_reply("tandem.sync.cache", inbox, body.into()).await.unwrap();
    let word = next(&mut heard).await;
    assert_eq!(word.change, Change::Removed(vec![entry(1)]));
    word.confirm.unwrap().send().await;
    let confirmed = tokio::time::timeout(Duration::from_secs(5), confirmed.next()).await.unwrap().unwrap();
    assert_eq!(confirmed.payload, name.as_str(), "a confirmation is the worker's name and nothing else");
    tell("tandem.sync.hello", r#"{"from":"old","kind":"bye"}"#).await;
    until_live(&a, 0).await;
}
