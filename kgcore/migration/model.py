"""What a migration is made of: runs, sources, steps, chunks. Frozen data, no I/O."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from kgcore.errors import SettingsError
from kgcore.model import Check, Column, ForeignKey, Index, Kind, NotCarriedOver, Table
from kgcore.schema import quoted
from kgcore.schema.translate.names import Names

#: Raised when the meaning of a message or of the ledger changes: a worker of another version must
#: not take part in a run.
PROTOCOL = 3

MIN_ID = -(2**63)
MAX_ID = 2**63 - 1


class Stage(StrEnum):
    """The stages that are made of steps. Their order is known to ``pipeline`` alone."""

    LOAD = "load"
    INDEX = "index"
    KEY = "key"
    VERIFY = "verify"
    CUTOVER = "cutover"


class RunState(StrEnum):
    """Where a run stands; all but RUNNING and PAUSED are ends, of which some can be resumed."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    MISMATCH = "mismatch"
    CANCELLED = "cancelled"


#: Not ended: the target's tables are spoken for.
IN_PROGRESS = frozenset({RunState.RUNNING, RunState.PAUSED})
RESUMABLE = frozenset({RunState.RUNNING, RunState.FAILED, RunState.REJECTED, RunState.MISMATCH})


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose for a run; kept in the ledger with it."""

    chunk_rows: int = 75_000
    if_exists: Literal["fail", "replace"] = "fail"
    max_rejects: int = 0
    max_attempts: int = 5
    lease_seconds: float = 30.0
    lock_seconds: float = 60.0  # how long the cutover tries to lock the live tables
    allow_missing: bool = False
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    names: Names = "keep"
    most_chunks: int | None = None  # chunks grow beyond chunk_rows rather than be more than this
    max_workers: int | None = None  # steps at a time, over all machines
    max_rows_per_second: int | None = None  # sent to the target, over all machines
    worker_role: str | None = None  # is given what load and verify steps need, while the run lasts
    repairs: tuple[str, ...] = ()  # names of kgcore.migration.repairs

    def __post_init__(self) -> None:
        if self.chunk_rows < 1:
            raise SettingsError(
                f"--chunk-rows is {self.chunk_rows}; a chunk has at least one row",
                "leave the option out for the default of 75,000",
            )
        if self.max_rejects < 0:
            raise SettingsError(
                f"--max-rejects is {self.max_rejects}; it counts rows", "use 0 to allow none"
            )
        if self.names not in {"keep", "lower", "snake"}:
            raise SettingsError(f"--names is {self.names!r}", "use 'keep', 'lower' or 'snake'")
        if self.if_exists not in {"fail", "replace"}:
            raise SettingsError(
                f"--if-exists is {self.if_exists!r}", "use 'fail' (the default) or 'replace'"
            )
        for name in ("max_workers", "max_rows_per_second"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise SettingsError(
                    f"--{name.replace('_', '-')} is {limit}; a run needs at least 1 to go on",
                    "leave the option out for no limit; to stop a run for a while: kg pause RUN",
                )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; unknown names are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        lists = {name: tuple(values.get(name, ())) for name in ("only", "exclude", "repairs")}
        return cls(**values | lists)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The ids ``lower <= id < upper`` of one table; no ``upper`` means: to the end, 2^63-1 too."""

    table: str
    lower: int
    upper: int | None
    rows: int

    def __post_init__(self) -> None:
        if self.upper is not None and self.upper <= self.lower:
            raise ValueError(f"empty chunk: {self.lower} <= id < {self.upper}")


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """A private, checkpointed copy of the user's file, identified by its SHA-256.

    ``address`` is where machines without the file fetch it. Where it is served, whoever knows it
    may read it: it stays in the ledger, and out of logs.
    """

    original: Path
    path: Path
    sha256: str
    bytes: int
    address: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a table's rows are in the file, in SQLite's own words.

    ``reads`` are what is asked for each column: a quoted name, ``rowid``, or NULL for one that the
    file lacks. Where rows have no id (WITHOUT ROWID) they are counted from 0 in the ``order`` of
    their key; ``seeks`` are places in that order with the key that stands there, as literals.
    """

    table: str
    reads: tuple[str, ...]
    order: tuple[str, ...] = ()
    seeks: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table as it is carried over: the graph's description plus what only this file has.

    ``last_key`` is the highest id the source ever gave out (AUTOINCREMENT never reuses one).
    ``origin`` is None where the file has the table under the same names, ``id_sum`` where the
    rows have no ids in the file.
    """

    table: Table
    rows: int
    last_key: int
    chunks: tuple[Chunk, ...] = ()
    origin: Origin | None = None
    id_sum: int | None = None

    @property
    def source(self) -> Origin:
        """Where the rows are in the file."""
        names = self.table.column_names
        return self.origin or Origin(self.table.name, tuple(map(quoted, names)))

    @property
    def written(self) -> Self:
        """The table without its generated columns, which the server computes."""
        written = self.table.written
        if written is self.table:
            return self
        kept = set(written.column_names)
        reads = zip(self.table.column_names, self.source.reads, strict=True)
        origin = replace(self.source, reads=tuple(read for name, read in reads if name in kept))
        return replace(self, table=written, origin=origin)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for the ledger; the chunks are steps there and stay out."""
        plain = asdict(self)
        del plain["chunks"]
        return plain

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote, of an earlier version, too."""
        plain = stored["table"]
        primary = plain.get("primary")
        table = Table(
            plain["name"],
            tuple(Column(**c | {"kind": Kind(c["kind"])}) for c in plain["columns"]),
            tuple(Index(**_tuples(i)) for i in plain["indexes"]),
            tuple(_foreign_key(k) for k in plain["foreign_keys"]),
            tuple(Check(**c) for c in plain.get("checks", ())),
            None if primary is None else Index(**_tuples(primary)),
            tuple(plain.get("order", ())),
        )
        origin = stored.get("origin")
        if origin is not None:
            seeks = tuple((place, key) for place, key in origin["seeks"])
            origin = Origin(**_tuples(origin) | {"seeks": seeks})
        id_sum = stored.get("id_sum")
        return cls(table, stored["rows"], stored["last_key"], origin=origin, id_sum=id_sum)


