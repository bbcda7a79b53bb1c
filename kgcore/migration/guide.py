"""The guide's call: a whole migration in this process, with its verbose output."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kgcore.backends import ConnectionPool, PostgreSQLBackend
from kgcore.config import load_settings
from kgcore.errors import KGError
from kgcore.migration import new_run, sources
from kgcore.migration.dry_run import dry_run as predict
from kgcore.migration.local import run_here, worker_name
from kgcore.migration.model import Options, Stage, StepResult
from kgcore.migration.repairs import choose
from kgcore.migration.reports import read_report
from kgcore.migration.stages.report import Report
from kgcore.migration.workplace import Workplace

Say = Callable[[str], None]

_RULE = "=" * 61
_THREADS = 2

# Batches of the guide's size are right for a small graph. A large one gets larger ones, because
# each costs a transaction.
_MOST_CHUNKS = 200

#: Table, its field in MigrationProgress, its two names in the output.
_TABLES = (
    ("entities", "entities", "Entities", "entities"),
    ("relationships", "relationships", "Relationships", "relationships"),
    ("mission_history", "missions", "Missions", "missions"),
    ("file_snapshots", "snapshots", "File Snapshots", "file snapshots"),
)


@dataclass(slots=True)
class MigrationProgress:
    """How far a migration is, and at its end what it did.

    ``errors`` is empty if and only if all rows arrived and the new tables are live (in a dry run:
    if they would).
    """

    total_entities: int = 0
    total_relationships: int = 0
    total_missions: int = 0
    total_snapshots: int = 0
    migrated_entities: int = 0
    migrated_relationships: int = 0
    migrated_missions: int = 0
    migrated_snapshots: int = 0
    errors: list[str] = field(default_factory=list)
    run_id: str | None = None
    _began: float = field(default_factory=time.monotonic, repr=False)
    _ended: float | None = field(default=None, repr=False)

    @property
    def total_records(self) -> int:
        """Rows of the four tables in the source."""
        return (
            self.total_entities
            + self.total_relationships
            + self.total_missions
            + self.total_snapshots
        )

    @property
    def migrated_records(self) -> int:
        """Rows of the four tables that arrived."""
        return (
            self.migrated_entities
            + self.migrated_relationships
            + self.migrated_missions
            + self.migrated_snapshots
        )

    @property
    def progress_percentage(self) -> float:
        """Migrated of total, 0 to 100; an empty source counts as migrated."""
        return 100.0 * self.migrated_records / self.total_records if self.total_records else 100.0

    def finish(self) -> None:
        """Stop the clock."""
        self._ended = self._ended or time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the start, up to the end where there is one."""
        return (self._ended or time.monotonic()) - self._began


def migrate_to_postgresql(
    sqlite_path: Path | str,
    pg_host: str = "localhost",
    pg_port: int = 5432,
    pg_database: str = "jarvis_kg",
    pg_user: str = "jarvis",
    pg_password: str = "",
    batch_size: int = 1000,
    dry_run: bool = False,
    verbose: bool = False,
    *,
    if_exists: Literal["fail", "replace"] = "fail",
    max_rejects: int = 0,
    repairs: Sequence[str] = (),
    threads: int = _THREADS,
    **connection: Any,
) -> MigrationProgress:
    """Migrate a SQLite knowledge graph; the same pipeline as ``kg migrate``, without a broker.

    ``batch_size`` is the least number of rows a chunk has; a large source gets larger chunks.
    ``repairs`` names ways to make rows fit that would be refused. ``verbose`` prints the progress.
    Further keywords (``sslmode=…``) go to the connection.

    Nothing is raised for what can go wrong with a source or a target: it is in ``errors`` of the
    result, each with its mend, and the live tables are as they were.
    """
    progress = MigrationProgress()
    say = _print if verbose else _silent
    source = Path(sqlite_path)
    say(f"{_RULE}\nPostgreSQL Migration\n{_RULE}")
    say(f"Source (SQLite): {sqlite_path}")
    say(f"Target (PostgreSQL): {pg_host}:{pg_port}/{pg_database}")
    say(f"Batch size: {batch_size}\n")
    backend = PostgreSQLBackend(
        host=pg_host,
        port=pg_port,
        database=pg_database,
        user=pg_user,
        password=pg_password or None,
        pool_size=1,
        max_overflow=2 * threads + 1,  # A step, its lease and a look at the run.
        **connection,
    )
    try:
        options = Options(
            batch_size,
            if_exists,
            max_rejects,
            most_chunks=_MOST_CHUNKS,
            repairs=choose(repairs).names,
        )
        say("[1/6] Connecting to databases...")
        with backend:
            new_run.check_target(backend.pool, options)
            say("✓ Connected\n")
            data_dir = load_settings().kg_data_dir
            prepared = new_run.prepare(source, data_dir, options)
            _count(prepared, progress, say)
            if dry_run:
                _predict(backend.pool, prepared, options, progress, say)
            else:
                loading = _Loading(progress, say)
                place = Workplace(backend.pool, data_dir, worker_name())
                run = new_run.start(backend.pool, prepared, options)
                progress.run_id = run.run_id
                run_here(place, run, threads, loading.add)
                report = read_report(backend.pool, run.run_id)
                _conclude(report, progress, say)
    except KGError as error:
        progress.errors.append(f"{error.message} ({error.hint})" if error.hint else error.message)
    progress.finish()
    for text in progress.errors:
        say(f"✗ {text}")
    return progress


