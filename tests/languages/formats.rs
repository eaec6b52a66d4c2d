//! What templates of any language make besides its code: Markdown, YAML, TOML, JSON, Dockerfiles.

use tandem::coordinator::evaluate::{Kind, evaluate, first_error, language_of};
use tandem::domain::Language;

use crate::Rendered;
use crate::table::Table;

pub fn check<'a>(rendered: impl IntoIterator<Item = &'a Rendered>, table: &mut Table) {
    for one in rendered {
        let (tool, outcome) = match one.file_name() {
            name if name.ends_with(".md") => ("Markdown's code blocks", markdown(one)),
            name if name.ends_with(".yml") || name.ends_with(".yaml") => ("YAML", yaml(&one.text)),
            name if name.ends_with(".json") => ("JSON", json(&one.text)),
            name if name.ends_with(".toml") => ("TOML", toml(&one.text)),
            name if name.starts_with("Dockerfile") || name.ends_with("Dockerfile") => {
                ("Dockerfile", dockerfile(&one.text))
            }
            "Makefile" => ("Makefile", makefile(&one.text)),
            ".gitignore" | ".editorconfig" | ".dockerignore" | "CODEOWNERS" => {
                ("lines of settings", settings(&one.text))
            }
            ".env.example" => ("lines of variables", variables(&one.text)),
            name if name.ends_with(".conf") => ("nginx's blocks", blocks(&one.text)),
            name if name.ends_with(".vue") || name.ends_with(".svelte") || name.ends_with(".prisma") => {
                ("closed brackets", brackets(&one.text))
            }
            name if name.ends_with(".sh") => ("sh -n", shell(&one.text)),
            name if name.ends_with(".service") => ("systemd's syntax", unit(&one.text)),
            // A query beside a program in another language.
            _ if !matches!(other_language(one), Language::Other(_)) => {
                let error = first_error(&one.text, &one.language, one.file.as_deref());
                ("grammar", error.map_or(Ok(()), |error| Err(error.to_string())))
            }
            name => ("format", Err(format!("no tool is known for {name:?}"))),
        };
        table.checked(tool, one);
        if let Err(complaint) = outcome {
            table.complain(tool, one, &complaint);
        }
    }
}

fn other_language(one: &Rendered) -> Language {
    language_of(one.file.as_deref().unwrap_or_default(), &one.language)
}

/// Blocks in a known language parse; there is no other way to be wrong.
fn markdown(one: &Rendered) -> Result<(), String> {
    let whole = evaluate(&one.text, Kind::Prose);
    if whole.parses { Ok(()) } else { Err("a code block does not parse".to_owned()) }
}

fn yaml(text: &str) -> Result<(), String> {
    let documents = yaml_rust2::YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    if documents.is_empty() { Err("there is no document in it".to_owned()) } else { Ok(()) }
}

fn json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde_json::Value>(text).map(drop).map_err(|error| error.to_string())
}

/// A comment, a section, a pattern or `key = value` a line.
fn settings(text: &str) -> Result<(), String> {
    let odd = text.lines().find(|line| line.ends_with(' ') || (line.contains('=') && line.split(" = ").count() != 2));
    odd.map_or(Ok(()), |line| Err(format!("neither a pattern nor a setting: {line:?}")))
}

/// A comment or `NAME=value` a line, with nothing in the value that a shell would read otherwise.
fn variables(text: &str) -> Result<(), String> {
    let plain = |line: &str| {
        line.split_once('=').is_some_and(|(name, value)| {
            name.chars().all(|c| c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit())
                && !value.contains([' ', '$', '`', '"', '\''])
        })
    };
    let odd = text.lines().find(|line| !line.is_empty() && !line.starts_with('#') && !plain(line));
    odd.map_or(Ok(()), |line| Err(format!("no variable: {line:?}")))
}

/// Every directive ends, every block is closed.
fn blocks(text: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.chars().last() {
            Some('{') => depth += 1,
            Some('}') if line == "}" => depth -= 1,
            Some(';') => {}
            _ => return Err(format!("neither a directive nor a block: {line:?}")),
        }
    }
    if depth == 0 { Ok(()) } else { Err("a block is not closed".to_owned()) }
}

