//! Every template, rendered with ordinary and with hostile slots, is put before its own language's tools.
//!
//! The templates are read from `config/templates` when the test runs: to try one, edit it and run the test again. By
//! default a sample of the renderings meets the tools that every machine has. With TANDEM_LANGUAGES=1
//! (`scripts/test --languages`) all of them meet all tools, which `scripts/setup --languages` installs; then a missing
//! tool is a failure, and the table template × tool is left in `target/tmp/languages.txt`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test"
)]

mod compound;
mod elixir;
mod formats;
mod go;
mod javascript;
#[path = "../support/nats.rs"]
mod nats;
mod npm;
#[allow(dead_code, reason = "other tests take more of it")]
#[path = "../support/postgres.rs"]
mod postgres;
mod python;
mod rust;
mod sets;
mod sql;
mod table;
#[allow(dead_code, reason = "a language takes what it needs")]
mod tool;
mod typescript;

use std::path::{Path, PathBuf};

use tandem::coordinator::agent::render_with;
use tandem::coordinator::evaluate::language_of;
use tandem::coordinator::library::Library;
use tandem::coordinator::slots::Filled;
use tandem::domain::Language;
use tandem::domain::goal::{Complexity, Context, Goal};

use table::Table;

/// What one template made of one set of slots.
pub struct Rendered {
    pub template: String,
    /// The set's name, see `sets.rs`.
    pub set: &'static str,
    /// The one asked for: the template's own, or each of the seven in turn where the template is for any.
    pub language: Language,
    /// Where the output belongs, relative to a workspace.
    pub file: Option<String>,
    pub text: String,
    pub is_code: bool,
}

impl Rendered {
    /// A name of its own among all renderings, of `[a-z0-9_]`, which begins with a letter: a module, a folder.
    pub fn unique(&self) -> String {
        format!("{}__{}", self.template.replace('-', "_"), self.set)
    }

    /// Whether it is code in the language that was asked for, and no prose, Dockerfile or other file beside it.
    fn is_code(&self) -> bool {
        let of_file = self.file.as_deref().map(|file| language_of(file, &self.language));
        self.is_code && of_file.is_none_or(|language| language == self.language)
    }

    /// The name of the file without its folders; empty where the template names none.
    pub fn file_name(&self) -> &str {
        self.file.as_deref().map_or("", |file| file.rsplit('/').next().unwrap_or_default())
    }
}

/// Whether all renderings are to meet all tools.
pub fn full() -> bool {
    std::env::vars_os().any(|(name, value)| name == "TANDEM_LANGUAGES" && value == "1")
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `scripts/setup --languages` installed: `.tandem/languages/<name>`.
pub fn installed(name: &str) -> PathBuf {
    root().join(".tandem/languages").join(name)
}

#[test]
fn rust_templates_pass_rusts_tools() {
    prove("rust", rust::check);
}

#[test]
fn python_templates_pass_pythons_tools() {
    prove("python", python::check);
}

#[test]
fn sql_templates_run_on_the_databases() {
    prove("sql", sql::check);
}

#[test]
fn go_templates_pass_gos_tools() {
    prove("go", go::check);
}

#[test]
fn elixir_templates_pass_elixirs_tools() {
    prove("elixir", elixir::check);
}

#[test]
fn typescript_templates_pass_the_compiler() {
    prove("typescript", typescript::check);
}

#[test]
fn javascript_templates_pass_nodes_tools() {
    prove("javascript", javascript::check);
}

#[test]
fn universal_templates_are_what_they_say_in_every_language() {
    prove("any", tool::parse);
}

/// Renders the templates of one language and lets `check` put those that are code before its tools; what is not is seen
/// by `formats`. It fails where a tool complains, and where no tool looked at a rendering.
fn prove(language: &str, check: fn(&[Rendered], &mut Table)) {
    let rendered = render(language);
    let mut table = Table::default();
    for rendering in &rendered {
        table.expect(rendering);
    }
    let (code, other): (Vec<Rendered>, Vec<Rendered>) = rendered.into_iter().partition(Rendered::is_code);
    formats::check(&other, &mut table);
    if !code.is_empty() {
        check(&code, &mut table);
    }
    table.print(full());
    table.assert();
}

fn render(language: &str) -> Vec<Rendered> {
    let (library, broken) = Library::load(Some(&root().join("config/templates")));
    // A broken template of another language fails that language's test.
    let own = format!("/{language}/");
    let broken: Vec<_> = broken.iter().filter(|error| error.path.contains(&own)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // `TANDEM_TEMPLATE=rust-api` while working on a template: only those whose id begins so.
    let wanted = std::env::vars().find(|(name, _)| name == "TANDEM_TEMPLATE").map(|(_, id)| id).unwrap_or_default();
    let mut all = vec![];
    // One without a path is in the binary and no longer in the folder.
    for template in library.iter().filter(|t| t.path.is_some() && t.id.as_str().starts_with(&wanted)) {
        if template.language.as_ref().map_or("any", Language::as_str) != language {
            continue;
        }
        let languages = template.language.clone().map_or_else(|| Language::known().collect(), |own| vec![own]);
        for language in languages {
            for set in sets::ALL.iter().filter(|set| full() || set.in_sample) {
                let slots = set.table().unwrap_or_else(|error| panic!("set {}: {error}", set.name));
                let given = Filled::from_table(&slots).unwrap_or_else(|error| panic!("set {}: {error}", set.name));
                let goal = Goal {
                    description: set.task.to_owned(),
                    language: language.clone(),
                    complexity: Complexity::default(),
                    acceptance_criteria: vec![],
                    context: Context::default(),
                    tags: vec![],
                };
                let (text, file) = render_with(&library, template, &given, &goal)
                    .unwrap_or_else(|error| panic!("{} with set {}: {}", template.id, set.name, error.message));
                all.push(Rendered {
                    template: template.id.to_string(),
                    set: set.name,
                    language: language.clone(),
                    file,
                    text,
                    is_code: template.format == tandem::coordinator::library::Format::Code,
                });
            }
        }
    }
    all
}
