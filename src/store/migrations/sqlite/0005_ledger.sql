-- Every attempt at asking a model, and what was paid for it. What a budget lost with a worker that died is one, too: its id
-- is that of the lease.
CREATE TABLE model_attempts (
    id                  BLOB    NOT NULL PRIMARY KEY,
    tenant              TEXT    NOT NULL,
    at_ms               INTEGER NOT NULL,
    correlation_id      TEXT    NOT NULL,
    provider            TEXT    NOT NULL,
    model               TEXT    NOT NULL,
    outcome             TEXT    NOT NULL,
    sent                INTEGER NOT NULL,
    input_tokens        INTEGER,
    output_tokens       INTEGER,
    cached_tokens       INTEGER,
    cache_write_tokens  INTEGER,
    reasoning_tokens    INTEGER,
    -- NULL where nobody knows; then it counts as the worst.
    cost_nanos          INTEGER,
    worst_nanos         INTEGER NOT NULL,
    time_ns             INTEGER NOT NULL,
    first_token_ns      INTEGER
) STRICT;

CREATE INDEX model_attempts_age ON model_attempts (tenant, at_ms);

-- Their sums by day (days since 1970), written in the same transaction; deleting old attempts loses none of them. Money is in
-- halves of 32 bits, as in execution_days.
CREATE TABLE model_days (
    tenant              TEXT    NOT NULL,
    day                 INTEGER NOT NULL,
    provider            TEXT    NOT NULL,
    model               TEXT    NOT NULL,
    outcome             TEXT    NOT NULL,
    -- From before the tenant's statistics were reset: budgets count it, statistics do not.
    past                INTEGER NOT NULL DEFAULT 0,
    attempts            INTEGER NOT NULL,
    sent                INTEGER NOT NULL,
    cost_high           INTEGER NOT NULL,
    cost_low            INTEGER NOT NULL,
    unknown             INTEGER NOT NULL,
    unknown_high        INTEGER NOT NULL,
    unknown_low         INTEGER NOT NULL,
    input               INTEGER NOT NULL,
    output              INTEGER NOT NULL,
    cached              INTEGER NOT NULL,
    cache_write         INTEGER NOT NULL,
    reasoning           INTEGER NOT NULL,
    time_us             INTEGER NOT NULL,
    PRIMARY KEY (tenant, day, provider, model, outcome, past)
) STRICT;

-- When a tenant's statistics were reset.
CREATE TABLE model_resets (
    tenant              TEXT    NOT NULL PRIMARY KEY,
    at_ms               INTEGER NOT NULL
) STRICT;

-- What is taken of a budget: spent, or leased to a worker. The tenant is empty for all tenants together, the day is -1 for
-- all days together. A row is there from when a budget was first asked for, and begins with what was spent before.
CREATE TABLE budgets (
    tenant              TEXT    NOT NULL,
    day                 INTEGER NOT NULL,
    taken_nanos         INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT;

-- What workers have of the budgets and have not accounted for. Under zero is what cost more than it could.
CREATE TABLE budget_leases (
    id                  BLOB    NOT NULL PRIMARY KEY,
    tenant              TEXT    NOT NULL,
    day                 INTEGER NOT NULL,
    amount_nanos        INTEGER NOT NULL,
    until_ms            INTEGER NOT NULL
) STRICT;

CREATE INDEX budget_leases_until ON budget_leases (until_ms);
CREATE INDEX budget_leases_tenant ON budget_leases (tenant, day);
