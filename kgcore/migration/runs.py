"""Runs as a whole: start, sweep, resume, cancel, revert. Work happens in ``pipeline``."""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.backends import ConnectionPool
from kgcore.errors import KGError, RunError, TargetBusyError, TargetError
from kgcore.migration import ledger, roles
from kgcore.migration.model import (
    IN_PROGRESS,
    PROTOCOL,
    RESUMABLE,
    Options,
    PlannedTable,
    Run,
    RunState,
    SourceSnapshot,
    Stage,
    StepRef,
)
from kgcore.migration.pipeline import planned_steps, unlocked
from kgcore.migration.repairs import choose
from kgcore.migration.sources import published
from kgcore.migration.stages import cutover, extract, finish, freeze, plan
from kgcore.model import NotCarriedOver
from kgcore.schema import TABLES, catalog
from kgcore.schema.translate.choice import is_left_out

_log = logging.getLogger(__name__)

MINIMUM_SERVER = 140_000
_DROP_TRIES = 10
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


def target_identity(pool: ConnectionPool) -> str:
    """Return what tells the target from all other databases; no name or address is in it."""
    with ledger.transaction(pool) as cursor:
        return catalog.database_identity(cursor)


def start(pool: ConnectionPool, prepared: Prepared, options: Options) -> Run:
    """Write the run into the ledger and create its staging tables, in one transaction.

    Where that fails the source snapshot is deleted, unless the run may be there all the same: of
    its COMMIT the answer alone may be lost. Raises as :func:`check_target`.
    """
    run_id = _new_id()
    try:
        with ledger.transaction(pool) as cursor:
            return _start(cursor, run_id, prepared, options)
    except Exception as error:
        run = _started(pool, run_id, prepared)
        if run is None:
            raise
        _log.warning("run %s was begun in spite of: %s", run_id, error)
        return run
    except BaseException:  # Ctrl-C.
        _started(pool, run_id, prepared)
        raise


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
        release_source(prepared)
    return run


def ready(pool: ConnectionPool, run: Run) -> tuple[StepRef, ...]:
    """Return the steps that can be done now, and note that they are being sent."""
    with ledger.transaction(pool) as cursor:
        return ledger.next_steps(cursor, run)


@dataclass(frozen=True, slots=True)
class Swept:
    """The steps to send: ``lost`` ones again, ``fresh`` ones for the first time."""

    lost: tuple[StepRef, ...] = ()
    fresh: tuple[StepRef, ...] = ()


def sweep(
    pool: ConnectionPool,
    run_id: str,
    *,
    empty: Collection[Stage] = tuple(Stage),
    grace_seconds: float = 5.0,
) -> Swept:
    """Free what hangs and return the steps to send. A run that isn't running is left alone.

    Backends whose lease ran out are terminated. A step whose worker is gone is sent again at once;
    one that was sent and never claimed, only if its stage's queue is ``empty``, because there it
    may just be waiting its turn.
    """
    with ledger.transaction(pool) as cursor:
        run = ledger.read_run(cursor, run_id)
        if run.state is not RunState.RUNNING:
            return Swept()
        ledger.terminate_holders(cursor, run_id, expired_only=True)
        stale = ledger.stale_steps(cursor, run, grace_seconds)
        lost = stale.lost + tuple(ref for ref in stale.idle if ref.stage in empty)
        ledger.mark_dispatched(cursor, lost)
        return Swept(lost, ledger.next_steps(cursor, run))