def _foreign_key(plain: Mapping[str, Any]) -> ForeignKey:
    if "column" in plain:  # Before foreign keys had several.
        return ForeignKey(plain["name"], (plain["column"],), plain["table"])
    return ForeignKey(**_tuples(plain))


def _tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the data classes have tuples."""
    return {n: tuple(value) if isinstance(value, list) else value for n, value in plain.items()}


@dataclass(frozen=True, slots=True)
class StepRef:
    """All that a message says. Everything else is read from the ledger.

    ``stage`` is no part of the message: it says which queue it goes to.
    """

    run_id: str
    step_id: int
    epoch: int
    stage: Stage = field(default=Stage.LOAD, compare=False)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the ledger knows it."""

    run_id: str
    state: RunState
    epoch: int
    schema: str
    staging: str
    archive: str
    options: Options
    source: SourceSnapshot
    tables: Mapping[str, PlannedTable]
    protocol: int = PROTOCOL
    error: str | None = None
    hint: str | None = None
    not_carried_over: tuple[NotCarriedOver, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work: a chunk to load or verify, an index to build, a table's keys, a cutover."""

    step_id: int
    run_id: str
    position: int
    stage: Stage
    table: str
    index: str | None
    lower: int
    upper: int | None
    rows: int
    weight: float
    attempts: int

    def __str__(self) -> str:
        """Name the step as messages and logs do."""
        upper = "end" if self.upper is None else self.upper
        match self.stage:
            case Stage.LOAD | Stage.VERIFY:
                return f"step {self.step_id} ({self.stage} {self.table} [{self.lower}, {upper}))"
            case Stage.INDEX:
                return f"step {self.step_id} (index {self.index})"
            case Stage.KEY:
                return f"step {self.step_id} (keys of {self.table})"
            case Stage.CUTOVER:
                return f"step {self.step_id} (cutover)"

    @property
    def chunk(self) -> Chunk:
        """The id range of a load or verify step."""
        return Chunk(self.table, self.lower, self.upper, self.rows)


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step that is planned but not yet in the ledger. ``weight`` is its share of the bar."""

    stage: Stage
    table: str = ""
    index: str | None = None
    lower: int = MIN_ID
    upper: int | None = None
    rows: int = 0
    weight: float = 0.0


class InvalidText(bytes):
    """A TEXT value whose bytes are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one row can't be stored: the column at fault (or None), a reason, an SQLSTATE.

    ``same_as`` is the id of the row whose unique values it repeats.
    """

    row_id: int
    column: str | None
    reason: str
    sqlstate: str
    same_as: int | None = None


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many rows of a table a repair changed, added or saved, and the first of their ids."""

    repair: str
    rows: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawRow:
    """A source row whole: for each column its storage class and its original bytes."""

    row_id: int
    columns: tuple[str, ...]
    storage: tuple[str, ...]
    values: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did. ``loaded`` is a change: a row taken out of staging again counts as -1."""

    loaded: int = 0
    rejected: int = 0
    verified: int = 0
    mismatched: int = 0
    mismatched_ids: tuple[int, ...] = ()
    lane: str | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step. ``outcome`` is None where there was nothing for this worker to do.

    ``dispatch`` are the steps to send now: those it made ready, or itself to be tried again.
    ``state`` is the run's state afterwards, where this step ended it.
    """

    worker: str
    outcome: Outcome | None = None
    step: Step | None = None
    dispatch: tuple[StepRef, ...] = ()
    state: RunState | None = None
