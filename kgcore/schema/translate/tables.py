"""A table's columns: names, kinds, defaults, generated ones, and the checks on its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kgcore.errors import SourceError
from kgcore.model import Check, Column, Kind, NotCarriedOver, Table
from kgcore.schema.postgres import all_indexes
from kgcore.schema.sqlite import quoted
from kgcore.schema.translate import sql
from kgcore.schema.translate.ddl import TableClauses, index_clauses, table_clauses
from kgcore.schema.translate.defaults import default
from kgcore.schema.translate.expressions import condition
from kgcore.schema.translate.generated import computed
from kgcore.schema.translate.names import Names, Relations, checked_columns, folded
from kgcore.schema.translate.parse import calculated_with, called_with, names_in
from kgcore.schema.translate.parts import Scope, UntranslatableError
from kgcore.schema.translate.source import SourceColumn, SourceTable
from kgcore.schema.translate.types import Evidence, Operand, decide, promised

#: More a table of PostgreSQL can't have; the row number takes one.
_MOST_COLUMNS = 1_599

_ROW = "kg_row"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a table's values: evidence by column, and columns that can't be read.

    ``operands`` are the columns that expressions need to know more of, by name in lower case.
    """

    evidence: Mapping[str, Evidence]
    unreadable: Mapping[str, str]
    operands: Mapping[str, Operand] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """A table on its way: the source, what became of it so far, and what is not carried over.

    ``columns`` are the target's by the source's names in lower case, ``reads`` what SQLite is asked
    for each column of ``table``, ``scope`` what names in its expressions mean.
    """

    source: SourceTable
    table: Table
    columns: Mapping[str, Column]
    reads: Mapping[str, str]
    longest: Mapping[str, int]
    nulls: Mapping[str, int]
    scope: Scope
    notes: tuple[NotCarriedOver, ...]


def promises(source: SourceTable) -> dict[str, Kind | None]:
    """Return what each column's declaration promises; CHECK (json_valid(column)) promises JSON."""
    clauses = table_clauses(source.sql) or TableClauses()
    checks = (called_with("json_valid", clause.condition) for clause in clauses.checks)
    json = frozenset[str]().union(*checks)
    return {
        column.name: Kind.JSON if sql.fold_ascii(column.name) in json else promised(column.declared)
        for column in source.columns
    }


def operands(source: SourceTable) -> frozenset[str]:
    """Return the columns, in lower case, whose values decide how expressions are translated.

    Those that a generated column is made of, and those that anything calculates with.
    """
    clauses = table_clauses(source.sql) or TableClauses()
    calculating = [clause.condition for clause in clauses.checks]
    for index in source.indexes:
        found = index_clauses(index.sql) if index.sql else None
        if found is not None:
            calculating += [*found.terms, *filter(None, [found.where])]
    names = frozenset(clauses.generated).union(
        *map(names_in, clauses.generated.values()), *map(calculated_with, calculating)
    )
    return names & {sql.fold_ascii(column.name) for column in source.columns}


def draft(
    source: SourceTable, name: str, seen: Seen, names: Names, described: Table | None = None
) -> Draft:
    """Translate columns and checks. ``described`` is the graph's own description, which goes first.

    Raises :class:`SourceError` for names that PostgreSQL can't have or that collide.
    """
    clauses = table_clauses(source.sql)
    notes = list(_notes(source, name, seen, clauses))
    clauses = clauses or TableClauses()
    known = {column.name: column for column in described.columns} if described else {}
    readable = [column for column in source.columns if column.name not in seen.unreadable]
    if len(readable) > _MOST_COLUMNS:
        raise SourceError(
            f"table {source.name} has {len(readable):,} columns, PostgreSQL takes 1,600",
            f"leave it behind knowingly with --exclude {source.name}",
        )
    extra = [column for column in readable if sql.fold_ascii(column.name) not in known]
    targets = folded((column.name for column in extra), names, f"columns of {source.name}")
    checked_columns(targets, source.name)
    _refuse_collisions(source, targets, known)
    promise = promises(source)
    columns: dict[str, Column] = {}
    for column in readable:
        mine = known.get(sql.fold_ascii(column.name))
        if mine is None:
            kind, why = decide(promise[column.name], seen.evidence[column.name])
            mine, more = _column(source, column, Column(targets[column.name], kind), why)
        else:
            more = _differences(column, mine)
        notes += [replace(note, table=name) for note in more]
        columns[sql.fold_ascii(column.name)] = mine
    own = frozenset(
        columns[column].name
        for column, collation in clauses.collations.items()
        if column in columns and collation != "BINARY"
    )
    scope = Scope(columns, own, seen.operands, source.utf16)
    declared = {sql.fold_ascii(column.name): column.declared for column in source.columns}
    for name_there, expression in clauses.generated.items():
        made_of = columns.get(name_there)
        if made_of is not None and made_of.name not in known:
            try:
                columns[name_there] = computed(name_there, declared[name_there], expression, scope)
            except UntranslatableError as untranslatable:
                text = f"{name_there} AS ({expression})"
                reason = (
                    f"{untranslatable}; its values are carried over as those of an ordinary column"
                )
                notes.append(NotCarriedOver(name, "generated column", text, reason))
    table, reads = _shaped(source, name, columns, described)
    made = Draft(
        source,
        table,
        columns,
        reads,
        {columns[sql.fold_ascii(n)].name: seen.evidence[n].longest for n in seen.evidence},
        {columns[sql.fold_ascii(n)].name: seen.evidence[n].nulls for n in seen.evidence},
        scope,
        tuple(notes),
    )
    return _with_checks(made, clauses)


