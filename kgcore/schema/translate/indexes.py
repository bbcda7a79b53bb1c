"""Indexes, primary keys and UNIQUE constraints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kgcore.model import Index, Kind, NotCarriedOver
from kgcore.schema.postgres import LONGEST_KEY, all_indexes
from kgcore.schema.translate import sql
from kgcore.schema.translate.ddl import IndexClauses, index_clauses, without_direction
from kgcore.schema.translate.expressions import condition, translate
from kgcore.schema.translate.names import Relations
from kgcore.schema.translate.parts import UntranslatableError
from kgcore.schema.translate.source import IndexTerm, SourceIndex
from kgcore.schema.translate.tables import Draft

#: PostgreSQL's INDEX_MAX_KEYS.
_MOST_TERMS = 32
#: What a row of a B-tree index holds beside its 16 bytes of header and NULL bitmap.
_MOST_BYTES = 2_704 - 16
# What a term takes at most: a length of 4 bytes, or a number of 8, each aligned.
_LONG_TERM, _SHORT_TERM = 4 + 3, 8 + 7


@dataclass(frozen=True, slots=True)
class _Term:
    """A term in PostgreSQL's SQL, and the columns it reads, each as often as it does."""

    sql: str
    columns: tuple[str, ...]
    is_expression: bool = False


def with_indexes(made: Draft, relations: Relations) -> Draft:
    """Add the table's primary key, unique constraints and indexes, as far as they can be."""
    table, notes = made.table, list(made.notes)
    constraints = Relations(check.name for check in table.checks)
    if table.key.kind is Kind.ROW:  # It goes with its column.
        row = Index(relations.free(f"{table.name}_kg_row"), (table.key.name,))
        table = replace(table, indexes=(row,))
    for source in made.source.indexes:
        try:
            index = _translated(made, source)
        except UntranslatableError as why:
            what = {"pk": "primary key", "u": "unique"}.get(source.origin, "index")
            notes.append(NotCarriedOver(table.name, what, _shown(source), str(why)))
            continue
        if _is_served(index, all_indexes(table)):
            continue
        if source.origin == "pk" and _is_primary(made, index):
            name = relations.free(f"{table.name}_pkey", constraints)
            table = replace(table, primary=replace(index, name=name))
            continue
        if source.origin == "pk":
            note = "it holds NULLs, or folds case: it is a unique index instead"
            notes.append(NotCarriedOver(table.name, "primary key", _shown(source), note))
        # An index of CREATE INDEX keeps its name; behind a constraint SQLite makes one up.
        if source.origin == "c":
            name = relations.free(source.name)
        else:
            name = relations.free(_usual_name(made, index), constraints)
        if source.origin == "c" and name != source.name:
            note = f"the name is taken or too long: it is called {name}"
            notes.append(NotCarriedOver(table.name, "index name", source.name, note))
        table = replace(table, indexes=(*table.indexes, replace(index, name=name)))
    return replace(made, table=table, notes=tuple(notes))


def _translated(made: Draft, source: SourceIndex) -> Index:
    if not sql.is_unicode(source.name):
        raise UntranslatableError("its name is not valid UTF-8")
    clauses = index_clauses(source.sql) if source.sql else IndexClauses((), None)
    if clauses is None or (source.sql and len(clauses.terms) != len(source.terms)):
        raise UntranslatableError("its text can't be cut into words")
    if len(source.terms) > _MOST_TERMS:
        raise UntranslatableError(f"PostgreSQL's indexes have {_MOST_TERMS} columns at most")
    texts = clauses.terms or ("",) * len(source.terms)
    terms = [_term(made, term, text) for term, text in zip(source.terms, texts, strict=True)]
    columns = tuple(dict.fromkeys(name for term in terms for name in term.columns))
    _require_indexable(made, terms)
    plain = all(term.sql == sql.name(term.columns[0]) for term in terms)
    where = condition(clauses.where, made.scope).sql if clauses.where else None
    if source.partial and where is None:
        raise UntranslatableError("its condition can't be found in its text")
    return Index(
        "",
        columns,
        unique=source.unique,
        keys=() if plain else tuple(term.sql for term in terms),
        where=where,
        constraint=source.origin != "c",
    )


def _term(made: Draft, term: IndexTerm, text: str) -> _Term:
    if term.name is None:
        part = translate(without_direction(text), made.scope)
        if part.kind is None or not part.columns:
            raise UntranslatableError("an expression of no column")
        found, kind = _Term(f"({part.sql})", part.columns, is_expression=True), part.kind
    else:
        column = made.columns.get(sql.fold_ascii(term.name))
        if column is None:
            raise UntranslatableError(f"the column {term.name} is not carried over")
        found, kind = _Term(sql.name(column.name), (column.name,)), column.kind
    if term.collation.upper() == "NOCASE" and kind is Kind.TEXT:
        found = replace(found, sql=sql.nocase(found.sql))
    elif term.collation.upper() not in {"BINARY", "NOCASE"}:
        raise UntranslatableError(f"PostgreSQL has no collation {term.collation}")
    return replace(found, sql=found.sql + " DESC") if term.descending else found


def _require_indexable(made: Draft, terms: Sequence[_Term]) -> None:
    kinds = {column.name: column.kind for column in made.columns.values()}
    reads = Counter(name for term in terms for name in term.columns)
    if any(kinds[name] is Kind.JSON for name in reads):
        raise UntranslatableError("JSON is compared as text by SQLite, and not by JSONB")
    long = {name for name in reads if kinds[name] in {Kind.TEXT, Kind.BLOB, Kind.NUMERIC}}
    size = sum(made.longest.get(name, 0) for name in long)
    if size > LONGEST_KEY:
        raise UntranslatableError(
            f"it may hold keys of {size:,} bytes, a B-tree index takes {LONGEST_KEY:,}"
        )
    # Of the graph's own columns the lengths are not known: rows with more are refused.
    most = LONGEST_KEY * max((reads[name] for name in long), default=0)
    size = min(most, sum(made.longest.get(name, most) * reads[name] for name in long))
    size += sum(_beside_columns(term, long) for term in terms)
    if size > _MOST_BYTES:
        raise UntranslatableError(
            f"it may hold rows of {size:,} bytes, a B-tree index takes {_MOST_BYTES:,}"
        )


def _beside_columns(term: _Term, long: set[str]) -> int:
    """Return how many bytes a term may take beside those of its long columns."""
    if term.is_expression:  # Its literals are no longer than its SQL, a number's digits than 20.
        return _LONG_TERM + len(term.sql.encode()) + 20 * len(term.columns)
    return _LONG_TERM if long.issuperset(term.columns) else _SHORT_TERM


def _is_primary(made: Draft, index: Index) -> bool:
    return not index.keys and not any(made.nulls.get(name, 0) for name in index.columns)


def _is_served(index: Index, others: tuple[Index, ...]) -> bool:
    """Whether an index of the graph's own description does all that this one does."""
    if index.keys or index.where is not None:
        return False
    plain = [other for other in others if not other.gin and not other.keys and other.where is None]
    if index.unique:
        return any(other.unique and other.columns == index.columns for other in plain)
    return any(other.columns[: len(index.columns)] == index.columns for other in plain)


def _usual_name(made: Draft, index: Index) -> str:
    return "_".join((made.table.name, *index.columns, "key"))


def _shown(source: SourceIndex) -> str:
    if source.sql or source.origin == "c":
        return source.sql or f"CREATE INDEX {source.name}"
    columns = ", ".join(term.name or "?" for term in source.terms)
    return f"{'PRIMARY KEY' if source.origin == 'pk' else 'UNIQUE'} ({columns})"
