//! What is missing or broken is named with its mend, and the rest serves.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use crate::nats::Nats;
use crate::process::{output, tandem};
use crate::worker::{Place, assets};
use crate::{Asker, declined, example, text};

/// The assets, but for one file that is taken away or spoilt.
fn assets_with(file: &str, spoil: impl Fn(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["onnxruntime/libonnxruntime.so", "embedding/minilm.onnx", "embedding/tokenizer.json"] {
        let (from, to) = (assets().join(name), folder.path().join(name));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if name == file {
            spoil(&to);
        } else {
            std::os::unix::fs::symlink(from, to).unwrap();
        }
    }
    folder
}

/// Serves by rules and exactly, and says in its health which file is wrong and what to do.
async fn serves_without(assets: &Path, file: &str, says: &str) {
    let nats = Nats::start().await;
    let _worker = Place::with_assets(assets).worker(&nats).await;
    let asker = Asker::of(&nats).await;
    assert_eq!(asker.request(&example()).await["method"], "autonomous");
    assert_eq!(asker.request(&example()).await["cache"]["tier"], "exact");
    assert_eq!(asker.request(&declined()).await["method"], "fallback");

    let health = asker.ask("execution.health", &json!({})).await;
    assert_eq!(health["status"], "degraded", "{health}");
    let embedding = &health["components"]["embedding"];
    assert_eq!(embedding["status"], "degraded", "{health}");
    let message = text(embedding, "message");
    for said in [file, says, "scripts/setup"] {
        assert!(message.contains(said), "{said:?} is not in {message:?}");
    }
    assert_eq!(health["components"]["database"]["status"], "ok", "{health}");
    // What needs the model says so.
    let (status, error) = asker.refused("cache.explain", &example()).await;
    assert_eq!(status, "503", "{error}");
    assert!(text(&error, "message").contains("embedding"), "{error}");
}

#[tokio::test]
async fn without_assets_rules_and_the_exact_tier_serve() {
    let folder = tempfile::tempdir().unwrap();
    serves_without(folder.path(), "onnxruntime/libonnxruntime.so", "missing").await;
}

#[tokio::test]
async fn with_a_damaged_model_rules_and_the_exact_tier_serve() {
    let half =
        |to: &Path| fs::write(to, &fs::read(assets().join("embedding/minilm.onnx")).unwrap()[..1 << 20]).unwrap();
    serves_without(assets_with("embedding/minilm.onnx", half).path(), "embedding/minilm.onnx", "damaged").await;
}

#[tokio::test]
async fn with_a_damaged_tokenizer_rules_and_the_exact_tier_serve() {
    let spoil = |to: &Path| fs::write(to, "{\"version\": \"1.0\"}").unwrap();
    serves_without(assets_with("embedding/tokenizer.json", spoil).path(), "embedding/tokenizer.json", "damaged").await;
}

#[tokio::test]
async fn with_a_damaged_runtime_rules_and_the_exact_tier_serve() {
    let spoil = |to: &Path| fs::write(to, b"\x7fELF and then nothing").unwrap();
    let assets = assets_with("onnxruntime/libonnxruntime.so", spoil);
    serves_without(assets.path(), "onnxruntime/libonnxruntime.so", "damaged").await;
}

#[tokio::test]
async fn with_the_model_missing_it_is_named() {
    let assets = assets_with("embedding/minilm.onnx", |_| {});
    serves_without(assets.path(), "embedding/minilm.onnx", "missing").await;
}

/// Ends by itself with `code`, and says all of `says` and none of the password.
async fn ends(folder: &Path, variables: &[(&str, &str)], arguments: &[&str], code: i32, says: &[&str]) {
    let ended = output(tandem(folder, variables, arguments)).await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{variables:?} {arguments:?}: {said}");
    for words in says {
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(!said.contains("hunter2"), "a password was told: {said}");
}

#[tokio::test]
async fn a_database_that_can_t_be_reached_at_start_ends_the_worker_with_the_mend() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(folder.path().join("file"), "this is no database, and long enough to look like one".repeat(100)).unwrap();
    let at = |path: &str| format!("sqlite:{}", folder.path().join(path).display());
    let silent_url = format!("postgres://ann:hunter2@127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    for (url, says) in [
        (format!("postgres://ann:hunter2@127.0.0.1:{closed}/x"), ["nothing listens there", "host and port"]),
        (silent_url, ["no answer within", "host and port"]),
        (at("file/tandem.db"), ["file/tandem.db", "the right to"]),
        (at("file"), ["no SQLite database", "restore it"]),
        (at("."), ["can't be opened", "path"]),
        ("mysql://ann:hunter2@host/x".to_owned(), ["sqlite:", "postgres://"]),
    ] {
        let variables =
            [("NATS_URL", nats.server.url()), ("DATABASE_URL", &url), ("TANDEM__DATABASE__CONNECT_TIMEOUT_MS", "500")];
        ends(folder.path(), &variables, &["serve"], 1, &says).await;
    }
    let (url, assets) = (at("file"), assets().display().to_string());
    let variables = [("DATABASE_URL", url.as_str()), ("TANDEM_ASSETS", &assets)];
    ends(folder.path(), &variables, &["serve", "--with-nats"], 1, &["no SQLite database"]).await;
    let told = folder.path().join(".local/state/tandem/nats.url");
    assert!(!told.exists(), "the address of a server that nobody serves on");
}

#[tokio::test]
async fn a_nats_server_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("nats://ann:hunter2@127.0.0.1:{closed}");
    let at = format!("127.0.0.1:{closed}");
    ends(folder.path(), &[("NATS_URL", &url)], &["serve"], 3, &[&at]).await;
    ends(folder.path(), &[("NATS_URL", &url)], &["request", "x"], 3, &[&at]).await;
    let assets = folder.path().join("none");
    let assets = [("TANDEM_ASSETS", assets.to_str().unwrap())];
    ends(folder.path(), &assets, &["serve", "--with-nats"], 1, &["bin/nats-server", "NATS_URL"]).await;
    let nats = Nats::start().await;
    ends(folder.path(), &[("NATS_URL", nats.server.url())], &["request", "x"], 3, &["no worker is running"]).await;
}

