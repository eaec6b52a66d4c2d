//! The documents say what the code does. Those that are made from it are written anew with
//! `TANDEM_BLESS=1 cargo test --test docs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "a test")]

#[path = "support/nats.rs"]
mod nats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_nats::Message;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tandem::app::Worker;
use tandem::bus::asyncapi;
use tandem::bus::endpoints::TABLE;
use tandem::bus::wire::{self, Code, Envelope, Refusal};
use tandem::config::{Config, Paths, Variables, reference};
use tandem::domain::{Answer, CorrelationId, Language, Method, TaskType, Tenant, Timestamp};
use tandem::llm::Credentials;

use nats::Nats;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(docs().join(name)).unwrap_or_else(|error| panic!("docs/{name}: {error}"))
}

fn blesses() -> bool {
    std::env::vars_os().any(|(name, value)| name == "TANDEM_BLESS" && value == "1")
}

/// The file is what the code makes; with `TANDEM_BLESS=1` it becomes that.
#[track_caller]
fn generated(name: &str, text: &str) {
    if blesses() {
        std::fs::write(docs().join(name), text).unwrap();
    }
    let found = std::fs::read_to_string(docs().join(name)).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = 1 + differs.unwrap_or_else(|| found.lines().count().min(text.lines().count()));
    assert!(
        found == text,
        "docs/{name} is not what the code makes, from line {line}; run TANDEM_BLESS=1 cargo test --test docs"
    );
}

#[test]
fn the_asyncapi_document_is_that_of_the_code() {
    generated("asyncapi.yaml", &asyncapi::yaml());
}

#[test]
fn the_configuration_reference_is_that_of_the_code() {
    generated("configuration.md", &reference::markdown());
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    generated("metrics.md", &tandem::telemetry::metrics::markdown());
}

#[test]
fn the_schemas_are_those_of_the_code_and_no_others() {
    let schemas: BTreeMap<String, Value> =
        asyncapi::schemas().into_iter().map(|(name, schema)| (format!("{}.json", kebab(&name)), schema)).collect();
    for (file, schema) in &schemas {
        generated(&format!("schemas/{file}"), &format!("{schema:#}\n"));
    }
    let there = std::fs::read_dir(docs().join("schemas")).unwrap();
    let there: BTreeSet<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, schemas.keys().cloned().collect());
}

/// `FeedbackAnswer` is `feedback-answer`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

mod asyncapi_document {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = asyncapi::document();
        let mut found = vec![];
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let path = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
            assert!(document.pointer(path).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn each_endpoint_has_its_two_subjects_and_a_reply() {
        let document = asyncapi::document();
        let operations = document["operations"].as_object().unwrap();
        let (asked, durable): (Vec<_>, Vec<_>) = operations.iter().partition(|(_, o)| o.get("reply").is_some());
        assert_eq!((asked.len(), durable.len()), (2 * TABLE.len(), 8));
        for (key, operation) in durable {
            let channel = operation["channel"]["$ref"].as_str().unwrap();
            assert_eq!(channel, format!("#/channels/{key}"));
            let address = document["channels"][key]["address"].as_str().unwrap();
            let by_worker = !address.starts_with("execution.submit");
            assert_eq!(operation["action"], if by_worker { "send" } else { "receive" }, "{address}");
            let messages = operation["messages"].as_array().unwrap();
            assert!(messages.iter().all(|m| m["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/"))));
        }
        for endpoint in TABLE {
            let plain = &document["channels"][endpoint.name];
            let tenant = &document["channels"][format!("{}-tenant", endpoint.name)];
            assert_eq!(plain["address"], endpoint.subject);
            assert_eq!(tenant["address"], format!("{}.{{tenant}}", endpoint.subject));
            assert!(tenant["parameters"]["tenant"].is_object() && plain.get("parameters").is_none());
            for (key, operation) in &asked {
                let channel = operation["channel"]["$ref"].as_str().unwrap().to_owned();
                assert_eq!(channel, format!("#/channels/{key}"));
                assert_eq!(operation["action"], "receive");
                // The messages of an operation must be taken from its channels.
                let taken = operation["messages"][0]["$ref"].as_str().unwrap();
                assert!(taken.starts_with(&format!("{channel}/messages/")), "{taken}");
                let given = operation["reply"]["messages"].as_array().unwrap();
                assert!(given.iter().all(|m| m["$ref"].as_str().unwrap().starts_with("#/channels/reply/messages/")));
                // An answer, where it lies, or an error.
                assert_eq!(given.len(), 3);
            }
        }
        assert_eq!(document["channels"]["reply"]["address"], Value::Null);
    }

