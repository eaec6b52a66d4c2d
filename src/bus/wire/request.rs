use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::{Fields, ID, PLAIN, SAYS, item_object, not_blank, quoted, text, wrong_type};
use super::{Code, Envelope, Refusal};
use crate::domain::{self, CacheMode, Complexity, Goal, Language, Message, NanoUsd, RequestId, Tag};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Longer names are no language.
const LANGUAGE_CHARS: usize = 64;
/// Unknown fields that are named in the notes; more are counted.
const NAMED_FIELDS: usize = 5;
const ROLES: [&str; 3] = ["user", "assistant", "system"];
const FIELDS: [&str; 11] = [
    "task",
    "language",
    "complexity",
    "context",
    "id",
    "acceptance_criteria",
    "cache",
    "max_cost_usd",
    "timeout_ms",
    "reply_to",
    "tags",
];

/// What a sender asks for, on `execution.request`. Only `task` is needed. A field that is not known is ignored and said
/// so in the answer's `notes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Request {
    /// What is to be made, in the sender's words. At most 64 KiB of UTF-8 (`bus.max_task_bytes`), not blank; no control
    /// characters but line feed, carriage return and tab.
    #[schemars(regex(pattern = SAYS))]
    pub task: String,
    /// A programming language, its usual short form (`ts`) too. Without it: the one that the task names, else the
    /// configured default. An unknown one is served with the nearest honest choice, and said so in `notes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = LANGUAGE_CHARS), regex(pattern = PLAIN))]
    pub language: Option<String>,
    /// `simple`, `medium` or `complex`. Anything else is read as `medium`, and said so in `notes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub complexity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Makes the request idempotent within its tenant: same id and body, same answer; same id and another body, 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub id: Option<String>,
    /// What the result must fulfil; part of what makes two requests the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = SAYS)))]
    pub acceptance_criteria: Vec<String>,
    /// What the cache may do: `use` (default), `refresh` (make it anew and store it) or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,
    /// No model is asked that could make this request cost more, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 9.2e9))]
    pub max_cost_usd: Option<f64>,
    /// How long the sender waits, in milliseconds: 60000 if not given. More than 600000 is read as 600000, and said so
    /// in `notes`. The header `Execution-Deadline` (milliseconds since the Unix epoch) shortens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// Where the answer of a submit is also sent. Means nothing on a request, which has its own reply subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub reply_to: Option<String>,
    /// Names of your own, at most 16, under which the answer is stored: `cache.invalidate` takes back what has one. They change no
    /// answer, and what was stored for another request keeps that one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>", length(max = TAGS), inner(regex(pattern = ID)))]
    pub tags: Vec<String>,
}

/// So many tags may a request have.
const TAGS: usize = 16;

/// What surrounds the task. Further fields are allowed; the configuration lists those that may change an answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Context {
    /// The sender's folder. Never read, never shown to a model, never part of what makes two requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub workspace: Option<String>,
    /// Where the result is to go, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub target_file: Option<String>,
    /// The conversation that the task continues, oldest first. `role` is `user`, `assistant` or `system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Turn>>")]
    pub messages: Vec<Message>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A [`Message`] as the schema shows it: with what [`context`] asks of it.
#[expect(dead_code, reason = "only its schema is used")]
#[derive(schemars::JsonSchema)]
#[schemars(rename = "Message")]
struct Turn {
    #[schemars(extend("enum" = ROLES))]
    role: String,
    #[schemars(regex(pattern = SAYS))]
    content: String,
}

