"""Report: what a run did, as the one object that ``--json`` prints and people are shown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kgcore.migration.ledger.repairs import RepairTotals
from kgcore.migration.ledger.totals import TableTotals
from kgcore.migration.model import Run, RunState

_COUNTS = ("source_rows", "loaded_rows", "rejected_rows", "verified_rows", "mismatched_rows")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tables went. Never holds a password."""

    host: str
    port: int
    database: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known of a run. ``seconds`` are wall-clock; stages of tables overlap."""

    run: Run
    target: Target
    tables: Mapping[str, TableTotals]
    seconds: Mapping[str, float]
    chunks: int
    workers: int
    errors: tuple[str, ...]
    mismatched_ids: Mapping[str, tuple[int, ...]]
    repairs: tuple[RepairTotals, ...] = ()

    @property
    def totals(self) -> dict[str, int]:
        """The five counts, over all tables."""
        return {
            name: sum(getattr(table, name) for table in self.tables.values()) for name in _COUNTS
        }

    @property
    def rows_per_second(self) -> float:
        """Rows that arrived, over the whole run's seconds, freeze to cutover."""
        total = self.seconds["total"]
        return self.totals["loaded_rows"] / total if total > 0 else 0.0

    @property
    def is_done(self) -> bool:
        """Whether the new tables went live."""
        return self.run.state is RunState.DONE

    def to_json(self) -> dict[str, Any]:
        """Return the documented object.

        ``not_carried_over`` and ``repairs`` are there if there is something to say.
        """
        report: dict[str, Any] = {
            "run_id": self.run.run_id,
            "state": str(self.run.state),
            "source": {
                "path": str(self.run.source.original),
                "sha256": self.run.source.sha256,
                "bytes": self.run.source.bytes,
            },
            "target": {
                "host": self.target.host,
                "port": self.target.port,
                "database": self.target.database,
            },
            "tables": {
                name: {count: getattr(table, count) for count in _COUNTS}
                for name, table in self.tables.items()
            },
            "totals": self.totals,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "rows_per_second": round(self.rows_per_second, 1),
            "chunks": self.chunks,
            "workers": self.workers,
            "errors": list(self.errors),
        }
        if self.run.not_carried_over:
            report["not_carried_over"] = [asdict(note) for note in self.run.not_carried_over]
        if self.repairs:
            report["repairs"] = [asdict(item) for item in self.repairs]
        return report
