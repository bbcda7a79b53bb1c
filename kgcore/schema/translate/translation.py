"""A whole schema: each table with its indexes and keys, and what is not carried over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kgcore.errors import SourceError
from kgcore.model import Kind, NotCarriedOver, Table
from kgcore.schema.postgres import all_indexes
from kgcore.schema.translate.indexes import with_indexes
from kgcore.schema.translate.keys import with_foreign_keys
from kgcore.schema.translate.names import Names, Relations, folded
from kgcore.schema.translate.source import SourceSchema, SourceTable
from kgcore.schema.translate.sql import fold_ascii, shown
from kgcore.schema.translate.tables import Draft, Seen, draft

_WHY_NOT = {
    "view": "a view's query is not translated: create it again once the tables are live",
    "trigger": "a trigger's statements are not translated",
    "virtual table": "what it holds is made and read by an extension of SQLite",
    "shadow table": "it belongs to a virtual table, which is not carried over",
}


@dataclass(frozen=True, slots=True)
class Translation:
    """The tables in the order of the file, and what is not carried over."""

    drafts: tuple[Draft, ...]
    not_carried_over: tuple[NotCarriedOver, ...]


def translate(
    schema: SourceSchema,
    chosen: Sequence[SourceTable],
    seen: Mapping[str, Seen],
    names: Names,
    described: Mapping[str, Table],
) -> Translation:
    """Translate the chosen tables; ``seen`` is by name, ``described`` by name in lower case.

    Raises :class:`SourceError` for names that PostgreSQL can't have, or that collide.
    """
    extra = [table.name for table in chosen if fold_ascii(table.name) not in described]
    targets = folded(extra, names, "tables")
    for name, target in targets.items():
        if target in described:
            raise SourceError(
                f"the table {name!r} would become {target!r}, which is one of the graph's",
                "take --names keep, or rename it in a copy of the file: ALTER TABLE … RENAME",
            )
    targets |= {t.name: fold_ascii(t.name) for t in chosen if fold_ascii(t.name) in described}
    drafts = [
        draft(
            table,
            targets[table.name],
            seen[table.name],
            names,
            described.get(fold_ascii(table.name)),
        )
        for table in chosen
    ]
    taken = [*targets.values(), *described]
    taken += [index.name for table in described.values() for index in all_indexes(table)]
    # The index behind an integer key has the name that PostgreSQL itself would give it, and its
    # sequence gets one from PostgreSQL: the second of these where a table has the first.
    taken += [index.name for made in drafts for index in all_indexes(made.table)]
    keys = [(made.table.name, made.table.key) for made in drafts]
    sequences = [f"{name}_{key.name}_seq" for name, key in keys if key.kind is Kind.KEY]
    taken += [f"{name}{number}" for name in sequences for number in ("", "1")]
    relations = Relations(taken)
    indexed = [with_indexes(made, relations) for made in drafts]
    by_name = {fold_ascii(made.source.name): made for made in indexed}
    finished = tuple(with_foreign_keys(made, by_name) for made in indexed)
    here = {fold_ascii(made.source.name): made.table.name for made in drafts}
    others = tuple(
        NotCarriedOver(
            here[fold_ascii(item.table)] if item.table else None,
            f"{item.kind} {item.name}",
            item.sql,
            _WHY_NOT[item.kind],
        )
        for item in schema.others
        if item.table is None or fold_ascii(item.table) in here
    )
    notes = (*(note for made in finished for note in made.notes), *others)
    return Translation(finished, tuple(map(_shown, notes)))


def _shown(note: NotCarriedOver) -> NotCarriedOver:
    """Return a note as the ledger can keep it: the file's text may be in any encoding."""
    return NotCarriedOver(note.table, shown(note.object), shown(note.ddl), shown(note.why))