    #[test]
    fn its_examples_are_what_their_schemas_take() {
        let document = asyncapi::document();
        let mut examples = 0;
        for message in document["components"]["messages"].as_object().unwrap().values() {
            for example in message["examples"].as_array().into_iter().flatten() {
                let schema = schema(message["name"].as_str().unwrap());
                assert!(schema.is_valid(&example["payload"]), "{example}");
                examples += 1;
            }
        }
        assert!(examples > 0);
    }
}

/// As in docs/schemas, which is compared with the code above.
fn schema(name: &str) -> jsonschema::Validator {
    let schema = asyncapi::schemas().remove(name).unwrap_or_else(|| panic!("there is no schema of {name}"));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn valid(name: &str, value: &Value) {
    let errors: Vec<String> = schema(name).iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:?} in {value}");
}

#[track_caller]
fn invalid(name: &str, value: &Value) {
    assert!(!schema(name).is_valid(value), "{name} takes {value}");
}

fn example() -> Value {
    json!({
        "task": "Create a NATS consumer for processing user events", "language": "elixir", "complexity": "medium",
        "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex"}
    })
}

/// `value` with something else at a place in it.
fn with(value: &Value, pointer: &str, other: Value) -> Value {
    let mut value = value.clone();
    *value.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing at {pointer}")) = other;
    value
}

fn without(value: &Value, key: &str) -> Value {
    let mut value = value.clone();
    assert!(value.as_object_mut().unwrap().remove(key).is_some());
    value
}

mod schemas {
    use super::*;

    #[test]
    fn a_request_is_the_sources_and_no_other() {
        valid("Request", &example());
        valid("Request", &json!({"task": "x", "made_up": 1, "context": {"framework": {"any": ["thing"]}}}));
        invalid("Request", &without(&example(), "task"));
        for (pointer, wrong) in [
            ("/task", json!(7)),
            ("/task", json!(" \n")),
            ("/task", json!("a\u{0}b")),
            ("/language", json!("y".repeat(65))),
            ("/complexity", json!(2)),
            ("/context", json!("x")),
            ("/context/target_file", json!(1)),
        ] {
            invalid("Request", &with(&example(), pointer, wrong));
        }
        for wrong in [
            json!({"task": "x", "id": "a b"}),
            json!({"task": "x", "cache": "never"}),
            json!({"task": "x", "timeout_ms": 0}),
            json!({"task": "x", "timeout_ms": 1.5}),
            json!({"task": "x", "max_cost_usd": -1}),
            json!({"task": "x", "acceptance_criteria": ["a", " "]}),
            json!({"task": "x", "context": {"messages": [{"role": "root", "content": "x"}]}}),
        ] {
            invalid("Request", &wrong);
        }
    }

    #[test]
    fn a_response_has_the_sources_fields() {
        let id = CorrelationId::parse("exec_1").unwrap();
        let answer = Answer::new(
            Method::Autonomous,
            TaskType::General,
            &Language::Rust,
            "fn main() {}".to_owned(),
            Timestamp(0),
        );
        let response = wire::Response::new(answer, &id, std::time::Duration::from_millis(3));
        let response = serde_json::to_value(response).unwrap();
        valid("Response", &response);
        for key in ["result", "template_used", "model_used", "method", "metrics"] {
            invalid("Response", &without(&response, key));
        }
        for key in ["time_ms", "tokens_used", "cost_usd", "cache_hit", "quality", "success"] {
            invalid("Response", &with(&response, "/metrics", without(&response["metrics"], key)));
        }
        invalid("Response", &with(&response, "/method", json!("guessed")));
        invalid("Response", &with(&response, "/metrics/tokens_used", json!(-1)));
    }

