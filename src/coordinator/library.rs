//! The templates: read from the binary and from the user's folder, checked, compiled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Deserialize;

use super::evaluate::{Memory, language_of};
use super::fields::Detail;
use super::ident::ident;
use super::project::Packages;
use super::slots::{Filled, Slot};
use super::words::words;
use crate::domain::{Language, TaskType, TemplateId};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/templates");

/// The front matter of a template file. See `docs/templates.md`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    id: TemplateId,
    task_type: TaskType,
    language: String,
    description: String,
    example: String,
    triggers: Vec<String>,
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    slots: Vec<Slot>,
    #[serde(default)]
    details: Vec<Detail>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    packages: Packages,
    #[serde(default)]
    dev_packages: Packages,
    #[serde(default)]
    defaults: BTreeMap<String, toml::Value>,
    #[serde(default)]
    format: Format,
}

/// What a template's output is, and so what it is judged as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// In the language of the file that the template names, or else the task's.
    #[default]
    Code,
    Prose,
    Dockerfile,
    Yaml,
}

impl Format {
    /// The language of an output whose task asked for `asked`; `None` for prose.
    pub fn language(self, file: Option<&str>, asked: &Language) -> Option<Language> {
        match self {
            Self::Code => Some(file.map_or_else(|| asked.clone(), |file| language_of(file, asked))),
            Self::Prose => None,
            Self::Dockerfile => Some(Language::Other("dockerfile".into())),
            Self::Yaml => Some(Language::Other("yaml".into())),
        }
    }
}

/// One template, ready to match and to render.
#[derive(Debug, Clone)]
pub struct Template {
    pub id: TemplateId,
    pub task_type: TaskType,
    /// `None`: for any language.
    pub language: Option<Language>,
    pub description: String,
    pub example: String,
    /// Every group must be found; within a group any alternative, as stems in a row.
    pub(super) triggers: Vec<Vec<Vec<String>>>,
    /// Stems that the template honours beyond its triggers.
    pub(super) words: Vec<Vec<String>>,
    pub(super) slots: Vec<Slot>,
    /// What the body honours of a field beyond name and type.
    pub(super) details: Vec<Detail>,
    pub(super) defaults: Filled,
    pub format: Format,
    /// What its outputs were graded. A template of the folder that is read anew begins without.
    pub(super) grades: Arc<Memory>,
    has_file: bool,
    /// What the output needs from the language's package registry: always, and for its tests.
    pub packages: Packages,
    pub dev_packages: Packages,
    /// The whole file, for `templates show`.
    pub source: String,
    /// Where it was read from; `None` for one in the binary.
    pub path: Option<PathBuf>,
}

/// Why a template file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template {path}: {message}")]
pub struct TemplateError {
    pub path: String,
    pub message: String,
}

/// The templates in the binary: compiled once, not whenever a folder has changed or a worker begins anew.
static COMPILED: LazyLock<Library> = LazyLock::new(|| {
    let mut library = Library { templates: BTreeMap::new(), environment: environment(), left_out: vec![] };
    let mut errors = vec![];
    for (path, source) in built_in() {
        library.add(&path, None, &source, &mut errors);
    }
    library.left_out = errors;
    library
});

/// All templates of this worker.
#[derive(Debug, Clone)]
pub struct Library {
    templates: BTreeMap<TemplateId, Template>,
    environment: Environment<'static>,
    /// What could not be used.
    left_out: Vec<TemplateError>,
}

impl Library {
    /// The templates in the binary, and those in `folder`, of which one with the same id replaces a built-in.
    /// A broken file is reported and left out; the rest serves.
    pub fn load(folder: Option<&Path>) -> (Self, Vec<TemplateError>) {
        let mut library = COMPILED.clone();
        let mut errors = library.left_out.clone();
        for path in folder.map(files_under).unwrap_or_default() {
            let shown = path.display().to_string();
            match std::fs::read_to_string(&path) {
                Ok(source) => library.add(&shown, Some(path), &source, &mut errors),
                Err(error) => errors.push(TemplateError { path: shown, message: format!("can't be read: {error}") }),
            }
        }
        library.left_out.clone_from(&errors);
        (library, errors)
    }

    /// The files that could not be used, and why.
    pub fn left_out(&self) -> &[TemplateError] {
        &self.left_out
    }

    pub fn get(&self, id: &TemplateId) -> Option<&Template> {
        self.templates.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.templates.values()
    }

