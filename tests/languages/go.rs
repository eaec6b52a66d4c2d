//! Go: in the default run the grammar; in the full run gofmt, `go vet` and `go test`, where a rendering is a test or
//! `go/behaviour` has one for it. Of the modules that some import Debian has chi; the others can't be had without Go's
//! module proxy: these renderings are type-checked against `go/shapes`, which declares what they use of each module as
//! its documentation does.

use crate::table::Table;
use crate::{Rendered, full, installed, root, tool};

use std::path::{Path, PathBuf};
use std::process::Command;

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
    if full() {
        let folder = written(rendered);
        gofmt(rendered, &folder, table);
        vet(rendered, &folder, table);
        tests(rendered, &folder, table);
    }
}

const MODULES: [(&str, &str); 13] = [
    (CHI, ""),
    ("github.com/gin-gonic/gin", "gin"),
    ("github.com/jackc/pgx/v5", "pgx"),
    ("github.com/kelseyhightower/envconfig", "envconfig"),
    ("github.com/nats-io/nats.go", "nats"),
    ("github.com/prometheus/client_golang", "prometheus"),
    ("github.com/redis/go-redis/v9", "redis"),
    ("github.com/spf13/cobra", "cobra"),
    ("github.com/spf13/viper", "viper"),
    ("github.com/stretchr/testify", "testify"),
    ("golang.org/x/crypto", "crypto"),
    ("gopkg.in/yaml.v3", "yaml"),
    ("gorm.io/gorm", "gorm"),
];

const CHI: &str = "github.com/go-chi/chi/v5";

/// chi 5 as Debian packs it; newer packages have the version in the path.
fn chi() -> PathBuf {
    let folders = ["/usr/share/gocode/src/github.com/go-chi/chi/v5", "/usr/share/gocode/src/github.com/go-chi/chi"];
    let is_chi = |folder: &Path| std::fs::read_to_string(folder.join("go.mod")).is_ok_and(|text| text.contains(CHI));
    let found = folders.map(PathBuf::from).into_iter().find(|folder| is_chi(folder));
    found.unwrap_or_else(|| panic!("there is no {CHI} below /usr/share/gocode: run scripts/setup --languages"))
}

/// One module with a folder for each rendering.
fn written(rendered: &[Rendered]) -> PathBuf {
    let folder = tool::fresh("go");
    let mut module = "module example.com/app\n\ngo 1.25\n".to_owned();
    for (path, _) in MODULES {
        let major = path.rsplit_once("/v").or_else(|| path.rsplit_once(".v")).map(|(_, major)| major);
        // "viper" is no version.
        let major = major.filter(|major| major.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or("0");
        module.push_str(&format!("\nrequire {path} v{major}.0.0\n"));
    }
    module.push_str(&replacements());
    tool::write(&folder, "go.mod", &module);
    for one in rendered {
        tool::write(&folder, &source(one), &one.text);
        if let Ok(test) = std::fs::read_to_string(behaviour(one)) {
            let beside = source(one).rsplit_once('/').map_or(String::new(), |(path, _)| format!("{path}/"));
            tool::write(&folder, &format!("{beside}behaviour_test.go"), &test);
        }
    }
    folder
}

/// Where the modules are, or the shapes in their place, for a `go.mod`.
pub fn replacements() -> String {
    let shapes = root().join("tests/languages/go/shapes");
    let folder = |path: &str, shape: &str| if path == CHI { chi() } else { shapes.join(shape) };
    MODULES.iter().map(|(path, shape)| format!("\nreplace {path} => {}\n", folder(path, shape).display())).collect()
}

fn source(one: &Rendered) -> String {
    format!("{}/{}", one.unique(), one.file.as_deref().unwrap_or("code.go"))
}

/// A test of what a rendering does, for some that are no tests themselves.
fn behaviour(one: &Rendered) -> PathBuf {
    root().join("tests/languages/go/behaviour").join(format!("{}.go", one.unique()))
}

fn uses(one: &Rendered, module: &str) -> bool {
    one.text.contains(&format!("\"{module}"))
}

fn gofmt(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "gofmt";
    table.checked_all(TOOL, rendered);
    let (_, said) = tool::output(go("gofmt", folder).args(["-d", "."]));
    for difference in said.split("diff ").filter(|difference| !difference.trim().is_empty()) {
        let first = difference.lines().next().unwrap_or_default();
        let one = tool::spoken_of(first, rendered).unwrap_or_else(|| panic!("{said}"));
        table.complain(TOOL, one, difference);
    }
}

fn vet(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    let name = |one: &Rendered| match MODULES.iter().find(|(path, _)| uses(one, path)) {
        Some((path, _)) if *path == CHI => "go vet with the real module",
        Some(_) => "go vet, with the modules' documented shapes",
        None => "go vet",
    };
    for one in rendered {
        table.checked(name(one), one);
    }
    let (success, said) = tool::output(go("go", folder).args(["vet", "./..."]));
    let complaints = said
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| tool::spoken_of(line, rendered).map(|one| (one, line)));
    let mut any = false;
    for (one, line) in complaints {
        any = true;
        table.complain(name(one), one, line);
    }
    assert!(success || any, "go vet: {said}");
}

/// Runs the tests that the renderings are.
fn tests(rendered: &[Rendered], folder: &Path, table: &mut Table) {
    const TOOL: &str = "go test";
    let (_, said) = tool::output(go("go", folder).args(["test", "-vet=off", "./..."]));
    let outcome = |one: &Rendered| {
        let of = |line: &&str| line.split('/').any(|part| part == one.unique());
        said.lines().filter(|line| line.starts_with("ok ") || line.starts_with("FAIL\t")).find(of)
    };
    for one in rendered {
        let shaped = MODULES.iter().any(|(path, shape)| !shape.is_empty() && uses(one, path));
        match outcome(one) {
            // A shape does nothing.
            _ if shaped => table.not_checked(TOOL, &one.template, "its module can't be had here"),
            Some(line) if line.starts_with("ok ") => table.checked(TOOL, one),
            Some(line) => {
                // What a package's tests say stands before its outcome, after that of the package before.
                let before = said.split(line).next().unwrap_or_default();
                let begin = before.rfind("\nok ").max(before.rfind("\n? ")).map_or(0, |at| at + 1);
                table.complain(TOOL, one, &before[begin..]);
            }
            None if one.file_name().ends_with("_test.go") || behaviour(one).is_file() => {
                table.complain(TOOL, one, "no test of it was run")
            }
            None if rendered.iter().any(|other| other.template == one.template && behaviour(other).is_file()) => {}
            None => table.not_checked(TOOL, &one.template, "it has no tests"),
        }
    }
}

/// A program of Go's, which asks no proxy for anything.
pub fn go(program: &str, folder: &Path) -> Command {
    let scripts = installed("go").join("lib");
    let bin = std::fs::read_dir(&scripts)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/go/bin"))
        .find(|bin| bin.join(program).is_file())
        .unwrap_or_else(|| scripts.join("site-packages/go/bin"));
    let mut command = tool::command(tool::needed(bin.join(program)), folder);
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages");
    command
        .env("GOCACHE", state.join("go-cache"))
        .env("GOPATH", state.join("go-path"))
        .env("GOENV", "off")
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off");
    command
}
