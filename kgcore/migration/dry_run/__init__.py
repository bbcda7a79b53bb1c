"""Dry run: what a migration would do, found out by reading the whole source. Changes nothing.

::

    suspects, judge ──────────────► scan ─┐
    same, condition ─► relations ─► keys ─┼─► predict ─► prediction
                                  sample ─┘

``scan`` holds every value against its column: ``suspects`` in C for all of them, ``judge`` by the
careful check for few. ``keys`` holds rows against uniques, checks and foreign keys, in SQLite.
``sample`` tries out what a run takes.
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
