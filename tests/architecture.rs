//! Reads the imports of every file in `src` and fails where a room reaches up, sideways, or for a crate that is another
//! room's. The rooms and their floors are those of `ARCHITECTURE.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

#[path = "support/rust_source.rs"]
mod rust_source;

use rust_source::{Import, Source};

/// A room imports only rooms on lower floors. Rooms on one floor never import each other.
const FLOORS: [(&str, u8); 15] = [
    ("cli", 11),
    ("app", 10),
    ("config", 9),
    ("bus", 8),
    ("http", 8),
    ("pipeline", 7),
    ("workflow", 5),
    ("coordinator", 4),
    ("llm", 3),
    ("cache", 3),
    ("store", 2),
    ("embed", 2),
    ("retry", 1),
    ("telemetry", 1),
    ("domain", 0),
];

/// What only some rooms may name, and why.
const RESERVED: [(&str, &[&str], &str); 8] = [
    ("sqlx", &["store"], "all SQL is in store"),
    ("async_nats", &["bus", "app"], "nothing but the doors and the wiring knows of NATS"),
    ("reqwest", &["llm", "telemetry"], "there is one way to call a model, and one to a collector of traces"),
    ("axum", &["http"], "one room speaks HTTP to operators"),
    ("metrics_exporter_prometheus", &["telemetry"], "names of figures stand in one place"),
    ("opentelemetry", &["telemetry"], "what leaves for a collector is decided in one place"),
    ("std::env", &["config"], "the environment is read once, by config"),
    (
        "serde_json::Value",
        // bus: what strangers send; config: the generated reference; cli: prints an answer as it came; llm: what
        // providers send.
        &["bus", "config", "cli", "llm"],
        "inside, data has types",
    ),
];

/// Below a reserved path, and harmless: it is known when the worker is built.
const EXEMPT: &[&str] = &["std::env::consts"];

/// What ends a worker. Tests may.
const PANICS: [&str; 6] = [".unwrap(", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!"];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.rule)
    }
}

#[test]
fn every_room_imports_only_lower_rooms_and_its_own_crates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files(&root);
    assert!(files.len() > 50, "only {} files were found in {}", files.len(), root.display());
    let mut found = vec![];
    for (name, text) in &files {
        found.extend(check(name, text));
    }
    let list: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), list.join("\n"));
}

#[test]
fn the_table_of_floors_names_the_rooms_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: BTreeSet<String> = files(&root).iter().filter_map(|(name, _)| room_of(name)).collect();
    let named: BTreeSet<String> = FLOORS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, named);
}

#[test]
fn the_map_shows_the_same_floors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).unwrap();
    let map = text.split("\n## The map").nth(1).unwrap().split("\n## ").next().unwrap();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let floor: u8 = cells.next()?.parse().ok()?;
        Some((cells.next()?.trim_matches('`').to_owned(), floor))
    };
    let shown: BTreeSet<(String, u8)> = map.lines().filter_map(row).collect();
    assert_eq!(shown, FLOORS.map(|(room, floor)| (room.to_owned(), floor)).into());
}

/// All `.rs` files below `root` but modules that are tests, by their path below it.
fn files(root: &Path) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let tests: BTreeSet<String> = found.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
    found.retain(|(name, _)| !tests.contains(name));
    found.sort();
    found
}

/// The files that `#[cfg(test)] mod name;` in this file names.
fn test_modules(name: &str, text: &str) -> Vec<String> {
    let folder = match name.rsplit_once('/') {
        Some((folder, "mod.rs")) => format!("{folder}/"),
        None if matches!(name, "lib.rs" | "main.rs") => String::new(),
        _ => format!("{}/", name.trim_end_matches(".rs")),
    };
    let modules = Source::read(text).test_modules;
    modules.iter().flat_map(|m| [format!("{folder}{m}.rs"), format!("{folder}{m}/mod.rs")]).collect()
}

/// The room that a file belongs to. `main.rs` is the thin end of the command line; `lib.rs` only lists the rooms.
fn room_of(name: &str) -> Option<String> {
    match name {
        "lib.rs" => None,
        "main.rs" => Some("cli".to_owned()),
        _ => Some(name.split('/').next().unwrap_or(name).trim_end_matches(".rs").to_owned()),
    }
}

