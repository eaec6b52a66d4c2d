//! What the smaller doors take and give.

use serde::{Deserialize, Serialize};

use super::fields::{Fields, ID, PLAIN, SAYS, quoted};
use super::{Code, Refusal};
use crate::domain::record::Verdict;
use crate::domain::{CorrelationId, IdError, Language, TaskType, TemplateId};
use crate::pipeline::{Neighbour, TemplateCheck, TemplateFilter, TemplateInfo};

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
    nothing_else(fields)?;
    Ok(Judgement { correlation_id, verdict, comment })
}

pub(crate) fn nothing(body: &[u8]) -> Result<(), Refusal> {
    optional(body).and_then(nothing_else)
}

pub(crate) fn template_query(body: &[u8]) -> Result<TemplateFilter, Refusal> {
    let mut fields = optional(body)?;
    let language = fields.text("language")?.map(Language::from);
    let task_type = fields.text("task_type")?.map(|text| {
        text.parse::<TaskType>().map_err(|_| {
            let known = TaskType::ALL.map(TaskType::as_str).join(", ");
            let message = format!("there is no task type {}; there are: {known}", quoted(&text));
            Refusal::at(Code::InvalidField, "task_type", message)
        })
    });
    let task_type = task_type.transpose()?;
    nothing_else(fields)?;
    Ok(TemplateFilter { language, task_type })
}

pub(crate) fn template_ref(body: &[u8]) -> Result<TemplateId, Refusal> {
    let mut fields = Fields::parse(body, r#"{"id": "<template>"}"#)?;
    let id = id(&mut fields, "id", TemplateId::parse)?;
    nothing_else(fields).map(|()| id)
}

pub(crate) fn template_choice(body: &[u8]) -> Result<TemplateChoice, Refusal> {
    let mut fields = Fields::parse(body, r#"{"task": "...", "language"?: "..."}"#)?;
    let task = fields.needed_text("task")?;
    let language = fields.text("language")?.filter(|text| !text.trim().is_empty());
    nothing_else(fields)?;
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

/// These answers have no place for notes, so a misspelt field is refused.
fn nothing_else(fields: Fields) -> Result<(), Refusal> {
    match fields.rest().keys().next() {
        None => Ok(()),
        Some(name) => {
            let name = quoted(name);
            Err(Refusal::at(Code::InvalidField, name.trim_matches('"'), format!("the field {name} is not known here")))
        }
    }
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
    fn a_list_may_be_asked_for_with_nothing_at_all() {
        assert_eq!(template_query(b"").unwrap().task_type, None);
        assert_eq!(template_query(br#"{"task_type": "testing"}"#).unwrap().task_type, Some(TaskType::Testing));
        assert_eq!(template_query(br#"{"task_type": "x"}"#).err().unwrap().field.as_deref(), Some("task_type"));
    }
}
