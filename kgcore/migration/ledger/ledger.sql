-- The ledger: the truth about every run. Redis only carries hints to look here.
--
-- Times are PostgreSQL's clock_timestamp(); clocks of workers are never compared.

CREATE SCHEMA IF NOT EXISTS kg_migration;

-- One row a migration.
CREATE TABLE IF NOT EXISTS kg_migration.runs (
    run_id          text PRIMARY KEY,
    protocol        integer NOT NULL,      -- workers of another protocol refuse the run
    state           text NOT NULL CHECK (state IN
                        ('running', 'paused', 'done', 'failed', 'rejected', 'mismatch',
                         'cancelled')),
    -- Raised by cancel and by a resume after an end: messages and writers of an earlier epoch
    -- are refused.
    epoch           integer NOT NULL DEFAULT 1,
    target_schema   text NOT NULL,         -- where the live tables are
    staging_schema  text NOT NULL,         -- where the new ones are built
    archive_schema  text NOT NULL,         -- where the old ones go at cutover, for revert
    options         jsonb NOT NULL,
    began_at        timestamptz NOT NULL,  -- before the source was frozen
    planned_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    paced_until     timestamptz,           -- with max_rows_per_second: when the next chunk may go
    reverted_at     timestamptz,
    freeze_seconds  double precision NOT NULL,
    plan_seconds    double precision NOT NULL,
    error           text,                  -- why the run ended short of done
    hint            text                   -- and what mends it
);

-- Two runs into the same tables at once are refused by this index, whoever asks and when.
CREATE UNIQUE INDEX IF NOT EXISTS one_running_run
    ON kg_migration.runs (target_schema) WHERE state IN ('running', 'paused');

-- What is migrated. A run has one source today; the rows of a step belong to a source, not a run.
CREATE TABLE IF NOT EXISTS kg_migration.sources (
    source_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    original_path   text NOT NULL,         -- the user's file; never opened by a worker
    snapshot_path   text NOT NULL,         -- the private copy, named by its digest
    sha256          text NOT NULL,
    bytes           bigint NOT NULL,
    -- Where machines without the file fetch it. If it is served by a command, who knows the address
    -- may read the file: only those who may read the graph should read this table.
    address         text,
    tables          jsonb NOT NULL,        -- description, rows and highest key of each table
    not_carried_over jsonb NOT NULL DEFAULT '[]'  -- what of the file's schema the target lacks
);
CREATE INDEX IF NOT EXISTS sources_run ON kg_migration.sources (run_id);

-- A stage of one table, and how many of its steps are not done. Kept as a counter because counting
-- 20,000 step rows after each step would cost more than the step.
CREATE TABLE IF NOT EXISTS kg_migration.stages (
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    stage           text NOT NULL,
    table_name      text NOT NULL,         -- '' for the cutover
    open_steps      bigint NOT NULL CHECK (open_steps >= 0),
    ready           boolean NOT NULL DEFAULT false,  -- all that it waits for is done
    PRIMARY KEY (run_id, stage, table_name)
);

-- One row a unit of work. Done is set in the transaction that does the work, so both or neither
-- happened.
CREATE TABLE IF NOT EXISTS kg_migration.steps (
    step_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    source_id       bigint NOT NULL REFERENCES kg_migration.sources ON DELETE CASCADE,
    position        integer NOT NULL,      -- 0, 1, … within the run
    stage           text NOT NULL,
    table_name      text NOT NULL,
    index_name      text,                  -- index steps
    lower_id        bigint NOT NULL,       -- load and verify steps: lower_id <= id < upper_id,
    upper_id        bigint,                -- NULL: to the end
    planned_rows    bigint NOT NULL,
    weight          double precision NOT NULL,  -- its share of the progress bar
    done            boolean NOT NULL DEFAULT false,
    -- Last sent to the broker; in the future where the step waits for its turn (paced_until).
    dispatched_at   timestamptz,
    attempts        integer NOT NULL DEFAULT 0,
    lease_until     timestamptz,           -- renewed while its worker lives
    worker          text,
    started_at      timestamptz,
    finished_at     timestamptz,
    lane            text,                  -- fast or careful
    loaded_rows     bigint NOT NULL DEFAULT 0,  -- negative where rows were taken out again
    rejected_rows   bigint NOT NULL DEFAULT 0,
    verified_rows   bigint NOT NULL DEFAULT 0,
    mismatched_rows bigint NOT NULL DEFAULT 0,
    mismatched_ids  bigint[] NOT NULL DEFAULT '{}',  -- the first of them
    error           text                   -- of the last attempt that failed
);
CREATE INDEX IF NOT EXISTS steps_run ON kg_migration.steps (run_id, stage, table_name);
CREATE INDEX IF NOT EXISTS steps_open ON kg_migration.steps (run_id, step_id) WHERE NOT done;
-- The next to send, and those that are under way: both are asked for after each step.
CREATE INDEX IF NOT EXISTS steps_waiting
    ON kg_migration.steps (run_id, stage, table_name, weight DESC, step_id)
    WHERE NOT done AND dispatched_at IS NULL;
CREATE INDEX IF NOT EXISTS steps_sent ON kg_migration.steps (run_id)
    WHERE NOT done AND dispatched_at IS NOT NULL;

-- Rows the target can't hold, whole: for each column its name, SQLite storage class and bytes.
CREATE TABLE IF NOT EXISTS kg_migration.rejects (
    reject_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    source_id       bigint NOT NULL REFERENCES kg_migration.sources ON DELETE CASCADE,
    step_id         bigint NOT NULL,
    table_name      text NOT NULL,
    row_id          bigint NOT NULL,
    column_name     text,                  -- NULL where the row as a whole is at fault
    reason          text NOT NULL,
    sqlstate        text NOT NULL,
    columns         text[] NOT NULL,
    storage         text[] NOT NULL,       -- null, integer, real, text, blob
    bytes           bytea[] NOT NULL,
    -- The repair by which the row is left out knowingly; it doesn't count against the limit then.
    repair          text,
    merged_into     bigint,                -- of a duplicate that was merged: what took its place
    mended_storage  text[],                -- the row as a user mended it, in the form of storage
    mended_bytes    bytea[],               -- and bytes
    loaded_at       timestamptz,           -- when a retry stored it: it is no reject any more
    UNIQUE (source_id, table_name, row_id)
);
CREATE INDEX IF NOT EXISTS rejects_run ON kg_migration.rejects (run_id, table_name, row_id);

-- Rows that are in the target and not in the source: what relationships refer to and lack.
CREATE TABLE IF NOT EXISTS kg_migration.placeholders (
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    table_name      text NOT NULL,
    row_id          bigint NOT NULL,
    PRIMARY KEY (run_id, table_name, row_id)
);

-- What repairs did, one row for each step and repair.
CREATE TABLE IF NOT EXISTS kg_migration.repairs (
    run_id          text NOT NULL REFERENCES kg_migration.runs ON DELETE CASCADE,
    step_id         bigint NOT NULL,       -- 0: a retry of rejects
    table_name      text NOT NULL,
    repair          text NOT NULL,
    rows            bigint NOT NULL,
    row_ids         bigint[] NOT NULL      -- the first of them
);
CREATE INDEX IF NOT EXISTS repairs_run ON kg_migration.repairs (run_id, table_name, step_id);
