"""The optimizer of a backend: one class over both databases."""

from collections.abc import Callable, Sequence
from typing import Any

from psycopg2.sql import SQL, Identifier

from kgcore.backends import KGBackend, PostgreSQLBackend, SQLiteBackend
from kgcore.backends.placeholders import without_literals
from kgcore.errors import SettingsError
from kgcore.graph import KnowledgeGraph, search_index
from kgcore.optimizer import (
    postgres_indexes,
    postgres_plans,
    postgres_tables,
    server_settings,
    slow_queries,
    sqlite,
)
from kgcore.optimizer.bloat import METHOD
from kgcore.optimizer.model import (
    IndexState,
    Plan,
    Report,
    SlowQueries,
    Suggestion,
    TableState,
)
from kgcore.optimizer.queries import GraphQuery, named_call, statements
from kgcore.optimizer.refusals import refusing

#: From here on a search that looks at all of them takes long enough to be noticed.
_MANY_ENTITIES = 20_000


class Optimizer:
    """Looks at the graph's tables in a backend's database, and cares for them when asked.

    On PostgreSQL these are all tables in the first schema of the role's search path. Only
    :meth:`analyze` and :meth:`vacuum` change anything. ``memory`` is the server's, in bytes;
    without it the server is asked, which it answers to superusers only.
    """

    def __init__(self, backend: KGBackend, memory: int | None = None) -> None:
        if not isinstance(backend, PostgreSQLBackend | SQLiteBackend):
            raise SettingsError(
                f"a {type(backend).__name__} can't be looked at", "use SQLite or PostgreSQL"
            )
        self.backend: PostgreSQLBackend | SQLiteBackend = backend
        self.memory = memory

    def tables(self) -> tuple[TableState, ...]:
        """Return the tables: sizes, rows, when they were last cared for."""
        if isinstance(self.backend, PostgreSQLBackend):
            return postgres_tables.tables(self.backend)
        return sqlite.tables(self.backend)

    def indexes(self) -> tuple[IndexState, ...]:
        """Return the indexes: which are unused, redundant, bloated."""
        if isinstance(self.backend, PostgreSQLBackend):
            return postgres_indexes.indexes(self.backend)
        return sqlite.indexes(self.backend, self._used_by_the_library())

    def slow_queries(self, limit: int = 10, min_mean_ms: float = 0.0) -> SlowQueries:
        """Return the statements with the longest mean time, or how recording is switched on."""
        if isinstance(self.backend, PostgreSQLBackend):
            return slow_queries.slow_queries(self.backend, limit, min_mean_ms)
        return SlowQueries(available=False, note="SQLite records no statements")

    def settings(self) -> tuple[Suggestion, ...]:
        """Return the server's settings beside those that would fit; none on SQLite."""
        if isinstance(self.backend, PostgreSQLBackend):
            return server_settings.suggestions(self.backend, self.memory)
        return ()

    def explain(self, sql: str, params: Sequence[Any] = (), *, run: bool = True) -> Plan:
        """Return how the database does a SELECT. Placeholders are as in :class:`KGBackend`.

        On PostgreSQL it is run, in a read-only transaction and for at most 30 seconds, unless
        ``run`` is False; SQLite only plans it. Raises :class:`SettingsError` for anything but one
        statement that reads.
        """
        with refusing():
            return self._explained(sql, params, run=run, heavy=False)

    def explain_query(self, query: GraphQuery, entity_id: int | None = None) -> tuple[Plan, ...]:
        """Return how the database does a call of the library, a plan for each of its statements.

        It is made for the entity, else for that of the newest relationship.
        """
        return self.explain_call(named_call(self.backend, GraphQuery(query), entity_id))

    def explain_call(self, call: Callable[[KnowledgeGraph], object]) -> tuple[Plan, ...]:
        """Return how the database does what ``call`` reads: ``lambda kg: kg.find_related(1)``."""
        return tuple(
            self._explained(sent.sql, sent.params, run=True, heavy=sent.heavy)
            for sent in statements(self.backend, call)
        )

    def analyze(self) -> tuple[str, ...]:
        """Bring the planner's statistics up to date; return the tables' names."""
        return self._care("ANALYZE", sqlite.analyze)

    def vacuum(self) -> tuple[str, ...]:
        """Free the room of dead rows for new ones; return the tables' names.

        SQLite writes the whole file anew, and needs as much room again meanwhile. Raises
        :class:`~kgcore.errors.SourceError` in a transaction there.
        """
        return self._care("VACUUM", sqlite.vacuum)

    def report(self, slow_limit: int = 10, min_mean_ms: float = 0.0) -> Report:
        """Return all of it at once."""
        return Report(
            self.backend.name,
            self.tables(),
            self.indexes(),
            self.slow_queries(slow_limit, min_mean_ms),
            self.settings(),
            self._notes(),
        )

    def _explained(self, sql: str, params: Sequence[Any], *, run: bool, heavy: bool) -> Plan:
        if not postgres_plans.single_statement(without_literals(sql)):
            raise SettingsError(
                "only one statement that reads can be explained: SELECT, WITH, VALUES or TABLE",
                "leave out what follows the first semicolon",
            )
        statement = sql.strip().rstrip(";")
        if isinstance(self.backend, PostgreSQLBackend):
            return postgres_plans.explain(self.backend, statement, params, run=run, heavy=heavy)
        return sqlite.explain(self.backend, statement, params)

    def _notes(self) -> tuple[str, ...]:
        slow_search = self._without_search_index()
        if not isinstance(self.backend, PostgreSQLBackend):
            return (*sqlite.notes(self.backend), *slow_search)
        notes = [
            *slow_search,
            f"index use is counted since {postgres_tables.counted_since(self.backend)}, on this"
            " server alone: not on replicas",
            f"bloat is {METHOD}",
        ]
        if self.memory is None and server_settings.server_memory(self.backend) is None:
            notes.append("the server's memory is unknown: --memory 16GB gives more suggestions")
        return tuple(notes)

    def _without_search_index(self) -> tuple[str, ...]:
        rows = sum(table.rows or 0 for table in self.tables() if table.name == "entities")
        if rows < _MANY_ENTITIES or search_index.exists(self.backend):
            return ()
        how = "from Python: kg.create_search_index()"
        return (f"search looks at all {rows:,} entities; an index spares that, {how}",)

    def _care(self, command: str, in_sqlite: Callable[[SQLiteBackend], None]) -> tuple[str, ...]:
        names = tuple(table.name for table in self.tables())
        if isinstance(self.backend, SQLiteBackend):
            in_sqlite(self.backend)
            return names
        row = self.backend.fetchone("SELECT current_schema() AS name") or {}
        with self.backend.pool.connection() as connection:
            connection.autocommit = True  # VACUUM can't be in a transaction.
            with connection.cursor() as cursor:
                for name in names:
                    cursor.execute(SQL(command + " {}").format(Identifier(row["name"], name)))
        return names

    def _used_by_the_library(self) -> frozenset[str]:
        plans = [plan for query in GraphQuery for plan in self.explain_query(query)]
        return frozenset(name for plan in plans for name in plan.indexes)
