"""Prediction: what a run would do, as data and as the object of ``kg migrate --dry-run --json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kgcore.migration.dry_run.sample import Estimate
from kgcore.migration.dry_run.tally import Example
from kgcore.migration.model import Chunk
from kgcore.migration.new_run import Prepared
from kgcore.migration.repairs import Proposal
from kgcore.model import Kind
from kgcore.schema.postgres import TYPES


@dataclass(frozen=True, slots=True)
class PredictedReject:
    """A reason for which rows of a table would be refused. ``finding`` groups reasons."""

    column: str | None
    reason: str
    sqlstate: str
    rows: int
    examples: tuple[Example, ...]
    finding: str
    repair: str | None = None  # by which the rows are left out knowingly

    @property
    def example_ids(self) -> tuple[int, ...]:
        """The ids of the first rows."""
        return tuple(example.row_id for example in self.examples)

    def to_json(self) -> dict[str, Any]:
        """Return a member of ``rejects``."""
        return {
            "column": self.column,
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "finding": self.finding,
            "rows": self.rows,
            "example_ids": list(self.example_ids),
            "examples": [{"id": item.row_id, "value": item.value} for item in self.examples],
            "repair": self.repair,
        }


@dataclass(frozen=True, slots=True)
class PredictedColumn:
    """A column's type in the target, and the evidence: what was declared, and what is there.

    ``storage`` counts values by SQLite's storage class (``number`` is integers and reals together),
    ``zones`` timestamps by how they say their zone: ``Z``, ``offset``, or ``none``, which is UTC.
    """

    kind: Kind
    declared: str
    storage: Mapping[str, int]
    low: int | float | None = None
    high: int | float | None = None
    zones: Mapping[str, int] | None = None
    why: str | None = None

    @property
    def type(self) -> str:
        """PostgreSQL's name of the type."""
        return TYPES[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Return a member of ``evidence``."""
        return {
            "type": self.type,
            "declared": self.declared,
            "storage": dict(self.storage),
            "min": _json_number(self.low),
            "max": _json_number(self.high),
            "zones": dict(self.zones or {}),
            "why": self.why,
        }


def _json_number(value: float | None) -> float | str | None:
    """Return what JSON has no number for as text: ``inf``, ``-inf``, ``nan``."""
    return value if value is None or math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class PredictedTable:
    """What would become of a table. ``bytes`` are those of its values, as they are read.

    ``ids`` are the lowest and the highest of what its rows are told apart by; None without rows.
    """

    rows: int
    bytes: int
    plan: tuple[Chunk, ...]
    ids: tuple[int, int] | None
    columns: Mapping[str, PredictedColumn]
    rejects: tuple[PredictedReject, ...]
    proposals: tuple[Proposal, ...] = ()

    @property
    def rejected_rows(self) -> int:
        """Rows that would be refused, those among them that a chosen repair leaves out."""
        return sum(reject.rows for reject in self.rejects)

    @property
    def counted_rows(self) -> int:
        """Rows that would count against the limit."""
        return sum(reject.rows for reject in self.rejects if reject.repair is None)

    @property
    def findings(self) -> Mapping[str, int]:
        """Refused rows by what is wrong with them."""
        found: dict[str, int] = {}
        for reject in self.rejects:
            found[reject.finding] = found.get(reject.finding, 0) + reject.rows
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a member of ``tables``."""
        return {
            "source_rows": self.rows,
            "bytes": self.bytes,
            "chunks": len(self.plan),
            "plan": [{"lower": c.lower, "upper": c.upper, "rows": c.rows} for c in self.plan],
            "columns": {name: column.type for name, column in self.columns.items()},
            "evidence": {name: column.to_json() for name, column in self.columns.items()},
            "rejected_rows": self.rejected_rows,
            "findings": dict(self.findings),
            "rejects": [reject.to_json() for reject in self.rejects],
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do. ``unforetold`` are checks and indexes that only the server can judge."""

    prepared: Prepared
    tables: Mapping[str, PredictedTable]
    estimate: Estimate
    unforetold: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows in the source."""
        return sum(table.rows for table in self.tables.values())

    @property
    def rejected_rows(self) -> int:
        """Rows that would be refused."""
        return sum(table.rejected_rows for table in self.tables.values())

    @property
    def counted_rows(self) -> int:
        """Rows that would count against ``--max-rejects``."""
        return sum(table.counted_rows for table in self.tables.values())

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Repairs that would help, and how many rows each would save."""
        return tuple(item for table in self.tables.values() for item in table.proposals)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``kg migrate --dry-run --json`` prints."""
        source = self.prepared.source
        return {
            "state": "dry-run",
            "source": {
                "path": str(source.original),
                "sha256": source.sha256,
                "bytes": source.bytes,
            },
            "tables": {name: table.to_json() for name, table in self.tables.items()},
            "not_carried_over": [asdict(note) for note in self.prepared.not_carried_over],
            "unforetold": list(self.unforetold),
            "repairs": [
                {"table": item.table, "repair": item.repair, "rows": item.rows}
                for item in self.proposals
            ],
            "totals": {"source_rows": self.rows, "rejected_rows": self.rejected_rows},
            "estimate": {
                "target_bytes": self.estimate.target_bytes,
                "seconds": round(self.estimate.seconds, 1),
                "basis": self.estimate.basis,
            },
        }
