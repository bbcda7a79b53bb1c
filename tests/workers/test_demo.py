"""``kg demo``: private servers and nothing else, whatever the caller's settings are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import new_run
from kgcore.migration.model import Options
from tests.conftest import CALLERS_ENVIRONMENT
from tests.migration.graphs import small_graph
from tests.servers import server_directory
from tests.workers.kg import Kg
from workers import embedded

#: Each of them alone would lead the demo, or one of its workers, astray.
ELSEWHERE = {
    "PGHOSTADDR": "192.0.2.1",
    "PGSSLMODE": "verify-full",
    "PGSERVICE": "nowhere",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PG_PASSWORD_FILE": "/run/secrets/nowhere",
    "CELERY_BROKER_URL": "redis://192.0.2.1:1/0",
}
IN_THE_FILE = (
    "PG_SSLMODE=verify-full\nPG_POOL_SIZE=many\nKG_REDIS_CA_FILE=/etc/hostname\n"
    "KG_WORKER_ROLE=nobody\nPG_REPLICA_HOSTS=192.0.2.1\n"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo has its servers; they are stopped after the test."""
    with server_directory() as directory:
        yield directory / "private"
        embedded.down(directory / "private")


@pytest.fixture
def stranger(tmp_path: Path) -> Kg:
    """The command of someone whose shell and ``.env`` are set up for other servers."""
    (tmp_path / ".env").write_text(IN_THE_FILE)
    environment = {name: CALLERS_ENVIRONMENT[name] for name in ("PATH",)}
    return Kg(environment | {"HOME": str(tmp_path), "LANG": "C.UTF-8"} | ELSEWHERE, tmp_path)


def test_the_demo_runs_among_foreign_settings_and_after_an_interrupted_one(
    place: Path, stranger: Kg, tmp_path: Path
) -> None:
    left = _leave_a_run(embedded.up(place), tmp_path)
    done = stranger("demo", "--dir", place, "--rows", "400", "--keep")
    assert done.code == 0, done.out + done.err
    assert f"cancelled run {left}" in done.out
    assert "is no git repository" in done.out
    assert "synthetic.db" in done.out
    assert f"kg embedded up --dir {place}" in done.out.replace("__main__.py", "kg")
    # The shell that takes these variables is as good as the demo itself.
    printed = stranger("embedded", "env", "--dir", place).out.splitlines()
    assert {line for line in printed if line.startswith("unset ")} == {
        f"unset {name}" for name in ELSEWHERE if name != "PG_PASSWORD_FILE"
    }
    exported = stranger("embedded", "env", "--dir", place, "--json").json
    kept = {name: value for name, value in stranger.environment.items() if name not in ELSEWHERE}
    unset = {"PG_POOL_SIZE": ""}  # Of no use for servers of any kind.
    listed = Kg(kept | exported | unset, tmp_path)("runs", "--json")
    assert [run["state"] for run in listed.json] == ["done", "cancelled"], listed.err


def _leave_a_run(private: dict[str, str], tmp_path: Path) -> str:
    """Begin a run as an interrupted demo leaves it: running, and its graph is gone."""
    scratch = tmp_path / "kg-demo-left"
    scratch.mkdir()
    source = small_graph(scratch / "history.db")
    with PostgreSQLBackend(
        host=private["PG_HOST"],
        port=int(private["PG_PORT"]),
        database=private["PG_DATABASE"],
        user=private["PG_USER"],
        password=private["PG_PASSWORD"],
        pool_size=1,
    ) as backend:
        prepared = new_run.prepare(source, tmp_path / "data", Options())
        run = new_run.start(backend.pool, prepared, Options()).run_id
    source.unlink()
    return run
