"""The slowest statements of this database, as pg_stat_statements recorded them."""

import psycopg2
from psycopg2.errors import InsufficientPrivilege, ObjectNotInPrerequisiteState

from kgcore.backends import PostgreSQLBackend
from kgcore.optimizer.model import SlowQueries, SlowQuery

_LONGEST = 400
_CREATE = "CREATE EXTENSION pg_stat_statements"
_LOAD = (
    "shared_preload_libraries = 'pg_stat_statements' in postgresql.conf (behind what stands there"
    " already), restart the server, then " + _CREATE
)


def slow_queries(
    backend: PostgreSQLBackend, limit: int = 10, min_mean_ms: float = 0.0
) -> SlowQueries:
    """Return the statements with the longest mean time, from ``min_mean_ms`` on."""
    extension = backend.fetchone(
        "SELECT quote_ident(n.nspname) AS schema FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'"
    )
    if extension is None:
        return SlowQueries(available=False, note=_how(backend))
    try:
        rows = backend.fetchall(
            _SLOWEST.format(schema=extension["schema"]), (_LONGEST, min_mean_ms, limit)
        )
    except ObjectNotInPrerequisiteState:
        return SlowQueries(available=False, note=f"the server doesn't record statements: {_LOAD}")
    except InsufficientPrivilege as error:
        return SlowQueries(available=False, note=f"{error.diag.message_primary}: {_GRANT}")
    queries = tuple(
        SlowQuery(
            query=" ".join(row["query"].split()),
            calls=row["calls"],
            mean_ms=round(row["mean_ms"], 3),
            total_ms=round(row["total_ms"], 1),
            rows=row["rows"],
            share=round(row["share"], 4),
        )
        for row in rows
    )
    hidden = any(query.query.startswith("<insufficient") for query in queries)
    note = "since the server's last restart or pg_stat_statements_reset()"
    return SlowQueries(
        True, f"others' statements are hidden: {_GRANT}" if hidden else note, queries
    )


_GRANT = "GRANT pg_read_all_stats TO this role"

_SLOWEST = r"""
WITH mine AS MATERIALIZED (
    SELECT s.* FROM {schema}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database()
)
SELECT left(query, ?) AS query, calls, mean_exec_time AS mean_ms, total_exec_time AS total_ms, rows,
    total_exec_time / (SELECT greatest(sum(total_exec_time), 1e-9) FROM mine) AS share
FROM mine
WHERE mean_exec_time >= ?
    AND query !~* '^\s*(EXPLAIN|CREATE|ALTER|DROP|ANALYZE|VACUUM|REINDEX|CLUSTER|REFRESH|GRANT)\M'
ORDER BY mean_exec_time DESC LIMIT ?
"""


def _how(backend: PostgreSQLBackend) -> str:
    there = backend.fetchone(
        "SELECT 1 AS found FROM pg_available_extensions WHERE name = 'pg_stat_statements'"
    )
    if there is None:
        return f"not installed: install PostgreSQL's contrib package, set {_LOAD}"
    try:
        loaded = backend.fetchone("SELECT current_setting('shared_preload_libraries') AS names")
    except psycopg2.Error:  # Only members of pg_read_all_settings may see it.
        loaded = None
    if loaded is not None and "pg_stat_statements" in loaded["names"]:
        return f"the server records statements, but this database has no view of them: {_CREATE}"
    return f"switched off: set {_LOAD}"
