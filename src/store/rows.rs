//! How domain values stand in a row.

use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use sqlx::error::BoxDynError;

use crate::domain::record::{CacheEntry, Digest, EdgeKey, EdgeStats, EntryId, EntryKind, Execution, Verdict};
use crate::domain::{CorrelationId, Language, Method, NanoUsd, TemplateId, Tenant, Tier, Timestamp, Usage};

/// A name that came from outside (a language, a model, a part), as it may stand in TEXT and in an index: PostgreSQL
/// refuses NUL in the one and some 2,700 bytes in the other.
pub(super) fn label(text: &str) -> String {
    text.chars().take(200).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Neither database has unsigned integers.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn vector_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn vector(bytes: &[u8]) -> Result<Arc<[f32]>, sqlx::Error> {
    let (values, []) = bytes.as_chunks::<4>() else {
        return Err(decode(format!("a vector of {} bytes", bytes.len())));
    };
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

pub(super) fn entry_bytes(id: EntryId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

pub(super) fn entry_id(bytes: &[u8]) -> Result<EntryId, sqlx::Error> {
    uuid::Uuid::from_slice(bytes).map(EntryId).map_err(decode)
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<Digest, sqlx::Error> {
    Digest::try_from(bytes).map_err(|bytes| decode(format!("a digest of {} bytes", bytes.len())))
}

pub(super) fn decode(error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

pub(super) fn method(text: &str) -> Result<Method, sqlx::Error> {
    Method::ALL.into_iter().find(|m| m.as_str() == text).ok_or_else(|| decode(format!("no method {text:?}")))
}

pub(super) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Exact => "exact",
        Tier::Semantic => "semantic",
    }
}

pub(super) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Request => "request",
        EntryKind::Task => "task",
    }
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Wrong => "wrong",
    }
}

/// The columns are named, never `*`: PostgreSQL refuses a prepared `*` once a newer worker has added a column.
pub(super) const EXECUTIONS: &str = "
    SELECT correlation_id, part, tenant, at_ms, task_key, task_type, language, method, template, model, input_tokens,
           output_tokens, cost_nanos, all_model_nanos, quality, success, time_ns, made_ns, tier, entry, origin
    FROM executions WHERE correlation_id = $1 AND tenant = $2 ORDER BY part";

#[derive(FromRow)]
pub(super) struct ExecutionRow {
    correlation_id: String,
    part: String,
    tenant: String,
    at_ms: i64,
    task_key: Vec<u8>,
    task_type: String,
    language: String,
    method: String,
    template: Option<String>,
    model: Option<String>,
    input_tokens: i64,
    output_tokens: i64,
    cost_nanos: i64,
    all_model_nanos: Option<i64>,
    quality: Option<f64>,
    success: bool,
    time_ns: i64,
    made_ns: i64,
    tier: Option<String>,
    entry: Option<Vec<u8>>,
    origin: Option<String>,
}

impl TryFrom<ExecutionRow> for Execution {
    type Error = sqlx::Error;

    fn try_from(row: ExecutionRow) -> Result<Self, sqlx::Error> {
        let tier = |text: String| match text.as_str() {
            "exact" => Ok(Tier::Exact),
            "semantic" => Ok(Tier::Semantic),
            other => Err(decode(format!("no tier {other:?}"))),
        };
        Ok(Self {
            correlation_id: CorrelationId::parse(&row.correlation_id).map_err(decode)?,
            part: row.part,
            tenant: Tenant::parse(&row.tenant).map_err(decode)?,
            at: Timestamp(row.at_ms),
            task_key: digest(row.task_key)?,
            task_type: row.task_type.parse().map_err(|e: String| decode(e))?,
            language: Language::from(row.language),
            method: method(&row.method)?,
            template: row.template.map(|id| TemplateId::parse(&id)).transpose().map_err(decode)?,
            model: row.model,
            usage: Usage { input: unsigned(row.input_tokens), output: unsigned(row.output_tokens) },
            cost: NanoUsd(unsigned(row.cost_nanos)),
            all_model_cost: row.all_model_nanos.map(|nanos| NanoUsd(unsigned(nanos))),
            quality: row.quality,
            success: row.success,
            time: Duration::from_nanos(unsigned(row.time_ns)),
            made_in: Duration::from_nanos(unsigned(row.made_ns)),
            tier: row.tier.map(tier).transpose()?,
            entry: row.entry.map(|id| entry_id(&id)).transpose()?,
            origin: row.origin.map(|id| CorrelationId::parse(&id)).transpose().map_err(decode)?,
            kept: false,
        })
    }
}

#[derive(FromRow)]
pub(super) struct EdgeRow {
    task_type: String,
    language: String,
    template: String,
    #[sqlx(flatten)]
    stats: StatsRow,
}

#[derive(FromRow)]
pub(super) struct StatsRow {
    uses: i64,
    success: f64,
    quality: Option<f64>,
    time_ms: f64,
    last_used_ms: i64,
}

impl From<StatsRow> for EdgeStats {
    fn from(row: StatsRow) -> Self {
        Self {
            uses: unsigned(row.uses),
            success: row.success,
            quality: row.quality,
            time_ms: row.time_ms,
            last_used: Timestamp(row.last_used_ms),
        }
    }
}

impl TryFrom<EdgeRow> for (EdgeKey, EdgeStats) {
    type Error = sqlx::Error;

    fn try_from(row: EdgeRow) -> Result<Self, sqlx::Error> {
        let key = EdgeKey {
            task_type: row.task_type.parse().map_err(|e: String| decode(e))?,
            language: Language::from(row.language),
            template: TemplateId::parse(&row.template).map_err(decode)?,
        };
        Ok((key, row.stats.into()))
    }
}

#[derive(FromRow)]
pub(super) struct EntryRow {
    pub(super) id: Vec<u8>,
    tenant: String,
    kind: String,
    scope: Vec<u8>,
    exact: Vec<u8>,
    task: Vec<u8>,
    answer: Vec<u8>,
    vector: Option<Vec<u8>>,
    origin: String,
    created_ms: i64,
    expires_ms: i64,
}

impl TryFrom<EntryRow> for CacheEntry {
    type Error = sqlx::Error;

    fn try_from(row: EntryRow) -> Result<Self, sqlx::Error> {
        let kind = match row.kind.as_str() {
            "request" => EntryKind::Request,
            "task" => EntryKind::Task,
            other => return Err(decode(format!("no kind of entry {other:?}"))),
        };
        Ok(Self {
            id: entry_id(&row.id)?,
            tenant: Tenant::parse(&row.tenant).map_err(decode)?,
            kind,
            scope: digest(row.scope)?,
            exact: digest(row.exact)?,
            task: String::from_utf8(row.task).map_err(decode)?.into(),
            answer: Arc::new(serde_json::from_slice(&row.answer).map_err(decode)?),
            vector: row.vector.as_deref().map(vector).transpose()?,
            origin: CorrelationId::parse(&row.origin).map_err(decode)?,
            created: Timestamp(row.created_ms),
            expires: Timestamp(row.expires_ms),
        })
    }
}
