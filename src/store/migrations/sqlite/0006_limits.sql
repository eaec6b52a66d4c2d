-- What may be asked of a model in a minute, and what was. One row of `limit_uses` is what a worker used at about one
-- moment (its own number for it is `slot`): it counts until `until_ms`. One row of `limit_shares` is a worker: what it
-- has leased and not used counts until `until_ms`; what its callers wait for is `wants_…`, the first of them for `head_…`.
-- All times are this database's own.
CREATE TABLE limit_uses (
    model               TEXT    NOT NULL,
    worker              TEXT    NOT NULL,
    slot                INTEGER NOT NULL,
    until_ms            INTEGER NOT NULL,
    requests            INTEGER NOT NULL,
    tokens              INTEGER NOT NULL,
    PRIMARY KEY (model, worker, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE limit_shares (
    model               TEXT    NOT NULL,
    worker              TEXT    NOT NULL,
    held_requests       INTEGER NOT NULL,
    held_tokens         INTEGER NOT NULL,
    head_requests       INTEGER NOT NULL,
    head_tokens         INTEGER NOT NULL,
    wants_requests      INTEGER NOT NULL,
    wants_tokens        INTEGER NOT NULL,
    since_ms            INTEGER NOT NULL,
    seen_ms             INTEGER NOT NULL,
    until_ms            INTEGER NOT NULL,
    PRIMARY KEY (model, worker)
) STRICT, WITHOUT ROWID;
