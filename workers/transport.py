"""kombu's Redis transport, made to survive what it finds in a queue.

kombu parses what it takes from a list unchecked, and Celery looks into it, in the worker's main
process: an entry that is no message would end the worker, and the next one that is given it.
"""

import logging
from collections.abc import Callable
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import DataError

_log = logging.getLogger(__name__)

# What code meets that believes in a shape which is not there. Errors of the connection are others.
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, RecursionError, DataError)


class Channel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel that throws away, with a line in the log, what is no message."""

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *args: Any, **options: Any
    ) -> Any:
        """Consume a queue; a message that ``callback`` fails on is rejected and does not return."""

        def guarded(message: Any) -> Any:
            try:
                return callback(message)
            except _MALFORMED as error:
                _refuse(error)
                if not message.acknowledged:
                    message.reject()

        return super().basic_consume(queue, no_ack, guarded, *args, **options)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _MALFORMED as error:
            _refuse(error)
            return True


class Transport(redis.Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's transport with these channels."""

    Channel = Channel


def _refuse(error: Exception) -> None:
    # The entry itself may be huge or hold anything at all; so may the error's text.
    _log.error("thrown away: an entry in the broker that is no message (%s)", type(error).__name__)
    _log.debug("where it was met", exc_info=error)


def install() -> None:
    """Make ``redis://`` and ``rediss://`` mean this transport, in this process."""
    name = f"{__name__}:{Transport.__qualname__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
