//! What a request may say that cannot be meant, and what is done with it. tests/door has what is refused at once.

use serde_json::json;
use tandem::llm::{Credentials, Key};

use crate::nats::Nats;
use crate::provider::{Reply, Server};
use crate::worker::Place;
use crate::{Asker, example, text, until, with};

#[tokio::test]
async fn a_language_without_rules_gets_no_other_language_s_code() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let kotlin = with(&example(), json!({"language": "kotlin"}));
    for _ in 0..2 {
        let answer = asker.request(&kotlin).await;
        assert_eq!((&answer["language"], &answer["method"]), (&json!("kotlin"), &json!("fallback")), "{answer}");
        assert_eq!(answer["template_used"], json!(null));
        assert_eq!((&answer["metrics"]["success"], &answer["metrics"]["cache_hit"]), (&json!(false), &json!(false)));
        let (said, notes) = (text(&answer, "result"), answer["notes"].to_string());
        assert!(!said.contains("defmodule") && !said.contains("fn "), "{said}");
        assert!(notes.contains("kotlin"), "{notes}");
        assert!(text(&answer, "reason").contains("no model is configured"), "{answer}");
    }
    // What is written in no programming language is still done.
    let readme = json!({
        "task": "Write a README for the payment gateway with installation and usage", "language": "kotlin"
    });
    let answer = asker.request(&readme).await;
    assert_eq!((&answer["method"], &answer["language"]), (&json!("autonomous"), &json!("kotlin")), "{answer}");
}

#[tokio::test]
async fn a_misspelt_language_or_complexity_is_read_as_the_nearest_and_said() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    for (written, read) in [("elixr", "elixir"), ("TypeScrpt", "typescript"), ("golang", "go"), ("py", "python")] {
        let answer = asker.request(&with(&example(), json!({"language": written}))).await;
        assert_eq!(answer["language"], read, "{written}: {answer}");
        assert_eq!(answer["template_used"], format!("{read}-nats-consumer"), "{written}");
    }
    let answer = asker.request(&with(&example(), json!({"language": "elixr", "complexity": "enormous"}))).await;
    let notes = answer["notes"].to_string();
    assert!(notes.contains("elixr") && notes.contains("elixir"), "{notes}");
    assert!(notes.contains("enormous") && notes.contains("medium"), "{notes}");
}

#[tokio::test]
async fn template_marks_in_a_task_come_out_as_text() {
    let nats = Nats::start().await;
    let place = Place::new();
    // The templates that ship show names only; one of a user's own may show the whole task.
    let folder = place.path().join("templates");
    std::fs::create_dir_all(&folder).unwrap();
    let template = r#"+++
id = "python-echo"
task_type = "general"
language = "python"
description = "Says what it was asked"
example = "Echo the greeting"
triggers = ["echo"]
words = ["greeting"]
slots = []
+++
"""{{ task }}"""
TASK = "{{ task }}"
"#;
    std::fs::write(folder.join("python-echo.jinja"), template).unwrap();
    let mut config = place.config(&nats);
    config.templates.folder = folder.display().to_string();
    // Every task with a trigger is to reach the template.
    config.agent.max_unknown_share = 1.0;
    let _worker = place.worker_with(config, Credentials::default()).await;
    let asker = Asker::of(&nats).await;
    for (hostile, kept) in [
        ("{{ true|upper }}", "true"),
        ("{% if true %}boom{% endif %}", "if true"),
        ("{{ self }}", "self"),
        ("{%- raw -%}{{ loop }}{%- endraw -%}", "raw"),
    ] {
        let body = json!({"task": format!("Echo the greeting {hostile}"), "language": "python"});
        let answer = asker.request(&body).await;
        assert_eq!(answer["template_used"], "python-echo", "{answer}");
        let code = text(&answer, "result");
        assert!(code.contains(kept) && !code.contains("TRUE"), "{hostile} was evaluated: {code}");
        assert_eq!((answer["metrics"]["success"].as_bool(), code.lines().count()), (Some(true), 2), "{code}");
    }

    for (task, language) in [
        ("Create a NATS consumer for processing {{ 7*7 }} events", "elixir"),
        ("Create a NATS consumer for processing {% for i in [1,2] %}x{% endfor %} events", "elixir"),
        ("Create a REST endpoint for #{System.halt()} orders", "elixir"),
        ("Create a NATS consumer for ${process.exit()} events", "typescript"),
    ] {
        let answer = asker.request(&json!({ "task": task, "language": language })).await;
        let code = text(&answer, "result");
        // What is left of it is a name or a string of the code.
        for evaluated in ["49", "xx", "System.halt(", "process.exit(", "{%"] {
            assert!(!code.contains(evaluated), "{task}: {code}");
        }
    }
    // A model gets the task as it was written.
    let provider = Server::start(Reply::json(500, "{}")).await;
    let key = Key { secret: "k".into(), base_url: provider.url() };
    let place = Place::new();
    let credentials = Credentials { openai: Some(key), ..Credentials::default() };
    let _asking = place.worker_with(place.config(&nats), credentials).await;
    let task = "Write a function that prints {{ 7*7 }} and {% raw %} in a matrix";
    let asked = async || {
        asker.request(&json!({ "task": task, "language": "rust" })).await;
        provider.received().first().cloned()
    };
    let sent = until("the worker with a model was asked", asked).await;
    assert!(sent.body.to_string().contains(task), "{}", sent.body);
}

#[tokio::test]
async fn control_characters_are_refused_wherever_they_stand() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    for (body, field) in [
        (json!({"task": "a\u{0}b"}), "task"),
        (json!({"task": "a\u{1b}[31mb"}), "task"),
        (json!({"task": "x", "language": "ru\u{0}st"}), "language"),
        (json!({"task": "x", "complexity": "\u{7f}"}), "complexity"),
        (json!({"task": "x", "acceptance_criteria": ["\u{0}"]}), "acceptance_criteria[0]"),
        (json!({"task": "x", "context": {"workspace": "/a\u{0}b"}}), "context.workspace"),
        (json!({"task": "x", "context": {"target_file": "a\u{0}.ex"}}), "context.target_file"),
    ] {
        let (status, error) = asker.refused("execution.request", &body).await;
        assert_eq!((status.as_str(), error["field"].as_str()), ("400", Some(field)), "{body}: {error}");
        assert_eq!(error["metrics"], json!({"success": false}));
    }
    let lines = with(&example(), json!({"task": "Create a NATS consumer\r\n\tfor processing user events"}));
    assert_eq!(asker.request(&lines).await["method"], "autonomous");
}