/// Where a file stands in the tree of modules: `bus/wire/request.rs` is `["bus", "wire", "request"]`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => vec![],
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// What is wrong in one file; `name` is its path below `src`.
fn check(name: &str, text: &str) -> Vec<Violation> {
    let Some(room) = room_of(name) else { return vec![] };
    let source = Source::read(text);
    let mut found = BTreeSet::new();
    let mut wrong = |line: usize, rule: String| {
        found.insert(Violation { file: name.to_owned(), line, rule });
    };
    let Some(own) = floor(&room) else {
        wrong(1, format!("{room} is no room with a floor: add it to tests/architecture.rs and ARCHITECTURE.md"));
        return found.into_iter().collect();
    };
    for import in source.imports(&module_of(name)) {
        let Import { line, path } = import;
        match path.first().map(String::as_str) {
            None | Some("*" | "as") => {
                wrong(line, "the whole crate is imported or renamed: name the room".to_owned());
            }
            Some(other) if other != room => match floor(other) {
                Some(floor) if floor > own => {
                    wrong(line, format!("{room} (floor {own}) imports {other} (floor {floor}): never upward"));
                }
                Some(floor) if floor == own => {
                    wrong(line, format!("{room} imports {other}, both on floor {own}: never sideways"));
                }
                Some(_) => {}
                None => wrong(line, format!("{room} imports {other}, which is no room with a floor")),
            },
            Some(_) => {}
        }
    }
    for (what, rooms, why) in RESERVED {
        if !rooms.contains(&room.as_str()) {
            for line in source.lines_naming(what, EXEMPT) {
                wrong(line, format!("{what} in {room}: {why} (allowed in {})", rooms.join(", ")));
            }
        }
    }
    for what in PANICS {
        for line in source.lines_with(what) {
            wrong(line, format!("`{what}` outside tests: return an error"));
        }
    }
    found.into_iter().collect()
}

/// The checker on made-up files: each must be caught, by line.
mod checker {
    use super::{check, test_modules};

    #[track_caller]
    fn caught(name: &str, text: &str, line: usize, says: &str) {
        let found = check(name, text);
        let right = found.iter().any(|v| v.line == line && v.rule.contains(says));
        assert!(right, "{name}: nothing on line {line} says {says:?}: {found:?}");
    }

    #[track_caller]
    fn clean(name: &str, text: &str) {
        assert_eq!(check(name, text), []);
    }

    #[test]
    fn an_upward_import_is_caught_however_it_is_written() {
        for text in [
            "use crate::bus::Door;",
            "use crate::{domain::Goal, bus::{self, Door}};",
            "use crate::{\n    domain,\n    bus,\n};",
            "pub use crate::bus::wire::Request as R;",
            "fn f(d: &crate::bus::Door) {}",
            "fn f() { crate :: bus :: connect(); }",
            "use super::bus::Door;",
            "macro_rules! m { () => { $crate::bus::connect() } }",
            "use tandem::bus::Door;",
            "use {crate::domain::Goal, crate::bus::Door};",
            "impl From<crate::bus::Error> for E {}",
        ] {
            let line = 1 + text[..text.find("bus").unwrap()].matches('\n').count();
            caught("cache/mod.rs", text, line, "cache (floor 3) imports bus (floor 8)");
        }
    }

    #[test]
    fn climbing_out_by_super_is_caught() {
        caught("cache/guards.rs", "use super::super::pipeline::Pipeline;", 1, "imports pipeline");
        caught("bus/wire/request.rs", "use super::super::super::app::serve;", 1, "imports app");
        caught("cache/guards.rs", "mod inner {\n use super::super::super::app::serve;\n}", 2, "imports app");
        clean("bus/wire/request.rs", "use super::super::reply::Back;\nuse super::fields::Fields;");
        clean("cache/guards.rs", "mod inner {\n use super::super::entries::Entries;\n}");
    }

    #[test]
    fn a_sideways_import_is_caught() {
        caught("cache/mod.rs", "\nuse crate::llm::Client;", 2, "never sideways");
        caught("store/rows.rs", "use crate::embed::Embedder;", 1, "never sideways");
        clean("main.rs", "fn main() -> std::process::ExitCode { tandem::cli::run() }");
    }

    #[test]
    fn a_room_without_a_floor_is_caught() {
        caught("sessions/mod.rs", "use crate::domain::Goal;", 1, "no room with a floor");
        caught("pipeline/mod.rs", "use crate::helpers::x;", 1, "no room with a floor");
    }

    #[test]
    fn renaming_or_globbing_the_crate_is_caught() {
        caught("cache/mod.rs", "use crate as c;", 1, "name the room");
        caught("cache/mod.rs", "use crate::*;", 1, "name the room");
        caught("cache/guards.rs", "use super::super::*;", 1, "name the room");
        clean("cache/guards.rs", "use super::*;\npub(crate) fn f() {}\npub(in crate::cache) fn g() {}");
    }

