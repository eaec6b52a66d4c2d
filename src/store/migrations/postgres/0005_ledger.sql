-- Every attempt at asking a model, and what was paid for it. What a budget lost with a worker that died is one, too: its id
-- is that of the lease.
CREATE TABLE model_attempts (
    id                  BYTEA NOT NULL PRIMARY KEY,
    tenant              TEXT COLLATE "C" NOT NULL,
    at_ms               BIGINT NOT NULL,
    correlation_id      TEXT COLLATE "C" NOT NULL,
    provider            TEXT COLLATE "C" NOT NULL,
    model               TEXT COLLATE "C" NOT NULL,
    outcome             TEXT COLLATE "C" NOT NULL,
    sent                BOOLEAN NOT NULL,
    input_tokens        BIGINT,
    output_tokens       BIGINT,
    cached_tokens       BIGINT,
    cache_write_tokens  BIGINT,
    reasoning_tokens    BIGINT,
    -- NULL where nobody knows; then it counts as the worst.
    cost_nanos          BIGINT,
    worst_nanos         BIGINT NOT NULL,
    time_ns             BIGINT NOT NULL,
    first_token_ns      BIGINT
);

CREATE INDEX model_attempts_age ON model_attempts (tenant, at_ms);

-- Their sums by day (days since 1970), written in the same transaction; deleting old attempts loses none of them. Money is in
-- halves of 32 bits, as in execution_days.
CREATE TABLE model_days (
    tenant              TEXT COLLATE "C" NOT NULL,
    day                 BIGINT NOT NULL,
    provider            TEXT COLLATE "C" NOT NULL,
    model               TEXT COLLATE "C" NOT NULL,
    outcome             TEXT COLLATE "C" NOT NULL,
    -- From before the tenant's statistics were reset: budgets count it, statistics do not.
    past                BOOLEAN NOT NULL DEFAULT FALSE,
    attempts            BIGINT NOT NULL,
    sent                BIGINT NOT NULL,
    cost_high           BIGINT NOT NULL,
    cost_low            BIGINT NOT NULL,
    unknown             BIGINT NOT NULL,
    unknown_high        BIGINT NOT NULL,
    unknown_low         BIGINT NOT NULL,
    input               BIGINT NOT NULL,
    output              BIGINT NOT NULL,
    cached              BIGINT NOT NULL,
    cache_write         BIGINT NOT NULL,
    reasoning           BIGINT NOT NULL,
    time_us             BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, provider, model, outcome, past)
);

-- When a tenant's statistics were reset.
CREATE TABLE model_resets (
    tenant              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    at_ms               BIGINT NOT NULL
);

-- What is taken of a budget: spent, or leased to a worker. The tenant is empty for all tenants together, the day is -1 for
-- all days together. A row is there from when a budget was first asked for, and begins with what was spent before.
CREATE TABLE budgets (
    tenant              TEXT COLLATE "C" NOT NULL,
    day                 BIGINT NOT NULL,
    taken_nanos         BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
);

-- What workers have of the budgets and have not accounted for. Under zero is what cost more than it could.
CREATE TABLE budget_leases (
    id                  BYTEA NOT NULL PRIMARY KEY,
    tenant              TEXT COLLATE "C" NOT NULL,
    day                 BIGINT NOT NULL,
    amount_nanos        BIGINT NOT NULL,
    until_ms            BIGINT NOT NULL
);

CREATE INDEX budget_leases_until ON budget_leases (until_ms);
CREATE INDEX budget_leases_tenant ON budget_leases (tenant, day);
