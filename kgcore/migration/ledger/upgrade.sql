-- What tables of an earlier version lack. Each statement may be repeated; ledger.sql comes after it
-- and creates what is new as a whole.

ALTER TABLE kg_migration.sources ADD COLUMN IF NOT EXISTS address text;
ALTER TABLE kg_migration.sources
    ADD COLUMN IF NOT EXISTS not_carried_over jsonb NOT NULL DEFAULT '[]';
