"""A worker role that only sends rows: it can do its steps, and nothing else."""

from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetError
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.model import Options, RunState
from kgcore.migration.reports import read_report
from tests.migration.comparer import differences
from tests.migration.graphs import entity, small_graph, write_graph
from tests.security.conftest import TwoRoles
from tests.servers import Database
from tests.workers.kg import Kg, wait_for
from workers.progress import Channel

# What a thief of the worker role's password would try. {staging} is the run's.
_FORBIDDEN = (
    "SELECT * FROM public.entities",
    "TABLE public.old_secrets",
    "INSERT INTO public.entities (type, name) VALUES ('a', 'forged')",
    "UPDATE public.entities SET name = 'forged'",
    "DELETE FROM public.entities",
    "TRUNCATE public.entities",
    "DROP TABLE public.entities",
    "ALTER TABLE public.entities ADD COLUMN more text",
    "LOCK TABLE public.entities IN ACCESS SHARE MODE",
    "CREATE TABLE public.mine (id int)",
    "CREATE FUNCTION public.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE EXTENSION dblink",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY kg_migration.runs TO '/tmp/stolen'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT rolpassword FROM pg_authid",
    "SET ROLE {owner}",
    "GRANT {owner} TO {worker}",
    "ALTER ROLE {owner} PASSWORD 'mine'",
    "DELETE FROM kg_migration.runs",
    "UPDATE kg_migration.runs SET target_schema = 'mine'",
    "UPDATE kg_migration.runs SET options = '{{}}'",
    "UPDATE kg_migration.runs SET epoch = epoch + 1",
    "UPDATE kg_migration.sources SET snapshot_path = '/etc/passwd'",
    "UPDATE kg_migration.sources SET tables = '[]'",
    "UPDATE kg_migration.steps SET lower_id = 0",
    "UPDATE kg_migration.steps SET run_id = 'x'",
    "INSERT INTO kg_migration.steps DEFAULT VALUES",
    "SELECT bytes FROM kg_migration.rejects",
    "DELETE FROM kg_migration.rejects",
    "DROP SCHEMA kg_migration CASCADE",
    "CREATE TABLE kg_migration.mine (id int)",
)
_FORBIDDEN_IN_STAGING = (
    "DELETE FROM {staging}.entities",
    "UPDATE {staging}.entities SET name = 'forged'",
    "TRUNCATE {staging}.entities",
    "DROP TABLE {staging}.entities",
    "CREATE INDEX ON {staging}.entities (name)",
    "CREATE TRIGGER t BEFORE INSERT ON {staging}.entities EXECUTE FUNCTION pg_notify()",
    "CREATE RULE r AS ON INSERT TO {staging}.entities DO ALSO NOTHING",
    "CREATE TABLE {staging}.mine (id int)",
    "DROP SCHEMA {staging} CASCADE",
)


def allowed(roles: TwoRoles, statements: tuple[str, ...], staging: str = "") -> list[str]:
    """Return the statements that the server let the worker role run."""
    names = {
        name: '"' + value.replace('"', '""') + '"'
        for name, value in (
            ("owner", roles.owner),
            ("worker", roles.worker),
            ("staging", staging),
        )
    }
    ran = []
    with closing(roles.connect(roles.worker)) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        for statement in statements:
            try:
                cursor.execute(statement.format(**names))
            except InsufficientPrivilege:
                pass
            else:
                ran.append(statement)
            connection.rollback()
    return ran


def test_the_worker_role_loads_and_verifies_and_the_owner_does_the_rest(
    roles_each: TwoRoles, redis_url: str, tmp_path: Path
) -> None:
    roles = roles_each
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(row_id) for row_id in range(1, 200)] + [entity(300, metadata="{")],
    )
    run = roles.start(source, max_rejects=1)
    with closing(Channel(redis_url)) as channel:
        done = roles.go_on(run)
        channel.rebuild(roles.workers.pool, run.run_id, replace=True)
        assert channel.read(run.run_id).state == "done"
    report = read_report(roles.owners.pool, run.run_id)
    assert report.run.state is RunState.DONE, report.errors
    assert report.totals["rejected_rows"] == 1
    assert report.totals["verified_rows"] == 199
    assert all(result.outcome is not None for _, result in done)
    by = Counter((stage, result.worker) for stage, result in done)
    assert by["load", roles.worker] == by["verify", roles.worker] == 4
    assert {who for stage, who in by if stage not in ("load", "verify")} == {roles.owner}
    assert len(roles.database.rows("SELECT FROM public.entities")) == 199


