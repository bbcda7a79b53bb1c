"""Which rows a list has, and in what order: the ends of the statements that list something."""

from datetime import datetime

from kgcore.graph.dialect import Dialect
from kgcore.graph.values import aware, integer, text

#: Where a page ended: the time and the id of its last row.
Place = tuple[str, int]


class Filter:
    """Gathers the conditions of a WHERE clause and their parameters."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._conditions: list[str] = []
        self.params: list[object] = []

    def add(self, condition: str, *params: object) -> None:
        """Add a condition with its parameters."""
        self._conditions.append(condition)
        self.params += params

    def equal(self, column: str, value: str | int | None) -> None:
        """Keep the rows with this value; all of them if it is None."""
        if value is not None:
            known = text(value) if isinstance(value, str) else integer(value, column)
            self.add(f"{column} = ?", known)

    def since(self, column: str, time: datetime) -> None:
        """Keep the rows of this time and later."""
        time_of_row = self._dialect.instant(column)
        self.add(f"{time_of_row} >= ?", self._dialect.instant_parameter(time))

    def until(self, column: str, time: datetime) -> None:
        """Keep the rows before this time."""
        time_of_row = self._dialect.instant(column)
        self.add(f"{time_of_row} < ?", self._dialect.instant_parameter(time))

    def behind(self, column: str, after: Place | None) -> None:
        """Keep the rows that come behind ``after`` in the order :meth:`newest`."""
        if after is not None:
            time = self._dialect.instant_parameter(aware(after[0]))
            self.add(f"({self._dialect.instant(column)}, id) < (?, ?)", time, after[1])

    @property
    def where(self) -> str:
        """The clause, empty without conditions."""
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""

    def newest(self, column: str) -> str:
        """Return ORDER BY: the newest first; of equal times the one added last."""
        return f"ORDER BY {self._dialect.instant(column)} DESC, id DESC"
