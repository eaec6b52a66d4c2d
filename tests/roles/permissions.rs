//! `nats.conf`, by trying: what a role needs it may do, and what would harm others is forbidden by the server itself.

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures::StreamExt;
use tandem::bus::streams::{self, DEAD, RESULT, SUBMIT, WORKERS, create_all};
use tandem::bus::{Provision, streams::provide};

use crate::server::{PASSWORDS, Server, User, binary, shipped};

const WAIT: Duration = Duration::from_secs(30);

/// With the streams, and something in each.
async fn server() -> Server {
    let server = Server::shipped().await;
    let admin = server.user("admin").await;
    create_all(&admin.client, &streams::Options::default(), WAIT).await.unwrap();
    let js = jetstream::new(admin.client);
    for subject in ["execution.submit", "execution.result.mine", "execution.result.acme.theirs", "execution.dead.x"] {
        js.publish(subject, "{}".into()).await.unwrap().await.unwrap();
    }
    server
}

/// Each of these the server forbids, and says so.
async fn denied_to_publish(user: &mut User, subjects: &[&str]) {
    for subject in subjects {
        user.client.publish(subject.to_string(), "{}".into()).await.unwrap();
    }
    let said = user.denials().await;
    for subject in subjects {
        let forbidden = format!("publish to \"{}\"", subject.to_lowercase());
        assert!(said.iter().any(|line| line.to_lowercase().contains(&forbidden)), "{subject} is allowed: {said:#?}");
    }
}

async fn denied_to_subscribe(user: &mut User, subjects: &[&str]) {
    let mut held = vec![];
    for subject in subjects {
        held.push(user.client.subscribe(subject.to_string()).await.unwrap());
        held.push(user.client.queue_subscribe(subject.to_string(), "tandem".into()).await.unwrap());
    }
    let said = user.denials().await;
    for subject in subjects {
        let forbidden = format!("subscription to \"{}\"", subject.to_lowercase());
        let times = said.iter().filter(|line| line.to_lowercase().contains(&forbidden)).count();
        assert_eq!(times, 2, "{subject} is allowed, alone or in a queue group: {said:#?}");
    }
}

async fn allowed(user: &mut User, publish: &[&str], subscribe: &[&str]) {
    let mut held = vec![];
    for subject in subscribe {
        held.push(user.client.subscribe(subject.to_string()).await.unwrap());
    }
    for subject in publish {
        user.client.publish(subject.to_string(), "{}".into()).await.unwrap();
    }
    assert_eq!(user.denials().await, Vec::<String>::new());
}