    #[test]
    fn an_error_names_its_code_and_its_request() {
        let id = CorrelationId::parse("exec_1").unwrap();
        let error = Refusal::at(Code::MissingField, "task", "the field 'task' is missing").to_error(&id);
        let error = serde_json::to_value(error).unwrap();
        valid("Error", &error);
        for key in ["error", "message", "correlation_id", "metrics"] {
            invalid("Error", &without(&error, key));
        }
        invalid("Error", &with(&error, "/error", json!("it_broke")));
        invalid("Response", &error);
    }
}

fn envelope() -> Envelope {
    let (tenant, correlation_id) = (Tenant::default(), CorrelationId::generate());
    Envelope { tenant, correlation_id, traceparent: None, deadline: None, fetches: false }
}

fn decodes(body: &Value) -> Result<(), Refusal> {
    let body = body.to_string();
    wire::decode(body.as_bytes(), &envelope(), 64 * 1024, |_, _, _| Language::Elixir).map(drop)
}

/// Something that may stand in a field: mostly what belongs into one, sometimes anything.
fn anything() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ \\t\\n\\r\u{0}\u{1b}\u{7f}\u{85}\u{a0}a-zé_-]{0,6}",
        prop::sample::select(vec!["use", "refresh", "off", "user", "assistant", "system", "medium", "rust"])
            .prop_map(str::to_owned),
        (60..70_usize, "[xü]").prop_map(|(n, c)| c.repeat(n)),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(vec![0.0, 0.5, 1.0, 1.5, 60_000.0, 9.0e9, 9.3e9, 1e30, -1.0]).prop_map(Value::from),
    ];
    let leaf = prop_oneof![4 => text.prop_map(Value::from), 2 => number, 1 => Just(Value::Null), 1 => any::<bool>().prop_map(Value::from)];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            fields(&["role", "content", "x"], inner).prop_map(Value::from),
        ]
    })
}

fn fields(
    names: &'static [&'static str],
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Map<String, Value>> {
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    prop::collection::btree_map(name, value, 0..3).prop_map(|map| map.into_iter().collect())
}

fn body() -> impl Strategy<Value = Value> {
    const TOP: [&str; 10] = [
        "task",
        "language",
        "complexity",
        "id",
        "acceptance_criteria",
        "cache",
        "max_cost_usd",
        "timeout_ms",
        "reply_to",
        "x",
    ];
    let message = ("user|assistant|system|root", "[ a\u{1}]{0,2}")
        .prop_map(|(role, content)| json!({"role": role, "content": content}));
    let messages = prop::collection::vec(prop_oneof![3 => message, 1 => anything()], 0..3).prop_map(Value::from);
    let context = (fields(&["workspace", "target_file", "messages", "x"], anything()), prop::option::of(messages));
    let context = context.prop_map(|(mut fields, messages)| {
        fields.extend(messages.map(|messages| ("messages".to_owned(), messages)));
        Value::from(fields)
    });
    let context = prop::option::of(prop_oneof![4 => context, 1 => anything()]);
    (prop::option::weighted(0.8, Just(json!("an API"))), fields(&TOP, anything()), context).prop_map(
        |(task, mut body, context)| {
            body.extend(task.map(|task| ("task".to_owned(), task)));
            body.extend(context.map(|context| ("context".to_owned(), context)));
            body.into()
        },
    )
}

