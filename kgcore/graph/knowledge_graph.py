"""The knowledge graph's API, put together from its parts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Self, TypeVar

from kgcore.backends import (
    KGBackend,
    PoolStats,
    PostgreSQLBackend,
    SQLiteBackend,
    backend_from_settings,
)
from kgcore.config import Settings, load_settings
from kgcore.errors import SettingsError
from kgcore.graph.bulk import Bulk
from kgcore.graph.entities import Entities
from kgcore.graph.files import Files
from kgcore.graph.missions import Missions
from kgcore.graph.relationships import Relationships
from kgcore.graph.reports import Reports
from kgcore.graph.search import Search
from kgcore.graph.session import Session
from kgcore.graph.traversal import Traversal

T = TypeVar("T")


class KnowledgeGraph(Entities, Relationships, Missions, Files, Traversal, Search, Bulk, Reports):
    """The graph in a database. One object serves all threads; make one per process.

    ``KnowledgeGraph(backend)`` uses a backend as it is: connected or not, with its schema or not
    (see :meth:`init_schema`). ``KnowledgeGraph(db_path=…)`` opens a SQLite file and creates what is
    missing. Results are the same on both databases.

    Each call is committed by itself, unless it stands in a :meth:`transaction`. A call that
    collides with another writer's (deadlock, serialization failure, lock timeout), or finds the
    server restarting, is tried again for up to 15 seconds: :class:`~kgcore.graph.session.Session`.

    Times come out as ISO 8601 UTC text that ends in Z; metadata as ``dict``, ``{}`` where it is
    missing. Text and metadata with NUL or half of a surrogate pair raise ValueError on both
    databases, because PostgreSQL can't hold them. Other errors of a statement are the driver's own.
    """

    def __init__(
        self, backend: KGBackend | None = None, *, db_path: Path | str | None = None
    ) -> None:
        if (backend is None) == (db_path is None):
            raise SettingsError(
                "KnowledgeGraph needs a backend or db_path, one of the two",
                "write KnowledgeGraph(db_path=…), or use get_knowledge_graph()",
            )
        if isinstance(backend, str | PathLike):
            raise SettingsError(
                f"KnowledgeGraph takes a backend, and {str(backend)!r} is none",
                f"write KnowledgeGraph(db_path={str(backend)!r})",
            )
        if backend is None:
            backend = SQLiteBackend(db_path or "")
            backend.init_schema()
        self.backend = backend
        self._session = Session(backend)

    def __repr__(self) -> str:
        return f"KnowledgeGraph({self.backend!r})"

    def init_schema(self) -> None:
        """Create what is missing of the graph's tables; any number of processes may at once."""
        self.backend.init_schema()

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """Make the calls in the block one: all of them last, or, when an error leaves it, none.

        Only this thread's calls belong to it. A block in a block can fail by itself. Nothing in it
        is tried again: :meth:`run_transaction` does that.
        """
        with self.backend.transaction():
            yield self

    def run_transaction(self, work: Callable[[Self], T]) -> T:
        """Call ``work(self)`` in a transaction and return its result; again after a collision.

        So it may be called several times, each time from the start: it should do nothing but use
        the graph. After a connection was lost it is not called again, because it may have been
        committed.
        """
        return self._session.atomically(lambda: work(self), repeatable=False)

    def pool_stats(self) -> PoolStats | None:
        """Return the numbers of PostgreSQL's connection pool; None on SQLite, which has none."""
        backend = self.backend
        return backend.pool_stats() if isinstance(backend, PostgreSQLBackend) else None

    def replica_pool_stats(self) -> dict[str, PoolStats]:
        """Return the same of the pool of each replica, by its name; without replicas none."""
        backend = self.backend
        return backend.replica_pool_stats() if isinstance(backend, PostgreSQLBackend) else {}

    def close(self) -> None:
        """Close the backend; what this thread did not commit is undone: :meth:`KGBackend.close`."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get_knowledge_graph(settings: Settings | None = None) -> KnowledgeGraph:
    """Return the graph that the settings choose (``KG_BACKEND``), connected, with its schema.

    Each call makes a new one with connections of its own: call it once and share the result.
    Without ``settings`` they are read from the environment and ``.env``. Raises
    :class:`~kgcore.errors.KGError` with the mend if the database can't be used.
    """
    backend = backend_from_settings(load_settings() if settings is None else settings)
    try:
        backend.connect()
        backend.init_schema()
    except BaseException:
        backend.close()
        raise
    return KnowledgeGraph(backend)
