//! The files that embedding needs, checked before anything of them is run.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Error;

/// What the files must be: the list that `scripts/setup` fetched them by.
const PINS: &str = include_str!("../../config/assets.toml");

/// The three files that embedding needs.
#[derive(Deserialize)]
pub(super) struct Assets {
    #[serde(rename = "onnxruntime")]
    pub(super) runtime: Asset,
    pub(super) model: Asset,
    pub(super) tokenizer: Asset,
}

/// A file below the assets folder.
#[derive(Deserialize)]
pub(super) struct Asset {
    target: String,
    /// The same for every machine, or one for each architecture.
    any: Option<Pin>,
    x86_64: Option<Pin>,
    aarch64: Option<Pin>,
}

#[derive(Deserialize)]
struct Pin {
    sha256: String,
    bytes: u64,
}

impl Assets {
    pub(super) fn pinned() -> Result<Self, Error> {
        toml::from_str(PINS).map_err(|source| Error::Pins { source: Arc::new(source) })
    }
}

impl Asset {
    /// The file's path, once it is known to be the right file. A library is run by opening it and a damaged one may
    /// end the process, so this reads the whole file; a stamp beside it (`.verified`: hash, size, time of change)
    /// spares the next start the reading. The stamp guards against damage, not against somebody who may write there.
    pub(super) fn verified(&self, assets: &Path) -> Result<PathBuf, Error> {
        let file = assets.join(&self.target);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { file: file.clone() },
            _ => Error::Read { file: file.clone(), source: Arc::new(source) },
        };
        let meta = fs::metadata(&file).map_err(failed)?;
        let Some(pin) = self.pin() else {
            tracing::warn!(asset.file = %file.display(), "no hash is pinned for this architecture: not verified");
            return Ok(file);
        };
        if !meta.is_file() || meta.len() != pin.bytes {
            return Err(Error::Damaged { why: format!("{} bytes instead of {}", meta.len(), pin.bytes), file });
        }
        let changed =
            meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        let stamp = format!("{} {} {changed}\n", pin.sha256, meta.len());
        let stamp_file = stamp_beside(&file);
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(file);
        }
        let found = sha256(&file).map_err(failed)?;
        if found != pin.sha256 {
            return Err(Error::Damaged { why: format!("sha256 {found} instead of {}", pin.sha256), file });
        }
        // A folder that can't be written to costs the reading at every start, nothing else.
        if let Err(error) = fs::write(&stamp_file, stamp) {
            tracing::debug!(asset.file = %file.display(), %error, "the stamp could not be written");
        }
        Ok(file)
    }

    fn pin(&self) -> Option<&Pin> {
        self.any.as_ref().or(match std::env::consts::ARCH {
            "x86_64" => self.x86_64.as_ref(),
            "aarch64" => self.aarch64.as_ref(),
            _ => None,
        })
    }
}

fn stamp_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".verified");
    name.into()
}

fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(file)?, Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that holds "right".
    fn right() -> Asset {
        let sha256 = "27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9".to_owned();
        Asset { target: "some/file".into(), any: Some(Pin { sha256, bytes: 5 }), x86_64: None, aarch64: None }
    }

    fn folder(content: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("some")).unwrap();
        if let Some(content) = content {
            fs::write(folder.path().join("some/file"), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_missing_file_is_named_with_the_mend() {
        let folder = folder(None);
        let error = right().verified(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
        assert!(error.to_string().contains("some/file") && error.to_string().contains("./scripts/setup"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_even_if_it_was_right_before() {
        let folder = folder(Some("right"));
        right().verified(folder.path()).unwrap();
        let stamp = stamp_beside(&folder.path().join("some/file"));
        assert!(stamp.exists(), "the next start need not read it");
        right().verified(folder.path()).unwrap();
        fs::write(folder.path().join("some/file"), "wrong").unwrap();
        let error = right().verified(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }

    #[test]
    fn the_list_that_setup_uses_pins_every_file_for_both_architectures() {
        let assets = Assets::pinned().unwrap();
        for asset in [assets.runtime, assets.model, assets.tokenizer] {
            assert!(asset.any.is_some() || (asset.x86_64.is_some() && asset.aarch64.is_some()), "{}", asset.target);
        }
    }

    #[test]
    fn a_folder_in_place_of_the_file_is_damaged() {
        let folder = folder(None);
        fs::create_dir(folder.path().join("some/file")).unwrap();
        assert!(matches!(right().verified(folder.path()), Err(Error::Damaged { .. })));
    }
}
