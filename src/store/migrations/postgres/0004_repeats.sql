-- Exact hits on one entry that were written together: the first has a row in `executions`, the others only their
-- correlation ids here, each between two line feeds. Their sums are in `execution_days`. The times are those in the ids.
CREATE TABLE repeats (
    correlation_id      TEXT COLLATE "C" PRIMARY KEY,
    tenant              TEXT COLLATE "C" NOT NULL,
    from_ms             BIGINT NOT NULL,
    to_ms               BIGINT NOT NULL,
    ids                 BYTEA NOT NULL
);

CREATE INDEX repeats_time ON repeats (tenant, from_ms);
