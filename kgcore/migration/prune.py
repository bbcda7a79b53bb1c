"""Prune: take away what old runs left, in the ledger, in the target and in ``KG_DATA_DIR``.

A run in progress is never touched. A run that could still be resumed is given up by it. A run that
could be reverted is kept, unless its archive is asked for, too.
"""

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier

from kgcore.backends import ConnectionPool
from kgcore.errors import RunNotFoundError, TargetBusyError
from kgcore.migration import ledger
from kgcore.migration.model import IN_PROGRESS, Run
from kgcore.migration.runs import kept_schema
from kgcore.migration.stages import freeze

_STAGING = re.compile(r"kg_staging_(\d{8}_\d{6}_[0-9a-f]{6})")


@dataclass(frozen=True, slots=True)
class Pruned:
    """One thing that was, or would be, taken away; ``kept`` says why it was not."""

    what: str  # run, schema, copy
    name: str
    run_id: str | None = None
    kept: str = ""


def prune(
    pool: ConnectionPool,
    data_dir: Path,
    *,
    older_than_seconds: float,
    only: Collection[str] = (),
    archives: bool = False,
    unknown_copies: bool = False,
    dry_run: bool = False,
) -> tuple[Pruned, ...]:
    """Prune ended runs, by PostgreSQL's clock older than that, or ``only`` those, however old.

    With ``archives`` the old tables that ``kg revert`` would bring back go, too; with
    ``unknown_copies`` source snapshots of no run in this ledger, which may be another database's.
    Raises :class:`RunNotFoundError` for a name in ``only`` that the ledger doesn't have.
    """
    done: list[Pruned] = []
    for run_id in _old_runs(pool, older_than_seconds, only):
        done += _prune_run(pool, data_dir, run_id, archives=archives, dry_run=dry_run)
    if not only:
        done += _orphaned_schemas(pool, dry_run=dry_run)
        done += _orphaned_copies(pool, data_dir, unknown=unknown_copies, dry_run=dry_run)
    return tuple(done)


def _old_runs(pool: ConnectionPool, seconds: float, only: Collection[str]) -> tuple[str, ...]:
    with ledger.transaction(pool) as cursor:
        if only:
            for run_id in only:
                ledger.read_run(cursor, run_id)
            return tuple(only)
        if not ledger.is_installed(cursor):
            return ()
        cursor.execute(
            "SELECT run_id FROM kg_migration.runs WHERE state <> ALL(%s)"
            " AND greatest(finished_at, reverted_at)"
            " <= clock_timestamp() - make_interval(secs => %s) ORDER BY planned_at",
            ([str(state) for state in IN_PROGRESS], seconds),
        )
        return tuple(run_id for (run_id,) in cursor.fetchall())


def _prune_run(
    pool: ConnectionPool, data_dir: Path, run_id: str, *, archives: bool, dry_run: bool
) -> list[Pruned]:
    """Drop a run's schemas and its rows in one transaction; then its source snapshot."""
    try:
        with ledger.transaction(pool) as cursor:
            state, _ = ledger.lock_run(cursor, run_id)
            run = ledger.read_run(cursor, run_id)
            if state in IN_PROGRESS:
                return [Pruned("run", run_id, run_id, f"it is {state}")]
            schemas = _schemas_of(cursor, run)
            kept = [name for name in schemas if name != run.staging]
            if kept and not archives:
                return [Pruned("run", run_id, run_id, f"{' and '.join(kept)} may be wanted")]
            if not dry_run:
                _drop(cursor, schemas)
                cursor.execute("DELETE FROM kg_migration.runs WHERE run_id = %s", (run_id,))
    except errors.LockNotAvailable:
        raise TargetBusyError(
            f"others hold tables of run {run_id}", "end their transactions, then prune again"
        ) from None
    except RunNotFoundError:
        return []  # Someone else was quicker.
    pruned = [Pruned("schema", name, run_id) for name in schemas]
    copy = run.source.path
    # The ledger's word is not enough to delete a file anywhere.
    if copy.parent.resolve() == _sources(data_dir) and copy.exists():
        if not dry_run:
            freeze.discard(copy)
        pruned.append(Pruned("copy", str(copy), run_id))
    return [*pruned, Pruned("run", run_id, run_id)]


def _orphaned_schemas(pool: ConnectionPool, *, dry_run: bool) -> Iterator[Pruned]:
    """Staging whose run is gone from the ledger, or cancelled while others held its tables."""
    with ledger.transaction(pool) as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'kg\\_staging\\_%'")
        names = {
            name: match[1] for (name,) in cursor.fetchall() if (match := _STAGING.fullmatch(name))
        }
        known: set[str] = set()
        if ledger.is_installed(cursor):
            cursor.execute(
                "SELECT replace(run_id, '-', '_') FROM kg_migration.runs WHERE state <> 'cancelled'"
            )
            known = {suffix for (suffix,) in cursor.fetchall()}
        orphans = sorted(name for name, suffix in names.items() if suffix not in known)
        if not dry_run:
            _drop(cursor, orphans)
    yield from (Pruned("schema", name) for name in orphans)


def _orphaned_copies(
    pool: ConnectionPool, data_dir: Path, *, unknown: bool, dry_run: bool
) -> Iterator[Pruned]:
    directory = _sources(data_dir)
    with ledger.transaction(pool) as cursor:
        wanted: dict[str, bool] = {}
        if ledger.is_installed(cursor):
            cursor.execute(
                "SELECT s.snapshot_path, r.state NOT IN ('done', 'cancelled')"
                " FROM kg_migration.sources s JOIN kg_migration.runs r USING (run_id)"
            )
            wanted = {str(Path(path).resolve()): open_ for path, open_ in cursor.fetchall()}
    for scratch in freeze.abandoned(directory):
        if not dry_run:
            shutil.rmtree(scratch, ignore_errors=True)
        yield Pruned("copy", str(scratch))
    for copy in sorted(directory.glob("*.db")):
        of_a_run = wanted.get(str(copy))
        if of_a_run:
            continue
        if of_a_run is None and not unknown:
            yield Pruned("copy", str(copy), kept="no run of this database knows it")
            continue
        if not dry_run:
            copy.unlink(missing_ok=True)
            copy.with_suffix(".verified").unlink(missing_ok=True)
        yield Pruned("copy", str(copy))


def _sources(data_dir: Path) -> Path:
    return (data_dir / "sources").resolve()


def _schemas_of(cursor: Cursor, run: Run) -> tuple[str, ...]:
    cursor.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY 1",
        ([run.staging, run.archive, kept_schema(run.run_id)],),
    )
    return tuple(name for (name,) in cursor.fetchall())


def _drop(cursor: Cursor, schemas: Collection[str]) -> None:
    cursor.execute("SET LOCAL lock_timeout = '1s'")
    for name in schemas:
        cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))
