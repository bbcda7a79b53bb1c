-- What a ledger of an earlier version lacks. Each statement may be repeated.

ALTER TABLE kg_migration.runs ADD COLUMN IF NOT EXISTS paced_until timestamptz;
ALTER TABLE kg_migration.runs DROP CONSTRAINT IF EXISTS runs_state_check;
ALTER TABLE kg_migration.runs ADD CONSTRAINT runs_state_check CHECK (state IN
    ('running', 'paused', 'done', 'failed', 'rejected', 'mismatch', 'cancelled'));
DROP INDEX IF EXISTS kg_migration.one_running_run;
CREATE UNIQUE INDEX one_running_run
    ON kg_migration.runs (target_schema) WHERE state IN ('running', 'paused');
CREATE INDEX IF NOT EXISTS steps_sent ON kg_migration.steps (run_id)
    WHERE NOT done AND dispatched_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS steps_waiting
    ON kg_migration.steps (run_id, stage, table_name, weight DESC, step_id)
    WHERE NOT done AND dispatched_at IS NULL;
