"""The vocabulary in which tables are described, once for both databases."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``nullable`` is False where the graph's own DDL says NOT NULL."""

    name: str
    kind: Kind
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; ``gin`` ones exist on PostgreSQL only."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    gin: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """``column`` refers to the key of ``table``; a deleted parent takes its children with it."""

    name: str
    column: str
    table: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column is its integer key, named ``id`` in the graph."""

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def key(self) -> Column:
        """The primary key column."""
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
