//! Which worker does the work that several were asked for at once.
//!
//! A row per exact key. Its `beat` rises while the holder is at it. Nobody compares clocks: who follows looks whether the
//! beat stands still, by his own clock, and takes over from the beat that he saw last.

use crate::domain::record::{CacheEntry, Digest, EntryKind};
use crate::domain::{CorrelationId, Tenant, Timestamp};

use super::rows::{EntryRow, kind_name};
use super::{Error, Store, on};

/// What asking for the lead came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    Won,
    /// Another is at it, and this was his last beat.
    Held {
        beat: i64,
    },
}

impl Store {
    /// Takes the lead for a key where nobody has it, or where its beat is still the one that was `seen` last.
    pub async fn lead(
        &self,
        exact: &Digest,
        holder: &CorrelationId,
        seen: Option<i64>,
        now: Timestamp,
    ) -> Result<Lead, Error> {
        let run = async {
            let sql = "INSERT INTO cache_flights (exact, holder, beat, at_ms) VALUES ($1, $2, 0, $3)
                       ON CONFLICT (exact) DO UPDATE SET holder = $2, beat = cache_flights.beat + 1, at_ms = $3
                       WHERE cache_flights.beat = $4 RETURNING beat";
            loop {
                let won: Option<(i64,)> = on!(&self.write, pool => {
                    sqlx::query_as(sql)
                        .bind(&exact[..])
                        .bind(holder.as_str())
                        .bind(now.0)
                        .bind(seen.unwrap_or(NEVER))
                        .fetch_optional(pool)
                        .await
                })?;
                if won.is_some() {
                    return Ok(Lead::Won);
                }
                // It may have come to its end between the two.
                if let Some(beat) = self.beat_of(exact).await? {
                    return Ok(Lead::Held { beat });
                }
            }
        };
        run.await.map_err(Error::during("take the lead for a task"))
    }

    /// The last beat of whoever has the lead; `None` where nobody has it.
    pub async fn lead_of(&self, exact: &Digest) -> Result<Option<i64>, Error> {
        self.beat_of(exact).await.map_err(Error::during("look who has the lead for a task"))
    }

    /// Says that the holder is still at it. False where another has taken over.
    pub async fn beat(&self, exact: &Digest, holder: &CorrelationId, now: Timestamp) -> Result<bool, Error> {
        let sql = "UPDATE cache_flights SET beat = beat + 1, at_ms = $3 WHERE exact = $1 AND holder = $2";
        let rows = on!(&self.write, pool => {
            let query = sqlx::query(sql).bind(&exact[..]).bind(holder.as_str()).bind(now.0);
            query.execute(pool).await.map(|done| done.rows_affected())
        });
        Ok(rows.map_err(Error::during("keep the lead for a task"))? > 0)
    }

    /// Gives up the lead, if this holder has it.
    pub async fn land(&self, exact: &Digest, holder: &CorrelationId) -> Result<(), Error> {
        let sql = "DELETE FROM cache_flights WHERE exact = $1 AND holder = $2";
        let done = on!(&self.write, pool => {
            sqlx::query(sql).bind(&exact[..]).bind(holder.as_str()).execute(pool).await.map(drop)
        });
        done.map_err(Error::during("give up the lead for a task"))
    }

    /// The live entry of an exact key.
    pub async fn entry_of(
        &self,
        tenant: &Tenant,
        kind: EntryKind,
        exact: &Digest,
        now: Timestamp,
    ) -> Result<Option<CacheEntry>, Error> {
        let run = async {
            let sql = "SELECT id, tenant, kind, scope, exact, task, answer, vector, origin, created_ms, expires_ms
                       FROM cache_entries WHERE tenant = $1 AND kind = $2 AND exact = $3 AND withdrawn_ms IS NULL
                           AND expires_ms > $4";
            let row: Option<EntryRow> = on!(&self.read, pool => {
                sqlx::query_as(sql)
                    .bind(tenant.as_str())
                    .bind(kind_name(kind))
                    .bind(&exact[..])
                    .bind(now.0)
                    .fetch_optional(pool)
                    .await
            })?;
            row.map(TryInto::try_into).transpose()
        };
        run.await.map_err(Error::during("read a cache entry by its key"))
    }

    async fn beat_of(&self, exact: &Digest) -> Result<Option<i64>, sqlx::Error> {
        let sql = "SELECT beat FROM cache_flights WHERE exact = $1";
        let beat: Option<(i64,)> =
            on!(&self.read, pool => sqlx::query_as(sql).bind(&exact[..]).fetch_optional(pool).await)?;
        Ok(beat.map(|(beat,)| beat))
    }
}

/// No beat is this one: they begin at 0.
const NEVER: i64 = -1;
