//! What makes a project of an answer's files: the manifest with the packages that their templates need, and the module
//! root. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::domain::{Language, ProjectFile};

/// What the project is called in its manifest.
pub const NAME: &str = "app";

/// A package that a template's output needs: `axum = "0.8"`, or with features.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Package {
    Version(String),
    Detailed {
        version: String,
        #[serde(default)]
        features: Vec<String>,
    },
}

impl Package {
    pub fn version(&self) -> &str {
        match self {
            Self::Version(version) | Self::Detailed { version, .. } => version,
        }
    }

    fn features(&self) -> &[String] {
        match self {
            Self::Version(_) => &[],
            Self::Detailed { features, .. } => features,
        }
    }
}

/// Packages by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Packages(BTreeMap<String, Package>);

impl Packages {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Package)> {
        self.0.iter().map(|(name, package)| (name.as_str(), package))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of two demands for one package the features of both, and the first one's version: the templates of a language
    /// agree on versions, which a test checks.
    pub fn add(&mut self, others: &Self) {
        for (name, package) in &others.0 {
            match self.0.get_mut(name) {
                None => drop(self.0.insert(name.clone(), package.clone())),
                Some(known) => {
                    let mut features = [known.features(), package.features()].concat();
                    features.sort();
                    features.dedup();
                    if !features.is_empty() {
                        *known = Package::Detailed { version: known.version().to_owned(), features };
                    }
                }
            }
        }
    }
}

/// Manifest and module root for files in one language. Empty for a language that needs neither.
pub fn files(language: &Language, paths: &[&str], packages: &Packages, dev_packages: &Packages) -> Vec<ProjectFile> {
    match language {
        Language::Rust => rust(paths, packages, dev_packages),
        Language::TypeScript => node(packages, dev_packages, true),
        Language::JavaScript => node(packages, dev_packages, false),
        Language::Python => python(packages, dev_packages),
        Language::Go => go(packages, dev_packages),
        Language::Elixir => elixir(packages, dev_packages),
        Language::Sql | Language::Other(_) => vec![],
    }
}

fn file(path: &str, text: String) -> ProjectFile {
    ProjectFile { path: path.to_owned(), text: text.into() }
}

fn rust(paths: &[&str], packages: &Packages, dev_packages: &Packages) -> Vec<ProjectFile> {
    let line = |(name, package): (&str, &Package)| match package.features() {
        [] => format!("{name} = \"{}\"\n", package.version()),
        features => {
            let features: Vec<String> = features.iter().map(|f| format!("\"{f}\"")).collect();
            format!("{name} = {{ version = \"{}\", features = [{}] }}\n", package.version(), features.join(", "))
        }
    };
    let mut manifest = format!("[package]\nname = \"{NAME}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    for (title, packages) in [("dependencies", packages), ("dev-dependencies", dev_packages)] {
        if !packages.is_empty() {
            let lines: String = packages.iter().map(line).collect();
            let _ = write!(manifest, "\n[{title}]\n{lines}");
        }
    }
    let mut found = vec![file("Cargo.toml", manifest)];
    let root = modules(paths);
    if !root.is_empty() {
        found.push(file("src/lib.rs", root));
    }
    found
}

/// `pub mod orders;` for every file below `src` that is not a program of its own.
fn modules(paths: &[&str]) -> String {
    #[derive(Default)]
    struct Module(BTreeMap<String, Module>);
    fn print(module: &Module, indent: usize, text: &mut String) {
        for (name, inner) in &module.0 {
            let margin = " ".repeat(4 * indent);
            if inner.0.is_empty() {
                let _ = writeln!(text, "{margin}pub mod {name};");
            } else {
                let _ = writeln!(text, "{margin}pub mod {name} {{");
                print(inner, indent + 1, text);
                let _ = writeln!(text, "{margin}}}");
            }
        }
    }
    let mut root = Module::default();
    for path in paths {
        let Some(inside) = path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) else { continue };
        if matches!(inside, "main" | "lib") || inside.starts_with("bin/") {
            continue;
        }
        let mut at = &mut root;
        for step in inside.split('/').filter(|step| *step != "mod") {
            at = at.0.entry(step.to_owned()).or_default();
        }
    }
    let mut text = String::new();
    print(&root, 0, &mut text);
    text
}

fn node(packages: &Packages, dev_packages: &Packages, typed: bool) -> Vec<ProjectFile> {
    let list = |packages: &Packages| {
        let lines: Vec<String> =
            packages.iter().map(|(name, p)| format!("    \"{name}\": \"{}\"", p.version())).collect();
        if lines.is_empty() { "{}".to_owned() } else { format!("{{\n{}\n  }}", lines.join(",\n")) }
    };
    let scripts = if typed { "    \"build\": \"tsc --noEmit\"" } else { "    \"test\": \"node --test\"" };
    let manifest = format!(
        "{{\n  \"name\": \"{NAME}\",\n  \"version\": \"0.1.0\",\n  \"private\": true,\n  \"type\": \"module\",\n  \
         \"scripts\": {{\n{scripts}\n  }},\n  \"dependencies\": {},\n  \"devDependencies\": {}\n}}\n",
        list(packages),
        list(dev_packages)
    );
    let mut found = vec![file("package.json", manifest)];
    if typed {
        // TypeScript 6 and later takes no types in by itself.
        let node = dev_packages.iter().any(|(name, _)| name == "@types/node");
        let types = if node { "    \"types\": [\"node\"],\n" } else { "" };
        // NestJS and TypeORM are written with the decorators that came before the standard's.
        let decorated = packages.iter().any(|(name, _)| name == "typeorm" || name.starts_with("@nestjs/"));
        let decorators = if decorated { "    \"experimentalDecorators\": true,\n" } else { "" };
        let config = format!(
            "{{\n  \"compilerOptions\": {{\n    \"target\": \"es2023\",\n    \"module\": \"nodenext\",\n{types}{decorators}    \
             \"strict\": true,\n    \"noEmit\": true,\n    \"skipLibCheck\": true,\n    \"jsx\": \"react-jsx\"\n  \
             }},\n  \"include\": [\"src\", \"test\", \"tests\"]\n}}\n"
        );
        found.push(file("tsconfig.json", config));
    }
    found
}

