"""A streaming replica of a private PostgreSQL server."""

from pathlib import Path

from tests.servers import launcher
from workers.embedded import PostgresServer
from workers.embedded.account import Account, home
from workers.embedded.state import State


class ReplicaServer(PostgresServer):
    """A hot standby that follows ``primary``; made from a base backup at its first start."""

    def __init__(self, directory: Path, primary: PostgresServer) -> None:
        super().__init__(directory, primary.bin_dir, primary.settings, launcher())
        self.primary = primary

    def _new_state(self) -> State:
        return State(self.primary.password)  # Roles and passwords come with the backup.

    def _prepare(self, account: Account | None, state: State) -> None:
        data = home(self.directory, account) / "data"
        if data.exists():
            return
        primary = self.primary
        source = f"host={primary.host} port={primary.port} user={primary.user}"
        command = [
            str(self._programs / "pg_basebackup"),
            "--pgdata",
            str(data),
            "--checkpoint=fast",
        ]
        command += ["--write-recovery-conf", "--dbname", f"{source} password={primary.password}"]
        self._run(account, command)
