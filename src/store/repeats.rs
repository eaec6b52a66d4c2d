//! Exact hits on one entry come by the thousand. They differ in nothing but their ids and times, so those that are
//! written together share one row; a verdict on any of them still finds what it is about.

use std::collections::{HashMap, HashSet};

use sqlx::QueryBuilder;

use crate::domain::record::{EntryId, Execution};
use crate::domain::{CorrelationId, Tenant, Tier};

use super::rows::decode;
use super::{Tx, on};

/// Hits in one row are made within so long: a verdict looks at the rows of so much time.
const SPAN_MS: i64 = 10_000;

/// Executions of which all but the first are repeats of it.
pub(super) type Group<'a> = Vec<&'a Execution>;

/// Takes repeats together, in the order of their firsts.
pub(super) fn group<'a>(batch: &[&'a Execution]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::with_capacity(batch.len());
    let mut places: HashMap<(&Tenant, EntryId, i64), usize> = HashMap::new();
    for &execution in batch {
        let Some(name) = name(execution) else {
            groups.push(vec![execution]);
            continue;
        };
        let place = *places.entry(name).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(execution),
            None => groups.push(vec![execution]),
        }
    }
    groups
}

/// What hits have in common that may share a row; `None` for what has one of its own.
fn name(execution: &Execution) -> Option<(&Tenant, EntryId, i64)> {
    // A kept reply is found by its execution's row when its entry is withdrawn.
    let is_hit = execution.tier == Some(Tier::Exact) && execution.part.is_empty() && !execution.kept;
    let made = execution.correlation_id.made_at().filter(|_| is_hit)?;
    Some((&execution.tenant, execution.entry?, made.0.div_euclid(SPAN_MS)))
}

/// Writes down the ids of all but the first of each group.
pub(super) async fn insert(tx: &mut Tx, groups: &[&Group<'_>]) -> Result<(), sqlx::Error> {
    for groups in groups.chunks(1_000) {
        on!(&mut *tx, tx => {
            let mut sql = QueryBuilder::new("INSERT INTO repeats (correlation_id, tenant, from_ms, to_ms, ids) ");
            sql.push_values(groups, |mut row, group| {
                let times = || group.iter().filter_map(|e| e.correlation_id.made_at()).map(|at| at.0);
                let ids: Vec<&str> = group[1..].iter().map(|e| e.correlation_id.as_str()).collect();
                row.push_bind(group[0].correlation_id.as_str())
                    .push_bind(group[0].tenant.as_str())
                    .push_bind(times().min().unwrap_or_default())
                    .push_bind(times().max().unwrap_or_default())
                    .push_bind(format!("\n{}\n", ids.join("\n")).into_bytes());
            });
            sql.build().persistent(false).execute(&mut **tx).await.map(drop)?
        });
    }
    Ok(())
}

/// The ids that share the row of this one.
pub(super) async fn of(tx: &mut Tx, first: &CorrelationId) -> Result<HashSet<String>, sqlx::Error> {
    let sql = "SELECT ids FROM repeats WHERE correlation_id = $1";
    let row: Option<(Vec<u8>,)> =
        on!(tx, tx => sqlx::query_as(sql).bind(first.as_str()).fetch_optional(&mut **tx).await)?;
    let Some((ids,)) = row else { return Ok(HashSet::new()) };
    let ids = String::from_utf8(ids).map_err(decode)?;
    Ok(ids.split('\n').filter(|id| !id.is_empty()).map(str::to_owned).collect())
}

/// The hit whose row this one shares.
pub(super) async fn first_of(
    tx: &mut Tx,
    tenant: &Tenant,
    id: &CorrelationId,
) -> Result<Option<CorrelationId>, sqlx::Error> {
    let Some(made) = id.made_at() else { return Ok(None) };
    let sqlite = "SELECT correlation_id FROM repeats WHERE tenant = $1 AND from_ms BETWEEN $2 AND $3 AND to_ms >= $3
                  AND instr(ids, $4) > 0";
    let postgres = "SELECT correlation_id FROM repeats WHERE tenant = $1 AND from_ms BETWEEN $2 AND $3 AND to_ms >= $3
                    AND position($4 IN ids) > 0";
    let sql = if matches!(tx, Tx::Sqlite(_)) { sqlite } else { postgres };
    let row: Option<(String,)> = on!(tx, tx => {
        sqlx::query_as(sql)
            .bind(tenant.as_str())
            .bind(made.0 - SPAN_MS)
            .bind(made.0)
            .bind(format!("\n{id}\n").into_bytes())
            .fetch_optional(&mut **tx)
            .await
    })?;
    row.map(|(first,)| CorrelationId::parse(&first).map_err(decode)).transpose()
}
