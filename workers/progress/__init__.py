"""The progress channel in Redis, which anyone may query.

Keys, all of which expire a week after the last write:

``kg:latest``
    the id of the run started last
``kg:run:ID``
    hash: ``state``, ``errors`` (JSON list), ``began``, ``updated`` and, of a run that has ended,
    ``ended`` (Redis's own clock); for each
    table ``total:T``, ``done:T`` (rows), for each worker ``rows:W``, ``steps:W``, ``seen:W``, for
    each stage ``left:S`` (steps), and for the bar ``weight`` and ``done_weight``; for each worker
    that fetches the source ``fetch:W``: bytes here, bytes in all, and when that was written
``kg:run:ID:steps``
    bitmap of counted steps, by their position in the run: a step counts once
``kg:run:ID:events``
    stream of ``step`` and ``state`` events, cut at about 10,000: a late follower replays it

The ledger is the truth. Where Redis lost the hash, the next writer builds it anew from there.
Numbers are only written by the scripts below, each of which is atomic.
"""

from workers.progress.broker import BROKER_ERRORS, unreachable
from workers.progress.channel import Channel
from workers.progress.shown import Progress

__all__ = ["BROKER_ERRORS", "Channel", "Progress", "unreachable"]
