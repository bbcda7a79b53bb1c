"""A new run: its source frozen and planned, its target checked, and its start in the ledger."""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.backends import ConnectionPool
from kgcore.errors import KGError, TargetBusyError, TargetError
from kgcore.migration import ledger, roles, sources
from kgcore.migration.model import (
    PROTOCOL,
    Options,
    PlannedTable,
    Run,
    RunState,
    SourceSnapshot,
)
from kgcore.migration.pipeline import planned_steps, unlocked
from kgcore.migration.repairs import choose
from kgcore.migration.stages import cutover, extract, finish, freeze, plan
from kgcore.model import NotCarriedOver
from kgcore.schema import TABLES
from kgcore.schema.translate.choice import is_left_out

_log = logging.getLogger(__name__)

MINIMUM_SERVER = 140_000
# So long a transaction whose client is gone may take to end.
_COMMIT_MS = 5_000

# Of SQLite's machine, between two looks at whether it is to go on: some milliseconds.
_INSTRUCTIONS = 100_000

#: Called with a stage's name, what is done and what there is in all (pages, for freeze).
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frozen and planned source, before anything is written to the target."""

    source: SourceSnapshot
    tables: tuple[PlannedTable, ...]
    not_carried_over: tuple[NotCarriedOver, ...]
    seconds: dict[str, float]


def prepare(source: Path, data_dir: Path, options: Options, watch: Watch | None = None) -> Prepared:
    """Freeze and plan. Touches nothing but ``data_dir``.

    Raises :class:`SourceError`, and :class:`SettingsError` for a repair that does not exist.
    """
    began = time.monotonic()
    choose(options.repairs)

    def planned(copy: Path, is_damaged: Callable[[], bool]) -> tuple[plan.Plan, float]:
        since = time.monotonic()
        with closing(extract.open_snapshot(copy)) as connection:
            connection.set_progress_handler(is_damaged, _INSTRUCTIONS)
            return plan.plan(connection, options), time.monotonic() - since

    snapshot, (made, seconds) = freeze.freeze_and(
        source,
        data_dir / freeze.FOLDER,
        planned,
        None if watch is None else partial(watch, "freeze"),
    )
    taken = {"freeze": time.monotonic() - began, "plan": seconds}
    return Prepared(snapshot, made.tables, made.not_carried_over, taken)


def check_target(pool: ConnectionPool, options: Options) -> str:
    """Return the schema the tables will live in, after checking that they can.

    Changes nothing. Raises :class:`TargetError` with the command that mends it: too old a server, a
    read-only one, missing rights, tables in the way; :class:`TargetBusyError` for another run in
    progress.
    """
    graph = tuple(
        PlannedTable(table, 0, 0)
        for table in TABLES
        if not is_left_out(table.name, options.only, options.exclude)
    )
    try:
        with ledger.transaction(pool) as cursor:
            schema = _check_server(cursor)
            roles.require_worker_role(cursor, options.worker_role)
            cutover.require_replaceable(cursor, schema, graph, options.if_exists)
    except errors.InsufficientPrivilege as error:
        raise TargetError(
            f"a right is missing: {error.diag.message_primary}",
            "GRANT it to the role of PG_USER, or let PG_USER be the owner of the tables",
        ) from None
    return schema


def check_tables(pool: ConnectionPool, prepared: Prepared, options: Options) -> None:
    """Check that all tables of the source can take their places in the target, as a run does.

    Changes nothing. Raises as :func:`check_target`, which does not know the source.
    """
    with ledger.transaction(pool) as cursor:
        schema = _check_server(cursor)
        cutover.require_replaceable(cursor, schema, prepared.tables, options.if_exists)


def start(pool: ConnectionPool, prepared: Prepared, options: Options) -> Run:
    """Write the run into the ledger and create its staging tables, in one transaction.

    Where that fails the source snapshot is deleted, unless the run may be there all the same: of
    its COMMIT the answer alone may be lost. Raises as :func:`check_target`.
    """
    run_id, is_written = _new_id(), False
    try:
        with ledger.transaction(pool) as cursor:
            run = _start(cursor, run_id, prepared, options)
            is_written = True
    except BaseException as error:
        if not is_written:
            sources.release(prepared.source)
            raise
        begun = _started(pool, run_id, prepared)
        if begun is None or not isinstance(error, Exception):  # Ctrl-C.
            raise
        _log.warning("run %s was begun in spite of: %s", run_id, error)
        return begun
    return run


def _started(pool: ConnectionPool, run_id: str, prepared: Prepared) -> Run | None:
    """Return the run if it is in the ledger; if it certainly isn't, delete its source."""
    try:
        with ledger.transaction(pool) as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {_COMMIT_MS}")
            ledger.wait_for_install(cursor)
            run = ledger.find_run(cursor, run_id)
    except (psycopg2.Error, KGError) as error:
        _log.warning(
            "the source %s is kept, in case its run began: %s", prepared.source.path, error
        )
        return None
    if run is None:
        sources.release(prepared.source)
    return run


