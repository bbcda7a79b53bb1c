"""PostgreSQL's tables: sizes, dead rows, when they were last vacuumed and analyzed."""

from datetime import UTC, datetime

from kgcore.backends import PostgreSQLBackend, Row
from kgcore.optimizer.model import TableState

_TABLES = """
SELECT c.relname AS name, c.reltuples AS analyzed_rows, pg_table_size(c.oid) AS bytes,
    pg_indexes_size(c.oid) AS index_bytes, coalesce(s.n_live_tup, 0) AS live_rows,
    coalesce(s.n_dead_tup, 0) AS dead_rows, coalesce(s.n_mod_since_analyze, 0) AS changed_rows,
    greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
    greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze,
    c.relpages AS pages, c.relallvisible AS visible_pages,
    coalesce('autovacuum_enabled=false' = ANY(c.reloptions)
        OR 'autovacuum_enabled=off' = ANY(c.reloptions), false)
        OR current_setting('autovacuum') = 'off' AS left_alone,
    current_setting('autovacuum_vacuum_threshold')::float
        + current_setting('autovacuum_vacuum_scale_factor')::float * greatest(c.reltuples, 0)
        AS vacuum_from,
    current_setting('autovacuum_analyze_threshold')::float
        + current_setting('autovacuum_analyze_scale_factor')::float * greatest(c.reltuples, 0)
        AS analyze_from
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE n.nspname = current_schema() AND c.relkind = 'r'
ORDER BY c.relname
"""


def tables(backend: PostgreSQLBackend) -> tuple[TableState, ...]:
    """Return the tables of the graph's schema."""
    return tuple(map(_state, backend.fetchall(_TABLES)))


def counted_since(backend: PostgreSQLBackend) -> str | None:
    """Return since when the server counts how often indexes are used."""
    row = backend.fetchone(
        "SELECT coalesce(stats_reset, pg_postmaster_start_time()) AS since FROM pg_stat_database"
        " WHERE datname = current_database()"
    )
    return None if row is None else _time(row["since"])


def _state(row: Row) -> TableState:
    analyzed = row["analyzed_rows"] >= 0
    return TableState(
        name=row["name"],
        rows=int(row["analyzed_rows"] if analyzed else row["live_rows"]),
        bytes=row["bytes"],
        index_bytes=row["index_bytes"],
        dead_rows=row["dead_rows"],
        changed_rows=row["changed_rows"],
        last_vacuum=_time(row["last_vacuum"]),
        last_analyze=_time(row["last_analyze"]),
        advice=_advice(row),
    )


def _advice(row: Row) -> str:
    advice = []
    if row["left_alone"]:
        advice.append("autovacuum is off for it")
    # The same bounds as autovacuum's, which looks once a minute.
    if row["dead_rows"] > row["vacuum_from"]:
        advice.append("many dead rows: --vacuum")
    elif row["pages"] > 0 and row["visible_pages"] == 0 and row["last_vacuum"] is None:
        advice.append("never vacuumed, so that index-only scans must read it: --vacuum")
    never = row["analyzed_rows"] < 0 and row["bytes"] > 0
    if row["changed_rows"] > row["analyze_from"] or (never and row["live_rows"] > 0):
        advice.append("much has changed since the last ANALYZE: --analyze")
    return "; ".join(advice)


def _time(value: datetime | None) -> str | None:
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
