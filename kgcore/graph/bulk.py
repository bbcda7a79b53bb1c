"""Many entities or relationships at once."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kgcore.graph.dialect import NOW, Dialect
from kgcore.graph.entities import upsert_entity
from kgcore.graph.errors import unknown_entities
from kgcore.graph.relationships import refusing_deleted
from kgcore.graph.session import Part
from kgcore.graph.values import Metadata, integer, metadata_text, text

EntityRow = tuple[str, str] | tuple[str, str, Metadata | None]
RelationshipRow = tuple[int, int, str] | tuple[int, int, str, Metadata | None]

#: One statement takes so many rows as one JSON parameter, and no more characters than these but
#: for a single larger row. PostgreSQL's limit for the elements of an array in JSONB is 256 MiB, and
#: a character has up to 4 bytes.
BATCH_ROWS = 5_000
BATCH_CHARACTERS = 4 * 2**20


class Bulk(Part):
    """Writes many rows in one transaction: all of them, or, after an error, none.

    The rows of a batch travel as one JSON parameter that the database takes apart: one statement
    for both databases, whose rows come back. psycopg2's ``execute_values`` inserts about as fast:
    100,000 entities a second next to 94,000, measured in batches of 5,000.
    """

    def add_entities(self, entities: Iterable[EntityRow]) -> list[int]:
        """Add ``(type, name)`` or ``(type, name, metadata)``; return the ids in the same order.

        As :meth:`add_entity` in turn: existing ones have their metadata replaced, and of two with
        the same type and name the last one's metadata stays.
        """
        wanted: dict[tuple[str, str], str] = {}
        order: list[tuple[str, str]] = []
        for entity_type, name, *rest in entities:
            key = (text(entity_type), text(name))
            order.append(key)
            wanted[key] = metadata_text(rest[0] if rest else None)
        # Writers that touch the same rows in the same order wait for each other, and never in a
        # circle; and PostgreSQL refuses to touch a row twice in one statement.
        rows = [(*key, wanted[key]) for key in sorted(wanted)]
        session = self._session
        sql = upsert_entity(session.dialect, _entity_rows(session.dialect), "id, type, name")

        def write() -> dict[tuple[str, str], int]:
            return {
                (row["type"], row["name"]): row["id"]
                for batch in batches(rows)
                for row in session.write(sql, (NOW, NOW, batch))
            }

        ids = session.atomically(write, repeatable=True) if rows else {}
        return [ids[key] for key in order]

    def add_relationships(self, relationships: Iterable[RelationshipRow]) -> list[int]:
        """Add ``(from_id, to_id, type)`` or ``(…, metadata)``; return the ids in the same order.

        Raises :class:`UnknownEntityError` if one of the entities does not exist.
        """
        rows = [
            (
                integer(from_id, "from_id"),
                integer(to_id, "to_id"),
                text(relationship_type),
                metadata_text(rest[0] if rest else None),
            )
            for from_id, to_id, relationship_type, *rest in relationships
        ]
        ends = sorted({end for row in rows for end in row[:2]})
        session = self._session
        sql = _insert_relationships(session.dialect)

        def write() -> list[int]:
            for batch in batches(ends):
                missing = session.rows(_missing(session.dialect), (batch,))
                if missing:
                    raise unknown_entities([row["id"] for row in missing])
            # New ids only rise, in the order of the rows, whatever order RETURNING has.
            return [
                identity
                for batch in batches(rows)
                for identity in sorted(row["id"] for row in session.write(sql, (NOW, batch)))
            ]

        if not rows:
            return []
        return refusing_deleted(lambda: session.atomically(write, repeatable=False), ends)


def batches(rows: Iterable[Any]) -> Iterator[str]:
    """Yield JSON arrays of the rows, in order and none too large for one statement."""
    batch: list[str] = []
    characters = 0
    for row in rows:
        element = json.dumps(row, ensure_ascii=False)
        if batch and (len(batch) == BATCH_ROWS or characters + len(element) > BATCH_CHARACTERS):
            yield f"[{','.join(batch)}]"
            batch, characters = [], 0
        batch.append(element)
        characters += len(element)
    if batch:
        yield f"[{','.join(batch)}]"


def _entity_rows(dialect: Dialect) -> str:
    kind, name, metadata = _fields(dialect, "text", "text", "jsonb")
    return f"SELECT {kind} AS type, {name} AS name, {metadata} AS metadata {_elements(dialect)}"


def _insert_relationships(dialect: Dialect) -> str:
    fields = _fields(dialect, "bigint", "bigint", "text", "jsonb")
    return (
        "INSERT INTO relationships (from_id, to_id, type, metadata, created_at)"
        f" SELECT {', '.join(fields)}, {dialect.now} {_elements(dialect)} RETURNING id"
    )


def _fields(dialect: Dialect, *types: str) -> list[str]:
    """Return expressions for the fields of an element, itself a JSON array."""
    if dialect.is_postgres:
        return [f"CAST(value->>{place} AS {name})" for place, name in enumerate(types)]
    return [f"json_extract(value, '$[{place}]')" for place in range(len(types))]


def _elements(dialect: Dialect) -> str:
    """Return the FROM clause that yields the elements of a JSON parameter, in order."""
    if dialect.is_postgres:
        elements = "jsonb_array_elements(CAST(? AS jsonb))"
        return f"FROM {elements} WITH ORDINALITY AS j(value, place) ORDER BY place"
    return "FROM json_each(?) ORDER BY key"


def _missing(dialect: Dialect) -> str:
    value = "CAST(value AS bigint)" if dialect.is_postgres else "value"
    return (
        f"SELECT id FROM (SELECT {value} AS id {_elements(dialect)}) wanted"
        " WHERE NOT EXISTS (SELECT 1 FROM entities e WHERE e.id = wanted.id) ORDER BY id"
    )
