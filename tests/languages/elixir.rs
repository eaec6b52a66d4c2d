//! Elixir: in the default run the grammar; in the full run the formatter, the compiler and ExUnit, where a rendering is
//! a test, has examples, or `elixir/behaviour` has a test for it. The libraries that most import can't be had without their registry: such a rendering is compiled against
//! `elixir/shapes.ex`, which declares what they use of each as its documentation does.

use std::path::{Path, PathBuf};

use crate::table::Table;
use crate::{Rendered, full, root, tool};

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
    if full() {
        let folder = tool::fresh("elixir");
        compile(rendered, &folder, table);
        tests(rendered, &folder, table);
    }
}

/// What the renderings use besides Elixir itself.
const LIBRARIES: [&str; 17] = [
    "Bandit",
    "Benchee",
    "Broadway",
    "Cachex",
    "Ecto",
    "ExUnitProperties",
    "Gnat",
    "Jason",
    "Mox",
    "NimbleCSV",
    "Oban",
    "Phoenix",
    "Plug",
    "Repo",
    "Req",
    "StreamData",
    "OffBroadway",
];

fn uses_libraries(one: &Rendered) -> bool {
    let named = |word: &str| LIBRARIES.contains(&word);
    one.text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(named))
}

/// Templates that stand on the context which another one makes of the same slots.
const ON_A_CONTEXT: [&str; 2] = ["elixir-api-endpoint-phoenix", "elixir-web-component"];

fn source(one: &Rendered) -> String {
    format!("{}/{}", one.unique(), one.file.as_deref().unwrap_or("lib/code.ex"))
}

fn compile(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    let compiler = |one: &Rendered| {
        if uses_libraries(one) { "elixirc, with the libraries' documented shapes" } else { "elixirc" }
    };
    let mut list = String::new();
    for one in rendered {
        tool::write(folder, &source(one), &one.text);
        list.push_str(&source(one));
        let context = |other: &&Rendered| other.template == "elixir-database" && other.set == one.set;
        if let (true, Some(context)) = (ON_A_CONTEXT.contains(&one.template.as_str()), rendered.iter().find(context)) {
            list.push('\t');
            list.push_str(&source(context));
        }
        list.push('\n');
    }
    tool::write(folder, "list", &list);
    let script = root().join("tests/languages/elixir/check.exs");
    let (success, said) = tool::output(tool::command(tool::needed("elixir"), folder).arg(script).arg("list"));
    let mut seen = 0;
    for line in said.lines() {
        let [path, name, what] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let one = tool::spoken_of(path, rendered).unwrap_or_else(|| panic!("{line}"));
        seen += 1;
        let name = if name == "elixirc" { compiler(one) } else { name };
        table.checked(name, one);
        if what != ":checked" {
            table.complain(name, one, &what.replace("\\n", "\n"));
        }
    }
    assert!(success && seen >= rendered.len(), "check.exs: {said}");
    for one in rendered.iter().filter(|one| is_script(one)) {
        table.not_checked(compiler(one), &one.template, "a script is read, not run");
    }
}

fn is_script(one: &Rendered) -> bool {
    let file = one.file.as_deref().unwrap_or_default();
    file.starts_with("config/") || file.starts_with("bench/")
}

/// Runs the tests that the renderings are, the examples in their documentation, and what `elixir/behaviour` has for them.
fn tests(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "ExUnit";
    for one in rendered {
        let is_test = one.file_name().ends_with("_test.exs") && !uses_libraries(one);
        let doctests = one.text.contains("      iex> ");
        let behaviour = behaviour(one);
        if !(is_test || doctests || behaviour.is_file()) {
            if !rendered.iter().any(|other| other.template == one.template && self::behaviour(other).is_file()) {
                let why = if one.file_name().ends_with("_test.exs") {
                    "its library is not to be had"
                } else {
                    "it has no tests"
                };
                table.not_checked(TOOL, &one.template, why);
            }
            continue;
        }
        let mut script = "ExUnit.start()\n".to_owned();
        let mut require = |path: &Path| script.push_str(&format!("Code.require_file({path:?})\n"));
        if uses_libraries(one) {
            require(&shapes());
        }
        if !is_script(one) && !doctests {
            require(Path::new(&source(one)));
        }
        if behaviour.is_file() {
            require(&behaviour);
        }
        // Documentation is read from compiled files.
        let compiled = folder.join("compiled").join(one.unique());
        if doctests {
            std::fs::create_dir_all(&compiled).unwrap();
            let mut elixirc = tool::command(tool::needed("elixirc"), folder);
            tool::output(elixirc.arg("-o").arg(&compiled).arg(source(one)));
            let modules = one.text.lines().filter_map(|line| line.strip_prefix("defmodule ")?.strip_suffix(" do"));
            let doctests: String = modules.map(|module| format!("  doctest {module}\n")).collect();
            script.push_str(&format!("defmodule Examples do\n  use ExUnit.Case\n{doctests}end\n"));
        }
        let path = tool::write(folder, &format!("{}.exs", one.unique()), &script);
        let mut elixir = tool::command(tool::needed("elixir"), folder);
        let (success, said) =
            tool::output(elixir.arg("-pa").arg(&compiled).arg(path).env("RENDERED", folder.join(source(one))));
        table.checked(TOOL, one);
        if !success || !said.contains(", 0 failures") || said.contains("\n0 tests") {
            table.complain(TOOL, one, &said);
        }
    }
}

/// A test of what a rendering does, for some that are no tests themselves.
fn behaviour(one: &Rendered) -> PathBuf {
    root().join("tests/languages/elixir/behaviour").join(format!("{}.exs", one.unique()))
}

fn shapes() -> PathBuf {
    root().join("tests/languages/elixir/shapes.ex")
}
