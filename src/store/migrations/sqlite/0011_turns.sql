-- A workflow in the state 'waiting' begins when the one that it `follows` is over, or gone. Until then `deadline_ms` is how long it
-- may take.
ALTER TABLE workflows ADD COLUMN follows INTEGER;

CREATE INDEX workflows_waiting ON workflows (number) WHERE state = 'waiting';

-- What a user's own event brings along: JSON.
ALTER TABLE workflow_events ADD COLUMN payload BLOB;
