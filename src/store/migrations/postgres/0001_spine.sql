-- Texts that a tenant or a model wrote are BYTEA of UTF-8, since PostgreSQL refuses NUL in TEXT.
-- The collation is that of bytes, so that an order is the same as in SQLite.
-- Times are milliseconds since 1970 (`_ms`) or nanoseconds of duration (`_ns`), money is nano-dollars.

-- `time_ns` is the request's, `made_ns` that of the rules or the model alone. `entry` and `origin` are the stored answer that
-- served it and the request that was made for; `scored`: a verdict has moved the scores of its edge, which happens once.
CREATE TABLE executions (
    correlation_id      TEXT COLLATE "C"    NOT NULL,
    part                TEXT COLLATE "C"    NOT NULL,
    tenant              TEXT COLLATE "C"    NOT NULL,
    at_ms               BIGINT NOT NULL,
    task_key            BYTEA    NOT NULL,
    task_type           TEXT COLLATE "C"    NOT NULL,
    language            TEXT COLLATE "C"    NOT NULL,
    method              TEXT COLLATE "C"    NOT NULL,
    template            TEXT COLLATE "C",
    model               TEXT COLLATE "C",
    input_tokens        BIGINT NOT NULL,
    output_tokens       BIGINT NOT NULL,
    cost_nanos          BIGINT NOT NULL,
    all_model_nanos     BIGINT,
    quality             DOUBLE PRECISION,
    success             BOOLEAN NOT NULL,
    time_ns             BIGINT NOT NULL,
    made_ns             BIGINT NOT NULL,
    tier                TEXT COLLATE "C",
    entry               BYTEA,
    origin              TEXT COLLATE "C",
    scored              BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (correlation_id, part)
);

CREATE INDEX executions_requests ON executions (tenant, at_ms) WHERE part = '';
CREATE INDEX executions_measured ON executions (at_ms) WHERE quality IS NOT NULL;

-- One row per edge; uses = 0 is an edge that is locked for its first sample.
CREATE TABLE template_edges (
    task_type           TEXT COLLATE "C"    NOT NULL,
    language            TEXT COLLATE "C"    NOT NULL,
    template            TEXT COLLATE "C"    NOT NULL,
    uses                BIGINT NOT NULL,
    success             DOUBLE PRECISION    NOT NULL,
    quality             DOUBLE PRECISION,
    time_ms             DOUBLE PRECISION    NOT NULL,
    last_used_ms        BIGINT NOT NULL,
    PRIMARY KEY (task_type, language, template)
);

-- The verdict is NULL only inside the transaction that gives the first one.
CREATE TABLE feedback (
    tenant              TEXT COLLATE "C"    NOT NULL,
    correlation_id      TEXT COLLATE "C"    NOT NULL,
    verdict             TEXT COLLATE "C",
    comment             BYTEA,
    at_ms               BIGINT NOT NULL,
    PRIMARY KEY (tenant, correlation_id)
);

-- One row per verdict, so that taking one back leaves those of others standing.
CREATE TABLE template_blocks (
    tenant              TEXT COLLATE "C"    NOT NULL,
    task_key            BYTEA    NOT NULL,
    template            TEXT COLLATE "C"    NOT NULL,
    correlation_id      TEXT COLLATE "C"    NOT NULL,
    PRIMARY KEY (tenant, task_key, template, correlation_id)
);

CREATE INDEX template_blocks_verdict ON template_blocks (tenant, correlation_id);

CREATE TABLE cache_entries (
    id                  BYTEA    NOT NULL PRIMARY KEY,
    tenant              TEXT COLLATE "C"    NOT NULL,
    kind                TEXT COLLATE "C"    NOT NULL,
    scope               BYTEA    NOT NULL,
    exact               BYTEA    NOT NULL,
    task                BYTEA    NOT NULL,
    answer              BYTEA    NOT NULL,
    vector              BYTEA,
    origin              TEXT COLLATE "C"    NOT NULL,
    created_ms          BIGINT NOT NULL,
    expires_ms          BIGINT NOT NULL,
    withdrawn_ms        BIGINT,
    seq                 BIGINT NOT NULL
);

CREATE UNIQUE INDEX cache_entries_live ON cache_entries (tenant, kind, exact) WHERE withdrawn_ms IS NULL;
CREATE UNIQUE INDEX cache_entries_seq ON cache_entries (seq);
CREATE INDEX cache_entries_origin ON cache_entries (tenant, origin);
CREATE INDEX cache_entries_expiry ON cache_entries (expires_ms);

-- The number of the last change to the cache. Its one row is also the lock under which the cache is changed.
CREATE TABLE cache_sequence (value BIGINT NOT NULL);
INSERT INTO cache_sequence (value) VALUES (0);

CREATE TABLE claims (
    tenant              TEXT COLLATE "C"    NOT NULL,
    id                  TEXT COLLATE "C"    NOT NULL,
    body_hash           BYTEA    NOT NULL,
    holder              TEXT COLLATE "C"    NOT NULL,
    until_ms            BIGINT NOT NULL,
    reply               BYTEA,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX claims_until ON claims (until_ms);
