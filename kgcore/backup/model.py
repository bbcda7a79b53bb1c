"""What backup and restore report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

IfExists = Literal["fail", "replace"]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made: ``tables`` are the rows in it, read back from it."""

    path: Path
    backend: str
    bytes: int
    tables: Mapping[str, int]
    seconds: float

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``kg backup --json`` prints."""
        return {
            "path": str(self.path),
            "backend": self.backend,
            "bytes": self.bytes,
            "tables": dict(self.tables),
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore that was done: ``replaced`` are the tables that had rows before."""

    path: Path
    backend: str
    tables: Mapping[str, int]
    replaced: tuple[str, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``kg restore --json`` prints."""
        return {
            "path": str(self.path),
            "backend": self.backend,
            "tables": dict(self.tables),
            "rows": self.rows,
            "replaced": list(self.replaced),
            "seconds": round(self.seconds, 3),
        }
