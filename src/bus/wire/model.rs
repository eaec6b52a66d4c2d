//! What is asked of a model directly.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::{Fields, ID, PLAIN, SAYS, item_object, not_blank, quoted, text, wrong_type};
use super::{Code, Refusal};
use crate::domain::{Message, NanoUsd, RequestId};
use crate::llm::{Query, Schema};

/// One question for a model.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelQuery {
    #[schemars(regex(pattern = SAYS))]
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<ModelOptions>,
}

/// How a model is asked; what is left out is as configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelOptions {
    /// What the model is told before everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub system: Option<String>,
    /// The conversation before the prompt, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// One model of `llm.route`, as `provider/model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub model: Option<String>,
    /// A JSON Schema that the answer must fit: at most 16 KiB, without recursion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Map<String, Value>>,
    /// The most tokens that the answer may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
    /// Attempts on one model after the first; 0: one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = MOST_RETRIES))]
    pub max_retries: Option<u32>,
    /// The longest first pause between two attempts, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = LONGEST_MS))]
    pub backoff_ms: Option<u64>,
    /// What all attempts together may cost, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_cost_usd: Option<f64>,
    /// How long all attempts together may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub timeout_ms: Option<u64>,
    /// An id of the sender's: the text is told at `execution.progress.<id>` as it comes. Only for `llm.query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub stream: Option<String>,
}

/// Questions beside each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelBatch {
    #[schemars(length(min = 1, max = MOST_QUERIES))]
    pub queries: Vec<ModelQuery>,
    /// How many run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_CONCURRENT))]
    pub max_concurrent: Option<usize>,
    /// How long all of them may take together, in milliseconds. What runs then is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub timeout_ms: Option<u64>,
    /// An id of the sender's: the end of each query is told at `execution.progress.<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub progress: Option<String>,
}

/// Questions after each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelPipeline {
    #[schemars(length(min = 1, max = MOST_QUERIES))]
    pub steps: Vec<ModelQuery>,
    /// Whether each step is shown the one before it and its answer. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_context: Option<bool>,
    /// The answers to the first steps, where they are known already: these steps are not asked, and not paid, again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<String>,
    /// How long all of them may take together, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = LONGEST_MS))]
    pub timeout_ms: Option<u64>,
    /// An id of the sender's: the end of each step is told at `execution.progress.<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub progress: Option<String>,
}

const MOST_QUERIES: usize = 1_000;
const MOST_CONCURRENT: usize = 256;
const MOST_RETRIES: u32 = 20;
/// An hour.
const LONGEST_MS: u64 = 3_600_000;
const ROLES: [&str; 3] = ["user", "assistant", "system"];

/// A question that was checked.
pub(crate) struct Asked {
    pub query: Query,
    pub stream: Option<RequestId>,
}

/// Several that were checked.
pub(crate) struct Batch {
    pub queries: Vec<Query>,
    /// What the sender calls them.
    list: &'static str,
    pub max_concurrent: Option<usize>,
    pub timeout: Option<Duration>,
    pub progress: Option<RequestId>,
    /// Of steps: whether each sees the one before it.
    pub use_context: bool,
    /// Of steps: the answers that are known.
    pub done: Vec<String>,
}

impl Asked {
    /// The schemas, and where they stand: still to be [built](build).
    pub(crate) fn schemas(&self) -> Vec<(String, Schema)> {
        self.query.schema.iter().map(|schema| ("options.schema".to_owned(), schema.clone())).collect()
    }
}

impl Batch {
    /// As [`Asked::schemas`].
    pub(crate) fn schemas(&self) -> Vec<(String, Schema)> {
        let of = |(index, query): (usize, &Query)| {
            query.schema.clone().map(|schema| (format!("{}[{index}].options.schema", self.list), schema))
        };
        self.queries.iter().enumerate().filter_map(of).collect()
    }
}

/// Takes time that a receive loop does not have: off the asynchronous threads.
pub(crate) fn build(schemas: &[(String, Schema)]) -> Result<(), Refusal> {
    schemas.iter().try_for_each(|(path, schema)| schema.build().map_err(|error| bad_schema(path, &error)))
}

pub(super) fn bad_schema(path: &str, error: &crate::llm::Error) -> Refusal {
    Refusal::at(Code::InvalidField, path, format!("'{path}': {error}"))
}

