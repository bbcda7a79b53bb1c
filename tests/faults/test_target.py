"""The target is there but in no state to be used, or is gone for good, or not what it seems."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.conftest import unavailable
from tests.faults.holds import INDEX
from tests.faults.scene import Scene, children, kill_process
from tests.migration.graphs import entity, write_graph
from tests.pgbouncer import PgBouncer
from workers.embedded import PostgresServer
from workers.embedded.account import own, server_account


def test_postgres_is_gone_for_good(
    postgres_scene: Scene, own_postgres_server: PostgresServer
) -> None:
    """The command gives up when its patience is over, and says how to go on."""
    scene = postgres_scene
    scene.kg.environment["KG_TARGET_PATIENCE_SECONDS"] = "2"
    scene.begin()
    with scene.held() as hold, scene.kg.workers(1):
        with scene.follow() as coordinator:
            hold.reached()
            with scene.strike():
                own_postgres_server.stop("immediate")
                _, err = coordinator.communicate(timeout=60)
                assert coordinator.returncode == 1
                own_postgres_server.start()
        assert "the target did not answer for 2 s" in err
        assert f"kg resume {scene.run}" in err
        assert scene.database.password not in err
        with scene.follow() as coordinator:
            scene.complete(coordinator)


def test_the_disk_of_the_target_is_full(
    postgres_scene: Scene, own_postgres_server: PostgresServer
) -> None:
    """A table's own disk; the run fails by the server's words, and goes on when there is space."""
    scene = postgres_scene
    rows = [entity(number, metadata=f'"{secrets.token_hex(50_000)}"') for number in range(1, 201)]
    scene.source = write_graph(scene.source.with_name("large.db"), entities=rows)
    with _small_disk(own_postgres_server.directory / "disk") as disk:
        scene.database.rows(f"CREATE TABLESPACE small LOCATION '{disk}'")
        scene.begin(max_attempts=2)
        staged = f'"{scene.fact("staging_schema")}".entities'
        scene.database.rows(f"ALTER TABLE {staged} SET TABLESPACE small")
        with scene.kg.workers(1):
            with scene.follow() as coordinator:
                out, err = coordinator.communicate(timeout=60)
                assert coordinator.returncode == 1, err
            assert "No space left on device" in out
            assert scene.fact("state") == "failed"
            assert f"kg resume {scene.run}" in scene.fact("hint")
            scene.assert_untouched()
            _mount("-o", "remount,size=256m", str(disk))
            with scene.follow() as coordinator:
                scene.complete(coordinator)
        scene.database.rows("ALTER TABLE entities SET TABLESPACE pg_default")
        scene.database.rows("DROP TABLESPACE small")


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    """Mount a disk of 4 MiB in the server's directory."""
    place.mkdir()
    done = _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    if done.returncode:
        unavailable(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        own(place, server_account())
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def test_no_connection_is_to_be_had(scene: Scene) -> None:
    """The server turns a worker away in mid-run: it says so, waits, and goes on."""
    role = f"role_{secrets.token_hex(4)}"
    scene.database.rows(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public, faults TO {role};"
        f" GRANT ALL ON ALL TABLES IN SCHEMA faults TO {role};"
        f' GRANT ALL ON DATABASE "{scene.database.database}" TO {role}'
    )
    scene.kg.environment.update(PG_USER=role, PG_PASSWORD="secret")
    migrate = ("migrate", scene.source, "--chunk-rows", "50", "--json")
    try:
        with scene.held(INDEX) as hold, scene.kg.workers(1), scene.kg.start(*migrate) as command:
            hold.reached()
            ((scene.run,),) = scene.database.rows("SELECT run_id FROM kg_migration.runs")
            with scene.strike():
                # The command has a connection, so there is none for workers.
                scene.database.rows(f"ALTER ROLE {role} CONNECTION LIMIT 1")
                scene.database.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'jarvis-kg worker' AND usename = %s",
                    (role,),
                )
                assert command.stderr is not None
                said = _line(command.stderr, "too many connections")
                assert "w0" in said or "can't use the target" in said
                assert "PG_POOL_SIZE" in said
                assert "max_connections" in said
                scene.database.rows(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            hold.release()
            scene.complete(command)
    finally:
        scene.database.rows(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_a_worker_without_rights_is_told_of_by_the_command(scene: Scene) -> None:
    """It can't say it in the ledger. Once it has the rights it goes on by itself."""
    role = f"role_{secrets.token_hex(4)}"
    scene.database.rows(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    scene.begin()
    try:
        with (
            scene.kg.workers(1, PG_USER=role, PG_PASSWORD="secret"),
            scene.follow() as command,
        ):
            assert command.stderr is not None
            said = _line(command.stderr, "permission denied for schema kg_migration")
            assert "PG_USER" in said
            assert "KG_WORKER_ROLE" in said
            scene.assert_in_the_middle()
            scene.database.rows(f"ALTER ROLE {role} SUPERUSER")
            scene.complete(command)
    finally:
        scene.database.rows(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP ROLE {role}")


def _line(lines: IO[str], words: str) -> str:
    """Wait for the line that has these words."""
    return next(line for line in iter(lines.readline, "") if words in line)


def test_behind_pgbouncer_in_transaction_mode(scene: Scene, pgbouncer: PgBouncer) -> None:
    """All of the run goes through it; a worker dies on the way."""
    scene.kg.environment["PG_PORT"] = str(pgbouncer.port)
    scene.begin()
    with scene.held() as hold, scene.kg.workers(1) as workers, scene.follow() as coordinator:
        hold.reached()
        with scene.strike():
            (child,) = children(*workers)
            kill_process(child)
            hold.release()
        scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 2