/// Reads a request whose task may have `max_task` bytes; how large a body may be is the door's to say. `read_language`
/// gets the language as written, the task, and a list for what the sender should know.
pub fn decode(
    body: &[u8],
    envelope: &Envelope,
    max_task: usize,
    read_language: impl Fn(Option<&str>, &str, &mut Vec<String>) -> Language,
) -> Result<domain::Request, Refusal> {
    let mut fields = Fields::parse(body, "a JSON object with at least the field 'task'")?;
    let mut notes = vec![];

    let task = task(&mut fields, max_task)?;
    let written = language(&mut fields)?;
    let complexity = complexity(&mut fields, &mut notes)?;
    let context = context(&mut fields)?;
    let id = id(&mut fields)?;
    let acceptance_criteria = acceptance_criteria(&mut fields)?;
    let cache = cache_mode(&mut fields)?;
    let max_cost = max_cost(&mut fields)?;
    let timeout = timeout(&mut fields, &mut notes)?;
    let reply_to = fields.text("reply_to")?;
    let tags = tags(&mut fields)?;
    note_unknown(fields, &mut notes);

    let language = read_language(written.as_deref(), &task, &mut notes);
    Ok(domain::Request {
        tenant: envelope.tenant.clone(),
        correlation_id: envelope.correlation_id.clone(),
        id,
        body_hash: Sha256::digest(body).into(),
        goal: Arc::new(Goal { description: task, language, complexity, acceptance_criteria, context, tags }),
        cache,
        max_cost,
        timeout,
        reply_to,
        notes,
    })
}

fn task(fields: &mut Fields, limit: usize) -> Result<String, Refusal> {
    let task = fields.needed_text("task")?;
    if task.len() > limit {
        let message = format!("'task' has {} bytes of UTF-8; at most {limit} are allowed", task.len());
        return Err(Refusal::at(Code::TooLarge, "task", message));
    }
    Ok(task)
}

fn language(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let written = fields.text("language")?.filter(|text| !text.trim().is_empty());
    if let Some(text) = &written
        && text.chars().nth(LANGUAGE_CHARS).is_some()
    {
        let message = format!("'language' must name a language in at most {LANGUAGE_CHARS} characters");
        return Err(Refusal::at(Code::InvalidField, "language", message));
    }
    Ok(written)
}

fn complexity(fields: &mut Fields, notes: &mut Vec<String>) -> Result<Complexity, Refusal> {
    let Some(written) = fields.text("complexity")? else { return Ok(Complexity::default()) };
    Ok(written.parse().unwrap_or_else(|()| {
        let known = "simple, medium and complex";
        notes.push(format!("complexity {} was read as medium; there are {known}", quoted(&written)));
        Complexity::Medium
    }))
}

fn context(fields: &mut Fields) -> Result<domain::Context, Refusal> {
    let Some(mut fields) = fields.object("context")? else { return Ok(domain::Context::default()) };
    let workspace = fields.text("workspace")?;
    let target_file = fields.text("target_file")?;
    let mut messages = vec![];
    for (path, item) in fields.list("messages")? {
        let mut message = item_object(path, item)?;
        let role = message.needed_text("role")?;
        if !ROLES.contains(&role.as_str()) {
            let path = message.path("role");
            let text = format!("'{path}' must be user, assistant or system, not {}", quoted(&role));
            return Err(Refusal::at(Code::InvalidField, path, text));
        }
        messages.push(Message { role, content: message.needed_text("content")? });
    }
    let target_file = target_file.map(|file| ("target_file".to_owned(), Value::String(file)));
    let rest = fields.rest().into_iter().filter(|(_, value)| !value.is_null());
    // `Value` writes itself with its keys in order: the same field is the same text.
    let fields = rest.chain(target_file).map(|(name, value)| (name, value.to_string())).collect();
    Ok(domain::Context { workspace, fields, messages })
}

fn id(fields: &mut Fields) -> Result<Option<RequestId>, Refusal> {
    let id = fields.text("id")?.map(|id| RequestId::parse(&id));
    id.transpose().map_err(|error| Refusal::at(Code::InvalidField, "id", format!("'id' {error}")))
}

fn acceptance_criteria(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let criterion = |(path, item): (String, Value)| {
        let text = text(item, &path)?;
        not_blank(&text, &path).map(|()| text)
    };
    fields.list("acceptance_criteria")?.into_iter().map(criterion).collect()
}

fn tags(fields: &mut Fields) -> Result<Vec<Tag>, Refusal> {
    let items = fields.list("tags")?;
    if items.len() > TAGS {
        return Err(Refusal::at(Code::InvalidField, "tags", format!("'tags' may have at most {TAGS} entries")));
    }
    let tag = |(path, item): (String, Value)| {
        let text = text(item, &path)?;
        Tag::parse(&text).map_err(|error| Refusal::at(Code::InvalidField, path.clone(), format!("'{path}' {error}")))
    };
    items.into_iter().map(tag).collect()
}

