"""Indexes, primary keys and UNIQUE constraints."""

from dataclasses import replace

from kgcore.model import Index, Kind, NotCarriedOver
from kgcore.schema.postgres import LONGEST_KEY, all_indexes
from kgcore.schema.translate import sql
from kgcore.schema.translate.ddl import IndexClauses, index_clauses, without_direction
from kgcore.schema.translate.expressions import UntranslatableError, condition, translate
from kgcore.schema.translate.names import Relations
from kgcore.schema.translate.source import IndexTerm, SourceIndex
from kgcore.schema.translate.tables import Draft

#: PostgreSQL's INDEX_MAX_KEYS.
_MOST_TERMS = 32


def with_indexes(made: Draft, relations: Relations) -> Draft:
    """Add the table's primary key, unique constraints and indexes, as far as they can be."""
    table, notes = made.table, list(made.notes)
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
            name = relations.free(f"{table.name}_pkey")
            table = replace(table, primary=replace(index, name=name))
            continue
        if source.origin == "pk":
            note = "it holds NULLs, or folds case: it is a unique index instead"
            notes.append(NotCarriedOver(table.name, "primary key", _shown(source), note))
        # An index of CREATE INDEX keeps its name; behind a constraint SQLite makes one up.
        name = relations.free(source.name if source.origin == "c" else _usual_name(made, index))
        if source.origin == "c" and name != source.name:
            note = f"the name is taken or too long: it is called {name}"
            notes.append(NotCarriedOver(table.name, "index name", source.name, note))
        table = replace(table, indexes=(*table.indexes, replace(index, name=name)))
    return replace(made, table=table, notes=tuple(notes))


def _translated(made: Draft, source: SourceIndex) -> Index:
    clauses = index_clauses(source.sql) if source.sql else IndexClauses((), None)
    if clauses is None or (source.sql and len(clauses.terms) != len(source.terms)):
        raise UntranslatableError("its text can't be cut into words")
    if len(source.terms) > _MOST_TERMS:
        raise UntranslatableError(f"PostgreSQL's indexes have {_MOST_TERMS} columns at most")
    texts = clauses.terms or ("",) * len(source.terms)
    keys = [_key(made, term, text) for term, text in zip(source.terms, texts, strict=True)]
    columns = tuple(dict.fromkeys(name for _, names in keys for name in names))
    _require_indexable(made, columns)
    plain = all(key == sql.name(names[0]) for key, names in keys if names)
    where = condition(clauses.where, made.scope).sql if clauses.where else None
    if source.partial and where is None:
        raise UntranslatableError("its condition can't be found in its text")
    return Index(
        "",
        columns,
        unique=source.unique,
        keys=() if plain else tuple(key for key, _ in keys),
        where=where,
        constraint=source.origin != "c",
    )


def _key(made: Draft, term: IndexTerm, text: str) -> tuple[str, tuple[str, ...]]:
    """Return a term in PostgreSQL's SQL, and the columns it reads."""
    if term.name is None:
        part = translate(without_direction(text), made.scope)
        if part.kind is None or not part.columns:
            raise UntranslatableError("an expression of no column")
        key, columns, kind = f"({part.sql})", part.columns, part.kind
    else:
        column = made.columns.get(sql.fold_ascii(term.name))
        if column is None:
            raise UntranslatableError(f"the column {term.name} is not carried over")
        key, columns, kind = sql.name(column.name), (column.name,), column.kind
    if term.collation.upper() == "NOCASE" and kind is Kind.TEXT:
        key = sql.nocase(key)
    elif term.collation.upper() not in {"BINARY", "NOCASE"}:
        raise UntranslatableError(f"PostgreSQL has no collation {term.collation}")
    return key + (" DESC" if term.descending else ""), columns


def _require_indexable(made: Draft, columns: tuple[str, ...]) -> None:
    kinds = {column.name: column.kind for column in made.columns.values()}
    if any(kinds[name] is Kind.JSON for name in columns):
        raise UntranslatableError("JSON is compared as text by SQLite, and not by JSONB")
    long = {Kind.TEXT, Kind.BLOB, Kind.NUMERIC}
    size = sum(made.longest.get(name, 0) for name in columns if kinds[name] in long)
    if size > LONGEST_KEY:
        raise UntranslatableError(
            f"it may hold keys of {size:,} bytes, a B-tree index takes {LONGEST_KEY:,}"
        )


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
    if source.sql:
        return source.sql
    columns = ", ".join(term.name or "?" for term in source.terms)
    return f"{'PRIMARY KEY' if source.origin == 'pk' else 'UNIQUE'} ({columns})"
