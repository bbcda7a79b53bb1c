"""The graph's tables, described once, and what each database makes of the description."""

from kgcore.schema.graph import ENTITIES, FILE_SNAPSHOTS, MISSION_HISTORY, RELATIONSHIPS, TABLES
from kgcore.schema.sqlite import OLDEST_SQLITE, quoted, sqlite_ddl

__all__ = [
    "ENTITIES",
    "FILE_SNAPSHOTS",
    "MISSION_HISTORY",
    "OLDEST_SQLITE",
    "RELATIONSHIPS",
    "TABLES",
    "quoted",
    "sqlite_ddl",
]
