//! The files that embedding needs, checked before anything of them is run.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::Error;

/// A file and what it must be.
pub(super) struct Asset {
    /// Below the assets folder.
    pub(super) path: &'static str,
    /// `None` where none is pinned for this machine's architecture.
    pub(super) sha256: Option<&'static str>,
}

pub(super) const RUNTIME: Asset = Asset {
    path: "onnxruntime/libonnxruntime.so",
    sha256: if cfg!(target_arch = "x86_64") {
        Some("fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3")
    } else {
        None
    },
};
pub(super) const MODEL: Asset = Asset {
    path: "embedding/model.onnx",
    sha256: Some("8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"),
};
pub(super) const TOKENIZER: Asset = Asset {
    path: "embedding/tokenizer.json",
    sha256: Some("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
};

impl Asset {
    /// The file's path, once it is known to be the right file. A library is run by opening it and a damaged one may
    /// end the process, so this reads the whole file; a stamp beside it (`.verified`: hash, size, time of change)
    /// spares the next start the reading. The stamp guards against damage, not against somebody who may write there.
    pub(super) fn verified(&self, assets: &Path) -> Result<PathBuf, Error> {
        let file = assets.join(self.path);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { file: file.clone() },
            _ => Error::Read { file: file.clone(), source: Arc::new(source) },
        };
        let meta = fs::metadata(&file).map_err(failed)?;
        if !meta.is_file() {
            return Err(Error::Damaged { file, why: "it is no file".into() });
        }
        let Some(expected) = self.sha256 else {
            tracing::warn!(asset.file = %file.display(), "no hash is pinned for this architecture: not verified");
            return Ok(file);
        };
        let changed =
            meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        let stamp = format!("{expected} {} {changed}\n", meta.len());
        let stamp_file = stamp_beside(&file);
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(file);
        }
        let found = sha256(&file).map_err(failed)?;
        if found != expected {
            let why = format!("sha256 {found} instead of {expected}, {} bytes", meta.len());
            return Err(Error::Damaged { file, why });
        }
        // A folder that can't be written to costs the reading at every start, nothing else.
        if let Err(error) = fs::write(&stamp_file, stamp) {
            tracing::debug!(asset.file = %file.display(), %error, "the stamp could not be written");
        }
        Ok(file)
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

    /// sha256 of "right".
    const RIGHT: Asset =
        Asset { path: "some/file", sha256: Some("27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9") };

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
        let error = RIGHT.verified(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
        assert!(error.to_string().contains("some/file") && error.to_string().contains("./scripts/setup"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_even_if_it_was_right_before() {
        let folder = folder(Some("right"));
        RIGHT.verified(folder.path()).unwrap();
        let stamp = stamp_beside(&folder.path().join("some/file"));
        assert!(stamp.exists(), "the next start need not read it");
        RIGHT.verified(folder.path()).unwrap();
        fs::write(folder.path().join("some/file"), "wrong!").unwrap();
        let error = RIGHT.verified(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_folder_in_place_of_the_file_is_damaged() {
        let folder = folder(None);
        fs::create_dir(folder.path().join("some/file")).unwrap();
        assert!(matches!(RIGHT.verified(folder.path()), Err(Error::Damaged { .. })));
    }
}
