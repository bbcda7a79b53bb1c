"""The four tables of the knowledge graph: the one description everything else is derived from.

An index that is only a prefix of another is left out, because the longer one serves its queries:
``entities(type)`` is served by ``UNIQUE(type, name)``, ``relationships(from_id)`` and ``(to_id)``
by the composite ones with ``type``.
"""

from kgcore.model import Column, ForeignKey, Index, Kind, Table

ENTITIES = Table(
    "entities",
    (
        Column("id", Kind.KEY, nullable=False),
        Column("type", Kind.TEXT, nullable=False),
        Column("name", Kind.TEXT, nullable=False),
        Column("metadata", Kind.JSON),
        Column("created_at", Kind.TIMESTAMP, nullable=False, default="now()"),
        Column("updated_at", Kind.TIMESTAMP, nullable=False, default="now()"),
    ),
    indexes=(
        Index("entities_type_name_key", ("type", "name"), unique=True),
        Index("idx_entities_name", ("name",)),
        Index("idx_entities_metadata", ("metadata",), gin=True),
    ),
)

RELATIONSHIPS = Table(
    "relationships",
    (
        Column("id", Kind.KEY, nullable=False),
        Column("from_id", Kind.INTEGER, nullable=False),
        Column("to_id", Kind.INTEGER, nullable=False),
        Column("type", Kind.TEXT, nullable=False),
        Column("metadata", Kind.JSON),
        Column("created_at", Kind.TIMESTAMP, nullable=False, default="now()"),
    ),
    indexes=(
        Index("idx_relationships_from_type", ("from_id", "type")),
        Index("idx_relationships_to_type", ("to_id", "type")),
        Index("idx_relationships_type", ("type",)),
        Index("idx_relationships_metadata", ("metadata",), gin=True),
    ),
    foreign_keys=(
        ForeignKey("relationships_from_id_fkey", ("from_id",), "entities"),
        ForeignKey("relationships_to_id_fkey", ("to_id",), "entities"),
    ),
)

MISSION_HISTORY = Table(
    "mission_history",
    (
        Column("id", Kind.KEY, nullable=False),
        Column("mission_id", Kind.TEXT, nullable=False),
        Column("status", Kind.TEXT, nullable=False),
        Column("domain", Kind.TEXT),
        Column("cost_usd", Kind.REAL),
        Column("iterations", Kind.INTEGER),
        Column("duration_seconds", Kind.REAL),
        Column("files_modified", Kind.INTEGER),
        Column("metadata", Kind.JSON),
        Column("created_at", Kind.TIMESTAMP, nullable=False, default="now()"),
    ),
    indexes=(
        Index("mission_history_mission_id_key", ("mission_id",), unique=True),
        Index("idx_mission_history_status", ("status",)),
        Index("idx_mission_history_domain", ("domain",)),
        Index("idx_mission_history_created", ("created_at",)),
        Index("idx_mission_history_metadata", ("metadata",), gin=True),
    ),
)

FILE_SNAPSHOTS = Table(
    "file_snapshots",
    (
        Column("id", Kind.KEY, nullable=False),
        Column("file_path", Kind.TEXT, nullable=False),
        Column("mission_id", Kind.TEXT),
        Column("size_bytes", Kind.INTEGER),
        Column("lines_of_code", Kind.INTEGER),
        Column("hash", Kind.TEXT),
        Column("created_at", Kind.TIMESTAMP, nullable=False, default="now()"),
        Column("metadata", Kind.JSON),
    ),
    indexes=(
        Index("idx_file_snapshots_path", ("file_path",)),
        Index("idx_file_snapshots_mission", ("mission_id",)),
        Index("idx_file_snapshots_created", ("created_at",)),
        Index("idx_file_snapshots_metadata", ("metadata",), gin=True),
    ),
)

#: In the order in which they can be created: a table comes after those it refers to.
TABLES: tuple[Table, ...] = (ENTITIES, RELATIONSHIPS, MISSION_HISTORY, FILE_SNAPSHOTS)
