//! Bad input, each answered with what is wrong.

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::nats::{Nats, header, json as read};
use crate::{TASK, worker};

/// Body, status, code, field, and words that the message must have.
type Case = (Vec<u8>, &'static str, &'static str, Option<&'static str>, &'static str);

fn cases() -> Vec<Case> {
    let task = |value: Value| json!({ "task": value }).to_string().into_bytes();
    let with = |name: &str, value: Value| json!({"task": "x", name: value}).to_string().into_bytes();
    vec![
        (b"{nope".to_vec(), "400", "invalid_json", None, "line 1 column 2"),
        (b"{\"task\": \"\xc3\x28\"}".to_vec(), "400", "invalid_json", None, "not UTF-8: byte 10"),
        ("[".repeat(100_000).into_bytes(), "400", "invalid_json", None, "recursion limit"),
        ("{\"task\":".repeat(100_000).into_bytes(), "400", "invalid_json", None, "recursion limit"),
        (b"".to_vec(), "400", "invalid_json", None, "empty"),
        (b"[\"x\"]".to_vec(), "400", "invalid_json", None, "a list"),
        (task(json!("x".repeat(1_000_000))), "413", "too_large", Some("task"), "1000000 bytes"),
        (task(json!("x".repeat(2_000_000))), "413", "too_large", None, "2000011 bytes"),
        (b"{}".to_vec(), "400", "missing_field", Some("task"), "missing"),
        (task(json!("")), "400", "invalid_field", Some("task"), "blank"),
        (task(json!(" \n ")), "400", "invalid_field", Some("task"), "blank"),
        (task(json!(["x"])), "400", "invalid_field", Some("task"), "not a list"),
        (task(json!("a\0b")), "400", "invalid_field", Some("task"), "U+0000 (NUL)"),
        (task(json!("a\u{7}b")), "400", "invalid_field", Some("task"), "character 2"),
        (with("language", json!(1)), "400", "invalid_field", Some("language"), "a string"),
        (with("complexity", json!({})), "400", "invalid_field", Some("complexity"), "a string"),
        (with("context", json!([])), "400", "invalid_field", Some("context"), "an object"),
        (with("context", json!({"target_file": 1})), "400", "invalid_field", Some("context.target_file"), "a string"),
        (
            with("context", json!({"messages": [{"role": "user"}]})),
            "400",
            "missing_field",
            Some("context.messages[0].content"),
            "missing",
        ),
        (
            with("acceptance_criteria", json!(["a", "b", 3])),
            "400",
            "invalid_field",
            Some("acceptance_criteria[2]"),
            "a string",
        ),
        (with("cache", json!("sometimes")), "400", "invalid_field", Some("cache"), "use, refresh or off"),
        (with("max_cost_usd", json!(-0.5)), "400", "invalid_field", Some("max_cost_usd"), "zero or more"),
        (with("timeout_ms", json!(0)), "400", "invalid_field", Some("timeout_ms"), "1 or more"),
        (with("id", json!("../x")), "400", "invalid_field", Some("id"), "1 to 64"),
    ]
}

#[tokio::test]
async fn each_bad_input_gets_its_code_field_and_mend() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    for (body, status, code, field, says) in cases() {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let reply = client.request("execution.request", body.into()).await.unwrap();
        let error = read(&reply);
        assert_eq!(error["error"], code, "{start}: {error}");
        assert_eq!(error["field"].as_str(), field, "{start}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{start}: {message:?} does not say {says:?}");
        assert_eq!(error["metrics"], json!({"success": false}), "{start}");
        assert_eq!(header(&reply, "Nats-Service-Error-Code"), Some(status), "{start}");
        assert!(header(&reply, "Nats-Service-Error").is_some_and(|text| message.starts_with(text)), "{start}");
        assert_eq!(header(&reply, "Correlation-Id"), error["correlation_id"].as_str(), "{start}");
    }
    let reply = client.request("execution.request", TASK.into()).await.unwrap();
    assert_eq!(read(&reply)["metrics"]["success"], true);
}

