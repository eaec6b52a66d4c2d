-- Workflows: graphs of tasks that any worker carries on. Whoever holds a workflow's row may change what is below it. All times
-- are this database's own. Texts that a tenant wrote are BYTEAs of UTF-8.

-- `request` is the client's own id. `open_tasks` have not ended; `slots` more may run; `claimable`: a task is ready and there is a
-- slot, so that looking for work reads one index. What waits longest is begun first, by `rank_ms`.
CREATE TABLE workflows (
    number              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                  BYTEA    NOT NULL UNIQUE,
    tenant              TEXT COLLATE "C"    NOT NULL,
    request             TEXT COLLATE "C",
    request_hash        BYTEA,
    goal                BYTEA,
    options             BYTEA    NOT NULL,
    shape               BYTEA    NOT NULL,
    state               TEXT COLLATE "C"    NOT NULL,
    reason              TEXT COLLATE "C",
    tasks               BIGINT NOT NULL,
    open_tasks          BIGINT NOT NULL,
    failed_tasks        BIGINT NOT NULL,
    completed           BIGINT NOT NULL,
    slots               BIGINT NOT NULL,
    events              BIGINT NOT NULL,
    monitored           BIGINT NOT NULL,
    announced           BIGINT NOT NULL,
    claimable           BIGINT NOT NULL,
    rank_ms             BIGINT NOT NULL,
    created_ms          BIGINT NOT NULL,
    changed_ms          BIGINT NOT NULL,
    ended_ms            BIGINT,
    deadline_ms         BIGINT NOT NULL
);

CREATE UNIQUE INDEX workflows_request ON workflows (tenant, request) WHERE request IS NOT NULL;
CREATE INDEX workflows_tenant ON workflows (tenant, number);
CREATE INDEX workflows_shape ON workflows (tenant, shape, number);
CREATE INDEX workflows_claimable ON workflows (rank_ms, number) WHERE claimable = 1;
CREATE INDEX workflows_deadline ON workflows (deadline_ms) WHERE state = 'running';

-- Apart, because a workflow's row is written anew with each step.
CREATE TABLE workflow_graphs (
    workflow            BIGINT PRIMARY KEY,
    body                BYTEA    NOT NULL
);

-- `open_needs`: what it depends on and is not completed. `epoch` rises when it is claimed or taken away: who commits names the
-- one it had. `due_ms`: when a task that waits for its next attempt is ready.
CREATE TABLE workflow_steps (
    workflow            BIGINT NOT NULL,
    position            BIGINT NOT NULL,
    is_group            BIGINT NOT NULL,
    rank                BIGINT NOT NULL,
    state               TEXT COLLATE "C"    NOT NULL,
    open_needs          BIGINT NOT NULL,
    attempts            BIGINT NOT NULL DEFAULT 0,
    losses              BIGINT NOT NULL DEFAULT 0,
    epoch               BIGINT NOT NULL DEFAULT 0,
    worker              TEXT COLLATE "C",
    queued_ms           BIGINT,
    started_ms          BIGINT,
    ended_ms            BIGINT,
    due_ms              BIGINT,
    failure             TEXT COLLATE "C",
    message             TEXT COLLATE "C",
    PRIMARY KEY (workflow, position)
);

CREATE INDEX workflow_steps_ready ON workflow_steps (workflow, rank DESC, position) WHERE state = 'ready';
CREATE INDEX workflow_steps_worker ON workflow_steps (worker) WHERE state = 'running';
CREATE INDEX workflow_steps_due ON workflow_steps (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE workflow_outputs (
    workflow            BIGINT NOT NULL,
    position            BIGINT NOT NULL,
    body                BYTEA    NOT NULL,
    PRIMARY KEY (workflow, position)
);

-- One row per attempt.
CREATE TABLE workflow_history (
    workflow            BIGINT NOT NULL,
    position            BIGINT NOT NULL,
    epoch               BIGINT NOT NULL,
    worker              TEXT COLLATE "C"    NOT NULL,
    queued_ms           BIGINT NOT NULL,
    started_ms          BIGINT NOT NULL,
    ended_ms            BIGINT NOT NULL,
    took_ns             BIGINT,
    outcome             TEXT COLLATE "C"    NOT NULL,
    failure             TEXT COLLATE "C",
    input_bytes         BIGINT,
    output_bytes        BIGINT,
    PRIMARY KEY (workflow, position, epoch)
);

-- `waits` is 1 until it is published, for those that are to be.
CREATE TABLE workflow_events (
    workflow            BIGINT NOT NULL,
    number              BIGINT NOT NULL,
    at_ms               BIGINT NOT NULL,
    kind                TEXT COLLATE "C"    NOT NULL,
    position            BIGINT,
    attempt             BIGINT,
    message             TEXT COLLATE "C",
    waits               BIGINT NOT NULL,
    PRIMARY KEY (workflow, number)
);

CREATE INDEX workflow_events_waiting ON workflow_events (workflow, number) WHERE waits = 1;

-- A worker's lease on all that it has claimed.
CREATE TABLE workflow_workers (
    worker              TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    until_ms            BIGINT NOT NULL
);

-- Who publishes events: one at a time, so that those of a workflow come in order.
CREATE TABLE workflow_publisher (
    one                 BIGINT PRIMARY KEY,
    worker              TEXT COLLATE "C"    NOT NULL,
    until_ms            BIGINT NOT NULL
);

-- Goals that were taken apart: the same goal is not taken apart again.
CREATE TABLE workflow_goals (
    tenant              TEXT COLLATE "C"    NOT NULL,
    goal                BYTEA    NOT NULL,
    body                BYTEA    NOT NULL,
    created_ms          BIGINT NOT NULL,
    PRIMARY KEY (tenant, goal)
);
