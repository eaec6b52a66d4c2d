//! What the smaller doors take and give.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, ID, PLAIN, SAYS, quoted, wrong_type};
use super::{Code, Refusal};
use crate::domain::record::{Sweep, Verdict};
use crate::domain::{CorrelationId, IdError, Language, Tag, TaskType, TemplateId};
use crate::pipeline::{Neighbour, TemplateCheck, TemplateFilter, TemplateInfo};
use crate::store::Rows;

/// A user's verdict on an answer.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Feedback {
    /// The answer's `correlation_id`.
    #[schemars(regex(pattern = ID))]
    pub correlation_id: String,
    /// `wrong` withdraws a cached answer everywhere, blocks that template for that task, and re-scores it.
    pub verdict: Verdict,
    /// For those who look into it later. At most 2000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = COMMENT_CHARS), regex(pattern = PLAIN))]
    pub comment: Option<String>,
}

/// What a verdict changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FeedbackAnswer {
    /// Of the answer that was judged.
    pub correlation_id: String,
    pub verdict: Verdict,
    /// False where the same verdict had been given before.
    pub changed: bool,
    /// How many cached answers were withdrawn.
    pub withdrawn: usize,
    /// The templates that this tenant no longer gets for that task.
    pub blocked: Vec<String>,
}

/// Deletes what this tenant has: executions, figures, verdicts, blocked templates, kept replies, cached answers. It can't be
/// undone. Figures of templates stay: they are everybody's and hold no text.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Purge {
    /// The tenant's name again, as it is in the subject (`default` without one). Not needed for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub confirm: Option<String>,
    /// Only what is older than this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = LONGEST_AGE))]
    pub older_than_s: Option<u64>,
    /// Only say how much it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PurgeAnswer {
    pub tenant: String,
    pub dry_run: bool,
    /// False where there was too much for one call: ask again.
    pub complete: bool,
    pub rows: Rows,
    /// Live workers that did not confirm in time that they forgot it. They read it from the database within seconds.
    pub unconfirmed_workers: usize,
}

/// Takes cached answers of this tenant back, on all workers: those that all given fields fit. What is stored afterwards is
/// not touched.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Invalidate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskType>,
    /// Made by this template, in any of its versions, or with a part that was: `elixir-nats-consumer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub template: Option<String>,
    /// Made for a request that had this one among its `tags`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub tag: Option<String>,
    /// Everything that this tenant has stored. In the place of the other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everything: Option<bool>,
}

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InvalidateAnswer {
    pub tenant: String,
    /// Stored answers that no longer serve.
    pub withdrawn: usize,
    /// False where there was too much for one call: ask again.
    pub complete: bool,
    /// Live workers that did not confirm in time. They read it from the database within seconds.
    pub unconfirmed_workers: usize,
}

/// A body that says nothing: `{}` or empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Nothing {}

/// Which templates to list: all, or those of a language and of a task type.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TemplateQuery {
    /// By any of its names; templates for any language are listed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskType>,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct TemplateList {
    pub templates: Vec<TemplateInfo>,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TemplateRef {
    /// As in the template's front matter: `elixir-nats-consumer`.
    #[schemars(regex(pattern = ID))]
    pub id: String,
}

/// Which template would be taken for a task, and why.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TemplateChoice {
    #[schemars(regex(pattern = SAYS))]
    pub task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PLAIN))]
    pub language: Option<String>,
}

#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct TemplateChecks {
    pub templates: Vec<TemplateCheck>,
}

/// The nearest answers in the cache, and for each whether it would be given and what speaks against it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct CacheExplanation {
    /// The task's language, as it was understood.
    pub language: String,
    pub neighbours: Vec<Neighbour>,
    /// What was understood otherwise than written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

const COMMENT_CHARS: usize = 2000;
/// A hundred years, in seconds.
const LONGEST_AGE: u64 = 100 * 366 * 24 * 3600;

/// A purge that was checked.
pub(crate) struct Erasure {
    /// The name that the sender wrote again.
    pub confirm: Option<String>,
    pub older_than: Option<Duration>,
    pub dry_run: bool,
}

