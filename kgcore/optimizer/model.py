"""What the optimizer finds, as plain values."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TableState:
    """A table: sizes in bytes, rows as the statistics have them, None where nobody counted.

    ``changed_rows`` are those inserted, updated or deleted since the last ANALYZE. Times are ISO
    8601, of the last VACUUM and ANALYZE by hand or by autovacuum.
    """

    name: str
    rows: int | None
    bytes: int
    index_bytes: int
    dead_rows: int | None = None
    changed_rows: int | None = None
    last_vacuum: str | None = None
    last_analyze: str | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index. ``scans`` counts uses since the server's statistics began; None on SQLite.

    ``bloat_bytes`` is an estimate (see :mod:`kgcore.optimizer.bloat`), None where there is none.
    """

    table: str
    name: str
    definition: str
    bytes: int
    scans: int | None = None
    unused: bool = False
    redundant_to: str | None = None
    bloat_bytes: int | None = None
    bloated: bool = False
    advice: str = ""


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """A statement of pg_stat_statements; ``share`` is its part of all statements' time, 0 to 1."""

    query: str
    calls: int
    mean_ms: float
    total_ms: float
    rows: int
    share: float


@dataclass(frozen=True, slots=True)
class SlowQueries:
    """The slowest statements, or, where nobody records them, how that is switched on."""

    available: bool
    note: str
    queries: tuple[SlowQuery, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A setting: what it is, what would be better, why; ``change`` is False where it is fine."""

    name: str
    current: str
    suggested: str
    change: bool
    why: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a plan, with those it takes its rows from.

    ``rows`` and ``ms`` are measured, over all times it ran; None where the statement wasn't run.
    """

    what: str
    estimated_rows: float | None = None
    rows: float | None = None
    ms: float | None = None
    loops: float = 1
    details: tuple[str, ...] = ()
    steps: tuple["Step", ...] = ()

    def lines(self, first: str = "", rest: str = "") -> Iterator[str]:
        """Yield the step and those below it as a tree of text."""
        yield f"{first}{self.what}{self._numbers()}"
        below = "│  " if self.steps else "   "
        yield from (f"{rest}{below}{detail}" for detail in self.details)
        for position, step in enumerate(self.steps):
            last = position == len(self.steps) - 1
            yield from step.lines(
                rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
            )

    def _numbers(self) -> str:
        parts = []
        if self.rows is not None:
            parts.append(f"{self.rows:,.0f} rows")
            if self.estimated_rows is not None and self.estimated_rows * self.loops != self.rows:
                parts.append(f"{self.estimated_rows * self.loops:,.0f} expected")
        elif self.estimated_rows is not None:
            parts.append(f"{self.estimated_rows:,.0f} rows expected")
        if self.loops > 1:
            parts.append(f"{self.loops:,.0f} times")
        if self.ms is not None:
            parts.append(f"{self.ms:,.1f} ms")
        return f"  ({', '.join(parts)})" if parts else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the database does a statement, and what stands out in it.

    ``ms`` is None where it wasn't run. ``indexes`` are those it uses.
    """

    statement: str
    root: Step
    hints: tuple[str, ...]
    ms: float | None = None
    indexes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "\n".join([*self.root.lines(), *(f"hint: {hint}" for hint in self.hints)])

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as ``kg optimize --json`` prints them."""
        return asdict(self) | {"indexes": sorted(self.indexes)}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything at once; ``notes`` say what could not be found, and since when was counted."""

    backend: str
    tables: tuple[TableState, ...]
    indexes: tuple[IndexState, ...]
    slow_queries: SlowQueries
    settings: tuple[Suggestion, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as ``kg optimize --json`` prints them."""
        return asdict(self)
