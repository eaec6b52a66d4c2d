//! Goals of several parts, answered by the rules alone and written where `tandem request --out` writes them: do the files
//! build together? By default each answer is looked at as far as that needs no tool: every part is done and has a file of
//! its own, and what it imports is there or in the manifest. In the full run each is built by its language's tools, and
//! the tests that it brings are run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tandem::cache::{self, Cache};
use tandem::coordinator::agent::Options;
use tandem::coordinator::library::Library;
use tandem::coordinator::{Agent, Bounds, Coordinator};
use tandem::domain::{
    Answer, CacheMode, Complexity, Context, CorrelationId, Goal, Language, Method, TaskType, Tenant, Timestamp,
};
use tandem::llm::{self, Client, Credentials};

use crate::table::Table;
use crate::{Rendered, full, go, installed, root, tool};

const RUST: [&str; 5] = [
    "Create a repository for orders with customer_id integer and total decimal, and a REST endpoint that lists them",
    "REST endpoint for orders and a consumer for order events, with tests and docs",
    "Build an invoices service: PostgreSQL repository, REST endpoint, NATS consumer and tests",
    "Create a SQLite repository for products with name text and price decimal, a REST endpoint at /api/v1/products and tests and a Dockerfile",
    "Build an actix-web endpoint for invoices at /api/v1/invoices with number text and total decimal, and tests",
];
const TYPESCRIPT: [&str; 6] = [
    "Create a repository for orders with customer_id integer and total decimal, a REST API endpoint for orders and tests",
    "First create a migration for invoices, then an API endpoint, after that write tests",
    "Create a React component for products and the API endpoint it calls",
    "Build an orders service: database repository, REST endpoint, NATS consumer and tests",
    "Build a Fastify REST endpoint for invoices with number text and total decimal, and tests",
    "Build a Hono REST API for orders with customer_id integer and total decimal, and tests",
];
const JAVASCRIPT: [&str; 3] = [
    "Create a repository for orders with customer_id integer and total decimal, a REST endpoint for orders and tests",
    "NATS consumer for order events; REST API for orders; Dockerfile",
    "Build a Fastify REST endpoint for invoices at /api/v1/invoices with number text and total decimal, and tests",
];
const GO: [&str; 5] = [
    "Create a REST endpoint for orders with customer_id integer and total decimal, and tests",
    "Create a SQLite repository for orders with customer_id integer and total decimal, a REST endpoint for orders and a Dockerfile",
    "Build an invoices service: database repository, REST endpoint, NATS consumer and tests",
    "Build a chi REST endpoint for invoices with unique number text and total decimal, and tests",
    "Create a REST endpoint for shipments with weight decimal, and httptest tests for the endpoint",
];
const PYTHON: [&str; 5] = [
    "Create a database table for orders with customer_id integer and total decimal, a REST endpoint for orders and tests",
    "I need a postgres table for bookings and also a fastapi endpoint to create and list bookings",
    "Build an orders service: database repository, REST endpoint, NATS consumer and tests",
    "Build a Flask REST endpoint for invoices at /api/invoices with unique number text and total decimal, and tests",
    "Build a Flask endpoint for orders with note text optional, and API tests for the endpoint",
];
const ELIXIR: [&str; 4] = [
    "Create an Ecto schema for orders with customer_id integer and total decimal, and a REST API endpoint that lists them",
    "REST endpoint for orders and a consumer for order events, with tests",
    "Create a Phoenix controller for orders, a LiveView page for orders, an Ecto schema for them and a NATS consumer for order events",
    "Create a Phoenix controller for invoices with number text, total decimal and due_at timestamp, an Ecto schema for them and tests",
];

#[test]
fn rust_files_build_together() {
    prove(&Language::Rust, &RUST, rust);
}

#[test]
fn typescript_files_build_together() {
    prove(&Language::TypeScript, &TYPESCRIPT, typescript);
}

#[test]
fn javascript_files_build_together() {
    prove(&Language::JavaScript, &JAVASCRIPT, javascript);
}

#[test]
fn go_files_build_together() {
    prove(&Language::Go, &GO, go_module);
}

#[test]
fn python_files_build_together() {
    prove(&Language::Python, &PYTHON, python);
}

#[test]
fn elixir_files_build_together() {
    prove(&Language::Elixir, &ELIXIR, elixir);
}

/// An answer's files, below a folder.
struct Project {
    folder: PathBuf,
    files: Vec<(String, String)>,
}

