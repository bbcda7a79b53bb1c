"""From a SQLite knowledge graph to a verified PostgreSQL one.

``pipeline`` knows the order of the stages, ``stages`` holds a file for each, ``ledger`` the truth
about every run, ``runs`` what can be done with a run as a whole.
"""

from kgcore.migration.guide import MigrationProgress, migrate_to_postgresql

__all__ = ["MigrationProgress", "migrate_to_postgresql"]
