//! A PostgreSQL of the test's own: started on 127.0.0.1 and a free port, ended with the test.
//!
//! `initdb` takes seconds, so its result is kept under the target folder and copied.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// The user that owns the server's files where the test runs as root, whom PostgreSQL refuses to serve.
const SERVER_USER: &str = "postgres";
pub(crate) const USER: &str = "tandem";
pub(crate) const PASSWORD: &str = "correct-horse";

/// For tests, which lose nothing when the power goes: quick and small.
const CARELESS: &[&str] = &["fsync=off", "full_page_writes=off", "shared_buffers=16MB"];

pub(crate) struct Postgres {
    child: Option<Child>,
    port: u16,
    settings: &'static [&'static str],
    folder: tempfile::TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self::start_with(CARELESS)
    }

    /// Without settings it is as PostgreSQL comes: what is committed survives a loss of power.
    pub(crate) fn start_with(settings: &'static [&'static str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tandem-pg-").tempdir().expect("make a folder for PostgreSQL");
        let pristine = pristine();
        run(Command::new("cp").arg("-a").arg(&pristine).arg(folder.path().join("data")));
        if is_root() {
            run(Command::new("chown").args(["-R", SERVER_USER]).arg(folder.path()));
        }
        let mut postgres = Self { child: None, port: 0, settings, folder };
        // Somebody else may take the free port first.
        for _ in 0..5 {
            postgres.port = free_port();
            if postgres.resume() {
                return postgres;
            }
        }
        panic!("PostgreSQL did not start on five free ports");
    }

    /// The address of the server's own database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// Takes the server away, as a crash would. `resume` brings it back on the same port.
    pub(crate) fn pause(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Immediate shutdown: the server's own children end with it.
            let _sent = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
            let _ended = child.wait();
        }
    }

    /// Returns whether the server is ready.
    pub(crate) fn resume(&mut self) -> bool {
        let mut command = server(&self.folder.path().join("data"), self.port, self.settings);
        let (tell, told) = mpsc::channel();
        // The kernel ends the server with the thread that started it: one that lives as long, as the caller's may not.
        std::thread::spawn(move || {
            let mut child = command.spawn().expect("start postgres");
            let stderr = child.stderr.take().expect("postgres has a stderr");
            let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
            let ready = lines.by_ref().any(|line| line.contains("database system is ready to accept connections"));
            let _gone = tell.send((child, ready));
            // A full pipe would stop the server.
            lines.for_each(drop);
        });
        let (child, ready) = told.recv().expect("start postgres");
        self.child = Some(child);
        if !ready {
            self.pause();
        }
        ready
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.pause();
    }
}

fn server(data: &Path, port: u16, settings: &[&str]) -> Command {
    // The kernel ends the server if the test is killed.
    let mut command = as_server_user(&program("postgres"), &["--pdeathsig", "QUIT"]);
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    let all = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "lc_messages=C",
        "logging_collector=off",
        "log_destination=stderr",
    ];
    for setting in all.iter().chain(settings) {
        command.args(["-c", setting]);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A data folder as `initdb` leaves it, made by whichever test comes first.
fn pristine() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-pristine");
    let lock = File::create(kept.with_extension("lock")).expect("create a lock file under the target folder");
    lock.lock().expect("lock the data folder of PostgreSQL");
    if kept.join("PG_VERSION").exists() {
        return kept;
    }
    let making = tempfile::tempdir().expect("make a folder for initdb");
    let password = making.path().join("password");
    fs::write(&password, PASSWORD).expect("write the password file");
    if is_root() {
        run(Command::new("chown").args(["-R", SERVER_USER]).arg(making.path()));
    }
    let data = making.path().join("data");
    let mut initdb = as_server_user(&program("initdb"), &[]);
    initdb.arg("-D").arg(&data).args(["-U", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]);
    initdb.args(["--no-sync", "--wal-segsize=1"]).arg(format!("--pwfile={}", password.display())).current_dir("/");
    run(&mut initdb);
    // Copied under another name first: what is there under the right one is complete.
    let copying = kept.with_extension("new");
    let _absent = fs::remove_dir_all(&copying);
    run(Command::new("cp").arg("-a").arg(&data).arg(&copying));
    fs::rename(&copying, &kept).expect("keep the data folder of PostgreSQL");
    kept
}

/// `setpriv` before the program: its options, and the server's user where the test runs as root.
fn as_server_user(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(options);
    if is_root() {
        command.arg(format!("--reuid={SERVER_USER}")).arg(format!("--regid={SERVER_USER}")).arg("--init-groups");
    } else {
        command.arg("--inh-caps=-all");
    }
    command.arg(program);
    command
}

fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = fs::read_to_string(root.join(".tandem/postgres-bin")).ok().map(|text| PathBuf::from(text.trim()));
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.flatten().map(|folder| folder.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let on_path = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().ok();
    let on_path = on_path.map(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()));
    let candidates = named.into_iter().chain(versions.into_iter().rev()).map(|folder| folder.join(name));
    candidates.chain(on_path).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no {name}: install `postgresql`, or write the folder of its programs into .tandem/postgres-bin")
    })
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("run id");
    id.stdout.trim_ascii() == b"0"
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("read the port").port()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