#[tokio::test]
async fn a_wrong_key_in_the_configuration_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    let named = file.display().to_string();
    for (text, says) in [
        ("[cache]\nttl = 5\n", "ttl"),
        ("[cash]\nttl_ms = 5\n", "cash"),
        ("[cache]\nttl_ms = \"soon\"\n", "ttl_ms"),
        ("[agent]\nmax_unknown_share = 3.0\n", "agent.max_unknown_share"),
        ("[llm]\nroute = [\"nobody/x\"]\n", "nobody/x"),
        ("[cache\n", "my.toml"),
    ] {
        fs::write(&file, text).unwrap();
        ends(folder.path(), &[("TANDEM_CONFIG", &named)], &["config", "check"], 2, &[says]).await;
        ends(folder.path(), &[("TANDEM_CONFIG", &named)], &["serve"], 2, &[says]).await;
    }
    for (name, value, says) in [
        ("TANDEM__CACHE__TTL", "5", "ttl"),
        ("TANDEM__CACHE__TTL_MS", "soon", "ttl_ms"),
        ("TANDEM__CASH__TTL_MS", "5", "cash"),
        ("TANDEM__CACHE__ORDER", "sideways", "sideways"),
        ("TANDEM__LOG__LEVEL", "tandem=loud", "log.level"),
        ("TANDEM_CONFIG", "/nowhere/tandem.toml", "/nowhere/tandem.toml"),
        ("TANDEM__TEMPLATES__FOLDER", "/nowhere/templates", "/nowhere/templates"),
    ] {
        ends(folder.path(), &[(name, value)], &["serve"], 2, &[says]).await;
    }
}
