"""Private PostgreSQL and Redis servers: for trying things, for the demo, and for tests.

Both listen on loopback only, ask for a random password, and run as processes of their own that
another process can find and stop through their directory.
"""

from pathlib import Path

from kgcore.errors import EmbeddedError
from workers.embedded.postgres import PostgresServer
from workers.embedded.redis import RedisServer

__all__ = ["PostgresServer", "RedisServer", "down", "environment", "remove", "up"]


def up(directory: Path) -> dict[str, str]:
    """Start both servers in ``directory``, as far as they don't run; return ``environment``.

    Raises :class:`EmbeddedError` if one can't be started; then none is left that this call started.
    """
    postgres, redis = _servers(directory)
    was_running = postgres.running
    postgres.start()
    try:
        redis.start()
    except BaseException:
        if not was_running:
            postgres.stop()
        raise
    return environment(directory)


def down(directory: Path) -> bool:
    """Stop both servers; their data stays. Return False if neither was running."""
    stopped = [server.stop() for server in reversed(_servers(directory))]
    return any(stopped)


def remove(directory: Path) -> None:
    """Stop both servers and delete all their data."""
    for server in reversed(_servers(directory)):
        server.remove()


def environment(directory: Path) -> dict[str, str]:
    """Return the ``PG_`` variables and ``KG_REDIS_URL`` that lead to the running servers.

    Raises :class:`EmbeddedError` if one of them isn't running.
    """
    postgres, redis = _servers(directory)
    if not (postgres.running and redis.running):
        raise EmbeddedError(
            f"the private servers of {directory} are not running",
            "start them with `kg embedded up`",
        )
    return postgres.environment() | redis.environment()


def _servers(directory: Path) -> tuple[PostgresServer, RedisServer]:
    return PostgresServer(directory / "postgres"), RedisServer(directory / "redis")