pub(crate) fn model_query(body: &[u8]) -> Result<Asked, Refusal> {
    let mut fields = Fields::parse(body, r#"{"prompt": "...", "options"?: {...}}"#)?;
    let asked = asked(&mut fields)?;
    fields.nothing_else()?;
    Ok(asked)
}

pub(crate) fn batch(body: &[u8]) -> Result<Batch, Refusal> {
    let hint = r#"{"queries": [{"prompt": "..."}], "max_concurrent"?: 5}"#;
    let (mut fields, mut batch) = several(body, hint, "queries")?;
    batch.max_concurrent = whole(&mut fields, "max_concurrent", 1, MOST_CONCURRENT as u64)?.map(|n| n as usize);
    fields.nothing_else()?;
    Ok(batch)
}

pub(crate) fn steps(body: &[u8]) -> Result<Batch, Refusal> {
    let (mut fields, mut batch) = several(body, r#"{"steps": [{"prompt": "..."}], "use_context"?: true}"#, "steps")?;
    if let Some(value) = fields.take("use_context") {
        batch.use_context = value.as_bool().ok_or_else(|| wrong_type("use_context", "true or false", &value))?;
    }
    for (path, item) in fields.list("done")? {
        let Value::String(known) = item else { return Err(wrong_type(&path, "a string", &item)) };
        not_blank(&known, &path)?;
        batch.done.push(known);
    }
    let (known, steps) = (batch.done.len(), batch.queries.len());
    if known > steps {
        let message = format!("'done' has {known} answers, and there are {steps} steps");
        return Err(Refusal::at(Code::InvalidField, "done", message));
    }
    fields.nothing_else()?;
    Ok(batch)
}

/// What questions beside and after each other have in common; the rest as it is where nothing is said.
fn several(body: &[u8], hint: &str, list: &'static str) -> Result<(Fields, Batch), Refusal> {
    let mut fields = Fields::parse(body, hint)?;
    let queries = queries(&mut fields, list)?;
    let (timeout, progress) = (ms(&mut fields, "timeout_ms", 1)?, id(&mut fields, "progress")?);
    Ok((fields, Batch { queries, list, max_concurrent: None, timeout, progress, use_context: true, done: vec![] }))
}

fn queries(fields: &mut Fields, name: &str) -> Result<Vec<Query>, Refusal> {
    let items = fields.list(name)?;
    if items.is_empty() {
        let message = format!("the field '{name}' is missing; it must be a list of objects with a prompt each");
        return Err(Refusal::at(Code::MissingField, name, message));
    }
    if items.len() > MOST_QUERIES {
        let message = format!("'{name}' has {} queries; at most {MOST_QUERIES} are allowed", items.len());
        return Err(Refusal::at(Code::TooLarge, name, message));
    }
    let read = |(path, item): (String, Value)| {
        let mut fields = item_object(path, item)?;
        let asked = asked(&mut fields)?;
        if asked.stream.is_some() {
            let path = fields.path("options.stream");
            let message = format!("'{path}' is for llm.query; 'progress' tells of several");
            return Err(Refusal::at(Code::InvalidField, path, message));
        }
        fields.nothing_else()?;
        Ok(asked.query)
    };
    items.into_iter().map(read).collect()
}

fn asked(fields: &mut Fields) -> Result<Asked, Refusal> {
    let prompt = fields.needed_text("prompt")?;
    let query = Query { prompt, ..Query::default() };
    let Some(mut options) = fields.object("options")? else { return Ok(Asked { query, stream: None }) };
    let mut messages = vec![];
    for (path, item) in options.list("messages")? {
        let mut message = item_object(path, item)?;
        let role = message.needed_text("role")?;
        if !ROLES.contains(&role.as_str()) {
            let path = message.path("role");
            let said = format!("'{path}' must be user, assistant or system, not {}", quoted(&role));
            return Err(Refusal::at(Code::InvalidField, path, said));
        }
        // What a model wrote may hold anything.
        let content = match message.take("content") {
            Some(Value::String(content)) if role == "assistant" => content,
            Some(value) => text(value, &message.path("content"))?,
            None => return Err(missing(&message.path("content"), "a string")),
        };
        messages.push(Message { role, content });
        message.nothing_else()?;
    }
    let schema = match options.take("schema") {
        None => None,
        Some(schema) => Some(Schema::read(schema).map_err(|error| bad_schema(&options.path("schema"), &error))?),
    };
    let temperature = number(&mut options, "temperature", 0.0..=2.0, "a number from 0 to 2")?;
    let usd = number(&mut options, "max_cost_usd", 0.0..=1e9, "a number of US dollars, zero or more")?;
    let query = Query {
        system: options.text("system")?.unwrap_or_default(),
        messages,
        schema,
        max_output_tokens: whole(&mut options, "max_tokens", 1, u32::MAX.into())?.map(|n| n as u32),
        temperature: temperature.map(|t| t as f32),
        model: options.text("model")?,
        max_retries: whole(&mut options, "max_retries", 0, MOST_RETRIES.into())?.map(|n| n as u32),
        backoff: ms(&mut options, "backoff_ms", 0)?,
        max_cost: usd.and_then(NanoUsd::from_usd),
        timeout: ms(&mut options, "timeout_ms", 1)?,
        ..query
    };
    let stream = id(&mut options, "stream")?;
    options.nothing_else()?;
    Ok(Asked { query, stream })
}

fn missing(path: &str, wanted: &str) -> Refusal {
    Refusal::at(Code::MissingField, path, format!("the field '{path}' is missing; it must be {wanted}"))
}

pub(super) fn whole(fields: &mut Fields, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
    let wanted = format_args!("a whole number from {least} to {most}");
    checked(fields, name, wanted, |value| value.as_u64().filter(|n| (least..=most).contains(n)))
}

fn ms(fields: &mut Fields, name: &str, least: u64) -> Result<Option<Duration>, Refusal> {
    Ok(whole(fields, name, least, LONGEST_MS)?.map(Duration::from_millis))
}

pub(super) fn number(
    fields: &mut Fields,
    name: &str,
    allowed: RangeInclusive<f64>,
    wanted: &str,
) -> Result<Option<f64>, Refusal> {
    checked(fields, name, wanted, |value| value.as_f64().filter(|n| allowed.contains(n)))
}

fn checked<T>(
    fields: &mut Fields,
    name: &str,
    wanted: impl Display,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    let Some(value) = fields.take(name) else { return Ok(None) };
    let path = fields.path(name);
    let refusal = || Refusal::at(Code::InvalidField, &path, format!("'{path}' must be {wanted}"));
    read(&value).map(Some).ok_or_else(refusal)
}

pub(super) fn id(fields: &mut Fields, name: &str) -> Result<Option<RequestId>, Refusal> {
    let path = fields.path(name);
    let id = fields.text(name)?.map(|id| RequestId::parse(&id));
    id.transpose().map_err(|error| Refusal::at(Code::InvalidField, &path, format!("'{path}' {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_its_options() {
        let body = br#"{"prompt": "why?", "options": {"system": "Be short.", "model": "openai/x", "max_tokens": 5,
            "temperature": 0.5, "max_retries": 0, "backoff_ms": 10, "max_cost_usd": 0.01, "timeout_ms": 900,
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\u001b"}],
            "schema": {"type": "object"}, "stream": "my-id"}}"#;
        let Asked { query, stream } = model_query(body).unwrap();
        assert_eq!((query.prompt.as_str(), query.system.as_str(), query.messages.len()), ("why?", "Be short.", 2));
        assert_eq!((query.max_output_tokens, query.max_retries, query.temperature), (Some(5), Some(0), Some(0.5)));
        assert_eq!((query.max_cost, query.timeout), (Some(NanoUsd(10_000_000)), Some(Duration::from_millis(900))));
        assert!(query.schema.is_some());
        assert_eq!(stream.unwrap().as_str(), "my-id");
    }

    #[test]
    fn each_wrong_field_is_named_where_it_stands() {
        let query = |body: &str| model_query(body.as_bytes()).err().unwrap().field.unwrap();
        for (body, field) in [
            ("{}", "prompt"),
            (r#"{"prompt": " "}"#, "prompt"),
            (r#"{"prompt": "x", "option": {}}"#, "option"),
            (r#"{"prompt": "x", "options": {"max_token": 5}}"#, "options.max_token"),
            (r#"{"prompt": "x", "options": {"temperature": 3}}"#, "options.temperature"),
            (r#"{"prompt": "x", "options": {"stream": true}}"#, "options.stream"),
            (r#"{"prompt": "x", "options": {"stream": "a.b"}}"#, "options.stream"),
            (r#"{"prompt": "x", "options": {"schema": {"$ref": "https://x"}}}"#, "options.schema"),
            (r#"{"prompt": "x", "options": {"max_cost_usd": -1}}"#, "options.max_cost_usd"),
            (
                r#"{"prompt": "x", "options": {"messages": [{"role": "tool", "content": "x"}]}}"#,
                "options.messages[0].role",
            ),
        ] {
            assert_eq!(query(body), field, "{body}");
        }
        let unbuilt = br#"{"steps": [{"prompt": "x"}, {"prompt": "x", "options": {"schema": {"type": 5}}}]}"#;
        let refused = build(&steps(unbuilt).ok().unwrap().schemas()).unwrap_err();
        assert_eq!(refused.field.unwrap(), "steps[1].options.schema");
        let several = |body: &str| batch(body.as_bytes()).err().unwrap().field.unwrap();
        assert_eq!(several("{}"), "queries");
        assert_eq!(several(r#"{"queries": [{"prompt": "x"}, {"prompt": 1}]}"#), "queries[1].prompt");
        assert_eq!(
            several(r#"{"queries": [{"prompt": "x", "options": {"stream": "a"}}]}"#),
            "queries[0].options.stream"
        );
        assert_eq!(several(r#"{"queries": [{"prompt": "x"}], "max_concurrent": 0}"#), "max_concurrent");
        let stepped = |body: &str| steps(body.as_bytes()).err().unwrap().field.unwrap();
        assert_eq!(stepped(r#"{"steps": [{"prompt": "x"}], "done": ["a", "b"]}"#), "done");
        assert_eq!(stepped(r#"{"steps": [{"prompt": "x"}], "use_context": "yes"}"#), "use_context");
    }

    #[test]
    fn what_the_wire_types_write_is_read() {
        let asked = ModelQuery {
            prompt: "x".into(),
            options: Some(ModelOptions { max_tokens: Some(1), ..ModelOptions::default() }),
        };
        let written =
            serde_json::to_vec(&ModelBatch { queries: vec![asked.clone()], ..ModelBatch::default() }).unwrap();
        assert_eq!(batch(&written).unwrap().queries.len(), 1);
        let written = serde_json::to_vec(&ModelPipeline { steps: vec![asked], ..ModelPipeline::default() }).unwrap();
        assert!(steps(&written).unwrap().use_context);
    }
}
