//! Doing one step: by the agent, a model, a service of the user's, or a closure.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Options;
use super::policy::Failure;
use super::subjects;
use crate::coordinator::{Bounds, Coordinator, language_of, task_key};
use crate::domain::workflow::{FailureKind, GoalType, ModelStep, Node, Step};
use crate::domain::{CacheMode, Complexity, Context, CorrelationId, Goal, Language, Limits, TaskId, Tenant, Timestamp};
use crate::llm::{Query, Schema, Terms};
use crate::store::{Recorder, Write};

/// What a step is given.
#[derive(Debug, Clone)]
pub struct Given {
    pub tenant: Tenant,
    /// The same for every attempt at the same task of the same workflow, as long as what it is to do is the same: whoever
    /// keeps it does a thing once. `<workflow>/<task>/<definition>`.
    pub key: String,
    pub task: TaskId,
    pub description: String,
    /// What its dependencies came to, as JSON, by their names.
    pub inputs: BTreeMap<TaskId, Arc<str>>,
    /// Counted from 1.
    pub attempt: u32,
    pub timeout: Duration,
}

#[derive(Serialize)]
struct Body<'a> {
    task: &'a str,
    description: &'a str,
    inputs: BTreeMap<&'a str, &'a RawValue>,
}

impl Given {
    /// As a service gets it: `{"task", "description", "inputs"}`.
    pub fn body(&self) -> Result<Vec<u8>, serde_json::Error> {
        let read = |(id, json): (&'_ TaskId, &'_ Arc<str>)| Ok((id.as_str().to_owned(), raw(json)?));
        let inputs: BTreeMap<String, Box<RawValue>> = self.inputs.iter().map(read).collect::<Result<_, _>>()?;
        let inputs = inputs.iter().map(|(id, json)| (id.as_str(), &**json)).collect();
        serde_json::to_vec(&Body { task: self.task.as_str(), description: &self.description, inputs })
    }
}

fn raw(json: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(json)
}

/// A service of the user's, wherever it is.
pub trait Service: Send + Sync {
    /// Its answer, as it came.
    fn ask<'a>(&'a self, subject: &'a str, given: &'a Given, body: Vec<u8>) -> BoxFuture<'a, Result<Vec<u8>, Failure>>;

    /// What a decomposer of the user's made of a goal, checked as a graph.
    fn take_apart<'a>(&'a self, subject: &'a str, asked: &'a Question) -> BoxFuture<'a, Result<Vec<Node>, Failure>>;
}

/// A goal for a decomposer of the user's.
#[derive(Debug, Clone)]
pub struct Question {
    pub goal: String,
    pub kind: Option<GoalType>,
    /// What its graph may have.
    pub limits: Limits,
    pub timeout: Duration,
}

/// A closure of the program that this crate is built into. It gives JSON.
pub type Native = Arc<dyn Fn(Given) -> BoxFuture<'static, Result<String, Failure>> + Send + Sync>;

/// Does steps.
pub(super) struct Runner {
    coordinator: Coordinator,
    recorder: Recorder,
    default_language: Language,
    service: OnceLock<Arc<dyn Service>>,
    natives: RwLock<HashMap<String, Native>>,
}

impl Runner {
    pub(super) fn new(coordinator: Coordinator, recorder: Recorder, default_language: Language) -> Self {
        let (service, natives) = (OnceLock::new(), RwLock::default());
        Self { coordinator, recorder, default_language, service, natives }
    }

    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    pub(super) fn default_language(&self) -> &Language {
        &self.default_language
    }

    pub(super) fn serve(&self, service: Arc<dyn Service>) {
        // Said once, by whoever wires the worker.
        let _ = self.service.set(service);
    }

