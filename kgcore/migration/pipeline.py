"""The order of the stages. No other file knows it; what is done in each stands in ``work``.

::

    load(T) ──► index(T) ──► key(T) ──► verify(T) ──► cutover
                    │           ▲
                index(R) ───────┘  for each R that T refers to

R's key comes before T's, too. Tables that refer to each other in a circle take turns, and are
verified after the last of them. Where T has neither foreign keys nor checks, verify(T) follows
index(T), because key(T) takes no row away. Where placeholders were asked for, it also waits for
key(C) of each C that refers to T.
"""

from collections.abc import Mapping, Sequence

from kgcore.migration.model import NewStep, PlannedTable, Stage
from kgcore.migration.repairs import PLACEHOLDER_ENTITIES, choose
from kgcore.schema.postgres import all_indexes

Group = tuple[Stage, str]
CUTOVER: Group = (Stage.CUTOVER, "")

# What a step costs, relative to loading a value: for each value in stages that send rows, for each
# row in the others. Measured on 1.65 million rows. For the bar, and because of steps that become
# ready together the longest is sent first: the others fill what is left at the end.
_OF_VALUES = {Stage.LOAD: 1.0, Stage.VERIFY: 1.2}
_OF_ROWS = {Stage.INDEX: 1.8, Stage.KEY: 2.5}
_GIN = 6.0


def planned_steps(tables: Sequence[PlannedTable]) -> tuple[NewStep, ...]:
    """Return all steps of a run, largest tables first: they have the longest way to go."""
    steps = []
    for planned in sorted(tables, key=lambda item: item.rows, reverse=True):
        name, columns = planned.table.name, len(planned.table.columns)
        for stage, weight in _OF_VALUES.items():
            steps += [
                NewStep(stage, name, None, c.lower, c.upper, c.rows, weight * c.rows * columns)
                for c in planned.chunks
            ]
        steps += [
            NewStep(
                Stage.INDEX,
                name,
                index.name,
                weight=(_GIN if index.gin else _OF_ROWS[Stage.INDEX]) * planned.rows,
            )
            for index in all_indexes(planned.table)
        ]
        steps.append(NewStep(Stage.KEY, name, weight=_OF_ROWS[Stage.KEY] * planned.rows))
    return (*steps, NewStep(Stage.CUTOVER, weight=1.0))


def unlocked(
    tables: Mapping[str, PlannedTable],
    open_steps: Mapping[Group, int],
    repairs: Sequence[str] = (),
) -> frozenset[Group]:
    """Return the stages of tables that may go, given how many steps of each are still open."""
    return frozenset(
        group
        for group in open_steps
        if all(open_steps.get(before, 0) == 0 for before in _waits_for(group, tables, repairs))
    )


def _waits_for(
    group: Group, tables: Mapping[str, PlannedTable], repairs: Sequence[str]
) -> set[Group]:
    stage, name = group
    match stage:
        case Stage.LOAD:
            return set()
        case Stage.INDEX:
            return {(Stage.LOAD, name)}
        case Stage.KEY:
            parents, circle = _parents(tables, name), _circle(tables, name)
            # A parent's rows are complete once its own keys are added. In a circle one goes first.
            above = (parents - circle - {name}) | {table for table in circle if table < name}
            return (
                {(Stage.INDEX, table) for table in {name, *parents}}
                | {(Stage.KEY, table) for table in above}
                | {(Stage.LOAD, name)}
            )
        case Stage.VERIFY:
            constrained = bool(tables[name].table.foreign_keys or tables[name].table.checks)
            before = {(Stage.KEY if constrained else Stage.INDEX, name), (Stage.LOAD, name)}
            # Keys of a circle's others may take rows away from it.
            before |= {(Stage.KEY, other) for other in _circle(tables, name)}
            if PLACEHOLDER_ENTITIES in choose(repairs):  # Keys of others may add rows to it.
                before |= {
                    (Stage.KEY, other) for other in tables if name in _parents(tables, other)
                }
            return before
        case Stage.CUTOVER:
            return {(step, table) for table in tables for step in (Stage.KEY, Stage.VERIFY)}


def _parents(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    return {key.table for key in tables[name].table.foreign_keys}


def _circle(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    """Return the other tables that it refers to and that refer to it, over however many others."""
    return {
        table
        for table in _ancestors(tables, name)
        if table != name and name in _ancestors(tables, table)
    }


def _ancestors(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    """Return the table and all that it refers to, over however many others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        table = waiting.pop()
        if table not in found:
            found.add(table)
            waiting += _parents(tables, table)
    return found
