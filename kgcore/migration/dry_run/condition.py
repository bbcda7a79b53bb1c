"""Condition: a translated check or index expression, put to SQLite again over the target's values.

The translation knows few parts, for which both databases agree; see
:mod:`kgcore.schema.translate.expressions`. Only PostgreSQL's way to write them is changed here.
"""

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError


def in_sqlite(expression: str) -> str | None:
    """Return PostgreSQL's SQL of a check or an index in SQLite's, None where it can't be told."""
    try:
        tree = sqlglot.parse_one(expression, read="postgres")
        return tree.transform(_rewritten).sql(dialect="sqlite")
    except (SqlglotError, RecursionError):
        return None


def _rewritten(node: exp.Expression) -> exp.Expression:
    match node:
        case exp.Collate():  # "C" compares bytes, which is SQLite's BINARY.
            return exp.Collate(this=node.this, expression=exp.Var(this="BINARY"))
        case exp.ByteString():  # E'…', in which a backslash is written twice.
            return exp.Literal.string(node.name.replace("\\\\", "\\"))
        case exp.Escape():  # The empty one, which SQLite's LIKE has anyway.
            inner: exp.Expression = node.this
            return inner.transform(_rewritten)  # What is put in a node's place is not gone into.
        case exp.Cast() if node.to.is_type("double"):
            return exp.Cast(this=node.this, to=exp.DataType.build("REAL", dialect="sqlite"))
    return node
