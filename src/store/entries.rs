use std::sync::Arc;

use tracing::warn;

use crate::domain::record::{CacheEntry, EntryId, Sweep};
use crate::domain::{Answer, Tenant, Timestamp};

use super::rows::{EntryRow, entry_bytes, entry_id, kind_name, signed, unsigned, vector_bytes};
use super::{Error, Store, Tx, on};

/// The number of a change to the cache. Every put, new vector and withdrawal takes the next one.
///
/// A reader who has seen number n has seen all before it: numbers are taken under the lock of the one row that counts
/// them, and the lock is held until the commit, so changes become visible in the order of their numbers. (A database
/// sequence would not do: a transaction that took number 7 may commit after one that took 8.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// What happened to the cache, in order of the last change of each entry.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// New, or with a new vector.
    pub put: Vec<CacheEntry>,
    pub withdrawn: Vec<EntryId>,
    /// Where to go on from.
    pub seen: Sequence,
    /// Whether this is all there is; else ask again from `seen`.
    pub complete: bool,
}

/// A lead without a beat for so many milliseconds is that of a worker that died.
const LEFT_OVER: i64 = 60_000;

impl Store {
    /// Puts entries in one transaction. An entry replaces the live one with the same tenant, kind and exact key,
    /// unless that one is newer. Returns the ids that must not be served any more: those replaced, and those of this
    /// batch that came too late.
    pub async fn put_entries(&self, entries: &[CacheEntry]) -> Result<Vec<EntryId>, Error> {
        let puts = entries.iter().map(Put::Entry).collect();
        self.write_all("put cache entries", Vec::new(), Vec::new(), puts).await
    }

    /// Gives entries their vectors. An id that is unknown or withdrawn is passed over.
    pub async fn set_vectors(&self, vectors: &[(EntryId, Arc<[f32]>)]) -> Result<(), Error> {
        let puts = vectors.iter().map(|(id, vector)| Put::Vector(*id, vector)).collect();
        self.write_all("set vectors of cache entries", Vec::new(), Vec::new(), puts).await.map(drop)
    }

    /// A live entry, expired or not.
    pub async fn entry(&self, id: EntryId) -> Result<Option<CacheEntry>, Error> {
        let run = async {
            let sql = "SELECT id, tenant, kind, scope, exact, task, answer, vector, origin, created_ms, expires_ms
                       FROM cache_entries WHERE id = $1 AND withdrawn_ms IS NULL";
            let row: Option<EntryRow> =
                on!(&self.read, pool => sqlx::query_as(sql).bind(entry_bytes(id)).fetch_optional(pool).await)?;
            row.map(TryInto::try_into).transpose()
        };
        run.await.map_err(Error::during("read a cache entry"))
    }

    /// The changes after `seen`, at most `limit`, without what has expired. From the beginning (`Sequence::default()`)
    /// it loads the whole cache; from the last `seen` it brings a copy up to date. Every change appears once, as the
    /// latest state of its entry. An entry that can't be read (a newer worker wrote it) is passed over with a warning.
    pub async fn changes_since(&self, seen: Sequence, now: Timestamp, limit: u32) -> Result<Changes, Error> {
        let run = async {
            // The bytes of what is withdrawn stay where they are.
            let sql = "SELECT seq, withdrawn_ms IS NOT NULL AS withdrawn, id, tenant, kind, scope, exact,
                           CASE WHEN withdrawn_ms IS NULL THEN task ELSE id END AS task,
                           CASE WHEN withdrawn_ms IS NULL THEN answer ELSE id END AS answer,
                           CASE WHEN withdrawn_ms IS NULL THEN vector END AS vector,
                           origin, created_ms, expires_ms
                       FROM cache_entries WHERE seq > $1 AND expires_ms > $2 ORDER BY seq LIMIT $3";
            let rows: Vec<ChangeRow> = on!(&self.read, pool => {
                sqlx::query_as(sql).bind(signed(seen.0)).bind(now.0).bind(i64::from(limit)).fetch_all(pool).await
            })?;
            let mut changes = Changes { seen, complete: rows.len() < limit as usize, ..Changes::default() };
            for row in rows {
                changes.seen = Sequence(unsigned(row.seq));
                let id = entry_id(&row.entry.id)?;
                if row.withdrawn {
                    changes.withdrawn.push(id);
                    continue;
                }
                match CacheEntry::try_from(row.entry) {
                    Ok(entry) => changes.put.push(entry),
                    Err(error) => warn!(entry.id = %id.0, %error, "a cache entry can't be read and is passed over"),
                }
            }
            Ok(changes)
        };
        run.await.map_err(Error::during("read changes of the cache"))
    }

