"""EXPLAIN of PostgreSQL, in words, and what stands out in it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from psycopg2.errors import QueryCanceled, UndefinedParameter
from psycopg2.extensions import connection as Connection  # noqa: N812

from kgcore.backends import PostgreSQLBackend
from kgcore.backends.parameters import portable
from kgcore.backends.placeholders import to_psycopg2
from kgcore.errors import SettingsError
from kgcore.graph.dialect import POSTGRES
from kgcore.optimizer.model import Plan, Step
from kgcore.optimizer.refusals import writes

Node = dict[str, Any]

_SECONDS = 30
_RUN, _PLAN = "ANALYZE, BUFFERS", "COSTS"
_GENERIC_SINCE = 160000

# By EXPLAIN's name: what it does, in words; {table} and {index} are filled in.
_WORDS = {
    "Seq Scan": "read all of {table}",
    "Index Scan": "look up {table} by {index}",
    "Index Only Scan": "look up in {index} alone",
    "Bitmap Heap Scan": "fetch rows of {table} in page order",
    "Bitmap Index Scan": "find pages by {index}",
    "Nested Loop": "for each row of the first, do the second",
    "Hash Join": "join by a hash table",
    "Merge Join": "join two sorted inputs",
    "Hash": "build a hash table",
    "Sort": "sort",
    "Incremental Sort": "sort what is partly sorted",
    "Aggregate": "aggregate",
    "Group": "group",
    "WindowAgg": "window functions",
    "Limit": "take the first rows",
    "Unique": "drop duplicates",
    "Append": "one after the other",
    "Materialize": "keep for reading again",
    "Memoize": "remember answers",
    "CTE Scan": "read the result of {table}",
    "Subquery Scan": "read the subquery {table}",
    "Function Scan": "call {table}",
    "Values Scan": "read a list of values",
    "Recursive Union": "repeat until nothing new comes",
    "WorkTable Scan": "read what came last",
    "Gather": "collect from parallel workers",
    "Gather Merge": "collect from parallel workers, in order",
    "BitmapAnd": "pages in all of these",
    "BitmapOr": "pages in any of these",
    "ProjectSet": "make several rows of one",
    "Result": "compute",
    "LockRows": "lock rows",
}
_CONDITIONS = (
    ("Index Cond", "where"),
    ("Recheck Cond", "where"),
    ("Hash Cond", "on"),
    ("Merge Cond", "on"),
    ("Join Filter", "keeping"),
    ("Filter", "keeping"),
    ("Sort Key", "by"),
    ("Group Key", "by"),
    ("CTE Name", "result"),
)
_MANY = 10_000
_AT_RUN_TIME = re.compile(r"\$\d|Plan \d")


def explain(
    backend: PostgreSQLBackend,
    sql: str,
    params: Sequence[Any] = (),
    *,
    run: bool = True,
    heavy: bool = False,
) -> Plan:
    """Return how PostgreSQL does a statement that only reads, in a read-only transaction.

    ``heavy`` says that the library sends it with its settings for statements that look at much.
    With ``run`` it is run, for at most 30 seconds. A statement with ``$1`` in it, as
    pg_stat_statements has them, is planned for any values (PostgreSQL 16 and later).
    """
    with backend.pool.connection() as connection:
        connection.set_session(readonly=True)
        try:
            return _plan(
                sql, _explained(connection, sql, params, _RUN if run else _PLAN, heavy=heavy)
            )
        except QueryCanceled:
            connection.rollback()
            options = _PLAN
            note = f"it did not end within {_SECONDS} s: these rows are expected, not counted"
        except UndefinedParameter:
            if connection.server_version < _GENERIC_SINCE:
                raise SettingsError(
                    "the statement has $1 in it, and this server needs values for it",
                    "write values in its place",
                ) from None
            connection.rollback()
            options = "GENERIC_PLAN"
            note = "planned for any values of $1, $2 and so on, and not run"
        plan = _plan(sql, _explained(connection, sql, params, options, heavy=heavy))
    return replace(plan, hints=(note, *plan.hints))


def _explained(
    connection: Connection, sql: str, params: Sequence[Any], options: str, *, heavy: bool
) -> Node:
    with connection.cursor() as cursor:
        if heavy:
            cursor.execute(POSTGRES.heavy)
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{_SECONDS}s",))
        text = f"EXPLAIN (FORMAT JSON, {options}) {to_psycopg2(sql)}"
        cursor.execute(text, portable(params))
        (found,) = cursor.fetchone() or ([{}],)
    return dict(found[0])


def _plan(sql: str, explained: Node) -> Plan:
    root = explained["Plan"]
    nodes = list(_nodes(root))
    if any(node["Node Type"] == "ModifyTable" for node in nodes):  # Only planned, nobody refused.
        raise writes()
    hints = tuple(dict.fromkeys([*_hints(nodes), *_whole(explained)]))
    return Plan(
        statement=" ".join(sql.split()),
        root=_step(root),
        hints=hints or ("nothing stands out",),
        ms=explained.get("Execution Time"),
        indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
    )


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def _step(node: Node) -> Step:
    loops = float(node.get("Actual Loops", 1))
    run = "Actual Rows" in node
    return Step(
        what=_what(node),
        estimated_rows=node.get("Plan Rows"),
        rows=node["Actual Rows"] * loops if run else None,
        ms=round(node["Actual Total Time"] * loops, 3) if run else None,
        loops=max(loops, 1),
        details=tuple(_details(node)),
        steps=tuple(map(_step, node.get("Plans", ()))),
    )


def _what(node: Node) -> str:
    name = node["Node Type"]
    table = node.get("Relation Name") or node.get("CTE Name") or node.get("Function Name")
    words = _WORDS.get(name, name.lower()).format(
        table=table or node.get("Alias", "it"), index=node.get("Index Name", "an index")
    )
    if node.get("Subplan Name"):
        words = f"{node['Subplan Name']}: {words}"
    return words if node.get("Actual Loops", 1) else f"{words} (never needed)"


def _details(node: Node) -> Iterator[str]:
    for key, word in _CONDITIONS:
        if key in node and key != "CTE Name":
            value = node[key]
            yield f"{word} {', '.join(value) if isinstance(value, list) else value}"
    removed = node.get("Rows Removed by Filter", 0) * node.get("Actual Loops", 1)
    if removed:
        yield f"{removed:,.0f} rows read in vain"


def _hints(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        loops = node.get("Actual Loops", 1)
        rows = node.get("Actual Rows", 0) * loops
        removed = node.get("Rows Removed by Filter", 0) * loops
        if node["Node Type"] == "Seq Scan" and removed > max(_MANY, 9 * rows):
            yield (
                f"{removed + rows:,.0f} rows of {node['Relation Name']} are read to keep"
                f" {rows:,.0f}: an index for {node['Filter']} would spare that"
            )
        expected = node.get("Plan Rows", 0) * loops
        # Too many are expected under every LIMIT; and what is known at run time alone can't be.
        foreseeable = not any(_AT_RUN_TIME.search(str(node.get(key))) for key, _ in _CONDITIONS)
        if node.get("Relation Name") and foreseeable and rows > 100 * max(expected, 1):
            yield (
                f"{rows:,.0f} rows came of {node['Relation Name']} where {expected:,.0f} were"
                " expected: --analyze brings its statistics up to date"
            )
        if node.get("Sort Space Type") == "Disk" or node.get("Hash Batches", 1) > 1:
            kib = node.get("Sort Space Used", node.get("Peak Memory Usage", 0))
            yield f"a {node['Node Type'].lower()} went to disk ({kib:,} kB): a larger work_mem"
        fetched = node.get("Heap Fetches", 0)
        if fetched > max(_MANY, rows / 2):
            yield f"{node['Index Name']} alone was not enough for {fetched:,} rows: --vacuum"


def _whole(explained: Node) -> Iterator[str]:
    ms = explained.get("Execution Time", 0.0)
    jit = explained.get("JIT", {}).get("Timing", {}).get("Total", 0.0)
    if isinstance(jit, int | float) and jit > ms / 2 > 0:
        yield f"{jit:,.0f} of {ms:,.0f} ms went into compiling it: SET jit = off"
    planning = explained.get("Planning Time", 0.0)
    if planning > max(ms, 10):
        yield f"planning took {planning:,.0f} ms, longer than the work itself"


def single_statement(code: str) -> bool:
    """Whether SQL without its literals and comments is one statement that reads."""
    bare = code.strip().rstrip(";").rstrip()
    return (
        ";" not in bare and re.match(r"[\s(]*(SELECT|WITH|VALUES|TABLE)\b", bare, re.I) is not None
    )
