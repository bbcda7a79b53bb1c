"""What is known about a private server, kept in its directory for other processes."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kgcore.errors import EmbeddedError


@dataclass(frozen=True)
class State:
    """A server's secret, the port it was last given, and its process while it has one.

    ``born`` tells the process from a later one with the same pid: see ``processes.born``.
    """

    password: str
    port: int | None = None
    pid: int | None = None
    born: str | None = None

    def save(self, directory: Path) -> None:
        """Write the state, readable by its owner only; a reader sees the old or the new one."""
        fresh = directory / "state.json.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        fresh.replace(directory / "state.json")

    @classmethod
    def load(cls, directory: Path) -> "State | None":
        """Return the state kept in ``directory``, None if there is none.

        Raises :class:`EmbeddedError` if it can't be read or isn't a state.
        """
        path = directory / "state.json"
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise EmbeddedError(
                f"can't read the state of the private server in {path}: {error}",
                "use the account that started it, or choose another directory",
            ) from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from starting or stopping the server of ``directory`` meanwhile.

    Raises :class:`EmbeddedError` if the caller may not write there.
    """
    try:
        file = (directory / "lock").open("w")
    except OSError as error:
        raise EmbeddedError(
            f"can't write in {directory}: {error.strerror}",
            "use the account that started the server, or choose another directory",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Closing the file gives it back.
        yield
