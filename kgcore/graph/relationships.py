"""Relationships: the typed, directed edges of the graph."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from psycopg2.errors import ForeignKeyViolation

from kgcore.backends import Row
from kgcore.graph.dialect import NOW, Dialect
from kgcore.graph.errors import unknown_entities, vanished_entities
from kgcore.graph.filters import Filter
from kgcore.graph.session import Part
from kgcore.graph.values import (
    Direction,
    Metadata,
    count,
    integer,
    metadata_text,
    text,
)
from kgcore.schema import RELATIONSHIPS

T = TypeVar("T")

# For each direction: the column that holds the known entity, and the one that leads to the other.
ENDS: dict[str, tuple[tuple[str, str], ...]] = {
    "outgoing": (("from_id", "to_id"),),
    "incoming": (("to_id", "from_id"),),
    "both": (("from_id", "to_id"), ("to_id", "from_id")),
}

_BY_NAME = "(SELECT id FROM entities WHERE type = ? AND name = ?)"
_RELATIONSHIP = ", ".join(RELATIONSHIPS.column_names)
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
        from_id, to_id = integer(from_id, "from_id"), integer(to_id, "to_id")
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
            missing = sorted({from_id, to_id} - known)
            raise unknown_entities(missing) if missing else vanished_entities([from_id, to_id])
        return int(rows[0]["id"])

    def get_relationship(self, relationship_id: int) -> Row | None:
        """Return ``dict(id, from_id, to_id, type, metadata, created_at)``, or None."""
        sql = f"SELECT {_RELATIONSHIP} FROM relationships WHERE id = ?"
        return self._session.record(sql, (integer(relationship_id, "relationship_id"),))

    def list_relationships(
        self,
        *,
        from_id: int | None = None,
        to_id: int | None = None,
        relationship_type: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Row]:
        """Return relationships as :meth:`get_relationship` does, those added last first.

        ``after`` goes on behind one: the id of the last of the page before.
        """
        chosen = Filter(self._session.dialect)
        chosen.equal_id("from_id", from_id)
        chosen.equal_id("to_id", to_id)
        chosen.equal_text("type", relationship_type)
        if after is not None:
            chosen.add("id < ?", integer(after, "after"))
        return self._session.records(
            f"SELECT {_RELATIONSHIP} FROM relationships {chosen.where} ORDER BY id DESC LIMIT ?",
            (*chosen.params, count(limit, "limit")),
        )

    def find_related(
        self,
        entity_id: int,
        relationship_type: str | None = None,
        direction: Direction = "outgoing",
        *,
        limit: int | None = None,
    ) -> list[tuple[Row, Row]]:
        """Return the entities at the other end, each with its relationship, the oldest first.

        They are all, or the first ``limit``: pairs of ``dict(id, type, name, metadata)`` and
        ``dict(type, metadata, created_at)``. In both directions a relationship of an entity with
        itself comes once.
        """
        wanted = None if relationship_type is None else (relationship_type,)
        known = (integer(entity_id, "entity_id"),)
        return self._pairs("?", known, wanted, direction, limit=limit)

    def delete_relationship(self, relationship_id: int) -> bool:
        """Delete a relationship; return False if there is no such one.

        So it does, too, where the connection was lost in a first try that had deleted it.
        """
        sql = "DELETE FROM relationships WHERE id = ? RETURNING id"
        return bool(self._session.write(sql, (integer(relationship_id, "relationship_id"),)))

    def get_files_for_mission(self, mission_id: str) -> list[Row]:
        """Return the files a mission worked on, as ``{"file": …, "relationship": …}``."""
        named = ("mission", text(mission_id))
        pairs = self._pairs(_BY_NAME, named, ("worked_on",), "outgoing", other_type="file")
        return [{"file": entity, "relationship": relationship} for entity, relationship in pairs]

    def get_missions_for_file(self, file_path: str) -> list[Row]:
        """Return the missions that worked on a file, as ``{"mission": …, "relationship": …}``."""
        named = ("file", text(file_path))
        pairs = self._pairs(_BY_NAME, named, ("worked_on",), "incoming", other_type="mission")
        return [{"mission": entity, "relationship": relationship} for entity, relationship in pairs]

    def get_bug_relationships(self, mission_id: str) -> dict[str, list[Row]]:
        """Return ``{"caused_bugs", "fixed_bugs"}``: lists of ``{"entity", "relationship"}``."""
        keys = {"caused_bug": "caused_bugs", "fixed_bug": "fixed_bugs"}
        found: dict[str, list[Row]] = {key: [] for key in keys.values()}
        named = ("mission", text(mission_id))
        for entity, relationship in self._pairs(_BY_NAME, named, tuple(keys), "outgoing"):
            pair = {"entity": entity, "relationship": relationship}
            found[keys[relationship["type"]]].append(pair)
        return found

    def _pairs(
        self,
        entity: str,
        entity_params: Sequence[object],
        types: Sequence[str] | None,
        direction: str,
        *,
        other_type: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[Row, Row]]:
        """Return the pairs of :meth:`find_related`; ``entity`` is an expression for its id."""
        branches: list[str] = []
        params: list[object] = []
        for mine, other in ends(direction):
            condition = f"r.{mine} = {entity}"
            params += entity_params
            if types is not None:
                condition += f" AND r.type IN ({', '.join('?' * len(types))})"
                params += map(text, types)
            if other_type is not None:
                condition += " AND e.type = ?"
                params.append(other_type)
            if branches:
                condition += " AND r.from_id <> r.to_id"
            branches.append(
                f"SELECT {_PAIR} FROM relationships r JOIN entities e ON e.id = r.{other}"
                f" WHERE {condition}"
            )
        sql = " UNION ALL ".join(branches) + " ORDER BY sort"
        if limit is not None:
            sql += " LIMIT ?"
            params.append(count(limit, "limit"))
        dialect = self._session.dialect
        return [_pair(dialect, row) for row in self._session.rows(sql, params)]


def _pair(dialect: Dialect, row: Row) -> tuple[Row, Row]:
    entity = {
        "id": row["e_id"],
        "type": row["e_type"],
        "name": row["e_name"],
        "metadata": dialect.metadata(row["e_metadata"]),
    }
    relationship = {
        "type": row["r_type"],
        "metadata": dialect.metadata(row["r_metadata"]),
        "created_at": dialect.time(row["r_created_at"]),
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
        raise vanished_entities(ids) from None
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise
        raise vanished_entities(ids) from None
