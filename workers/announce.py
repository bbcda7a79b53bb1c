"""What workers say of themselves, each time they are asked: version, protocol, host, capacity.

They are asked through Celery's remote control, which is the same in all versions, so that a worker
of another protocol is found although it is given no work.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self

from celery.worker.control import inspect_command

from kgcore.migration.model import PROTOCOL
from workers.app import app
from workers.progress import BROKER_ERRORS, unreachable
from workers.queues import KINDS, served_kinds

PING_SECONDS = 1.0
_COMMAND = "kg_about"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A worker as it describes itself. ``protocol`` 0 stands for one that can't say."""

    name: str
    version: str = "unknown"
    protocol: int = 0
    host: str = ""
    processes: int = 0
    queues: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, said: object) -> Self:
        """Read an answer, which may come from anything that reaches the broker."""
        if not isinstance(said, dict):
            return cls(name)
        version, protocol, host = said.get("version"), said.get("protocol"), said.get("host")
        processes, queues = said.get("processes"), said.get("queues")
        return cls(
            name,
            version if isinstance(version, str) else "unknown",
            protocol if isinstance(protocol, int) else 0,
            host if isinstance(host, str) else "",
            processes if isinstance(processes, int) else 0,
            tuple(q for q in queues if isinstance(q, str)) if isinstance(queues, list) else (),
        )

    def kinds(self, target: str) -> frozenset[str]:
        """Return the kinds of steps of this target that the worker is given."""
        return served_kinds(target, self.queues) if self.protocol == PROTOCOL else frozenset()


def announcements(seconds: float = PING_SECONDS) -> tuple[Announcement, ...]:
    """Return what the workers say that answer through the broker within ``seconds``, by name.

    Raises :class:`BrokerError`.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=seconds)
            answers = app.control.broadcast(
                _COMMAND, reply=True, timeout=seconds, connection=connection
            )
    except BROKER_ERRORS as error:
        raise unreachable(error) from None
    said = {str(name): what for answer in answers for name, what in answer.items()}
    return tuple(Announcement.of(name, said[name]) for name in sorted(said))


def fitting(workers: Iterable[Announcement], target: str) -> tuple[Announcement, ...]:
    """Return those that are given steps of this target."""
    return tuple(worker for worker in workers if worker.kinds(target))


def unserved(workers: Iterable[Announcement], target: str) -> tuple[str, ...]:
    """Return the kinds of steps of this target that nobody takes."""
    served = frozenset[str]().union(*(worker.kinds(target) for worker in workers))
    return tuple(kind for kind in KINDS if kind not in served)


@inspect_command(name=_COMMAND)
def _about(state: Any) -> dict[str, Any]:
    return {
        "version": version("jarvis-kg"),
        "protocol": PROTOCOL,
        "host": socket.gethostname(),
        "processes": state.consumer.controller.concurrency,
        "queues": list(state.app.amqp.queues.consume_from),
    }