/// What the published schema takes is what the worker takes.
#[test]
fn the_schema_of_a_request_is_true_to_its_reader() {
    let schema = schema("Request");
    let (mut taken, mut refused) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&body(), |body| {
        let read = decodes(&body);
        prop_assert_eq!(schema.is_valid(&body), read.is_ok(), "{}: {:?}", body, read);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    // Both sides were tried.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..500 {
        let tree = body().new_tree(&mut runner).unwrap();
        *(if decodes(&proptest::strategy::ValueTree::current(&tree)).is_ok() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 50 && refused > 50, "{taken} taken, {refused} refused");
}

mod subjects {
    use super::*;

    /// The headings of docs/subjects.md that are subjects.
    fn headings() -> BTreeSet<String> {
        let text = read("subjects.md");
        let titles = text.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
        titles.map(str::to_owned).collect()
    }

    #[test]
    fn every_subject_has_its_chapter_and_no_chapter_is_made_up() {
        let served: BTreeSet<String> = TABLE.iter().map(|endpoint| endpoint.subject.to_owned()).collect();
        assert_eq!(headings(), served);
    }

    /// The fenced JSON blocks below each heading: a request, its answer, then more answers and errors.
    #[test]
    fn the_examples_are_what_the_schemas_say() {
        let text = read("subjects.md");
        let schemas = asyncapi::schemas();
        let title = |shape: fn() -> schemars::Schema| shape().to_value()["title"].as_str().unwrap().to_owned();
        for endpoint in TABLE {
            let chapter = text.split("\n## ").find(|c| c.starts_with(&format!("`{}`\n", endpoint.subject))).unwrap();
            let blocks: Vec<&str> =
                chapter.split("```json\n").skip(1).map(|b| b.split("\n```").next().unwrap()).collect();
            let [request, answer, ..] = blocks[..] else {
                panic!("{}: an example of a request and of its answer are needed", endpoint.subject)
            };
            for (name, block) in [(title(endpoint.takes), request), (title(endpoint.gives), answer)] {
                assert!(schemas.contains_key(&name));
                let value: Value =
                    serde_json::from_str(block).unwrap_or_else(|e| panic!("{}: {e}\n{block}", endpoint.subject));
                valid(&name, &value);
            }
            for more in &blocks[2..] {
                let value: Value =
                    serde_json::from_str(more).unwrap_or_else(|e| panic!("{}: {e}\n{more}", endpoint.subject));
                let is_error = value.get("error").is_some();
                valid(if is_error { "Error".to_owned() } else { title(endpoint.gives) }.as_str(), &value);
            }
        }
    }
}

mod configuration {
    use super::*;

    struct Key {
        path: String,
        variable: String,
        default: Value,
        meaning: String,
    }

    /// The rows of docs/configuration.md, which is compared with the code above.
    fn keys() -> Vec<Key> {
        let text = reference::markdown();
        let row = |line: &str| {
            let (path, rest) = line.strip_prefix("| `")?.split_once("`<br>`")?;
            let (variable, rest) = rest.split_once("` | `")?;
            let (default, meaning) = rest.split_once("` | ")?;
            let default = serde_json::from_str(&default.replace("\\|", "|")).unwrap_or_else(|e| panic!("{line}: {e}"));
            Some(Key { path: path.to_owned(), variable: variable.to_owned(), default, meaning: meaning.to_owned() })
        };
        text.lines().filter_map(row).collect()
    }

    fn load(pairs: &[(&str, &str)]) -> Value {
        let mut variables: Variables = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        variables.insert("HOME".to_owned(), "/home/someone".to_owned());
        let loaded = Config::load(&variables).unwrap_or_else(|error| panic!("{pairs:?}: {error}"));
        serde_json::from_str(&serde_json::to_string(&loaded).unwrap()).unwrap()
    }

    /// A value that is allowed and not the default.
    fn another(key: &Key, folder: &str) -> String {
        match (key.path.as_str(), &key.default) {
            ("templates.folder" | "workflow.rules", _) => folder.to_owned(),
            ("workflow.notifications.event_types", _) => "task_failed,custom".to_owned(),
            ("workflow.decomposer.kind", _) => "rules".to_owned(),
            ("database.url", _) => "sqlite:/tmp/other.db".to_owned(),
            ("nats.reply_prefixes", _) => "_INBOX.,answers.".to_owned(),
            ("llm.prices", _) => r#"{"openai/x":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.5}}"#.to_owned(),
            ("llm.limits", _) => r#"{"openai/x":{"requests_per_minute":5,"tokens_per_minute":1000}}"#.to_owned(),
            ("nats.streams.replicas", _) => "3".to_owned(),
            ("llm.budget.tenants", _) => r#"{"acme":{"per_day_usd":2.5,"total_usd":1.0}}"#.to_owned(),
            (path, Value::Null) if path.starts_with("llm.budget.") => "0.25".to_owned(),
            ("llm.temperature", Value::Null) => "0.5".to_owned(),
            (_, Value::Bool(on)) => (!on).to_string(),
            ("workflow.optimization.pattern_confidence_threshold", _) => "0.75".to_owned(),
            (_, Value::Number(n)) if n.is_f64() => "0.25".to_owned(),
            (_, Value::Number(n)) => (n.as_u64().unwrap() + 1).to_string(),
            (_, Value::Array(_)) => "a,b".to_owned(),
            (path, Value::String(default)) => match key.meaning.split_once(" One of: `") {
                Some((_, values)) => {
                    let values: Vec<&str> =
                        values.trim_end_matches(" |").trim_end_matches("`.").split("`, `").collect();
                    let other = values.iter().find(|value| *value != default);
                    other.unwrap_or_else(|| panic!("{path} has one value only")).to_string()
                }
                None => "rust".to_owned(),
            },
            (path, default) => panic!("{path}: what is another value than {default}?"),
        }
    }

    /// What means nothing alone: a user without a password, a certificate without its key.
    fn company(path: &str) -> Option<(&'static str, &'static str)> {
        match path {
            "nats.user" => Some(("TANDEM__NATS__PASSWORD", "x")),
            "nats.password" | "nats.password_file" => Some(("TANDEM__NATS__USER", "x")),
            "nats.tls.cert_file" => Some(("TANDEM__NATS__TLS__KEY_FILE", "x")),
            "nats.tls.key_file" => Some(("TANDEM__NATS__TLS__CERT_FILE", "x")),
            _ => None,
        }
    }

    #[test]
    fn every_key_can_be_set_by_the_variable_that_is_written_there() {
        let folder = tempfile::tempdir().unwrap();
        let (mut set, before) = (0, load(&[]));
        for key in keys() {
            let pointer = format!("/{}", key.path.replace('.', "/"));
            let value = another(&key, folder.path().to_str().unwrap());
            let mut pairs = vec![(key.variable.as_str(), value.as_str())];
            pairs.extend(company(&key.path));
            let after = load(&pairs);
            let (old, new) = (before.pointer(&pointer).unwrap(), after.pointer(&pointer).unwrap());
            assert_ne!(old, new, "{}={value} changed nothing", key.variable);
            let shown = match new {
                Value::String(text) => text.clone(),
                Value::Array(items) => items.iter().map(|i| i.as_str().unwrap()).collect::<Vec<_>>().join(","),
                other => other.to_string(),
            };
            let is_secret = matches!(key.path.as_str(), "nats.password" | "nats.token");
            assert_eq!(shown, if is_secret { "***" } else { &value }, "{}", key.variable);
            set += 1;
        }
        assert!(set > 30, "only {set} keys were found");
    }

    #[test]
    fn every_key_of_the_code_is_there_with_its_default() {
        let listed: BTreeMap<String, Value> = keys().into_iter().map(|key| (key.path, key.default)).collect();
        let mut found = BTreeMap::new();
        let defaults = serde_json::to_string(&Config::default()).unwrap();
        leaves("", &serde_json::from_str(&defaults).unwrap(), &mut found);
        assert_eq!(listed, found);
    }

    fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    leaves(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, found);
                }
            }
            leaf => {
                found.insert(path.to_owned(), leaf.clone());
            }
        }
    }
}