fn cache_mode(fields: &mut Fields) -> Result<CacheMode, Refusal> {
    match fields.text("cache")?.as_deref() {
        None | Some("use") => Ok(CacheMode::Use),
        Some("refresh") => Ok(CacheMode::Refresh),
        Some("off") => Ok(CacheMode::Off),
        // Not guessed at: who writes `cache` may mean that nothing is to be kept.
        Some(other) => {
            let message = format!("'cache' must be use, refresh or off, not {}", quoted(other));
            Err(Refusal::at(Code::InvalidField, "cache", message))
        }
    }
}

fn max_cost(fields: &mut Fields) -> Result<Option<NanoUsd>, Refusal> {
    let Some(value) = fields.take("max_cost_usd") else { return Ok(None) };
    let wanted = "a number of US dollars, zero or more";
    let usd = value.as_f64().ok_or_else(|| wrong_type("max_cost_usd", wanted, &value))?;
    let amount = NanoUsd::from_usd(usd);
    amount.map(Some).ok_or_else(|| {
        Refusal::at(Code::InvalidField, "max_cost_usd", format!("'max_cost_usd' must be {wanted}, not {usd}"))
    })
}

fn timeout(fields: &mut Fields, notes: &mut Vec<String>) -> Result<Duration, Refusal> {
    let Some(value) = fields.take("timeout_ms") else { return Ok(DEFAULT_TIMEOUT) };
    let wanted = "a whole number of milliseconds, 1 or more";
    let Value::Number(number) = &value else { return Err(wrong_type("timeout_ms", wanted, &value)) };
    // 1000.0 is a whole number too, to JSON and to its schemas; `as` stops at the largest.
    let whole = number.as_u64().or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && *n > 0.0).map(|n| n as u64));
    let Some(ms) = whole.filter(|ms| *ms > 0) else {
        let message = format!("'timeout_ms' must be {wanted}, not {number}");
        return Err(Refusal::at(Code::InvalidField, "timeout_ms", message));
    };
    let timeout = Duration::from_millis(ms);
    if timeout > MAX_TIMEOUT {
        notes.push(format!("timeout_ms {ms} was read as {}, the most that is allowed", MAX_TIMEOUT.as_millis()));
    }
    Ok(timeout.min(MAX_TIMEOUT))
}

