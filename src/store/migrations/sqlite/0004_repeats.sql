-- Exact hits on one entry that were written together: the first has a row in `executions`, the others only their
-- correlation ids here, each between two line feeds. Their sums are in `execution_days`. The times are those in the ids.
CREATE TABLE repeats (
    correlation_id      TEXT    NOT NULL PRIMARY KEY,
    tenant              TEXT    NOT NULL,
    from_ms             INTEGER NOT NULL,
    to_ms               INTEGER NOT NULL,
    ids                 BLOB    NOT NULL
) STRICT;

CREATE INDEX repeats_time ON repeats (tenant, from_ms);
