//! TEMPORARY: a deterministic body behind the pipeline's API, so that the bus compiles and is tested before the
//! pipeline is there. The real one replaces this file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::domain::record::Verdict;
use crate::domain::{
    Answer, CacheMode, CorrelationId, Goal, Hit, Language, Method, NanoUsd, Request, RequestId, TaskType, TemplateId,
    Tenant, Tier, Timestamp, Usage,
};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the id '{id}' was used with another body")]
    IdConflict { id: RequestId },
    #[error("the deadline passed")]
    DeadlineExceeded,
    #[error("no answer with the correlation id '{id}'")]
    UnknownCorrelationId { id: CorrelationId },
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

pub struct Judged {
    pub changed: bool,
    pub withdrawn: usize,
    pub blocked: Vec<TemplateId>,
}

macro_rules! shape {
    ($($name:ident { $($field:ident: $type:ty),* })*) => { $(
        #[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
        pub struct $name { $(pub $field: $type),* }
    )* };
}

shape! {
    Stats { executions: u64 }
    Health { status: String, version: String, components: BTreeMap<String, Component> }
    Component { status: String, message: Option<String> }
    TemplateInfo { id: String }
    TemplateDetail { id: String, source: String }
    Selection { candidates: Vec<String> }
    Analysis { findings: Vec<String> }
    TemplateCheck { id: String, parses: bool }
    CacheStats { entries: u64 }
    Neighbour { similarity: f64 }
}

#[derive(Debug, Default, Deserialize)]
pub struct TemplateFilter {
    pub language: Option<Language>,
    pub task_type: Option<TaskType>,
}

type Answers = BTreeMap<(Tenant, String, Language), Answer>;

#[derive(Clone, Default)]
pub struct Pipeline {
    answers: Arc<Mutex<Answers>>,
    ids: Arc<Mutex<BTreeMap<(Tenant, RequestId), [u8; 32]>>>,
}

impl Pipeline {
    pub fn known(&self, request: &Request, now: Timestamp) -> Option<Answer> {
        if request.id.is_some() || request.cache != CacheMode::Use {
            return None;
        }
        let key = (request.tenant.clone(), request.goal.description.clone(), request.goal.language.clone());
        let mut answer = self.answers.lock().ok()?.get(&key)?.clone();
        let origin = request.correlation_id.clone();
        answer.hit = Some(Hit { tier: Tier::Exact, similarity: 1.0, age: now.since(answer.made_at), origin });
        answer.method = Method::Cached;
        answer.notes.clone_from(&request.notes);
        Some(answer)
    }

    pub async fn run(&self, request: Request, now: Timestamp) -> Result<Answer, Error> {
        if let (Some(id), Ok(mut ids)) = (&request.id, self.ids.lock()) {
            let seen = ids.entry((request.tenant.clone(), id.clone())).or_insert(request.body_hash);
            if *seen != request.body_hash {
                return Err(Error::IdConflict { id: id.clone() });
            }
        }
        let answer = Answer {
            text: request.goal.description.to_uppercase(),
            file: None,
            method: Method::Autonomous,
            task_type: TaskType::General,
            language: request.goal.language.clone(),
            template: None,
            model: None,
            usage: Usage::default(),
            cost: NanoUsd::ZERO,
            evaluation: None,
            success: true,
            reason: None,
            parts: vec![],
            notes: request.notes.clone(),
            hit: None,
            made_at: now,
        };
        let key = (request.tenant, request.goal.description, request.goal.language);
        if let Ok(mut answers) = self.answers.lock() {
            answers.insert(key, answer.clone());
        }
        Ok(answer)
    }

    pub async fn feedback(
        &self,
        _tenant: &Tenant,
        correlation_id: &CorrelationId,
        _verdict: Verdict,
        _comment: Option<&str>,
        _now: Timestamp,
    ) -> Result<Judged, Error> {
        Err(Error::UnknownCorrelationId { id: correlation_id.clone() })
    }

    pub async fn stats(&self, _tenant: &Tenant) -> Result<Stats, Error> {
        Ok(Stats { executions: self.answers.lock().map_or(0, |a| a.len() as u64) })
    }

    pub async fn health(&self) -> Health {
        Health { status: "ok".into(), version: env!("CARGO_PKG_VERSION").into(), components: BTreeMap::new() }
    }

    pub fn templates(&self, _filter: &TemplateFilter) -> Vec<TemplateInfo> {
        vec![]
    }

    pub fn template(&self, _id: &TemplateId) -> Option<TemplateDetail> {
        None
    }

    pub fn select(&self, _tenant: &Tenant, _task: &str, _language: Option<Language>) -> Selection {
        Selection { candidates: vec![] }
    }

    pub async fn analyze(&self) -> Result<Analysis, Error> {
        Ok(Analysis { findings: vec![] })
    }

    pub fn check_templates(&self) -> Vec<TemplateCheck> {
        vec![]
    }

    pub async fn cache_stats(&self, _tenant: &Tenant) -> Result<CacheStats, Error> {
        Ok(CacheStats { entries: self.answers.lock().map_or(0, |a| a.len() as u64) })
    }

    pub async fn explain(&self, _tenant: &Tenant, _goal: &Goal, _now: Timestamp) -> Result<Vec<Neighbour>, Error> {
        Ok(vec![])
    }

    pub fn read_language(&self, written: Option<&str>, _task: &str, notes: &mut Vec<String>) -> Language {
        let Some(written) = written else { return Language::Elixir };
        Language::named(written).unwrap_or_else(|| match Language::nearest(written) {
            Some(near) => {
                notes.push(format!("language '{written}' was read as {near}"));
                near
            }
            None => {
                notes.push(format!("no templates for language '{written}'"));
                Language::from(written.to_owned())
            }
        })
    }
}
