"""The graph's database for commands that serve both kinds: which one, and its options."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kgcore.backends import KGBackend, SQLiteBackend, backend_from_settings
from kgcore.config import BackendName, load_settings
from kgcore.errors import SettingsError, SourceError

Backend = Annotated[
    BackendName | None,
    typer.Option("--backend", help="The graph's database; KG_BACKEND by default."),
]
DbPath = Annotated[
    Path | None,
    typer.Option("--db-path", help="The SQLite file; SQLITE_DB_PATH by default."),
]
PgBin = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Where pg_dump and pg_restore are; by default PATH, Debian's directories and the"
        " extra `embedded` are searched.",
    ),
]


@contextmanager
def graph_backend(
    kind: BackendName | None, db_path: Path | None, *, must_exist: bool = True
) -> Iterator[KGBackend]:
    """Give the backend that options and settings choose; a missing SQLite file isn't made."""
    if db_path is not None:
        if kind == "postgres":
            raise SettingsError("--db-path is for SQLite", "leave one of the two options out")
        kind = "sqlite"
    overrides = {"kg_backend": kind, "sqlite_db_path": db_path}
    settings = load_settings(**{name: value for name, value in overrides.items() if value})
    settings = settings.model_copy(
        update={"pg_pool_size": 1, "pg_max_overflow": 2, "pg_replica_hosts": ()}
    )
    backend = backend_from_settings(settings, application_name="jarvis-kg")
    if isinstance(backend, SQLiteBackend) and must_exist and not backend.db_path.exists():
        raise SourceError(
            f"there is no SQLite graph {backend.db_path}",
            "name it (--db-path or SQLITE_DB_PATH), or take PostgreSQL: --backend postgres",
        )
    try:
        yield backend
    finally:
        backend.close()