    #[test]
    fn another_rooms_crate_is_caught() {
        caught("pipeline/mod.rs", "use sqlx::query;", 1, "all SQL is in store");
        caught("pipeline/mod.rs", "fn f() {\n    let _ = sqlx::query(\"x\");\n}", 2, "all SQL is in store");
        caught("cache/mod.rs", "use async_nats as n;", 1, "NATS");
        caught("cli/client.rs", "fn f(c: async_nats::Client) {}", 1, "NATS");
        caught("coordinator/mod.rs", "use reqwest::Client;", 1, "one way to call a model");
        caught("bus/door.rs", "use axum::Router;", 1, "one room speaks HTTP");
        caught("bus/door.rs", "use opentelemetry::Context;", 1, "decided in one place");
        caught("app/mod.rs", "fn f() { std::env::vars(); }", 1, "the environment is read once");
        caught("app/mod.rs", "use std::env;", 1, "the environment is read once");
        clean("app/mod.rs", "const A: &str = std::env::consts::ARCH;");
        caught("app/mod.rs", "use std::{fs, env::{self, var}};", 1, "the environment is read once");
        caught("coordinator/agent.rs", "use serde_json::{Map, Value};", 1, "data has types");
        caught("coordinator/agent.rs", "fn f(v: &serde_json::Value) {}", 1, "data has types");
        clean("store/open.rs", "use sqlx::query;");
        clean("bus/mod.rs", "use serde_json::Value;\nuse async_nats::Client;");
        clean("coordinator/agent.rs", "fn f() { serde_json::to_string(&1).ok(); }\nuse super::slots::Value;");
        clean("llm/http.rs", "const V: &str = env!(\"CARGO_PKG_VERSION\");\nuse std::{fs, path};");
    }

    #[test]
    fn a_panic_outside_tests_is_caught() {
        caught("cache/mod.rs", "fn f(x: Option<u8>) -> u8 {\n    x\n        .unwrap()\n}", 3, ".unwrap(");
        caught("cache/mod.rs", "fn f(x: Option<u8>) -> u8 { x.expect(\"there\") }", 1, ".expect(");
        caught("cache/mod.rs", "fn f() { todo!() }", 1, "todo!");
        clean("cache/mod.rs", "fn f(x: Option<u8>) -> u8 { x.unwrap_or(1) }");
        clean(
            "cache/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::bus::Door;\n    fn f() { None::<u8>.unwrap(); }\n}",
        );
        caught("cache/mod.rs", "#[cfg(test)]\nmod tests { fn a() {} }\nfn f() { panic!() }", 3, "panic!");
        clean("cache/mod.rs", "#[cfg(test)]\nfn helper() { None::<u8>.unwrap(); }\nfn f() {}");
        caught("cache/mod.rs", "#[cfg(test)]\nuse std::fmt;\nfn f() { panic!() }", 3, "panic!");
        caught("cache/mod.rs", "#[cfg(not(test))]\nfn f() { panic!() }", 2, "panic!");
    }

    #[test]
    fn text_and_comments_are_no_code() {
        clean(
            "cache/mod.rs",
            "//! See crate::bus::Door.\n/* use crate::bus; /* .unwrap() */ */\nconst A: &str = \"use crate::bus;\";",
        );
        clean("cache/mod.rs", "const A: &str = r#\"crate::bus \" .unwrap()\"#;\nconst B: &[u8] = b\"crate::bus\";");
        clean("cache/mod.rs", "const C: char = '\"'; const D: &str = \"\\\"crate::bus\"; fn f<'a>(x: &'a str) {}");
        caught(
            "cache/mod.rs",
            "const C: char = '\\''; use crate::bus::Door; const D: char = '\\u{22}';",
            1,
            "imports bus",
        );
        caught("cache/mod.rs", "const A: &str = \"\n\n\";\nuse crate::bus::Door;", 4, "imports bus");
    }

    #[test]
    fn modules_that_are_tests_are_found() {
        let text = "mod a;\n#[cfg(test)]\nmod tests;\nmod b;";
        assert_eq!(test_modules("cache/mod.rs", text), ["cache/tests.rs", "cache/tests/mod.rs"]);
        assert_eq!(test_modules("bus/wire.rs", text), ["bus/wire/tests.rs", "bus/wire/tests/mod.rs"]);
    }
}
