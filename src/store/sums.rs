//! Sums of rows by day, as the ledger and the figures of executions keep them. Amounts are in halves of 32 bits: SQLite fails
//! where a sum overflows, and one absurd row must not take a tenant's figures away.

pub(super) const DAY_MS: i64 = 24 * 3600 * 1000;

pub(super) fn split(value: i64) -> [i64; 2] {
    [value >> 32, value & 0xffff_ffff]
}

pub(super) fn saturated(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

/// The end of an INSERT: where there is such a row, its sums grow. Both lists are as in SQL, `a, b`.
pub(super) fn added(table: &str, key: &str, sums: &str) -> String {
    let grown = |sum: &str| format!("{sum} = {table}.{sum} + excluded.{sum}");
    let grown: Vec<String> = sums.split(", ").map(grown).collect();
    format!("ON CONFLICT ({key}) DO UPDATE SET {}", grown.join(", "))
}
