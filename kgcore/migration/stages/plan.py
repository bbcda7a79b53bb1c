"""Plan: what is in the source, as which tables it arrives, and in which chunks.

Chunks hold about equal numbers of rows. Their bounds are found by walking the id index, because
ids are sparse; together they cover every id exactly once. Rows without an id (WITHOUT ROWID) are
counted in the order of their key instead, and the keys at the bounds are kept to go there at once.
A chunk that weighs too much is divided again: large rows may stand side by side.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kgcore.errors import SourceError
from kgcore.migration import ids
from kgcore.migration.model import MAX_ID, MIN_ID, Chunk, Options, Origin, PlannedTable
from kgcore.model import Kind, NotCarriedOver, Table
from kgcore.schema import TABLES, quoted
from kgcore.schema.translate.choice import choose, is_left_out
from kgcore.schema.translate.inspect import ROW_IDS, read_schema
from kgcore.schema.translate.names import require_unicode
from kgcore.schema.translate.source import SourceSchema, SourceTable
from kgcore.schema.translate.sql import fold_ascii
from kgcore.schema.translate.tables import Draft, Seen, operands, promises
from kgcore.schema.translate.translation import translate
from kgcore.schema.translate.values import look, look_at_operands, unreadable

#: A chunk is held in memory about three times (Arrow, COPY, driver). 16 MiB of rows keeps a worker
#: far below 300 MB whatever is in the file; a single row may weigh more.
CHUNK_BYTES = 16 * 2**20

# To weigh the others as well takes as long again; long text there is refused, not stored.
_HEAVY = frozenset({Kind.TEXT, Kind.JSON, Kind.BLOB})

_GRAPH = {table.name: table for table in TABLES}


@dataclass(frozen=True, slots=True)
class Plan:
    """The tables with their chunks, and what of the file's schema is not carried over."""

    tables: tuple[PlannedTable, ...]
    not_carried_over: tuple[NotCarriedOver, ...] = ()


def plan(connection: sqlite3.Connection, options: Options) -> Plan:
    """Return what the source snapshot becomes.

    Raises :class:`SourceError` where the file is not a knowledge graph, or holds what can't be
    carried over and was not excluded; :class:`SettingsError` where ``only`` or ``exclude`` names no
    table.
    """
    schema = read_schema(connection)
    _refuse_impostors(schema)
    chosen = choose(schema.tables, options.only, options.exclude)
    for table in chosen:
        require_unicode(table)
    seen = {table.name: _look(connection, table) for table in chosen}
    translation = translate(schema, chosen, seen, options.names, _GRAPH)
    drafts = {draft.table.name: draft for draft in translation.drafts}
    described = [
        _described(connection, table, drafts.pop(table.name, None), options)
        for table in TABLES
        if table.name in drafts or not is_left_out(table.name, options.only, options.exclude)
    ]
    extra = [_origin(draft) for draft in drafts.values()]
    counted = [(*pair, _count(connection, pair[1])) for pair in [*described, *extra]]
    total = sum(rows for _, _, rows in counted)
    chunk_rows = _asked(options, total)
    return Plan(
        tuple(_planned(connection, *item, chunk_rows) for item in counted),
        translation.not_carried_over,
    )


