"""Foreign keys: between tables that are migrated, onto keys that are unique there, too."""

from collections.abc import Mapping
from dataclasses import replace

from kgcore.model import INTEGERS, Column, ForeignKey, Kind, NotCarriedOver, Table
from kgcore.schema.postgres import all_indexes
from kgcore.schema.translate import sql
from kgcore.schema.translate.ddl import table_clauses
from kgcore.schema.translate.names import Relations
from kgcore.schema.translate.parts import UntranslatableError
from kgcore.schema.translate.source import SourceForeignKey
from kgcore.schema.translate.tables import Draft

# An integer may refer to what PostgreSQL makes of integers by itself.
_WIDENED = frozenset({(Kind.INTEGER, Kind.NUMERIC), (Kind.INTEGER, Kind.REAL)})
_ACTIONS = frozenset({"NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT", "CASCADE"})


def with_foreign_keys(made: Draft, drafts: Mapping[str, Draft]) -> Draft:
    """Add the table's foreign keys; ``drafts`` are all tables by their source names in lower case.

    Foreign keys of the graph's own description onto a table that is left out go, too.
    """
    clauses = table_clauses(made.source.sql)
    deferred = clauses.deferred if clauses else set()
    here = {draft.table.name for draft in drafts.values()}
    kept = tuple(key for key in made.table.foreign_keys if key.table in here)
    taken = [check.name for check in made.table.checks]
    taken += [index.name for index in all_indexes(made.table)]
    free = Relations([*taken, *(key.name for key in kept)])
    notes = list(made.notes)
    for source in made.source.foreign_keys:
        try:
            key = _translated(made, source, drafts)
        except UntranslatableError as why:
            notes.append(NotCarriedOver(made.table.name, "foreign key", _shown(source), str(why)))
            continue
        late = tuple(sql.fold_ascii(column) for column in source.columns) in deferred
        key = replace(key, deferred=late)
        known = next((known for known in kept if _same_columns(known, key)), None)
        if known is None:
            name = free.free("_".join((made.table.name, *key.columns, "fkey")))
            kept = (*kept, replace(key, name=name))
        elif _asks_more(key, known):
            note = f"there is {known.name} already, ON DELETE {known.on_delete}"
            notes.append(NotCarriedOver(made.table.name, "foreign key", _shown(source), note))
    return replace(made, table=replace(made.table, foreign_keys=kept), notes=tuple(notes))


def _translated(made: Draft, source: SourceForeignKey, drafts: Mapping[str, Draft]) -> ForeignKey:
    parent = drafts.get(sql.fold_ascii(source.table))
    if parent is None:
        raise UntranslatableError(f"table {source.table} is not migrated")
    names = source.parents or parent.source.primary_key
    if len(names) != len(source.columns):
        raise UntranslatableError(f"{source.table} has no key of {len(source.columns)} columns")
    children = _columns(made, source.columns)
    parents = _columns(parent, names)
    for child, other in zip(children, parents, strict=True):
        if _type(child) != _type(other) and (_type(child), _type(other)) not in _WIDENED:
            raise UntranslatableError(
                f"{child.name} arrives as {_type(child)}, {other.name} of {source.table} as"
                f" {_type(other)}"
            )
    if any(column.generated for column in children):
        raise UntranslatableError("a generated column refers to no other table")
    columns = tuple(column.name for column in parents)
    if not _is_unique(parent.table, columns):
        raise UntranslatableError(f"({', '.join(columns)}) of {source.table} is not unique there")
    actions = (source.on_delete.upper(), source.on_update.upper())
    if not _ACTIONS.issuperset(actions):
        raise UntranslatableError(f"PostgreSQL does not know {' or '.join(actions)}")
    own = tuple(column.name for column in children)
    return ForeignKey("", own, parent.table.name, columns, *actions)


def _columns(made: Draft, names: tuple[str, ...]) -> list[Column]:
    try:
        return [made.columns[sql.fold_ascii(name)] for name in names]
    except KeyError as missing:
        raise UntranslatableError(f"there is no column {missing}") from None


def _type(column: Column) -> Kind:
    return Kind.INTEGER if column.kind in INTEGERS else column.kind


def _is_unique(table: Table, columns: tuple[str, ...]) -> bool:
    return any(
        index.unique and not index.keys and index.where is None
        for index in all_indexes(table)
        if sorted(index.columns) == sorted(columns)
    )


def _asks_more(key: ForeignKey, known: ForeignKey) -> bool:
    """Whether a second foreign key of the same columns does what the first one doesn't.

    NO ACTION is what is not declared: most graphs leave to us what happens to relationships.
    """
    pairs = ((key.on_delete, known.on_delete), (key.on_update, known.on_update))
    return any(mine not in {"NO ACTION", theirs} for mine, theirs in pairs)


def _same_columns(one: ForeignKey, other: ForeignKey) -> bool:
    return (one.columns, one.table, one.parents) == (other.columns, other.table, other.parents)


def _shown(source: SourceForeignKey) -> str:
    parents = f" ({', '.join(source.parents)})" if source.parents else ""
    actions = (("DELETE", source.on_delete), ("UPDATE", source.on_update))
    asked = "".join(f" ON {event} {do}" for event, do in actions if do.upper() != "NO ACTION")
    return f"FOREIGN KEY ({', '.join(source.columns)}) REFERENCES {source.table}{parents}{asked}"
