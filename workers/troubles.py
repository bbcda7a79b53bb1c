"""What keeps workers from the target, told through Redis: nobody reads the logs of all machines.

Key ``kg:run:ID:troubles``: hash, by worker process the text of its last trouble. It is gone a
minute after the last one. A worker that can't use the target can't write into the ledger either.
"""

import logging
from collections.abc import Mapping
from typing import cast

import psycopg2
import redis
from psycopg2 import errors

from kgcore.errors import KGError
from workers.progress.broker import impatient_client

_log = logging.getLogger(__name__)

_EXPIRES_SECONDS = 60
_LENGTH = 500


class Troubles:
    """The troubles of all runs on one Redis. Never raises for Redis's sake."""

    def __init__(self, url: str) -> None:
        self._redis = impatient_client(url)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def tell(self, run_id: str, worker: str, text: str) -> None:
        """Say what keeps a worker from a run's steps."""
        key = _key(run_id)
        try:
            with self._redis.pipeline() as pipe:
                pipe.hset(key, worker, text[:_LENGTH])
                pipe.expire(key, _EXPIRES_SECONDS)
                pipe.execute()
        except redis.RedisError as error:
            _log.debug("the trouble was not told: %s", error)

    def told(self, run_id: str) -> Mapping[str, str]:
        """Return by worker process what was told of a run in the last minute."""
        try:
            return cast("dict[str, str]", self._redis.hgetall(_key(run_id)))
        except redis.RedisError as error:
            _log.debug("no troubles can be read: %s", error)
            return {}


def described(error: psycopg2.Error | KGError) -> str:
    """Return a line that says what went wrong, and the mend where one is known."""
    if isinstance(error, KGError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    text = " ".join(str(error).split())
    if isinstance(error, errors.InsufficientPrivilege):
        return (
            f"{text} (set PG_USER there to the role that began the run, or KG_WORKER_ROLE to the"
            " worker's where runs are begun: kg doctor --grants prints what it needs)"
        )
    return text


def _key(run_id: str) -> str:
    return f"kg:run:{run_id}:troubles"
