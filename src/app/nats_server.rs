//! The pinned nats-server as this process's child: on loopback, with its own folder, gone when its parent is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// The largest message, in bytes.
const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
const START: Duration = Duration::from_secs(10);
/// Between looking for the server's ports file.
const LOOK: Duration = Duration::from_millis(5);
/// After a polite stop the watchdog waits 5 s before it kills; a little more is given to it here.
const STOP: Duration = Duration::from_secs(7);

/// Starts the server and watches a pipe from us. However this process ends, the pipe closes and the server is stopped;
/// if it does not go, it is killed. Needs no unsafe code, and works wherever there is a POSIX shell.
const WATCHDOG: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{
    read -r _ <&3
    kill -TERM "$server" 2>/dev/null
    sleep 5 3<&-
    kill -KILL "$server" 2>/dev/null
} &
watch=$!
exec 3<&-
wait "$server"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

/// A running server. Dropping it stops the server without waiting for its end.
#[derive(Debug)]
pub struct NatsServer {
    /// The shell that watches.
    watchdog: Child,
    /// The server runs while this is open. Not left in the child, for `Child::wait` would close it.
    pipe: Option<ChildStdin>,
    url: String,
    port: u16,
    pid: u32,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("there is no nats-server at {}; fetch the assets, or name a server with NATS_URL", .0.display())]
    Missing(PathBuf),
    #[error("{action} {}", path.display())]
    Folder {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start nats-server")]
    Spawn(#[source] io::Error),
    #[error("nats-server ended at once ({status}): {log}")]
    Ended { status: ExitStatus, log: String },
    #[error("nats-server did not answer within {} s; its log is {}", START.as_secs(), log.display())]
    Silent { log: PathBuf },
    #[error("wait for the end of nats-server")]
    Wait(#[source] io::Error),
}

impl NatsServer {
    /// Starts `binary` on 127.0.0.1 with `folder` for its configuration, log and streams, and waits until it answers.
    /// Without a port it takes a free one. Its address is also written to `nats.url` in the folder.
    pub async fn start(binary: &Path, folder: &Path, port: Option<u16>) -> Result<Self, Error> {
        if !binary.is_file() {
            return Err(Error::Missing(binary.to_owned()));
        }
        let files = Files::prepare(folder, port)?;
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "nats-server-watchdog"])
            .arg(binary)
            .arg("--config")
            .arg(&files.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group; the server must outlive the worker that drains.
            .process_group(0)
            .spawn()
            .map_err(Error::Spawn)?;
        let pipe = watchdog.stdin.take();
        let begun = Instant::now();
        let (pid, port) = loop {
            if let Some(status) = watchdog.try_wait().map_err(Error::Wait)? {
                return Err(Error::Ended { status, log: files.last_words() });
            }
            if let Some((pid, port)) = files.ports()
                && greets(port).await
            {
                break (pid, port);
            }
            if begun.elapsed() > START {
                // The pipe closes here, which stops the server.
                return Err(Error::Silent { log: files.log });
            }
            sleep(LOOK).await;
        };
        let url = format!("nats://127.0.0.1:{port}");
        write(&folder.join("nats.url"), &url)?;
        info!(nats.url = url, nats.pid = pid, "nats-server runs");
        Ok(Self { watchdog, pipe, url, port, pid })
    }

    /// `nats://127.0.0.1:<port>`
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of the server itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Comes back when the server has ended by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus, Error> {
        self.watchdog.wait().await.map_err(Error::Wait)
    }

    /// Stops it politely, then by force, and waits for its end.
    pub async fn stop(mut self) -> Result<(), Error> {
        drop(self.pipe.take());
        match timeout(STOP, self.watchdog.wait()).await {
            Ok(status) => status.map(drop).map_err(Error::Wait),
            Err(_) => {
                warn!("nats-server does not end; its watchdog is killed");
                self.watchdog.kill().await.map_err(Error::Wait)
            }
        }
    }
}

/// What lies in the server's folder.
struct Files {
    config: PathBuf,
    log: PathBuf,
    ports: PathBuf,
}

impl Files {
    fn prepare(folder: &Path, port: Option<u16>) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(failed("create the folder", folder))?;
        // The server runs elsewhere than we do, and a relative path would be read from there.
        let folder = &folder.canonicalize().map_err(failed("find", folder))?;
        let ports = folder.join("ports");
        // A killed server leaves its file there.
        if ports.exists() {
            std::fs::remove_dir_all(&ports).map_err(failed("clear", &ports))?;
        }
        std::fs::create_dir_all(&ports).map_err(failed("create the folder", &ports))?;
        let files = Self { config: folder.join("nats.conf"), log: folder.join("nats-server.log"), ports };
        let config = format!(
            "# Written at each start; changes here are lost.\n\
             listen: \"127.0.0.1:{}\"\n\
             max_payload: {MAX_PAYLOAD}\n\
             ports_file_dir: {}\n\
             log_file: {}\n\
             logfile_size_limit: 16MB\n\
             jetstream {{ store_dir: {} }}\n",
            port.map_or(-1, i32::from),
            quoted(&files.ports),
            quoted(&files.log),
            quoted(folder),
        );
        write(&files.config, &config)?;
        Ok(files)
    }

    /// The server writes `<name>_<pid>.ports` once it listens.
    fn ports(&self) -> Option<(u32, u16)> {
        #[derive(Deserialize)]
        struct Ports {
            nats: Vec<String>,
        }
        let path = std::fs::read_dir(&self.ports).ok()?.flatten().map(|entry| entry.path()).next()?;
        let pid = path.file_stem()?.to_str()?.rsplit_once('_')?.1.parse().ok()?;
        // Half-written files do not parse and are read again.
        let ports: Ports = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let port = ports.nats.first()?.rsplit_once(':')?.1.parse().ok()?;
        Some((pid, port))
    }

    /// The last lines of the log, for a message.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.reverse();
        if lines.is_empty() { "it left no log".to_owned() } else { lines.join(" | ") }
    }
}

/// A server that is ready greets with `INFO`.
async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut greeting = [0; 4];
        TcpStream::connect(("127.0.0.1", port)).await?.read_exact(&mut greeting).await?;
        io::Result::Ok(&greeting == b"INFO")
    };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { action, path, source }
}

/// A path as a text in the server's configuration.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}
