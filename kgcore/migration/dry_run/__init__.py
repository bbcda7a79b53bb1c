"""Dry run: what a migration would do, found out by reading the whole source. Changes nothing.

::

    suspects ─► scan ─┐
    tally ────────────┼─► prediction
    keys, relations ──┤
    sample ───────────┘

``scan`` holds every value against its column, ``keys`` every row against uniques, checks and
foreign keys, and ``sample`` tries out what a run takes.
"""

from kgcore.migration.dry_run.predict import dry_run
from kgcore.migration.dry_run.prediction import (
    DryRun,
    PredictedColumn,
    PredictedReject,
    PredictedTable,
)
from kgcore.migration.dry_run.sample import Estimate

__all__ = [
    "DryRun",
    "Estimate",
    "PredictedColumn",
    "PredictedReject",
    "PredictedTable",
    "dry_run",
]
