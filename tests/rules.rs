//! What the rules answer and what they leave alone, on labelled tasks: `tests/data/tasks.tsv`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;

use tandem::coordinator::graph::Options;
use tandem::coordinator::library::Library;
use tandem::coordinator::select::{Knowledge, select};
use tandem::domain::{Language, Timestamp};
use tandem::pipeline::check;

#[test]
fn labelled_tasks_are_answered_by_the_right_template_under_the_right_name_or_declined() {
    let (library, broken) = Library::load(None);
    assert!(broken.is_empty(), "{broken:?}");
    let mut wrong = vec![];
    for line in include_str!("data/tasks.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [language, template, name, task] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not four columns: {line}");
        };
        let said = answer(&library, language, task);
        let good = match (&said, template) {
            (Ok(_), "-") => false,
            (Ok((id, _)), wanted) if id != wanted => false,
            (Ok((_, taken)), _) => name.is_empty() || taken == name,
            (Err(_), wanted) => wanted == "-",
        };
        if !good {
            wrong.push(format!("{task}: wanted {template} {name:?}, got {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_template_renders_its_own_example_and_parses() {
    let (library, broken) = Library::load(None);
    assert!(broken.is_empty(), "{broken:?}");
    let wrong: Vec<String> = check(&library)
        .into_iter()
        .filter_map(|c| c.problem.map(|problem| format!("{}: {problem}", c.template)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_output_is_parsed_as_what_its_template_says_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let write = |id: &str, format: &str, body: &str| {
        let front = format!(
            "id = \"{id}\"\ntask_type = \"devops\"\nlanguage = \"rust\"\ndescription = \"\"\n\
             example = \"Write an image\"\ntriggers = [\"image\"]\nformat = \"{format}\""
        );
        std::fs::write(folder.path().join(format!("{id}.jinja")), format!("+++\n{front}\n+++\n{body}\n")).unwrap();
    };
    write("image", "dockerfile", "FROM rust:1.95\nCMD [\"cargo\", \"run\"]");
    write("image-broken", "dockerfile", "FROM rust:1.95\nCMD ['cargo', 'run']");
    write("compose", "yaml", "services:\n  app: {image: app}");
    write("compose-broken", "yaml", "services:\n  app: {image: app");
    write("readme", "prose", "An image of the service.");
    write("code-broken", "code", "An image of the service.");
    write("unknown", "toml", "a = 1");
    let (library, broken) = Library::load(Some(folder.path()));
    assert!(broken.len() == 1 && broken[0].message.contains("unknown variant `toml`"), "{broken:?}");
    let own = ["code-broken", "compose", "compose-broken", "image", "image-broken", "readme"];
    let problems: Vec<_> = check(&library)
        .into_iter()
        .filter(|c| own.contains(&c.template.as_str()))
        .map(|c| (c.template, c.problem.map(|problem| problem.contains("does not parse"))))
        .collect();
    let expected = own.map(|id| (id.to_owned(), id.ends_with("-broken").then_some(true)));
    assert_eq!(problems, expected);
}

#[test]
fn there_are_enough_templates_and_every_language_has_four_kinds() {
    let (library, _) = Library::load(None);
    assert!(library.len() >= 28, "{}", library.len());
    for language in Language::known() {
        let mut kinds: Vec<_> =
            library.iter().filter(|t| t.language.as_ref() == Some(&language)).map(|t| t.task_type).collect();
        kinds.sort();
        kinds.dedup();
        assert!(kinds.len() >= 4, "{language}: {kinds:?}");
    }
    for id in ["elixir-nats-consumer", "rust-api-endpoint"] {
        assert!(library.iter().any(|t| t.id.as_str() == id), "{id} is the source's own example");
    }
}

/// The template and the name that the task fills it with, or why the rules decline.
fn answer(library: &Library, language: &str, task: &str) -> Result<(String, String), String> {
    let (figures, options) = (HashMap::new(), Options { explore: 0.0, near: 0.0 });
    let knowledge =
        Knowledge { library, figures: &figures, options: &options, max_unknown_share: 0.15, now: Timestamp(0) };
    let selected = select(task, &[], &Language::from(language.to_owned()), |_| false, &knowledge, &mut rand::rng());
    let chosen = selected.chosen.ok_or_else(|| selected.declined.map_or_else(String::new, |d| d.to_string()))?;
    let slots = serde_json::to_value(&chosen.reading.filled).unwrap();
    let name = slots["name"]["words"].as_str().unwrap_or_default().to_owned();
    Ok((chosen.template.id.to_string(), name))
}
