"""The graph's database, SQLite or PostgreSQL, behind one interface."""

from pathlib import Path
from typing import Any, Literal, overload

from kgcore.backends.base import KGBackend, Row
from kgcore.backends.pool import ConnectionPool, PoolStats
from kgcore.backends.postgres import PostgreSQLBackend
from kgcore.backends.replicas import ReplicaStats
from kgcore.backends.sqlite import SQLiteBackend
from kgcore.config import Settings
from kgcore.errors import SettingsError

__all__ = [
    "ConnectionPool",
    "KGBackend",
    "PoolStats",
    "PostgreSQLBackend",
    "ReplicaStats",
    "Row",
    "SQLiteBackend",
    "backend_from_settings",
    "get_backend",
]

_KINDS: dict[str, type[KGBackend]] = {
    "sqlite": SQLiteBackend,
    "postgres": PostgreSQLBackend,
    "postgresql": PostgreSQLBackend,
}


@overload
def get_backend(kind: Literal["sqlite"], *, db_path: Path | str) -> SQLiteBackend: ...


@overload
def get_backend(kind: Literal["postgres", "postgresql"], **options: Any) -> PostgreSQLBackend: ...


@overload
def get_backend(kind: str, **options: Any) -> KGBackend: ...


def get_backend(kind: str, **options: Any) -> KGBackend:
    """Return a backend of this kind; ``options`` are its constructor's. Connects to nothing.

    Raises :class:`SettingsError` for an unknown kind.
    """
    if kind not in _KINDS:
        raise SettingsError(
            f"there is no backend {kind!r}; known are: {', '.join(_KINDS)}",
            "set KG_BACKEND to sqlite or postgres",
        )
    return _KINDS[kind](**options)


def backend_from_settings(settings: Settings, **libpq: Any) -> KGBackend:
    """Return the backend that the settings choose.

    ``libpq`` are further connection parameters (``application_name=…``); SQLite has no use for
    them. Raises :class:`SettingsError` if the password's file can't be read.
    """
    if settings.kg_backend == "sqlite":
        return SQLiteBackend(settings.sqlite_db_path)
    parameters = settings.postgres_parameters()
    return PostgreSQLBackend(
        database=parameters.pop("dbname", None),
        pool_size=settings.pg_pool_size,
        max_overflow=settings.pg_max_overflow,
        replicas=settings.pg_replica_hosts,
        replica_max_lag=settings.pg_replica_max_lag,
        **parameters,
        **libpq,
    )
