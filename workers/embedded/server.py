"""The life of a private server, the same for each kind: prepare, start, find again, stop."""

import contextlib
import secrets
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from kgcore.errors import EmbeddedError
from workers.embedded import processes
from workers.embedded.account import Account, server_account
from workers.embedded.ports import HOST, PORTS, candidates
from workers.embedded.state import State, locked

START_SECONDS = 120  # PostgreSQL answers only when it has replayed its log after a crash.
STOP_SECONDS = 30


class Server(ABC):
    """A server in ``directory``, reached on loopback with a random password.

    It runs as a process of its own: it outlives this object and the calling process, and an object
    made with the same directory, here or in another process, finds it. ``settings`` hold from the
    next start. ``launcher`` is a command that is put before the server's own and must execute it.
    All methods raise :class:`EmbeddedError`.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.settings = dict(settings or {})
        self.launcher = tuple(launcher)
        self.host = HOST

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        return self._process() is not None

    @property
    def pid(self) -> int:
        """The process; an error if the server isn't running."""
        process = self._process()
        if process is None:
            raise self._not_running()
        return process[0]

    @property
    def port(self) -> int:
        """The TCP port; it stays the same over a restart unless another took it meanwhile."""
        port = self._state().port
        if port is None:
            raise self._not_running()
        return port

    @property
    def password(self) -> str:
        """The password, made at the first start."""
        return self._state().password

    @property
    def log(self) -> Path:
        """Where the server writes since its last start; what it wrote before is in ``log.old``."""
        return self.directory / "log"

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs already."""
        self._make_directory()
        with locked(self.directory):
            if self.running:
                return
            account = server_account()
            state = State.load(self.directory) or self._new_state()
            state.save(self.directory)
            self._prepare(account, state)
            for port in candidates(state.port):
                if self._start_on(port, account, state):
                    return
        raise EmbeddedError(
            f"found no free port for the private {self.kind} server in {PORTS[0]}-{PORTS[-1]}",
            "end some of the programs that listen on them",
        )

    def stop(self) -> bool:
        """Stop the server in good order; return False if it wasn't running."""
        return self._stop_by(signal.SIGTERM)

    def restart(self) -> None:
        """Stop the server in good order and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the server with all its processes at once, as a power cut would."""
        process = self._process()
        if process is not None:
            processes.kill_tree(*process)

    def remove(self) -> None:
        """Stop the server and delete its directory with all its data."""
        self.stop()
        if State.load(self.directory) is not None:  # Else it isn't a directory of ours.
            shutil.rmtree((self.directory / "home").resolve(), ignore_errors=True)
            shutil.rmtree(self.directory)

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the settings, as environment variables, that lead to this server."""

    @abstractmethod
    def _prepare(self, account: Account | None, state: State) -> None:
        """Make what the server needs before its first start."""

    @abstractmethod
    def _command(self, account: Account | None, port: int) -> list[str]:
        """Return the server's command line; no secret in it, everyone can read that."""

    def _stdin(self, port: int, state: State) -> bytes:  # noqa: ARG002  # For those who override it.
        return b""

    @abstractmethod
    def _answers(self, state: State) -> bool:
        """Tell whether the server that was started accepts clients."""

    def _start_on(self, port: int, account: Account | None, state: State) -> bool:
        """Start the server on this port; return False if another program has the port."""
        if self.log.exists():
            self.log.replace(self.log.with_name("log.old"))
        command = [*self.launcher, *self._command(account, port)]
        pid = processes.launch(command, self.log, account, self._stdin(port, state))
        mark = processes.born(pid)
        state = replace(state, port=port, pid=pid, born=mark)
        state.save(self.directory)
        ready = False
        try:
            processes.wait_until(
                lambda: processes.born(pid) is None or self._answers(state), START_SECONDS
            )
            ready = self.running and self._answers(state)
        finally:
            if not ready and mark is not None:
                processes.kill_tree(pid, mark)
        if ready:
            return True
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if "Address already in use" in said:
            return False
        tail = "; ".join(said.strip().splitlines()[-4:]) or "nothing"
        raise EmbeddedError(
            f"the private {self.kind} server didn't start; it said: {tail}",
            f"the whole of it is in {self.log}",
        )

    def _stop_by(self, *signals: signal.Signals) -> bool:
        """Send one signal after the other, each when the one before had no effect for long."""
        if not self.directory.is_dir():
            return False
        with locked(self.directory):
            process = self._process()
            if process is None:
                return False
            pid, mark = process
            for number in signals:
                processes.send(pid, mark, number)
                if processes.wait_until(lambda: processes.born(pid) != mark, STOP_SECONDS):
                    return True
            processes.kill_tree(pid, mark)
            return True

    def _process(self) -> tuple[int, str] | None:
        state = State.load(self.directory)
        if state is None or state.pid is None or state.born is None:
            return None
        return (state.pid, state.born) if processes.born(state.pid) == state.born else None

    def _new_state(self) -> State:
        if (self.directory / "home" / "data").exists():
            raise EmbeddedError(
                f"{self.directory} holds data, but its state.json with the password is gone",
                "put that file back, or delete the directory",
            )
        return State(secrets.token_hex(16))

    def _state(self) -> State:
        state = State.load(self.directory)
        if state is None:
            raise self._not_running()
        return state

    def _not_running(self) -> EmbeddedError:
        return EmbeddedError(
            f"the private {self.kind} server of {self.directory} is not running",
            "start it with `kg embedded up`",
        )

    def _make_directory(self) -> None:
        try:
            for folder in (*reversed(self.directory.parents), self.directory):
                if not folder.exists():
                    with contextlib.suppress(FileExistsError):
                        folder.mkdir()
                    folder.chmod(0o755)  # Ours: the server's user may pass, whatever the umask is.
        except OSError as error:
            raise EmbeddedError(
                f"can't make the directory {self.directory}: {error.strerror}",
                "choose another one",
            ) from error
