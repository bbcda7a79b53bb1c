"""The vocabulary in which tables are described, once for both databases."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds. Each database's type is derived from it in :mod:`kgcore.schema`."""

    KEY = "key"  # 64-bit auto-increment primary key
    INTEGER = "integer"  # 64-bit
    REAL = "real"  # IEEE double
    TEXT = "text"
    BLOB = "blob"
    JSON = "json"
    TIMESTAMP = "timestamp"  # an instant; UTC
    DATE = "date"
    BOOLEAN = "boolean"
    NUMERIC = "numeric"  # any number, in decimal
    ROW = "row"  # the source's row number, by which rows of a table without integer key are told
    # apart; it is dropped at the cutover


INTEGERS = frozenset({Kind.KEY, Kind.INTEGER, Kind.ROW})


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``nullable`` is False where its DDL says NOT NULL.

    ``default`` and ``generated`` are expressions in PostgreSQL's SQL. A generated column is never
    written: the server computes it.
    """

    name: str
    kind: Kind
    nullable: bool = True
    default: str | None = None
    generated: str | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; ``gin`` ones exist on PostgreSQL only.

    ``keys`` are PostgreSQL's expressions where plain ``columns`` don't say it all (an expression, a
    folded case, a direction); ``columns`` are then those that the expressions read. ``where`` is
    the predicate of a partial index. A unique one is attached as a constraint if ``constraint``.
    """

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    gin: bool = False
    keys: tuple[str, ...] = ()
    where: str | None = None
    constraint: bool = True

    @property
    def is_constraint(self) -> bool:
        """Whether it stands behind a PRIMARY KEY or UNIQUE constraint."""
        return self.unique and self.constraint and not self.keys and self.where is None


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """``columns`` refer to ``parents``, a unique key of ``table``.

    In the graph a deleted parent takes its children with it.
    """

    name: str
    columns: tuple[str, ...]
    table: str
    parents: tuple[str, ...] = ("id",)
    on_delete: str = "CASCADE"
    on_update: str = "NO ACTION"
    deferred: bool = False  # DEFERRABLE INITIALLY DEFERRED


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on every row, in PostgreSQL's SQL."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column is an integer by which its rows are told apart.

    In the graph that is its key, named ``id``. Where a table has no integer key it is a column of
    kind ROW. ``order`` is the order in which the columns are created, where it is another;
    ``primary`` the primary key, where it is not the first column.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    primary: Index | None = None
    order: tuple[str, ...] = ()

    @property
    def key(self) -> Column:
        """The column by which rows are told apart."""
        return self.columns[0]

    @property
    def text_keys(self) -> tuple[tuple[str, ...], ...]:
        """For each B-tree index that holds text, its text columns: their lengths are limited."""
        text = {column.name for column in self.columns if column.kind is Kind.TEXT}
        keys = (
            tuple(name for name in index.columns if name in text)
            for index in self.indexes
            if not index.gin
        )
        return tuple(key for key in keys if key)

    @property
    def column_names(self) -> tuple[str, ...]:
        """All column names, in the order of every SELECT and COPY of this project."""
        return tuple(column.name for column in self.columns)

    @property
    def written(self) -> "Table":
        """The table without its generated columns: what a load reads and stores."""
        stored = tuple(column for column in self.columns if column.generated is None)
        return self if len(stored) == len(self.columns) else replace(self, columns=stored)


@dataclass(frozen=True, slots=True)
class NotCarriedOver:
    """Something of the source's schema that the target does not get, with its own DDL, and why.

    ``object`` says what it is ("view", "index", "check", "default" …), with its name if it has one;
    ``table`` is None for what belongs to no table.
    """

    table: str | None
    object: str
    ddl: str
    why: str