def _start(cursor: Cursor, run_id: str, prepared: Prepared, options: Options) -> Run:
    schema = _check_server(cursor)
    roles.require_worker_role(cursor, options.worker_role)
    cutover.require_replaceable(cursor, schema, prepared.tables, options.if_exists)
    ledger.install(cursor)
    run = _new_run(run_id, schema, prepared, options)
    steps = planned_steps(prepared.tables)
    counts = Counter((step.stage, step.table) for step in steps)
    ready_stages = unlocked(run.tables, counts, options.repairs)
    ledger.create_run(cursor, run, steps, ready_stages, prepared.seconds)
    # A sequence gets a name that no other table has: those are created first.
    tables = sorted(
        (item.table for item in prepared.tables),
        key=lambda table: (not table.name.endswith("_seq"), -len(table.name)),
    )
    finish.create_staging(cursor, run.staging, tables, options.worker_role)
    if options.worker_role is not None:
        ledger.grant_ledger(cursor, options.worker_role)
    return run


def _new_id() -> str:
    # The time is for people to read; the random part makes it unique.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _new_run(run_id: str, schema: str, prepared: Prepared, options: Options) -> Run:
    suffix = run_id.replace("-", "_")
    return Run(
        run_id=run_id,
        state=RunState.RUNNING,
        epoch=1,
        schema=schema,
        staging=f"kg_staging_{suffix}",
        archive=f"kg_before_{suffix}",
        options=options,
        source=prepared.source,
        tables={item.table.name: item for item in prepared.tables},
        protocol=PROTOCOL,
        not_carried_over=prepared.not_carried_over,
    )


def _check_server(cursor: Cursor) -> str:
    cursor.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " pg_is_in_recovery(), current_setting('transaction_read_only')::bool,"
        " current_schema(), current_user, current_database(),"
        " has_database_privilege(current_database(), 'CREATE'),"
        " has_database_privilege(current_database(), 'TEMP'),"
        " has_schema_privilege(current_schema(), 'CREATE')"
    )
    row = cursor.fetchone()
    if row is None:
        raise TargetError("the server gave no answer", "check what stands at PG_HOST:PG_PORT")
    number, version, standby, read_only, schema, user, database, create, temp, in_schema = row
    if number < MINIMUM_SERVER:
        raise TargetError(f"the server is PostgreSQL {version}", "use version 14 or later")
    if standby:
        raise TargetError("the server is a standby", "set PG_HOST to the primary")
    if read_only:
        raise TargetError(
            "transactions are read-only there",
            f'ALTER ROLE "{user}" SET default_transaction_read_only = off',
        )
    if schema is None:
        raise TargetError("no schema of the search_path exists", "CREATE SCHEMA public")
    if not create or not temp:
        raise TargetError(
            f"role {user} may not create schemas or temporary tables in database {database}",
            f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO "{user}"',
        )
    if not in_schema:
        raise TargetError(
            f"role {user} may not create tables in schema {schema}",
            f'GRANT CREATE, USAGE ON SCHEMA "{schema}" TO "{user}"',
        )
    if ledger.is_installed(cursor):
        running = ledger.running_run(cursor, schema)
        if running is not None:
            raise TargetBusyError(
                f"run {running} into schema {schema} is in progress",
                f"follow it: kg progress {running} --follow; or kg resume {running} (kg unpause if"
                f" it is paused); or give it up: kg cancel {running}",
            )
    return str(schema)
