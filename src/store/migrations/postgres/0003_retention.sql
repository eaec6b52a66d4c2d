-- Sums of requests by day, so that a tenant's figures cost no look at all its executions, and deleting old executions
-- loses none of them. Sums are kept in halves of 32 bits: one absurd row must not make them overflow.
CREATE TABLE execution_days (
    tenant              TEXT COLLATE "C" NOT NULL,
    day                 BIGINT NOT NULL,
    method              TEXT COLLATE "C" NOT NULL,
    -- Empty where none served.
    template            TEXT COLLATE "C" NOT NULL,
    executions          BIGINT NOT NULL,
    successes           BIGINT NOT NULL,
    cost_high           BIGINT NOT NULL,
    cost_low            BIGINT NOT NULL,
    priced              BIGINT NOT NULL,
    all_model_high      BIGINT NOT NULL,
    all_model_low       BIGINT NOT NULL,
    input_high          BIGINT NOT NULL,
    input_low           BIGINT NOT NULL,
    output_high         BIGINT NOT NULL,
    output_low          BIGINT NOT NULL,
    time_high           BIGINT NOT NULL,
    time_low            BIGINT NOT NULL,
    measured            BIGINT NOT NULL,
    quality             DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, day, method, template)
);

-- Whether a request stands in the sums. FALSE for what was there before and for what an older worker still writes: it is
-- summed up where it stands until a worker counts it in.
ALTER TABLE executions ADD COLUMN counted BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX executions_uncounted ON executions (tenant) WHERE part = '' AND NOT counted;

CREATE INDEX feedback_age ON feedback (tenant, at_ms);
CREATE INDEX cache_entries_tenant ON cache_entries (tenant, created_ms);
CREATE INDEX cache_entries_withdrawn ON cache_entries (withdrawn_ms) WHERE withdrawn_ms IS NOT NULL;
