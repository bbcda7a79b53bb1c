"""The knowledge graph over SQLite and PostgreSQL, and the migration from one to the other."""

from kgcore.backends import (
    KGBackend,
    PoolStats,
    PostgreSQLBackend,
    SQLiteBackend,
    backend_from_settings,
    get_backend,
)
from kgcore.config import Settings, load_settings
from kgcore.errors import KGError

__all__ = [
    "KGBackend",
    "KGError",
    "PoolStats",
    "PostgreSQLBackend",
    "SQLiteBackend",
    "Settings",
    "backend_from_settings",
    "get_backend",
    "load_settings",
]