/// What the tools say of one project.
struct Report<'a> {
    table: &'a mut Table,
    goal: Rendered,
}

impl Report<'_> {
    fn run(&mut self, tool: &str, command: &mut Command) {
        let (well, said) = tool::output(command);
        self.says(tool, well, &said);
    }

    fn says(&mut self, tool: &str, well: bool, said: &str) {
        self.table.checked(tool, &self.goal);
        if !well {
            self.table.complain(tool, &self.goal, said);
        }
    }
}

fn prove(language: &Language, goals: &[&str], build: fn(&Project, &mut Report<'_>)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let coordinator = coordinator();
    let mut table = Table::default();
    let folder = tool::fresh(&format!("compound-{language}"));
    for (at, text) in goals.iter().enumerate() {
        let answer = runtime.block_on(answer(&coordinator, text, language));
        let project = Project { folder: folder.join(format!("goal{at}")), files: files(&answer) };
        for (path, text) in &project.files {
            tool::write(&project.folder, path, text);
        }
        let goal = Rendered {
            template: format!("goal {}: {text}", language.as_str()),
            set: "compound",
            language: language.clone(),
            file: None,
            text: String::new(),
            is_code: true,
        };
        table.expect(&goal);
        let mut report = Report { table: &mut table, goal };
        let missing = project.missing_imports();
        report.says("imports", missing.is_empty(), &missing.join("\n"));
        let of = |kind| answer.parts.iter().map(|part| &part.answer).find(|answer| answer.task_type == kind);
        if let (Some(_), Some(tests)) = (of(TaskType::ApiEndpoint), of(TaskType::Testing)) {
            // The status of what was created; Plug's router is asked by itself.
            let signs = ["201", "CREATED", "StatusCreated", "Router.validate("];
            let about_it = signs.iter().any(|sign| tests.text.contains(sign));
            report.says("tests are about the endpoint", about_it, &tests.text);
        }
        if full() {
            build(&project, &mut report);
        }
    }
    table.print(full());
    table.assert();
}

/// As a worker has it, with no model and nothing learnt.
fn coordinator() -> Coordinator {
    let (library, broken) = Library::load(Some(&root().join("config/templates")));
    assert!(broken.is_empty(), "{broken:#?}");
    let mut options = Options::default();
    options.choice.explore = 0.0;
    let cache = Cache::new(cache::Options::default(), None, |_| true);
    let llm = Client::new(llm::Options::default(), Credentials::default(), None).unwrap();
    Coordinator::new(Agent::new(options, library, cache, llm))
}

async fn answer(coordinator: &Coordinator, text: &str, language: &Language) -> Answer {
    let goal = Goal {
        description: text.to_owned(),
        language: language.clone(),
        complexity: Complexity::default(),
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    };
    let bounds = Bounds {
        tenant: Tenant::default(),
        correlation_id: CorrelationId::generate(),
        cache: CacheMode::Off,
        max_cost: None,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    let answer = coordinator.execute(&goal, &bounds, Timestamp(0)).await;
    assert!(answer.success && answer.method == Method::Autonomous, "{text}: {}", answer.text);
    assert!(answer.parts.len() > 1, "{text}: is one part");
    answer
}

/// What `--out` writes.
fn files(answer: &Answer) -> Vec<(String, String)> {
    let parts = answer.parts.iter().map(|part| {
        let file = part.answer.file.clone().unwrap_or_else(|| panic!("{} has no file", part.description));
        (file, part.answer.text.to_string())
    });
    let files: Vec<(String, String)> =
        parts.chain(answer.project.iter().map(|file| (file.path.clone(), file.text.to_string()))).collect();
    let paths: BTreeSet<&String> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), files.len(), "two files have one place: {paths:?}");
    files
}

impl Project {
    fn has(&self, path: &str) -> bool {
        self.files.iter().any(|(file, _)| file == path)
    }

    fn text(&self, path: &str) -> &str {
        self.files.iter().find(|(file, _)| file == path).map_or("", |(_, text)| text)
    }

    fn named(&self, end: &str) -> Vec<&str> {
        self.files.iter().map(|(path, _)| path.as_str()).filter(|path| path.ends_with(end)).collect()
    }

