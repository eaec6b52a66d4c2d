-- Texts that a tenant or a model wrote are BLOBs of UTF-8, since PostgreSQL refuses NUL in TEXT.
-- Times are milliseconds since 1970 (`_ms`) or nanoseconds of duration (`_ns`), money is nano-dollars.

-- `time_ns` is the request's, `made_ns` that of the rules or the model alone. `entry` and `origin` are the stored answer that
-- served it and the request that was made for; `scored`: a verdict has moved the scores of its edge, which happens once.
CREATE TABLE executions (
    correlation_id      TEXT    NOT NULL,
    part                TEXT    NOT NULL,
    tenant              TEXT    NOT NULL,
    at_ms               INTEGER NOT NULL,
    task_key            BLOB    NOT NULL,
    task_type           TEXT    NOT NULL,
    language            TEXT    NOT NULL,
    method              TEXT    NOT NULL,
    template            TEXT,
    model               TEXT,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cost_nanos          INTEGER NOT NULL,
    all_model_nanos     INTEGER,
    quality             REAL,
    success             INTEGER NOT NULL,
    time_ns             INTEGER NOT NULL,
    made_ns             INTEGER NOT NULL,
    tier                TEXT,
    entry               BLOB,
    origin              TEXT,
    scored              INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (correlation_id, part)
) STRICT;

CREATE INDEX executions_requests ON executions (tenant, at_ms) WHERE part = '';
CREATE INDEX executions_measured ON executions (at_ms) WHERE quality IS NOT NULL;

-- One row per edge; uses = 0 is an edge that is locked for its first sample.
CREATE TABLE template_edges (
    task_type           TEXT    NOT NULL,
    language            TEXT    NOT NULL,
    template            TEXT    NOT NULL,
    uses                INTEGER NOT NULL,
    success             REAL    NOT NULL,
    quality             REAL,
    time_ms             REAL    NOT NULL,
    last_used_ms        INTEGER NOT NULL,
    PRIMARY KEY (task_type, language, template)
) STRICT;

-- The verdict is NULL only inside the transaction that gives the first one.
CREATE TABLE feedback (
    tenant              TEXT    NOT NULL,
    correlation_id      TEXT    NOT NULL,
    verdict             TEXT,
    comment             BLOB,
    at_ms               INTEGER NOT NULL,
    PRIMARY KEY (tenant, correlation_id)
) STRICT;

-- One row per verdict, so that taking one back leaves those of others standing.
CREATE TABLE template_blocks (
    tenant              TEXT    NOT NULL,
    task_key            BLOB    NOT NULL,
    template            TEXT    NOT NULL,
    correlation_id      TEXT    NOT NULL,
    PRIMARY KEY (tenant, task_key, template, correlation_id)
) STRICT;

CREATE INDEX template_blocks_verdict ON template_blocks (tenant, correlation_id);

CREATE TABLE cache_entries (
    id                  BLOB    NOT NULL PRIMARY KEY,
    tenant              TEXT    NOT NULL,
    kind                TEXT    NOT NULL,
    scope               BLOB    NOT NULL,
    exact               BLOB    NOT NULL,
    task                BLOB    NOT NULL,
    answer              BLOB    NOT NULL,
    vector              BLOB,
    origin              TEXT    NOT NULL,
    created_ms          INTEGER NOT NULL,
    expires_ms          INTEGER NOT NULL,
    withdrawn_ms        INTEGER,
    seq                 INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX cache_entries_live ON cache_entries (tenant, kind, exact) WHERE withdrawn_ms IS NULL;
CREATE UNIQUE INDEX cache_entries_seq ON cache_entries (seq);
CREATE INDEX cache_entries_origin ON cache_entries (tenant, origin);
CREATE INDEX cache_entries_expiry ON cache_entries (expires_ms);

-- The number of the last change to the cache. Its one row is also the lock under which the cache is changed.
CREATE TABLE cache_sequence (value INTEGER NOT NULL) STRICT;
INSERT INTO cache_sequence (value) VALUES (0);

CREATE TABLE claims (
    tenant              TEXT    NOT NULL,
    id                  TEXT    NOT NULL,
    body_hash           BLOB    NOT NULL,
    holder              TEXT    NOT NULL,
    until_ms            INTEGER NOT NULL,
    reply               BLOB,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX claims_until ON claims (until_ms);