/// Every bracket and brace is closed.
fn brackets(text: &str) -> Result<(), String> {
    let count = |c| text.matches(c).count();
    let open = [('(', ')'), ('{', '}'), ('[', ']')].into_iter().find(|(a, b)| count(*a) != count(*b));
    open.map_or(Ok(()), |(a, _)| Err(format!("{a:?} is not closed")))
}

fn shell(text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    crate::tool::write(folder.path(), "script.sh", text);
    let (good, said) = crate::tool::output(crate::tool::command("sh", folder.path()).args(["-n", "script.sh"]));
    if good { Ok(()) } else { Err(said) }
}

/// A line is a comment, a setting, a target, or the recipe of one, which begins with a tab.
fn makefile(text: &str) -> Result<(), String> {
    let mut has_target = false;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let known = match line.strip_prefix('\t') {
            Some(recipe) => has_target && !recipe.trim().is_empty(),
            None => !line.starts_with(' ') && line.contains([':', '=']),
        };
        if !known {
            return Err(format!("neither a setting nor a target nor its recipe: {line:?}"));
        }
        has_target |= !line.starts_with('\t') && line.contains(':') && !line.contains('=');
    }
    if has_target { Ok(()) } else { Err("there is no target in it".to_owned()) }
}

/// Sections of `Key=value`, and a command to run.
fn unit(text: &str) -> Result<(), String> {
    let mut section = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if section.is_empty() || !line.contains('=') || line.starts_with(char::is_lowercase) {
            return Err(format!("no setting of a section: {line:?}"));
        }
    }
    if text.contains("\nExecStart=/") && section == "Install" { Ok(()) } else { Err("it starts nothing".to_owned()) }
}

fn toml(text: &str) -> Result<(), String> {
    text.parse::<toml::Table>().map(drop).map_err(|error| error.to_string())
}

/// Every line is an instruction of Docker's reference, stages are named before they are copied from, and the last stage
/// runs as somebody who is not root.
fn dockerfile(text: &str) -> Result<(), String> {
    const INSTRUCTIONS: [&str; 17] = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let mut logical = vec![];
    let mut open = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.trim_end().strip_suffix('\\') {
            Some(begun) => open.push_str(begun),
            None if open.is_empty() && line.trim().is_empty() => {}
            None => logical.push(std::mem::take(&mut open) + line.trim_end()),
        }
    }
    if !open.is_empty() {
        return Err("the last line is continued".to_owned());
    }
    let mut stages: Vec<String> = vec![];
    let mut user = None;
    for line in &logical {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (instruction, rest) = words.split_first().ok_or("a line is empty")?;
        if !INSTRUCTIONS.contains(instruction) {
            return Err(format!("no instruction is called {instruction:?}: {line}"));
        }
        if rest.is_empty() {
            return Err(format!("{instruction} says nothing"));
        }
        if stages.is_empty() && !matches!(*instruction, "FROM" | "ARG") {
            return Err(format!("{instruction} stands before FROM"));
        }
        match *instruction {
            "FROM" => {
                // "FROM --platform=… image AS name"
                let named = rest.iter().position(|word| word.eq_ignore_ascii_case("as"));
                stages.push(named.and_then(|at| rest.get(at + 1)).map_or(String::new(), |name| (*name).to_owned()));
                user = None;
            }
            "USER" => user = Some(rest[0].to_owned()),
            "COPY" => {
                let from = rest.iter().find_map(|word| word.strip_prefix("--from="));
                if from.is_some_and(|from| !from.contains(['/', ':']) && !stages.iter().any(|stage| stage == from)) {
                    return Err(format!("no stage before it has that name: {line}"));
                }
            }
            _ => {}
        }
    }
    match user.as_deref().map(|user| user.split(':').next().unwrap_or_default()) {
        None | Some("root" | "0") => Err("the last stage runs as root".to_owned()),
        Some(_) => Ok(()),
    }
}
