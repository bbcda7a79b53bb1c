-- What tables of an earlier version lack. Each statement may be repeated; ledger.sql comes after it
-- and creates what is new as a whole.

ALTER TABLE kg_migration.sources ADD COLUMN IF NOT EXISTS address text;
ALTER TABLE kg_migration.sources
    ADD COLUMN IF NOT EXISTS not_carried_over jsonb NOT NULL DEFAULT '[]';

ALTER TABLE kg_migration.runs ADD COLUMN IF NOT EXISTS paced_until timestamptz;
ALTER TABLE kg_migration.runs DROP CONSTRAINT IF EXISTS runs_state_check;
ALTER TABLE kg_migration.runs ADD CONSTRAINT runs_state_check CHECK (state IN
    ('running', 'paused', 'done', 'failed', 'rejected', 'mismatch', 'cancelled'));
DROP INDEX IF EXISTS kg_migration.one_running_run;
ALTER TABLE kg_migration.rejects
    ADD COLUMN IF NOT EXISTS repair text,
    ADD COLUMN IF NOT EXISTS merged_into bigint,
    ADD COLUMN IF NOT EXISTS mended_storage text[],
    ADD COLUMN IF NOT EXISTS mended_bytes bytea[],
    ADD COLUMN IF NOT EXISTS loaded_at timestamptz;
