//! `--out DIR`: an answer's files, written where they belong.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::Error;
use crate::bus::wire::Response;
use crate::domain::Language;

/// Where an answer's files go.
#[derive(Debug, Args)]
pub(super) struct Out {
    /// Write the answer's files below this folder instead of printing them: never outside it, never over a file.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// With --out: write over files that are there. A manifest that is there is kept in any case.
    #[arg(long, requires = "out")]
    force: bool,
}

/// One file to write.
struct Planned<'a> {
    path: PathBuf,
    text: Cow<'a, str>,
    /// Belongs to the project as a whole: what is there of it is kept.
    shared: bool,
}

impl Out {
    pub(super) fn is_wanted(&self) -> bool {
        self.out.is_some()
    }

    /// Writes the files of what was done, and prints their paths: all of them, or none where one can't be. What was
    /// not done has no file.
    pub(super) fn write(&self, response: &Response, json: bool) -> Result<(), Error> {
        let Some(folder) = &self.out else { return Ok(()) };
        let failed = |what: &Path, error: std::io::Error| Error::Usage(format!("--out: {}: {error}", what.display()));
        std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
        let folder = &folder.canonicalize().map_err(|e| failed(folder, e))?;
        let mut planned = vec![];
        let mut there = vec![];
        for file in files(response)? {
            let path = folder.join(&file.path);
            check_place(folder, &path)?;
            if path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
                return Err(Error::Usage(format!("--out: nothing was written, {} is a folder", path.display())));
            }
            if path.symlink_metadata().is_err() {
                planned.push((file, path));
            } else if file.shared {
                eprintln!("kept {}, which is there; the answer's is in its JSON under `project`", file.path.display());
            } else if self.force {
                planned.push((file, path));
            } else {
                there.push(file.path.display().to_string());
            }
        }
        if !there.is_empty() {
            let there = there.join(", ");
            return Err(Error::Usage(format!(
                "--out: nothing was written, {there} is there already; --force writes over it"
            )));
        }
        for (file, path) in planned {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
            }
            replace(&path, &file.text).map_err(|e| failed(&path, e))?;
            // Standard output is the answer's with --json.
            if json {
                eprintln!("{}", path.display());
            } else {
                say!("{}", path.display());
            }
        }
        Ok(())
    }
}

/// A new file in place of what is there: a link is replaced, not followed, and the old file stays until the new one is
/// whole.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_file_name(format!(".tandem-{}", uuid::Uuid::now_v7()));
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside);
    let done =
        written.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    done
}

fn files(response: &Response) -> Result<Vec<Planned<'_>>, Error> {
    let mut found: Vec<Planned<'_>> = vec![];
    let mut add = |path: Option<&str>, otherwise: &str, text, shared| -> Result<(), Error> {
        let extension = extension(&response.language);
        let path = path.map_or_else(|| PathBuf::from(format!("{otherwise}.{extension}")), PathBuf::from);
        if !is_inside(&path) {
            return Err(Error::Usage(format!(
                "--out: nothing was written, the answer names {path:?} as a file's place"
            )));
        }
        if let Some(other) =
            found.iter().find(|f| f.path != path && (f.path.starts_with(&path) || path.starts_with(&f.path)))
        {
            let other = other.path.display();
            return Err(Error::Usage(format!("--out: nothing was written, {path:?} and {other} can't both be files")));
        }
        if found.iter().all(|f| f.path != path) {
            found.push(Planned { path, text, shared });
        }
        Ok(())
    };
    // What a template left something out of is code all the same; `reason` says what is missing.
    if response.parts.is_empty() && (response.metrics.success || !response.left_out.is_empty()) {
        add(response.file.as_deref(), "answer", response.result.get(), false)?;
    }
    for part in response.parts.iter().filter(|part| part.metrics.success || !part.left_out.is_empty()) {
        add(part.file.as_deref(), &part.id, part.result.get(), false)?;
    }
    for file in &response.project {
        add(Some(&file.path), "", Cow::Borrowed(&*file.text), true)?;
    }
    Ok(found)
}

/// Names only, and nothing that git would run. What a worker says is from outside, too.
fn is_inside(path: &Path) -> bool {
    let sound = |step: &str| {
        !step.eq_ignore_ascii_case(".git") && !step.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
    };
    path.components().count() > 0
        && path.components().all(|c| matches!(c, Component::Normal(step) if step.to_str().is_some_and(sound)))
}

