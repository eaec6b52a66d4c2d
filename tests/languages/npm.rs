//! What TypeScript and JavaScript share: a package with every rendering in a folder of its own, beside the real packages.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::table::Table;
use crate::{Rendered, installed, root, tool};

/// Writes the package. A generated test gets what it tests, as another template of the same language makes it.
pub fn package(name: &str, code: &[Rendered]) -> PathBuf {
    let folder = tool::fresh(name);
    tool::write(&folder, "package.json", &json!({ "name": "renderings", "type": "module" }).to_string());
    let modules = root().join(installed("npm")).join("node_modules");
    if modules.is_dir() {
        std::os::unix::fs::symlink(modules, folder.join("node_modules")).unwrap();
    }
    for one in code {
        tool::write(&folder, &path(one), &one.text);
        if let Some(tested) = tested(one, code) {
            let file = tested.file.as_deref().unwrap_or_default();
            tool::write(&folder, &format!("{}/{file}", one.unique()), &tested.text);
        }
    }
    folder
}

/// Where a rendering stands in the package.
pub fn path(one: &Rendered) -> String {
    format!("{}/{}", one.unique(), one.file.as_deref().expect("a template of code names its file"))
}

/// What a generated test or benchmark imports, if that was rendered too.
fn tested<'a>(test: &Rendered, code: &'a [Rendered]) -> Option<&'a Rendered> {
    let kind = test.template.strip_prefix(test.language.as_str())?;
    let tested = match kind {
        "-testing" | "-testing-jest" | "-testing-mocha" | "-testing-node" | "-testing-vitest"
        | "-performance-bench" => "-general",
        "-testing-api" | "-testing-supertest" => "-api-endpoint",
        _ => return None,
    };
    code.iter().find(|one| one.set == test.set && one.template.strip_prefix(one.language.as_str()) == Some(tested))
}

/// Lets the compiler read the whole package with the given options, and emit it to `emitted`.
pub fn compile(tool: &str, folder: &Path, options: Value, code: &[Rendered], table: &mut Table) {
    table.checked_all(tool, code);
    tool::write(folder, "tsconfig.json", &options.to_string());
    let tsc = tool::needed(root().join(installed("npm")).join("node_modules/.bin/tsc"));
    let (good, said) = tool::output(tool::command(tsc, folder).args(["--project", ".", "--pretty", "false"]));
    let errors: Vec<&str> = said.lines().filter(|line| line.contains(": error TS")).collect();
    for error in &errors {
        table.complain(tool, tool::spoken_of(error, code).unwrap_or_else(|| panic!("{said}")), error);
    }
    assert!(good || !errors.is_empty(), "tsc: {said}");
}

/// Runs the generated tests and one benchmark, as Node reads them below `folder`.
pub fn run(folder: &Path, code: &[Rendered], table: &mut Table) {
    let (vitest, node): (Vec<&Rendered>, Vec<&Rendered>) = code
        .iter()
        .filter(|one| one.text.contains("vitest\"") || is_script(one))
        .partition(|one| one.text.contains("vitest\""));
    for one in node {
        const TOOL: &str = "run by node";
        if tested(one, code).is_none() {
            table.not_checked(TOOL, &one.template, "what it tests was not rendered");
            continue;
        }
        let script = path(one).replace(".ts", ".js");
        let (good, said) = tool::output(tool::command("node", folder).arg(script));
        table.checked(TOOL, one);
        if !good {
            table.complain(TOOL, one, &said);
        }
    }
    vitests(&vitest, code, folder, table);
}

/// Whether node can run it as it is: a test of `node:test`, or the benchmark, which takes seconds, so of one set.
fn is_script(one: &Rendered) -> bool {
    one.text.contains("from \"node:test\"") || one.template.ends_with("-performance-bench") && one.set == "ordinary"
}

fn vitests(tests: &[&Rendered], code: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "run by vitest";
    let (ready, alone): (Vec<&Rendered>, Vec<&Rendered>) = tests.iter().partition(|one| tested(one, code).is_some());
    for one in alone {
        table.not_checked(TOOL, &one.template, "what it tests was not rendered");
    }
    if ready.is_empty() {
        return;
    }
    let vitest = tool::needed(folder.join("node_modules/.bin/vitest"));
    let mut command = tool::command(vitest, folder);
    command.args(["run", "--reporter=json", "--outputFile=vitest.json"]).args(ready.iter().map(|one| path(one)));
    let (_, said) = tool::output(&mut command);
    let report = std::fs::read_to_string(folder.join("vitest.json")).unwrap_or_else(|error| panic!("{error}: {said}"));
    let report: Value = serde_json::from_str(&report).unwrap();
    for one in ready {
        let files = report["testResults"].as_array().map_or(&[][..], Vec::as_slice);
        let file = files.iter().find(|file| file["name"].as_str().is_some_and(|name| name.ends_with(&path(one))));
        table.checked(TOOL, one);
        match file {
            Some(file) if file["status"] == "passed" => {}
            Some(file) => table.complain(TOOL, one, &serde_json::to_string_pretty(file).unwrap()),
            None => table.complain(TOOL, one, "it was not run"),
        }
    }
}