/// A misspelt field must be seen by its sender: "complexty" would silently be the default.
fn note_unknown(fields: Fields, notes: &mut Vec<String>) {
    let unknown = fields.rest();
    for name in unknown.keys().take(NAMED_FIELDS) {
        notes.push(format!("the field {} is not known and was ignored; there are {}", quoted(name), FIELDS.join(", ")));
    }
    if unknown.len() > NAMED_FIELDS {
        notes.push(format!("{} more unknown fields were ignored", unknown.len() - NAMED_FIELDS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Tenant;

    fn read(body: impl AsRef<[u8]>) -> Result<domain::Request, Refusal> {
        let envelope = Envelope {
            tenant: Tenant::default(),
            correlation_id: domain::CorrelationId::generate(),
            traceparent: None,
            deadline: None,
            fetches: false,
        };
        decode(body.as_ref(), &envelope, 64 * 1024, |written, _, _| {
            written.and_then(Language::named).unwrap_or(Language::Elixir)
        })
    }

    #[track_caller]
    fn refused(body: impl AsRef<[u8]>, code: Code, field: Option<&str>, says: &str) {
        let refusal = read(body.as_ref()).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, field), "{refusal:?}");
        assert!(refusal.message.contains(says), "{:?} does not say {says:?}", refusal.message);
        assert!(refusal.message.len() < 400, "{}", refusal.message.len());
    }

    #[test]
    fn the_example_of_the_source_is_read_whole() {
        let request = read(
            r#"{"task": "Create a NATS consumer for processing user events", "language": "elixir",
                "complexity": "medium", "context": {"workspace": "/path", "target_file": "lib/event_consumer.ex",
                "framework": {"b": 1, "a": 2}, "messages": [{"role": "user", "content": "hi"}]}}"#,
        )
        .unwrap();
        assert_eq!(request.goal.description, "Create a NATS consumer for processing user events");
        assert_eq!((request.goal.language.clone(), request.goal.complexity), (Language::Elixir, Complexity::Medium));
        assert_eq!(request.goal.context.workspace.as_deref(), Some("/path"));
        let fields: Vec<_> = request.goal.context.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(fields, [("framework", r#"{"a":2,"b":1}"#), ("target_file", r#""lib/event_consumer.ex""#)]);
        assert_eq!(request.goal.context.messages.len(), 1);
        assert_eq!((request.timeout, request.cache, request.max_cost), (DEFAULT_TIMEOUT, CacheMode::Use, None));
        assert_eq!(request.notes, [] as [&str; 0]);
    }

    #[test]
    fn what_is_no_json_object_says_where_it_breaks() {
        refused("", Code::InvalidJson, None, "the body is empty");
        refused(" \n", Code::InvalidJson, None, "the body is empty");
        refused("{\"task\": \n nope}", Code::InvalidJson, None, "line 2 column 3");
        refused("[1]", Code::InvalidJson, None, "the body is a list");
        refused("\"x\"", Code::InvalidJson, None, "the body is a string");
        refused(b"{\"task\": \"\xff\"}", Code::InvalidJson, None, "byte 10 is 0xff");
        refused("{\"task\": \"a\0b\"}", Code::InvalidJson, None, "control character");
        refused("[".repeat(100_000), Code::InvalidJson, None, "recursion limit");
        refused("{\"a\":".repeat(100_000), Code::InvalidJson, None, "recursion limit");
        refused("{\"task\": \"x\", \"max_cost_usd\": 1e999}", Code::InvalidJson, None, "out of range");
        let twice = r#"{"task": "x", "max_cost_usd": 0.01, "max_cost_usd": 9}"#;
        refused(twice, Code::InvalidJson, Some("max_cost_usd"), "'max_cost_usd' stands twice");
        refused(r#"{"t\u0061sk": "x", "task": "y"}"#, Code::InvalidJson, Some("task"), "stands twice");
        let long = format!("{{\"{0}\": 1, \"{0}\": 2}}", "x".repeat(5000));
        refused(long, Code::InvalidJson, None, "stands twice");
    }

    #[test]
    fn each_wrong_field_is_named_with_its_mend() {
        use Code::{InvalidField, MissingField, TooLarge};
        refused("{}", MissingField, Some("task"), "must be a string");
        refused(r#"{"task": null}"#, MissingField, Some("task"), "is missing");
        refused(r#"{"task": ""}"#, InvalidField, Some("task"), "must not be blank");
        refused(r#"{"task": " \n\t"}"#, InvalidField, Some("task"), "must not be blank");
        refused(r#"{"task": 7}"#, InvalidField, Some("task"), "must be a string, not a number");
        refused(
            r#"{"task": "ab\u0000c"}"#,
            InvalidField,
            Some("task"),
            "character 3 of 'task' is the control character U+0000 (NUL)",
        );
        refused(r#"{"task": "a\u001b[31m"}"#, InvalidField, Some("task"), "U+001B");
        refused(format!(r#"{{"task": "{}"}}"#, "x".repeat(65_537)), TooLarge, Some("task"), "at most 65536");
        let with = |field: &str| format!(r#"{{"task": "x", {field}}}"#);
        refused(with(r#""language": 5"#), InvalidField, Some("language"), "a string, not a number");
        refused(with(&format!(r#""language": "{}""#, "y".repeat(65))), InvalidField, Some("language"), "64 characters");
        refused(with(r#""complexity": 2"#), InvalidField, Some("complexity"), "a string");
        refused(with(r#""context": "x""#), InvalidField, Some("context"), "an object, not a string");
        refused(with(r#""context": {"target_file": 1}"#), InvalidField, Some("context.target_file"), "a string");
        refused(with(r#""context": {"messages": {}}"#), InvalidField, Some("context.messages"), "a list");
        refused(with(r#""context": {"messages": [1]}"#), InvalidField, Some("context.messages[0]"), "an object");
        let messages =
            |role: &str| with(&format!(r#""context": {{"messages": [{{"role": {role}, "content": "x"}}]}}"#));
        refused(messages(r#""root""#), InvalidField, Some("context.messages[0].role"), "user, assistant or system");
        refused(messages("null"), MissingField, Some("context.messages[0].role"), "is missing");
        refused(with(r#""acceptance_criteria": "x""#), InvalidField, Some("acceptance_criteria"), "a list");
        refused(
            with(r#""acceptance_criteria": ["a", "b", 3]"#),
            InvalidField,
            Some("acceptance_criteria[2]"),
            "a string",
        );
        refused(with(r#""acceptance_criteria": ["a", " "]"#), InvalidField, Some("acceptance_criteria[1]"), "blank");
        refused(with(r#""id": "a b""#), InvalidField, Some("id"), "1 to 64");
        refused(with(r#""cache": "never""#), InvalidField, Some("cache"), "use, refresh or off");
        refused(with(r#""tags": ["a", "b.c"]"#), InvalidField, Some("tags[1]"), "1 to 64");
        let many = with(&format!(r#""tags": [{}]"#, ["\"a\""; 17].join(",")));
        refused(many, InvalidField, Some("tags"), "at most 16");
        refused(with(r#""max_cost_usd": -1"#), InvalidField, Some("max_cost_usd"), "zero or more");
        refused(with(r#""max_cost_usd": "1""#), InvalidField, Some("max_cost_usd"), "not a string");
        refused(with(r#""timeout_ms": 0"#), InvalidField, Some("timeout_ms"), "1 or more");
        refused(with(r#""timeout_ms": -5"#), InvalidField, Some("timeout_ms"), "1 or more");
        refused(with(r#""timeout_ms": 1.5"#), InvalidField, Some("timeout_ms"), "whole number");
        refused(with(r#""timeout_ms": "5""#), InvalidField, Some("timeout_ms"), "not a string");
    }

    #[test]
    fn a_refusal_does_not_give_back_what_was_sent() {
        let secret = "s3cr3t".repeat(100);
        let refusal = read(format!(r#"{{"task": "x", "cache": "{secret}"}}"#)).unwrap_err();
        assert!(!refusal.message.contains(&"s3cr3t".repeat(10)), "{}", refusal.message);
    }

    #[test]
    fn what_is_read_otherwise_than_written_is_said() {
        let request = read(r#"{"task": "x", "complexity": "huge", "complexty": 1, "timeout_ms": 3600000}"#);
        let request = request.unwrap();
        assert_eq!(request.goal.complexity, Complexity::Medium);
        assert_eq!(request.timeout, MAX_TIMEOUT);
        let notes = request.notes.join("\n");
        for said in ["\"huge\" was read as medium", "\"complexty\" is not known", "3600000 was read as 600000"] {
            assert!(notes.contains(said), "{notes}");
        }
    }

    #[test]
    fn a_thousand_unknown_fields_make_six_notes() {
        let many: Vec<_> = (0..1000).map(|i| format!(r#""f{i}": 1"#)).collect();
        let request = read(format!(r#"{{"task": "x", {}}}"#, many.join(","))).unwrap();
        assert_eq!(request.notes.len(), 6);
        assert_eq!(request.notes[5], "995 more unknown fields were ignored");
    }

    #[test]
    fn template_marks_in_a_task_are_plain_text() {
        let task = "print {{ secret }} and {% raw %}";
        assert_eq!(read(format!(r#"{{"task": "{task}"}}"#)).unwrap().goal.description, task);
    }

    #[test]
    fn what_the_wire_type_writes_is_read_without_notes() {
        let request = Request {
            task: "x".to_owned(),
            cache: Some(CacheMode::Off),
            max_cost_usd: Some(0.5),
            context: Some(Context { workspace: Some("/w".to_owned()), ..Context::default() }),
            ..Request::default()
        };
        let read = read(serde_json::to_vec(&request).unwrap()).unwrap();
        assert_eq!((read.cache, read.max_cost), (CacheMode::Off, Some(NanoUsd(500_000_000))));
        assert!(read.notes.is_empty(), "{:?}", read.notes);
    }
}