#[tokio::test]
async fn what_is_read_otherwise_than_written_is_served_and_said() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    let body = json!({"task": "a test", "language": "pyhton", "complexity": "enormous", "lanugage": "x"});
    let reply = read(&client.request("execution.request", body.to_string().into()).await.unwrap());
    assert_eq!(reply["language"], "python", "{reply}");
    let notes = reply["notes"].to_string();
    for said in ["pyhton", "enormous", "lanugage"] {
        assert!(notes.contains(said), "{said} is not in {notes}");
    }
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_conflict_in_its_tenant_only() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    let ask = async |subject: &'static str, events: &str| {
        let task = format!("Create a NATS consumer for processing {events} events");
        let body = json!({"task": task, "id": "order-17", "language": "rust"}).to_string();
        client.request(subject, body.into()).await.unwrap()
    };
    assert_eq!(header(&ask("execution.request", "user").await, "Nats-Service-Error-Code"), None);
    assert_eq!(header(&ask("execution.request", "user").await, "Nats-Service-Error-Code"), None);
    let conflict = ask("execution.request", "order").await;
    assert_eq!(header(&conflict, "Nats-Service-Error-Code"), Some("409"));
    assert_eq!((&read(&conflict)["error"], &read(&conflict)["field"]), (&json!("id_conflict"), &json!("id")));
    assert_eq!(header(&ask("execution.request.acme", "order").await, "Nats-Service-Error-Code"), None);
}

#[tokio::test]
async fn a_tenant_that_is_no_name_is_refused() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    let reply = client.request("execution.request.t%C3%A9", r#"{"task": "x"}"#.into()).await.unwrap();
    assert_eq!(read(&reply)["field"], "tenant");
    let none = client.request("execution.request.a.b", r#"{"task": "x"}"#.into()).await.unwrap_err();
    assert_eq!(none.kind(), async_nats::RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn a_request_carries_its_trace_and_comes_back_under_one_id() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", trace);
    let ask = async || client.request_with_headers("execution.request", headers.clone(), TASK.into()).await.unwrap();
    let (first, second) = (ask().await, ask().await);
    assert_eq!(header(&first, "traceparent"), Some(trace));
    assert_eq!(header(&first, "Correlation-Id"), read(&first)["correlation_id"].as_str());
    assert_ne!(read(&first)["correlation_id"], read(&second)["correlation_id"]);
    assert_eq!(
        (&read(&first)["metrics"]["cache_hit"], &read(&second)["metrics"]["cache_hit"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(read(&second)["cache"]["tier"], "exact");
}

#[tokio::test]
async fn a_request_past_its_deadline_is_not_begun() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    for (deadline, status) in [("1000", "408"), ("soon", "400")] {
        let mut headers = HeaderMap::new();
        headers.insert("Execution-Deadline", deadline);
        let reply = client.request_with_headers("execution.request", headers, r#"{"task": "x"}"#.into()).await.unwrap();
        assert_eq!(header(&reply, "Nats-Service-Error-Code"), Some(status));
    }
}

#[tokio::test]
async fn each_smaller_door_names_what_it_misses() {
    let nats = Nats::start().await;
    let _door = worker(&nats).await;
    let client = nats.client().await;
    for (subject, body, status, field) in [
        ("execution.feedback", r#"{"verdict": "wrong"}"#, "400", "correlation_id"),
        ("execution.feedback", r#"{"correlation_id": "exec_0", "verdict": "wrong"}"#, "404", "correlation_id"),
        ("execution.feedback.acme", r#"{"correlation_id": "exec_0", "verdict": "meh"}"#, "400", "verdict"),
        ("template.show", r#"{"id": "no-such-template"}"#, "404", "id"),
        ("template.list", r#"{"task_type": "poetry"}"#, "400", "task_type"),
        ("template.select", r#"{}"#, "400", "task"),
        ("cache.stats", r#"{"x": 1}"#, "400", "x"),
        ("cache.explain", r#"{}"#, "400", "task"),
    ] {
        let reply = client.request(subject, body.into()).await.unwrap();
        assert_eq!(header(&reply, "Nats-Service-Error-Code"), Some(status), "{subject} {body}");
        assert_eq!(read(&reply)["field"], field, "{subject} {body}");
    }
    for subject in ["execution.stats", "execution.health", "template.list", "template.check.acme", "cache.stats.acme"] {
        let reply = client.request(subject, "".into()).await.unwrap();
        assert_eq!(header(&reply, "Nats-Service-Error-Code"), None, "{subject}");
        assert!(read(&reply).is_object(), "{subject}");
    }
}
