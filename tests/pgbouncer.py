"""A private PgBouncer before a private PostgreSQL server."""

import socket
from pathlib import Path

from tests.servers import launcher
from workers.embedded import PostgresServer
from workers.embedded.account import Account, home, own
from workers.embedded.ports import HOST
from workers.embedded.server import Server
from workers.embedded.state import State

PROGRAM = Path("/usr/sbin/pgbouncer")
#: Sessions of the server for each database: fewer than its clients, so that they share them.
SESSIONS = 6

_SETTINGS = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = {listen}
listen_port = {listen_port}
unix_socket_dir =
pool_mode = {pool_mode}
auth_type = scram-sha-256
auth_file = {users}
default_pool_size = {sessions}
max_client_conn = 500
log_connections = 0
log_disconnections = 0
"""


class PgBouncer(Server):
    """PgBouncer on loopback, with the server's users and passwords."""

    kind = "PgBouncer"

    def __init__(
        self, directory: Path, server: PostgresServer, pool_mode: str = "transaction"
    ) -> None:
        super().__init__(directory, launcher=launcher())
        self.server = server
        self.pool_mode = pool_mode

    def environment(self) -> dict[str, str]:
        """Return the ``PG_`` variables that lead to the server through PgBouncer."""
        return self.server.environment() | {"PG_PORT": str(self.port)}

    def _prepare(self, account: Account | None, state: State) -> None:
        users = home(self.directory, account) / "users"
        users.write_text(f'"{self.server.user}" "{self.server.password}"\n', encoding="utf-8")
        own(users, account)

    def _command(self, account: Account | None, port: int) -> list[str]:
        place = home(self.directory, account)
        text = _SETTINGS.format(
            host=self.server.host,
            port=self.server.port,
            listen=HOST,
            listen_port=port,
            pool_mode=self.pool_mode,
            users=place / "users",
            sessions=SESSIONS,
        )
        (place / "pgbouncer.ini").write_text(text, encoding="utf-8")
        return [str(PROGRAM), str(place / "pgbouncer.ini")]

    def _answers(self, state: State) -> bool:
        try:
            socket.create_connection((HOST, state.port or 0), timeout=1).close()
        except OSError:
            return False
        return True