def _shaped(
    source: SourceTable, name: str, columns: Mapping[str, Column], described: Table | None
) -> tuple[Table, dict[str, str]]:
    """Put the column by which rows are told apart first, and say what SQLite is asked for each."""
    reads = {column.name: quoted(source_name) for source_name, column in columns.items()}
    if described is not None:
        known = {column.name for column in described.columns}
        extra = (column for column in columns.values() if column.name not in known)
        return replace(described, columns=(*described.columns, *extra)), reads
    order = tuple(column.name for column in columns.values())
    if source.integer_key:
        key = columns[sql.fold_ascii(source.integer_key)]
    else:
        row = _ROW
        while row in reads:
            row += "_"
        key = Column(row, Kind.ROW, nullable=False)
        order = (*order, row)
    rest = (column for column in columns.values() if column.name != key.name)
    return Table(name, (key, *rest), order=order), reads


def _refuse_collisions(
    source: SourceTable, targets: Mapping[str, str], known: Mapping[str, Column]
) -> None:
    for name, target in targets.items():
        if target in known:
            raise SourceError(
                f"the column {name!r} of {source.name} would become {target!r}, which is there",
                "take --names keep, or rename it in a copy of the file: ALTER TABLE … RENAME",
            )


def _column(
    source: SourceTable, column: SourceColumn, mine: Column, why: str | None
) -> tuple[Column, list[NotCarriedOver]]:
    if column.name == source.integer_key:
        return replace(mine, kind=Kind.KEY, nullable=False), []
    notes = []
    written = f"{column.name} {column.declared}".strip()
    if why:
        notes.append(NotCarriedOver(None, "type", written, why))
    value = None
    if column.default is not None and not column.generated:
        try:
            value = default(column.default, mine.kind)
        except UntranslatableError as reason:
            text = f"{written} DEFAULT {column.default}"
            notes.append(NotCarriedOver(None, "default", text, str(reason)))
    not_null = column.not_null or (source.row_id is None and column.key > 0)
    return replace(mine, nullable=not not_null, default=value), notes


def _differences(column: SourceColumn, mine: Column) -> list[NotCarriedOver]:
    """Say what the file declares of a column of the graph that the graph's description does not."""
    notes = []
    written = f"{column.name} {column.declared}".strip()
    if column.not_null and mine.nullable:
        why = "the graph's own column may be NULL"
        notes.append(NotCarriedOver(None, "not null", f"{written} NOT NULL", why))
    if column.default is not None:
        try:
            value = default(column.default, mine.kind)
        except UntranslatableError:
            value = ""
        if value not in {mine.default, "NULL"}:
            why = f"the graph's own column has DEFAULT {mine.default or 'NULL'}"
            text = f"{written} DEFAULT {column.default}"
            notes.append(NotCarriedOver(None, "default", text, why))
    return notes


def _with_checks(made: Draft, clauses: TableClauses) -> Draft:
    table = made.table
    # What PostgreSQL names itself, in the space that a table's constraints have.
    free = Relations(
        [
            *(index.name for index in all_indexes(table)),
            *(f"{table.name}_{column.name}_not_null" for column in table.columns),
        ]
    )
    checks, notes = [], []
    for clause in clauses.checks:
        try:
            part = condition(clause.condition, made.scope)
        except UntranslatableError as why:
            notes.append(NotCarriedOver(table.name, "check", clause.text, str(why)))
            continue
        between = "_".join((table.name, *part.columns[:1], "check"))
        name = free.free(clause.name or between)
        if clause.name not in {None, name}:
            note = f"the name is taken or too long: it is called {name}"
            notes.append(NotCarriedOver(table.name, "check name", clause.name or "", note))
        checks.append(Check(name, part.sql))
    table = replace(table, checks=tuple(checks))
    return replace(made, table=table, notes=(*made.notes, *notes))


def _notes(
    source: SourceTable, name: str, seen: Seen, clauses: TableClauses | None
) -> list[NotCarriedOver]:
    notes = [
        NotCarriedOver(name, "generated column", column, f"SQLite can't compute it here: {why}")
        for column, why in seen.unreadable.items()
    ]
    if clauses is None:
        why = "its text can't be cut into words; columns, keys and indexes are carried over"
        return [*notes, NotCarriedOver(name, "clauses of a table", source.sql, why)]
    for column, collation in clauses.collations.items():
        if collation == "NOCASE":
            folds = sql.nocase(sql.name(column))
            why = f"comparisons tell case; compare {folds}, which its indexes are built on"
            notes.append(NotCarriedOver(name, "collation", f"{column} COLLATE {collation}", why))
        elif collation != "BINARY":
            why = "PostgreSQL has no such collation"
            notes.append(NotCarriedOver(name, "collation", f"{column} COLLATE {collation}", why))
    notes += [
        NotCarriedOver(
            name,
            "on conflict",
            text,
            "PostgreSQL is told so by each INSERT; the constraint itself is carried over",
        )
        for text in clauses.conflicts
    ]
    return notes
