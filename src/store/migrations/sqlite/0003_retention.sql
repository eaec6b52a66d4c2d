-- Sums of requests by day, so that a tenant's figures cost no look at all its executions, and deleting old executions
-- loses none of them. Sums are kept in halves of 32 bits: one absurd row must not make them overflow.
CREATE TABLE execution_days (
    tenant              TEXT NOT NULL,
    day                 INTEGER NOT NULL,
    method              TEXT NOT NULL,
    -- Empty where none served.
    template            TEXT NOT NULL,
    executions          INTEGER NOT NULL,
    successes           INTEGER NOT NULL,
    cost_high           INTEGER NOT NULL,
    cost_low            INTEGER NOT NULL,
    priced              INTEGER NOT NULL,
    all_model_high      INTEGER NOT NULL,
    all_model_low       INTEGER NOT NULL,
    input_high          INTEGER NOT NULL,
    input_low           INTEGER NOT NULL,
    output_high         INTEGER NOT NULL,
    output_low          INTEGER NOT NULL,
    time_high           INTEGER NOT NULL,
    time_low            INTEGER NOT NULL,
    measured            INTEGER NOT NULL,
    quality             REAL NOT NULL,
    PRIMARY KEY (tenant, day, method, template)
) STRICT;

-- Whether a request stands in the sums. FALSE for what was there before and for what an older worker still writes: it is
-- summed up where it stands until a worker counts it in.
ALTER TABLE executions ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX executions_uncounted ON executions (tenant) WHERE part = '' AND NOT counted;

CREATE INDEX feedback_age ON feedback (tenant, at_ms);
CREATE INDEX cache_entries_tenant ON cache_entries (tenant, created_ms);
CREATE INDEX cache_entries_withdrawn ON cache_entries (withdrawn_ms) WHERE withdrawn_ms IS NOT NULL;
