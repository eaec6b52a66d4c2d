use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;

/// How this worker stands on NATS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Servers to connect to, the first that answers: `nats://host:4222` or `tls://host:4222`. User and password stand
    /// before the host (`nats://user:password@host`), or a token; the first that are given hold for all.
    pub urls: Vec<String>,
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
    /// How many messages of one subject may be on their way to this worker or wait in it to be read. Beyond that the
    /// server gives them to another worker or tells their senders at once that there is no responder; none is dropped.
    /// More is memory: with 65,536, the library's own limit, it grew by 700 MiB.
    pub subscription_capacity: usize,
    /// How often the server is asked whether it is there, in milliseconds.
    pub ping_interval_ms: u64,
    /// How long other workers are given to confirm that they withdrew a cached answer, in milliseconds.
    pub confirm_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
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
        for (key, value) in
            [("max_concurrent", self.max_concurrent), ("max_concurrent_queries", self.max_concurrent_queries)]
        {
            if value > 1_000_000 {
                return wrong(key, "must be at most 1000000".to_owned());
            }
        }
        if self.ping_interval_ms == 0 {
            return wrong("ping_interval_ms", "must be at least 1".to_owned());
        }
        Ok(())
    }

    /// What one tenant may have of the queries: the same fraction as of the requests.
    pub(super) fn max_queries_per_tenant(&self) -> usize {
        let quota = self.max_concurrent_per_tenant.min(self.max_concurrent);
        (self.max_concurrent_queries * quota).div_ceil(self.max_concurrent)
    }

    pub(super) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(super) fn confirm_timeout(&self) -> Duration {
        Duration::from_millis(self.confirm_timeout_ms)
    }
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
