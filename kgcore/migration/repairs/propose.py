"""Propose: which repairs would help, and how many rows each would save. For the dry run."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kgcore.migration.repairs.registry import REPAIRS, Repairs


@dataclass(frozen=True, slots=True)
class Proposal:
    """A repair and the rows of a table that it would save if it were chosen, alone or with others.

    A row that two repairs would save is counted for both.
    """

    table: str
    repair: str
    rows: int


def for_row(is_storable: Callable[[Repairs], bool]) -> frozenset[str]:
    """Return the repairs that would save a row whose values are refused.

    ``is_storable`` says whether the row can be stored with the repairs it is given. Where no single
    one is enough, all that are needed together are returned.
    """
    values = tuple(name for name, repair in REPAIRS.items() if repair.mend is not None)
    alone = frozenset(name for name in values if is_storable(Repairs((name,))))
    if alone or not is_storable(Repairs(values)):
        return alone
    needed = list(values)
    for name in values:
        without = tuple(other for other in needed if other != name)
        if is_storable(Repairs(without)):
            needed.remove(name)
    return frozenset(needed)


def proposals(table: str, saving: Iterable[frozenset[str]]) -> tuple[Proposal, ...]:
    """Sum up the repairs that would save each refused row of a table, most rows first."""
    counts = Counter(name for names in saving for name in names)
    return tuple(Proposal(table, name, rows) for name, rows in counts.most_common())
