"""A TCP proxy that can lose what a server answers, and connections without a word."""

import socket
import threading
from contextlib import suppress

_PIECE = 65_536


class Proxy:
    """Stands on a port of loopback before a server, until it is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[_Link] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for link in self._links:
            link.close()

    def refuse(self) -> None:
        """Take no more connections; those there are go on."""
        # A listener that another thread waits for is woken by this, not by close() alone.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def lose_answer(self, port: int, question: bytes) -> "_Link":
        """Close the connection that reaches the server from ``port`` after the server answered.

        That is its answer to the message that holds ``question``; the client never sees it.
        """
        (link,) = (one for one in self._links if one.port == port)
        link.question = question
        return link

    def forget(self) -> int:
        """Let nothing through any more, either way, on the connections there are; return how many.

        Nobody is told: both ends just hear nothing. Connections made later are not touched.
        """
        links = [link for link in self._links if link.is_open]
        for link in links:
            link.forgotten = True
        return len(links)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server, timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._links.append(_Link(client, server))


class _Link:
    """One connection: two threads that carry bytes."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self.port: int = server.getsockname()[1]
        self.question: bytes | None = None
        self.lost = threading.Event()
        self.forgotten = False
        self.is_open = True
        self._threads = [
            threading.Thread(target=self._carry_questions, daemon=True),
            threading.Thread(target=self._carry_answers, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Close both ends."""
        self.is_open = False
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _carry_questions(self) -> None:
        with suppress(OSError):
            while piece := self._client.recv(_PIECE):
                if self.forgotten:
                    continue
                if self.question is not None and self.question in piece:
                    self.lost.set()
                self._server.sendall(piece)
        self._end()

    def _carry_answers(self) -> None:
        with suppress(OSError):
            while piece := self._server.recv(_PIECE):
                if self.lost.is_set():
                    break
                if not self.forgotten:
                    self._client.sendall(piece)
        self._end()

    def _end(self) -> None:
        if not self.forgotten:
            self.close()
