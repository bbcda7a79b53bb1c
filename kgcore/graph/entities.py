"""Entities: the nodes of the graph."""

import json
from collections.abc import Iterator
from functools import cache

from kgcore.backends import Row
from kgcore.graph.dialect import NOW, Dialect
from kgcore.graph.filters import Filter
from kgcore.graph.session import Part
from kgcore.graph.values import Metadata, count, integer, metadata_text, text

ENTITY = "id, type, name, metadata, created_at, updated_at"


class Entities(Part):
    """Adds, finds, changes and deletes entities.

    An entity comes out as ``dict(id, type, name, metadata, created_at, updated_at)``.
    """

    def add_entity(self, entity_type: str, name: str, metadata: Metadata | None = None) -> int:
        """Add an entity, or replace metadata of the one with this type and name; return its id."""
        params = (text(entity_type), text(name), metadata_text(metadata), NOW, NOW)
        return int(self._session.write(upsert_entity(self._session.dialect), params)[0]["id"])

    def get_entity(self, entity_id: int) -> Row | None:
        """Return the entity, or None."""
        sql = f"SELECT {ENTITY} FROM entities WHERE id = ?"
        return self._session.record(sql, (integer(entity_id, "entity_id"),))

    def find_entity(self, entity_type: str, name: str) -> Row | None:
        """Return the entity with this type and name, or None."""
        return self._session.record(
            f"SELECT {ENTITY} FROM entities WHERE type = ? AND name = ?",
            (text(entity_type), text(name)),
        )

    def list_entities(
        self,
        entity_type: str | None = None,
        limit: int = 100,
        after: tuple[str, int] | None = None,
    ) -> list[Row]:
        """Return entities, newest update first; of equal times the one added last.

        ``after`` goes on behind an entity: ``(entity["updated_at"], entity["id"])`` of the last one
        of the page before. What is updated meanwhile moves to the front, so it may come again, or
        not at all if it lay ahead: :meth:`iter_entities` misses none.
        """
        chosen = Filter(self._session.dialect)
        chosen.equal_text("type", entity_type)
        chosen.behind("entities", "updated_at", after)
        return self._session.records(
            f"SELECT {ENTITY} FROM entities {chosen.where} {chosen.newest('updated_at')} LIMIT ?",
            (*chosen.params, count(limit, "limit")),
        )

    def iter_entities(self, entity_type: str | None = None, page_size: int = 1000) -> Iterator[Row]:
        """Yield all entities in the order of their ids, a page at a time.

        It holds no connection between pages. Every entity that is there from start to end comes
        once, whatever others write meanwhile.
        """
        return self._pages(entity_type, count(page_size, "page_size", least=1))

    def update_entity(self, entity_id: int, metadata: Metadata, merge: bool = False) -> bool:
        """Replace the metadata, or set these keys in it; return False if there is no such entity.

        With ``merge`` the other keys stay, also those that another writer sets at the same moment.
        Only the outermost keys are merged, and None is a value (``null``), as with JSONB's ``||``.
        """
        session, entity_id = self._session, integer(entity_id, "entity_id")
        new = metadata_text(metadata)
        if not merge or session.dialect.is_postgres:
            rows = session.write(_update(session.dialect, merge=merge), (new, NOW, entity_id))
            return bool(rows)
        # SQLite's json_patch deletes where the new value is null, and rebuilding the object with
        # json_each rounds numbers to 15 digits. The write lock makes these two statements one.
        return session.atomically(lambda: self._merge(entity_id, new), repeatable=True)

    def delete_entity(self, entity_id: int) -> bool:
        """Delete an entity and its relationships; return False if there is no such entity.

        So it does, too, where the connection was lost in a first try that had deleted it.
        """
        sql = "DELETE FROM entities WHERE id = ? RETURNING id"
        return bool(self._session.write(sql, (integer(entity_id, "entity_id"),)))

    def _pages(self, entity_type: str | None, size: int) -> Iterator[Row]:
        last = -(2**63)
        while True:
            chosen = Filter(self._session.dialect)
            chosen.equal_text("type", entity_type)
            chosen.add("id > ?", last)
            page = self._session.records(
                f"SELECT {ENTITY} FROM entities {chosen.where} ORDER BY id LIMIT ?",
                (*chosen.params, size),
            )
            if not page:
                return
            yield from page
            last = page[-1]["id"]

    def _merge(self, entity_id: int, new: str) -> bool:
        row = self._session.row("SELECT metadata FROM entities WHERE id = ?", (entity_id,))
        if row is None:
            return False
        old = self._session.dialect.metadata(row["metadata"])
        merged = metadata_text((old if isinstance(old, dict) else {}) | json.loads(new))
        sql = _update(self._session.dialect, merge=False)
        return bool(self._session.write(sql, (merged, NOW, entity_id)))


@cache
def upsert_entity(dialect: Dialect, source: str | None = None, returning: str = "id") -> str:
    """Return the statement that adds entities or replaces their metadata.

    ``source`` yields type, name and metadata; without it they are parameters. Then come the times.
    """
    if source is None:
        values = f"VALUES (?, ?, {dialect.json}, {dialect.now}, {dialect.now})"
    else:
        values = f"SELECT type, name, metadata, {dialect.now}, {dialect.now} FROM ({source}) s"
        values += " WHERE true"  # SQLite would take ON CONFLICT for the ON of a join.
    return (
        f"INSERT INTO entities (type, name, metadata, created_at, updated_at) {values}"
        " ON CONFLICT (type, name) DO UPDATE SET metadata = excluded.metadata,"
        f" updated_at = {dialect.latest('entities.updated_at')} RETURNING {returning}"
    )


@cache
def _update(dialect: Dialect, *, merge: bool) -> str:
    new = dialect.json
    if merge:
        new = f"CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{{}}' END || {new}"
    now = f"greatest(updated_at, {dialect.now})" if dialect.is_postgres else dialect.now
    return f"UPDATE entities SET metadata = {new}, updated_at = {now} WHERE id = ? RETURNING id"
