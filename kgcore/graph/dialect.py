"""The few pieces of SQL in which the two databases differ, each as text to put into a statement."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kgcore.backends import Row
from kgcore.backends.casters import instant_text
from kgcore.graph.values import parsed_metadata


class _Now:
    """A parameter that stands for the time at which its statement runs."""


NOW = _Now()

_INFINITE = {
    datetime.min.replace(tzinfo=UTC): "-infinity",
    datetime.max.replace(tzinfo=UTC): "infinity",
}


@dataclass(frozen=True, slots=True, eq=False)  # There are two, and statements are kept for each.
class Dialect:
    """What the graph's statements are filled in with for one database."""

    is_postgres: bool
    #: A parameter with JSON text.
    json: str
    #: The parameter :data:`NOW`.
    now: str
    #: What is put before a read that looks at much.
    heavy: str

    def instant(self, column: str) -> str:
        """Return an expression that orders a timestamp column by time.

        In SQLite times are text, written with 0 to 6 digits of a second: as such ``…:00Z`` would
        come after ``…:00.5Z``. Here all have 6 digits.
        """
        if self.is_postgres:
            return column
        bare = f"rtrim(replace({column}, ' ', 'T'), 'Z')"
        digits = f"CASE length({bare}) WHEN 19 THEN '.000000' ELSE '000000' END"
        return (
            f"CASE length({column}) WHEN 27 THEN {column}"  # The first two are quick.
            f" WHEN 20 THEN substr({column}, 1, 19) || '.000000Z'"
            f" ELSE substr({bare} || {digits}, 1, 26) || 'Z' END"
        )

    def instant_parameter(self, time: datetime) -> Any:
        """Return an aware time as a parameter that :meth:`instant` can be compared with."""
        if self.is_postgres:
            return time
        return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    def infinite(self, time: datetime) -> str | None:
        """Return the infinite time that also comes out of the database as this one, or None.

        PostgreSQL has such times, Python has none: psycopg2 gives the first or last that it has.
        """
        return _INFINITE.get(time) if self.is_postgres else None

    def metadata(self, stored: Any) -> Any:
        """Return metadata as the graph's callers get it: ``{}`` where it is missing or ``null``.

        PostgreSQL's comes parsed, so a text is a JSON string there. Raises as
        :func:`~kgcore.graph.values.parsed_metadata`.
        """
        value = stored if self.is_postgres else parsed_metadata(stored)
        return {} if value is None else value

    def time(self, stored: Any) -> str:
        """Return a time that was read as the graph's callers get it: text, in UTC."""
        return str(stored) if self.is_postgres else instant_text(stored)

    def record(self, row: Row) -> Row:
        """Return a row that was read as the graph's callers get it; changes the row itself."""
        if "metadata" in row:
            row["metadata"] = self.metadata(row["metadata"])
        if not self.is_postgres:  # Else they are what they shall be.
            for name in ("created_at", "updated_at"):
                if name in row:
                    row[name] = self.time(row[name])
        return row

    def latest(self, column: str) -> str:
        """Return what an upsert sets a timestamp column to.

        On PostgreSQL a statement may wait for another that began later, and times must not go back.
        """
        new = f"excluded.{column.rpartition('.')[2]}"
        return f"greatest({column}, {new})" if self.is_postgres else new


# Not now(), which in a transaction stands still, nor clock_timestamp(), which in a statement moves.
POSTGRES = Dialect(
    is_postgres=True,
    json="CAST(? AS jsonb)",
    now="coalesce(CAST(? AS timestamptz), statement_timestamp())",
    # Up to PostgreSQL 18 a statement of high estimated cost is compiled first, if the server can:
    # so a search took 560 ms and not 140 ms, statistics 110 ms and not 70 ms.
    heavy="SET LOCAL jit = off;\n",
)
# SQLite's own clock has milliseconds: two updates could not be put in order.
SQLITE = Dialect(is_postgres=False, json="?", now="?", heavy="")
