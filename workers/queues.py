"""Queues: three for each target database, so that a machine can be given a part of the work only.

A queue's name says the protocol, the database and the kind of steps: ``kg.v3.4f1c….load``. A worker
of another version, or of another database, listens elsewhere and is never given a step it can't do.
"""

from collections.abc import Iterable, Mapping

from kombu.utils.scheduling import priority_cycle

from kgcore.migration.model import PROTOCOL, Stage

#: The kinds in which the work is shared out, and what each needs: ``index`` steps build and move
#: tables, the other two only send rows.
KINDS: Mapping[str, frozenset[Stage]] = {
    "load": frozenset({Stage.LOAD}),
    "index": frozenset({Stage.INDEX, Stage.KEY, Stage.CUTOVER}),
    "verify": frozenset({Stage.VERIFY}),
}
_KIND_OF = {stage: kind for kind, stages in KINDS.items() for stage in stages}


# After so many loads in a row, with others waiting or not, so many of the others come first.
_LOADS_IN_A_ROW = 32
_OTHERS_THEN = 4


class InOrderOfKinds(priority_cycle):  # type: ignore[misc]  # kombu has no types
    """The order in which a worker asks its queues: loads first, verification last.

    The longest way to a cutover leads through index and key steps, at most a few of a table at a
    time; verification is many small steps, which keep the others at work meanwhile. Asked in turn,
    as is kombu's default, workers waited for the last keys with nothing left to verify. After many
    loads in a row the last come first for a while: a long load must not keep another run of the
    database from its end.
    """

    def __init__(self, it: list[str] | None = None) -> None:
        super().__init__(it)
        self._loads = self._others = 0

    def consume(self, n: int) -> list[str]:
        """Return the first ``n`` queues, in the order in which they are to be asked."""
        return sorted(self.items[:n], key=_place, reverse=self._loads == _LOADS_IN_A_ROW)

    def rotate(self, last_used: str) -> str:
        """Note that a message was taken from this queue."""
        is_load = _place(last_used) == 0
        if self._loads < _LOADS_IN_A_ROW:
            self._loads = self._loads + 1 if is_load else 0
        else:
            self._others += 1
            if is_load or self._others == _OTHERS_THEN:
                self._loads = self._others = 0
        return last_used


def _place(queue: str) -> int:
    kind = queue.rpartition(".")[2]
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def queue_name(target: str, kind: str) -> str:
    """Return the queue of one kind of steps of a target (as ``database_identity`` names it)."""
    return f"kg.v{PROTOCOL}.{target}.{kind}"


def queue_of(target: str, stage: Stage) -> str:
    """Return the queue that steps of a stage go to."""
    return queue_name(target, _KIND_OF[stage])


def served_kinds(target: str, queues: Iterable[str]) -> frozenset[str]:
    """Return the kinds of a target's steps that someone who listens to these queues is given."""
    names = set(queues)
    return frozenset(kind for kind in KINDS if queue_name(target, kind) in names)
