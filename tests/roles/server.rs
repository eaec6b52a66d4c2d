//! A nats-server with a configuration of the test's own, and the certificates and keys that it asks for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event};
use tandem::bus::Options;
use tokio::process::Child;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::process::program;

/// Gone with the test.
pub struct Server {
    pub port: u16,
    pub folder: tempfile::TempDir,
    _child: Child,
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tandem/bin/nats-server")
}

impl Server {
    pub async fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config, &[]).await
    }

    pub async fn start_in(folder: tempfile::TempDir, config: &str, variables: &[(&str, &str)]) -> Self {
        let (file, ports) = (folder.path().join("nats.conf"), folder.path().join("ports"));
        std::fs::create_dir(&ports).unwrap();
        let own = format!("listen: \"127.0.0.1:-1\"\nports_file_dir: \"{}\"\n{config}\n", ports.display());
        std::fs::write(&file, own).unwrap();
        let log = folder.path().join("log");
        let arguments = ["-c", file.to_str().unwrap(), "-l", log.to_str().unwrap()];
        let mut command = program(&binary(), folder.path(), variables, &arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let port = loop {
            let found = std::fs::read_dir(&ports).unwrap().flatten().next();
            // Half-written files do not parse and are read again.
            let text = found.and_then(|file| std::fs::read(file.path()).ok()).unwrap_or_default();
            let told: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
            let url = told.and_then(|told| Some(told["nats"][0].as_str()?.to_owned()));
            if let Some(port) = url.and_then(|url| url.rsplit_once(':')?.1.parse().ok()) {
                break port;
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(10), "nats-server did not start: {}", said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Self { port, folder, _child: child }
    }

    /// With the `nats.conf` that is shipped, the tenant `acme` taken in.
    pub async fn shipped() -> Self {
        Self::shipped_with("", "").await
    }

    /// With one thing in it put otherwise.
    pub async fn shipped_with(from: &str, to: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = if from.is_empty() { shipped() } else { shipped().replace(from, to) };
        let config = config
            .replace("host: \"127.0.0.1\"\nport: 4222\n", "")
            .replace("http: \"127.0.0.1:8222\"\n", "")
            .replace("#:", "")
            .replace("/var/lib/nats", folder.path().join("js").to_str().unwrap());
        Self::start_in(folder, &config, &PASSWORDS).await
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn options(&self) -> Options {
        Options { urls: vec![self.url()], ..Options::default() }
    }

    /// As a user of [`Server::shipped`], with the inbox that is the role's.
    pub async fn user(&self, name: &str) -> User {
        let (said, denials) = unbounded_channel();
        let password = format!("{name}-password");
        let inbox = if name == "admin" { "_INBOX.admin".to_owned() } else { format!("_INBOX.{name}") };
        let options = ConnectOptions::with_user_and_password(name.to_owned(), password)
            .custom_inbox_prefix(inbox)
            .request_timeout(Some(Duration::from_secs(5)))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = said.send(error.to_string());
                }
                async {}
            });
        User { client: options.connect(self.url()).await.unwrap(), denials }
    }

    /// The variables for a process that is this user.
    pub fn variables(&self, name: &str) -> Vec<(&'static str, String)> {
        vec![
            ("NATS_URL", self.url()),
            ("NATS_USER", name.to_owned()),
            ("NATS_PASSWORD", format!("{name}-password")),
            ("TANDEM__NATS__INBOX_PREFIX", format!("_INBOX.{name}")),
        ]
    }
}

pub const PASSWORDS: [(&str, &str); 5] = [
    ("TANDEM_ADMIN_PASSWORD", "admin-password"),
    ("TANDEM_OPERATOR_PASSWORD", "operator-password"),
    ("TANDEM_WORKER_PASSWORD", "worker-password"),
    ("TANDEM_CLIENT_PASSWORD", "client-password"),
    ("TANDEM_ACME_PASSWORD", "acme-password"),
];

pub fn shipped() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/nats.conf")).unwrap()
}

/// A connection, and what the server forbids it.
pub struct User {
    pub client: Client,
    denials: UnboundedReceiver<String>,
}

impl User {
    /// What was forbidden of all that was sent before. Its own end is a thing that is forbidden to everybody.
    pub async fn denials(&mut self) -> Vec<String> {
        self.client.publish("$SYS.END", "x".into()).await.unwrap();
        let mut all = vec![];
        loop {
            let said = tokio::time::timeout(Duration::from_secs(5), self.denials.recv()).await;
            let said = said.expect("the server did not forbid the end").unwrap();
            if said.contains("$SYS.END") {
                return all;
            }
            all.push(said);
        }
    }
}

/// Made by the `openssl` program: an authority, and what it signed.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        let all = Self { folder: tempfile::tempdir().unwrap() };
        all.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
        for name in ["server", "client"] {
            all.run(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
            let extensions = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
            std::fs::write(all.folder.path().join("extensions"), extensions).unwrap();
            all.run(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"));
        }
        all
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// For a server that shows its certificate; with `more` lines in the block.
    pub fn block(&self, more: &str) -> String {
        let (cert, key) = (self.path("server.pem"), self.path("server.key"));
        let ca = self.path("ca.pem");
        format!("tls {{\n cert_file: \"{cert}\"\n key_file: \"{key}\"\n ca_file: \"{ca}\"\n {more}\n}}")
    }

    fn run(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(self.folder.path()).output();
        let done = done.expect("these tests need the program openssl");
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A server that trusts an operator, with one account and one user of it, as `nsc` would make them.
pub struct Operator {
    pub config: String,
    /// The text of a credentials file.
    pub credentials: String,
}

impl Operator {
    pub fn make() -> Self {
        let (operator, account) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
        let user = nkeys::KeyPair::new_user();
        let no_limit =
            r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}"#;
        let operator_jwt = jwt(&operator, &operator, r#"{"type":"operator","version":2}"#);
        let account_jwt = jwt(&operator, &account, &format!(r#"{{"limits":{no_limit},"type":"account","version":2}}"#));
        let user_jwt =
            jwt(&account, &user, r#"{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}"#);
        let config = format!(
            "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
            account.public_key()
        );
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().unwrap()
        );
        Self { config, credentials }
    }
}

fn jwt(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, claims: &str) -> String {
    let (issuer_key, subject_key) = (issuer.public_key(), subject.public_key());
    let body = format!(
        r#"{{"jti":"{subject_key}","iat":1700000000,"iss":"{issuer_key}","name":"test","sub":"{subject_key}","nats":{claims}}}"#
    );
    let signed = format!("{}.{}", base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), base64url(body.as_bytes()));
    format!("{signed}.{}", base64url(&issuer.sign(signed.as_bytes()).unwrap()))
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |three: &[u8]| {
        let word = three.iter().chain([0, 0].iter()).take(3).fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        let letters = [18, 12, 6, 0].map(|shift| char::from(LETTERS[word >> shift & 63]));
        letters.into_iter().take(three.len() + 1).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A file in `folder` with this text.
pub fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
