//! `docker-compose.yml` and the Dockerfile. No container engine is needed here: the files are read, and held against what
//! the Compose Specification allows and what they promise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tandem::config::{Config, Variables};
use yaml_rust2::{Yaml, YamlLoader};

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn compose() -> Value {
    let documents = YamlLoader::load_from_str(&read("docker-compose.yml")).unwrap();
    assert_eq!(documents.len(), 1);
    to_json(&documents[0])
}

fn to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Hash(map) => {
            let entry = |(key, value): (&Yaml, &Yaml)| (key.as_str().unwrap().to_owned(), to_json(value));
            Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
        }
        Yaml::Array(items) => items.iter().map(to_json).collect(),
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(value) => json!(value),
        Yaml::Real(text) => json!(text.parse::<f64>().unwrap()),
        Yaml::Null => Value::Null,
        other => panic!("{other:?}"),
    }
}

/// The keys of the Compose Specification that these files use, with the shapes that it gives them; every other key is a
/// mistake until it is taken in here.
fn schema() -> Value {
    let duration = json!({"type": "string", "pattern": "^([0-9]+(us|ms|s|m|h))+$"});
    let text = json!({"type": "string", "minLength": 1});
    let texts = json!({"type": "array", "items": text, "minItems": 1, "uniqueItems": false});
    let environment = json!({
        "type": "object",
        "propertyNames": {"pattern": "^[A-Z][A-Z0-9_]*$"},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    });
    let condition = json!({"enum": ["service_started", "service_healthy", "service_completed_successfully"]});
    let service = json!({
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
        "properties": {
            "image": {"type": "string", "pattern": "^[a-z0-9./_-]+(:[A-Za-z0-9._-]+)?$"},
            "build": text,
            "command": texts,
            "environment": environment,
            "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:/[^:]*(:ro)?$"}},
            "networks": texts,
            "depends_on": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["condition"],
                    "properties": {"condition": condition},
                },
            },
            "healthcheck": {
                "type": "object",
                "additionalProperties": false,
                "required": ["test"],
                "properties": {
                    "test": {"type": "array", "items": text, "minItems": 2,
                             "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                    "interval": duration, "timeout": duration, "start_period": duration,
                    "retries": {"type": "integer", "minimum": 1},
                },
            },
            "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
            "stop_grace_period": duration,
            "read_only": {"type": "boolean"},
            "tmpfs": texts,
            "cap_drop": texts,
            "security_opt": texts,
        },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["services"],
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
            "services": {
                "type": "object",
                "propertyNames": {"pattern": "^[a-zA-Z0-9._-]+$"},
                "additionalProperties": service,
            },
            "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
            "networks": {
                "type": "object",
                "additionalProperties": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": {"internal": {"type": "boolean"}},
                },
            },
        },
    })
}

