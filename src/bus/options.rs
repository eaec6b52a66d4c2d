use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::login::{self, Secret, Tls};
use super::{Error, Provision, shown, streams};

/// How this worker stands on NATS.
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Servers to connect to, the first that answers: `nats://host:4222` or `tls://host:4222`. User and password stand
    /// before the host (`nats://user:password@host`), or a token; the first that are given hold for all.
    // Whoever prints the configuration must not print the password.
    #[serde(serialize_with = "without_passwords")]
    pub urls: Vec<String>,
    /// A credentials file (`.creds`: a user's JWT with its seed) to log in with. Also `NATS_CREDS`. One connection logs
    /// in one way: by this, an nkey, user and password, or a token.
    pub credentials_file: String,
    /// A file with the seed of a user's nkey to log in with. Also `NATS_NKEY`.
    pub nkey_seed_file: String,
    /// The user to log in as, with `password_file` or `password`. Also `NATS_USER`.
    pub user: String,
    /// A file with the password of `user`; an end of line at its end is no part of it.
    pub password_file: String,
    /// The password of `user`, better given as `NATS_PASSWORD`. Never shown.
    #[schemars(with = "String")]
    pub password: Secret,
    /// A file with the token to log in with.
    pub token_file: String,
    /// The token to log in with, better given as `NATS_TOKEN`. Never shown.
    #[schemars(with = "String")]
    pub token: Secret,
    /// TLS to the server.
    pub tls: Tls,
    /// The connection's name in the server's monitoring.
    pub name: String,
    /// How many requests this worker does at a time. One more is told 503 with `Retry-After-Ms` at once. Most of them
    /// wait for a model, so it may be far above the number of cores.
    pub max_concurrent: usize,
    /// How many of `max_concurrent` one tenant may have while it is alone. Where several want more than there is, all
    /// come to the same share, and a part always stays free for who comes next: with the default, half, n busy tenants
    /// have one (n+1)th each. The same fraction holds for queries. As much as `max_concurrent`: no shares; right where
    /// there is one tenant only.
    pub max_concurrent_per_tenant: usize,
    /// How many queries (statistics, templates, health, ...) run at a time, apart from the requests: a full worker
    /// still says that it is full.
    pub max_concurrent_queries: usize,
    /// Reply subjects are taken only below these. Each ends with a dot; none begins with `$`.
    pub reply_prefixes: Vec<String>,
    /// What the subjects begin with on which answers come to this connection, without a dot at the end. A server that
    /// gives each user an inbox of its own names it: with `nats.conf`, clients have `_INBOX.client`.
    pub inbox_prefix: String,
    /// The longest task, in bytes of UTF-8. Longer ones are told 413.
    pub max_task_bytes: usize,
    /// The longest body, in bytes. Longer ones are told 413 without being read.
    pub max_body_bytes: usize,
    /// How many messages of one subject may wait in this worker to be read. Beyond that, or beyond 32 MiB, the server is
    /// told to send no more: it gives them to another worker or tells their senders at once that there is no responder.
    /// What it sends until it has read that is taken, too; none is dropped. More is memory, and a longer wait for those
    /// who are told 503 in a flood.
    pub subscription_capacity: usize,
    /// How often the server is asked whether it is there, in milliseconds.
    pub ping_interval_ms: u64,
    /// How long other workers are given to confirm that they withdrew a cached answer, in milliseconds.
    pub confirm_timeout_ms: u64,
    /// Who makes the streams of durable work.
    pub provision: Provision,
    /// How many submits this worker does at a time, apart from `max_concurrent`: a long queue of submits must not keep
    /// those waiting who wait for a reply. 0: this worker takes none.
    pub max_concurrent_submits: usize,
    /// After how many attempts that failed by a fault of the worker a submit is set aside as a dead letter. A database
    /// that is away costs none.
    pub max_deliver: u32,
    /// How long a submit whose attempt failed waits for the second, in milliseconds; each further wait is twice as long,
    /// at most a minute, and spread.
    pub retry_delay_ms: u64,
    /// After how long without a sign from its worker a submit is given to another, in milliseconds. Working workers give
    /// signs, however long the work takes. A consumer that exists keeps its own.
    pub ack_wait_ms: u64,
    pub streams: streams::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            credentials_file: String::new(),
            nkey_seed_file: String::new(),
            user: String::new(),
            password_file: String::new(),
            password: Secret::default(),
            token_file: String::new(),
            token: Secret::default(),
            tls: Tls::default(),
            name: "tandem".to_owned(),
            max_concurrent: 256,
            max_concurrent_per_tenant: 128,
            max_concurrent_queries: 32,
            reply_prefixes: vec!["_INBOX.".to_owned()],
            inbox_prefix: "_INBOX".to_owned(),
            max_task_bytes: 64 * 1024,
            max_body_bytes: 1024 * 1024,
            subscription_capacity: 4096,
            ping_interval_ms: 20_000,
            confirm_timeout_ms: 500,
            provision: Provision::Auto,
            max_concurrent_submits: 64,
            max_deliver: 5,
            retry_delay_ms: 1_000,
            ack_wait_ms: 30_000,
            streams: streams::Options::default(),
        }
    }
}

