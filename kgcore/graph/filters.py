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

    def equal_text(self, column: str, value: str | None) -> None:
        """Keep the rows with this text; all of them if it is None."""
        if value is not None:
            self.add(f"{column} = ?", text(value))

    def equal_id(self, column: str, value: int | None) -> None:
        """Keep the rows with this id; all of them if it is None."""
        if value is not None:
            self.add(f"{column} = ?", integer(value, column))

    def since(self, column: str, time: datetime) -> None:
        """Keep the rows of this time and later."""
        time_of_row = self._dialect.instant(column)
        self.add(f"{time_of_row} >= ?", self._dialect.instant_parameter(time))

    def until(self, column: str, time: datetime) -> None:
        """Keep the rows before this time."""
        time_of_row = self._dialect.instant(column)
        self.add(f"{time_of_row} < ?", self._dialect.instant_parameter(time))

    def behind(self, table: str, column: str, after: Place | None) -> None:
        """Keep the rows that come behind ``after`` in the order :meth:`newest`."""
        if after is None:
            return
        time, row_id = aware(after[0]), integer(after[1], "after")
        last: tuple[object, ...] = (self._dialect.instant_parameter(time),)
        place = "?"
        infinite = self._dialect.infinite(time)
        if infinite is not None:  # Which of both it was, the row itself knows.
            place = f"coalesce((SELECT {column} FROM {table} WHERE id = ? AND {column} = ?), ?)"
            last = (row_id, infinite, *last)
        self.add(f"({self._dialect.instant(column)}, id) < ({place}, ?)", *last, row_id)

    @property
    def where(self) -> str:
        """The clause, empty without conditions."""
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""

    def newest(self, column: str) -> str:
        """Return ORDER BY: the newest first; of equal times the one added last."""
        return f"ORDER BY {self._dialect.instant(column)} DESC, id DESC"
