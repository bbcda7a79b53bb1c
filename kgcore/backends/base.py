"""The interface both databases are used through, and what is the same in each."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

T = TypeVar("T")

#: A row by column name: a plain ``dict`` on both databases. Of two columns with the same name the
#: last one stands in it; give one an alias.
Row = dict[str, Any]
Params = Sequence[Any]
#: Takes what it needs from a cursor of either driver: the two have no common type.
Take = Callable[[Any], T]


class NotARead(Exception):  # noqa: N818  # A signal between backend and base, never an error.
    """The statement needs more than reading; nothing of it was done."""


class KGBackend(ABC):
    """A database that holds the graph. All threads may use one object.

    *Statements* have ``?`` for each parameter, in order (never ``?1``). A question mark that is not
    in a literal is written ``??``, a percent sign is just that: see :mod:`.placeholders`. Of the
    parameters, a ``dict`` or ``list`` is sent as JSON text, and a ``datetime`` without a zone is
    UTC: see :mod:`.parameters`.

    *Transactions* belong to a thread. :meth:`execute` and :meth:`executemany` open one if none is
    open, and only :meth:`commit` makes their work last: :meth:`rollback`, :meth:`close` and the end
    of the thread undo it. A fetch outside a transaction leaves none open, unless its statement
    writes or locks (``INSERT … RETURNING``): then it opens one as ``execute`` does.

    *Errors* of a statement are the driver's own (:class:`sqlite3.Error`, :class:`psycopg2.Error`).
    After one, roll back: PostgreSQL refuses everything else. The statement that would have opened
    the transaction leaves none behind when it fails.
    """

    name: ClassVar[str]

    @abstractmethod
    def connect(self) -> None:
        """Check that the database can be used; again after :meth:`close`, it is open again.

        Other calls connect by themselves, so this is where a wrong setting shows early. Raises
        :class:`~kgcore.errors.SourceError` (SQLite), :class:`~kgcore.errors.TargetError`.
        """

    @abstractmethod
    def init_schema(self) -> None:
        """Create what is missing of the graph's tables and indexes, and commit.

        Any number of processes may do so at once. In an open transaction it becomes part of it.
        Where nothing is missing, nothing is locked.
        """

    @abstractmethod
    def commit(self) -> None:
        """End this thread's transaction and keep its work; nothing to do if none is open."""

    @abstractmethod
    def rollback(self) -> None:
        """End this thread's transaction and undo its work; nothing to do if none is open."""

    @abstractmethod
    def close(self) -> None:
        """Undo this thread's transaction and close; may be called again.

        A connection that another thread has in a call or a transaction is closed when that ends.
        """

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether this thread has an open transaction."""

    def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement in this thread's transaction.

        Returns how many rows it inserted, updated or deleted itself (not by cascade); 0 for any
        other statement.
        """
        return self._in_transaction(lambda: self._run_counted(sql, params))

    def executemany(self, sql: str, seq: Iterable[Params]) -> None:
        """Run a statement that returns no rows, once for each parameter row, in the transaction."""
        self._in_transaction(lambda: self._run_many(sql, seq))

    def fetchone(self, sql: str, params: Params = ()) -> Row | None:
        """Return the first row, or None. The whole result may be transferred: use LIMIT 1."""
        return self._fetch(sql, params, _first)

    def fetchall(self, sql: str, params: Params = ()) -> list[Row]:
        """Return all rows."""
        return self._fetch(sql, params, all_rows)

    def read(self, sql: str, params: Params = ()) -> list[Row]:
        """Return all rows of a statement of which the caller knows that it only reads.

        On PostgreSQL that spares finding out whether it does: one that writes is committed. And
        timestamps come as ISO 8601 text that ends in Z.
        """
        return self.fetchall(sql, params)

    def fetch_and_commit(self, sql: str, params: Params = ()) -> list[Row]:
        """Run a statement that writes, keep its work, and return its rows (``RETURNING …``).

        On PostgreSQL that is one round trip. In an open transaction it is part of that one, as
        :meth:`fetchall` is.
        """
        if self.in_transaction:
            return self.fetchall(sql, params)
        with self.transaction():
            return self.fetchall(sql, params)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end of the block; roll back when an error leaves it.

        In an open transaction the block is a savepoint: an error undoes the block alone, and the
        work lasts when whoever opened the transaction commits it. Don't commit in the block.
        """
        if self.in_transaction:
            with self._savepoint():
                yield
            return
        self._begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _begin(self) -> None:
        """Open a transaction; this thread has none."""

    @abstractmethod
    def _run(self, sql: str, params: Params, take: Take[T]) -> T:
        """Run a statement in the open transaction; return what ``take`` makes of its cursor."""

    @abstractmethod
    def _run_counted(self, sql: str, params: Params) -> int:
        """Run a statement in the open transaction; return how many rows it changed."""

    @abstractmethod
    def _run_many(self, sql: str, seq: Iterable[Params]) -> None:
        """Run a statement for each parameter row in the open transaction."""

    @abstractmethod
    def _read(self, sql: str, params: Params, take: Take[T]) -> T:
        """Run a statement outside a transaction, or raise :class:`NotARead`."""

    def _fetch(self, sql: str, params: Params, take: Take[T]) -> T:
        if not self.in_transaction:
            try:
                return self._read(sql, params, take)
            except NotARead:
                pass  # It opens a transaction then.
        return self._in_transaction(lambda: self._run(sql, params, take))

    def _in_transaction(self, work: Callable[[], T]) -> T:
        if self.in_transaction:
            return work()
        self._begin()
        try:
            return work()
        except BaseException:
            self.rollback()
            raise

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        # Blocks in blocks may share the name: each command means the innermost one.
        self.execute("SAVEPOINT kg_block")
        try:
            yield
        except BaseException:  # Ctrl-C may be caught outside, and the transaction committed.
            self.execute("ROLLBACK TO SAVEPOINT kg_block")
            self.execute("RELEASE SAVEPOINT kg_block")
            raise
        self.execute("RELEASE SAVEPOINT kg_block")


def _first(cursor: Any) -> Row | None:
    if cursor.description is None:
        return None
    row = cursor.fetchone()
    return None if row is None else dict(zip(_names(cursor), row, strict=True))


def all_rows(cursor: Any) -> list[Row]:
    """Return the rows of a cursor of either driver; none where the statement has no result."""
    if cursor.description is None:
        return []
    names = _names(cursor)
    # A driver's row has all its columns; to check that takes a quarter of the time.
    return [dict(zip(names, row)) for row in cursor.fetchall()]  # noqa: B905


def _names(cursor: Any) -> list[str]:
    columns = cursor.description
    if isinstance(columns[0], tuple):
        return [column[0] for column in columns]
    # psycopg2's columns can be indexed, too; by attribute they take a sixth of the time, and that
    # was a noticeable part of a short read.
    return [column.name for column in columns]
