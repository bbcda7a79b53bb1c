"""The two roles of a migration, set up as ``kg doctor --grants`` says."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import new_run, runs
from kgcore.migration.model import Options, Run, StepRef, StepResult
from kgcore.migration.roles import administrators_grants
from kgcore.migration.run_step import run_step
from kgcore.migration.workplace import Workplace
from tests.servers import Database, PostgresConnection
from tests.workers.kg import Kg

_SMALL_STAGES = ("load", "verify")


@dataclass(frozen=True)
class TwoRoles:
    """An owner and a worker role of one database, and steps done by each as they would be."""

    database: Database
    owner: str
    worker: str
    owners: Workplace
    workers: Workplace

    def start(self, source: Path, **options: Any) -> Run:
        """Start a run as the owner."""
        named: dict[str, Any] = {"chunk_rows": 50, "worker_role": self.worker}
        chosen = Options(**named | options)
        prepared = new_run.prepare(source, self.owners.data_dir, chosen)
        return new_run.start(self.owners.pool, prepared, chosen)

    def go_on(self, run: Run) -> list[tuple[str, StepResult]]:
        """Do all steps that can be done: load and verify steps as the worker role."""
        waiting, done = list(runs.ready(self.owners.pool, run)), []
        while waiting:
            ref = waiting.pop(0)
            stage = self.stage(ref)
            place = self.workers if stage in _SMALL_STAGES else self.owners
            result = run_step(place, ref)
            waiting += result.dispatch
            done.append((stage, result))
        return done

    def stage(self, ref: StepRef) -> str:
        """Return the stage of a step."""
        ((stage,),) = self.database.rows(
            "SELECT stage FROM kg_migration.steps WHERE step_id = %s", (ref.step_id,)
        )
        return str(stage)

    def connect(self, role: str) -> PostgresConnection:
        """Connect as one of the roles."""
        return self.database.connect(user=role, password="pw")


@contextmanager
def two_roles(database: Database, data_dir: Path) -> Iterator[TwoRoles]:
    """Make the roles, with names that need quoting; they are dropped at the end."""
    owner, worker = f'kg "Owner" {database.database}', f"kg 'worker' % {database.database}"
    quoted = ['"' + name.replace('"', '""') + '"' for name in (owner, worker)]
    with ExitStack() as stack:
        for role in quoted:
            database.rows(f"CREATE ROLE {role.replace('%', '%%')} LOGIN PASSWORD %s", ("pw",))
            stack.callback(database.rows, f"DROP ROLE {role}")
            stack.callback(database.rows, f"DROP OWNED BY {role} CASCADE")
        for statement in administrators_grants(database.database, "public", owner, worker):
            database.rows(statement)
        places = []
        for role in (owner, worker):
            parameters = database.parameters | {"user": role, "password": "pw"}
            backend = PostgreSQLBackend(**parameters, pool_size=1, max_overflow=4)
            stack.enter_context(backend)
            places.append(Workplace(backend.pool, data_dir, role))
        yield TwoRoles(database, owner, worker, *places)


@pytest.fixture
def roles(postgres: Database, tmp_path: Path) -> Iterator[TwoRoles]:
    """The two roles in PostgreSQL 18."""
    with two_roles(postgres, tmp_path / "data") as roles:
        yield roles


@pytest.fixture
def roles_each(postgres_each: Database, tmp_path: Path) -> Iterator[TwoRoles]:
    """The two roles in each supported version."""
    with two_roles(postgres_each, tmp_path / "data") as roles:
        yield roles


@pytest.fixture
def kg(kg_environment: dict[str, str], tmp_path: Path) -> Kg:
    """The command, in an empty directory and with servers of its own."""
    return Kg(kg_environment, tmp_path)
