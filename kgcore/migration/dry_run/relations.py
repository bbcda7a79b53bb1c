"""Relations: the file's tables as keys see them, with the rows that are out already.

All is done in SQLite, beside the source: TEMP tables hold which rows are gone, the values that
repairs left, and the rows of tables that have no row id.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from kgcore.migration.dry_run.same import same
from kgcore.migration.model import PlannedTable
from kgcore.model import INTEGERS, Kind, Table
from kgcore.schema import quoted
from kgcore.schema.translate.inspect import declared_types
from kgcore.schema.translate.sql import fold_ascii
from kgcore.schema.translate.types import affinity

_numbers = count(1)


@dataclass(slots=True)
class Relation:
    """A table with rows: what SQLite is asked for its columns, and a TEMP table of rows gone.

    ``turn`` is counted up whenever rows go; ``merged`` says that some live on in another row.
    """

    planned: PlannedTable
    name: str
    reads: Mapping[str, str]
    plain: frozenset[str]
    gone: str
    turn: int = 0
    merged: bool = False

    @property
    def key(self) -> str:
        """What SQLite is asked for the row's id."""
        return self.reads[self.planned.table.key.name]

    def value(self, column: str, kind: Kind | None = None) -> str:
        """Return an expression that is the same for values which PostgreSQL takes for the same.

        ``kind`` is what they are compared as, where it is not the column's own.
        """
        own = next(c.kind for c in self.planned.table.columns if c.name == column)
        return same(kind or own, self.reads[column], plain=column in self.plain)

    def kept(self, *, as_parent: bool = False) -> list[str]:
        """Return the condition that a row is not gone; none where no row is.

        A row that was merged into another is still one to refer to, if ``as_parent``.
        """
        return [f"{self.key} NOT IN ({self.among_gone(as_parent=as_parent)})"] if self.turn else []

    def among_gone(self, *, as_parent: bool = False) -> str:
        """Return the query for the ids of the rows that are gone."""
        query = f"SELECT kg_id FROM {self.gone}"
        return f"{query} WHERE NOT kg_merged" if as_parent and self.merged else query

    def remove(
        self, connection: sqlite3.Connection, ids: Iterable[int], merged: Iterable[int] = ()
    ) -> None:
        """Note that rows are gone, some of them merged into another."""
        self.turn += 1
        statement = f"INSERT OR IGNORE INTO {self.gone} VALUES (?, ?, ?)"
        live_on = [(row_id, self.turn, 1) for row_id in merged]
        self.merged |= bool(live_on)
        connection.executemany(statement, live_on)
        connection.executemany(statement, ((row_id, self.turn, 0) for row_id in ids))


def needed(tables: Iterable[PlannedTable]) -> dict[str, frozenset[str]]:
    """Return by table the columns that its keys, checks and foreign keys to it compare."""
    found: dict[str, set[str]] = {item.table.name: set() for item in tables}
    for item in tables:
        mine = found[item.table.name]
        mine.update(*(index.columns for index in item.table.indexes if index.unique))
        mine.update(item.table.primary.columns if item.table.primary else ())
        if item.table.checks or any(i.unique and (i.keys or i.where) for i in item.table.indexes):
            mine.update(item.table.column_names[1:])
        for key in item.table.foreign_keys:
            mine.update(key.columns)
            found[key.table].update(key.parents)
    return {name: frozenset(columns) for name, columns in found.items()}


def relation(
    connection: sqlite3.Connection,
    planned: PlannedTable,
    columns: Sequence[str],
    mended: Mapping[str, Mapping[int, str]],
) -> Relation:
    """Return a table as its keys see it: with the values in place of which repairs put others."""
    number = next(_numbers)
    gone = f"temp.kg_gone_{number}"
    connection.execute(
        f"CREATE TEMP TABLE kg_gone_{number}"
        " (kg_id INTEGER PRIMARY KEY, kg_turn INTEGER, kg_merged INTEGER)"
    )
    table, source = planned.table, planned.source
    reads = dict(zip(table.column_names, source.reads, strict=True))
    plain = frozenset[str]()
    if source.order:
        name = f"kg_rows_{number}"
        reads = _numbered(connection, planned, name, [n for n in columns if n != table.key.name])
    else:
        name = quoted(source.table)
        plain = _plain(connection, planned)
        # With the table's name: the same word may mean something in a query inside another.
        reads = {n: read if read == "NULL" else f"{name}.{read}" for n, read in reads.items()}
    key = reads[table.key.name]
    for place, (column, values) in enumerate(mended.items()):
        into = f"kg_mended_{number}_{place}"
        connection.execute(f"CREATE TEMP TABLE {into} (kg_id INTEGER PRIMARY KEY, kg_value)")
        connection.executemany(f"INSERT INTO temp.{into} VALUES (?, ?)", values.items())
        reads[column] = (
            f"CASE WHEN {key} IN (SELECT kg_id FROM temp.{into})"
            f" THEN (SELECT kg_value FROM temp.{into} WHERE kg_id = {key}) ELSE {reads[column]} END"
        )
        plain -= {column}
    return Relation(planned, name, reads, plain, gone)


def _numbered(
    connection: sqlite3.Connection, planned: PlannedTable, name: str, columns: Sequence[str]
) -> dict[str, str]:
    """Copy what is needed of a table without row ids, with each row's place; return the reads."""
    table, source = planned.table, planned.source
    asked = dict(zip(table.column_names, source.reads, strict=True))
    listed = [f"{asked[column]} AS kg_{place}" for place, column in enumerate(columns)]
    number = f"row_number() OVER (ORDER BY {', '.join(source.order)}) - 1 AS kg_place"
    connection.execute(
        f"CREATE TEMP TABLE {name} AS SELECT {', '.join([number, *listed])}"
        f" FROM main.{quoted(source.table)}"
    )
    reads = {column: f"{name}.kg_{place}" for place, column in enumerate(columns)}
    return {table.key.name: f"{name}.kg_place", **reads}


def _plain(connection: sqlite3.Connection, planned: PlannedTable) -> frozenset[str]:
    """Return the columns whose declared type makes SQLite store what they are compared as."""
    types = declared_types(connection, planned.source.table)
    declared = {quoted(fold_ascii(name)): kind for name, kind in types.items()}
    pairs = zip(planned.table.columns, planned.source.reads, strict=True)
    return frozenset(
        column.name
        for column, read in pairs
        if _is_plain(column.kind, declared.get(read, "INT" if read != "NULL" else ""))
    )


def _is_plain(kind: Kind, declared: str) -> bool:
    stored = affinity(declared)
    return kind in INTEGERS if stored is Kind.INTEGER else kind is stored is Kind.TEXT


def seen_by_checks(found: Relation, table: Table) -> tuple[str, str]:
    """Return a query for the rows that are left, and the name that their ids have in it.

    The other names are those of the columns in the target.
    """
    taken = {fold_ascii(column.name) for column in table.columns[1:]}
    key = next(name for name in (f"kg_id{'_' * number}" for number in count()) if name not in taken)
    values = [f"{found.key} AS {key}"]
    for column in table.columns[1:]:
        read = found.reads.get(column.name)
        if read is not None:
            value = f"CAST({read} AS NUMERIC)" if column.kind is Kind.NUMERIC else None
            values.append(f"{value or found.value(column.name)} AS {quoted(column.name)}")
    where = " AND ".join(found.kept()) or "true"
    return f"SELECT {', '.join(values)} FROM {found.name} WHERE {where}", key
