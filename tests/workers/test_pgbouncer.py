"""A target behind PgBouncer: what works through it, and what it says where it doesn't."""

from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetError
from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.pgbouncer import SESSIONS, PgBouncer
from tests.servers import Database, server_directory
from tests.workers.kg import Kg


def test_a_whole_migration_in_transaction_mode(
    kg: Kg, postgres: Database, pgbouncer: PgBouncer, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    kg.environment["PG_PORT"] = str(pgbouncer.port)
    done = kg("migrate", source, "--chunk-rows", "50", "--local-workers", "1", "--json")
    assert (done.code, done.json["state"]) == (0, "done")
    assert differences(source, postgres.connect()) == []
    sessions = postgres.rows(
        "SELECT state FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert len(sessions) <= SESSIONS + 1  # And the one that compared.
    assert {state for (state,) in sessions} == {"idle"}
    assert postgres.rows("SELECT * FROM pg_locks WHERE locktype = 'advisory'") == []
    assert kg("revert", done.json["run_id"]).code == 0


def test_a_startup_option_that_pgbouncer_does_not_know(bounced: dict[str, Any]) -> None:
    with pytest.raises(TargetError) as caught:
        PostgreSQLBackend(**bounced, options="-c lock_timeout=1s").connect()
    assert "options" in caught.value.message
    assert "ignore_startup_parameters" in caught.value.hint


def test_statement_mode_is_named(kg: Kg, postgres: Database) -> None:
    with (
        server_directory() as directory,
        PgBouncer(directory, postgres.server, "statement") as server,
    ):
        with pytest.raises(TargetError) as caught:
            PostgreSQLBackend(**postgres.parameters | {"port": server.port}).connect()
        assert "pool_mode = transaction" in caught.value.hint
        kg.environment["PG_PORT"] = str(server.port)
        done = kg("doctor", "--json")
        target = next(check for check in done.json if check["name"] == "target")
        assert not target["ok"]
        assert "pool_mode = transaction" in target["mend"]
