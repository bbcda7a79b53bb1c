"""Finding entities by what they hold: metadata and text."""

import json

from kgcore.backends import Row
from kgcore.graph import search_index
from kgcore.graph.containment import matching, sqlite_candidates
from kgcore.graph.dialect import Dialect
from kgcore.graph.entities import ENTITY
from kgcore.graph.session import Part
from kgcore.graph.values import Metadata, count, metadata_text, text


class Search(Part):
    """Finds entities by metadata and by text."""

    def find_by_metadata(
        self, criteria: Metadata, entity_type: str | None = None, limit: int = 100
    ) -> list[Row]:
        """Return the entities whose metadata contains ``criteria``, newest update first.

        Containment is JSONB's: nested objects need the given keys only, arrays the given elements
        in any order; see :func:`~kgcore.graph.containment.contains`. On PostgreSQL the index
        ``idx_entities_metadata`` finds them; on SQLite all entities (of the type) are looked at.
        """
        most = count(limit, "limit")
        wanted = metadata_text(criteria)
        dialect = self._session.dialect
        order = f"ORDER BY {dialect.instant('updated_at')} DESC, id DESC"
        condition, chosen = _of_type(entity_type)
        if dialect.is_postgres:
            return self._session.records(
                f"SELECT {ENTITY} FROM entities WHERE metadata @> {dialect.json} {condition}"
                f" {order} LIMIT ?",
                (wanted, *chosen, most),
            )
        candidates, params = sqlite_candidates(json.loads(wanted))
        rows = self._session.rows(
            f"SELECT {ENTITY} FROM entities WHERE {candidates} {condition} {order}",
            (*params, *chosen),
        )
        return [dialect.record(row) for row in matching(rows, wanted)[:most]]

    def search(self, query: str, entity_type: str | None = None, limit: int = 20) -> list[Row]:
        """Return the entities with ``query`` in their name or in a text of their metadata.

        Upper and lower case are the same; ``%`` and ``_`` mean themselves. Names come before
        metadata; where the name has it earlier comes first, then the shorter name, then the id.
        SQLite folds the case of ASCII letters only, PostgreSQL that of its locale.

        All entities (of the type) are looked at, unless there is an index for it:
        :meth:`create_search_index`. Raises ValueError for more than about 50,000 bytes of text,
        which SQLite can't look for.
        """
        session = self._session
        condition, chosen = _of_type(entity_type)
        pattern = _like(text(query))
        # Inside JSON text some characters are escaped.
        in_json = _like(json.dumps(query, ensure_ascii=False)[1:-1])
        params: list[object] = [pattern, in_json, pattern, *chosen]
        if (
            not session.dialect.is_postgres  # Which finds its index by itself.
            and len(query) >= search_index.SHORTEST
            and search_index.exists(session.backend)
        ):
            condition += f" AND id IN ({_FOUND})"
            phrase = query.replace('"', '""')
            params.append(f'"{phrase}"')
        sql = _search(session.dialect, condition)
        params += [query, query, count(limit, "limit")]
        return session.records(sql, params, heavy=True)

    def create_search_index(self) -> None:
        """Create the index that makes :meth:`search` quick; nothing to do if it is there.

        Each write of an entity takes longer then. Writers wait while it is built: seconds at
        100,000 entities. Its results are the same as without it. Texts of one or two letters are
        looked for in all entities even so.

        PostgreSQL's extension ``pg_trgm`` is created where it is missing; its index goes with the
        old tables when a migration replaces them. Raises :class:`~kgcore.errors.TargetError` where
        the extension can't be had.
        """
        session = self._session
        session.atomically(lambda: search_index.create(session.backend), repeatable=True)


#: SQLite's limit, in bytes, and with what is escaped. It holds on both databases.
_LONGEST_PATTERN = 50_000

_FOUND = f"SELECT rowid FROM {search_index.SQLITE_TABLE} WHERE {search_index.SQLITE_TABLE} MATCH ?"


def _of_type(entity_type: str | None) -> tuple[str, list[str]]:
    return ("", []) if entity_type is None else ("AND type = ?", [text(entity_type)])


def _like(found: str) -> str:
    for special in "!%_":
        found = found.replace(special, "!" + special)
    pattern = f"%{found}%"
    size = len(pattern.encode())
    if size > _LONGEST_PATTERN:
        raise ValueError(f"a text of {size:,} bytes is too long to look for: {_LONGEST_PATTERN:,}")
    return pattern


def _search(dialect: Dialect, condition: str) -> str:
    if dialect.is_postgres:
        place = "strpos(lower(name), lower(?))"
        like = "ILIKE"
        as_text = "CAST(metadata AS text)"
        texts = (
            "SELECT 1 FROM jsonb_path_query(metadata, 'strict $.** ? (@.type() == \"string\")') t"
            " WHERE t #>> '{}'"
        )
    else:
        place = "instr(lower(name), lower(?))"
        like = "LIKE"
        as_text = "metadata"
        texts = "SELECT 1 FROM json_tree(metadata) t WHERE t.type = 'text' AND t.value"
    # The first look at the JSON's text is quick and may also find keys; the second is exact.
    first = f"{as_text} {like} ? ESCAPE '!'"
    if not dialect.is_postgres:
        # JSONB has one way to write a text. Others' JSON may have any character as an escape.
        first = f"({first} OR instr(metadata, '\\'))"
    in_metadata = f"{first} AND EXISTS ({texts} {like} ? ESCAPE '!')"
    if not dialect.is_postgres:
        in_metadata = f"CASE WHEN json_valid(metadata) THEN {in_metadata} END"
    return (
        f"SELECT {ENTITY} FROM entities"
        f" WHERE (name {like} ? ESCAPE '!' OR {in_metadata}) {condition}"
        f" ORDER BY CASE WHEN {place} > 0 THEN 0 ELSE 1 END, {place}, length(name), id LIMIT ?"
    )
