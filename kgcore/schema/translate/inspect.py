"""Read what a SQLite file declares, through its own PRAGMAs. Nothing the file defines is run.

Its text may be in any encoding, whatever the file says: bytes that are no UTF-8 come as lone
surrogates, by which :func:`~kgcore.schema.translate.sql.is_unicode` knows them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from kgcore.schema.sqlite import quoted
from kgcore.schema.translate.encoding import Encoding
from kgcore.schema.translate.source import (
    IndexTerm,
    SourceColumn,
    SourceForeignKey,
    SourceIndex,
    SourceObject,
    SourceSchema,
    SourceTable,
)
from kgcore.schema.translate.sql import fold_ascii, is_unicode, shown

#: What SQLite calls a row id, unless a column has the name.
ROW_IDS = ("rowid", "_rowid_", "oid")
# What table_xinfo calls hidden: columns of virtual tables, generated VIRTUAL, generated STORED.
_GENERATED = (2, 3)


def read_schema(connection: sqlite3.Connection) -> SourceSchema:
    """Return the declarations of the main database, in the order in which they were made.

    A table whose name is not Unicode comes without columns: SQLite can't be asked for it by name.
    Raises :class:`sqlite3.DatabaseError` where SQLite itself can't make sense of them.
    """
    utf16 = Encoding(connection).is_utf16
    with _tolerant(connection):
        return _schema(connection, utf16=utf16)


def declared_types(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return the declared types of a table's columns, for people to read or to look for words."""
    with _tolerant(connection):
        rows = connection.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    return {name: shown(declared) for _, name, declared, *_ in rows}


@contextmanager
def _tolerant(connection: sqlite3.Connection) -> Iterator[None]:
    before = connection.text_factory
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = before


def _schema(connection: sqlite3.Connection, *, utf16: bool) -> SourceSchema:
    kinds = {
        name: (kind, bool(without_rowid))
        for schema, name, kind, _, without_rowid, *_ in connection.execute("PRAGMA table_list")
        if schema == "main"
    }
    tables, others = [], []
    for kind, name, table, sql in connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"
        " WHERE type <> 'index' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall():
        what, without_rowid = kinds.get(name, (kind, False))
        if kind == "table" and what == "table":
            tables.append(
                _table(connection, name, sql, without_rowid=without_rowid, utf16=utf16)
                if is_unicode(name)
                else SourceTable(name, sql, ())
            )
        elif kind == "trigger":
            others.append(SourceObject("trigger", name, table, sql))
        else:
            called = {"virtual": "virtual table", "shadow": "shadow table"}.get(what, "view")
            others.append(SourceObject(called, name, None, sql))
    return SourceSchema(tuple(tables), tuple(others))


def _table(
    connection: sqlite3.Connection, name: str, sql: str, *, without_rowid: bool, utf16: bool
) -> SourceTable:
    columns = tuple(
        SourceColumn(column, declared or "", bool(not_null), default, key, hidden in _GENERATED)
        for _, column, declared, not_null, default, key, hidden in connection.execute(
            f"PRAGMA table_xinfo({quoted(name)})"
        )
    )
    indexes = tuple(
        _index(connection, index, bool(unique), origin, partial=bool(partial))
        for _, index, unique, origin, partial in reversed(
            connection.execute(f"PRAGMA index_list({quoted(name)})").fetchall()
        )
    )
    taken = {fold_ascii(column.name) for column in columns}
    row_id = next((word for word in ROW_IDS if word not in taken), None)
    keys = [column for column in columns if column.key]
    # A key with an index of its own is no row id: INTEGER PRIMARY KEY DESC, by an old accident.
    is_row_id = (
        not without_rowid
        and len(keys) == 1
        and keys[0].declared.upper() == "INTEGER"
        and all(index.origin != "pk" for index in indexes)
    )
    integer_key = keys[0].name if is_row_id else None
    return SourceTable(
        name,
        sql,
        columns,
        indexes,
        _foreign_keys(connection, name),
        None if without_rowid else quoted(integer_key) if integer_key else row_id,
        integer_key,
        utf16,
    )


def _index(
    connection: sqlite3.Connection, name: str, unique: bool, origin: str, *, partial: bool
) -> SourceIndex:
    if not is_unicode(name):
        (sql,) = connection.execute(
            "SELECT max(sql) FROM sqlite_master WHERE type = 'index' AND CAST(name AS BLOB) = ?",
            (name.encode(errors="surrogateescape"),),
        ).fetchone()
        return SourceIndex(name, (), unique, origin, partial, sql or "")
    terms = tuple(
        IndexTerm(column, collation or "BINARY", bool(descending))
        for _, _, column, descending, collation, is_key in connection.execute(
            f"PRAGMA index_xinfo({quoted(name)})"
        )
        if is_key
    )
    row = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (name,)
    ).fetchone()
    return SourceIndex(name, terms, unique, origin, partial, (row and row[0]) or "")


def _foreign_keys(connection: sqlite3.Connection, name: str) -> tuple[SourceForeignKey, ...]:
    found: dict[int, SourceForeignKey] = {}
    for number, _, table, column, parent, on_update, on_delete, _ in connection.execute(
        f"PRAGMA foreign_key_list({quoted(name)})"
    ):
        so_far = found.get(number)
        found[number] = SourceForeignKey(
            (*(so_far.columns if so_far else ()), column),
            table,
            (*(so_far.parents if so_far else ()), *((parent,) if parent else ())),
            on_delete,
            on_update,
        )
    return tuple(found[number] for number in sorted(found, reverse=True))
