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
from kgcore.errors import KGError, UnknownEntityError
from kgcore.graph import KnowledgeGraph, get_knowledge_graph

__all__ = [
    "KGBackend",
    "KGError",
    "KnowledgeGraph",
    "PoolStats",
    "PostgreSQLBackend",
    "SQLiteBackend",
    "Settings",
    "UnknownEntityError",
    "backend_from_settings",
    "get_backend",
    "get_knowledge_graph",
    "load_settings",
]
