"""Three hosts, and servers that they reach on the fourth."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kgcore.backends import PostgreSQLBackend
from tests.faults import holds
from tests.faults.scene import QuickKg, Scene
from tests.machines.network import Network, network
from tests.migration.graphs import small_graph
from tests.servers import FAST, Database, launcher, server_directory
from workers.embedded import PostgresServer, RedisServer
from workers.embedded.account import Account
from workers.embedded.state import State


class NetworkPostgres(PostgresServer):
    """PostgreSQL that listens on a network, too."""

    network: Network

    def _command(self, account: Account | None, port: int) -> list[str]:
        rules = self.directory / "pg_hba.conf"
        rules.write_text(
            "host all all 127.0.0.1/32 scram-sha-256\n"
            f"host all all {self.network.subnet}.0/24 scram-sha-256\n"
        )
        rules.chmod(0o644)
        addresses = f"--listen_addresses=127.0.0.1,{self.network.address}"
        return [*super()._command(account, port), addresses, f"--hba_file={rules}"]


class NetworkRedis(RedisServer):
    """Redis that listens on a network, too."""

    network: Network

    def _stdin(self, port: int, state: State) -> bytes:
        return super()._stdin(port, state) + f"bind 127.0.0.1 {self.network.address}\n".encode()


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Network]:
    """A network without hosts."""
    with network(tmp_path) as made:
        yield made


@pytest.fixture
def lan_scene(lan: Network, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose servers are on the fourth host; its own commands run there."""
    with (
        server_directory() as for_postgres,
        server_directory() as for_redis,
    ):
        postgres = NetworkPostgres(for_postgres, settings=FAST, launcher=launcher())
        redis = NetworkRedis(for_redis, launcher=launcher())
        postgres.network = redis.network = lan
        with postgres, redis:
            database = Database(postgres, postgres.database)
            holds.install(database)
            environment = {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(tmp_path),
                **database.environment(),
                "PG_HOST": lan.address,
                "KG_REDIS_URL": redis.url.replace("127.0.0.1", lan.address),
                "KG_DATA_DIR": str(tmp_path / "data"),
            }
            source = small_graph(tmp_path / "graph.db")
            with PostgreSQLBackend(**database.parameters, pool_size=1, max_overflow=9) as backend:
                yield Scene(QuickKg(environment, tmp_path), database, source, backend)
            database.close()