def test_the_worker_role_can_do_nothing_else(roles: TwoRoles, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    owner = roles.connect(roles.owner)
    owner.cursor().execute("CREATE TABLE public.old_secrets (id int)")
    first = roles.start(source)
    roles.go_on(first)
    second = roles.start(source, if_exists="replace")
    assert allowed(roles, _FORBIDDEN) == []
    assert allowed(roles, _FORBIDDEN_IN_STAGING, second.staging) == []
    roles.go_on(second)
    assert read_report(roles.owners.pool, second.run_id).is_done
    assert differences(source, roles.database.connect()) == []
    # The tables that it loaded are live now, or kept for a revert: neither is open to it.
    assert allowed(roles, _FORBIDDEN) == []
    assert allowed(roles, (f'SELECT * FROM "{second.archive}".entities',)) == []
    runs.revert(roles.owners.pool, second.run_id)
    assert allowed(roles, _FORBIDDEN) == []


def test_worker_processes_of_both_roles_share_a_run(
    kg: Kg, roles: TwoRoles, tmp_path: Path
) -> None:
    """As in the documentation: two environments, queues, and one command."""
    source = small_graph(tmp_path / "graph.db")
    owner, worker = (
        Kg(kg.environment | {"PG_USER": role, "PG_PASSWORD": "pw"}, tmp_path)
        for role in (roles.owner, roles.worker)
    )
    coordinator = Kg(owner.environment | {"KG_WORKER_ROLE": roles.worker}, tmp_path)
    with (
        worker.start("worker", "--name", "small@%h", "--queues", "load,verify"),
        owner.start("worker", "--name", "big@%h", "--queues", "index"),
    ):
        wait_for(lambda: coordinator.answering() == 2)
        done = coordinator("migrate", source, "--json", "--chunk-rows", "50")
    assert done.code == 0, done.err
    assert differences(source, roles.database.connect()) == []


def test_steps_of_the_owner_fail_in_the_hands_of_the_worker_role(
    roles: TwoRoles, tmp_path: Path
) -> None:
    """A worker of the small role that takes other queues by mistake spoils nothing."""
    run = roles.start(small_graph(tmp_path / "graph.db"), max_attempts=2)
    astray = TwoRoles(roles.database, roles.owner, roles.worker, roles.workers, roles.workers)
    astray.go_on(run)
    report = read_report(roles.owners.pool, run.run_id)
    assert report.run.state is RunState.FAILED
    assert "InsufficientPrivilege" in report.errors[0]
    resumed = runs.resume(roles.owners.pool, run.run_id)
    roles.go_on(resumed)
    assert read_report(roles.owners.pool, run.run_id).is_done


def test_rights_of_the_live_tables_stay_as_they_were(roles: TwoRoles, tmp_path: Path) -> None:
    """Who may read the old table may read the new one, also where that is the worker role."""
    source = small_graph(tmp_path / "graph.db")
    roles.go_on(roles.start(source))
    owner = roles.connect(roles.owner)
    owner.cursor().execute(
        'GRANT SELECT ON public.entities TO "' + roles.worker.replace('"', '""') + '"'
    )
    run = roles.start(source, if_exists="replace")
    roles.go_on(run)
    assert read_report(roles.owners.pool, run.run_id).is_done
    (rights,) = roles.database.rows(
        "SELECT has_table_privilege(%(role)s, 'public.entities', 'SELECT'),"
        " has_table_privilege(%(role)s, 'public.entities', 'INSERT'),"
        " has_table_privilege(%(role)s, 'public.relationships', 'SELECT')",
        {"role": roles.worker},
    )
    assert rights == (True, False, False)


def test_the_owner_ends_connections_of_workers_that_hang(roles: TwoRoles, tmp_path: Path) -> None:
    run = roles.start(small_graph(tmp_path / "graph.db"))
    (ref, *_) = runs.ready(roles.owners.pool, run)
    with closing(roles.connect(roles.worker)) as hanging, hanging.cursor() as cursor:
        hanging.autocommit = False
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ledger.step_lock_key(ref.step_id),))
        with ledger.transaction(roles.owners.pool) as owners:
            assert ledger.terminate_holders(owners, run.run_id, expired_only=False) == 1
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")


def test_what_is_missing_is_said_before_a_run_begins(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        with pytest.raises(TargetError, match="there is no such role") as caught:
            new_run.check_target(backend.pool, Options(worker_role="no such role"))
        assert 'CREATE ROLE "no such role" LOGIN' in caught.value.hint
        assert new_run.check_target(backend.pool, Options(worker_role=postgres.user)) == "public"


def test_an_owner_that_may_not_end_the_workers_connections_is_told(roles: TwoRoles) -> None:
    names = ('"' + name.replace('"', '""') + '"' for name in (roles.worker, roles.owner))
    roles.database.rows("REVOKE {} FROM {}".format(*names))
    with pytest.raises(TargetError, match="may not end the connections") as caught:
        new_run.check_target(roles.owners.pool, Options(worker_role=roles.worker))
    roles.database.rows(caught.value.hint.partition(": ")[2])
    new_run.check_target(roles.owners.pool, Options(worker_role=roles.worker))


def test_doctor_prints_what_sets_the_roles_up(kg: Kg, postgres: Database) -> None:
    shown = kg("doctor", "--grants", "--owner", 'an "owner"', "--worker", "small")
    assert shown.code == 0, shown.err
    statements = kg("doctor", "--grants", "--json").json
    assert 'GRANT "kg_worker" TO "kg_owner";' in statements
    for name in ('an "owner"', "small"):
        postgres.rows('CREATE ROLE "{}" LOGIN'.format(name.replace('"', '""')))
    try:
        postgres.rows(shown.out)
        (rights,) = postgres.rows(
            "SELECT has_database_privilege('small', current_database(), 'TEMP'),"
            " has_database_privilege('small', current_database(), 'CREATE'),"
            " has_database_privilege('an \"owner\"', current_database(), 'CREATE'),"
            " pg_has_role('an \"owner\"', 'small', 'USAGE')"
        )
        assert rights == (True, False, True, True)
    finally:
        for name in ('an ""owner""', "small"):
            postgres.rows(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
    same = kg("doctor", "--grants", "--owner", "one", "--worker", "one")
    assert same.code == 2
    assert "two different roles" in same.err