    /// Withdraws those of a tenant's live entries that were made until then and that a sweep takes, among the next `limit`
    /// after `from`. Returns which, and where to go on from; `None` when there are no more.
    pub async fn sweep(
        &self,
        tenant: &Tenant,
        until: Timestamp,
        what: &Sweep,
        from: Sequence,
        now: Timestamp,
        limit: u32,
    ) -> Result<(Vec<EntryId>, Option<Sequence>), Error> {
        let run = async {
            let sql = "SELECT seq, id, answer FROM cache_entries
                       WHERE seq > $1 AND tenant = $2 AND created_ms <= $3 AND withdrawn_ms IS NULL ORDER BY seq LIMIT $4";
            let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = on!(&self.read, pool => {
                sqlx::query_as(sql)
                    .bind(signed(from.0))
                    .bind(tenant.as_str())
                    .bind(until.0)
                    .bind(i64::from(limit))
                    .fetch_all(pool)
                    .await
            })?;
            let next = rows.last().map(|(seq, ..)| Sequence(unsigned(*seq)));
            let mut taken = Vec::new();
            for (_, id, answer) in &rows {
                // What can't be read can't be served either.
                if serde_json::from_slice::<Answer>(answer).is_ok_and(|answer| what.takes(&answer)) {
                    taken.push(entry_id(id)?);
                }
            }
            let mut tx = self.begin().await?;
            let taken = withdraw(&mut tx, &taken, now).await?;
            tx.commit().await?;
            Ok((taken, next))
        };
        run.await.map_err(Error::during("sweep the cache"))
    }

    /// Withdraws entries for good. Returns those that were live.
    pub async fn withdraw(&self, ids: &[EntryId], now: Timestamp) -> Result<Vec<EntryId>, Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let withdrawn = withdraw(&mut tx, ids, now).await?;
            tx.commit().await?;
            Ok(withdrawn)
        };
        run.await.map_err(Error::during("withdraw cache entries"))
    }

    /// Deletes what nobody can miss: entries past their time (live or withdrawn: until then a withdrawal must be
    /// there to be told to every worker) and replies kept long enough. Returns how many entries and replies.
    pub async fn purge_expired(&self, now: Timestamp) -> Result<(u64, u64), Error> {
        let run = async {
            let mut tx = self.begin().await?;
            let entries = "DELETE FROM cache_entries WHERE expires_ms <= $1";
            let claims = "DELETE FROM claims WHERE until_ms <= $1";
            let flights = "DELETE FROM cache_flights WHERE at_ms <= $1";
            let kept = now.0.saturating_sub(i64::try_from(self.replies_kept.as_millis()).unwrap_or(i64::MAX));
            let purged = on!(&mut tx, tx => {
                sqlx::query(flights).bind(now.0.saturating_sub(LEFT_OVER)).execute(&mut **tx).await?;
                (
                sqlx::query(entries).bind(now.0).execute(&mut **tx).await?.rows_affected(),
                sqlx::query(claims).bind(kept).execute(&mut **tx).await?.rows_affected(),
                )
            });
            tx.commit().await?;
            Ok(purged)
        };
        run.await.map_err(Error::during("purge what has expired"))
    }
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    seq: i64,
    withdrawn: bool,
    #[sqlx(flatten)]
    entry: EntryRow,
}

