//! The documents of what crosses the bus, from the [`TABLE`] and the wire types: `docs/asyncapi.yaml`, `docs/schemas/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::{Map, Value, json};

use super::dead;
use super::endpoints::TABLE;
use super::job::{ID, SEQUENCE};
use super::wire::{self, ACCEPT_OBJECT_STORE, CORRELATION_ID, DEADLINE, TRACEPARENT};
use super::{Endpoint, NAME, objects};

/// The source's own example of a request.
const EXAMPLE: &str = r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir",
"complexity": "medium", "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex"}}"#;

/// The JSON Schema (2020-12) of every type that crosses the bus, by the type's name.
pub fn schemas() -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for endpoint in &TABLE {
        for shape in [endpoint.takes, endpoint.gives] {
            schemas.insert(title(&shape().to_value()), shape().to_value());
        }
    }
    for schema in [
        schema_for!(wire::Error),
        schema_for!(wire::StoredAnswer),
        schema_for!(wire::Progress),
        schema_for!(wire::WorkflowEvent),
    ] {
        let schema = schema.to_value();
        schemas.insert(title(&schema), schema);
    }
    schemas
}

/// The AsyncAPI 3.0 document.
pub fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tandem",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Generated from the wire types by `TANDEM_BLESS=1 cargo test --test docs`; do not edit.\n\n\
                Every operation with a reply is NATS request/reply: the answer comes to the request's own reply subject, which \
                must lie below one of `nats.reply_prefixes` (`_INBOX.`). An error has the headers Nats-Service-Error and \
                Nats-Service-Error-Code. `execution.submit` is a JetStream work queue, `execution.result` and \
                `execution.dead` and `event` are streams, `execution.progress` is published and not kept. The service also answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, as NATS micro \
                defines them.",
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "The default; `NATS_URL`, or `NATS_HOST` and `NATS_PORT`, name another.",
            },
        },
        "channels": channels(),
        "operations": operations(),
        "components": {
            "parameters": {
                "tenant": {
                    "description": "Whose cache and statistics are used: 1 to 64 of A-Z a-z 0-9 _ and -. Without this token \
                        it is the tenant `default`.",
                    "examples": ["acme"],
                },
                "id": {
                    "description": "Of a submit: 1 to 64 of A-Z a-z 0-9 _ and -. Of a workflow: as workflow.start gave it.",
                    "examples": ["order-17"],
                },
            },
            "messages": messages(),
            "schemas": components(),
        },
    })
}

/// Durable work: the key, the address, who writes there, what. Those with `{id}` have a `{tenant}` before it for all
/// tenants but the default one.
const DURABLE: [(&str, &str, Action, &str, &[&str]); 5] = [
    ("submit", "execution.submit", Action::Receive, "Do a task, whatever happens to workers and servers.", &["Submit"]),
    ("result", "execution.result.{id}", Action::Send, "The result of a submit, kept.", &["Result", "ErrorResult"]),
    ("progress", "execution.progress.{id}", Action::Send, "What is happening to a submit.", &["Progress"]),
    ("dead", "execution.dead.{tenant}.{id}", Action::Send, "A submit that could not be done.", &["DeadLetter"]),
    ("event", "event.{tenant}.workflow.{id}", Action::Send, "What happens in a workflow.", &["WorkflowEvent"]),
];

#[derive(Clone, Copy)]
enum Action {
    Receive,
    Send,
}

/// The addresses of a row of [`DURABLE`], each with its key and its parameters.
fn durable(key: &str, address: &str) -> Vec<(String, String, Value)> {
    let parameter = |name: &str| (name.to_owned(), reference(&format!("components/parameters/{name}")));
    let row = |key: String, address: String| {
        let names = ["tenant", "id"].into_iter().filter(|name| address.contains(&format!("{{{name}}}")));
        let parameters: Map<_, _> = names.map(parameter).collect();
        (key, address, Value::Object(parameters))
    };
    let with_tenant = match address.strip_suffix(".{id}") {
        Some(base) if !base.contains("{tenant}") => Some(format!("{base}.{{tenant}}.{{id}}")),
        Some(_) => None,
        None => Some(format!("{address}.{{tenant}}")),
    };
    let plain = row(key.to_owned(), address.to_owned());
    std::iter::once(plain).chain(with_tenant.map(|address| row(format!("{key}-tenant"), address))).collect()
}

/// [`document`] as YAML.
pub fn yaml() -> String {
    let mut text = String::new();
    write_yaml(&mut text, &document(), 0);
    text
}