#[test]
fn the_compose_file_is_shaped_as_the_specification_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let complaints: Vec<String> =
        validator.iter_errors(&compose()).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    for wrong in [
        json!({"services": {"a": {"image": "x", "port": ["1:1"]}}}),
        json!({"services": {"a": {"restart": "always"}}}),
        json!({"services": {"a": {"image": "x", "healthcheck": {"test": ["wget", "x"]}}}}),
        json!({"services": {"a": {"image": "x", "depends_on": {"b": {"condition": "healthy"}}}}}),
        json!({"services": {"a": {"image": "x", "stop_grace_period": "70"}}}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn what_the_compose_file_names_is_there() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let names = |key: &str| -> BTreeSet<String> {
        compose[key].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    for (name, service) in services {
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            if how["condition"] == "service_healthy" {
                assert!(
                    other_service["healthcheck"].is_object(),
                    "{name} waits for the health of {other}, which has none"
                );
            }
            if how["condition"] == "service_completed_successfully" {
                assert!(
                    matches!(other_service["restart"].as_str(), Some("no" | "on-failure")),
                    "{other} never completes"
                );
            }
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there = match source.strip_prefix("./") {
                Some(file) => std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(),
                None => names("volumes").contains(source),
            };
            assert!(is_there, "{name}: {source}");
        }
        for network in service["networks"].as_array().into_iter().flatten() {
            assert!(names("networks").contains(network.as_str().unwrap()), "{name}: {network}");
        }
        assert!(service.get("ports").is_none(), "{name} publishes a port");
        assert!(service.get("container_name").is_none(), "{name} could not be scaled");
        if service.get("build").is_none() {
            assert!(service["image"].as_str().unwrap().contains(':'), "{name}: an image without a version");
        }
    }
}

/// The variables that Compose would set, with every `${…}` filled in.
fn environment(service: &str) -> Variables {
    let fill = |text: &str| {
        let mut rest = text;
        let mut filled = String::new();
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, after) = after.split_once('}').unwrap();
            let name = inside.split([':', '-', '?']).next().unwrap();
            filled.push_str(before);
            // Without `:-` it must be set, and then it is.
            if !inside.contains(":-") {
                filled.push_str(&name.to_lowercase().replace('_', ""));
            }
            rest = after;
        }
        filled + rest
    };
    let compose = compose();
    let variables = compose["services"][service]["environment"].as_object().unwrap();
    let pair = |(name, value): (&String, &Value)| {
        (name.clone(), fill(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    };
    variables.iter().map(pair).chain([("HOME".to_owned(), "/home/tandem".to_owned())]).collect()
}

#[test]
fn the_worker_verifies_and_the_provisioner_is_the_administrator() {
    let worker = Config::load(&environment("worker")).unwrap();
    assert_eq!(worker.nats.provision, tandem::bus::Provision::Verify);
    assert_eq!((worker.nats.user.as_str(), worker.nats.inbox_prefix.as_str()), ("worker", "_INBOX.worker"));
    assert_eq!(worker.nats.urls, ["nats://nats:4222"]);
    assert!(worker.database.url.starts_with("postgres://"));
    let admin = Config::load(&environment("provision")).unwrap();
    assert_eq!((admin.nats.user.as_str(), &admin.nats.urls), ("admin", &worker.nats.urls));

    let compose = compose();
    assert_eq!(compose["services"]["provision"]["command"], json!(["provision"]));
    let waits = &compose["services"]["worker"]["depends_on"];
    assert_eq!(waits["provision"]["condition"], "service_completed_successfully");
    assert_eq!(
        (&waits["nats"]["condition"], &waits["postgres"]["condition"]),
        (&json!("service_healthy"), &json!("service_healthy"))
    );
    // Every password that nats.conf asks for is handed to the server.
    let handed = environment("nats");
    for line in crate::server::shipped().lines().filter(|line| !line.trim_start().starts_with('#')) {
        for variable in line.split('$').skip(1).filter(|rest| rest.starts_with("TANDEM_")) {
            let name: String = variable.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(handed.contains_key(&name), "{name}");
        }
    }
}

#[test]
fn the_image_runs_without_root_and_holds_its_assets() {
    let mut stages: Vec<Vec<(String, String)>> = vec![];
    let text = read("Dockerfile").replace("\\\n", " ");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap();
        if word == "FROM" {
            stages.push(vec![]);
        }
        stages.last_mut().unwrap().push((word.to_owned(), rest.trim().to_owned()));
    }
    let last: BTreeMap<&str, &str> =
        stages.last().unwrap().iter().map(|(word, rest)| (word.as_str(), rest.as_str())).collect();
    assert!(!["root", "0"].contains(&last["USER"].split(':').next().unwrap()));
    let words: Vec<&str> = stages.last().unwrap().iter().map(|(word, _)| word.as_str()).collect();
    let user = words.iter().position(|word| *word == "USER").unwrap();
    assert!(words[user..].iter().all(|word| !["RUN", "COPY", "ADD"].contains(word)), "what is made is root's");
    let copied: Vec<&str> =
        stages.last().unwrap().iter().filter(|(word, _)| word == "COPY").map(|(_, rest)| rest.as_str()).collect();
    for part in ["onnxruntime", "embedding", "/usr/local/bin/tandem"] {
        assert!(copied.iter().any(|line| line.contains(part)), "{part} is not in the image");
    }
    let assets = last["ENV"].strip_prefix("TANDEM_ASSETS=").unwrap();
    assert!(copied.iter().filter(|line| line.contains(assets)).count() >= 2);
    // In the form with brackets: the worker is process 1 and gets SIGTERM itself.
    assert_eq!((last["ENTRYPOINT"], last["CMD"]), (r#"["tandem"]"#, r#"["serve"]"#));
    for (word, rest) in stages.iter().flatten().filter(|(word, _)| word == "FROM") {
        assert!(rest.contains(':') && !rest.contains(":latest"), "{word} {rest}");
    }
}

/// A document that names a test that is gone promises what nothing holds.
#[test]
fn the_documents_name_tests_that_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut folders = vec![root.join("tests"), root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for document in ["docs/security.md", "docs/upgrading.md"] {
        let (text, mut names) = (read(document), 0);
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = (word.starts_with("tests/") || word.starts_with("src/")) && !word.contains(' ');
            assert!(!is_path || root.join(word).exists(), "{document}: {word}");
            let is_test = word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_key = word.starts_with("nats.") || word.ends_with("_ms");
            if is_test && !is_key {
                assert!(code.contains(&format!("fn {word}(")), "{document}: {word}");
                names += 1;
            }
        }
        assert!(names >= 3, "{document}: {names}");
    }
}
