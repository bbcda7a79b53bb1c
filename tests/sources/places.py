"""Between a machine and what it fetches: a link that is cut, and processes that share a cache."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kgcore.migration.model import SourceSnapshot
from tests.conftest import ROOT

Offer = Callable[..., SourceSnapshot]


@dataclass
class Link:
    """A relay that cuts each connection after so many bytes, without a word."""

    address: str
    budget: int
    passed: int = 0
    connections: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def through(self, connection: socket.socket, target: tuple[str, int]) -> None:
        """Pass one request on, and its answer up to the budget."""
        with connection, socket.create_connection(target) as server, suppress(OSError):
            server.sendall(connection.recv(65536))
            left = self.budget
            while left and (data := server.recv(min(left, 65536))):
                connection.sendall(data)
                left -= len(data)
                self.passed += len(data)


@contextmanager
def link(address: str, budget: int) -> Iterator[Link]:
    """Put a link that is cut before a served source."""
    parts = urlsplit(address)
    assert parts.hostname
    assert parts.port
    target = (parts.hostname, parts.port)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        found = Link(f"http://127.0.0.1:{port}{parts.path}", budget)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    found.connections += 1
                    found.through(connection, target)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python in a process of its own; it may tell and be told line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


_PREAMBLE = """
import sys, time
from pathlib import Path
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources.cache import Cache

def snapshot(path):
    path = Path(path)
    return SourceSnapshot(path, path, path.stem.partition('-')[0], path.stat().st_size)

def say(text):
    print(text, flush=True)

"""
