"""Queues: three for each target database, so that a machine can be given a part of the work only.

A queue's name says the protocol, the database and the kind of steps: ``kg.v3.4f1c….load``. A worker
of another version, or of another database, listens elsewhere and is never given a step it can't do.
"""

from collections.abc import Iterable, Mapping

from kgcore.migration.model import PROTOCOL, Stage

#: The kinds in which the work is shared out, and what each needs: ``index`` steps build and move
#: tables, the other two only send rows.
KINDS: Mapping[str, frozenset[Stage]] = {
    "load": frozenset({Stage.LOAD}),
    "index": frozenset({Stage.INDEX, Stage.KEY, Stage.CUTOVER}),
    "verify": frozenset({Stage.VERIFY}),
}
_KIND_OF = {stage: kind for kind, stages in KINDS.items() for stage in stages}


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
