"""The graph's tables, described once, and what each database makes of the description."""

from kgcore.schema.graph import ENTITIES, FILE_SNAPSHOTS, MISSION_HISTORY, RELATIONSHIPS, TABLES
from kgcore.schema.sqlite import quoted, sqlite_ddl

__all__ = [
    "ENTITIES",
    "FILE_SNAPSHOTS",
    "MISSION_HISTORY",
    "RELATIONSHIPS",
    "TABLES",
    "quoted",
    "sqlite_ddl",
]