    pub fn len(&self) -> usize {
        self.templates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The text, and the path that the template gives it.
    pub fn render(&self, template: &Template, slots: &Filled) -> Result<(String, Option<String>), TemplateError> {
        let render = |name: &str| {
            let compiled = self.environment.get_template(name)?;
            compiled.render(Serde(slots))
        };
        let failed = |error: minijinja::Error| TemplateError {
            path: template.id.to_string(),
            message: format!("can't be rendered: {}", describe(&error)),
        };
        let text = render(template.id.as_str()).map_err(failed)?;
        let file = template.has_file.then(|| render(&file_name(&template.id)).map_err(failed)).transpose()?;
        Ok((text, file))
    }

    fn add(&mut self, shown: &str, path: Option<PathBuf>, source: &str, errors: &mut Vec<TemplateError>) {
        let source = source.replace("\r\n", "\n");
        let added = parse(path, &source).and_then(|Parsed { template, body, file }| {
            let mut compile =
                |name: String, text: String| self.environment.add_template_owned(name, text).map_err(|e| describe(&e));
            compile(template.id.to_string(), body)?;
            if let Some(file) = file {
                compile(file_name(&template.id), file)?;
            }
            Ok(template)
        });
        match added {
            Ok(template) => {
                self.templates.insert(template.id.clone(), template);
            }
            Err(message) => errors.push(TemplateError { path: shown.to_owned(), message }),
        }
    }
}

/// A template and what is to be compiled of it.
struct Parsed {
    template: Template,
    body: String,
    file: Option<String>,
}

/// Reads a template file and compiles it apart, so that a broken one touches nothing that serves.
fn parse(path: Option<PathBuf>, source: &str) -> Result<Parsed, String> {
    let (front, body) = split(source)?;
    let front: FrontMatter = toml::from_str(front).map_err(|e| {
        // The first line of the file is `+++`.
        let line = e.span().map_or(2, |span| 2 + front[..span.start].matches('\n').count());
        format!("line {line}: front matter: {}", e.message())
    })?;
    let language = match front.language.as_str() {
        "any" => None,
        name => Some(Language::named(name).ok_or_else(|| {
            let known: Vec<String> = Language::known().map(String::from).collect();
            format!("front matter: no language {name:?}; there are: any, {}", known.join(", "))
        })?),
    };
    if front.triggers.is_empty() {
        return Err("front matter: `triggers` is empty: the template would answer anything".to_owned());
    }
    let defaults = Filled::from_table(&front.defaults).map_err(|e| format!("front matter: defaults: {e}"))?;
    let body_line = source[..source.len() - body.len()].lines().count();
    let mut apart = environment();
    let mut compile = |name: &str, text: &str, offset: usize| {
        apart.add_template_owned(name.to_owned(), text.to_owned()).map_err(|e| {
            let line = e.line().map_or(String::new(), |l| format!("line {}: ", l + offset));
            format!("{line}{}", describe(&e))
        })
    };
    compile("body", body, body_line)?;
    if let Some(file) = &front.file {
        compile("file", file, 0).map_err(|e| format!("front matter: file: {e}"))?;
    }
    let template = Template {
        triggers: front.triggers.iter().map(|group| alternatives(group)).collect(),
        words: front.words.iter().flat_map(|group| alternatives(group)).collect(),
        slots: front.slots,
        details: front.details,
        defaults,
        format: front.format,
        grades: Arc::default(),
        has_file: front.file.is_some(),
        packages: front.packages,
        dev_packages: front.dev_packages,
        source: source.to_owned(),
        path,
        id: front.id,
        task_type: front.task_type,
        language,
        description: front.description,
        example: front.example,
    };
    Ok(Parsed { template, body: body.to_owned(), file: front.file })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Building fails only where delimiters clash, and none are set.
    if let Ok(syntax) =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()
    {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("ident", ident);
    environment
}

fn built_in() -> Vec<(String, String)> {
    fn collect(dir: &Dir<'_>, found: &mut Vec<(String, String)>) {
        for file in dir.files().filter(|f| f.path().extension().is_some_and(|e| e == "jinja")) {
            if let Some(text) = file.contents_utf8() {
                found.push((file.path().display().to_string(), text.to_owned()));
            }
        }
        dir.dirs().for_each(|dir| collect(dir, found));
    }
    let mut found = vec![];
    collect(&BUILT_IN, &mut found);
    found
}

/// Every `.jinja` file below a folder, in a fixed order. A folder that is not there holds none.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                _ if path.extension().is_some_and(|e| e == "jinja") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn file_name(id: &TemplateId) -> String {
    format!("{id}#file")
}

fn split(source: &str) -> Result<(&str, &str), String> {
    let rest =
        source.strip_prefix("+++\n").ok_or("line 1: a template begins with a line `+++` and its front matter")?;
    rest.split_once("\n+++\n").ok_or_else(|| "the front matter has no closing line `+++`".to_owned())
}

fn alternatives(group: &str) -> Vec<Vec<String>> {
    // Read like a task, so that a synonym, or two words that are one, is the same on both sides.
    group.split('|').map(|a| words(a).into_iter().map(|w| w.stem).collect()).collect()
}

fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}
