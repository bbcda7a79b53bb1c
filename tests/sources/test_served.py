"""The server of one file, and fetching from it over links that are cut."""

import base64
import http.client
import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kgcore.errors import FetchError, SettingsError, SourceError
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources import served
from kgcore.migration.sources.fetching import fetch
from kgcore.migration.sources.served import parse_endpoint, serve
from tests.sources.places import Offer, link


def ask(
    address: str, path: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path or parts.path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def test_the_whole_file_with_its_digest(offer: Offer) -> None:
    source = offer()
    with serve(source, "127.0.0.1", 0) as address:
        status, headers, body = ask(address)
        assert ask(address, method="HEAD")[::2] == (200, b"")
    assert (status, body) == (200, source.path.read_bytes())
    digest = base64.b64encode(bytes.fromhex(source.sha256)).decode()
    assert headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert headers["Accept-Ranges"] == "bytes"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=990-5000", 990, 1000),
    ],
)
def test_a_range(offer: Offer, wanted: str, first: int, end: int) -> None:
    source = offer(1000)
    with serve(source, "127.0.0.1", 0) as address:
        status, headers, body = ask(address, Range=wanted)
    assert (status, body) == (206, source.path.read_bytes()[first:end])
    assert headers["Content-Range"] == f"bytes {first}-{end - 1}/1000"


@pytest.mark.parametrize("wanted", ["bytes=1000-", "bytes=5-4"])
def test_a_range_that_is_not_there(offer: Offer, wanted: str) -> None:
    with serve(offer(1000), "127.0.0.1", 0) as address:
        assert ask(address, Range=wanted)[::2] == (416, b"")


@pytest.mark.parametrize("wanted", ["bytes=-5", "bytes=1-2,4-5", "rows=1-2", "bytes=a-"])
def test_a_range_it_does_not_know_is_ignored(offer: Offer, wanted: str) -> None:
    with serve(offer(1000), "127.0.0.1", 0) as address:
        status, _, body = ask(address, Range=wanted)
    assert (status, len(body)) == (200, 1000)


def test_nothing_else_is_served(offer: Offer) -> None:
    source = offer()
    with serve(source, "127.0.0.1", 0) as address:
        secret = urlsplit(address).path
        forged = [
            *("/", "//", "/index.html", f"/{source.path.name}", str(source.path), "/%2e%2e/passwd"),
            *("/../../../../etc/passwd", f"{secret}/../x", f"/x/..{secret}", f"{secret}/"),
            *(f"{secret}?a=b", secret[:-1], f"{secret}A", secret.swapcase(), "*"),
        ]
        for path in forged:
            assert ask(address, path)[::2] == (404, b""), path
        assert ask(address, "/x" * 40_000)[0] == 414
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            assert ask(address, method=method)[::2] == (501, b"")
        assert ask(address)[0] == 200
    assert len(secret) >= 43  # 256 bits.


def test_each_server_has_a_path_of_its_own(offer: Offer) -> None:
    source = offer()
    with serve(source, "127.0.0.1", 0) as one, serve(source, "127.0.0.1", 0) as other:
        assert ask(other, urlsplit(one).path)[0] == 404


def test_the_path_is_in_no_log(offer: Offer, caplog: pytest.LogCaptureFixture) -> None:
    source = offer()
    with caplog.at_level(logging.DEBUG), serve(source, "127.0.0.1", 0) as address:
        ask(address)
        ask(address, "/forged")
    secret = urlsplit(address).path
    assert "200" in caplog.text
    assert secret not in caplog.text
    assert secret not in repr(SourceSnapshot(source.path, source.path, "", 0, address))


def test_rubbish_and_silence_do_not_stop_it(offer: Offer) -> None:
    with serve(offer(1000), "127.0.0.1", 0) as address:
        parts = urlsplit(address)
        silent = [socket.create_connection((parts.hostname, parts.port)) for _ in range(20)]
        for position, connection in enumerate(silent):
            connection.sendall(b"\0\xff\r\n\r\n" if position % 2 else b"GET")
        assert ask(address)[0] == 200
        for connection in silent:
            connection.close()


def test_a_file_that_is_gone(offer: Offer) -> None:
    source = offer()
    with serve(source, "127.0.0.1", 0) as address:
        source.path.unlink()
        assert ask(address)[0] == 410


def test_a_port_that_is_taken(offer: Offer) -> None:
    with serve(offer(), "127.0.0.1", 0) as address:
        port = urlsplit(address).port
        assert port
        with (
            pytest.raises(SettingsError, match=f"--serve 127.0.0.1:{port}"),
            serve(offer(), "127.0.0.1", port),
        ):
            pass


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.1.5:8765", ("10.0.1.5", 8765)),
        ("host.example:0", ("host.example", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_endpoints(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", ":", "host", ":80", "host:", "host:a", "host:65536", "host:-1", "host:²"]
)
def test_no_endpoints(text: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80"])
def test_an_address_that_nobody_can_ask(text: str) -> None:
    with pytest.raises(SettingsError, match="every address"):
        parse_endpoint(text)


def part_of(source: SourceSnapshot, address: str, tmp_path: Path) -> Path:
    """Fetch from this address; return the file."""
    part = tmp_path / "part"
    offered = SourceSnapshot(source.original, source.path, source.sha256, source.bytes, address)
    fetch(offered, part, served.read)
    return part


def test_a_cut_connection_goes_on_where_it_was_cut(offer: Offer, tmp_path: Path) -> None:
    source = offer(3_000_000)
    with (
        serve(source, "127.0.0.1", 0) as address,
        link(address, budget=700_000) as cut,
    ):
        part = part_of(source, cut.address, tmp_path)
    assert part.read_bytes() == source.path.read_bytes()
    assert cut.connections >= 5
    assert cut.passed < 3_000_000 + cut.connections * 2000  # Headers; no byte came twice.


def test_what_an_interrupted_fetch_left_is_kept(offer: Offer, tmp_path: Path) -> None:
    source = offer(1_000_000)
    part = tmp_path / "part"
    part.write_bytes(source.path.read_bytes()[:600_000])
    with serve(source, "127.0.0.1", 0) as address, link(address, 2_000_000) as cut:
        part_of(source, cut.address, tmp_path)
    assert part.read_bytes() == source.path.read_bytes()
    assert 400_000 < cut.passed < 402_000


def test_a_server_that_is_gone_is_given_up(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgcore.migration.sources.fetching._TRIES", 2)
    source = offer(1_000_000)
    part = tmp_path / "part"
    part.write_bytes(source.path.read_bytes()[:600_000])
    with serve(source, "127.0.0.1", 0) as address:
        pass
    with pytest.raises(FetchError, match="can't be fetched") as caught:
        part_of(source, address, tmp_path)
    assert urlsplit(address).path not in f"{caught.value.message}{caught.value.hint}"
    assert part.stat().st_size == 600_000


def test_another_file_is_refused_before_it_is_fetched(offer: Offer, tmp_path: Path) -> None:
    planned, other = offer(1000), offer(1000)
    with (
        serve(other, "127.0.0.1", 0) as address,
        pytest.raises(SourceError, match="another file"),
    ):
        part_of(planned, address, tmp_path)
