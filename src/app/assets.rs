//! Where the files that `scripts/setup` fetched lie.

use std::path::PathBuf;

use crate::config::Paths;

/// The pinned nats-server.
pub(super) fn nats_server(paths: &Paths) -> PathBuf {
    paths.assets.join("bin/nats-server")
}
