"""Keys: which rows uniques, checks and foreign keys will set aside, in the order of the run.

First of equal rows the first stays, table by table. Then, parents first, rows go that break a
check, and those that refer to a row which is not there or is gone, and what hangs on them.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kgcore.migration.dry_run.condition import in_sqlite
from kgcore.migration.dry_run.found import Scanned
from kgcore.migration.dry_run.relations import Relation, needed, relation, seen_by_checks
from kgcore.migration.dry_run.same import create_functions
from kgcore.migration.model import Refusal
from kgcore.migration.new_run import Prepared
from kgcore.migration.related import parents_first
from kgcore.migration.repairs import (
    PLACEHOLDER_ENTITIES,
    Repairs,
    for_key,
    is_merging,
    is_of_entities,
    refers_to_entities,
    takes_placeholders,
)
from kgcore.migration.stages import extract
from kgcore.model import Check, ForeignKey, Index
from kgcore.schema import quoted
from kgcore.schema.postgres import all_indexes

#: A refused row, with the values at fault.
Found = tuple[Refusal, Sequence[Any]]


def break_keys(
    prepared: Prepared, scanned: Mapping[str, Scanned], chosen: Repairs
) -> tuple[str, ...]:
    """Count the rows that keys and checks will refuse, in the tallies of ``scanned``.

    Returns the checks and indexes that can't be foretold.
    """
    with closing(extract.open_snapshot(prepared.source.path)) as connection:
        connection.execute("PRAGMA query_only=OFF")  # The file itself is opened read-only.
        create_functions(connection)
        return tuple(_Keys(connection, prepared, scanned, chosen).judge())


class _Keys:
    """The tables that have rows, and what becomes of these. Lives for one call."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        prepared: Prepared,
        scanned: Mapping[str, Scanned],
        chosen: Repairs,
    ) -> None:
        self._connection = connection
        self._tables = parents_first(prepared.tables)
        self._by_name = {item.table.name: item for item in self._tables}
        self._placeable = any(takes_placeholders(item.table) for item in self._tables)
        self._scanned = scanned
        self._chosen = chosen
        self._relations: dict[str, Relation] = {}
        self._turns: dict[tuple[str, str], int] = {}
        columns = needed(self._tables)
        for item in self._tables:
            name = item.table.name
            if item.rows and (columns[name] or item.table.foreign_keys):
                found = relation(connection, item, sorted(columns[name]), scanned[name].mended)
                if scanned[name].refused:
                    found.remove(connection, scanned[name].refused)
                self._relations[name] = found

    def judge(self) -> Iterator[str]:
        """Do it; yield the names of what can't be foretold."""
        for found in self._relations.values():
            for index in all_indexes(found.planned.table):
                if index.unique and index.columns != (found.planned.table.key.name,):
                    yield from self._judge_index(found, index)
        for item in self._tables:
            if item.table.name in self._relations:
                for check in item.table.checks:
                    yield from self._judge_check(self._relations[item.table.name], check)
                for key in item.table.foreign_keys:
                    self._judge_key(self._relations[item.table.name], key)
        self._go_round()

    def _judge_index(self, found: Relation, index: Index) -> Iterator[str]:
        try:
            self._set_aside(found, self._duplicates(found, index))
        except _UnforetoldError:
            yield f"{found.planned.table.name}: index {index.name}"

    def _judge_check(self, found: Relation, check: Check) -> Iterator[str]:
        try:
            self._set_aside(found, self._breaches(found, check))
        except _UnforetoldError:
            yield f"{found.planned.table.name}: check {check.name}"

    def _judge_key(self, found: Relation, key: ForeignKey) -> None:
        if PLACEHOLDER_ENTITIES in self._chosen and self._placeable and refers_to_entities(key):
            return
        self._note_turn(found, key)
        rows = self._set_aside(found, self._orphans(found, key))
        while rows and key.table == found.planned.table.name:
            rows = self._set_aside(found, self._hanging(found, key))

    def _go_round(self) -> None:
        """Tables that refer to each other: what went last may have more hanging on it."""
        rows = 1
        while rows:
            rows = 0
            for found in self._relations.values():
                for key in found.planned.table.foreign_keys:
                    above = self._relations.get(key.table)
                    if above and self._turns.get((found.name, key.name), above.turn) < above.turn:
                        rows += self._set_aside(found, self._hanging(found, key))

    def _note_turn(self, found: Relation, key: ForeignKey) -> None:
        """Note which rows the foreign key has seen go."""
        if key.table in self._relations:
            self._turns[found.name, key.name] = self._relations[key.table].turn

    def _is_of_entities(self, key: ForeignKey) -> bool:
        return refers_to_entities(key) and is_of_entities(self._by_name[key.table].table)

    def _duplicates(self, found: Relation, index: Index) -> Iterator[Found]:
        """Of rows with equal keys the first that is not refused stays."""
        table = found.planned.table
        merges = is_merging(table, index)
        column = index.columns[0] if len(index.columns) == 1 else None
        named = ", ".join(index.columns)
        groups = _grouped(found, index)
        # To list the ids of each group costs more than to see that there is none to list.
        if not list(self._ask(f"SELECT 1 {groups.rest} LIMIT 1")):
            return
        listed = ", ".join((f"group_concat({groups.key})", *groups.values))
        for ids, *values in self._ask(f"SELECT {listed} {groups.rest}"):
            kept, *others = sorted(map(int, ids.split(",")))
            for row_id in others:
                reason = f"the same ({named}) as another row"
                same_as = kept if merges else None
                yield Refusal(row_id, column, reason, "23505", same_as), values

    def _breaches(self, found: Relation, check: Check) -> Iterator[Found]:
        rows, key = seen_by_checks(found, found.planned.table)
        query = f"SELECT {key} FROM ({rows}) WHERE NOT ({_translated(check.expression)})"
        for (row_id,) in self._ask(query):
            yield Refusal(row_id, None, f"it breaks the check {check.name}", "23514"), ()

    def _orphans(self, found: Relation, key: ForeignKey) -> Iterator[Found]:
        """Children of no row, and of rows that are gone."""
        child, parent = self._compared(found, key)
        there = self._relations.get(key.table)
        where = [f"{value} IS NOT NULL" for value in child]
        if there is not None and key.parents == (there.planned.table.key.name,):
            # SQLite looks up each in the table itself and among those gone, without any list.
            missing = [f"{child[0]} NOT IN (SELECT {parent[0]} FROM {there.name})"]
            if there.turn:
                gone = there.among_gone(as_parent=self._is_of_entities(key))
                missing.append(f"{child[0]} IN ({gone})")
            where.append(f"({' OR '.join(missing)})")
        elif there is not None:
            conditions = there.kept(as_parent=self._is_of_entities(key))
            conditions += [f"{value} IS NOT NULL" for value in parent]
            among = f"SELECT {', '.join(parent)} FROM {there.name} WHERE {' AND '.join(conditions)}"
            where.append(f"({', '.join(child)}) NOT IN ({among})")
        return self._lost(found, key, where)

    def _hanging(self, found: Relation, key: ForeignKey) -> Iterator[Found]:
        """Children of rows that went since this was asked last."""
        child, parent = self._compared(found, key)
        there = self._relations[key.table]
        since = self._turns[found.name, key.name]
        self._note_turn(found, key)
        among = (
            f"SELECT {', '.join(parent)} FROM {there.name} WHERE {there.key} IN"
            f" (SELECT kg_id FROM {there.gone} WHERE kg_turn > {since})"
        )
        return self._lost(found, key, [f"({', '.join(child)}) IN ({among})"])

    def _lost(self, found: Relation, key: ForeignKey, where: Sequence[str]) -> Iterator[Found]:
        column = key.columns[0] if len(key.columns) == 1 else None
        reads = ", ".join(found.reads[name] for name in key.columns)
        conditions = " AND ".join([*where, *found.kept()])
        query = f"SELECT {found.key}, {reads} FROM {found.name} WHERE {conditions}"
        for row_id, *values in self._ask(query):
            refusal = Refusal(row_id, column, f"no such row in {key.table}", "23503")
            yield refusal, values

    def _compared(self, found: Relation, key: ForeignKey) -> tuple[list[str], list[str]]:
        """Return both sides of a foreign key, as the parent's kinds."""
        above = self._by_name[key.table].table
        kinds = {column.name: column.kind for column in above.columns}
        pairs = zip(key.columns, key.parents, strict=True)
        child = [found.value(column, kinds[parent]) for column, parent in pairs]
        there = self._relations.get(key.table)
        return child, [] if there is None else [there.value(column) for column in key.parents]

    def _ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(query)
        except sqlite3.OperationalError as error:
            raise _UnforetoldError(str(error)) from error

    def _set_aside(self, found: Relation, lost: Iterator[Found]) -> int:
        """Count the rows as refused and note that they are gone."""
        name = found.planned.table.name
        tally = self._scanned[name].tally
        gone: list[int] = []
        merged: list[int] = []
        for refusal, values in lost:
            repair = self._chosen.accepting(name, [refusal]).get(refusal.row_id)
            tally.count(refusal, repair, *values)
            tally.save([for_key(found.planned.table, refusal, placeable=self._placeable)])
            is_merged = repair is not None and refusal.same_as is not None
            (merged if is_merged else gone).append(refusal.row_id)
        if gone or merged:
            found.remove(self._connection, gone, merged)
        return len(gone) + len(merged)


class _UnforetoldError(Exception):
    """SQLite can't be asked this."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """Of rows with equal values: what is asked for the ids and the values, and from where."""

    key: str
    values: tuple[str, ...]
    rest: str


def _grouped(found: Relation, index: Index) -> _Groups:
    if not index.keys and index.where is None:
        values, rows, key = [found.value(c) for c in index.columns], found.name, found.key
        where = found.kept()
    else:
        terms = index.keys or tuple(map(quoted, index.columns))
        values = [_translated(term.removesuffix(" DESC")) for term in terms]
        query, key = seen_by_checks(found, found.planned.table)
        rows = f"({query})"
        where = [] if index.where is None else [f"({_translated(index.where)})"]
    present = " AND ".join([*(f"({value}) IS NOT NULL" for value in values), *where])
    rest = f"FROM {rows} WHERE {present} GROUP BY {', '.join(values)} HAVING count(*) > 1"
    return _Groups(key, tuple(values), rest)


def _translated(expression: str) -> str:
    found = in_sqlite(expression)
    if found is None:
        raise _UnforetoldError(expression)
    return found
