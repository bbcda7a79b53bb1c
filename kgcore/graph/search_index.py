"""The index behind :meth:`~kgcore.graph.search.Search.search`, made only when asked for.

It is not among the schema's indexes: each write of an entity keeps it up, a migration would build
it on every graph, and on PostgreSQL it needs an extension.

On SQLite it is a full-text table over the trigrams of the name and of the texts in the metadata,
kept up by triggers. It holds no texts itself. Both databases fold more letters in it than the
search does, and look at what they find there once more.
"""

import sqlite3

from psycopg2.errors import FeatureNotSupported, InsufficientPrivilege, UndefinedFile

from kgcore.backends import KGBackend, PostgreSQLBackend
from kgcore.errors import SourceError, TargetError
from kgcore.schema import OLDEST_SQLITE

POSTGRES_INDEX = "idx_entities_search"
SQLITE_TABLE = "entities_search"
#: A shorter text has no trigram: it is searched without the index.
SHORTEST = 3

_LOCK = 7_710_183_401_552_946_018  # Any number that nobody else locks.

_POSTGRES = (
    f"SELECT pg_advisory_xact_lock({_LOCK})",
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX IF NOT EXISTS {POSTGRES_INDEX} ON entities"
    " USING gin (name gin_trgm_ops, (CAST(metadata AS text)) gin_trgm_ops)",
)


def _row(row: str) -> str:
    texts = (
        f"SELECT group_concat(value, char(10)) FROM json_tree({row}metadata) WHERE type = 'text'"
    )
    return f"{row}id, {row}name, CASE WHEN json_valid({row}metadata) THEN ({texts}) END"


_ADD = f"INSERT INTO {SQLITE_TABLE} (rowid, name, texts) VALUES ({_row('new.')});"
_REMOVE = (
    f"INSERT INTO {SQLITE_TABLE} ({SQLITE_TABLE}, rowid, name, texts)"
    f" VALUES ('delete', {_row('old.')});"
)
_SQLITE = (
    f"CREATE VIRTUAL TABLE {SQLITE_TABLE}"
    " USING fts5(name, texts, content = '', tokenize = 'trigram')",
    f"INSERT INTO {SQLITE_TABLE} (rowid, name, texts) SELECT {_row('')} FROM entities",
    f"CREATE TRIGGER {SQLITE_TABLE}_insert AFTER INSERT ON entities BEGIN {_ADD} END",
    f"CREATE TRIGGER {SQLITE_TABLE}_delete AFTER DELETE ON entities BEGIN {_REMOVE} END",
    f"CREATE TRIGGER {SQLITE_TABLE}_update AFTER UPDATE OF id, name, metadata ON entities"
    f" BEGIN {_REMOVE} {_ADD} END",
)


def exists(backend: KGBackend) -> bool:
    """Whether the index is there."""
    if isinstance(backend, PostgreSQLBackend):
        row = backend.fetchone("SELECT to_regclass(?) AS found", (POSTGRES_INDEX,))
        return row is not None and row["found"] is not None
    sql = "SELECT 1 AS found FROM sqlite_master WHERE name = ?"
    return bool(backend.read(sql, (SQLITE_TABLE,)))


def create(backend: KGBackend) -> None:
    """Make the index in the open transaction, unless it is there.

    Raises :class:`TargetError` where PostgreSQL has no ``pg_trgm``, or the role may not create it,
    :class:`SourceError` where SQLite was built without what it needs.
    """
    if not isinstance(backend, PostgreSQLBackend):
        _create_in_sqlite(backend)
        return
    try:
        for statement in _POSTGRES:
            backend.execute(statement)
    except (FeatureNotSupported, UndefinedFile) as error:
        raise TargetError(
            f"the server has no extension pg_trgm: {error.diag.message_primary}",
            "install the server's contrib package (postgresql-contrib), then try again",
        ) from None
    except InsufficientPrivilege as error:
        raise TargetError(
            f"the index can't be created: {error.diag.message_primary}",
            "as the owner of the database: CREATE EXTENSION pg_trgm; the index can be created by"
            " the owner of the table",
        ) from None


def _create_in_sqlite(backend: KGBackend) -> None:
    try:
        for statement in () if exists(backend) else _SQLITE:
            backend.execute(statement)
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):  # Neither a module nor a tokenizer.
            raise
        raise SourceError(
            f"this SQLite ({sqlite3.sqlite_version}) can't have the index: {error}",
            f"it needs FTS5, and version {OLDEST_SQLITE} or newer",
        ) from None
