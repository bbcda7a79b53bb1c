"""What of a message a worker believes before it starts a step.

Celery unpacks the body and the headers of its protocol unchecked, in the worker's main process: one
message of another shape would end the worker, go back to the queue, and end the next one.
"""

from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default
from kombu.exceptions import ContentDisallowed, DecodeError

#: The headers that a step's message needs; no other is looked at.
_KNOWN = frozenset({"task", "id", "lang", "origin", "root_id", "parent_id"})


def careful(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own strategy behind a check of the message's shape.

    A message that fails it is logged and thrown away by Celery.
    """
    handle = default(task, app, consumer, **options)

    def checked(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        try:
            payload = message.payload
            well_formed = (
                isinstance(payload, list)
                and len(payload) == 3
                and isinstance(message.headers.get("id"), str)
            )
            if not well_formed:
                raise InvalidTaskError("no step's message")  # noqa: TRY301 (handled as the rest)
            for name in message.headers.keys() - _KNOWN:
                del message.headers[name]
            return handle(message, body, ack, reject, callbacks)
        except (InvalidTaskError, DecodeError, ContentDisallowed):
            raise
        except Exception as error:
            raise InvalidTaskError(f"{type(error).__name__}: {error}") from error

    return checked
