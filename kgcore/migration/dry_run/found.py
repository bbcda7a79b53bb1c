"""Found: what the scan of some rows of a table says of them, and how it is put together."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

from kgcore.migration.dry_run.tally import Tally


@dataclass(slots=True)
class ColumnSeen:
    """What a column's values are: how many of each storage class, how large, in which time zone."""

    storage: Counter[str] = field(default_factory=Counter)
    low: int | float | None = None
    high: int | float | None = None
    zones: Counter[str] = field(default_factory=Counter)

    def add(self, more: "ColumnSeen") -> None:
        """Take in what another part of the column's values is."""
        self.storage += more.storage
        self.zones += more.zones
        if more.low is not None and more.high is not None:
            self.low = more.low if self.low is None else min(self.low, more.low)
            self.high = more.high if self.high is None else max(self.high, more.high)


@dataclass(slots=True)
class Scanned:
    """What was found in some of a table's rows.

    ``mended`` has the values that chosen repairs leave in columns of keys, by column and id;
    ``mixed`` are the columns of which ADBC made another type than is right.
    """

    rows: int = 0
    bytes: int = 0
    columns: dict[str, ColumnSeen] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    refused: "array[int]" = field(default_factory=lambda: array("q"))
    mended: dict[str, dict[int, str]] = field(default_factory=dict)
    mixed: set[str] = field(default_factory=set)

    def add(self, more: "Scanned") -> None:
        """Take in what was found in other rows of the table."""
        self.rows += more.rows
        self.bytes += more.bytes
        for name, seen in more.columns.items():
            self.columns.setdefault(name, ColumnSeen()).add(seen)
        self.tally.add(more.tally)
        self.refused.extend(more.refused)
        self.mixed |= more.mixed
        for name, values in more.mended.items():
            self.mended.setdefault(name, {}).update(values)
