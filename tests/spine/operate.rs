//! What an operator sees: figures that change with use, health, templates that can be looked into and added.

use std::fs;

use serde_json::{Value, json};
use tandem::llm::Credentials;

use crate::nats::Nats;
use crate::worker::Place;
use crate::{Asker, declined, example, names, text, until, with};

#[tokio::test]
async fn stats_have_the_source_s_shape_and_change_with_use() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let stats = async |subject: &str| asker.ask(subject, &json!({})).await;
    let empty = stats("execution.stats").await;
    for field in [
        "average_quality",
        "average_time_ms",
        "cost",
        "current_execution",
        "latency_ms",
        "methods",
        "success_rate",
        "template_usage",
        "tokens_used",
        "total_executions",
    ] {
        assert!(names(&empty).contains(&field), "{field} is not in {empty}");
    }
    assert_eq!((&empty["total_executions"], &empty["success_rate"]), (&json!(0), &json!(null)), "unknown is not zero");
    assert_eq!((&empty["latency_ms"]["p95"], &empty["cost"]["all_model_usd"]), (&json!(null), &json!(null)));

    asker.request(&example()).await;
    asker.request(&example()).await;
    asker.request(&with(&example(), json!({"language": "rust"}))).await;
    asker.request(&declined()).await;
    let used = stats("execution.stats").await;
    assert_eq!(used["total_executions"], 4, "{used}");
    assert_eq!(used["success_rate"].as_f64(), Some(0.75));
    let share =
        |method: &str| (used["methods"][method]["executions"].as_u64(), used["methods"][method]["share"].as_f64());
    assert_eq!(share("autonomous"), (Some(2), Some(0.5)), "{used}");
    assert_eq!((share("cached"), share("fallback")), ((Some(1), Some(0.25)), (Some(1), Some(0.25))));
    assert_eq!(share("llm_assisted"), (Some(0), Some(0.0)));
    // A hit counts for the template that it was made by, so this one served twice.
    assert_eq!(used["template_usage"], json!({"elixir-nats-consumer": 2, "rust-nats-consumer": 1}), "{used}");
    let latency = &used["latency_ms"];
    let [p50, p95, p99] = ["p50", "p95", "p99"].map(|p| latency[p].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{latency}");
    assert!(used["average_time_ms"].as_f64().unwrap() > 0.0);
    assert!((0.0..=1.0).contains(&used["average_quality"].as_f64().unwrap()));
    assert_eq!(used["cost"]["spent_usd"].as_f64(), Some(0.0));
    assert!(used["cost"]["all_model_usd"].as_f64().unwrap() > 0.0, "a model would have cost something: {used}");
    assert_eq!(stats("execution.stats.acme").await["total_executions"], 0, "a tenant's figures are its own");

    let analysis = asker.ask("template.analyze", &json!({})).await;
    assert_eq!((&analysis["total_uses"], &analysis["used_templates"]), (&json!(2), &json!(2)), "{analysis}");
    assert_eq!(analysis["top_performers"].as_array().unwrap().len(), 2);
    let cache = asker.ask("cache.stats", &json!({})).await;
    assert_eq!((&cache["entries"], &cache["exact_hits"]), (&json!(2), &json!(1)), "{cache}");
    // The request that was declined was looked up a second time, as a task.
    assert_eq!((&cache["misses"], cache["hit_rate"].as_f64()), (&json!(4), Some(0.2)), "{cache}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_names_each_component() {
    let nats = Nats::start().await;
    let _worker = Place::with_model().worker(&nats).await;
    let health = Asker::of(&nats).await.ask("execution.health", &json!({})).await;
    assert_eq!(
        names(&health["components"]),
        ["database", "embedding", "http", "model", "nats", "recording", "submits", "templates"]
    );
    assert_eq!((&health["status"], &health["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))), "{health}");
    assert_eq!(health["components"]["embedding"]["status"], "ok", "{health}");
    assert_eq!(health["components"]["model"]["status"], "off", "no key: {health}");
    assert_eq!(health["components"]["nats"]["status"], "ok", "{health}");
    assert!(text(&health["components"]["nats"], "message").starts_with("connected"), "{health}");
}

#[tokio::test]
async fn every_template_s_output_parses_and_there_are_enough_of_them() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let checks = asker.ask("template.check", &json!({})).await;
    let problems: Vec<&Value> =
        checks["templates"].as_array().unwrap().iter().filter(|check| !check["problem"].is_null()).collect();
    assert!(problems.is_empty(), "{problems:#?}");

    let list = asker.ask("template.list", &json!({})).await;
    let templates = list["templates"].as_array().unwrap();
    assert!(templates.len() >= 28, "{}", templates.len());
    for language in ["elixir", "rust", "typescript", "go", "python", "javascript", "sql"] {
        let mut types: Vec<&str> =
            templates.iter().filter(|t| t["language"] == language).map(|t| text(t, "task_type")).collect();
        types.sort_unstable();
        types.dedup();
        assert!(types.len() >= 4, "{language}: {types:?}");
    }
}

#[tokio::test]
async fn selecting_says_what_would_be_done_and_why_not() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let asker = Asker::of(&nats).await;
    let chosen = asker.ask("template.select", &json!({"task": example()["task"], "language": "elixir"})).await;
    assert_eq!((&chosen["id"], &chosen["task_type"]), (&json!("elixir-nats-consumer"), &json!("nats_consumer")));
    assert_eq!((chosen["confidence"].as_f64(), &chosen["declined"]), (Some(0.9), &json!(null)), "{chosen}");
    let not = asker.ask("template.select", &declined()).await;
    assert_eq!(not["id"], json!(null), "{not}");
    assert!(not["declined"].is_object(), "{not}");
    assert_eq!(asker.ask("execution.stats", &json!({})).await["total_executions"], 0, "nothing was executed");
}

#[tokio::test]
async fn a_template_dropped_into_the_folder_serves_without_a_restart_and_a_broken_one_harms_nobody() {
    let nats = Nats::start().await;
    let place = Place::new();
    let folder = place.path().join("templates");
    fs::create_dir_all(&folder).unwrap();
    let mut config = place.config(&nats);
    config.templates.folder = folder.display().to_string();
    config.templates.reload_ms = 20;
    let _worker = place.worker_with(config, Credentials::default()).await;
    let asker = Asker::of(&nats).await;
    let body = json!({"task": "Create a carillon for user bells", "language": "python", "cache": "off"});
    assert_eq!(asker.request(&body).await["method"], "fallback");

    let broken = "+++\nid = \"broken\"\ntask_type = \"general\"\nlanguage = \"python\"\ndescription = \"Broken\"\n\
        example = \"Create it\"\ntriggers = [\"it\"]\nslot = []\n+++\npass\n";
    fs::write(folder.join("broken.jinja"), broken).unwrap();
    let template = "+++\nid = \"python-carillon\"\ntask_type = \"general\"\nlanguage = \"python\"\n\
        description = \"A carillon\"\nexample = \"Create a carillon for user bells\"\ntriggers = [\"carillon\"]\n\
        words = []\nslots = [\"name\"]\n\n[defaults]\nname = \"bells\"\n+++\nclass {{ name.pascal }}Carillon:\n    pass\n";
    fs::write(folder.join("carillon.jinja"), template).unwrap();
    let served = async || {
        let answer = asker.request(&body).await;
        (answer["template_used"] == "python-carillon").then_some(answer)
    };
    let answer = until("the new template serves", served).await;
    assert!(text(&answer, "result").contains("class UserBellsCarillon"), "{answer}");
    let health = asker.ask("execution.health", &json!({})).await;
    let templates = &health["components"]["templates"];
    assert_eq!((&templates["status"], &health["status"]), (&json!("degraded"), &json!("degraded")), "{health}");
    let said = text(templates, "message");
    assert!(said.contains("1 left out") && said.contains("broken.jinja"), "{said}");
    assert!(said.contains("line 8") && said.contains("unknown field `slot`"), "the line and the reason: {said}");
    assert_eq!(asker.request(&example()).await["method"], "autonomous", "the others still serve");
    let shown = asker.ask("template.show", &json!({"id": "python-carillon"})).await;
    assert!(text(&shown, "path").ends_with("carillon.jinja"), "{shown}");

    // Stored, and no longer served once its template is another.
    let stored = with(&body, json!({"cache": "use"}));
    asker.request(&stored).await;
    assert_eq!(asker.request(&stored).await["metrics"]["cache_hit"], true);
    fs::write(folder.join("carillon.jinja"), template.replace("    pass", "    bells = 3")).unwrap();
    // The file system's own clock may be some milliseconds behind.
    let file = fs::File::options().write(true).open(folder.join("carillon.jinja")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let renewed = async || text(&asker.request(&stored).await, "result").contains("bells = 3").then_some(());
    until("the answer of the changed template serves", renewed).await;
    assert_eq!(asker.request(&stored).await["metrics"]["cache_hit"], true, "what the new one made is stored");

    fs::remove_file(folder.join("carillon.jinja")).unwrap();
    let gone = async || (asker.request(&body).await["method"] == "fallback").then_some(());
    until("a template that was taken away serves no more", gone).await;
}
