"""A run as the channel shows it, read from the fields of its hash."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kgcore.migration.model import IN_PROGRESS, RunState, Stage

# A fetch of which nothing was heard for so long is not shown: its worker is gone.
_FETCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as the channel shows it. Times are Redis's clock, in seconds."""

    run_id: str
    state: str
    stage: str
    percent: float
    tables: Mapping[str, tuple[int, int]]
    rows_per_second: float
    eta_seconds: float | None
    workers: Mapping[str, tuple[int, int, float]]
    errors: tuple[str, ...]
    updated_at: float
    asked_at: float
    fetching: Mapping[str, tuple[int, int]]

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return sum(steps for _, steps, _ in self.workers.values())

    @property
    def has_ended(self) -> bool:
        """Whether the run is in one of its ends."""
        return self.state not in IN_PROGRESS

    def to_json(self) -> dict[str, Any]:
        """Return the documented object; ``fetching`` is there while someone fetches the source."""
        progress: dict[str, Any] = {
            "run_id": self.run_id,
            "state": self.state,
            "stage": self.stage,
            "percent": round(self.percent, 1),
            "tables": {
                name: {"done_rows": done, "total_rows": total}
                for name, (done, total) in self.tables.items()
            },
            "rows_per_second": round(self.rows_per_second, 1),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
            "workers": {
                name: {"rows": rows, "steps": steps, "last_seen": seen}
                for name, (rows, steps, seen) in self.workers.items()
            },
            "errors": list(self.errors),
            "updated_at": self.updated_at,
        }
        if self.fetching:
            progress["fetching"] = {
                name: {"bytes": here, "total_bytes": total}
                for name, (here, total) in self.fetching.items()
            }
        return progress


def read_fields(run_id: str, fields: Mapping[str, str], asked_at: float) -> Progress:
    """Return what the fields of a run's hash say at a moment of Redis's clock."""

    def named(prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in fields.items()
            if name.startswith(prefix)
        }

    done, steps, seen = named("done:"), named("steps:"), named("seen:")
    tables = {name: (int(done.get(name, 0)), int(total)) for name, total in named("total:").items()}
    left = {name: int(number) for name, number in named("left:").items()}
    began, updated = float(fields["began"]), float(fields["updated"])
    running = fields["state"] == RunState.RUNNING
    until = asked_at if running else float(fields.get("ended", updated))
    seconds = max(until - began, 1e-3)
    weight = float(fields["weight"])
    share = min(float(fields["done_weight"]) / weight, 1.0) if weight else 1.0
    return Progress(
        run_id=run_id,
        state=fields["state"],
        stage=next((str(stage) for stage in Stage if left.get(stage, 0) > 0), str(Stage.CUTOVER)),
        percent=100.0 * share,
        tables=tables,
        rows_per_second=sum(rows for rows, _ in tables.values()) / seconds,
        eta_seconds=seconds * (1 - share) / share if running and share > 0 else None,
        workers={
            name: (int(rows), int(steps.get(name, 0)), float(seen.get(name, updated)))
            for name, rows in named("rows:").items()
        },
        errors=tuple(json.loads(fields["errors"])),
        updated_at=updated,
        asked_at=asked_at,
        fetching=_fetching(named("fetch:"), asked_at),
    )


def _fetching(fields: Mapping[str, str], asked_at: float) -> dict[str, tuple[int, int]]:
    parsed = {name: tuple(map(int, value.split())) for name, value in fields.items()}
    return {
        name: (here, total)
        for name, (here, total, at) in parsed.items()
        if asked_at - at < _FETCH_SECONDS
    }
