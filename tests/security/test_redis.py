"""Redis behind TLS and an ACL: runs work with the least rights, and strangers get nowhere."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from kgcore.config import load_settings
from kgcore.errors import BrokerError, SettingsError
from tests.conftest import ROOT, unavailable
from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.security.certificates import Certificates, certificates
from tests.servers import Database, launcher, server_directory
from tests.workers.kg import Kg
from workers.embedded import RedisServer
from workers.progress import Channel

_PASSWORD = "of-the-acl-user"


@dataclass(frozen=True)
class SafeRedis:
    """A server with TLS and the documented ACL users; ``port`` is the one with TLS."""

    server: RedisServer
    port: int
    files: Certificates

    def url(self, user: str = "kg", host: str = "127.0.0.1", password: str = _PASSWORD) -> str:
        """The URL of a user, through TLS."""
        return f"rediss://{user}:{password}@{host}:{self.port}/0"

    def refusals(self) -> list[str]:
        """What the ACL refused, to whom."""
        with redis.Redis.from_url(self.server.url) as client:
            found = [f"{e['username']}: {e['reason']} {e['object']}" for e in client.acl_log()]
            # A courtesy of the client's to servers from 7.2 on, which older ones do not know.
            return [refusal for refusal in found if "setinfo" not in refusal]


def documented_users() -> dict[str, str]:
    """Return the users of docs/security.md by name, with their rules."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    users = [line.split() for line in lines if line.startswith("user kg")]
    return {words[1]: " ".join(words[2:]) for words in users}


@pytest.fixture(scope="module")
def safe_redis() -> Iterator[SafeRedis]:
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None or not _has_tls(program):
        unavailable("no Redis server with TLS is on PATH: apt install redis-server")
    with server_directory() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        files = certificates(directory, "127.0.0.1")
        settings = {
            "tls-port": str(port),
            "tls-cert-file": str(files.certificate),
            "tls-key-file": str(files.key),
            "tls-ca-cert-file": str(files.authority),
            "tls-auth-clients": "no",
        }
        for name, rules in documented_users().items():
            settings[f"user {name}"] = rules.replace("PASSWORD", _PASSWORD)
        with RedisServer(directory / "redis", settings, launcher()) as server:
            yield SafeRedis(server, port, files)


def _has_tls(program: str) -> bool:
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return "libssl" in linked.stdout


@pytest.fixture
def safe_kg(safe_redis: SafeRedis, kg_environment: dict[str, str], tmp_path: Path) -> Kg:
    """The command, with all that goes to Redis through TLS as the ACL user."""
    with redis.Redis.from_url(safe_redis.server.url) as client:
        client.flushall()
        client.acl_log_reset()
    settings = {
        "KG_REDIS_URL": safe_redis.url(),
        "KG_REDIS_CA_FILE": str(safe_redis.files.authority),
    }
    return Kg(kg_environment | settings, tmp_path)


def test_a_run_needs_no_more_than_the_documented_rights(
    safe_kg: Kg, safe_redis: SafeRedis, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    with safe_kg.workers(2):
        done = safe_kg("migrate", source, "--json", "--chunk-rows", "50")
        assert done.code == 0, done.err
        assert safe_kg("doctor", "--json").code == 0
    assert differences(source, postgres.connect()) == []
    reader = Kg(
        safe_kg.environment | {"KG_REDIS_URL": safe_redis.url("kg-reader")}, safe_kg.directory
    )
    assert reader("progress", "--json").json["percent"] == 100.0
    assert reader("progress", "--follow", "--json").code == 0
    assert safe_redis.refusals() == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("kg", ["FLUSHALL"]),
        ("kg", ["CONFIG", "GET", "*"]),
        ("kg", ["KEYS", "*"]),
        ("kg", ["GET", "of-another-application"]),
        ("kg", ["ACL", "LIST"]),
        ("kg", ["CLIENT", "LIST"]),
        ("kg", ["SHUTDOWN"]),
        ("kg-reader", ["SET", "kg:latest", "forged"]),
        ("kg-reader", ["LPUSH", "kg", "a message"]),
        ("kg-reader", ["GET", "unacked"]),
    ],
)
def test_the_acl_users_may_do_nothing_else(
    safe_redis: SafeRedis, user: str, command: Sequence[str]
) -> None:
    with (
        redis.Redis.from_url(safe_redis.url(user), ssl_ca_certs=safe_redis.files.authority) as one,
        pytest.raises(redis.ResponseError, match=r"(?i)no permission|NOPERM"),
    ):
        one.execute_command(*command)


@pytest.mark.parametrize("fault", ["stranger", "name", "system"])
def test_a_server_that_can_not_prove_itself_is_refused(
    fault: str, safe_kg: Kg, safe_redis: SafeRedis, tmp_path: Path
) -> None:
    """By the channel and by Celery: kombu alone would not even look at the certificate."""
    changed = {}
    if fault == "stranger":
        changed["KG_REDIS_CA_FILE"] = str(certificates(tmp_path, "127.0.0.1").authority)
    elif fault == "name":
        changed["KG_REDIS_URL"] = safe_redis.url(host="localhost")
    else:
        changed["KG_REDIS_CA_FILE"] = ""
    kg = Kg(safe_kg.environment | changed, tmp_path)
    found = kg("doctor", "--json")
    (broker,) = [check for check in found.json if check["name"] == "broker"]
    assert not broker["ok"]
    assert "CERTIFICATE_VERIFY_FAILED" in broker["found"]
    assert "KG_REDIS_CA_FILE" in broker["mend"]
    sent = subprocess.run(
        [sys.executable, "-c", _SEND],
        env=kg._environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "CERTIFICATE_VERIFY_FAILED" in sent.stdout, sent.stderr
    assert _PASSWORD not in found.out + found.err + sent.stdout + sent.stderr


_SEND = """
from workers.app import app
try:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
        print("connected")
except Exception as error:
    print(error)
"""


def test_a_wrong_password_of_an_acl_user_is_named(safe_redis: SafeRedis) -> None:
    settings = load_settings(
        kg_redis_url=safe_redis.url(password="guessed"),
        kg_redis_ca_file=safe_redis.files.authority,
    )
    channel = Channel(settings.redis_url())
    with pytest.raises(BrokerError, match="refused the login") as caught:
        channel.ping()
    channel.close()
    assert "guessed" not in str(caught.value) + caught.value.hint


def test_a_ca_file_is_for_tls_alone(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    with pytest.raises(SettingsError, match="does not begin with rediss://"):
        load_settings(kg_redis_url="redis://localhost", kg_redis_ca_file=file)
    with pytest.raises(SettingsError, match="KG_REDIS_CA_FILE"):
        load_settings(kg_redis_url="rediss://localhost", kg_redis_ca_file=tmp_path / "none")


def test_the_certificate_is_checked_unless_the_url_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "a & b.pem"
    file.touch()
    url = load_settings(kg_redis_url="rediss://h/0", kg_redis_ca_file=file).redis_url()
    assert url.startswith("rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=")
    unchecked = "rediss://h/0?ssl_cert_reqs=none&socket_timeout=3"
    assert load_settings(kg_redis_url=unchecked).redis_url() == unchecked
    assert load_settings(kg_redis_url="redis://h/0?x=1").redis_url() == "redis://h/0?x=1"
