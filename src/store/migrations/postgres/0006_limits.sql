-- What may be asked of a model in a minute, and what was. One row of `limit_uses` is what a worker used at about one
-- moment (its own number for it is `slot`): it counts until `until_ms`. One row of `limit_shares` is a worker: what it
-- has leased and not used counts until `until_ms`; what its callers wait for is `wants_…`, the first of them for `head_…`.
-- All times are this database's own.
CREATE TABLE limit_uses (
    model               TEXT COLLATE "C" NOT NULL,
    worker              TEXT COLLATE "C" NOT NULL,
    slot                BIGINT NOT NULL,
    until_ms            BIGINT NOT NULL,
    requests            BIGINT NOT NULL,
    tokens              BIGINT NOT NULL,
    PRIMARY KEY (model, worker, slot)
);

CREATE TABLE limit_shares (
    model               TEXT COLLATE "C" NOT NULL,
    worker              TEXT COLLATE "C" NOT NULL,
    held_requests       BIGINT NOT NULL,
    held_tokens         BIGINT NOT NULL,
    head_requests       BIGINT NOT NULL,
    head_tokens         BIGINT NOT NULL,
    wants_requests      BIGINT NOT NULL,
    wants_tokens        BIGINT NOT NULL,
    since_ms            BIGINT NOT NULL,
    seen_ms             BIGINT NOT NULL,
    until_ms            BIGINT NOT NULL,
    PRIMARY KEY (model, worker)
);
