"""Repairs that need other rows: carried out, noted in the ledger, and expected by verification."""

from collections.abc import Iterable, Mapping

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import Identifier

from kgcore.migration import ledger
from kgcore.migration.model import Chunk, PlannedTable, Repaired, Run
from kgcore.migration.repairs import (
    MERGE_DUPLICATES,
    PLACEHOLDER_ENTITIES,
    choose,
    is_merging,
    is_of_entities,
    refers_to_entities,
    takes_placeholders,
)
from kgcore.migration.stages import finish, relink
from kgcore.model import ForeignKey, Table


def parents_first(tables: Iterable[PlannedTable]) -> list[PlannedTable]:
    """Order tables so that each comes after those it refers to, where there is such an order."""
    by_name = {item.table.name: item for item in tables}
    ordered: dict[str, PlannedTable] = {}

    def visit(item: PlannedTable, above: frozenset[str]) -> None:
        name = item.table.name
        if name in ordered or name in above:
            return
        for key in item.table.foreign_keys:
            visit(by_name[key.table], above | {name})
        ordered[name] = item

    for item in by_name.values():
        visit(item, frozenset())
    return list(ordered.values())


def mend_key(
    cursor: Cursor,
    run: Run,
    step_id: int,
    schema: str,
    children: Identifier,
    table: Table,
    key: ForeignKey,
) -> None:
    """Do what the run's repairs can for children that refer to missing rows of ``schema``."""
    repairs = choose(run.options.repairs)
    if not refers_to_entities(key) or not is_of_entities(run.tables[key.table].table):
        return
    if MERGE_DUPLICATES in repairs:
        moved = relink.repoint(cursor, run.run_id, children, table, key)
        _note(cursor, run, step_id, table.name, MERGE_DUPLICATES, moved)
    if PLACEHOLDER_ENTITIES in repairs and takes_placeholders(run.tables[key.table].table):
        parents = Identifier(schema, key.table)
        placed = relink.add_placeholders(cursor, run.run_id, children, table, key, parents)
        finish.set_sequence(cursor, schema, run.tables[key.table])
        _note(cursor, run, step_id, table.name, PLACEHOLDER_ENTITIES, placed.saved)
        _note(cursor, run, step_id, key.table, PLACEHOLDER_ENTITIES, placed.added)


def expect(
    cursor: Cursor, run: Run, rows: Identifier, table: Table, chunk: Chunk
) -> tuple[int, tuple[int, ...]]:
    """Change the source's rows of a chunk, read for comparing, as the repairs must have done.

    Returns how many placeholders belong among them, and the ids of rows that were merged into one
    that is not their equal.
    """
    repairs = choose(run.options.repairs)
    added, unequal = 0, tuple[int, ...]()
    if MERGE_DUPLICATES in repairs:
        staged = Identifier(run.staging, table.name)
        for index in table.indexes:
            if is_merging(table, index):
                unequal += relink.false_merges(cursor, run.run_id, rows, staged, table, index)
        for key in table.foreign_keys:
            if refers_to_entities(key):
                relink.repoint(cursor, run.run_id, rows, table, key)
    if PLACEHOLDER_ENTITIES in repairs and takes_placeholders(table):
        staged = Identifier(run.staging, table.name)
        added = relink.expect_placeholders(cursor, run.run_id, rows, staged, table, chunk)
    return added, unequal


def note_accepted(
    cursor: Cursor, run: Run, step_id: int, table: str, accepted: Mapping[int, str]
) -> None:
    """Count the rows that a repair leaves out, given the repair of each by id."""
    for name in sorted(set(accepted.values())):
        ids = tuple(sorted(row_id for row_id, by in accepted.items() if by == name))
        _note(cursor, run, step_id, table, name, ids)


def _note(
    cursor: Cursor, run: Run, step_id: int, table: str, name: str, ids: tuple[int, ...]
) -> None:
    if ids:
        found = (Repaired(name, len(ids), ids),)
        ledger.record_repairs(cursor, run.run_id, step_id, table, found)
