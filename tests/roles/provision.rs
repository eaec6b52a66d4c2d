//! An administrator makes the streams; a worker in production only looks.

use serde_json::{Value, json};
use tandem::bus::streams::{self, provide};
use tandem::bus::{Error, Provision};

use crate::process::{output, tandem};
use crate::server::Server;

const WAIT: std::time::Duration = std::time::Duration::from_secs(30);

async fn provision(server: &Server, user: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let variables = server.variables(user);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let all = [&["provision"], arguments].concat();
    let done = output(tandem(server.folder.path(), &variables, &all)).await;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or(Value::Null), said)
}

fn all(made: &str, dry_run: bool) -> Value {
    let names = [streams::SUBMIT, streams::RESULT, streams::DEAD, streams::WORKERS];
    json!({ "dry_run": dry_run, "done": names.map(|name| json!({ "name": name, "made": made })) })
}

#[tokio::test]
async fn an_administrator_makes_the_streams_once_and_a_worker_finds_them() {
    let server = Server::shipped().await;
    let worker = server.user("worker").await.client;
    let verify = async || provide(&worker, Provision::Verify, &streams::Options::default(), WAIT).await;

    let missing = verify().await.unwrap_err();
    let said = missing.to_string();
    assert!(matches!(missing, Error::Streams { .. }), "{said}");
    for word in [streams::SUBMIT, streams::RESULT, streams::DEAD, "missing", "tandem provision"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    assert_eq!(provision(&server, "admin", &["--dry-run", "--json"]).await.1, all("created", true));
    assert!(verify().await.is_err(), "a dry run makes nothing");
    assert_eq!(provision(&server, "admin", &["--json"]).await.1, all("created", false));
    verify().await.unwrap();
    assert_eq!(provision(&server, "admin", &["--json"]).await.1, all("unchanged", false));
    assert_eq!(provision(&server, "admin", &["--dry-run", "--json"]).await.1, all("unchanged", true));
}

#[tokio::test]
async fn who_may_not_make_streams_is_told_so() {
    let server = Server::shipped().await;
    for user in ["worker", "operator", "client"] {
        let (code, _, said) = provision(&server, user, &[]).await;
        assert_eq!(code, Some(2), "{user}: {said}");
        assert!(said.contains("log in as an administrator") && said.contains("$JS.API.STREAM"), "{user}: {said}");
    }
    let worker = server.user("worker").await.client;
    let missing = provide(&worker, Provision::Verify, &streams::Options::default(), WAIT).await.unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
}