    pub(super) fn register(&self, name: &str, native: Native) {
        self.natives.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), native);
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.natives.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// By a service of the user's.
    pub(super) async fn take_apart(&self, subject: &str, asked: &Question) -> Result<Vec<Node>, Failure> {
        let service = self.service.get().ok_or_else(no_line)?;
        service.take_apart(subject, asked).await
    }

    /// The step's output, as JSON that was looked at.
    pub(super) async fn run(&self, step: &Step, given: Given, options: &Options) -> Result<Arc<str>, Failure> {
        let output = match step {
            Step::Agent { language, complexity } => self.agent(language.clone(), *complexity, &given, options).await?,
            Step::Model(asked) => self.model(asked, &given, options).await?,
            Step::Nats { subject } => {
                // The configuration may be another than when the workflow was started.
                subjects::allowed(subject, &options.step_subjects)
                    .map_err(|why| Failure::new(FailureKind::Refused, format!("the subject '{subject}' {why}")))?;
                let service = self.service.get().ok_or_else(no_line)?;
                let body = given.body().map_err(|error| bad(format!("the inputs can't be written: {error}")))?;
                let bytes = service.ask(subject, &given, body).await?;
                String::from_utf8(bytes).map_err(|_| bad("the answer is not UTF-8".to_owned()))?
            }
            Step::Native { name } => {
                let native = self.natives.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
                let missing = || Failure::new(FailureKind::Unavailable, format!("this worker has no step '{name}'"));
                native.ok_or_else(missing)?(given).await?
            }
        };
        check(output, options.max_output_bytes)
    }

    async fn agent(
        &self,
        language: Option<Language>,
        complexity: Complexity,
        given: &Given,
        options: &Options,
    ) -> Result<String, Failure> {
        let description = given.description.clone();
        let language = language.or_else(|| language_of(&description)).unwrap_or_else(|| self.default_language.clone());
        let (acceptance_criteria, context) = (vec![], Context::default());
        let goal = Goal { description, language, complexity, acceptance_criteria, context, tags: vec![] };
        let correlation_id = CorrelationId::generate();
        let bounds = Bounds {
            tenant: given.tenant.clone(),
            correlation_id: correlation_id.clone(),
            cache: CacheMode::Use,
            max_cost: None,
            deadline: Instant::now() + given.timeout,
        };
        let now = Timestamp::now();
        let earlier = earlier(given, options.max_context_chars);
        let plan = self.coordinator.plan(&goal, &given.tenant, now).after(earlier);
        let answer = self.coordinator.carry_out(&goal, plan, &bounds, now).await;
        let key = task_key(&given.tenant, &goal);
        let execution = self.coordinator.execution(&given.tenant, &correlation_id, &goal, key, &answer, now);
        if answer.cost.0 == 0 && answer.unknown.0 == 0 {
            self.recorder.record(Write::Execution(execution));
        } else if let Err(error) = self.recorder.record_durably(execution).await {
            tracing::warn!(%error, "what a step's model calls cost could not be written down");
        }
        if !answer.success {
            let why = answer.reason.unwrap_or_else(|| "nothing could do it".to_owned());
            return Err(Failure::new(FailureKind::Undone, why));
        }
        write(&AgentOutput {
            text: &answer.text,
            file: answer.file.as_deref(),
            language: answer.language.as_str(),
            method: answer.method.as_str(),
            template: answer.template.as_ref().map(|id| id.as_str()),
            model: answer.model.as_deref(),
            quality: answer.evaluation.map(|e| e.quality),
            cost_usd: answer.cost.as_usd(),
            correlation_id: correlation_id.as_str(),
        })
    }

    async fn model(&self, asked: &ModelStep, given: &Given, options: &Options) -> Result<String, Failure> {
        let correlation_id = CorrelationId::generate();
        let deadline = tokio::time::Instant::now() + given.timeout;
        let terms = Terms::new(given.tenant.clone(), correlation_id.clone(), deadline);
        let mut prompt = asked.prompt.clone().unwrap_or_else(|| given.description.clone());
        let earlier = earlier(given, options.max_context_chars);
        if !earlier.is_empty() {
            let _ = write!(prompt, "\n\nWhat was done before:\n\n{earlier}");
        }
        let bad_schema = |error: crate::llm::Error| Failure::new(FailureKind::Refused, error.to_string());
        let schema = asked.schema.as_deref().map(Schema::parse).transpose().map_err(bad_schema)?;
        let query = Query {
            prompt,
            system: asked.system.clone().unwrap_or_default(),
            model: asked.model.clone(),
            max_output_tokens: asked.max_tokens,
            temperature: asked.temperature,
            schema,
            ..Query::default()
        };
        let answered = self.coordinator.agent().llm().query(query, terms, Timestamp::now()).await;
        // What was paid is in the ledger before the step counts as done.
        if let Err(error) = self.recorder.flush().await {
            tracing::warn!(%error, "what a step's model calls cost could not be written down");
        }
        let complete = answered.is_success();
        // It has been tried as often as the models' own settings say.
        let completion = answered.outcome.map_err(|failed| Failure::new(FailureKind::Undone, failed.to_string()))?;
        if !complete {
            return Err(Failure::new(FailureKind::Undone, "the model's answer was cut short or empty"));
        }
        // It was checked against the schema, so it is JSON.
        let json = asked.schema.as_ref().map(|_| raw(&completion.text)).transpose();
        let json = json.map_err(|error| bad(format!("the model's answer is no JSON: {error}")))?;
        write(&ModelOutput {
            json,
            text: &completion.text,
            model: &completion.model,
            cost_usd: completion.cost().as_usd(),
            correlation_id: correlation_id.as_str(),
        })
    }
}

