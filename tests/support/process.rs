//! The built binary as a process of its own, with nothing of this process's environment.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tandem"))
}

/// `tandem` with these variables, `PATH` and no others, in `folder`, which is its home too.
pub fn tandem(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    program(&binary(), folder, variables, arguments)
}

pub fn program(program: &Path, folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    // A test that is killed takes its workers along: else they would come back to whichever server gets the port next.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    let path = std::env::vars_os().find(|(name, _)| name == "PATH").map(|(_, path)| path).unwrap();
    command.env_clear().env("PATH", path).env("HOME", folder).envs(variables.iter().copied());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end; a hang is a failure.
pub async fn output(mut command: Command) -> Output {
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it did not end within 20 s").unwrap()
}

/// A running `tandem serve`, killed when dropped. Its log is read as JSON.
pub struct Served {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    count: watch::Receiver<usize>,
}

impl Served {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let (counted, count) = watch::channel(0);
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let kept = lines.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                // What is no JSON is kept as a text: it must not get lost.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap().push(line);
                // Not under the lock: whoever is told looks at the lines.
                counted.send_modify(|count| *count += 1);
            }
        });
        Self { child, lines, count }
    }

    /// Waits until the log says that it is ready.
    pub async fn ready(&mut self) {
        self.says("ready ").await;
    }

    /// Waits for a line whose text begins so.
    pub async fn says(&mut self, begin: &str) -> Value {
        let lines = self.lines.clone();
        let found = move || lines.lock().unwrap().iter().find(|line| message(line).starts_with(begin)).cloned();
        let waited = self.count.wait_for(|_| found().is_some());
        let seen = tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok_and(|waited| waited.is_ok());
        let found = self.log().into_iter().find(|line| message(line).starts_with(begin));
        assert!(seen && found.is_some(), "it never said {begin:?}: {:#?}", self.log());
        found.unwrap()
    }

    pub fn log(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it has ended")
    }

    /// `TERM`, `INT`, …
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        waited.unwrap_or_else(|_| panic!("it did not end within 20 s: {:#?}", self.log())).unwrap()
    }
}

pub fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_else(|| line.as_str().unwrap_or_default())
}
