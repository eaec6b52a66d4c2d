-- Workflows: graphs of tasks that any worker carries on. Whoever holds a workflow's row may change what is below it. All times
-- are this database's own. Texts that a tenant wrote are BLOBs of UTF-8.

-- `request` is the client's own id. `open_tasks` have not ended; `slots` more may run; `claimable`: a task is ready and there is a
-- slot, so that looking for work reads one index. What waits longest is begun first, by `rank_ms`.
CREATE TABLE workflows (
    number              INTEGER PRIMARY KEY AUTOINCREMENT,
    id                  BLOB    NOT NULL UNIQUE,
    tenant              TEXT    NOT NULL,
    request             TEXT,
    request_hash        BLOB,
    goal                BLOB,
    options             BLOB    NOT NULL,
    shape               BLOB    NOT NULL,
    state               TEXT    NOT NULL,
    reason              TEXT,
    tasks               INTEGER NOT NULL,
    open_tasks          INTEGER NOT NULL,
    failed_tasks        INTEGER NOT NULL,
    completed           INTEGER NOT NULL,
    slots               INTEGER NOT NULL,
    events              INTEGER NOT NULL,
    monitored           INTEGER NOT NULL,
    announced           INTEGER NOT NULL,
    claimable           INTEGER NOT NULL,
    rank_ms             INTEGER NOT NULL,
    created_ms          INTEGER NOT NULL,
    changed_ms          INTEGER NOT NULL,
    ended_ms            INTEGER,
    deadline_ms         INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX workflows_request ON workflows (tenant, request) WHERE request IS NOT NULL;
CREATE INDEX workflows_tenant ON workflows (tenant, number);
CREATE INDEX workflows_shape ON workflows (tenant, shape, number);
CREATE INDEX workflows_claimable ON workflows (rank_ms, number) WHERE claimable = 1;
CREATE INDEX workflows_deadline ON workflows (deadline_ms) WHERE state = 'running';

-- Apart, because a workflow's row is written anew with each step.
CREATE TABLE workflow_graphs (
    workflow            INTEGER PRIMARY KEY,
    body                BLOB    NOT NULL
) STRICT;

-- `open_needs`: what it depends on and is not completed. `epoch` rises when it is claimed or taken away: who commits names the
-- one it had. `due_ms`: when a task that waits for its next attempt is ready.
CREATE TABLE workflow_steps (
    workflow            INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    is_group            INTEGER NOT NULL,
    rank                INTEGER NOT NULL,
    state               TEXT    NOT NULL,
    open_needs          INTEGER NOT NULL,
    attempts            INTEGER NOT NULL DEFAULT 0,
    losses              INTEGER NOT NULL DEFAULT 0,
    epoch               INTEGER NOT NULL DEFAULT 0,
    worker              TEXT,
    queued_ms           INTEGER,
    started_ms          INTEGER,
    ended_ms            INTEGER,
    due_ms              INTEGER,
    failure             TEXT,
    message             TEXT,
    PRIMARY KEY (workflow, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX workflow_steps_ready ON workflow_steps (workflow, rank DESC, position) WHERE state = 'ready';
CREATE INDEX workflow_steps_worker ON workflow_steps (worker) WHERE state = 'running';
CREATE INDEX workflow_steps_due ON workflow_steps (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE workflow_outputs (
    workflow            INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    body                BLOB    NOT NULL,
    PRIMARY KEY (workflow, position)
) STRICT;

-- One row per attempt.
CREATE TABLE workflow_history (
    workflow            INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    epoch               INTEGER NOT NULL,
    worker              TEXT    NOT NULL,
    queued_ms           INTEGER NOT NULL,
    started_ms          INTEGER NOT NULL,
    ended_ms            INTEGER NOT NULL,
    took_ns             INTEGER,
    outcome             TEXT    NOT NULL,
    failure             TEXT,
    input_bytes         INTEGER,
    output_bytes        INTEGER,
    PRIMARY KEY (workflow, position, epoch)
) STRICT, WITHOUT ROWID;

-- `waits` is 1 until it is published, for those that are to be.
CREATE TABLE workflow_events (
    workflow            INTEGER NOT NULL,
    number              INTEGER NOT NULL,
    at_ms               INTEGER NOT NULL,
    kind                TEXT    NOT NULL,
    position            INTEGER,
    attempt             INTEGER,
    message             TEXT,
    waits               INTEGER NOT NULL,
    PRIMARY KEY (workflow, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX workflow_events_waiting ON workflow_events (workflow, number) WHERE waits = 1;

-- A worker's lease on all that it has claimed.
CREATE TABLE workflow_workers (
    worker              TEXT    NOT NULL PRIMARY KEY,
    until_ms            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who publishes events: one at a time, so that those of a workflow come in order.
CREATE TABLE workflow_publisher (
    one                 INTEGER PRIMARY KEY,
    worker              TEXT    NOT NULL,
    until_ms            INTEGER NOT NULL
) STRICT;

-- Goals that were taken apart: the same goal is not taken apart again.
CREATE TABLE workflow_goals (
    tenant              TEXT    NOT NULL,
    goal                BLOB    NOT NULL,
    body                BLOB    NOT NULL,
    created_ms          INTEGER NOT NULL,
    PRIMARY KEY (tenant, goal)
) STRICT;