/// No folder on the way may be a link that leads out.
fn check_place(folder: &Path, path: &Path) -> Result<(), Error> {
    let there = path.ancestors().skip(1).find(|p| p.symlink_metadata().is_ok());
    let real = there.and_then(|p| p.canonicalize().ok());
    if real.is_some_and(|real| real.starts_with(folder) && real.is_dir()) {
        return Ok(());
    }
    Err(Error::Usage(format!("--out: nothing was written, {} is not below {}", path.display(), folder.display())))
}

fn extension(language: &str) -> &'static str {
    match Language::named(language) {
        Some(Language::Elixir) => "ex",
        Some(Language::Rust) => "rs",
        Some(Language::TypeScript) => "ts",
        Some(Language::Go) => "go",
        Some(Language::Python) => "py",
        Some(Language::JavaScript) => "js",
        Some(Language::Sql) => "sql",
        Some(Language::Other(_)) | None => "txt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_below_the_folder_are_places() {
        for good in ["src/orders.rs", "Cargo.toml", ".github/workflows/ci.yml"] {
            assert!(is_inside(Path::new(good)), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "./x",
            ".git/hooks/pre-commit",
            ".GIT/config",
            "a\\b",
            "c:x",
            "a\nb",
        ] {
            assert!(!is_inside(Path::new(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("src")).unwrap();
        assert!(check_place(&root, &root.join("src/a/b.rs")).is_err());
        assert!(check_place(&root, &root.join("lib/a/b.rs")).is_ok());
        // A file that is a link is replaced by --force; what it points to stays as it was.
        let target = outside.path().join("kept");
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, root.join("main.rs")).unwrap();
        replace(&root.join("main.rs"), "new").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
        assert_eq!(std::fs::read_to_string(root.join("main.rs")).unwrap(), "new");
    }

    fn answer(files: &[&str], project: serde_json::Value) -> Response {
        let metrics = serde_json::json!({"time_ms": 1.0, "tokens_used": 0, "cost_usd": 0.0, "cache_hit": false,
            "quality": 1.0, "success": true});
        let part = |file: &&str| {
            serde_json::json!({"id": "root.1", "description": "a part", "depends_on": [], "method": "autonomous",
                "template_used": null, "model_used": "autonomous", "file": file, "result": "new", "metrics": metrics})
        };
        let parts: Vec<_> = files.iter().map(part).collect();
        serde_json::from_value(serde_json::json!({"result": "all", "template_used": null, "model_used": "autonomous",
            "method": "autonomous", "metrics": metrics, "correlation_id": "exec_1", "language": "rust",
            "task_type": "general", "parts": parts, "project": project}))
        .unwrap()
    }

    #[test]
    fn nothing_is_written_where_one_file_cannot_be() {
        let none = serde_json::json!([]);
        let folder = tempfile::tempdir().unwrap();
        let out = |force| Out { out: Some(folder.path().to_owned()), force };
        let written = || std::fs::read_dir(folder.path()).unwrap().count();

        let clash = answer(&["src", "src/main.rs"], none.clone());
        assert!(out(true).write(&clash, true).unwrap_err().to_string().contains("can't both be files"));
        let outside = answer(&["src/main.rs", "../x"], none.clone());
        assert!(out(true).write(&outside, true).unwrap_err().to_string().contains("nothing was written"));
        assert_eq!(written(), 0);

        std::fs::create_dir(folder.path().join("lib.rs")).unwrap();
        let onto_a_folder = answer(&["src/main.rs", "lib.rs"], none.clone());
        assert!(out(true).write(&onto_a_folder, true).unwrap_err().to_string().contains("is a folder"));
        assert_eq!(written(), 1);

        // A file that is there stops all but with --force; a manifest that is there is kept in any case.
        std::fs::write(folder.path().join("main.rs"), "mine").unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), "mine").unwrap();
        let manifest = serde_json::json!([{"path": "Cargo.toml", "text": "theirs"}]);
        let good = answer(&["src/orders.rs", "main.rs"], manifest);
        assert!(out(false).write(&good, true).unwrap_err().to_string().contains("main.rs is there already"));
        assert_eq!(written(), 3);
        out(true).write(&good, true).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((&*read("main.rs"), &*read("src/orders.rs"), &*read("Cargo.toml")), ("new", "new", "mine"));
        assert_eq!(written(), 4, "nothing is left of how it was written");
    }
}