    /// Imports that name neither a file of the answer nor a package of its manifest.
    fn missing_imports(&self) -> Vec<String> {
        let mut missing = vec![];
        for (path, text) in &self.files {
            let extension = path.rsplit('.').next().unwrap_or_default();
            for line in text.lines() {
                let found = match extension {
                    "ts" | "tsx" | "js" => self.has_module(path, line),
                    "py" => self.has_python(line),
                    "rs" => line.strip_prefix("use app::").is_none_or(|module| {
                        let steps: Vec<&str> = module.split("::").collect();
                        (1..=steps.len()).any(|end| self.has(&format!("src/{}.rs", steps[..end].join("/"))))
                    }),
                    "go" => self.has_go(line),
                    _ => true,
                };
                if !found {
                    missing.push(format!("{path}: {}", line.trim()));
                }
            }
        }
        missing
    }

    fn has_module(&self, path: &str, line: &str) -> bool {
        let imports = line.starts_with("import ") || line.starts_with("} from ") || line.starts_with("export ");
        let Some((_, from)) = line.split_once("from \"").filter(|_| imports) else { return true };
        let module = from.split('"').next().unwrap_or_default();
        if module.starts_with('.') {
            let folder = Path::new(path).parent().unwrap();
            let mut steps: Vec<&str> = folder.iter().filter_map(|step| step.to_str()).collect();
            for step in module.split('/') {
                match step {
                    "." => {}
                    ".." => drop(steps.pop()),
                    step => steps.push(step),
                }
            }
            let file = steps.join("/");
            let stem = file.strip_suffix(".js").unwrap_or(&file);
            return [".ts", ".tsx", ".js"].iter().any(|extension| self.has(&format!("{stem}{extension}")));
        }
        let depth = if module.starts_with('@') { 2 } else { 1 };
        let package = module.split('/').take(depth).collect::<Vec<_>>().join("/");
        module.starts_with("node:") || self.text("package.json").contains(&format!("\"{package}\": "))
    }

    fn has_python(&self, line: &str) -> bool {
        let Some(module) = line.strip_prefix("from app.").and_then(|rest| rest.split(' ').next()) else { return true };
        self.has(&format!("app/{}.py", module.replace('.', "/")))
    }

    fn has_go(&self, line: &str) -> bool {
        let path = line.trim().trim_end_matches('"').rsplit('"').next().unwrap_or_default();
        let import = line.starts_with('\t') && line.ends_with('"') && line.matches('"').count() == 2;
        let module = path.split('/').next().is_some_and(|host| host.contains('.')) && !path.contains(' ');
        if !(import && module) {
            return true;
        }
        let required = self.text("go.mod").lines().filter_map(|line| line.trim().split(' ').next());
        required.filter(|name| !name.is_empty()).any(|name| path.starts_with(name))
    }
}

/// `cargo check` with the versions that the templates are checked with, so that nothing need be fetched.
fn rust(project: &Project, report: &mut Report<'_>) {
    let lock = std::fs::read_to_string(root().join("tests/languages/rust-crates/Cargo.lock")).unwrap();
    tool::write(&project.folder, "Cargo.lock", &lock);
    let cargo = |command: &str| {
        let mut cargo = tool::command("cargo", &project.folder);
        cargo.args([command, "--offline", "--color", "never", "--target-dir", "../../compound-rust-target"]);
        cargo.env("RUSTFLAGS", "-Dwarnings").env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo
    };
    report.run("cargo check --all-targets", cargo("check").arg("--all-targets"));
}

fn typescript(project: &Project, report: &mut Report<'_>) {
    let tsc = with_packages(project);
    report.run("tsc --project .", tool::command(&tsc, &project.folder).args(["--project", ".", "--pretty", "false"]));
    if !project.named(".test.ts").is_empty() {
        let mut emit = tool::command(&tsc, &project.folder);
        emit.args(["--project", ".", "--noEmit", "false", "--outDir", "built", "--rootDir", "."]);
        tool::output(&mut emit);
        let tests = project.named(".test.ts").into_iter().map(|path| format!("built/{}", path.replace(".ts", ".js")));
        node_tests(project, report, tests);
    }
}

fn javascript(project: &Project, report: &mut Report<'_>) {
    let tsc = with_packages(project);
    let mut check = tool::command(&tsc, &project.folder);
    check.args(["--noEmit", "--allowJs", "--checkJs", "--strict", "false", "--skipLibCheck", "--types", "node"]);
    check.args(["--target", "es2023", "--module", "nodenext", "--pretty", "false"]).args(project.named(".js"));
    report.run("tsc --checkJs", &mut check);
    node_tests(project, report, project.named(".test.js").into_iter().map(str::to_owned));
}

