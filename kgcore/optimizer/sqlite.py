"""The same questions to SQLite, as far as it has an answer."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from kgcore.backends import Row, SQLiteBackend
from kgcore.errors import SourceError
from kgcore.optimizer.model import IndexState, Plan, Step, TableState
from kgcore.optimizer.redundant import Shape, redundant
from kgcore.optimizer.refusals import writes
from kgcore.schema import TABLES, quoted

_OWN = {index.name for table in TABLES for index in table.indexes}


def tables(backend: SQLiteBackend) -> tuple[TableState, ...]:
    """Return the tables, with their rows counted."""
    sizes = _sizes(backend)
    owners = {
        row["name"]: row["tbl_name"]
        for row in backend.fetchall("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'")
    }
    analyzed = {row["tbl"] for row in _statistics(backend)}
    found = []
    for name in _tables(backend):
        row = backend.fetchone(f"SELECT count(*) AS rows FROM {quoted(name)}")
        rows = int(row["rows"]) if row is not None else 0
        advice = "never analyzed: --analyze" if rows and name not in analyzed else ""
        index_bytes = sum(sizes.get(index, 0) for index, table in owners.items() if table == name)
        found.append(TableState(name, rows, sizes.get(name, 0), index_bytes, advice=advice))
    return tuple(found)


def indexes(backend: SQLiteBackend, used: AbstractSet[str]) -> tuple[IndexState, ...]:
    """Return the indexes; ``used`` are those in the plans of the library's queries."""
    sizes = _sizes(backend)
    rows = [
        (table, row)
        for table in _tables(backend)
        for row in backend.fetchall(f"PRAGMA index_list({quoted(table)})")
    ]
    shapes = {row["name"]: _shape(backend, table, row) for table, row in rows}
    needless = redundant(list(shapes.values()))
    found = []
    for table, row in rows:
        name, cover = row["name"], needless.get(row["name"])
        unused = name not in used and not row["unique"]
        advice = ""
        if cover is not None:
            advice = f"{cover} serves its queries: DROP INDEX {quoted(name)}"
        elif unused and name not in _OWN:
            advice = "no query of the library's uses it; your own may"
        columns = ", ".join(key.partition(" ")[0] for key in shapes[name].keys)
        size = sizes.get(name, 0)
        found.append(
            IndexState(table, name, f"({columns})", size, None, unused, cover, advice=advice)
        )
    return tuple(found)


def notes(backend: SQLiteBackend) -> tuple[str, ...]:
    """Return what SQLite has no answer to, and what VACUUM would give back."""
    free = int(_pragma(backend, "freelist_count")) * int(_pragma(backend, "page_size"))
    return (
        "SQLite doesn't count how often an index is used: unused means by no plan of the library's"
        " queries",
        "slow queries, bloat, dead rows and server settings are PostgreSQL's",
        f"{free:,} bytes of the file are free: --vacuum gives them back",
    )


def analyze(backend: SQLiteBackend) -> None:
    """Run ANALYZE, which PRAGMA optimize would do only where it sees the need."""
    with backend.transaction():
        backend.execute("ANALYZE")
        backend.execute("PRAGMA optimize")


def vacuum(backend: SQLiteBackend) -> None:
    """Write the file anew, without its free pages. Waits for writers."""
    if backend.in_transaction:
        raise SourceError(
            f"{backend.db_path}: VACUUM can't be a part of this thread's transaction",
            "commit or roll back first",
        )
    # Outside of a transaction the backend doesn't write.
    backend.fetchall("PRAGMA query_only = OFF")
    try:
        backend.fetchall("VACUUM")
        backend.fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        backend.fetchall("PRAGMA query_only = ON")


def explain(backend: SQLiteBackend, sql: str, params: Sequence[Any] = ()) -> Plan:
    """Return EXPLAIN QUERY PLAN; the statement isn't run. One that writes is refused."""
    program = backend.fetchall(f"EXPLAIN {sql}", params)
    if any(step["opcode"] == "Transaction" and step["p2"] for step in program):
        raise writes()
    rows = backend.fetchall(f"EXPLAIN QUERY PLAN {sql}", params)
    found = [str(row["detail"]) for row in rows]
    root = Step("the statement", steps=_steps(rows, 0))
    return Plan(" ".join(sql.split()), root, tuple(_hints(found)), None, _indexes(found))


def _steps(rows: Sequence[Row], parent: int) -> tuple[Step, ...]:
    return tuple(
        Step(_words(row["detail"]), steps=_steps(rows, row["id"]))
        for row in rows
        if row["parent"] == parent
    )


def _words(detail: str) -> str:
    for said, words in (
        ("SCAN", "read all of"),
        ("SEARCH", "look up in"),
        ("USE TEMP B-TREE FOR", "sort for"),
        ("USING COVERING INDEX", "by the index alone,"),
        ("USING AUTOMATIC COVERING INDEX", "by an index made for this once,"),
        ("USING INTEGER PRIMARY KEY", "by its id"),
        ("USING INDEX", "by"),
    ):
        detail = detail.replace(said, words)
    return detail


def _hints(details: Sequence[str]) -> list[str]:
    hints = []
    for detail in details:
        if "AUTOMATIC" in detail:
            hints.append(f"an index is missing, SQLite made one for this once: {detail}")
        elif detail.startswith("SCAN") and "INDEX" not in detail and "VIRTUAL" not in detail:
            hints.append(f"every row is read: {detail}")
    return list(dict.fromkeys(hints)) or ["nothing stands out"]


def _indexes(details: Sequence[str]) -> frozenset[str]:
    found = set()
    for detail in details:
        words = detail.split()
        found |= {words[i + 1] for i, word in enumerate(words[:-1]) if word == "INDEX"}
    return frozenset(found)


def _shape(backend: SQLiteBackend, table: str, row: Row) -> Shape:
    columns = backend.fetchall(f"PRAGMA index_xinfo({quoted(row['name'])})")
    # What has no name is an expression; two of them are never taken for the same.
    expression = f"(expression of {row['name']})"
    keys = tuple(
        f"{column['name'] or expression} {column['desc']} {column['coll']}"
        for column in columns
        if column["key"]
    )
    return Shape(
        table=table,
        name=row["name"],
        kind="btree",
        keys=keys,
        predicate=row["name"] if row["partial"] else "",
        enforces=bool(row["unique"]),
        constraint=row["origin"] != "c",
    )


def _tables(backend: SQLiteBackend) -> list[str]:
    rows = backend.fetchall(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
    )
    return [row["name"] for row in rows]


def _statistics(backend: SQLiteBackend) -> list[Row]:
    there = backend.fetchone("SELECT 1 AS found FROM sqlite_master WHERE name = 'sqlite_stat1'")
    return backend.fetchall("SELECT tbl FROM sqlite_stat1") if there else []


def _sizes(backend: SQLiteBackend) -> dict[str, int]:
    """Return the bytes by table and index, where SQLite was built to tell."""
    there = backend.fetchone(
        "SELECT 1 AS found FROM pragma_compile_options WHERE compile_options = 'ENABLE_DBSTAT_VTAB'"
    )
    if there is None:
        return {}
    rows = backend.fetchall("SELECT name, sum(pgsize) AS bytes FROM dbstat GROUP BY name")
    return {row["name"]: row["bytes"] for row in rows}


def _pragma(backend: SQLiteBackend, name: str) -> Any:
    row = backend.fetchone(f"PRAGMA {name}")
    return None if row is None else next(iter(row.values()))
