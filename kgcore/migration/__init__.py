"""From a SQLite knowledge graph to a verified PostgreSQL one.

``pipeline`` knows the order of the stages, ``stages`` holds a file for each, ``ledger`` the truth
about every run, ``new_run`` its beginning, ``runs`` what else can be done with a run as a whole.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgcore.migration.guide import MigrationProgress, migrate_to_postgresql

__all__ = ["MigrationProgress", "migrate_to_postgresql"]


def __getattr__(name: str) -> Any:
    # These need every stage, and a moment to import them. Who reads a run's state needs none.
    if name in __all__:
        return getattr(import_module("kgcore.migration.guide"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