def _count(prepared: new_run.Prepared, progress: MigrationProgress, say: Say) -> None:
    rows = {item.table.name: item.rows for item in prepared.tables}
    say("[2/6] Counting records...")
    for table, attribute, title, _ in _TABLES:
        setattr(progress, f"total_{attribute}", rows.pop(table))
        say(f"  {title}: {getattr(progress, f'total_{attribute}'):,}")
    for table, extra in rows.items():
        say(f"  {table} (not of the graph, carried over): {extra:,}")
    say(f"  Total: {progress.total_records:,}\n")


def _predict(
    pool: ConnectionPool,
    prepared: new_run.Prepared,
    options: Options,
    progress: MigrationProgress,
    say: Say,
) -> None:
    try:
        new_run.check_tables(pool, prepared, options)
        predicted = predict(prepared, choose(options.repairs), pool)
    finally:
        sources.release(prepared.source)
    say("[Dry run] Every row was checked; nothing was changed")
    reasons = [
        f"{name}: {reject.rows:,} rows would be refused: {reject.column or 'row'}: {reject.reason}"
        f" (ids {', '.join(map(str, reject.example_ids))})"
        for name, table in predicted.tables.items()
        for reject in table.rejects
    ]
    if predicted.counted_rows > options.max_rejects:
        progress.errors += reasons
    else:
        for reason in reasons:
            say(f"  {reason}")
    if not progress.errors:
        say(f"✓ {predicted.rows - predicted.rejected_rows:,} rows would arrive")


class _Loading:
    """Prints the guide's sections 3 to 6 in their order, whichever order the chunks come in."""

    def __init__(self, progress: MigrationProgress, say: Say) -> None:
        self._progress = progress
        self._say = say
        self._sections = list(enumerate(_TABLES, 3))
        self._refused = Counter[str]()
        self._title()
        self._show()

    def add(self, result: StepResult) -> None:
        """Take in a step that was done."""
        step = result.step
        attributes = {table: attribute for table, attribute, *_ in _TABLES}
        if step is None or result.outcome is None or step.stage is not Stage.LOAD:
            return
        if step.table in attributes:
            name = f"migrated_{attributes[step.table]}"
            setattr(self._progress, name, getattr(self._progress, name) + result.outcome.loaded)
            self._refused[step.table] += result.outcome.rejected
            if self._sections and step.table == self._sections[0][1][0]:
                self._show()

    def _title(self) -> None:
        if self._sections:
            number, (_, _, _, name) = self._sections[0]
            shown = "mission history" if name == "missions" else name
            self._say(f"[{number}/6] Migrating {shown}...")

    def _show(self) -> None:
        while self._sections:
            _, (table, attribute, _, name) = self._sections[0]
            total = getattr(self._progress, f"total_{attribute}")
            migrated = getattr(self._progress, f"migrated_{attribute}")
            refused = self._refused[table]
            if migrated + refused < total:
                if migrated:
                    self._say(f"  Migrated {migrated}/{total} {name}...")
                return
            besides = f", {refused:,} refused" if refused else ""
            self._say(f"✓ Migrated {migrated:,} {name}{besides}\n")
            del self._sections[0]
            self._title()


def _conclude(report: Report, progress: MigrationProgress, say: Say) -> None:
    run = report.run
    if run.hint and run.error:
        progress.errors.append(f"{run.error} ({run.hint})")
    progress.errors += [text for text in report.errors if text != run.error]
    say("[Verification] Checking data integrity...")
    for table, attribute, title, _ in _TABLES:
        counts = report.tables[table]
        setattr(progress, f"migrated_{attribute}", counts.verified_rows if report.is_done else 0)
        shown = "Snapshots" if table == "file_snapshots" else title
        say(f"  {shown}: {counts.verified_rows}/{counts.source_rows}")
    if not report.is_done:
        say("✗ Migration failed; the live tables are as they were\n")
        return
    sources.release(run.source)
    progress.finish()
    seconds = progress.elapsed_seconds
    say("✓ Data integrity verified\n")
    say(f"{_RULE}\nMigration Complete!\n{_RULE}")
    say(f"Total records migrated: {progress.migrated_records:,}")
    say(f"Elapsed time: {seconds:.2f}s")
    say(f"Records/second: {progress.migrated_records / seconds:.0f}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _silent(_line: str) -> None:
    pass