fn python(packages: &Packages, dev_packages: &Packages) -> Vec<ProjectFile> {
    let list = |packages: &Packages| {
        let one = |(name, package): (&str, &Package)| {
            let extras = match package.features() {
                [] => String::new(),
                features => format!("[{}]", features.join(",")),
            };
            format!("    \"{name}{extras}{}\",\n", package.version())
        };
        let lines: String = packages.iter().map(one).collect();
        if lines.is_empty() { "[]".to_owned() } else { format!("[\n{lines}]") }
    };
    let manifest = format!(
        "[project]\nname = \"{NAME}\"\nversion = \"0.1.0\"\nrequires-python = \">=3.11\"\ndependencies = {}\n\n\
         [dependency-groups]\ndev = {}\n\n[tool.pytest.ini_options]\npythonpath = [\".\"]\n",
        list(packages),
        list(dev_packages)
    );
    vec![file("pyproject.toml", manifest)]
}

fn go(packages: &Packages, dev_packages: &Packages) -> Vec<ProjectFile> {
    let mut all = packages.clone();
    all.add(dev_packages);
    let mut manifest = format!("module {NAME}\n\ngo 1.24\n");
    if !all.is_empty() {
        let lines: String = all.iter().map(|(name, p)| format!("\t{name} {}\n", p.version())).collect();
        let _ = write!(manifest, "\nrequire (\n{lines})\n");
    }
    vec![file("go.mod", manifest)]
}

fn elixir(packages: &Packages, dev_packages: &Packages) -> Vec<ProjectFile> {
    let line =
        |only: &'static str| move |(name, p): (&str, &Package)| format!("      {{:{name}, \"{}\"{only}}}", p.version());
    let dev = dev_packages.iter().filter(|(name, _)| packages.iter().all(|(known, _)| known != *name));
    let lines: Vec<String> = packages.iter().map(line("")).chain(dev.map(line(", only: [:dev, :test]"))).collect();
    let deps = if lines.is_empty() { "[]".to_owned() } else { format!("[\n{}\n    ]", lines.join(",\n")) };
    let manifest = format!(
        "defmodule App.MixProject do\n  use Mix.Project\n\n  def project do\n    [app: :{NAME}, version: \"0.1.0\", \
         elixir: \"~> 1.14\", deps: deps()]\n  end\n\n  def application do\n    [extra_applications: [:logger]]\n  \
         end\n\n  defp deps do\n    {deps}\n  end\nend\n"
    );
    vec![file("mix.exs", manifest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(text: &str) -> Packages {
        toml::from_str(text).unwrap()
    }

    fn text<'a>(files: &'a [ProjectFile], path: &str) -> &'a str {
        &files.iter().find(|f| f.path == path).unwrap().text
    }

    #[test]
    fn a_rust_project_has_its_packages_once_and_a_module_for_each_file() {
        let mut all = packages("axum = \"0.8\"\ntokio = { version = \"1\", features = [\"net\"] }");
        all.add(&packages("tokio = { version = \"1\", features = [\"macros\"] }"));
        let paths = ["src/orders.rs", "src/db/orders.rs", "src/bin/worker.rs", "src/main.rs", "tests/orders.rs"];
        let files = files(&Language::Rust, &paths, &all, &packages("tower = \"0.5\""));
        let manifest: toml::Table = text(&files, "Cargo.toml").parse().unwrap();
        assert_eq!(manifest["dependencies"]["tokio"]["features"].as_array().unwrap().len(), 2);
        assert_eq!(manifest["dev-dependencies"]["tower"].as_str(), Some("0.5"));
        assert_eq!(text(&files, "src/lib.rs"), "pub mod db {\n    pub mod orders;\n}\npub mod orders;\n");
    }

    #[test]
    fn every_manifest_can_be_read() {
        let some = packages("\"express\" = \"^5.0.0\"");
        let node = files(&Language::TypeScript, &[], &some, &packages("\"@types/node\" = \"^22.0.0\""));
        let manifest: serde_json::Value = serde_json::from_str(text(&node, "package.json")).unwrap();
        assert_eq!(manifest["dependencies"]["express"], "^5.0.0");
        let config: serde_json::Value = serde_json::from_str(text(&node, "tsconfig.json")).unwrap();
        assert_eq!(config["compilerOptions"]["types"][0], "node");
        assert!(config["compilerOptions"]["experimentalDecorators"].is_null());
        let decorated = files(&Language::TypeScript, &[], &packages("typeorm = \"^1.1.1\""), &Packages::default());
        let config: serde_json::Value = serde_json::from_str(text(&decorated, "tsconfig.json")).unwrap();
        assert_eq!(config["compilerOptions"]["experimentalDecorators"], true);
        let python = files(&Language::Python, &[], &packages("fastapi = \">=0.115\""), &Packages::default());
        let manifest: toml::Table = text(&python, "pyproject.toml").parse().unwrap();
        assert_eq!(manifest["project"]["dependencies"][0].as_str(), Some("fastapi>=0.115"));
        assert!(files(&Language::Sql, &[], &some, &some).is_empty());
    }
}