/// A worker without an embedding model, on its own server and folder.
async fn worker(nats: &Nats, folder: &Path) -> Worker {
    let mut config = Config { nats: nats.options(), ..Config::default() };
    config.database.url = format!("sqlite:{}", folder.join("tandem.db").display());
    config.workflow.step_subjects = vec!["orders.*".to_owned()];
    let paths = Paths { data: folder.join("data"), state: folder.join("state"), assets: folder.join("assets") };
    Worker::start(config, &paths, Credentials::default()).await.unwrap()
}

/// Header names of a message, checked against what the AsyncAPI document says of them.
fn headers_as_documented(message: &Message, name: &str) {
    let document = asyncapi::document();
    let schema = &document["components"]["schemas"][name];
    let map = message.headers.as_ref().unwrap();
    for (header, _) in map.iter() {
        let header: &str = header.as_ref();
        assert!(schema["properties"].get(header).is_some(), "{name} has no {header}");
    }
    for required in schema["required"].as_array().unwrap() {
        assert!(map.get(required.as_str().unwrap()).is_some(), "{required} is missing");
    }
}

#[tokio::test]
async fn a_running_worker_serves_the_table_and_answers_as_its_schemas_say() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().unwrap());
    let worker = worker(&nats, folder.path()).await;
    let client = nats.client().await;
    let ask = async |subject: String, body: Value| client.request(subject, body.to_string().into()).await.unwrap();

    let info = nats::json(&ask("$SRV.INFO.tandem".to_owned(), json!({})).await);
    let served: Vec<&str> =
        info["endpoints"].as_array().unwrap().iter().map(|e| e["subject"].as_str().unwrap()).collect();
    assert_eq!(served, TABLE.map(|endpoint| endpoint.subject));

    let request = ask("execution.request".to_owned(), example()).await;
    headers_as_documented(&request, "AnswerHeaders");
    let id = nats::json(&request)["correlation_id"].clone();
    let mut workflow = Value::Null;
    for endpoint in TABLE {
        let body = match endpoint.name {
            "request" => {
                json!({"task": "REST endpoint for orders and a NATS consumer for order events, with tests", "language": "rust"})
            }
            "feedback" => json!({"correlation_id": id, "verdict": "good"}),
            "purge" => json!({"dry_run": true}),
            "cache-invalidate" => json!({"task_type": "testing"}),
            // Without a key no model can be asked: that is an answer, too.
            "llm-query" => json!({"prompt": "Why is the sky blue?"}),
            "llm-parallel" => json!({"queries": [{"prompt": "Why is the sky blue?"}]}),
            "llm-pipeline" => json!({"steps": [{"prompt": "Why is the sky blue?"}]}),
            "template-show" => json!({"id": "elixir-nats-consumer"}),
            "template-select" => json!({"task": "Create a NATS consumer for user events"}),
            // Without an embedding model this one is refused, as documented.
            "cache-explain" => example(),
            // Nobody serves it: the workflow waits for another attempt.
            "workflow-start" => json!({
                "graph": {"tasks": [{"id": "a", "description": "A", "step": {"kind": "nats", "subject": "orders.reserve"}}]},
                "options": {"retry_attempts": 20, "retry_delay_ms": 300_000}
            }),
            "workflow-list" | "workflow-events" => json!({}),
            "workflow-decompose" => json!({"goal": "Build user service API", "options": {"type": "microservices"}}),
            "workflow-notify" => json!({"workflow_id": workflow, "event": "shipped", "payload": {"boxes": 2}}),
            name if name.starts_with("workflow-") => json!({"workflow_id": workflow}),
            _ => json!({}),
        };
        let takes = (endpoint.takes)().to_value()["title"].as_str().unwrap().to_owned();
        let gives = (endpoint.gives)().to_value()["title"].as_str().unwrap().to_owned();
        valid(&takes, &body);
        let answer = ask(endpoint.subject.to_owned(), body).await;
        let is_error = nats::header(&answer, "Nats-Service-Error-Code").is_some();
        assert_eq!(is_error, endpoint.name == "cache-explain", "{}: {}", endpoint.subject, nats::json(&answer));
        valid(if is_error { "Error" } else { &gives }, &nats::json(&answer));
        if endpoint.name == "workflow-start" {
            workflow = nats::json(&answer)["workflow_id"].clone();
        }

        let refused = ask(format!("{}.acme", endpoint.subject), json!([])).await;
        headers_as_documented(&refused, "ErrorHeaders");
        valid("Error", &nats::json(&refused));
    }
    worker.stop(std::time::Duration::from_secs(5)).await;
}
