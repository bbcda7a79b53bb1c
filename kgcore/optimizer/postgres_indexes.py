"""PostgreSQL's indexes: how often they are used, which are needless, which are bloated."""

from collections.abc import Sequence
from typing import Any

from kgcore.backends import PostgreSQLBackend, Row
from kgcore.optimizer.bloat import Keys, fresh_bytes, is_bloated
from kgcore.optimizer.model import IndexState
from kgcore.optimizer.redundant import Shape, redundant
from kgcore.schema import TABLES

_OWN = {index.name for table in TABLES for index in table.indexes}

_INDEXES = """
SELECT t.relname AS table_name, c.relname AS name, a.amname AS method, i.indisunique AS is_unique,
    i.indisvalid AS is_valid, c.reltuples AS rows, pg_relation_size(c.oid) AS bytes,
    coalesce(s.idx_scan, 0) AS scans, pg_get_indexdef(c.oid) AS definition,
    quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted,
    i.indisreplident OR EXISTS (
        SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')
    ) AS backs_constraint,
    coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
    i.indnkeyatts AS key_count,
    EXISTS (
        SELECT 1 FROM pg_constraint k
        WHERE k.contype = 'f' AND k.conrelid = i.indrelid AND k.conkey[1] = i.indkey[0]
    ) AS leads_foreign_key,
    coalesce(substring(array_to_string(c.reloptions, ',') FROM 'fillfactor=(\\d+)')::int, 90)
        AS fillfactor,
    (
        SELECT jsonb_agg(jsonb_build_object(
            'text', pg_get_indexdef(c.oid, k.n, true),
            'order', CASE WHEN k.n <= i.indnkeyatts
                THEN concat_ws(' ', i.indclass[k.n - 1], i.indcollation[k.n - 1],
                    i.indoption[k.n - 1]) END,
            'width', p.avg_width, 'null_frac', p.null_frac, 'distinct', p.n_distinct,
            'equal_image', k.n <= i.indnkeyatts AND EXISTS (
                SELECT 1 FROM pg_opclass o JOIN pg_amproc f ON f.amprocfamily = o.opcfamily
                    AND f.amproclefttype = o.opcintype AND f.amprocnum = 4
                WHERE o.oid = i.indclass[k.n - 1]
            )
        ) ORDER BY k.n)
        FROM generate_series(1, i.indnatts) k(n)
        LEFT JOIN pg_attribute x ON x.attrelid = CASE WHEN i.indkey[k.n - 1] = 0 THEN c.oid
            ELSE t.oid END AND x.attnum = CASE WHEN i.indkey[k.n - 1] = 0 THEN k.n
            ELSE i.indkey[k.n - 1] END
        LEFT JOIN pg_stats p ON p.schemaname = n.nspname AND p.attname = x.attname
            AND NOT p.inherited AND p.tablename = CASE WHEN i.indkey[k.n - 1] = 0
                THEN c.relname ELSE t.relname END
    ) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_am a ON a.oid = c.relam
LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = c.oid
WHERE n.nspname = current_schema() AND t.relkind = 'r'
ORDER BY t.relname, c.relname
"""


def indexes(backend: PostgreSQLBackend) -> tuple[IndexState, ...]:
    """Return the indexes of the graph's schema."""
    rows = backend.fetchall(_INDEXES)
    needless = redundant([_shape(row) for row in rows])
    return tuple(_state(row, needless.get(row["name"])) for row in rows)


def _state(row: Row, redundant_to: str | None) -> IndexState:
    unused = row["scans"] == 0 and not row["is_unique"] and not row["backs_constraint"]
    bloat = _bloat(row)
    bloated = bloat is not None and is_bloated(row["bytes"], bloat)
    return IndexState(
        table=row["table_name"],
        name=row["name"],
        definition=row["definition"].partition(" USING ")[2],
        bytes=row["bytes"],
        scans=row["scans"],
        unused=unused,
        redundant_to=redundant_to,
        bloat_bytes=bloat,
        bloated=bloated,
        advice=_advice(row, redundant_to, unused=unused, bloated=bloated),
    )


def _advice(row: Row, redundant_to: str | None, *, unused: bool, bloated: bool) -> str:
    drop = f"DROP INDEX CONCURRENTLY {row['quoted']}"
    if not row["is_valid"]:
        return f"its build failed, nothing uses it: {drop}, then build it again"
    if redundant_to is not None:
        return f"{redundant_to} serves its queries: {drop}"
    advice = []
    if unused and row["name"] in _OWN:
        advice.append("not used so far; init_schema() would make it again, so leave it")
    elif unused and row["leads_foreign_key"]:
        advice.append("not used so far; a DELETE in the table it refers to would need it")
    elif unused:
        advice.append(f"not used so far (on a replica, perhaps): {drop}")
    if bloated:
        advice.append(f"much of it is empty: REINDEX INDEX CONCURRENTLY {row['quoted']}")
    return "; ".join(advice)


def _shape(row: Row) -> Shape:
    columns: Sequence[dict[str, Any]] = row["columns"]
    # Two UNIQUE indexes that treat NULL differently are not the same.
    nulls = " nulls not distinct" if "NULLS NOT DISTINCT" in row["definition"] else ""
    return Shape(
        table=row["table_name"],
        name=row["name"],
        kind=row["method"] + nulls,
        keys=tuple(f"{c['text']} {c['order']}" for c in columns[: row["key_count"]]),
        included=frozenset(c["text"] for c in columns[row["key_count"] :]),
        predicate=row["predicate"],
        enforces=row["is_unique"],
        constraint=row["backs_constraint"],
        valid=row["is_valid"],
    )


def _bloat(row: Row) -> int | None:
    """Return the estimated bloat; None for other than B-trees and where there are no statistics."""
    columns: Sequence[dict[str, Any]] = row["columns"]
    if row["method"] != "btree" or row["rows"] < 0 or any(c["width"] is None for c in columns):
        return None
    rows = float(row["rows"])
    distinct = 1.0
    for column in columns[: row["key_count"]]:
        part = float(column["distinct"])
        distinct *= part if part > 0 else -part * rows
    keys = Keys(
        rows=rows,
        width=sum(c["width"] * (1 - c["null_frac"]) for c in columns),
        distinct=rows if row["is_unique"] else min(distinct, rows),
        nulls=any(c["null_frac"] > 0 for c in columns),
        deduplicates=all(c["equal_image"] for c in columns),
        fillfactor=row["fillfactor"],
    )
    return max(int(row["bytes"]) - fresh_bytes(keys), 0)
