//! The templates: read from the binary and from the user's folder, checked, compiled.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Deserialize;

use super::evaluate::{Kind, Memory, language_of};
use super::fields::Detail;
use super::ident::ident;
use super::lexicon;
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
    options: Vec<String>,
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
    Toml,
    Json,
    /// What nothing here can parse, such as a Makefile.
    Text,
}

impl Format {
    /// The language of an output whose task asked for `asked`; `None` for what is in none.
    pub fn language(self, file: Option<&str>, asked: &Language) -> Option<Language> {
        match self {
            Self::Code => Some(file.map_or_else(|| asked.clone(), |file| language_of(file, asked))),
            Self::Prose | Self::Text => None,
            Self::Dockerfile => Some(Language::Other("dockerfile".into())),
            Self::Yaml => Some(Language::Other("yaml".into())),
            Self::Toml => Some(Language::Other("toml".into())),
            Self::Json => Some(Language::Other("json".into())),
        }
    }

    /// What an output in `language` is judged as.
    pub fn kind(self, language: Option<&Language>) -> Kind<'_> {
        match (self, language) {
            (_, Some(language)) => Kind::Code(language),
            (Self::Text, None) => Kind::Text,
            (_, None) => Kind::Prose,
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
    /// What the body makes only where the task says so: its key, and the ways to say it.
    pub(super) options: Vec<(String, Vec<Vec<String>>)>,
    pub(super) slots: Vec<Slot>,
    /// What the body honours of a field beyond name and type.
    pub(super) details: Vec<Detail>,
    pub(super) defaults: Filled,
    pub format: Format,
    /// What its outputs were graded. A template of the folder that is read anew begins without.
    pub(super) grades: Arc<Memory>,
    /// Of the file's path, a template too.
    file: Option<String>,
    /// What the output needs from the language's package registry: always, and for its tests.
    pub packages: Packages,
    pub dev_packages: Packages,
    /// The whole file, for `templates show`.
    pub source: Cow<'static, str>,
    /// Where its front matter ends.
    body: usize,
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

type Templates = BTreeMap<TemplateId, Arc<Template>>;

/// The templates in the binary, read once in a process, and what could not be used. Tests compile all of them; a worker
/// compiles those that it renders.
static READ: LazyLock<(Templates, Vec<TemplateError>)> = LazyLock::new(|| {
    let (mut templates, mut errors) = (Templates::new(), vec![]);
    for (path, source) in built_in() {
        match parse(None, Cow::Borrowed(source)) {
            Ok(template) => _ = templates.insert(template.id.clone(), Arc::new(template)),
            Err(message) => errors.push(TemplateError { path, message }),
        }
    }
    (templates, errors)
});

/// All templates of this worker.
#[derive(Debug, Clone)]
pub struct Library {
    templates: Templates,
    environment: Environment<'static>,
    /// What could not be used.
    left_out: Vec<TemplateError>,
}

impl Library {
    /// The templates in the binary, and those in `folder`, of which one with the same id replaces a built-in.
    /// A broken file is reported and left out; the rest serves.
    pub fn load(folder: Option<&Path>) -> (Self, Vec<TemplateError>) {
        let (templates, errors) = READ.clone();
        let mut library = Self { templates, environment: environment(), left_out: errors };
        library.environment.set_loader(|name| Ok(source_of_built_in(name)));
        for path in folder.map(files_under).unwrap_or_default() {
            if let Err(error) = library.add(path) {
                library.left_out.push(error);
            }
        }
        let errors = library.left_out.clone();
        (library, errors)
    }

    /// The files that could not be used, and why.
    pub fn left_out(&self) -> &[TemplateError] {
        &self.left_out
    }

    pub fn get(&self, id: &TemplateId) -> Option<&Template> {
        self.templates.get(id).map(Arc::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.templates.values().map(Arc::as_ref)
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
        let file = template.file.as_ref().map(|_| render(&file_name(&template.id)).map_err(failed)).transpose()?;
        Ok((text, file))
    }

    fn add(&mut self, path: PathBuf) -> Result<(), TemplateError> {
        let shown = path.display().to_string();
        let failed = |message| TemplateError { path: shown.clone(), message };
        let source = std::fs::read_to_string(&path).map_err(|error| failed(format!("can't be read: {error}")))?;
        let template = parse(Some(path), source.replace("\r\n", "\n").into()).map_err(failed)?;
        let mut compile = |name: String, text: &str| {
            let compiled = self.environment.add_template_owned(name, text.to_owned());
            compiled.map_err(|error| failed(describe(&error)))
        };
        compile(template.id.to_string(), template.body())?;
        if let Some(file) = &template.file {
            compile(file_name(&template.id), file)?;
        }
        self.templates.insert(template.id.clone(), Arc::new(template));
        Ok(())
    }
}

impl Template {
    fn body(&self) -> &str {
        &self.source[self.body..]
    }
}

/// What is to be compiled under this name.
fn source_of_built_in(name: &str) -> Option<String> {
    let (id, of_file) = name.strip_suffix(FILE).map_or((name, false), |id| (id, true));
    let template = READ.0.get(&TemplateId::parse(id).ok()?)?;
    if of_file { template.file.clone() } else { Some(template.body().to_owned()) }
}

/// Reads a template file. A user's is compiled apart, so that a broken one touches nothing that serves.
fn parse(path: Option<PathBuf>, source: Cow<'static, str>) -> Result<Template, String> {
    let (front, body) = split(&source)?;
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
    if path.is_some() {
        check(body, body_line, front.file.as_deref())?;
    }
    let body = source.len() - body.len();
    Ok(Template {
        triggers: front.triggers.iter().map(|group| alternatives(group)).collect(),
        words: front
            .words
            .iter()
            .chain(lexicon::common(front.task_type))
            .flat_map(|group| alternatives(group))
            .collect(),
        options: front.options.iter().map(|group| (key_of(group), alternatives(group))).collect(),
        slots: front.slots,
        details: front.details,
        defaults,
        format: front.format,
        grades: Arc::default(),
        file: front.file,
        packages: front.packages,
        dev_packages: front.dev_packages,
        source,
        body,
        path,
        id: front.id,
        task_type: front.task_type,
        language,
        description: front.description,
        example: front.example,
    })
}

/// Whether body and file can be compiled; `offset` is the body's first line.
fn check(body: &str, offset: usize, file: Option<&str>) -> Result<(), String> {
    let mut apart = environment();
    let mut compile = |name: &str, text: &str, offset: usize| {
        apart.add_template_owned(name.to_owned(), text.to_owned()).map_err(|e| {
            let line = e.line().map_or(String::new(), |l| format!("line {}: ", l + offset));
            format!("{line}{}", describe(&e))
        })
    };
    compile("body", body, offset)?;
    match file {
        Some(file) => compile("file", file, 0).map_err(|e| format!("front matter: file: {e}")),
        None => Ok(()),
    }
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

fn built_in() -> Vec<(String, &'static str)> {
    fn collect(dir: &'static Dir<'_>, found: &mut Vec<(String, &'static str)>) {
        for file in dir.files().filter(|f| f.path().extension().is_some_and(|e| e == "jinja")) {
            if let Some(text) = file.contents_utf8() {
                found.push((file.path().display().to_string(), text));
            }
        }
        dir.dirs().for_each(|dir| collect(dir, found));
    }
    let mut found = vec![];
    collect(&BUILT_IN, &mut found);
    found
}

/// What the templates in the binary are called and honour: "a|b c" each.
pub(super) fn vocabulary() -> impl Iterator<Item = &'static str> {
    // Read without their templates, whose reading needs the words.
    built_in().into_iter().filter_map(|(_, source)| split(source).ok()).flat_map(|(front, _)| {
        let list = |key| Some(front.split_once(key)?.1.split("]\n").next()?.split('"').skip(1).step_by(2));
        ["\ntriggers = [", "\nwords = [", "\noptions = ["].into_iter().filter_map(list).flatten().collect::<Vec<_>>()
    })
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

/// What a template's name ends with where its file's path is meant. No id has the character.
const FILE: &str = "#file";

fn file_name(id: &TemplateId) -> String {
    format!("{id}{FILE}")
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

/// The first alternative is what the body calls it.
fn key_of(group: &str) -> String {
    group.split('|').next().unwrap_or_default().to_owned()
}

fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}