#[derive(Serialize)]
struct AgentOutput<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    language: &'a str,
    method: &'a str,
    template: Option<&'a str>,
    model: Option<&'a str>,
    quality: Option<f64>,
    cost_usd: f64,
    /// For a verdict.
    correlation_id: &'a str,
}

#[derive(Serialize)]
struct ModelOutput<'a> {
    text: &'a str,
    /// With a schema: what fits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    model: &'a str,
    cost_usd: f64,
    correlation_id: &'a str,
}

fn write(output: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(output).map_err(|error| bad(format!("the output can't be written: {error}")))
}

fn no_line() -> Failure {
    Failure::new(FailureKind::Unavailable, "this worker has no line to services")
}

fn bad(message: String) -> Failure {
    Failure::new(FailureKind::BadOutput, message)
}

/// An output is JSON, and not too large.
fn check(output: String, most: usize) -> Result<Arc<str>, Failure> {
    if output.len() > most {
        let found = output.len();
        return Err(bad(format!(
            "the output has {found} bytes; at most {most} are allowed (workflow.max_output_bytes)"
        )));
    }
    match serde_json::from_str::<IgnoredAny>(&output) {
        Ok(_) => Ok(output.trim().into()),
        Err(error) => Err(bad(format!("the output is no JSON: {error}"))),
    }
}

/// What the dependencies came to, for who reads text. Bounded.
fn earlier(given: &Given, most: usize) -> String {
    #[derive(Deserialize)]
    struct Text {
        text: String,
    }
    let mut whole = String::new();
    for (id, json) in &given.inputs {
        let text = serde_json::from_str::<Text>(json).map(|of| of.text);
        let _ = writeln!(whole, "## {id}\n{}", text.as_deref().unwrap_or(json));
    }
    whole.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(inputs: &[(&str, &str)]) -> Given {
        Given {
            tenant: Tenant::default(),
            key: "w/t/d".to_owned(),
            task: TaskId::new("t"),
            description: "do t".to_owned(),
            inputs: inputs.iter().map(|(id, json)| (TaskId::new(id), Arc::from(*json))).collect(),
            attempt: 1,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_service_gets_its_inputs_as_they_were_made() {
        let body = given(&[("a", r#"{"n": 1.50}"#), ("b", "null")]).body().unwrap();
        let text = String::from_utf8(body).unwrap();
        assert_eq!(text, r#"{"task":"t","description":"do t","inputs":{"a":{"n": 1.50},"b":null}}"#);
    }

    #[test]
    fn what_is_no_json_or_too_large_is_no_output() {
        assert_eq!(&*check(" {\"a\": 1}\n".to_owned(), 100).unwrap(), "{\"a\": 1}");
        for (output, says) in [("", "no JSON"), ("{", "no JSON"), ("{} {}", "no JSON"), (&"1".repeat(101), "101 bytes")]
        {
            let failure = check(output.to_owned(), 100).unwrap_err();
            assert!(failure.kind == FailureKind::BadOutput && failure.message.contains(says), "{failure:?}");
        }
        assert!(check("[".repeat(10_000), 100_000).is_err());
    }

    #[test]
    fn what_was_done_before_is_shown_as_text_and_bounded() {
        let given = given(&[("a", r#"{"text": "fn main() {}"}"#), ("b", "[1, 2]")]);
        assert_eq!(earlier(&given, 1_000), "## a\nfn main() {}\n## b\n[1, 2]\n");
        assert_eq!(earlier(&given, 7), "## a\nfn");
    }
}
