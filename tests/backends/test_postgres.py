"""What is PostgreSQL's own: the pool behind the backend, the schema, the choice of a backend."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kgcore.backends import PostgreSQLBackend, SQLiteBackend, backend_from_settings, get_backend
from kgcore.config import Settings, load_settings
from kgcore.errors import PoolTimeoutError, SettingsError, TargetError
from tests.servers import Database


def backend_of(postgres: Database, **options: Any) -> PostgreSQLBackend:
    return get_backend("postgres", **postgres.parameters, **options)


def test_twenty_instances_start_at_once(postgres: Database) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            with backend_of(postgres, pool_size=1) as backend:
                backend.init_schema()
        except Exception as error:  # noqa: BLE001  # Reported below.
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert postgres.rows(
        "SELECT count(*) FROM pg_class WHERE relname = 'idx_entities_metadata'"
    ) == [(1,)]


def test_a_role_that_may_only_write_can_start_where_the_schema_is(postgres: Database) -> None:
    role = f"reader_{postgres.database}"
    postgres.rows(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    try:
        parameters = postgres.parameters | {"user": role, "password": "pw"}
        with PostgreSQLBackend(**parameters) as limited:
            with pytest.raises(TargetError, match="permission denied") as caught:
                limited.init_schema()
            assert f'GRANT USAGE, CREATE ON SCHEMA "public" TO {role}' in caught.value.hint
            with backend_of(postgres) as owner:
                owner.init_schema()
            limited.init_schema()
    finally:
        postgres.rows(f"DROP ROLE {role}")


def test_jsonb_operators_with_a_question_mark(postgres: Database) -> None:
    with backend_of(postgres) as backend:
        sql = "SELECT ?::jsonb ?? ? AS has, ?::jsonb ??| ARRAY['x', 'b'] AS any"
        assert backend.fetchone(sql, ({"a": 1}, "a", {"b": 1})) == {"has": True, "any": True}


def test_a_reader_keeps_no_connection(postgres: Database) -> None:
    with backend_of(postgres, pool_size=1, max_overflow=0) as backend:
        for _ in range(3):
            threads = [threading.Thread(target=backend.fetchall, args=("SELECT 1",)) for _ in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        stats = backend.pool_stats()
        assert (stats.size, stats.available) == (1, 1)
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state LIKE 'idle in%%'"
        assert postgres.rows(idle, (postgres.database,)) == [(0,)]


def test_an_exhausted_pool(postgres: Database) -> None:
    with backend_of(postgres, pool_size=1, max_overflow=0, pool_timeout=0.1) as backend:
        backend.execute("SELECT 1")
        errors: list[PoolTimeoutError] = []

        def read() -> None:
            try:
                backend.fetchone("SELECT 1")
            except PoolTimeoutError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert len(errors) == 1


def test_a_transaction_outlives_close_and_connect_of_others(postgres: Database) -> None:
    with backend_of(postgres, pool_size=1) as backend:
        backend.init_schema()
        pool = backend.pool
        begun, go_on = threading.Event(), threading.Event()

        def work() -> None:
            backend.execute("INSERT INTO entities (type, name) VALUES ('file', 'a')")
            begun.set()
            assert go_on.wait(10)
            backend.commit()

        with ThreadPoolExecutor(1) as thread:
            worker = thread.submit(work)
            assert begun.wait(10)
            backend.close()
            backend.connect()
            go_on.set()
            worker.result()
        assert backend.fetchone("SELECT name FROM entities") == {"name": "a"}
        assert (pool.stats().size, backend.pool_stats().in_use) == (0, 0)


def test_a_locking_read_opens_a_transaction(postgres: Database) -> None:
    with backend_of(postgres) as backend:
        backend.init_schema()
        backend.fetchall("SELECT id FROM entities FOR UPDATE")
        assert backend.in_transaction
        backend.rollback()
        backend.fetchall(
            "WITH made AS (INSERT INTO entities (type, name) VALUES ('a', 'b') RETURNING id)"
            " SELECT id FROM made"
        )
        assert backend.in_transaction
        backend.commit()
        assert len(backend.fetchall("SELECT id FROM entities")) == 1


def test_commit_after_a_failed_statement_is_an_error(postgres: Database) -> None:
    with backend_of(postgres) as backend:
        backend.execute("CREATE TABLE made (i integer)")
        with pytest.raises(psycopg2.errors.UndefinedTable):
            backend.execute("DELETE FROM nowhere")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction, match="rolled back"):
            backend.commit()
        assert backend.fetchone("SELECT to_regclass('made') AS made") == {"made": None}


def test_libpq_parameters_and_its_environment(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", postgres.host)
    monkeypatch.setenv("PGPORT", str(postgres.port))
    monkeypatch.setenv("PGDATABASE", postgres.database)
    with PostgreSQLBackend(
        user=postgres.user, password=postgres.password, application_name="it's me"
    ) as backend:
        assert backend.fetchone("SHOW application_name") == {"application_name": "it's me"}
        assert postgres.password not in repr(backend)
    with pytest.raises(SettingsError, match="colour"):
        PostgreSQLBackend(colour="red").connect()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_password_file_of_libpq(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text(
        f"elsewhere:*:*:*:wrong\n{postgres.host}:{postgres.port}:*:{postgres.user}:"
        f"{postgres.password}\n"
    )
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    for name in ("host", "port", "database", "user"):
        monkeypatch.setenv(f"PG_{name.upper()}", str(postgres.parameters[name]))
    assert _where(load_settings(kg_backend="postgres")) == (postgres.database, postgres.user)


def test_a_service_file_of_libpq(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = tmp_path / "services.conf"
    services.write_text(
        f"[other]\nhost=192.0.2.1\n[graph]\nhost={postgres.host}\nport={postgres.port}\n"
        f"user={postgres.user}\npassword={postgres.password}\ndbname=nowhere\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGSERVICE", "graph")
    monkeypatch.setenv("PG_DATABASE", postgres.database)  # What is set wins.
    assert _where(load_settings(kg_backend="postgres")) == (postgres.database, postgres.user)


def _where(settings: Settings) -> tuple[str, str]:
    with backend_from_settings(settings) as backend:
        row = backend.fetchone('SELECT current_database() AS name, current_user AS "user"')
    assert row is not None
    return row["name"], row["user"]


def test_a_fork_leaves_the_parents_transaction_alone(postgres: Database) -> None:
    with backend_of(postgres) as backend:
        backend.execute("CREATE TABLE made (i integer)")
        child = os.fork()
        if child == 0:
            os._exit(_as_child(backend))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        backend.commit()
        assert backend.fetchall("SELECT i FROM made") == []


def _as_child(backend: PostgreSQLBackend) -> int:
    try:
        in_transaction = backend.in_transaction
        seen = backend.fetchone("SELECT to_regclass('made') AS made")
        backend.execute("CREATE TABLE of_the_child (i integer)")
        backend.close()
    except BaseException:  # noqa: BLE001  # The child must not go on as a second pytest.
        return 2
    return 3 if in_transaction or seen != {"made": None} else 0


def test_get_backend() -> None:
    assert isinstance(get_backend("sqlite", db_path=Path("kg.db")), SQLiteBackend)
    assert isinstance(get_backend("postgresql", host="h"), PostgreSQLBackend)
    with pytest.raises(SettingsError, match=r"mysql.*sqlite, postgres"):
        get_backend("mysql")


def test_backend_from_settings(postgres: Database, tmp_path: Path) -> None:
    chosen = backend_from_settings(
        load_settings(sqlite_db_path=tmp_path / "kg.db"), connect_timeout=1
    )
    assert isinstance(chosen, SQLiteBackend)
    assert chosen.db_path == tmp_path / "kg.db"
    (tmp_path / "secret").write_text(f"{postgres.password}\n")
    settings = load_settings(
        kg_backend="postgres",
        pg_host=postgres.host,
        pg_port=postgres.port,
        pg_database=postgres.database,
        pg_user=postgres.user,
        pg_password_file=tmp_path / "secret",
        pg_pool_size=3,
        pg_max_overflow=4,
    )
    with backend_from_settings(settings, application_name="kg") as backend:
        assert isinstance(backend, PostgreSQLBackend)
        assert backend.fetchone("SELECT current_database() AS name") == {"name": postgres.database}
        assert backend.pool_stats().available == 7
