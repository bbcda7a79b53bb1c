"""Propose: which repairs would help, and how many rows each would save. For the dry run."""

from collections import Counter
from collections.abc import Callable, Collection, Set
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


def for_rows(
    ids: Collection[int], refused: Callable[[Collection[int], Repairs], Set[int]]
) -> dict[int, frozenset[str]]:
    """Return by id the repairs that would save rows whose values are refused.

    ``refused`` says which of some rows can't be stored with the repairs it is given. Where no
    single one is enough for a row, all that are needed together are returned.
    """
    values = tuple(name for name, repair in REPAIRS.items() if repair.mend is not None)
    saving: dict[int, set[str]] = {row_id: set() for row_id in ids}
    for name in values:
        for row_id in saving.keys() - refused(ids, Repairs((name,))):
            saving[row_id].add(name)
    unsaved = {row_id for row_id, names in saving.items() if not names}
    for needed, of in _together(values, unsaved, refused).items():
        for row_id in of:
            saving[row_id].update(needed)
    return {row_id: frozenset(names) for row_id, names in saving.items()}


def _together(
    values: tuple[str, ...],
    ids: Collection[int],
    refused: Callable[[Collection[int], Repairs], Set[int]],
) -> dict[tuple[str, ...], set[int]]:
    """Return the repairs without any of which the rows are refused, with the rows."""
    needed = {values: set(ids) - refused(ids, Repairs(values))} if ids else {}
    for name in values:
        found: dict[tuple[str, ...], set[int]] = {}
        for names, of in needed.items():
            without = tuple(other for other in names if other != name)
            still = refused(of, Repairs(without)) if of else frozenset()
            for chosen, rows in ((names, of & still), (without, of - still)):
                found.setdefault(chosen, set()).update(rows)
        needed = found
    return needed


def proposals(table: str, saving: Counter[str]) -> tuple[Proposal, ...]:
    """Return the repairs of a table, given how many rows each would save, most rows first."""
    return tuple(Proposal(table, name, rows) for name, rows in saving.most_common())
