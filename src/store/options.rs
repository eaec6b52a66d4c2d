use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;

use crate::domain::record::hex;

/// Where the database is and how it is used.
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `sqlite:` and a path (`sqlite:/var/lib/tandem/tandem.db`, on a local disk), or
    /// `postgres://user:password@host:port/database`. Empty: a file in the data folder.
    // Whoever prints the configuration must not print the password.
    #[serde(serialize_with = "without_password")]
    pub url: String,
    /// Connections to PostgreSQL, at most. SQLite always has four for reading and one for writing.
    // The server's own default limit is 100: enough for several workers.
    pub max_connections: u32,
    /// What an acknowledged write survives: `process` (a killed worker) or `power` (a machine without power). With
    /// SQLite `power` costs a disk sync per transaction; PostgreSQL keeps to its own `synchronous_commit` with
    /// `process` and is told `on` with `power`.
    pub durability: Durability,
    /// How long a start waits for the database, and a query for a free connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// For how many days a client's `id` is remembered with its reply.
    pub replies_kept_days: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: String::new(),
            max_connections: 8,
            durability: Durability::default(),
            connect_timeout_ms: 5_000,
            // Longer than any queue holds a request for another try.
            replies_kept_days: 7,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The worker being killed.
    #[default]
    Process,
    /// The machine losing power.
    Power,
}

impl Options {
    /// Names the database in the names of files that belong to it.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::digest(place(&self.url));
        hex(&hash[..8])
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &place(&self.url))
            .field("max_connections", &self.max_connections)
            .field("durability", &self.durability)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("replies_kept_days", &self.replies_kept_days)
            .finish()
    }
}

/// The database that `url` names, as it may be shown. Put together from what is known to be no secret: a URL that
/// can't be read isn't shown at all, since a password may stand anywhere in it.
pub(super) fn place(url: &str) -> String {
    if url.is_empty() || url.starts_with("sqlite:") {
        return url.to_owned();
    }
    if !is_postgres(url) {
        return "the configured address".to_owned();
    }
    match PgConnectOptions::from_str(url) {
        Ok(to) => {
            let database = to.get_database().unwrap_or_else(|| to.get_username());
            format!("postgres://{}@{}:{}/{database}", to.get_username(), to.get_host(), to.get_port())
        }
        Err(_) => "postgres://…".to_owned(),
    }
}

pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&place(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown_wherever_it_stands() {
        for url in [
            "postgres://ann:hunter2@db.example:5432/tandem",
            "postgresql://ann:hunter2@db.example/tandem?sslmode=disable",
            "postgres://db.example/tandem?user=ann&password=hunter2",
            "postgres://ann:hun@ter2:hunter2@db.example:notaport/x",
            "mysql://ann:hunter2@db.example/x",
            "ann:hunter2@db.example",
        ] {
            let options = Options { url: url.to_owned(), ..Options::default() };
            let shown = format!("{options:?} {}", serde_json::to_string(&options).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(place("postgres://ann:hunter2@db.example/tandem"), "postgres://ann@db.example:5432/tandem");
    }
}
