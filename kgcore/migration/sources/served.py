"""Served source snapshots: a small HTTP server for one file, and how it is read.

The path is a capability: 256 random bits, known to those who can read the ledger. Nothing of a
request ever becomes a file's name; whatever is not exactly that path is answered with 404.
"""

import base64
import hmac
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import urlsplit

from kgcore.errors import SettingsError, SourceError
from kgcore.migration.model import SourceSnapshot

_log = logging.getLogger(__name__)

# A peer that says nothing for so long is gone.
_SILENCE_SECONDS = 20.0
# A machine fetches once, whatever it has of workers; more at once is no fleet but a flood.
_MOST_CONNECTIONS = 256
_ONE_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{1,19})?")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/\d{1,19}")


def parse_endpoint(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` (an IPv6 address in brackets). Raises :class:`SettingsError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(
            f"--serve {text!r} is not HOST:PORT", "for example --serve 10.0.1.5:8765"
        )
    if host in {"0.0.0.0", "::", "*"}:  # noqa: S104 (refused here)
        raise SettingsError(
            f"--serve {host}: workers can't be told to ask every address",
            "name the address by which they reach this machine",
        )
    return host, int(port)


@contextmanager
def serve(source: SourceSnapshot, host: str, port: int) -> Iterator[str]:
    """Serve the file at ``source.path`` while the block lasts; give its address.

    Port 0 takes a free one. Raises :class:`SettingsError` where it can't be listened.
    """
    try:
        server = _Server(source, host, port)
    except OSError as error:
        raise SettingsError(
            f"--serve {host}:{port}: {error.strerror or error}",
            "name an address of this machine, and a port that is free",
        ) from None
    thread = Thread(target=server.serve_forever, name="serve-source", daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # A fetch that hangs must not keep the command from ending.

    def __init__(self, source: SourceSnapshot, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.source = source
        self.path = f"/{secrets.token_urlsafe(32)}"
        self._free = BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__((host, port), _Answer)
        named = f"[{host}]" if ":" in host else host
        self.address = f"http://{named}:{self.server_address[1]}{self.path}"

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for this machine's name.
        super(ThreadingHTTPServer, self).server_bind()
        self.server_name, self.server_port = "", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.info("a fetch by %s ended early", client_address[0], exc_info=True)


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_SECONDS

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if not hmac.compare_digest(self.path.encode(), self.server.path.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        source = self.server.source
        try:
            file = source.path.open("rb")
        except OSError:  # The run has ended, and its snapshot is deleted.
            self.send_error(HTTPStatus.GONE)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            first, end = 0, size
            wanted = _ONE_RANGE.fullmatch(self.headers.get("Range", ""))
            if wanted is not None:
                first = int(wanted[1])
                end = min(size, int(wanted[2]) + 1) if wanted[2] else size
                if first >= end:
                    self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(HTTPStatus.PARTIAL_CONTENT)
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            else:
                self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/vnd.sqlite3")
            self.send_header("Content-Length", str(end - first))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{source.sha256}"')
            self.send_header("Repr-Digest", _digest_field(source.sha256))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_body:
                self.connection.sendfile(file, first, end - first)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer with the bare code: nothing of the request comes back."""
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def version_string(self) -> str:
        """Say what this is, and not which Python runs it."""
        return "jarvis-kg"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002
        """Log who asked, not what for: the path is a secret."""
        status = args[1] if len(args) > 1 else ""
        _log.info("%s asked for the source: %s", self.client_address[0], status)


@contextmanager
def read(address: str, offset: int, sha256: str) -> Iterator[tuple[int, HTTPResponse]]:
    """Open a served file at a position: see :data:`kgcore.migration.sources.fetching.Read`.

    Proxies of the environment are not asked: the machines of a run reach each other.
    Raises :class:`OSError`, or :class:`SourceError` if the server has another file.
    """
    parts = urlsplit(address)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SILENCE_SECONDS)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        wanted = {"Range": f"bytes={offset}-", "Connection": "close"}
        connection.request("GET", path, headers=wanted)
        response = connection.getresponse()
        if response.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise ConnectionError(f"the server answers {response.status}")
        said = response.headers.get("Repr-Digest")
        if said is not None and said != _digest_field(sha256):
            raise SourceError(
                "another file is served where the source was planned to be",
                "kg resume RUN --serve HOST:PORT serves the right one",
            )
        start = 0
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            begins = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if begins is None or int(begins[1]) > offset:
                raise ConnectionError("the server sends another range than it was asked for")
            start = int(begins[1])
        yield start, response
    finally:
        connection.close()


def _digest_field(sha256: str) -> str:
    """The value of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
