"""PostgreSQL DDL, derived from the description of the tables.

Everything is a :class:`psycopg2.sql.Composable`: names are quoted by the driver, whatever they are.
"""

from collections.abc import Sequence

from psycopg2.sql import SQL, Composable, Composed, Identifier

from kgcore.model import Check, Column, ForeignKey, Index, Kind, Table
from kgcore.schema.graph import TABLES

#: 64 bits for every integer and double precision for every real: SQLite's own widths, so no digit
#: is lost on the way.
TYPES = {
    Kind.KEY: "bigint",
    Kind.INTEGER: "bigint",
    Kind.REAL: "double precision",
    Kind.TEXT: "text",
    Kind.BLOB: "bytea",
    Kind.JSON: "jsonb",
    Kind.TIMESTAMP: "timestamptz",
    Kind.DATE: "date",
    Kind.BOOLEAN: "boolean",
    Kind.NUMERIC: "numeric",
    Kind.ROW: "bigint",
}


#: Bytes of text that surely fit into a row of a B-tree, whose limit is 2,704 with its overhead.
#: Longer text may fit when it compresses well; that can't be foretold, so it is refused.
LONGEST_KEY = 2_600


def reported_type(column: Column) -> str:
    """Return the type as PostgreSQL's catalog spells it."""
    return "timestamp with time zone" if column.kind is Kind.TIMESTAMP else TYPES[column.kind]


def primary_key(table: Table) -> Index | None:
    """Return the index behind the primary key, if there is one.

    Where the table's key is an integer it has PostgreSQL's usual name.
    """
    if table.primary is None and table.key.kind is Kind.KEY:
        return Index(f"{table.name}_pkey", (table.key.name,), unique=True)
    return table.primary


def all_indexes(table: Table) -> tuple[Index, ...]:
    """Return all indexes of a table, the primary key's first if it has one."""
    primary = primary_key(table)
    return table.indexes if primary is None else (primary, *table.indexes)


def create_table(schema: str, table: Table) -> Composed:
    """Return CREATE TABLE without keys, indexes or constraints, but with the identity column."""
    columns = {column.name: column for column in table.columns}
    ordered = [columns[name] for name in table.order or columns]
    return SQL("CREATE TABLE {} ({})").format(
        Identifier(schema, table.name), SQL(", ").join(map(_column, ordered))
    )


def create_index(schema: str, table: Table, index: Index, *, if_absent: bool = False) -> Composed:
    """Return CREATE INDEX for one index, the primary key's included."""
    return SQL("CREATE {}INDEX {}{} ON {} USING {} ({}){}").format(
        SQL("UNIQUE " if index.unique else ""),
        SQL("IF NOT EXISTS " if if_absent else ""),
        Identifier(index.name),
        Identifier(schema, table.name),
        SQL("gin" if index.gin else "btree"),
        SQL(", ").join(index_keys(index)),
        SQL("") if index.where is None else SQL(f" WHERE {index.where}"),
    )


def index_keys(index: Index) -> list[Composable]:
    """Return what stands between the parentheses of CREATE INDEX."""
    return list(map(SQL, index.keys)) if index.keys else list(map(Identifier, index.columns))


def attach_constraint(schema: str, table: Table, index: Index) -> Composed:
    """Return ALTER TABLE that makes a key or UNIQUE constraint of a unique index; no rebuild."""
    kind = "PRIMARY KEY" if index == primary_key(table) else "UNIQUE"
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} {} USING INDEX {}").format(
        Identifier(schema, table.name), Identifier(index.name), SQL(kind), Identifier(index.name)
    )


def add_foreign_key(schema: str, table: Table, key: ForeignKey) -> Composed:
    """Return ALTER TABLE … NOT VALID: the rows are checked afterwards, under a lighter lock."""
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
        Identifier(schema, table.name), Identifier(key.name), _references(schema, key)
    )


def add_check(schema: str, table: Table, check: Check) -> Composed:
    """Return ALTER TABLE … NOT VALID: the rows are checked afterwards, under a lighter lock."""
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
        Identifier(schema, table.name), Identifier(check.name), SQL(check.expression)
    )


def validate(schema: str, table: Table, constraint: ForeignKey | Check) -> Composed:
    """Return ALTER TABLE … VALIDATE CONSTRAINT."""
    return SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
        Identifier(schema, table.name), Identifier(constraint.name)
    )


def postgres_ddl(schema: str, tables: Sequence[Table] = TABLES) -> tuple[Composable, ...]:
    """Return the statements that create what is missing in ``schema``.

    They may be run again and again, but not by two sessions at once: callers take a lock.
    """
    return tuple(statement for table in tables for statement in _whole_table(schema, table))


def _whole_table(schema: str, table: Table) -> list[Composable]:
    lines = [_column(column) for column in table.columns]
    primary = primary_key(table)
    lines += [
        SQL("CONSTRAINT {} {} ({})").format(
            Identifier(index.name),
            SQL("PRIMARY KEY" if index == primary else "UNIQUE"),
            SQL(", ").join(map(Identifier, index.columns)),
        )
        for index in all_indexes(table)
        if index.is_constraint
    ]
    lines += [
        SQL("CONSTRAINT {} {}").format(Identifier(key.name), _references(schema, key))
        for key in table.foreign_keys
    ]
    create = SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(
        Identifier(schema, table.name), SQL(", ").join(lines)
    )
    rest = [index for index in table.indexes if not index.is_constraint]
    return [create, *(create_index(schema, table, index, if_absent=True) for index in rest)]


def _references(schema: str, key: ForeignKey) -> Composed:
    return SQL("FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {} ON UPDATE {}{}").format(
        SQL(", ").join(map(Identifier, key.columns)),
        Identifier(schema, key.table),
        SQL(", ").join(map(Identifier, key.parents)),
        SQL(key.on_delete),
        SQL(key.on_update),
        SQL(" DEFERRABLE INITIALLY DEFERRED" if key.deferred else ""),
    )


def _column(column: Column) -> Composable:
    suffix = ""
    if column.kind is Kind.KEY:
        suffix = " GENERATED BY DEFAULT AS IDENTITY"
    elif not column.nullable:
        suffix = " NOT NULL"
    if column.generated is not None:
        suffix += f" GENERATED ALWAYS AS ({column.generated}) STORED"
    elif column.default is not None:
        suffix += f" DEFAULT {column.default}"
    return Identifier(column.name) + SQL(f" {TYPES[column.kind]}{suffix}")