def resume(
    pool: ConnectionPool,
    run_id: str,
    *,
    max_rejects: int | None = None,
    if_exists: Literal["fail", "replace"] | None = None,
    address: str | None = None,
) -> Run:
    """Let a run go on, in a new epoch if it had ended short of done; return it.

    The options that are given take the place of those the run began with, and so does the address
    at which machines without the source fetch it from now on.
    A run that is done is returned as it is. Raises :class:`RunError` for one that is cancelled or
    found a mismatch.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is RunState.DONE:
            return run
        require_protocol(run)
        if state is RunState.PAUSED:
            raise RunError(f"run {run_id} is paused", f"to let it go on: kg unpause {run_id}")
        if state not in RESUMABLE:
            raise RunError(f"run {run_id} is {state}", "start a new one: kg migrate SOURCE")
        if state is RunState.MISMATCH:
            raise RunError(
                f"run {run_id} found rows that differ from their source",
                f"kg report {run_id} names them; give it up with kg cancel {run_id}",
            )
        changes = {"max_rejects": max_rejects, "if_exists": if_exists}
        chosen = {name: value for name, value in changes.items() if value is not None}
        options = Options.from_json(run.options.to_json() | chosen)
        if address is not None:
            ledger.set_address(cursor, run_id, address)
        if state is RunState.RUNNING:
            ledger.set_options(cursor, run_id, options)
        else:
            ledger.reopen(cursor, run_id, options)
        return ledger.read_run(cursor, run_id)


def require_protocol(run: Run) -> None:
    """Raise :class:`RunError` where the run was begun by a version that does things otherwise."""
    if run.protocol != PROTOCOL:
        raise RunError(
            f"run {run.run_id} was begun by another version: its protocol is {run.protocol},"
            f" this version's is {PROTOCOL}",
            f"go on with that version, or give the run up: kg cancel {run.run_id}",
        )


def cancel(pool: ConnectionPool, run_id: str) -> RunState:
    """End a run for good: its writers are stopped, staging is dropped, live tables stay.

    Returns the state it had; of a cancelled one what was left behind is dropped. Raises
    :class:`RunError` if it is done.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is RunState.DONE:
            raise RunError(f"run {run_id} is done", f"to undo it: kg revert {run_id}")
        ledger.end_run(cursor, run_id, RunState.CANCELLED, "cancelled")
    try:
        _drop_staging(pool, run)
    finally:
        release_source(run)
    return state


def _drop_staging(pool: ConnectionPool, run: Run) -> None:
    """Stop the run's writers, none of whom can commit any more, and drop what they hold."""
    for attempt in range(_DROP_TRIES):
        with ledger.transaction(pool) as cursor:
            ledger.terminate_holders(cursor, run.run_id, expired_only=False)
        try:
            with ledger.transaction(pool) as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
                finish.drop_staging(cursor, run.staging)
        except errors.LockNotAvailable:
            if attempt == _DROP_TRIES - 1:
                raise TargetBusyError(
                    f"others hold tables of {run.staging}; the run is cancelled all the same",
                    f'end their transactions, then: DROP SCHEMA "{run.staging}" CASCADE',
                ) from None
        else:
            return


def revert(pool: ConnectionPool, run_id: str) -> tuple[tuple[str, ...], str]:
    """Undo a cutover: the old tables are live again.

    Returns their names, and the schema in which the migrated tables are kept, with all that was
    written to them since. Raises :class:`RunError` unless the run's tables are the live ones.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is not RunState.DONE:
            raise RunError(f"run {run_id} is {state}", "only a run that is done can be reverted")
        live = ledger.latest_done(cursor, run.schema)
        if live != run_id:
            mend = (
                f"revert the later one first: kg revert {live}"
                if live
                else "it was reverted already; kg runs shows when"
            )
            raise RunError(f"the tables of run {run_id} are not the live ones", mend)
        tables = tuple(run.tables.values())
        aside = kept_schema(run_id)
        back = cutover.revert(cursor, run.schema, run.archive, aside, tables)
        ledger.mark_reverted(cursor, run_id)
    return back, aside


def kept_schema(run_id: str) -> str:
    """Return where a revert puts the run's tables."""
    return f"kg_reverted_{run_id.replace('-', '_')}"


def release_source(run: Run | Prepared, data_dir: Path | None = None) -> None:
    """Delete the source snapshot, which only this run's steps read, and what was published of it.

    It is looked for where it was made, and in ``data_dir``. That it is gone already is fine; what
    was published and can't be deleted is only logged.
    """
    freeze.discard(run.source.path)
    if data_dir is not None:
        freeze.discard(data_dir / freeze.FOLDER / run.source.path.name)
    if run.source.address is None:
        return
    try:
        published.remove(run.source.address)
    except (OSError, KGError) as error:
        _log.warning("the published source is left: %s", error)


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
    tables = [item.table for item in prepared.tables]
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


def has_ended(pool: ConnectionPool, run_id: str) -> bool:
    """Whether the run is in one of its ends."""
    return state_of(pool, run_id) not in IN_PROGRESS


def state_of(pool: ConnectionPool, run_id: str) -> RunState:
    """Return the run's state. Raises :class:`RunNotFoundError`."""
    with ledger.transaction(pool) as cursor:
        return ledger.lock_run(cursor, run_id, wait=False)[0]