def chunks(
    connection: sqlite3.Connection, origin: Origin, rows: int, chunk_rows: int
) -> Iterator[Chunk]:
    """Yield half-open id ranges of at most ``chunk_rows`` rows that cover all ids exactly once."""
    if rows:
        whole = Chunk(origin.table, 0 if origin.order else MIN_ID, None, rows)
        yield from _divided(connection, origin, whole, -(-rows // chunk_rows))


def _divided(
    connection: sqlite3.Connection, origin: Origin, chunk: Chunk, number: int
) -> Iterator[Chunk]:
    """Yield the chunk in so many parts of about equal numbers of rows."""
    share, longer = divmod(chunk.rows, number)
    key, name = origin.reads[0], quoted(origin.table)
    following = f"SELECT {key} FROM {name} WHERE {key} >= ? ORDER BY {key} LIMIT 1 OFFSET ?"
    lower = chunk.lower
    for position in range(number):
        count = share + (position < longer)
        upper = chunk.upper
        if position < number - 1:
            upper = (
                lower + count
                if origin.order
                else connection.execute(following, (lower, count)).fetchone()[0]
            )
        yield Chunk(chunk.table, lower, upper, count)
        if upper is not None:
            lower = upper


def _light(
    connection: sqlite3.Connection, origin: Origin, chunk: Chunk, weighed: Sequence[str]
) -> Iterator[Chunk]:
    """Yield the chunk in parts of at most :data:`CHUNK_BYTES`."""
    key = origin.reads[0]
    weight = _weight(
        connection,
        f"{_sums(weighed)} FROM {quoted(origin.table)} WHERE {key} BETWEEN ? AND ?",
        (chunk.lower, MAX_ID if chunk.upper is None else chunk.upper - 1),
    )
    if weight <= CHUNK_BYTES or chunk.rows == 1:
        yield chunk
        return
    for part in _divided(connection, origin, chunk, min(chunk.rows, -(-weight // CHUNK_BYTES))):
        yield from _light(connection, origin, part, weighed)


def _light_on_average(
    connection: sqlite3.Connection,
    origin: Origin,
    rows: int,
    chunk_rows: int,
    weighed: Sequence[str],
) -> int:
    """Return how many rows of average weight a chunk may have.

    For rows that are counted by their places: to weigh a part, all before it would be walked over.
    """
    weight = _weight(connection, f"{_sums(weighed)} FROM {quoted(origin.table)}")
    return max(1, min(chunk_rows, rows * CHUNK_BYTES // max(weight, 1)))


def _sums(weighed: Sequence[str]) -> str:
    """Return a SELECT of the bytes in these columns.

    Of text SQLite would count the letters; as a BLOB its bytes are known without. One sum of all is
    the quickest, but no expression may be too long.
    """
    values = [f"ifnull(length(CAST({read} AS BLOB)), 0)" for read in weighed] or ["0"]
    parts = (" + ".join(values[at : at + 100]) for at in range(0, len(values), 100))
    return f"SELECT {', '.join(f'sum({part})' for part in parts)}"


def _weight(connection: sqlite3.Connection, query: str, bounds: tuple[int, ...] = ()) -> int:
    return sum(found or 0 for found in connection.execute(query, bounds).fetchone())


def _planned(
    connection: sqlite3.Connection, table: Table, origin: Origin, rows: int, chunk_rows: int
) -> PlannedTable:
    try:
        pairs = zip(table.columns, origin.reads, strict=True)
        weighed = [read for column, read in pairs if column.kind in _HEAVY]
        if origin.order and rows:
            chunk_rows = _light_on_average(connection, origin, rows, chunk_rows, weighed)
        whole = chunks(connection, origin, rows, chunk_rows)
        found = tuple(
            replace(part, table=table.name)
            for chunk in whole
            for part in ([chunk] if origin.order else _light(connection, origin, chunk, weighed))
        )
        if origin.order:
            places = [chunk.lower for chunk in found[1:]]
            origin = replace(origin, seeks=tuple(_seeks(connection, origin, places)))
    except sqlite3.OperationalError as error:  # A collation that only the application has.
        raise SourceError(
            f"table {origin.table} can't be read in order: {error}",
            f"leave it behind knowingly with --exclude {origin.table}",
        ) from None
    last_key = _last_key(connection, origin, rows) if table.key.kind is Kind.KEY else 0
    known = origin.table and not origin.order
    id_sum = ids.sum_of_source(connection, origin.table, origin.reads[0]) if known else None
    return PlannedTable(table, rows, last_key, found, origin, id_sum)


def _seeks(
    connection: sqlite3.Connection, origin: Origin, places: Sequence[int]
) -> Iterator[tuple[int, str]]:
    """Yield for each place the key of its row, in literals that SQLite reads as the same key."""
    if any(part.endswith(" DESC") for part in origin.order):
        return
    asked = ", ".join(
        f"typeof({part}), iif(typeof({part}) = 'integer', {part}, CAST({part} AS BLOB))"
        for part in origin.order
    )
    keys, name = ", ".join(origin.order), quoted(origin.table)
    before, start = 0, ""
    for place in places:
        row = connection.execute(
            f"SELECT {asked} FROM {name}{start} ORDER BY {keys} LIMIT 1 OFFSET {place - before}"
        ).fetchone()
        literals = [_key_literal(*row[at : at + 2]) for at in range(0, len(row), 2)]
        if None in literals:
            continue
        key = ", ".join(filter(None, literals))
        yield place, key
        before, start = place, f" WHERE ({keys}) >= ({key})"


def _key_literal(storage: str, raw: Any) -> str | None:
    """Return a key's value as a literal; None for a REAL, whose digits SQLite may round."""
    match storage:
        case "integer" if raw != MIN_ID:  # Its digits alone would be a REAL.
            return str(raw)
        case "blob":
            return f"x'{raw.hex()}'"
        case "text":  # The plus takes the affinity away that a CAST has.
            return f"+CAST(x'{raw.hex()}' AS TEXT)"
    return None


def _asked(options: Options, rows: int) -> int:
    """Return the most rows that a chunk is to have, of so many rows in all."""
    asked = options.chunk_rows
    if options.most_chunks is not None:
        asked = max(asked, -(-rows // options.most_chunks))
    if options.max_rows_per_second is not None:
        asked = min(asked, options.max_rows_per_second)  # A chunk is what is sent in one go.
    return asked


def _refuse_impostors(schema: SourceSchema) -> None:
    """Refuse views and virtual tables in the place of the graph's tables."""
    for item in schema.others:
        if item.kind != "trigger" and fold_ascii(item.name) in _GRAPH:
            raise SourceError(
                f"{item.name} is a {item.kind} in this file, not a table",
                f"make a table of it: CREATE TABLE new AS SELECT * FROM {item.name}, then rename",
            )


def _look(connection: sqlite3.Connection, table: SourceTable) -> Seen:
    """Look at the values of the columns that the graph doesn't know, and of expressions."""
    described = _GRAPH.get(fold_ascii(table.name))
    known = set(described.column_names) if described else set()
    broken = unreadable(connection, table)
    asked = {
        name: promise
        for name, promise in promises(table).items()
        if fold_ascii(name) not in known and name not in broken
    }
    unread = frozenset(map(fold_ascii, broken))
    return Seen(
        look(connection, table, asked) if asked else {},
        broken,
        look_at_operands(connection, table, operands(table) - unread),
    )


def _described(
    connection: sqlite3.Connection, table: Table, draft: Draft | None, options: Options
) -> tuple[Table, Origin]:
    """Return a table of the graph with the file's own extra columns, and where it is."""
    if draft is None:
        if options.allow_missing:
            return table, Origin("", ("NULL",) * len(table.columns))
        raise SourceError(
            f"the file has no table {table.name}",
            "if that is right, --allow-missing treats missing tables and columns as empty;"
            " to migrate a file that is no graph: --only '*'",
        )
    absent = [column for column in table.columns if column.name not in draft.reads]
    needed = [column for column in absent if not column.nullable]
    if needed or (absent and not options.allow_missing):
        raise SourceError(
            f"table {table.name} has no column {(needed or absent)[0].name}",
            "add it with ALTER TABLE"
            + ("" if needed else ", or let it arrive as NULL with --allow-missing"),
        )
    _require_ids(connection, draft)
    return _origin(draft)


def _origin(draft: Draft) -> tuple[Table, Origin]:
    source, table = draft.source, draft.table
    key, *rest = table.column_names
    reads = (
        draft.reads.get(key, source.row_id or "NULL"),
        *(draft.reads.get(name, "NULL") for name in rest),
    )
    counted = table.key.kind is Kind.ROW and source.row_id is None
    return table, Origin(source.name, reads, _order(source) if counted else ())


def _order(source: SourceTable) -> tuple[str, ...]:
    """Return the terms of the key in which SQLite keeps the rows of a table without row ids."""
    index = next((index for index in source.indexes if index.origin == "pk"), None)
    if index is None:
        raise SourceError(
            f"table {source.name} has columns {', '.join(ROW_IDS)}: no name for the row id is left",
            f"rename one in a copy of the file: ALTER TABLE {quoted(source.name)} RENAME COLUMN"
            f" {ROW_IDS[-1]} TO …; or leave it behind knowingly with --exclude {source.name}",
        )
    return tuple(
        f"{quoted(term.name or '')} COLLATE {quoted(term.collation)}"
        + (" DESC" if term.descending else "")
        for term in index.terms
    )


def _require_ids(connection: sqlite3.Connection, draft: Draft) -> None:
    """Refuse a table of the graph whose ids don't tell its rows apart.

    An ``id`` that is the file's row id always does; any other column may hold anything.
    """
    key, source = draft.reads[draft.table.key.name], draft.source
    if source.integer_key is not None and key == quoted(source.integer_key):
        return
    name = quoted(source.name)
    bad = connection.execute(
        f"SELECT CASE WHEN {key} IS NULL THEN 'no id'"
        f" ELSE 'the id ' || substr(quote({key}), 1, 40) END, count(*) FROM {name}"
        f" GROUP BY {key} HAVING count(*) > 1 OR typeof({key}) <> 'integer'"
        f" ORDER BY 2 DESC, {key} LIMIT 3"
    ).fetchall()
    if bad:
        found = ", ".join(f"{rows:,} row{'s' * (rows > 1)} with {what}" for what, rows in bad)
        raise SourceError(
            f"the ids of table {source.name} must be integers, each of one row alone;"
            f" there is: {found}",
            "give those rows ids of their own in a copy of the file, or delete them; to see them:"
            f" SELECT * FROM {name} WHERE typeof({key}) <> 'integer' OR {key} IN"
            f" (SELECT {key} FROM {name} GROUP BY {key} HAVING count(*) > 1)",
        )


def _count(connection: sqlite3.Connection, origin: Origin) -> int:
    if not origin.table:  # A missing table that was allowed to be missing.
        return 0
    (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(origin.table)}").fetchone()
    return int(rows)


def _last_key(connection: sqlite3.Connection, origin: Origin, rows: int) -> int:
    """Return the highest id ever given out, from the rows and from AUTOINCREMENT's own memory."""
    highest = 0
    if rows:
        highest = connection.execute(
            f"SELECT max({origin.reads[0]}) FROM {quoted(origin.table)}"
        ).fetchone()[0]
    memory = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'"
    ).fetchone()[0]
    if memory:
        row = connection.execute(
            "SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = ?", (origin.table,)
        ).fetchone()
        highest = max(highest, row[0] or 0)
    return int(highest)