pub(super) enum Put<'a> {
    Entry(&'a CacheEntry),
    Vector(EntryId, &'a [f32]),
    Withdrawal(&'a [EntryId], Timestamp),
}

pub(super) async fn put(tx: &mut Tx, puts: &[Put<'_>]) -> Result<Vec<EntryId>, sqlx::Error> {
    if puts.is_empty() {
        return Ok(Vec::new());
    }
    let mut gone = Vec::new();
    let mut seq = lock_sequence(tx).await?;
    for put in puts {
        match put {
            Put::Entry(entry) => put_one(tx, entry, &mut seq, &mut gone).await?,
            Put::Vector(id, vector) => {
                let sql = "UPDATE cache_entries SET vector = $2, seq = $3 WHERE id = $1 AND withdrawn_ms IS NULL";
                seq += on!(&mut *tx, tx => {
                    let query = sqlx::query(sql).bind(entry_bytes(*id)).bind(vector_bytes(vector)).bind(seq + 1);
                    query.execute(&mut **tx).await?.rows_affected()
                })
                .min(1) as i64;
            }
            Put::Withdrawal(ids, now) => {
                for id in *ids {
                    seq += i64::from(withdraw_one(tx, *id, *now, seq + 1).await?);
                }
            }
        }
    }
    set_sequence(tx, seq).await?;
    Ok(gone)
}

pub(super) async fn withdraw(tx: &mut Tx, ids: &[EntryId], now: Timestamp) -> Result<Vec<EntryId>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut withdrawn = Vec::new();
    let mut seq = lock_sequence(tx).await?;
    for id in ids {
        if withdraw_one(tx, *id, now, seq + 1).await? {
            seq += 1;
            withdrawn.push(*id);
        }
    }
    set_sequence(tx, seq).await?;
    Ok(withdrawn)
}

async fn put_one(tx: &mut Tx, entry: &CacheEntry, seq: &mut i64, gone: &mut Vec<EntryId>) -> Result<(), sqlx::Error> {
    let sql = "SELECT id, created_ms FROM cache_entries
               WHERE id = $1 OR (tenant = $2 AND kind = $3 AND exact = $4 AND withdrawn_ms IS NULL)";
    let there: Vec<(Vec<u8>, i64)> = on!(&mut *tx, tx => {
        sqlx::query_as(sql)
            .bind(entry_bytes(entry.id))
            .bind(entry.tenant.as_str())
            .bind(kind_name(entry.kind))
            .bind(&entry.exact[..])
            .fetch_all(&mut **tx)
            .await
    })?;
    // Written before, and perhaps withdrawn since.
    if there.iter().any(|(id, _)| id.as_slice() == entry.id.0.as_bytes()) {
        return Ok(());
    }
    for (id, created) in there {
        if created > entry.created.0 {
            gone.push(entry.id);
            return Ok(());
        }
        let old = entry_id(&id)?;
        *seq += 1;
        withdraw_one(tx, old, entry.created, *seq).await?;
        gone.push(old);
    }
    *seq += 1;
    let answer = serde_json::to_vec(&entry.answer).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let sql = "INSERT INTO cache_entries (id, tenant, kind, scope, exact, task, answer, vector, origin, created_ms,
               expires_ms, seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    on!(tx, tx => {
        sqlx::query(sql)
            .bind(entry_bytes(entry.id))
            .bind(entry.tenant.as_str())
            .bind(kind_name(entry.kind))
            .bind(&entry.scope[..])
            .bind(&entry.exact[..])
            .bind(entry.task.as_bytes())
            .bind(answer)
            .bind(entry.vector.as_deref().map(vector_bytes))
            .bind(entry.origin.as_str())
            .bind(entry.created.0)
            .bind(entry.expires.0)
            .bind(*seq)
            .execute(&mut **tx)
            .await
            .map(drop)
    })
}

async fn withdraw_one(tx: &mut Tx, id: EntryId, now: Timestamp, seq: i64) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE cache_entries SET withdrawn_ms = $2, seq = $3 WHERE id = $1 AND withdrawn_ms IS NULL";
    let rows = on!(tx, tx => {
        let query = sqlx::query(sql).bind(entry_bytes(id)).bind(now.0).bind(seq);
        query.execute(&mut **tx).await?.rows_affected()
    });
    Ok(rows == 1)
}

/// Keeps every other writer of the cache out until the commit; so puts of one key never race, either.
async fn lock_sequence(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    let sql = "UPDATE cache_sequence SET value = value RETURNING value";
    let (value,): (i64,) = on!(tx, tx => sqlx::query_as(sql).fetch_one(&mut **tx).await)?;
    Ok(value)
}

async fn set_sequence(tx: &mut Tx, value: i64) -> Result<(), sqlx::Error> {
    let sql = "UPDATE cache_sequence SET value = $1";
    on!(tx, tx => sqlx::query(sql).bind(value).execute(&mut **tx).await.map(drop))
}