pub(crate) fn purge(body: &[u8]) -> Result<Erasure, Refusal> {
    let mut fields = Fields::parse(body, r#"{"confirm": "<tenant>"} or {"dry_run": true}"#)?;
    let confirm = fields.text("confirm")?;
    let older_than = match fields.take("older_than_s") {
        None => None,
        Some(value) => match value.as_u64().filter(|seconds| *seconds <= LONGEST_AGE) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                let message = format!("'older_than_s' must be a whole number of seconds, at most {LONGEST_AGE}");
                return Err(Refusal::at(Code::InvalidField, "older_than_s", message));
            }
        },
    };
    let dry_run = match fields.take("dry_run") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| wrong_type("dry_run", "true or false", &value))?,
    };
    fields.nothing_else()?;
    if !dry_run && confirm.is_none() {
        let message = "the field 'confirm' is missing; it must be the tenant's name, since a purge can't be undone";
        return Err(Refusal::at(Code::MissingField, "confirm", message));
    }
    Ok(Erasure { confirm, older_than, dry_run })
}

/// A verdict that was checked.
pub(crate) struct Judgement {
    pub correlation_id: CorrelationId,
    pub verdict: Verdict,
    pub comment: Option<String>,
}

pub(crate) fn feedback(body: &[u8]) -> Result<Judgement, Refusal> {
    let mut fields = Fields::parse(body, r#"{"correlation_id": "exec_...", "verdict": "good" or "wrong"}"#)?;
    let correlation_id = id(&mut fields, "correlation_id", CorrelationId::parse)?;
    let verdict = match fields.needed_text("verdict")?.as_str() {
        "good" => Verdict::Good,
        "wrong" => Verdict::Wrong,
        other => {
            let message = format!("'verdict' must be good or wrong, not {}", quoted(other));
            return Err(Refusal::at(Code::InvalidField, "verdict", message));
        }
    };
    let comment = fields.text("comment")?;
    if comment.as_ref().is_some_and(|text| text.chars().nth(COMMENT_CHARS).is_some()) {
        let message = format!("'comment' may have at most {COMMENT_CHARS} characters");
        return Err(Refusal::at(Code::TooLarge, "comment", message));
    }
    fields.nothing_else()?;
    Ok(Judgement { correlation_id, verdict, comment })
}

pub(crate) fn invalidate(body: &[u8]) -> Result<Sweep, Refusal> {
    let hint = r#"{"template": "<id>"}, {"task_type": "..."}, {"tag": "..."} or {"everything": true}"#;
    let mut fields = Fields::parse(body, hint)?;
    let task_type = task_type(&mut fields)?;
    let wrong = |field: &str, error: IdError| Refusal::at(Code::InvalidField, field, format!("'{field}' {error}"));
    let template = fields.text("template")?.map(|text| TemplateId::parse(&text)).transpose();
    let template = template.map_err(|error| wrong("template", error))?;
    let tag = fields.text("tag")?.map(|text| Tag::parse(&text)).transpose().map_err(|error| wrong("tag", error))?;
    let everything = match fields.take("everything") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| wrong_type("everything", "true or false", &value))?,
    };
    fields.nothing_else()?;
    let what = Sweep { task_type, template, tag };
    if everything == (what == Sweep::default()) {
        return Ok(what);
    }
    let message = format!("say what is to be taken back: {hint}; 'everything' stands alone");
    Err(Refusal::at(Code::InvalidField, "everything", message))
}

fn task_type(fields: &mut Fields) -> Result<Option<TaskType>, Refusal> {
    let read = |text: String| {
        text.parse::<TaskType>().map_err(|_| {
            let known = TaskType::ALL.map(TaskType::as_str).join(", ");
            let message = format!("there is no task type {}; there are: {known}", quoted(&text));
            Refusal::at(Code::InvalidField, "task_type", message)
        })
    };
    fields.text("task_type")?.map(read).transpose()
}

pub(crate) fn nothing(body: &[u8]) -> Result<(), Refusal> {
    optional(body)?.nothing_else()
}

pub(crate) fn template_query(body: &[u8]) -> Result<TemplateFilter, Refusal> {
    let mut fields = optional(body)?;
    let language = fields.text("language")?.map(Language::from);
    let task_type = task_type(&mut fields)?;
    fields.nothing_else()?;
    Ok(TemplateFilter { language, task_type })
}