fn title(schema: &Value) -> String {
    schema.get("title").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn names(endpoint: &Endpoint<()>) -> (String, String) {
    (title(&(endpoint.takes)().to_value()), title(&(endpoint.gives)().to_value()))
}

/// An endpoint's two subjects: without a tenant and with one. The key, the address, whether it has a tenant.
fn subjects(endpoint: &Endpoint<()>) -> [(String, String, bool); 2] {
    [
        (endpoint.name.to_owned(), endpoint.subject.to_owned(), false),
        (format!("{}-tenant", endpoint.name), format!("{}.{{tenant}}", endpoint.subject), true),
    ]
}

fn reference(path: &str) -> Value {
    json!({ "$ref": format!("#/{path}") })
}

fn message_references<'a>(names: impl IntoIterator<Item = &'a String>) -> Value {
    names
        .into_iter()
        .map(|name| (name.clone(), reference(&format!("components/messages/{name}"))))
        .collect::<Map<_, _>>()
        .into()
}

fn channels() -> Value {
    let mut channels = Map::new();
    let mut replies = vec!["Error".to_owned(), "StoredAnswer".to_owned()];
    for endpoint in &TABLE {
        let (takes, gives) = names(endpoint);
        for (key, address, has_tenant) in subjects(endpoint) {
            let mut channel = json!({"address": address, "messages": message_references([&takes])});
            if has_tenant {
                channel["parameters"] = json!({"tenant": reference("components/parameters/tenant")});
            }
            channels.insert(key, channel);
        }
        replies.push(gives);
    }
    for (key, address, _, _, names) in DURABLE {
        for (key, address, parameters) in durable(key, address) {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut channel = json!({"address": address, "messages": message_references(&names)});
            if parameters.as_object().is_some_and(|p| !p.is_empty()) {
                channel["parameters"] = parameters;
            }
            channels.insert(key, channel);
        }
    }
    let reply = json!({
        "address": null,
        "description": "The request's own reply subject.",
        "messages": message_references(&replies),
    });
    channels.insert("reply".to_owned(), reply);
    channels.into()
}

fn operations() -> Value {
    let mut operations = Map::new();
    for endpoint in &TABLE {
        let (takes, gives) = names(endpoint);
        let answers = [gives, "StoredAnswer".to_owned(), "Error".to_owned()]
            .map(|name| reference(&format!("channels/reply/messages/{name}")));
        for (key, ..) in subjects(endpoint) {
            let operation = json!({
                "action": "receive",
                "summary": endpoint.summary,
                "channel": reference(&format!("channels/{key}")),
                "messages": [reference(&format!("channels/{key}/messages/{takes}"))],
                "bindings": {"nats": {"queue": NAME}},
                "reply": {"channel": reference("channels/reply"), "messages": answers},
            });
            operations.insert(key, operation);
        }
    }
    for (key, address, action, summary, names) in DURABLE {
        for (key, ..) in durable(key, address) {
            let messages: Vec<_> =
                names.iter().map(|name| reference(&format!("channels/{key}/messages/{name}"))).collect();
            let operation = json!({
                "action": match action { Action::Receive => "receive", Action::Send => "send" },
                "summary": summary,
                "channel": reference(&format!("channels/{key}")),
                "messages": messages,
            });
            operations.insert(key, operation);
        }
    }
    operations.into()
}

fn messages() -> Value {
    let mut messages = Map::new();
    let mut add_as = |name: String, headers: &str, payload: &str, example: Option<Value>| {
        let mut message = json!({
            "name": name,
            "headers": reference(&format!("components/schemas/{headers}")),
            "payload": reference(&format!("components/schemas/{payload}")),
        });
        if let Some(example) = example {
            message["examples"] = json!([{"payload": example}]);
        }
        messages.insert(name, message);
    };
    let mut add = |name: String, headers: &str, example: Option<Value>| {
        let payload = name.clone();
        add_as(name, headers, &payload, example);
    };
    for endpoint in &TABLE {
        let (takes, gives) = names(endpoint);
        let example = if takes == "Request" { serde_json::from_str(EXAMPLE).ok() } else { None };
        add(takes, "RequestHeaders", example);
        add(gives, "AnswerHeaders", None);
    }
    add("StoredAnswer".to_owned(), "StoredAnswerHeaders", None);
    add("Error".to_owned(), "ErrorHeaders", None);
    add("Progress".to_owned(), "NoHeaders", None);
    add("WorkflowEvent".to_owned(), "EventHeaders", None);
    for (name, headers, payload) in [
        ("Submit", "SubmitHeaders", "Request"),
        ("Result", "ResultHeaders", "Response"),
        ("ErrorResult", "ErrorResultHeaders", "Error"),
        ("DeadLetter", "DeadLetterHeaders", "Request"),
    ] {
        add_as(name.to_owned(), headers, payload, None);
    }
    messages.into()
}

