-- A submit's id is claimed for one delivery of one message of the stream: a later delivery of the same message proves that
-- the earlier one's worker gave no sign for the ack wait. `attempts` counts those that were begun.
ALTER TABLE claims ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE claims ADD COLUMN submission INTEGER;
ALTER TABLE claims ADD COLUMN delivery INTEGER;