fn node_tests(project: &Project, report: &mut Report<'_>, tests: impl Iterator<Item = String>) {
    for test in tests {
        let mut node = tool::command("node", &project.folder);
        let (well, said) = tool::output(node.args(["--test", "--test-reporter=tap", &test]));
        report.says("node --test", well && !said.contains("\n# pass 0\n"), &said);
    }
}

/// Puts the packages beside the project. Returns the compiler.
fn with_packages(project: &Project) -> PathBuf {
    let modules = root().join(installed("npm")).join("node_modules");
    std::os::unix::fs::symlink(&modules, project.folder.join("node_modules")).unwrap();
    tool::needed(modules.join(".bin/tsc"))
}

/// Modules that can't be had are taken as their documentation declares them, see `go.rs`.
fn go_module(project: &Project, report: &mut Report<'_>) {
    let manifest = project.text("go.mod").to_owned() + &go::replacements();
    tool::write(&project.folder, "go.mod", &manifest);
    for command in [&["build", "./..."][..], &["vet", "./..."], &["test", "-vet=off", "./..."]] {
        report.run(&format!("go {}", command[0]), go::go("go", &project.folder).args(command));
    }
    let (well, said) = tool::output(go::go("gofmt", &project.folder).args(["-d", "."]));
    report.says("gofmt", well && said.trim().is_empty(), &said);
}

fn python(project: &Project, report: &mut Report<'_>) {
    let bin = installed("python").join("bin");
    let run = |program: &str| {
        let mut command = tool::command(tool::needed(root().join(&bin).join(program)), &project.folder);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    report.run("python -m compileall", run("python").args(["-m", "compileall", "-q", "."]));
    let mut mypy = run("mypy");
    mypy.args([
        "--strict",
        "--allow-untyped-calls",
        "--explicit-package-bases",
        "--cache-dir",
        "../../python-mypy",
        ".",
    ]);
    report.run("mypy --strict", &mut mypy);
    if !project.named(".py").iter().all(|path| !path.starts_with("tests/")) {
        report.run("pytest", run("python").args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]));
    }
}

/// Everything in one compilation, so that no module is there twice; libraries as their documentation declares them.
fn elixir(project: &Project, report: &mut Report<'_>) {
    let shapes = project.folder.join("../shapes");
    if !shapes.is_dir() {
        std::fs::create_dir_all(&shapes).unwrap();
        let mut elixirc = tool::command(tool::needed("elixirc"), &project.folder);
        let (well, said) =
            tool::output(elixirc.arg("-o").arg(&shapes).arg(root().join("tests/languages/elixir/shapes.ex")));
        assert!(well, "shapes.ex: {said}");
    }
    let built = project.folder.join("built");
    std::fs::create_dir_all(&built).unwrap();
    let mut elixirc = tool::command(tool::needed("elixirc"), &project.folder);
    elixirc.arg("-pa").arg(&shapes).arg("-o").arg(&built);
    let (well, said) = tool::output(elixirc.args(project.named(".ex")));
    // What only a library's own macro would use is "unused" here.
    let clash = ["redefining module", "undefined", "not available"].iter().any(|sign| said.contains(sign));
    report.says("elixirc, with the libraries' documented shapes", well && !clash, &said);
    // A test that needs a library which can't be had is compiled, and not run.
    let needs_library = |path: &&str| project.text(path).contains("Phoenix.ConnTest");
    let (compiled, tests): (Vec<&str>, Vec<&str>) = project.named("_test.exs").into_iter().partition(needs_library);
    for test in compiled {
        let beside = project.named(".ex").join("\t");
        tool::write(&project.folder, "list", &format!("{test}\t{beside}\n"));
        let mut check = tool::command(tool::needed("elixir"), &project.folder);
        let (well, said) = tool::output(check.arg(root().join("tests/languages/elixir/check.exs")).arg("list"));
        let good = said.lines().filter(|line| line.ends_with("\t:checked")).count() == 2;
        report.says("the test's format and compilation, with the libraries' documented shapes", well && good, &said);
    }
    if !tests.is_empty() {
        let mut elixir = tool::command(tool::needed("elixir"), &project.folder);
        elixir.arg("-pa").arg(&shapes).arg("-pa").arg(&built).args(["-e", "ExUnit.start()"]);
        for test in tests {
            elixir.args(["-r", test]);
        }
        let (well, said) = tool::output(&mut elixir);
        report.says("ExUnit", well && said.contains(", 0 failures") && !said.contains("\n0 tests"), &said);
    }
}
