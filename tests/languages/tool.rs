//! Running the languages' tools.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tandem::coordinator::evaluate::first_error;

use crate::Rendered;
use crate::table::Table;

/// Whether a program is on the PATH.
pub fn on_path(program: &str) -> bool {
    let path = std::env::vars_os().find(|(name, _)| name == "PATH").map(|(_, path)| path).unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The program, which `scripts/setup --languages` installs. Panics where it is not there.
pub fn needed(program: impl AsRef<Path>) -> PathBuf {
    let program = program.as_ref();
    let there = program.is_file() || (program.components().count() == 1 && on_path(&program.to_string_lossy()));
    assert!(there, "there is no {}: run scripts/setup --languages", program.display());
    program.to_owned()
}

/// A command without standard input, in `folder`.
pub fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs it to its end and returns what it printed: standard output, then standard error.
pub fn output(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.success(), said)
}

/// Writes a text below `folder`, with the folders on the way.
pub fn write(folder: &Path, file: &str, text: &str) -> PathBuf {
    let path = folder.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Compilers go by the time of a file: one that is as it was stays.
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return path;
    }
    std::fs::write(&path, text).unwrap();
    path
}

/// The rendering that a tool's line speaks of, by the unique name in the path it shows.
pub fn spoken_of<'a>(line: &str, rendered: impl IntoIterator<Item = &'a Rendered>) -> Option<&'a Rendered> {
    // The longest name wins: one may begin with another.
    rendered.into_iter().filter(|one| line.contains(&one.unique())).max_by_key(|one| one.unique().len())
}

/// Empties a folder below the target folder, or makes it.
pub fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(name);
    let _absent = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The least that can be said of a text: that the grammar of its language takes it.
pub fn parse(rendered: &[Rendered], table: &mut Table) {
    for one in rendered {
        table.checked("grammar", one);
        if let Some(error) = first_error(&one.text, &one.language, one.file.as_deref()) {
            table.complain("grammar", one, &error.to_string());
        }
    }
}
