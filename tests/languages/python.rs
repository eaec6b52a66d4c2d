//! Python: by default the compiler; in the full run ruff, mypy with the real packages, and the tests and benchmarks that
//! the renderings are, each beside the module that it is about.

use std::path::Path;

use crate::table::Table;
use crate::{Rendered, full, installed, tool};

/// What ruff looks for beyond its defaults: what is wrong more often than a matter of taste.
const RULES: &str = "E4,E7,E9,F,W,UP,B,C4,SIM,ASYNC,RET,PIE,RUF";
/// `Depends(…)` as a default, names of fields in any alphabet, and mutable class members that are no dataclass's.
const EXCEPT: &str = "B008,RUF001,RUF002,RUF003,RUF012";

/// A template whose output runs, and the template that makes what it imports.
const RUN: [(&str, &str); 8] = [
    // These bring what they test.
    ("python-testing-factory-boy", "python-testing-factory-boy"),
    ("python-testing-hypothesis", "python-testing-hypothesis"),
    ("python-testing", "python-general"),
    ("python-testing-unittest", "python-general"),
    ("python-testing-api", "python-api-endpoint"),
    ("python-testing-flask", "python-api-endpoint-flask"),
    ("python-testing-database", "python-database"),
    ("python-performance", "python-general"),
];

pub fn check(rendered: &[Rendered], table: &mut Table) {
    let folder = tool::fresh("python");
    for one in rendered {
        tool::write(&folder, &file(one), &one.text);
    }
    compile(rendered, &folder, table);
    if full() {
        let installed = installed("python").join("bin");
        ruff(rendered, &folder, &tool::needed(installed.join("ruff")), table);
        mypy(rendered, &folder, &tool::needed(installed.join("mypy")), table);
        run(rendered, &folder, &tool::needed(installed.join("python")), table);
    }
}

fn file(one: &Rendered) -> String {
    format!("{}.py", one.unique())
}

fn compile(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "python3 (compile)";
    // All of them, not only what stands before the first error.
    const SCRIPT: &str = "import ast, pathlib, sys, warnings\n\
        warnings.simplefilter('error')\n\
        for path in sys.argv[1:]:\n    \
            try:\n        compile(pathlib.Path(path).read_text('utf-8'), path, 'exec')\n    \
            except (SyntaxError, ValueError, Warning) as error:\n        print(path, repr(error))\n";
    let mut python = tool::command("python3", folder);
    python.args(["-c", SCRIPT]).args(rendered.iter().map(file));
    let (well, said) = tool::output(&mut python);
    assert!(well, "python3: {said}");
    table.checked_all(TOOL, rendered);
    complaints(TOOL, &said, rendered, table);
}

fn ruff(rendered: &[Rendered], folder: &Path, program: &Path, table: &mut Table) {
    const TOOL: &str = "ruff";
    let mut ruff = tool::command(program, folder);
    ruff.args(["check", "--isolated", "--no-cache", "--quiet", "--target-version", "py311"]);
    ruff.args(["--select", RULES, "--ignore", EXCEPT, "--output-format", "concise", "."]);
    let (well, said) = tool::output(&mut ruff);
    table.checked_all(TOOL, rendered);
    assert!(complaints(TOOL, &said, rendered, table) > 0 || well, "ruff: {said}");
}

/// Strictly, but for packages that have no types or lend those of others, and modules that stand in another rendering.
/// The types of Django's fields come from a plugin that needs a whole project.
fn mypy(rendered: &[Rendered], folder: &Path, program: &Path, table: &mut Table) {
    const TOOL: &str = "mypy --strict with the real packages";
    let mut mypy = tool::command(program, folder);
    mypy.args(["--strict", "--allow-untyped-calls", "--no-error-summary", "--hide-error-context", "--no-pretty"]);
    mypy.args(["--implicit-reexport", "--disable-error-code=import-untyped", "--disable-error-code=untyped-decorator"]);
    mypy.args(["--python-version", "3.11", "--cache-dir", "../python-mypy"]).args(rendered.iter().map(file));
    let (well, said) = tool::output(&mut mypy);
    let elsewhere = |line: &&str| {
        line.contains("[import-not-found]") && line.contains("named \"app.")
            || line.contains("[var-annotated]") && line.contains("_django") | line.contains("_drf")
    };
    let said: Vec<&str> =
        said.lines().filter(|line| line.contains(": error: ")).filter(|line| !elsewhere(line)).collect();
    table.checked_all(TOOL, rendered);
    let found = complaints(TOOL, &said.join("\n"), rendered, table);
    assert!(well || found == said.len(), "mypy: {said:?}");
}

fn run(rendered: &[Rendered], folder: &Path, python: &Path, table: &mut Table) {
    const TOOL: &str = "run beside its module";
    for one in rendered {
        let Some((_, module)) = RUN.iter().find(|(template, _)| *template == one.template) else {
            table.not_checked(TOOL, &one.template, "is no test and no benchmark");
            continue;
        };
        let Some(module) = rendered.iter().find(|other| other.template == *module && other.set == one.set) else {
            table.not_checked(TOOL, &one.template, "its module is not among the templates looked at");
            continue;
        };
        let project = folder.join("run").join(one.unique());
        let [_, own] = [module, one].map(|part| {
            let path = part.file.clone().unwrap_or_else(file_missing);
            tool::write(&project, &path, &part.text);
            path
        });
        let mut command = tool::command(python, &project);
        command.env("PYTHONPATH", &project).env("PYTHONDONTWRITEBYTECODE", "1");
        match one.template.as_str() {
            "python-performance" => command.args([own.as_str(), "--rounds", "1", "--seconds", "0.01"]),
            "python-testing-unittest" => command.args(["-m", "unittest", "discover", "tests"]),
            _ => command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", own.as_str()]),
        };
        let (well, said) = tool::output(&mut command);
        table.checked(TOOL, one);
        let none = said.contains("no tests ran") || said.contains("Ran 0 tests");
        if !well || none {
            table.complain(TOOL, one, &said);
        }
    }
}

fn file_missing() -> String {
    panic!("a template in Python that runs says where its output belongs")
}

/// Lays each line at the door of the rendering that it names. Returns how many did name one.
fn complaints(tool: &str, said: &str, rendered: &[Rendered], table: &mut Table) -> usize {
    let lines = said.lines().filter_map(|line| Some((line, tool::spoken_of(line, rendered)?)));
    lines.map(|(line, one)| table.complain(tool, one, line)).count()
}
