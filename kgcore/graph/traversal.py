"""Walks along relationships, in one statement each.

A walk is breadth-first and counts nodes. A recursive query over nodes would count paths, whose
number grows with the power of the depth. Here a row of the recursion is a whole level instead: the
nodes found in it, each with the relationship that led to it, and all nodes found before. The next
row is made of a level's neighbours without those found before. So every node comes once, and the
walk ends when it has found ``limit`` of them.
"""

from collections.abc import Sequence
from typing import Any

from kgcore.backends import Row
from kgcore.graph.dialect import Dialect
from kgcore.graph.relationships import ends
from kgcore.graph.session import Part
from kgcore.graph.values import Direction, count, integer, text


class Traversal(Part):
    """Neighbours and shortest paths."""

    def neighbors(
        self,
        entity_id: int,
        depth: int = 1,
        relationship_type: str | None = None,
        direction: Direction = "both",
        limit: int = 1000,
    ) -> list[Row]:
        """Return the entities at most ``depth`` relationships away, the nearest first.

        Each is ``dict(id, type, name, metadata, depth)``; the entity itself is not among them.
        Within a depth they come in the order of their ids. After ``limit`` of them the walk ends,
        in whatever depth it is.
        """
        most = count(limit, "limit")
        walk, params = _walk(
            self._session.dialect,
            integer(entity_id, "entity_id"),
            count(depth, "depth"),
            most + 1,
            ends(direction),
            relationship_type,
        )
        sql = (
            f"{walk} SELECT e.id, e.type, e.name, e.metadata, s.depth"
            " FROM steps s JOIN entities e ON e.id = s.id"
            " WHERE s.depth > 0 ORDER BY s.depth, e.id LIMIT ?"
        )
        return self._session.records(sql, (*params, most), heavy=True)

    def shortest_path(
        self,
        from_id: int,
        to_id: int,
        relationship_type: str | None = None,
        direction: Direction = "both",
        max_depth: int = 10,
        max_nodes: int = 10_000,
    ) -> list[Row] | None:
        """Return the entities of a shortest path, from the one to the other, or None.

        Each is ``dict(id, type, name, metadata, relationship)``; the relationship, ``dict(id,
        from_id, to_id, type, metadata, created_at)``, is the one that led to it, None at the start.
        Of several shortest paths it is always the same one. None means that there is no path of at
        most ``max_depth`` relationships among the ``max_nodes`` entities nearest to the start,
        which is one of them. Raises ValueError if ``max_nodes`` is below 1.
        """
        to_id = integer(to_id, "to_id")
        walk, params = _walk(
            self._session.dialect,
            integer(from_id, "from_id"),
            count(max_depth, "max_depth"),
            count(max_nodes, "max_nodes", least=1),
            ends(direction),
            relationship_type,
            to_id,
        )
        rows = self._session.rows(walk + _WAY_BACK, (*params, to_id), heavy=True)
        path: list[Row] = []
        for row in rows:
            relationship = self._columns(row, "r_") if row["r_id"] is not None else None
            path.append(self._columns(row, "e_") | {"relationship": relationship})
        return path or None

    def _columns(self, row: Row, prefix: str) -> Row:
        chosen = {name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)}
        return self._session.dialect.record(chosen)


_WAY_BACK = """
, back(depth, id, edge) AS (
    SELECT depth, id, edge FROM steps WHERE id = ?
    UNION ALL
    SELECT s.depth, s.id, s.edge
    FROM back b JOIN relationships r ON r.id = b.edge
    JOIN steps s ON s.depth = b.depth - 1
        AND s.id = CASE WHEN r.from_id = b.id THEN r.to_id ELSE r.from_id END
)
SELECT e.id AS e_id, e.type AS e_type, e.name AS e_name, e.metadata AS e_metadata,
    r.id AS r_id, r.from_id AS r_from_id, r.to_id AS r_to_id, r.type AS r_type,
    r.metadata AS r_metadata, r.created_at AS r_created_at
FROM back b JOIN entities e ON e.id = b.id LEFT JOIN relationships r ON r.id = b.edge
ORDER BY b.depth
"""


