//! `execution.purge` and `tandem purge`.

use serde_json::{Value, json};
use tandem::domain::Tenant;

use crate::nats::{Nats, header};
use crate::process::{output, tandem};
use crate::worker::{Place, Running};
use crate::{ask, example, until};

fn acme() -> Tenant {
    Tenant::parse("acme").unwrap()
}

fn held(worker: &Running, tenant: &Tenant) -> usize {
    worker.pipeline.cache().stats(tenant).entries
}

/// What the tables hold that this text is in.
async fn texts(place: &Place, text: &str) -> i64 {
    let pool = sqlx::SqlitePool::connect(&place.database()).await.unwrap();
    let like = format!("%{text}%");
    let sql =
        "SELECT (SELECT COUNT(*) FROM cache_entries WHERE CAST(task AS TEXT) LIKE $1 OR CAST(answer AS TEXT) LIKE $1)
             + (SELECT COUNT(*) FROM claims WHERE CAST(reply AS TEXT) LIKE $1)
             + (SELECT COUNT(*) FROM feedback WHERE CAST(comment AS TEXT) LIKE $1)";
    let (found,): (i64,) = sqlx::query_as(sql).bind(like).fetch_one(&pool).await.unwrap();
    pool.close().await;
    found
}

#[tokio::test]
async fn a_purge_takes_a_tenants_all_from_the_database_and_from_every_workers_memory() {
    let (nats, place) = (Nats::start().await, Place::new());
    let (one, two) = (place.worker(&nats).await, place.worker(&nats).await);
    let client = nats.client().await;
    let task = "Create a NATS consumer for processing canary-zebra events";
    let body = |id: &str| json!({"task": task, "language": "elixir", "id": id});
    let answer = ask(&client, "execution.request.acme", &body("order-1")).await;
    ask(&client, "execution.request.acme", &example()).await;
    let verdict =
        json!({"correlation_id": answer["correlation_id"], "verdict": "wrong", "comment": "canary-zebra again"});
    ask(&client, "execution.feedback.acme", &verdict).await;
    ask(&client, "execution.request.acme", &json!({"task": task, "language": "rust", "id": "order-2"})).await;
    ask(&client, "execution.request", &example()).await;
    until("both workers hold what was made", async || {
        let all = [&one, &two].iter().all(|w| held(w, &acme()) >= 2 && held(w, &Tenant::default()) >= 1);
        all.then_some(())
    })
    .await;
    assert!(texts(&place, "canary-zebra").await >= 3);

    let dry = ask(&client, "execution.purge.acme", &json!({"dry_run": true})).await;
    assert_eq!(
        (&dry["dry_run"], &dry["rows"]["feedback"], &dry["rows"]["blocks"]),
        (&json!(true), &json!(1), &json!(1)),
        "{dry}"
    );
    assert!(held(&one, &acme()) >= 2, "a dry run deletes nothing");

    let purged = ask(&client, "execution.purge.acme", &json!({"confirm": "acme"})).await;
    // At once, on whichever worker: the reply says that it is so.
    assert_eq!([held(&one, &acme()), held(&two, &acme())], [0, 0], "{purged}");
    assert_eq!((&purged["complete"], &purged["unconfirmed_workers"]), (&json!(true), &json!(0)), "{purged}");
    assert_eq!(purged["rows"], dry["rows"], "what was said before is what was done");
    assert!(purged["rows"]["replies"].as_u64().unwrap() >= 1, "{purged}");
    assert_eq!(texts(&place, "canary-zebra").await, 0);
    let stats = ask(&client, "execution.stats.acme", &json!({})).await;
    assert_eq!(stats["total_executions"], 0, "{stats}");
    assert!(held(&one, &Tenant::default()) >= 1, "another tenant's stay");
    assert_eq!(ask(&client, "execution.stats", &json!({})).await["total_executions"], 1);
    let again = ask(&client, "execution.request.acme", &example()).await;
    assert_eq!(again["method"], "autonomous", "nothing of it is known any more, nor blocked: {again}");

    // A worker that starts now finds nothing either; and the words that follow bring nothing back.
    let three = place.worker(&nats).await;
    assert_eq!(held(&three, &Tenant::default()), held(&one, &Tenant::default()));
    assert!(held(&three, &acme()) <= 1, "only what was made since");
    for worker in [one, two, three] {
        worker.stop().await;
    }
}

#[tokio::test]
async fn what_is_newer_than_the_age_stays() {
    let (nats, place) = (Nats::start().await, Place::new());
    let worker = place.worker(&nats).await;
    let client = nats.client().await;
    ask(&client, "execution.request.acme", &example()).await;
    let purged = ask(&client, "execution.purge.acme", &json!({"confirm": "acme", "older_than_s": 3600})).await;
    let none = purged["rows"].as_object().unwrap().values().all(|rows| rows == 0);
    assert!(none, "{purged}");
    assert_eq!(held(&worker, &acme()), 1);
    assert_eq!(ask(&client, "execution.stats.acme", &json!({})).await["total_executions"], 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_purge_must_name_the_tenant_of_its_subject() {
    let (nats, place) = (Nats::start().await, Place::new());
    let worker = place.worker(&nats).await;
    let client = nats.client().await;
    ask(&client, "execution.request.acme", &example()).await;
    for (subject, body, field) in [
        ("execution.purge.acme", json!({}), "confirm"),
        ("execution.purge.acme", json!({"confirm": "other"}), "confirm"),
        ("execution.purge", json!({"confirm": "acme"}), "confirm"),
        ("execution.purge.acme", json!({"confirm": "acme", "tenant": "other"}), "tenant"),
    ] {
        let message = client.request(subject, body.to_string().into()).await.unwrap();
        let said: Value = crate::nats::json(&message);
        assert_eq!(
            (header(&message, "Nats-Service-Error-Code"), said["field"].as_str()),
            (Some("400"), Some(field)),
            "{said}"
        );
    }
    assert_eq!(held(&worker, &acme()), 1);
    worker.stop().await;
}

#[tokio::test]
async fn the_command_asks_first_and_prints_what_went() {
    let (nats, place) = (Nats::start().await, Place::new());
    let worker = place.worker(&nats).await;
    let client = nats.client().await;
    ask(&client, "execution.request.acme", &example()).await;
    let run = async |arguments: &[&str]| {
        let all = [&["purge", "--tenant", "acme"], arguments].concat();
        let output = output(tandem(place.path(), &[("NATS_URL", nats.server.url())], &all)).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, error) = run(&[]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--yes"), "{error}");
    let (code, printed, _) = run(&["--dry-run"]).await;
    assert!(code == Some(0) && printed.starts_with("would be deleted"), "{printed}");
    assert_eq!(held(&worker, &acme()), 1, "neither has deleted anything");
    let (code, printed, error) = run(&["--older-than", "30d", "--yes", "--json"]).await;
    assert_eq!(code, Some(0), "{error}");
    let said: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&said["tenant"], &said["rows"]["executions"]), (&json!("acme"), &json!(0)));
    let (code, printed, _) = run(&["--yes"]).await;
    assert!(code == Some(0) && printed.contains("executions     1"), "{printed}");
    assert_eq!(held(&worker, &acme()), 0);
    worker.stop().await;
}
