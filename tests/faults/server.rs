//! The nats-server goes away and comes back.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::fault::{report, size};
use crate::nats::{Nats, binary};
use crate::process::{Served, tandem};
use crate::{answer, cpu_time, serve, signal, status, task, until, until_served};

/// How soon a worker serves again.
const BACK: Duration = Duration::from_secs(2);

/// A nats-server with a configuration of the test's own; gone with the test.
pub struct OwnNats {
    child: Child,
    pub port: u16,
}

impl OwnNats {
    /// `$FOLDER` in the configuration is the server's folder.
    pub async fn start(folder: &Path, config: &str) -> Self {
        // Somebody else may take the free port first.
        for _ in 0..5 {
            let port = free_port();
            let text = config.replace("$FOLDER", &folder.display().to_string());
            let file = folder.join(format!("nats-{port}.conf"));
            std::fs::write(&file, format!("listen: \"127.0.0.1:{port}\"\n{text}")).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("-c").arg(&file);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
            let mut server = Self { child, port };
            let ready = async || {
                let ended = server.child.try_wait().unwrap().is_some();
                let listens = TcpStream::connect(("127.0.0.1", port)).await.is_ok();
                (ended || listens).then_some(!ended)
            };
            if until(Duration::from_secs(10), "the server listens", ready).await.0 {
                return server;
            }
        }
        panic!("no nats-server on five free ports");
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a worker used of a core while `away` went by. Waiting takes next to none.
async fn idles(worker: &Served, away: Duration) -> f64 {
    let before = cpu_time(worker.pid());
    let begun = Instant::now();
    tokio::time::sleep(away).await;
    let share = (cpu_time(worker.pid()) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.25, "the worker used {:.0} % of a core while its server was away", share * 100.0);
    share
}

#[tokio::test]
async fn a_killed_server_is_served_again_soon_after_its_return() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let worker = serve(&nats, folder.path(), &[]).await;
    until_served(&nats.client().await, BACK).await;
    let (mut longest, mut busiest) = (Duration::ZERO, 0.0_f64);
    let mut nats = nats;
    for _ in 0..size(2, 10) {
        signal(nats.server.pid(), "KILL");
        busiest = busiest.max(idles(&worker, Duration::from_secs(size(2, 10))).await);
        nats = nats.restart().await;
        longest = longest.max(until_served(&nats.client().await, BACK).await);
    }
    report(
        "nats-server killed and started again",
        format!("serving after {longest:?}; {:.1} % of a core meanwhile", busiest * 100.0),
        "≤ 2 s, < 25 %",
    );
}

#[tokio::test]
async fn a_server_that_stands_still_is_served_again_when_it_goes_on() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let worker = serve(&nats, folder.path(), &[]).await;
    let client = nats.client().await;
    until_served(&client, BACK).await;
    signal(nats.server.pid(), "STOP");
    let still = Duration::from_secs(size(3, 30));
    let share = idles(&worker, still).await;
    signal(nats.server.pid(), "CONT");
    let back = until_served(&client, BACK).await;
    report(
        &format!("nats-server stopped for {} s", still.as_secs()),
        format!("serving after {back:?}; {:.1} % of a core meanwhile", share * 100.0),
        "≤ 2 s, < 25 %",
    );
}

/// In a cluster the worker is told to move on, and does.
#[tokio::test]
async fn a_server_in_lame_duck_mode_is_left_for_another() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let routes = [free_port(), free_port()];
    let config = |own: u16, other: u16| {
        format!(
            "cluster {{ name: c, listen: \"127.0.0.1:{own}\", routes: [\"nats://127.0.0.1:{other}\"] }}\n\
             lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"100ms\"\n"
        )
    };
    let first = OwnNats::start(folders[0].path(), &config(routes[0], routes[1])).await;
    let second = OwnNats::start(folders[1].path(), &config(routes[1], routes[0])).await;
    // It learns of the second from the first.
    let (url, none) = (first.url(), folders[0].path().join("none").display().to_string());
    let variables = [("NATS_URL", url.as_str()), ("TANDEM_ASSETS", none.as_str())];
    let mut worker = Served::start(tandem(folders[0].path(), &variables, &["serve"]));
    worker.ready().await;
    let client = async_nats::connect(second.url()).await.unwrap();
    until_served(&client, Duration::from_secs(10)).await;

    let pid = first.pid();
    let told = Command::new(binary()).arg("--signal").arg(format!("ldm={pid}")).status().await.unwrap();
    assert!(told.success());
    let (begun, mut last, mut gap, mut lost) = (Instant::now(), Instant::now(), Duration::ZERO, 0);
    let before = cpu_time(worker.pid());
    while begun.elapsed() < Duration::from_secs(size(4, 20)) {
        let asked = client.request("execution.request", task("use").to_string().into());
        match tokio::time::timeout(Duration::from_millis(500), asked).await {
            Ok(Ok(reply)) if status(&reply).is_none() => {
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
            _ => lost += 1,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gap = gap.max(last.elapsed());
    let share = (cpu_time(worker.pid()) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(TcpStream::connect(("127.0.0.1", first.port)).await.is_err(), "the first server is still there");
    let health = answer(&client, "execution.health", &serde_json::json!({})).await;
    assert_eq!(health["components"]["nats"]["status"], "ok", "{health}");
    report(
        "nats-server in lame duck mode, one of two",
        format!("at most {gap:?} without an answer, {lost} requests unanswered; {:.1} % of a core", share * 100.0),
        "≤ 2 s",
    );
    assert!(gap <= BACK, "{gap:?}");
}
