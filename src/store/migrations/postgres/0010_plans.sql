-- What a run took from the records of earlier ones.

-- 1: it ran under a plan that changed more than timeouts, and is compared with those that did not.
ALTER TABLE workflows ADD COLUMN planned BIGINT NOT NULL DEFAULT 0;

-- How an attempt was made where not by itself: 'followed', 'recalled', 'overtaken'. `inputs` is a digest of what a pure step was given.
ALTER TABLE workflow_history ADD COLUMN manner TEXT COLLATE "C";
ALTER TABLE workflow_history ADD COLUMN inputs BIGINT;

-- What pure steps came to, by what they are and what they were given: an equal one takes it from here.
CREATE TABLE workflow_memos (
    tenant              TEXT COLLATE "C" NOT NULL,
    definition          BYTEA NOT NULL,
    inputs              BYTEA NOT NULL,
    body                BYTEA NOT NULL,
    created_ms          BIGINT NOT NULL,
    PRIMARY KEY (tenant, definition, inputs)
);

CREATE INDEX workflow_memos_created ON workflow_memos (created_ms);
