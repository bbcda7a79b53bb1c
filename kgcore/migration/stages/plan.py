"""Plan: what is in the source, as which tables it arrives, and in which chunks.

Chunks hold about equal numbers of rows. Their bounds are found by walking the id index, because
ids are sparse; together they cover every id exactly once.
"""

import sqlite3
from collections.abc import Iterator

from kgcore.errors import SourceError
from kgcore.migration.model import MIN_ID, Chunk, Options, PlannedTable
from kgcore.model import Column, Kind, Table
from kgcore.schema import TABLES, quoted

#: A chunk is held in memory about three times (Arrow, COPY, driver). 16 MiB of rows keeps a worker
#: far below 300 MB whatever the file's size.
_CHUNK_BYTES = 16 * 2**20

_AFFINITIES = (
    (Kind.INTEGER, ("INT",)),
    (Kind.TEXT, ("CHAR", "CLOB", "TEXT")),
    (Kind.BLOB, ("BLOB",)),
    (Kind.REAL, ("REAL", "FLOA", "DOUB")),
)
_BY_STORAGE = {
    frozenset({"integer"}): Kind.INTEGER,
    frozenset({"real"}): Kind.REAL,
    frozenset({"integer", "real"}): Kind.REAL,
    frozenset({"blob"}): Kind.BLOB,
}

#: PostgreSQL cuts longer names off, in silence.
_NAME_BYTES = 63


def plan(connection: sqlite3.Connection, size: int, options: Options) -> tuple[PlannedTable, ...]:
    """Return the tables of the source snapshot with their chunks.

    ``size`` is the file's length in bytes; it bounds the rows of a chunk. Raises
    :class:`SourceError` where the file is not a knowledge graph, or holds what can't be carried
    over and was not excluded.
    """
    found = _tables(connection)
    described = [_described(connection, table, found, options) for table in TABLES]
    known = {table.name for table in TABLES}
    extra = [
        _extra(connection, name)
        for name in found
        if name.lower() not in known and name not in options.exclude
    ]
    counted = [(*pair, _count(connection, pair[0])) for pair in [*described, *extra]]
    total = sum(rows for _, _, rows in counted)
    chunk_rows = _bounded(options, size, total)
    return tuple(
        PlannedTable(
            table,
            rows,
            _last_key(connection, table, rows),
            tuple(chunks(connection, table, rows, chunk_rows)),
            absent,
        )
        for table, absent, rows in counted
    )