/// All schemas side by side, as a document has them: each definition once, by its name.
fn components() -> Value {
    let mut all = headers();
    for (name, mut schema) in schemas() {
        let definitions = schema.as_object_mut().and_then(|schema| {
            schema.remove("$schema");
            schema.remove("$defs")
        });
        all.insert(name, schema);
        if let Some(Value::Object(definitions)) = definitions {
            all.extend(definitions);
        }
    }
    let mut all = Value::Object(all);
    point_to_components(&mut all);
    all
}

fn headers() -> Map<String, Value> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let traceparent = text("W3C trace context; comes back as it was sent. One of another shape is ignored.");
    let correlation_id = text("Made by the worker, one per request; names the request in the worker's log.");
    let answer = json!({CORRELATION_ID: correlation_id, TRACEPARENT: traceparent});
    let mut stored = answer.clone();
    stored[objects::BUCKET] = text("The bucket of JetStream's object store that has the answer.");
    stored[objects::OBJECT] = text("The answer's name in that bucket.");
    let mut error = answer.clone();
    error["Nats-Service-Error"] = text("The message, at most 200 characters of it.");
    error["Nats-Service-Error-Code"] = text("A status as in HTTP: 400, 404, 408, 409, 413, 500 or 503.");
    error["Retry-After-Ms"] = text(
        "Where the worker is full or the tenant has its share: after how many milliseconds to send the request again.",
    );
    let sequence = text("The place in the stream of the submit that it is of.");
    let mut result = answer.clone();
    result[SEQUENCE] = sequence.clone();
    let mut error_result = error.clone();
    error_result[SEQUENCE] = sequence;
    let mut submit = json!({
        "Nats-Msg-Id": text("The id, where the body has none; a tenant and a dot before it are left out. The server drops a \
            second one within two minutes."),
        ID: text("The id, where the body has none. Stands before Nats-Msg-Id."),
    });
    let dead = dead::header::ALL.map(|(name, meaning)| (name.to_owned(), text(meaning)));
    let dead: Map<_, _> = dead.into_iter().chain([(ID.to_owned(), text("The submit's id."))]).collect();
    let request = json!({
        TRACEPARENT: traceparent,
        DEADLINE: text("When the sender stops waiting, in milliseconds since the Unix epoch."),
        ACCEPT_OBJECT_STORE: text("`true` where the sender can fetch an answer from JetStream's object store."),
    });
    submit[TRACEPARENT] = request[TRACEPARENT].clone();
    submit[DEADLINE] = request[DEADLINE].clone();
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
    [
        ("RequestHeaders", object(request, &[])),
        ("AnswerHeaders", object(answer, &[CORRELATION_ID])),
        ("StoredAnswerHeaders", object(stored, &[CORRELATION_ID, objects::BUCKET, objects::OBJECT])),
        ("NoHeaders", object(json!({}), &[])),
        (
            "EventHeaders",
            object(
                json!({"Nats-Msg-Id": text("`<workflow>/<number>`: the stream keeps one of each.")}),
                &["Nats-Msg-Id"],
            ),
        ),
        ("SubmitHeaders", object(submit, &[])),
        ("ResultHeaders", object(result, &[CORRELATION_ID, SEQUENCE])),
        ("ErrorResultHeaders", object(error_result, &[CORRELATION_ID, SEQUENCE, "Nats-Service-Error-Code"])),
        ("DeadLetterHeaders", object(dead.into(), &[ID, dead::header::REASON, dead::header::SUBJECT])),
        ("ErrorHeaders", object(error, &[CORRELATION_ID, "Nats-Service-Error", "Nats-Service-Error-Code"])),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
    .into_iter()
    .collect()
}

fn point_to_components(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replacen("#/$defs/", "#/components/schemas/", 1);
            }
            map.values_mut().for_each(point_to_components);
        }
        Value::Array(items) => items.iter_mut().for_each(point_to_components),
        _ => {}
    }
}

/// Block style; texts as JSON writes them, which YAML reads the same.
fn write_yaml(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let _ = write!(text, "{indent}{}:", yaml_key(key));
                write_yaml_child(text, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{indent}-");
                write_yaml_child(text, item, depth + 1);
            }
        }
        scalar => {
            let _ = writeln!(text, "{indent}{scalar}");
        }
    }
}

