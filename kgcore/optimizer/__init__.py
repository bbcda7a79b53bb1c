"""How the graph's database does, and what would make it faster. Nothing is changed unasked."""

from kgcore.optimizer.model import (
    IndexState,
    Plan,
    Report,
    SlowQueries,
    SlowQuery,
    Step,
    Suggestion,
    TableState,
)
from kgcore.optimizer.optimizer import Optimizer
from kgcore.optimizer.queries import GraphQuery

__all__ = [
    "GraphQuery",
    "IndexState",
    "Optimizer",
    "Plan",
    "Report",
    "SlowQueries",
    "SlowQuery",
    "Step",
    "Suggestion",
    "TableState",
]
