//! Rust: by default rustfmt's parser, which is the compiler's; in the full run clippy with the real crates over every
//! rendering as a module of one crate, and the tests that the renderings bring.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::nats::Nats;
use crate::postgres::Postgres;
use crate::table::Table;
use crate::{Rendered, full, root, tool};

/// The sets whose tests are compiled and run: they differ in what the tests do, the others only in names.
const TESTED: [&str; 6] = ["ordinary", "details", "unique", "sizes", "uncountable", "named_type"];

pub fn check(rendered: &[Rendered], table: &mut Table) {
    let folder = written(rendered);
    syntax(rendered, &folder, table);
    if full() {
        clippy(rendered, &folder, table);
        tests(rendered, &folder, table);
    }
}

/// A crate with every rendering as a module. Returns its folder, which stays, so that cargo compiles only what changed.
fn written(code: &[Rendered]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages/rust");
    let crates = root().join("tests/languages/rust-crates");
    for name in ["Cargo.toml", "Cargo.lock"] {
        tool::write(&folder, name, &std::fs::read_to_string(crates.join(name)).unwrap());
    }
    // Else clippy takes this repository's, which is not for strangers' code.
    tool::write(&folder, "clippy.toml", "");
    let mut modules = String::new();
    for one in code {
        let attribute = if TESTED.contains(&one.set) { "" } else { "#[cfg(not(test))]\n" };
        modules.push_str(&format!("{attribute}pub mod {};\n", one.unique()));
        let mut text = one.text.clone();
        // A program's `main` is called by nobody here: without this all of it would be dead code.
        if text.lines().any(|line| line.starts_with("fn main(") || line.starts_with("async fn main(")) {
            text.push_str("\n#[allow(clippy::let_unit_value)]\npub fn call_of_main() {\n    let _ = main();\n}\n");
        } else if text.lines().any(|line| line.starts_with("criterion_main!(")) {
            text.push_str("\npub fn call_of_main() {\n    main();\n}\n");
        }
        tool::write(&folder, &source(one), &text);
    }
    tool::write(&folder, "src/lib.rs", &modules);
    folder
}

fn source(one: &Rendered) -> String {
    format!("src/{}.rs", one.unique())
}

fn syntax(code: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "rustfmt (syntax)";
    table.checked_all(TOOL, code);
    let mut rustfmt = tool::command("rustfmt", folder);
    rustfmt.args(["--edition", "2024", "--emit", "stdout", "--quiet"]).args(code.iter().map(source));
    let done = rustfmt.output().expect("run rustfmt");
    let said = String::from_utf8_lossy(&done.stderr);
    for error in said.split("\n\n").filter(|error| !error.trim().is_empty()) {
        table.complain(TOOL, tool::spoken_of(error, code).unwrap_or_else(|| panic!("{error}")), error);
    }
    assert!(done.status.success() || !said.is_empty(), "rustfmt failed without a word");
}

fn clippy(code: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "clippy with the real crates";
    table.checked_all(TOOL, code);
    let done = cargo("clippy", folder).args(["--lib", "--message-format=json"]).output().expect("run cargo clippy");
    let mut complaints = 0;
    for message in String::from_utf8_lossy(&done.stdout).lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
        let spans = message["message"]["spans"].as_array().map_or(&[][..], Vec::as_slice);
        let file = spans.iter().find(|span| span["is_primary"] == true).and_then(|span| span["file_name"].as_str());
        if let Some(one) = file.and_then(|file| tool::spoken_of(file, code)) {
            complaints += 1;
            table.complain(TOOL, one, message["message"]["rendered"].as_str().unwrap_or_default());
        }
    }
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() || complaints > 0, "cargo clippy: {said}");
}

/// Runs what the renderings have as tests, with a PostgreSQL and a nats-server for those that need one.
fn tests(code: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "cargo test";
    let postgres = Postgres::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nats = runtime.block_on(Nats::start());
    let mut test = cargo("test", folder);
    test.args(["--lib", "--", "--include-ignored", "--test-threads=1"]).env("DATABASE_URL", postgres.url());
    test.env("NATS_URL", nats.server.url());
    let (_, said) = tool::output(&mut test);
    runtime.block_on(nats.server.stop()).unwrap();
    let mut run = BTreeSet::new();
    let outcomes = said.lines().filter_map(|line| line.strip_prefix("test ")?.rsplit_once(" ... "));
    for (name, outcome) in outcomes {
        let one = tool::spoken_of(name, code).unwrap_or_else(|| panic!("{name}"));
        run.insert(one.unique());
        if outcome != "ok" {
            let begin = said.find(&format!("---- {} stdout ----", name.split(' ').next().unwrap_or(name)));
            let why = begin.map_or("", |at| said[at..].split("\n\n---- ").next().unwrap_or_default());
            table.complain(TOOL, one, &format!("{name}: {outcome}\n{why}"));
        }
    }
    assert!(!run.is_empty() || code.iter().all(|one| !one.text.contains("#[test]")), "cargo test: {said}");
    for one in code.iter().filter(|one| TESTED.contains(&one.set)) {
        if run.contains(&one.unique()) {
            table.checked(TOOL, one);
        } else if one.text.contains("#[cfg(test)]") {
            table.complain(TOOL, one, "it has tests, and none was run");
        } else {
            table.not_checked(TOOL, &one.template, "it has no tests");
        }
    }
}

/// Cargo for the crate of renderings, with a target folder that keeps its dependencies.
fn cargo(command: &str, folder: &Path) -> Command {
    let mut cargo = tool::command("cargo", folder);
    cargo.arg(command).arg("--locked").args(["--color", "never", "--target-dir", "../rust-target"]);
    cargo
}
