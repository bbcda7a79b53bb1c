"""Read what a SQLite file declares, through its own PRAGMAs. Nothing the file defines is run."""

import sqlite3

from kgcore.schema.sqlite import quoted
from kgcore.schema.translate.source import (
    IndexTerm,
    SourceColumn,
    SourceForeignKey,
    SourceIndex,
    SourceObject,
    SourceSchema,
    SourceTable,
)
from kgcore.schema.translate.sql import fold_ascii

#: What SQLite calls a row id, unless a column has the name.
ROW_IDS = ("rowid", "_rowid_", "oid")
# What table_xinfo calls hidden: columns of virtual tables, generated VIRTUAL, generated STORED.
_GENERATED = (2, 3)


def read_schema(connection: sqlite3.Connection) -> SourceSchema:
    """Return the declarations of the main database, in the order in which they were made.

    Raises :class:`sqlite3.DatabaseError` where SQLite itself can't make sense of them.
    """
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
            tables.append(_table(connection, name, sql, without_rowid=without_rowid))
        elif kind == "trigger":
            others.append(SourceObject("trigger", name, table, sql))
        else:
            called = {"virtual": "virtual table", "shadow": "shadow table"}.get(what, "view")
            others.append(SourceObject(called, name, None, sql))
    return SourceSchema(tuple(tables), tuple(others))


def _table(
    connection: sqlite3.Connection, name: str, sql: str, *, without_rowid: bool
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
    )


def _index(
    connection: sqlite3.Connection, name: str, unique: bool, origin: str, *, partial: bool
) -> SourceIndex:
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