fn write_yaml_child(text: &mut String, value: &Value, depth: usize) {
    let is_block =
        value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty());
    if is_block {
        text.push('\n');
        write_yaml(text, value, depth);
    } else {
        let _ = writeln!(text, " {value}");
    }
}

/// Plain where no reader of YAML can take it for anything but a text.
fn yaml_key(key: &str) -> String {
    let plain = key.len() > 3
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '$' | '_' | '-' | '.'))
        && !matches!(key, "true" | "false" | "null" | "True" | "False" | "Null" | "TRUE" | "FALSE" | "NULL");
    if plain { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::wire::{feedback, nothing, template_choice, template_query, template_ref};

    /// What two types name alike must be alike, be it a message or a part of one: the document has each name once.
    #[test]
    fn no_two_definitions_share_a_name() {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        let mut see = |name: String, definition: Value| {
            let first = seen.entry(name.clone()).or_insert_with(|| definition.clone());
            assert_eq!(*first, definition, "{name}");
        };
        for (name, mut schema) in schemas() {
            let Some(message) = schema.as_object_mut() else { continue };
            let definitions = message.remove("$defs");
            message.remove("$schema");
            message.remove("title");
            for (name, definition) in definitions.as_ref().and_then(Value::as_object).cloned().unwrap_or_default() {
                see(name, definition);
            }
            see(name, schema);
        }
    }

    #[test]
    fn yaml_is_written_as_blocks_with_json_texts() {
        let value = json!({"a": 1, "list": ["x: y", {"$ref": "#/b", "name": null}], "none": [], "null": {}, "text": "é\n\"q\""});
        let mut text = String::new();
        write_yaml(&mut text, &value, 0);
        let expected = "\"a\": 1\nlist:\n  - \"x: y\"\n  -\n    $ref: \"#/b\"\n    name: null\nnone: []\n\"null\": {}\ntext: \"é\\n\\\"q\\\"\"\n";
        assert_eq!(text, expected);
    }

    /// The schemas of the small bodies take what their readers take.
    #[test]
    fn schemas_and_readers_agree() {
        type Reads = fn(&[u8]) -> bool;
        let readers: [(&str, Reads); 5] = [
            ("Feedback", |body| feedback(body).is_ok()),
            ("Nothing", |body| nothing(body).is_ok()),
            ("TemplateQuery", |body| template_query(body).is_ok()),
            ("TemplateRef", |body| template_ref(body).is_ok()),
            ("TemplateChoice", |body| template_choice(body).is_ok()),
        ];
        let texts =
            [json!("good"), json!("rust"), json!("testing"), json!(""), json!(" "), json!("a\u{0}"), json!("a.b")];
        let long = [json!("x".repeat(64)), json!("x".repeat(65)), json!("ü".repeat(2000)), json!("x".repeat(2001))];
        let others = [json!(null), json!(1), json!(true), json!([]), json!({})];
        let values: Vec<&Value> = texts.iter().chain(&long).chain(&others).collect();
        let schemas = schemas();
        let (mut taken, mut refused) = (0, 0);
        for (name, reads) in readers {
            let schema = jsonschema::validator_for(&schemas[name]).unwrap();
            let mut check = |body: &Value| {
                let reads = reads(body.to_string().as_bytes());
                assert_eq!(schema.is_valid(body), reads, "{name}: {body}");
                *(if reads { &mut taken } else { &mut refused }) += 1;
            };
            for body in [json!([]), json!(null), json!({}), json!({"other": 1})] {
                check(&body);
            }
            let good = json!({"correlation_id": "exec_1", "verdict": "wrong", "id": "rust-api", "task": "an API"});
            let needed: &[&str] = match name {
                "Feedback" => &["correlation_id", "verdict"],
                "TemplateRef" => &["id"],
                "TemplateChoice" => &["task"],
                _ => &[],
            };
            let base: Map<String, Value> = needed.iter().map(|key| ((*key).to_owned(), good[*key].clone())).collect();
            check(&base.clone().into());
            for field in ["correlation_id", "verdict", "comment", "id", "task", "language", "task_type"] {
                for value in &values {
                    let mut body = base.clone();
                    body.insert(field.to_owned(), (*value).clone());
                    check(&body.into());
                }
            }
        }
        assert!(taken > 50 && refused > 300, "{taken} taken, {refused} refused");
    }
}