impl Options {
    /// Names the first value that can't be meant.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key: &'static str, why: String| Err(Error::Option { key, why });
        if self.urls.is_empty() {
            return wrong("urls", "at least one server is needed".to_owned());
        }
        for prefix in &self.reply_prefixes {
            let tokens_are_plain = prefix
                .strip_suffix('.')
                .is_some_and(|p| async_nats::Subject::from(p).is_valid() && !p.contains(['*', '>']));
            if !tokens_are_plain || prefix.starts_with('$') {
                return wrong(
                    "reply_prefixes",
                    format!(
                        "{prefix:?} must be a subject that ends with a dot, has no wildcard and does not begin with $"
                    ),
                );
            }
        }
        let inbox = self.inbox_prefix.as_str();
        if !async_nats::Subject::from(inbox).is_valid() || inbox.contains(['*', '>']) || inbox.starts_with('$') {
            let why =
                format!("{inbox:?} must be a subject without a wildcard that does not begin with $ or end with a dot");
            return wrong("inbox_prefix", why);
        }
        for (key, value) in [
            ("max_concurrent", self.max_concurrent),
            ("max_concurrent_per_tenant", self.max_concurrent_per_tenant),
            ("max_concurrent_queries", self.max_concurrent_queries),
            ("max_task_bytes", self.max_task_bytes),
            ("max_body_bytes", self.max_body_bytes),
            ("subscription_capacity", self.subscription_capacity),
        ] {
            if value == 0 {
                return wrong(key, "must be at least 1".to_owned());
            }
        }
        // More tasks than that are memory that no machine has; and what shares are computed with stays small.
        for (key, value) in [
            ("max_concurrent", self.max_concurrent),
            ("max_concurrent_queries", self.max_concurrent_queries),
            ("max_concurrent_submits", self.max_concurrent_submits),
        ] {
            if value > 1_000_000 {
                return wrong(key, "must be at most 1000000".to_owned());
            }
        }
        if self.ping_interval_ms == 0 {
            return wrong("ping_interval_ms", "must be at least 1".to_owned());
        }
        if self.max_deliver == 0 {
            return wrong("max_deliver", "must be at least 1".to_owned());
        }
        if self.ack_wait_ms < 500 {
            return wrong("ack_wait_ms", "must be at least 500: a sign takes a moment to arrive".to_owned());
        }
        self.streams.check()?;
        login::check(self)
    }

    /// Reads the files that the options name, as a connection would.
    pub fn check_files(&self) -> Result<(), Error> {
        login::connect_options(self).map(drop)
    }

    /// What one tenant may have of the queries: the same fraction as of the requests.
    pub(super) fn max_queries_per_tenant(&self) -> usize {
        let quota = self.max_concurrent_per_tenant.min(self.max_concurrent);
        (self.max_concurrent_queries * quota).div_ceil(self.max_concurrent)
    }

    pub(super) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    /// After how long without a sign the server takes a submit's worker for dead.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms)
    }

    pub(super) fn confirm_timeout(&self) -> Duration {
        Duration::from_millis(self.confirm_timeout_ms)
    }
}

/// As it may be shown.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

fn without_passwords<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(shown(urls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_prefix_that_opens_the_server_is_refused() {
        assert!(Options::default().check().is_ok());
        for bad in ["", ".", "$JS.", "replies", "a..b.", "*.x.", ">."] {
            let options = Options { reply_prefixes: vec![bad.to_owned()], ..Options::default() };
            assert!(matches!(options.check(), Err(Error::Option { key: "reply_prefixes", .. })), "{bad:?}");
        }
    }

    #[test]
    fn an_inbox_is_a_plain_subject() {
        let check = |prefix: &str| Options { inbox_prefix: prefix.to_owned(), ..Options::default() }.check();
        assert!(check("_INBOX.client").is_ok());
        for bad in ["", "_INBOX.", ".a", "_INBOX.*", ">", "$SYS", "a b", "a\r\nPUB x"] {
            assert!(matches!(check(bad), Err(Error::Option { key: "inbox_prefix", .. })), "{bad:?}");
        }
    }
}