def _walk(
    dialect: Dialect,
    start: int,
    depth: int,
    limit: int,
    ways: Sequence[tuple[str, str]],
    relationship_type: str | None,
    target: int | None = None,
) -> tuple[str, list[Any]]:
    """Return a WITH clause that ends in ``steps(depth, id, edge)``, and its parameters."""
    condition, chosen = "", []
    if relationship_type is not None:
        condition, chosen = "AND r.type = ?", [text(relationship_type)]
    nodes = "unnest(w.nodes) f(id)" if dialect.is_postgres else _json_nodes("w.nodes", "f")
    level = " UNION ALL ".join(
        f"SELECT r.{other} AS id, r.id AS edge, 0 AS seen"
        f" FROM {nodes} CROSS JOIN relationships r WHERE r.{mine} = f.id {condition}"
        for mine, other in ways
    )
    # The target is never cut off by the limit.
    first, sought = ("s.id <> ?, ", [target]) if target is not None else ("", [])
    template = _POSTGRES if dialect.is_postgres else _SQLITE
    sql = template.format(level=level, first=first)
    edges = [*chosen] * len(ways)
    return sql, [start, *edges, *sought, limit, depth, *([] if dialect.is_postgres else [limit])]


def _json_nodes(column: str, alias: str) -> str:
    return f"(SELECT CAST(key AS INTEGER) AS id FROM json_each('{{' || {column} || '}}')) {alias}"


_POSTGRES = """
WITH RECURSIVE walk(depth, seen, nodes, edges) AS (
    SELECT 0, ARRAY[id], ARRAY[id], ARRAY[CAST(NULL AS bigint)] FROM entities WHERE id = ?
    UNION ALL
    SELECT w.depth + 1, w.seen || n.nodes, n.nodes, n.edges
    FROM walk w CROSS JOIN LATERAL (
        SELECT array_agg(l.id ORDER BY l.id) AS nodes, array_agg(l.edge ORDER BY l.id) AS edges
        FROM (
            SELECT s.id, min(s.edge) AS edge
            FROM ({level} UNION ALL SELECT unnest(w.seen), NULL, 1) s
            GROUP BY s.id HAVING max(s.seen) = 0
            ORDER BY {first}s.id LIMIT ? - cardinality(w.seen)
        ) l
    ) n
    WHERE w.depth < ? AND n.nodes IS NOT NULL
), steps AS (
    SELECT w.depth, u.id, u.edge FROM walk w CROSS JOIN unnest(w.nodes, w.edges) AS u(id, edge)
)"""

# SQLite has no arrays: nodes and their relationships are the keys and values of a JSON object's
# inside. A query cannot stop at a limit that depends on another row; so a level may go beyond the
# limit, and is the last one then.
_SQLITE = """
WITH RECURSIVE walk(depth, found, seen, nodes) AS (
    SELECT 0, 0, '', '"' || id || '":null' FROM entities WHERE id = ?
    UNION ALL
    SELECT w.depth + 1,
        w.found + (SELECT count(*) FROM json_each('{{' || w.nodes || '}}')),
        w.seen || w.nodes || ',',
        (SELECT substr(l.g, 2, length(l.g) - 2) FROM (
            SELECT json_group_object(id, edge) AS g FROM (
                SELECT s.id, min(s.edge) AS edge FROM (
                    {level}
                    UNION ALL
                    SELECT CAST(key AS INTEGER), NULL, 1
                    FROM json_each('{{' || w.seen || w.nodes || '}}')
                ) s
                GROUP BY s.id HAVING max(s.seen) = 0
                ORDER BY {first}s.id LIMIT ?
            )
        ) l)
    FROM walk w
    WHERE w.nodes <> '' AND w.depth < ?
        AND w.found + (SELECT count(*) FROM json_each('{{' || w.nodes || '}}')) < ?
), steps AS (
    SELECT w.depth, CAST(j.key AS INTEGER) AS id, j.value AS edge
    FROM walk w CROSS JOIN json_each('{{' || w.nodes || '}}') j
)"""
