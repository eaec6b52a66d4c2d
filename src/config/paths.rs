//! Where files lie: the XDG folders.

use std::path::{Path, PathBuf};

use super::Variables;

/// The folders of this user. Nothing is created here.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `$XDG_DATA_HOME/tandem`: the default database.
    pub data: PathBuf,
    /// `$XDG_STATE_HOME/tandem`: the own nats-server's files and address.
    pub state: PathBuf,
    /// Runtime, model and nats-server: `TANDEM_ASSETS`, else `.tandem/` where it stands, else the data folder.
    pub assets: PathBuf,
}

impl Paths {
    pub fn new(variables: &Variables) -> Self {
        // The specification has relative paths ignored.
        let set = |name: &str| variables.get(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = set("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let data = set("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("tandem");
        let state = set("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("tandem");
        let here = Path::new(".tandem");
        let assets = match variables.get("TANDEM_ASSETS").filter(|p| !p.is_empty()) {
            Some(path) => PathBuf::from(path),
            None if here.is_dir() => here.to_owned(),
            None => data.clone(),
        };
        Self { data, state, assets }
    }

    /// Where `serve --with-nats` tells the address of its server.
    pub fn nats_url(&self) -> PathBuf {
        self.state.join("nats.url")
    }
}
