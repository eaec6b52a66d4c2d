//! The database is away, locked, or has no room.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::Client;
use serde_json::{Value, json};
use sqlx::{Connection, Executor};

use crate::fault::{report, size};
use crate::nats::{Nats, json as read};
use crate::postgres::Postgres;
use crate::process::{Served, program};
use crate::proxy::Proxy;
use crate::{answer, ask, serve, status, task, until};

/// What is served while the database takes nothing, and what is said of it.
struct Away {
    known: Duration,
    refused: Duration,
}

async fn with_id(client: &Client, id: &str) -> (Option<String>, Value) {
    let mut body = task("use");
    body["id"] = json!(id);
    let message = ask(client, "execution.request", &body).await;
    (status(&message).map(str::to_owned), read(&message))
}

async fn component(client: &Client, name: &str) -> String {
    let health = answer(client, "execution.health", &json!({})).await;
    health["components"][name]["status"].as_str().unwrap().to_owned()
}

/// An answer that is known, one that rules make, and one that the database must decide about.
async fn serves_what_needs_no_database(client: &Client, database_down: bool) -> Away {
    let begun = Instant::now();
    let known = answer(client, "execution.request", &task("use")).await;
    let known_after = begun.elapsed();
    assert_eq!((&known["method"], &known["cache"]["tier"]), (&json!("cached"), &json!("exact")), "{known}");
    assert!(known_after < Duration::from_secs(1), "a known answer took {known_after:?}");
    assert_eq!(answer(client, "execution.request", &task("off")).await["method"], "autonomous");
    let begun = Instant::now();
    let (code, error) = with_id(client, "while-away").await;
    assert_eq!((code.as_deref(), &error["error"]), (Some("503"), &json!("unavailable")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("the database"), "{error}");
    let refused = begun.elapsed();
    assert!(refused < Duration::from_secs(10), "{refused:?}");
    // Figures would be wrong without what waits to be written.
    let figures = ask(client, "execution.stats", &json!({})).await;
    assert_eq!((status(&figures), &read(&figures)["error"]), (Some("503"), &json!("unavailable")));
    if database_down {
        assert_eq!(component(client, "database").await, "down");
    }
    // What was recorded meanwhile waits, and is said to wait.
    assert_eq!(component(client, "recording").await, "degraded");
    Away { known: known_after, refused }
}

/// All is as before, and nothing that was answered meanwhile is missing in the figures.
async fn all_good_again(client: &Client, executions: u64) -> Duration {
    let good = async || (with_id(client, "after").await.0.is_none()).then_some(());
    let (_, took) = until(Duration::from_secs(10), "a request with an id is served", good).await;
    for name in ["database", "recording"] {
        let ok = async || (component(client, name).await == "ok").then_some(());
        until(Duration::from_secs(10), name, ok).await;
    }
    let counted = answer(client, "execution.stats", &json!({})).await;
    assert_eq!(counted["total_executions"], executions, "{counted}");
    took
}

#[tokio::test]
async fn a_postgres_that_is_away_takes_nothing_along_that_is_known() {
    let postgres = Postgres::start();
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let port: u16 = postgres.url().rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let mut proxy = Proxy::start(port).await;
    let url = postgres.url().replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let _worker = serve(&nats, folder.path(), &[("DATABASE_URL", &url)]).await;
    let client = nats.client().await;
    answer(&client, "execution.request", &task("use")).await;
    assert_eq!(with_id(&client, "before").await.0, None);

    proxy.cut().await;
    let begun = Instant::now();
    let away = serves_what_needs_no_database(&client, true).await;
    // Two before, two while it was away, and what follows.
    let mut executions = 4;
    let whole = Duration::from_secs(size(3, 30));
    while begun.elapsed() < whole {
        assert_eq!(answer(&client, "execution.request", &task("use")).await["method"], "cached");
        executions += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let gone = begun.elapsed();
    proxy.mend().await;
    let took = all_good_again(&client, executions + 1).await;
    report(
        &format!("PostgreSQL away for {:.0} s", gone.as_secs_f64()),
        format!("known answers in {:?}, 503 after {:?}, all good {took:?} after its return", away.known, away.refused),
        "served; a clear 503; ≤ 10 s",
    );
}

#[tokio::test]
async fn a_locked_sqlite_file_takes_nothing_along_that_is_known() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let _worker = serve(&nats, folder.path(), &[]).await;
    let client = nats.client().await;
    answer(&client, "execution.request", &task("use")).await;
    // Written down before the lock: 2 so far.
    assert_eq!(with_id(&client, "before").await.0, None);
    assert_eq!(answer(&client, "execution.stats", &json!({})).await["total_executions"], 2);

    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let begun = Instant::now();
    let away = serves_what_needs_no_database(&client, false).await;
    let rest = Duration::from_secs(size(0, 30)).saturating_sub(begun.elapsed());
    tokio::time::sleep(rest).await;
    let gone = begun.elapsed();
    other.execute("ROLLBACK").await.unwrap();
    // Two while it was locked, one with an id after.
    let took = all_good_again(&client, 5).await;
    report(
        &format!("the SQLite file locked for {:.0} s", gone.as_secs_f64()),
        format!("known answers in {:?}, 503 after {:?}, all good {took:?} after", away.known, away.refused),
        "served; a clear 503; ≤ 10 s",
    );
}

/// Whether this machine lets a process have file systems of its own.
async fn has_small_disks() -> bool {
    let mut tried = tokio::process::Command::new("unshare");
    tried.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    tried.output().await.is_ok_and(|output| output.status.success())
}

/// On a file system of its own that only this worker sees.
async fn on_a_small_disk(nats: &Nats, folder: &Path) -> Served {
    let disk = folder.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!("mount -t tmpfs -o size=3m tmpfs {disk} && exec \"$@\"", disk = disk.display());
    let database = format!("sqlite:{}", disk.join("tandem.db").display());
    let none = folder.join("none").display().to_string();
    let variables = [("NATS_URL", nats.server.url()), ("DATABASE_URL", &database), ("TANDEM_ASSETS", &none)];
    let tandem = crate::process::binary().display().to_string();
    let arguments = ["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh", &tandem, "serve"];
    let mut served = Served::start(program(Path::new("unshare"), folder, &variables, &arguments));
    served.ready().await;
    served
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_needs_none_is_served() {
    if !has_small_disks().await {
        return report("disk full", "not tried: this machine lets nobody have a small disk".to_owned(), "–");
    }
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let worker = on_a_small_disk(&nats, folder.path()).await;
    let client = nats.client().await;
    answer(&client, "execution.request", &task("use")).await;
    assert_eq!(with_id(&client, "before").await.0, None);
    assert_eq!(answer(&client, "execution.stats", &json!({})).await["total_executions"], 2);

    // As the worker sees it.
    let filler = format!("/proc/{}/root{}/disk/filler", worker.pid(), folder.path().display());
    let filled = fill(Path::new(&filler));
    assert!(filled > 0, "the disk was full before");
    // The log file has some room of its own left from earlier writes: until that is used up, too.
    let mut written = 2;
    let full = async || {
        let refused = with_id(&client, &format!("fill-{written}")).await.0.as_deref() == Some("503");
        written += u64::from(!refused);
        refused.then_some(())
    };
    until(Duration::from_secs(60), "a write fails", full).await;
    // Two while it was full, one after.
    let executions = written + 3;
    let away = serves_what_needs_no_database(&client, false).await;
    let said: String = worker.log().iter().map(Value::to_string).collect();
    assert!(said.contains("full"), "the log does not say that the disk is full: {said}");

    std::fs::remove_file(&filler).unwrap();
    let took = all_good_again(&client, executions).await;
    report(
        "disk full",
        format!(
            "known answers in {:?}, 503 after {:?}, all good {took:?} after there was room",
            away.known, away.refused
        ),
        "served; a clear 503; ≤ 10 s",
    );
}

/// Takes all the room there is; how much it was.
fn fill(path: &Path) -> usize {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let mut written = 0;
    for block in [65_536, 4_096, 512] {
        while let Ok(n) = file.write(&vec![0; block]) {
            written += n;
            if n == 0 {
                break;
            }
        }
    }
    written
}