/// What makes, changes or empties a stream, or takes a message away.
fn administration() -> Vec<String> {
    let mut subjects = vec![];
    for name in [SUBMIT, RESULT, DEAD, "OBJ_TANDEM_ANSWERS", "OBJ_TANDEM_ANSWERS_acme", "OTHER"] {
        for verb in ["CREATE", "UPDATE", "DELETE", "PURGE", "RESTORE", "SNAPSHOT", "MSG.DELETE"] {
            subjects.push(format!("$JS.API.STREAM.{verb}.{name}"));
        }
        subjects.push(format!("$JS.API.CONSUMER.DELETE.{name}.{WORKERS}"));
        subjects.push(format!("$JS.API.CONSUMER.CREATE.{name}"));
        subjects.push(format!("$JS.API.CONSUMER.CREATE.{name}.mine.execution.>"));
        subjects.push(format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.mine"));
    }
    subjects.push("$SYS.REQ.SERVER.PING".to_owned());
    subjects
}

fn texts(subjects: &[String]) -> Vec<&str> {
    subjects.iter().map(String::as_str).collect()
}

#[test]
fn the_server_takes_the_file_as_it_is_and_with_tls_and_another_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = crate::server::Certificates::make();
    let with_tls = shipped()
        .replace("#tls {", "tls {")
        .replace("\n#  cert", "\n  cert")
        .replace("\n#  key", "\n  key")
        .replace("\n#  ca", "\n  ca")
        .replace("\n#  verify", "\n  verify")
        .replace("\n#}", "\n}")
        .replace("/etc/nats/cert.pem", &certificates.path("server.pem"))
        .replace("/etc/nats/key.pem", &certificates.path("server.key"))
        .replace("/etc/nats/ca.pem", &certificates.path("ca.pem"));
    assert!(with_tls.contains("\ntls {\n  cert_file") && with_tls.contains("\n  verify: true\n}"));
    for (name, text) in [("as-it-is", shipped()), ("acme", shipped().replace("#:", "")), ("tls", with_tls)] {
        let file = crate::server::file(folder.path(), name, &text);
        let check = |with: &[(&str, &str)]| {
            let mut command = Command::new(binary());
            let done = command.args(["-t", "-c", &file]).env_clear().envs(with.iter().copied()).output().unwrap();
            (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
        };
        let (good, said) = check(&PASSWORDS);
        assert!(good, "{name}: {said}");
        assert!(!check(&PASSWORDS[1..]).0, "{name}: a server without the admin's password must not start");
    }
}

#[tokio::test]
async fn a_worker_serves_but_can_not_make_change_or_empty_a_stream() {
    let server = server().await;
    let mut worker = server.user("worker").await;
    let before = state(&server).await;
    denied_to_publish(&mut worker, &texts(&administration())).await;
    denied_to_publish(&mut worker, &["execution.request", "execution.submit", "execution.submit.acme", "orders.new"])
        .await;
    // The answers to others are not for it.
    denied_to_subscribe(&mut worker, &["_INBOX.>", "_INBOX.client.>", "execution.result.>", "execution.>", ">"]).await;

    // By the library's own calls too: what comes back is silence, and nothing is gone.
    let js = {
        let mut js = jetstream::new(worker.client.clone());
        js.set_timeout(Duration::from_millis(300));
        js
    };
    assert!(js.delete_stream(SUBMIT).await.is_err());
    assert!(js.create_stream(stream::Config { name: "X".into(), ..Default::default() }).await.is_err());
    let submits = js.get_stream(SUBMIT).await.unwrap();
    assert!(submits.purge().await.is_err() && submits.delete_message(1).await.is_err());
    worker.denials().await;
    assert_eq!(state(&server).await, before);

    // What it needs.
    provide(&worker.client, Provision::Verify, &streams::Options::default(), WAIT).await.unwrap();
    let consumer: jetstream::consumer::PullConsumer = submits.get_consumer(WORKERS).await.unwrap();
    let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
    let submit = batch.next().await.unwrap().unwrap();
    let js = jetstream::new(worker.client.clone());
    js.publish("execution.result.acme.1", "{}".into()).await.unwrap().await.unwrap();
    js.publish("execution.dead.acme.1", "{}".into()).await.unwrap().await.unwrap();
    let results = js.get_stream(RESULT).await.unwrap();
    results.direct_get_last_for_subject("execution.result.acme.1").await.unwrap();
    submit.double_ack().await.unwrap();
    // Every endpoint that there is, with and without a tenant, and what else it listens on.
    let endpoints =
        tandem::bus::endpoints::TABLE.iter().flat_map(|e| [e.subject.to_owned(), format!("{}.*", e.subject)]);
    let more = ["tandem.sync.*", "$SRV.PING", "$SRV.INFO.tandem.x", "_INBOX.worker.1"].map(str::to_owned);
    let served: Vec<String> = endpoints.chain(more).collect();
    let said = [
        "_INBOX.client.1",
        "_INBOX.acme.1",
        "_INBOX.worker.1",
        "execution.progress.1",
        "execution.progress.acme.1",
        "tandem.sync.hello",
        "execution.health",
        // Looked at where a submit breaks the connection.
        "$JS.API.STREAM.MSG.GET.TANDEM_SUBMIT",
    ];
    allowed(&mut worker, &said, &texts(&served)).await;
}

#[tokio::test]
async fn a_client_asks_and_submits_as_its_own_tenant_and_reads_what_is_its_own() {
    let server = server().await;
    for (name, tenant) in [("client", ""), ("acme", ".acme")] {
        let mut client = server.user(name).await;
        let asked: Vec<String> = ["execution.request", "execution.stats", "execution.health", "execution.feedback"]
            .into_iter()
            .chain(["template.list", "cache.stats"])
            .map(|subject| format!("{subject}{tenant}"))
            .collect();
        let read = [
            format!("execution.progress{tenant}.*"),
            format!("execution.result{tenant}.*"),
            format!("_INBOX.{name}.1.*"),
        ];
        allowed(&mut client, &texts(&asked), &texts(&read)).await;
        allowed(&mut client, &["$SRV.PING", "$SRV.INFO.tandem"], &[]).await;

        // A submit is acknowledged, and its result comes by subscription.
        let mut results = client.client.subscribe(format!("execution.result{tenant}.*")).await.unwrap();
        let js = jetstream::new(client.client.clone());
        js.publish(format!("execution.submit{tenant}"), "{}".into()).await.unwrap().await.unwrap();
        let worker = jetstream::new(server.user("worker").await.client);
        let subject = format!("execution.result{tenant}.42");
        worker.publish(subject.clone(), format!("for {name}").into()).await.unwrap().await.unwrap();
        let got = tokio::time::timeout(Duration::from_secs(5), results.next()).await.unwrap().unwrap();
        assert_eq!((got.subject.as_str(), got.payload), (subject.as_str(), format!("for {name}").into()));
        assert_eq!(client.denials().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_client_can_not_answer_for_a_worker_or_look_at_others() {
    let server = server().await;
    let before = state(&server).await;
    let nobodys = [
        "execution.purge",
        "execution.purge.acme",
        "tandem.sync.cache",
        "tandem.sync.hello",
        "execution.result.mine",
        "execution.result.acme.theirs",
        "execution.progress.mine",
        "execution.dead.x",
        "execution.dead.acme.x",
        "_INBOX.client.1",
        "_INBOX.acme.1",
        "_INBOX.worker.1",
        "$SRV.STATS",
        "$SRV.STATS.tandem",
        "$JS.API.STREAM.INFO.TANDEM_RESULT",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.MSG.GET.TANDEM_RESULT",
        "$JS.API.STREAM.MSG.GET.TANDEM_SUBMIT",
        "$JS.API.DIRECT.GET.TANDEM_RESULT",
        "$JS.API.DIRECT.GET.TANDEM_DEAD.execution.dead.x",
        "$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result.>",
        "$JS.API.CONSUMER.MSG.NEXT.TANDEM_SUBMIT.tandem-workers",
        "$JS.ACK.TANDEM_SUBMIT.tandem-workers.1.1.1.1.1",
        "$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result.mine",
        "$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result.acme.mine",
        "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS",
        "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS_acme",
        "$O.TANDEM_ANSWERS.M.x",
        "$O.TANDEM_ANSWERS_acme.C.x",
        "$JS.API.STREAM.MSG.GET.OBJ_TANDEM_ANSWERS",
        "$JS.API.STREAM.MSG.GET.OBJ_TANDEM_ANSWERS_acme",
    ];
    let heard_by_nobody = [
        "execution.request",
        "execution.request.acme",
        "execution.>",
        "execution.submit",
        "execution.submit.*",
        "tandem.sync.*",
        "_INBOX.>",
        "_INBOX.worker.>",
        "$SRV.PING",
        "$SRV.>",
        ">",
        "execution.dead.>",
    ];
    for (name, others) in [
        (
            "client",
            vec![
                "execution.request.acme",
                "execution.submit.acme",
                "execution.feedback.acme",
                "cache.stats.acme",
                "$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result.acme.theirs",
                "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS_acme",
                "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS_acme.$O.TANDEM_ANSWERS_acme.M.x",
            ],
        ),
        (
            "acme",
            vec![
                "execution.request",
                "execution.submit",
                "execution.request.other",
                "execution.submit.other",
                "$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result.mine",
                "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS",
                "$JS.API.DIRECT.GET.OBJ_TANDEM_ANSWERS.$O.TANDEM_ANSWERS.M.x",
            ],
        ),
    ] {
        let mut client = server.user(name).await;
        denied_to_publish(&mut client, &nobodys).await;
        denied_to_publish(&mut client, &others).await;
        denied_to_publish(&mut client, &texts(&administration())).await;
        denied_to_subscribe(&mut client, &heard_by_nobody).await;
        let theirs = match name {
            "client" => ["execution.result.acme.*", "execution.progress.acme.*", "_INBOX.acme.>"],
            _ => ["execution.result.*", "execution.progress.*", "_INBOX.client.>"],
        };
        denied_to_subscribe(&mut client, &theirs).await;
    }
    assert_eq!(state(&server).await, before);
}

/// What would empty a stream, or make a message go before its time.
#[tokio::test]
async fn headers_that_order_the_server_about_are_refused() {
    let server = server().await;
    let before = state(&server).await;
    let client = server.user("client").await.client;
    for (name, value) in
        [("Nats-Rollup", "all"), ("Nats-Rollup", "sub"), ("Nats-TTL", "1s"), ("Nats-Schedule", "@every 1s")]
    {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(name, value);
        let said = client.request_with_headers("execution.submit", headers, "{}".into()).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.payload).unwrap();
        assert!(said["error"]["code"].is_number(), "{name}: {value}: {said}");
    }
    assert_eq!(state(&server).await, before);
}

/// What the server itself answers goes to whatever subject was named, and permissions do not look at that.
#[tokio::test]
async fn an_answer_of_the_server_orders_nothing_whatever_it_is_sent_to() {
    let mut harm = vec![];
    for (name, tenant) in [("client", ""), ("acme", ".acme")] {
        for order in [
            "$JS.API.STREAM.PURGE.TANDEM_RESULT",
            "$JS.API.STREAM.PURGE.TANDEM_DEAD",
            "$JS.API.STREAM.DELETE.TANDEM_RESULT",
            "$JS.API.STREAM.MSG.DELETE.TANDEM_RESULT",
            "$JS.API.CONSUMER.DELETE.TANDEM_SUBMIT.tandem-workers",
        ] {
            for asked in [
                format!("execution.submit{tenant}"),
                format!("$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result{tenant}.theirs"),
                format!("$JS.API.DIRECT.GET.TANDEM_RESULT.execution.result{tenant}.nothing"),
            ] {
                let server = server().await;
                let before = kept(&server).await;
                let user = server.user(name).await;
                user.client.publish_with_reply(asked.clone(), order, "{}".into()).await.unwrap();
                user.client.publish_with_reply(asked.clone(), order, "".into()).await.unwrap();
                user.client.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                if kept(&server).await != before {
                    harm.push(format!("{name}: {asked} answered to {order}"));
                }
            }
        }
    }
    assert_eq!(harm, Vec::<String>::new());
}

/// What is kept in the streams that nobody but workers publishes to, and whether the workers' consumer is there.
async fn kept(server: &Server) -> (Vec<(String, u64)>, bool) {
    let all = state(server).await.into_iter().filter(|(name, ..)| name != SUBMIT);
    let kept = all.map(|(name, messages, ..)| (name, messages)).collect();
    let js = jetstream::new(server.user("admin").await.client);
    (kept, js.get_stream(SUBMIT).await.unwrap().consumer_info(WORKERS).await.is_ok())
}

/// For the server `*` allows a `>` in its place. What comes by it must still be one's own.
#[tokio::test]
async fn a_wildcard_at_the_end_of_a_subscription_hears_no_other_tenant() {
    let server = server().await;
    let worker = server.user("worker").await.client;
    for (name, tenant, other) in [("client", "", ".acme"), ("acme", ".acme", "")] {
        for kind in ["result", "progress"] {
            let mut user = server.user(name).await;
            let subject = format!("execution.{kind}{tenant}.>");
            let mut alone = user.client.subscribe(subject.clone()).await.unwrap();
            let mut queued = user.client.queue_subscribe(subject, "mine".into()).await.unwrap();
            // Also the sign that the server knows them.
            assert_eq!(user.denials().await, Vec::<String>::new());
            for (of, body) in [(other, "theirs"), (tenant, "own")] {
                worker.publish(format!("execution.{kind}{of}.1"), body.into()).await.unwrap();
            }
            for heard in [&mut alone, &mut queued] {
                let first = tokio::time::timeout(Duration::from_secs(5), heard.next()).await.unwrap().unwrap();
                assert_eq!(
                    (first.payload, first.subject.as_str()),
                    ("own".into(), &*format!("execution.{kind}{tenant}.1"))
                );
            }
        }
    }
}

/// A subject that is published to may hold a `>`, which permissions take for a word and the server for a wildcard.
#[tokio::test]
async fn a_wildcard_in_a_name_reads_no_other_tenants_result() {
    let server = server().await;
    for (name, base) in [("client", "execution.result"), ("acme", "execution.result.acme")] {
        let client = server.user(name).await.client;
        for wildcard in [">", "*", "acme.>", "*.*"] {
            let subject = format!("$JS.API.DIRECT.GET.TANDEM_RESULT.{base}.{wildcard}");
            for body in ["", r#"{"seq":1}"#, r#"{"multi_last":["execution.result.>"],"batch":9}"#] {
                let asked = client.request(subject.clone(), body.into());
                let Ok(Ok(got)) = tokio::time::timeout(Duration::from_millis(300), asked).await else { continue };
                let of = got.headers.as_ref().and_then(|headers| headers.get("Nats-Subject")).map(|of| of.to_string());
                let own = |of: &String| match name {
                    "client" => of.split('.').count() == 3,
                    _ => of.starts_with("execution.result.acme."),
                };
                assert!(of.as_ref().is_none_or(own), "{name} read {of:?} by {subject} {body}");
            }
        }
    }
}

#[tokio::test]
async fn an_operator_handles_dead_letters_and_changes_no_stream() {
    let server = server().await;
    let before = state(&server).await;
    let mut operator = server.user("operator").await;
    let but_dead: Vec<String> =
        administration().into_iter().filter(|s| s != "$JS.API.STREAM.MSG.DELETE.TANDEM_DEAD").collect();
    denied_to_publish(&mut operator, &texts(&but_dead)).await;
    denied_to_publish(
        &mut operator,
        &[
            "tandem.sync.cache",
            "execution.result.x",
            "execution.result.acme.x",
            "execution.progress.x",
            "_INBOX.client.1",
        ],
    )
    .await;
    denied_to_subscribe(&mut operator, &["_INBOX.>", "execution.request", "tandem.sync.*"]).await;
    assert_eq!(state(&server).await, before);

    let js = jetstream::new(operator.client.clone());
    let dead = js.get_stream(DEAD).await.unwrap();
    let letter = dead.direct_get(1).await.unwrap();
    dead.get_raw_message(1).await.unwrap();
    js.publish("execution.submit.acme", letter.payload).await.unwrap().await.unwrap();
    assert!(dead.delete_message(1).await.unwrap());
    assert_eq!(operator.denials().await, Vec::<String>::new());
}

/// Names, configurations and messages of all streams.
async fn state(server: &Server) -> Vec<(String, u64, u64, String)> {
    let js = jetstream::new(server.user("admin").await.client);
    let mut all = vec![];
    let mut found = js.streams();
    while let Some(stream) = found.next().await {
        let stream = stream.unwrap();
        let (name, state) = (stream.config.name.clone(), stream.state);
        all.push((name, state.messages, state.last_sequence, format!("{:?}", stream.config)));
    }
    all.sort();
    all
}
