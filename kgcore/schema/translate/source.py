"""An inspected SQLite schema: what the file says of its tables, as frozen data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column as ``PRAGMA table_xinfo`` has it; ``key`` is its place in the key, from 1, or 0."""

    name: str
    declared: str
    not_null: bool = False
    default: str | None = None
    key: int = 0
    generated: bool = False


@dataclass(frozen=True, slots=True)
class IndexTerm:
    """A term of an index: a column's name, or None for an expression or the row id."""

    name: str | None
    collation: str = "BINARY"
    descending: bool = False


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """An index; ``origin`` is ``c`` (CREATE INDEX, in ``sql``), ``u`` (UNIQUE) or ``pk``."""

    name: str
    terms: tuple[IndexTerm, ...]
    unique: bool
    origin: str
    partial: bool = False
    sql: str = ""


@dataclass(frozen=True, slots=True)
class SourceForeignKey:
    """A foreign key; no ``parents`` means the primary key of ``table``."""

    columns: tuple[str, ...]
    table: str
    parents: tuple[str, ...]
    on_delete: str
    on_update: str


@dataclass(frozen=True, slots=True)
class SourceTable:
    """An ordinary table.

    ``row_id`` is what SQLite calls the row id here (``rowid``, unless a column took the name), None
    in a WITHOUT ROWID table; ``integer_key`` the column that is the row id, if one is. ``utf16``
    says that the file's texts are kept, and ordered, in UTF-16.
    """

    name: str
    sql: str
    columns: tuple[SourceColumn, ...]
    indexes: tuple[SourceIndex, ...] = ()
    foreign_keys: tuple[SourceForeignKey, ...] = ()
    row_id: str | None = "rowid"
    integer_key: str | None = None
    utf16: bool = False

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns, in the key's order."""
        keys = sorted((column.key, column.name) for column in self.columns if column.key)
        return tuple(name for _, name in keys)


@dataclass(frozen=True, slots=True)
class SourceObject:
    """A view, a trigger, a virtual table or its shadow; ``table`` is the trigger's."""

    kind: str
    name: str
    table: str | None
    sql: str


@dataclass(frozen=True, slots=True)
class SourceSchema:
    """All that a SQLite file declares."""

    tables: tuple[SourceTable, ...]
    others: tuple[SourceObject, ...] = ()
