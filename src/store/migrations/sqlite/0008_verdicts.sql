-- The newest verdicts are weighed, of all tenants.
CREATE INDEX feedback_newest ON feedback (at_ms DESC, correlation_id) WHERE verdict IS NOT NULL;
