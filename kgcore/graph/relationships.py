"""Relationships: the typed, directed edges of the graph."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from psycopg2.errors import ForeignKeyViolation

from kgcore.backends import Row
from kgcore.graph.dialect import NOW
from kgcore.graph.errors import unknown_entities
from kgcore.graph.session import Part
from kgcore.graph.values import (
    Direction,
    Metadata,
    instant_text,
    metadata_text,
    metadata_value,
    text,
)

T = TypeVar("T")

# For each direction: the column that holds the known entity, and the one that leads to the other.
ENDS: dict[str, tuple[tuple[str, str], ...]] = {
    "outgoing": (("from_id", "to_id"),),
    "incoming": (("to_id", "from_id"),),
    "both": (("from_id", "to_id"), ("to_id", "from_id")),
}

_PAIR = (
    "e.id AS e_id, e.type AS e_type, e.name AS e_name, e.metadata AS e_metadata,"
    " r.id AS sort, r.type AS r_type, r.metadata AS r_metadata, r.created_at AS r_created_at"
)


class Relationships(Part):
    """Adds, finds and deletes relationships."""

    def add_relationship(
        self,
        from_id: int,
        to_id: int,
        relationship_type: str,
        metadata: Metadata | None = None,
    ) -> int:
        """Add a relationship and return its id. Two entities may have several of the same type.

        Raises :class:`UnknownEntityError` if one of them does not exist.
        """
        session = self._session
        # An entity that is missing is seen here, where it costs the caller's transaction nothing;
        # a violated foreign key would end it on PostgreSQL.
        sql = (
            "INSERT INTO relationships (from_id, to_id, type, metadata, created_at)"
            f" SELECT f.id, t.id, ?, {session.dialect.json}, {session.dialect.now}"
            " FROM entities f, entities t WHERE f.id = ? AND t.id = ? RETURNING id"
        )
        params = (text(relationship_type), metadata_text(metadata), NOW, from_id, to_id)
        rows = refusing_deleted(
            lambda: session.write(sql, params, repeatable=False), [from_id, to_id]
        )
        if not rows:
            found = "SELECT id FROM entities WHERE id IN (?, ?)"
            known = {row["id"] for row in session.rows(found, (from_id, to_id))}
            raise unknown_entities(sorted({from_id, to_id} - known))
        return int(rows[0]["id"])

    def find_related(
        self,
        entity_id: int,
        relationship_type: str | None = None,
        direction: Direction = "outgoing",
    ) -> list[tuple[Row, Row]]:
        """Return the entities at the other end, each with its relationship, the oldest first.

        They are pairs of ``dict(id, type, name, metadata)`` and ``dict(type, metadata,
        created_at)``. In both directions a relationship of an entity with itself comes once.
        """
        return self._pairs(entity_id, relationship_type, direction)

    def delete_relationship(self, relationship_id: int) -> bool:
        """Delete a relationship; return False if there is no such one."""
        sql = "DELETE FROM relationships WHERE id = ? RETURNING id"
        return bool(self._session.write(sql, (relationship_id,)))

    def get_files_for_mission(self, mission_id: str) -> list[Row]:
        """Return the files a mission worked on, as ``{"file": …, "relationship": …}``."""
        pairs = self._named_pairs("mission", mission_id, "worked_on", "outgoing", "file")
        return [{"file": entity, "relationship": relationship} for entity, relationship in pairs]

    def get_missions_for_file(self, file_path: str) -> list[Row]:
        """Return the missions that worked on a file, as ``{"mission": …, "relationship": …}``."""
        pairs = self._named_pairs("file", file_path, "worked_on", "incoming", "mission")
        return [{"mission": entity, "relationship": relationship} for entity, relationship in pairs]

    def get_bug_relationships(self, mission_id: str) -> dict[str, list[Row]]:
        """Return ``{"caused_bugs", "fixed_bugs"}``: lists of ``{"entity", "relationship"}``."""
        found: dict[str, list[Row]] = {}
        for key, relationship_type in (("caused_bugs", "caused_bug"), ("fixed_bugs", "fixed_bug")):
            pairs = self._named_pairs("mission", mission_id, relationship_type, "outgoing")
            found[key] = [
                {"entity": entity, "relationship": relationship} for entity, relationship in pairs
            ]
        return found

    def _named_pairs(
        self,
        entity_type: str,
        name: str,
        relationship_type: str,
        direction: Direction,
        other_type: str | None = None,
    ) -> list[tuple[Row, Row]]:
        row = self._session.row(
            "SELECT id FROM entities WHERE type = ? AND name = ?", (entity_type, text(name))
        )
        if row is None:
            return []
        return self._pairs(row["id"], relationship_type, direction, other_type)

    def _pairs(
        self,
        entity_id: int,
        relationship_type: str | None,
        direction: str,
        other_type: str | None = None,
    ) -> list[tuple[Row, Row]]:
        branches: list[str] = []
        params: list[object] = []
        for mine, other in ends(direction):
            condition = f"r.{mine} = ?"
            params.append(entity_id)
            if relationship_type is not None:
                condition += " AND r.type = ?"
                params.append(text(relationship_type))
            if other_type is not None:
                condition += " AND e.type = ?"
                params.append(other_type)
            if branches:
                condition += " AND r.from_id <> r.to_id"
            branches.append(
                f"SELECT {_PAIR} FROM relationships r JOIN entities e ON e.id = r.{other}"
                f" WHERE {condition}"
            )
        rows = self._session.rows(" UNION ALL ".join(branches) + " ORDER BY sort", params)
        return [_pair(row) for row in rows]


def _pair(row: Row) -> tuple[Row, Row]:
    entity = {
        "id": row["e_id"],
        "type": row["e_type"],
        "name": row["e_name"],
        "metadata": metadata_value(row["e_metadata"]),
    }
    relationship = {
        "type": row["r_type"],
        "metadata": metadata_value(row["r_metadata"]),
        "created_at": instant_text(row["r_created_at"]),
    }
    return entity, relationship


def ends(direction: str) -> tuple[tuple[str, str], ...]:
    """Return for each way of a direction the column to look in and the one that leads on.

    Raises ValueError for any other word.
    """
    if direction not in ENDS:
        raise ValueError(f"direction must be one of {', '.join(ENDS)}, not {direction!r}")
    return ENDS[direction]


def refusing_deleted(work: Callable[[], T], ids: list[int]) -> T:
    """Do work that joins entities; one that was deleted at that moment is an unknown one."""
    try:
        return work()
    except ForeignKeyViolation:
        raise unknown_entities(ids) from None
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise
        raise unknown_entities(ids) from None