def chunks(
    connection: sqlite3.Connection, table: Table, rows: int, chunk_rows: int
) -> Iterator[Chunk]:
    """Yield half-open id ranges of at most ``chunk_rows`` rows that cover all ids exactly once."""
    if rows == 0:
        return
    number = -(-rows // chunk_rows)
    share, longer = divmod(rows, number)
    key, name = quoted(table.key.name), quoted(table.name)
    following = f"SELECT {key} FROM {name} WHERE {key} >= ? ORDER BY {key} LIMIT 1 OFFSET ?"
    lower = MIN_ID
    for position in range(number):
        count = share + (position < longer)
        last = position == number - 1
        upper = None if last else connection.execute(following, (lower, count)).fetchone()[0]
        yield Chunk(table.name, lower, upper, count)
        if upper is not None:
            lower = upper


def _bounded(options: Options, size: int, rows: int) -> int:
    """Return the rows of a chunk, fewer than asked for where rows are large on average."""
    asked = options.chunk_rows
    if options.most_chunks is not None:
        asked = max(asked, -(-rows // options.most_chunks))
    if options.max_rows_per_second is not None:
        asked = min(asked, options.max_rows_per_second)  # A chunk is what is sent in one go.
    return max(1, min(asked, _CHUNK_BYTES * rows // max(size, 1))) if rows else asked


def _tables(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of all ordinary tables; refuse views and virtual tables in their place."""
    graph = {table.name for table in TABLES}
    names = []
    for kind, name, sql in connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    ):
        virtual = (sql or "").lstrip().upper().startswith("CREATE VIRTUAL")
        if kind == "table" and not virtual:
            names.append(name)
        elif name.lower() in graph:
            what = "view" if kind == "view" else "virtual table"
            raise SourceError(
                f"{name} is a {what} in this file, not a table",
                f"make a table of it: CREATE TABLE new AS SELECT * FROM {name}, then rename",
            )
    return tuple(names)


def _described(
    connection: sqlite3.Connection, table: Table, found: tuple[str, ...], options: Options
) -> tuple[Table, tuple[str, ...]]:
    """Return the table with the file's own extra columns, and the columns the file lacks."""
    if table.name not in {name.lower() for name in found}:
        if options.allow_missing:
            return table, table.column_names
        raise SourceError(
            f"the file has no table {table.name}",
            "if that is right, --allow-missing treats missing tables and columns as empty",
        )
    declared = _declared(connection, table.name)
    absent = tuple(name for name in table.column_names if name not in declared)
    needed = [c.name for c in table.columns if c.name in absent and not c.nullable]
    if needed or (absent and not options.allow_missing):
        raise SourceError(
            f"table {table.name} has no column {(needed or absent)[0]}",
            "add it with ALTER TABLE"
            + ("" if needed else ", or let it arrive as NULL with --allow-missing"),
        )
    extra = tuple(
        _column(connection, table.name, name, kind)
        for name, kind in declared.items()
        if name not in table.column_names
    )
    columns = (*table.columns, *extra)
    return Table(table.name, columns, table.indexes, table.foreign_keys), absent


def _extra(connection: sqlite3.Connection, name: str) -> tuple[Table, tuple[str, ...]]:
    """Describe a table the graph doesn't know, by its declared types and what is in it."""
    _checked(name)
    info = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    keys = [row for row in info if row[5]]
    if len(keys) != 1 or keys[0][2].upper() != "INTEGER":
        raise SourceError(
            f"table {name} has no INTEGER PRIMARY KEY, by which rows are told apart",
            f"leave it behind knowingly with --exclude {name}",
        )
    key = Column(_checked(keys[0][1]), Kind.KEY, nullable=False)
    rest = [_column(connection, name, row[1], row[2]) for row in info if not row[5]]
    return Table(name, (key, *rest)), ()


def _declared(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return the file's columns with their declared types; SQLite compares names without case."""
    graph = {column for known in TABLES if known.name == table for column in known.column_names}
    rows = connection.execute(f"PRAGMA table_info({quoted(table)})")
    return {row[1].lower() if row[1].lower() in graph else row[1]: row[2] for row in rows}


def _column(connection: sqlite3.Connection, table: str, name: str, declared: str) -> Column:
    """Derive a kind from SQLite's affinity rules, or, where those say nothing, from the values.

    See https://www.sqlite.org/datatype3.html, 3.1.
    """
    _checked(name)
    upper = declared.upper()
    for kind, parts in _AFFINITIES:
        if any(part in upper for part in parts):
            return Column(name, kind)
    values = connection.execute(f"SELECT DISTINCT typeof({quoted(name)}) FROM {quoted(table)}")
    storage = frozenset(row[0] for row in values) - {"null"}
    return Column(name, _BY_STORAGE.get(storage, Kind.TEXT))


def _checked(name: str) -> str:
    if len(name.encode()) > _NAME_BYTES or "\0" in name or not name:
        raise SourceError(
            f"the name {name!r} doesn't fit PostgreSQL's {_NAME_BYTES} bytes",
            "rename it in a copy of the file first, with ALTER TABLE … RENAME",
        )
    return name


def _count(connection: sqlite3.Connection, table: Table) -> int:
    try:
        (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()
    except sqlite3.OperationalError:  # A missing table that was allowed to be missing.
        return 0
    return int(rows)


def _last_key(connection: sqlite3.Connection, table: Table, rows: int) -> int:
    """Return the highest id ever given out, from the rows and from AUTOINCREMENT's own memory."""
    highest = 0
    if rows:
        key = quoted(table.key.name)
        highest = connection.execute(f"SELECT max({key}) FROM {quoted(table.name)}").fetchone()[0]
    memory = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'"
    ).fetchone()[0]
    if memory:
        row = connection.execute(
            "SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = ?", (table.name,)
        ).fetchone()
        highest = max(highest, row[0] or 0)
    return int(highest)