pub(crate) fn template_ref(body: &[u8]) -> Result<TemplateId, Refusal> {
    let mut fields = Fields::parse(body, r#"{"id": "<template>"}"#)?;
    let id = id(&mut fields, "id", TemplateId::parse)?;
    fields.nothing_else().map(|()| id)
}

pub(crate) fn template_choice(body: &[u8]) -> Result<TemplateChoice, Refusal> {
    let mut fields = Fields::parse(body, r#"{"task": "...", "language"?: "..."}"#)?;
    let task = fields.needed_text("task")?;
    let language = fields.text("language")?.filter(|text| !text.trim().is_empty());
    fields.nothing_else()?;
    Ok(TemplateChoice { task, language })
}

/// An object, or nothing where all its fields may be left out.
fn optional(body: &[u8]) -> Result<Fields, Refusal> {
    Fields::parse(if body.is_empty() { b"{}" } else { body }, "a JSON object, or nothing")
}

fn id<T>(fields: &mut Fields, name: &str, parse: impl Fn(&str) -> Result<T, IdError>) -> Result<T, Refusal> {
    let text = fields.needed_text(name)?;
    parse(&text).map_err(|error| Refusal::at(Code::InvalidField, name, format!("'{name}' {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_good_or_wrong_on_a_named_answer() {
        let judged = feedback(br#"{"correlation_id": "exec_1", "verdict": "wrong", "comment": "old API"}"#).unwrap();
        assert_eq!((judged.correlation_id.as_str(), judged.verdict), ("exec_1", Verdict::Wrong));
        let field = |body: &str| feedback(body.as_bytes()).err().unwrap().field.unwrap();
        assert_eq!(field(r#"{"verdict": "wrong"}"#), "correlation_id");
        assert_eq!(field(r#"{"correlation_id": "exec_1", "verdict": "bad"}"#), "verdict");
        assert_eq!(field(r#"{"correlation_id": "exec_1", "verdict": "good", "coment": "x"}"#), "coment");
    }

    #[test]
    fn a_purge_names_its_tenant_again_or_is_a_dry_run() {
        let read = purge(br#"{"confirm": "acme", "older_than_s": 3600}"#).unwrap();
        assert_eq!((read.confirm.as_deref(), read.older_than), (Some("acme"), Some(Duration::from_secs(3600))));
        assert!(purge(br#"{"dry_run": true}"#).unwrap().dry_run);
        let field = |body: &str| purge(body.as_bytes()).err().unwrap().field.unwrap();
        assert_eq!(field("{}"), "confirm");
        assert_eq!(field(r#"{"dry_run": false}"#), "confirm");
        assert_eq!(field(r#"{"dry_run": "yes"}"#), "dry_run");
        assert_eq!(field(r#"{"confirm": "acme", "older_than": 1}"#), "older_than");
        assert_eq!(field(r#"{"confirm": "acme", "older_than_s": -1}"#), "older_than_s");
    }

    #[test]
    fn what_is_taken_back_is_said() {
        let read = invalidate(br#"{"template": "elixir-nats-consumer", "task_type": "testing"}"#).unwrap();
        assert_eq!(
            (read.template.unwrap().as_str(), read.task_type),
            ("elixir-nats-consumer", Some(TaskType::Testing))
        );
        assert_eq!(invalidate(br#"{"everything": true}"#).unwrap(), Sweep::default());
        let field = |body: &str| invalidate(body.as_bytes()).err().unwrap().field.unwrap();
        for vague in ["{}", r#"{"everything": false}"#, r#"{"everything": true, "task_type": "testing"}"#] {
            assert_eq!(field(vague), "everything", "{vague}");
        }
        assert_eq!(field(r#"{"task_type": "x"}"#), "task_type");
        assert_eq!(field(r#"{"template": "a b"}"#), "template");
        assert_eq!(field(r#"{"tag": "a b"}"#), "tag");
        assert_eq!(field(r#"{"templat": "x"}"#), "templat");
    }

    #[test]
    fn a_list_may_be_asked_for_with_nothing_at_all() {
        assert_eq!(template_query(b"").unwrap().task_type, None);
        assert_eq!(template_query(br#"{"task_type": "testing"}"#).unwrap().task_type, Some(TaskType::Testing));
        assert_eq!(template_query(br#"{"task_type": "x"}"#).err().unwrap().field.as_deref(), Some("task_type"));
    }
}
