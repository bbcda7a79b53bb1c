"""What holds for both backends."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kgcore.backends import KGBackend, get_backend
from kgcore.backends.threads import PerThread
from kgcore.errors import KGError
from kgcore.schema import TABLES
from tests.servers import Database, fresh_database
from workers.embedded import PostgresServer

INSERT = "INSERT INTO entities (type, name) VALUES (?, ?)"
COUNT = "SELECT count(*) AS rows FROM entities"


@pytest.fixture
def postgres_15(postgres_servers: Callable[[str], PostgresServer]) -> Iterator[Database]:
    """An empty database of PostgreSQL 15."""
    with fresh_database(postgres_servers("15")) as database:
        yield database


@pytest.fixture(params=["sqlite", "memory", "postgres", "postgres_15", "bounced"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KGBackend]:
    """A connected backend with the graph's schema."""
    kind = "sqlite"
    options: dict[str, Any]
    if request.param == "sqlite":
        options = {"db_path": tmp_path / "new" / "kg.db"}
    elif request.param == "memory":
        options = {"db_path": ":memory:"}
    else:
        kind = "postgres"
        target = request.getfixturevalue(request.param)
        options = getattr(target, "parameters", target) | {"pool_size": 2}
    with get_backend(kind, **options) as made:
        made.init_schema()
        yield made


def rows(backend: KGBackend) -> int:
    """Count entities in a thread of its own: what others see."""
    return int(in_thread(lambda: backend.fetchall(COUNT)[0]["rows"]))


def in_thread(work: Any) -> Any:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join()
    assert result, "the thread failed"
    return result[0]


def test_guide_calls(backend: KGBackend) -> None:
    assert backend.name in {"sqlite", "postgres"}
    assert backend.fetchone("SELECT * FROM entities WHERE id = ?", (123,)) is None
    backend.execute(INSERT, ("file", "a.py"))
    backend.execute(INSERT, ("file", "b.py"))
    backend.commit()
    result = backend.fetchall("SELECT type, COUNT(*) as count FROM entities GROUP BY type")
    assert result == [{"type": "file", "count": 2}]
    row = backend.fetchone("SELECT id, name FROM entities ORDER BY name")
    assert row is not None
    assert row["name"] == "a.py"
    assert list(row.keys()) == ["id", "name"]
    assert dict(row) == row


def test_init_schema_makes_every_table_and_may_be_repeated(backend: KGBackend) -> None:
    backend.init_schema()
    for table in TABLES:
        assert backend.fetchall(f"SELECT {', '.join(table.column_names)} FROM {table.name}") == []
    assert not backend.in_transaction


def test_init_schema_waits_for_no_writer_where_nothing_is_missing(backend: KGBackend) -> None:
    backend.execute(INSERT, ("file", "a"))
    in_thread(lambda: backend.init_schema() or True)
    backend.commit()


def test_work_lasts_from_commit_on(backend: KGBackend) -> None:
    backend.execute(INSERT, ("file", "a"))
    assert rows(backend) == 0
    backend.commit()
    assert rows(backend) == 1
    backend.execute(INSERT, ("file", "b"))
    backend.rollback()
    backend.rollback()
    backend.commit()
    assert rows(backend) == 1


def test_close_undoes_and_connect_opens_again(backend: KGBackend) -> None:
    backend.execute(INSERT, ("file", "a"))
    backend.close()
    backend.close()
    with pytest.raises(KGError, match="closed"):
        backend.fetchone(COUNT)
    backend.connect()
    backend.init_schema()  # What was in memory is gone.
    assert rows(backend) == 0


@pytest.mark.parametrize(
    "insert",
    [
        "INSERT INTO entities (type, name) VALUES ('file', 'a') RETURNING id",
        "-- with a comment\nINSERT INTO entities (type, name) VALUES ('file', 'a') RETURNING id",
    ],
)
def test_a_fetch_that_writes_opens_a_transaction(backend: KGBackend, insert: str) -> None:
    row = backend.fetchone(insert)
    assert row is not None
    assert backend.in_transaction
    assert rows(backend) == 0
    backend.commit()
    assert backend.fetchall("SELECT id FROM entities") == [row]


@pytest.mark.parametrize("comment", ["/* a part */ ", "-- a line\n", "\n \t"])
def test_comments_before_a_statement_take_no_time(backend: KGBackend, comment: str) -> None:
    began = time.process_time()
    row = backend.fetchone(
        comment * 22 + "INSERT INTO entities (type, name) VALUES ('file', 'a') RETURNING name"
    )
    assert time.process_time() - began < 2  # It was 8 s once, and twice that with one more.
    assert row == {"name": "a"}
    assert backend.in_transaction
    backend.rollback()
    assert backend.fetchone(comment * 22 + "SELECT 1 AS one") == {"one": 1}
    assert not backend.in_transaction


def test_a_fetch_that_only_reads_leaves_no_transaction(backend: KGBackend) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)"
    found = backend.fetchall(f"{numbers} SELECT i FROM n ORDER BY i")
    assert found == [{"i": 1}, {"i": 2}, {"i": 3}]
    assert backend.fetchone("SELECT type FROM entities") is None
    assert not backend.in_transaction


def test_a_fetch_of_no_rows_statement(backend: KGBackend) -> None:
    assert backend.fetchone("DELETE FROM entities") is None
    assert backend.fetchall("DELETE FROM entities") == []


def test_execute_returns_the_number_of_changed_rows(backend: KGBackend) -> None:
    backend.executemany(INSERT, [("file", str(i)) for i in range(2500)])
    assert backend.execute("UPDATE entities SET name = name || '!' WHERE name < '2'") == 1111 + 1
    assert backend.execute("DELETE FROM entities WHERE name = ? RETURNING id", ("none",)) == 0
    assert backend.execute("DELETE FROM entities WHERE name IN ('2', '3') RETURNING id") == 2
    with_select = "WITH few AS (SELECT id FROM entities WHERE name IN ('4', '5'))"
    assert (
        backend.execute(f"{with_select} DELETE FROM entities WHERE id IN (SELECT id FROM few)") == 2
    )
    assert backend.execute("SELECT * FROM entities") == 0
    assert backend.execute("CREATE TABLE more (i integer)") == 0
    backend.commit()
    assert rows(backend) == 2496


def test_a_deleted_entity_takes_its_relationships_with_it(backend: KGBackend) -> None:
    ids = [backend.fetchone(f"{INSERT} RETURNING id", ("file", name)) for name in "ab"]
    assert ids[0] is not None
    assert ids[1] is not None
    pair = (ids[0]["id"], ids[1]["id"])
    backend.execute("INSERT INTO relationships (from_id, to_id, type) VALUES (?, ?, 'x')", pair)
    assert backend.execute("DELETE FROM entities WHERE id = ?", pair[:1]) == 1
    assert backend.fetchall("SELECT id FROM relationships") == []
    backend.rollback()


def test_a_failed_first_statement_leaves_no_transaction(backend: KGBackend) -> None:
    with pytest.raises(Exception, match="nowhere"):
        backend.execute("DELETE FROM nowhere")
    assert not backend.in_transaction
    with pytest.raises(Exception, match="nowhere"):
        backend.fetchone("SELECT * FROM nowhere")
    backend.execute(INSERT, ("file", "a"))
    backend.commit()
    assert rows(backend) == 1


def insert_and_fail(backend: KGBackend) -> None:
    with backend.transaction():
        backend.execute(INSERT, ("file", "lost"))
        with backend.transaction():
            backend.execute(INSERT, ("file", "lost too"))
            backend.execute("DELETE FROM nowhere")


def test_transaction_commits_or_rolls_back(backend: KGBackend) -> None:
    with backend.transaction():
        backend.execute(INSERT, ("file", "a"))
        assert backend.fetchone(COUNT) == {"rows": 1}
    with pytest.raises(Exception, match="nowhere"):
        insert_and_fail(backend)
    assert not backend.in_transaction
    assert rows(backend) == 1


def test_a_transaction_in_a_transaction_is_a_savepoint(backend: KGBackend) -> None:
    with backend.transaction():
        backend.execute(INSERT, ("file", "a"))
        with pytest.raises(Exception, match="nowhere"):
            insert_and_fail(backend)
        with backend.transaction():
            backend.execute(INSERT, ("file", "c"))
        assert rows(backend) == 0
    names = backend.fetchall("SELECT name FROM entities ORDER BY name")
    assert names == [{"name": "a"}, {"name": "c"}]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_ends_a_savepoint_undoes_it(backend: KGBackend, kind: type[BaseException]) -> None:
    def interrupted() -> None:
        with backend.transaction():
            backend.execute(INSERT, ("file", "half"))
            raise KeyboardInterrupt

    with backend.transaction():
        backend.execute(INSERT, ("file", "a"))
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        backend.execute(INSERT, ("file", "b"))
    names = backend.fetchall("SELECT name FROM entities ORDER BY name")
    assert names == [{"name": "a"}, {"name": "b"}]


def test_json_and_time_parameters(backend: KGBackend) -> None:
    naive, aware = datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, 3, 4, 5, 6, UTC)  # noqa: DTZ001
    insert = "INSERT INTO entities (type, name, metadata, created_at) VALUES (?, ?, ?, ?)"
    backend.execute(insert, ("file", "a", {"quote": "it's ?", "n": [1, None]}, naive))
    backend.executemany(insert, [("file", "b", [1, "ä"], aware)])
    found = backend.fetchall("SELECT metadata, created_at FROM entities ORDER BY name")
    assert found[0]["created_at"] == found[1]["created_at"]
    if backend.name == "postgres":
        assert [row["metadata"] for row in found] == [{"quote": "it's ?", "n": [1, None]}, [1, "ä"]]
        assert found[0]["created_at"] == aware
    else:
        assert found[0]["metadata"] == '{"quote": "it\'s ?", "n": [1, null]}'
        assert found[0]["created_at"] == "2026-01-02T03:04:05.000006Z"
    with pytest.raises(ValueError, match="JSON"):
        backend.execute(insert, ("file", "c", {"n": math.nan}, aware))
    backend.rollback()


def test_percent_signs_and_question_marks_in_literals(backend: KGBackend) -> None:
    backend.execute(INSERT, ("100%", "why?"))
    where = "WHERE type LIKE '100%' AND name = 'why?' -- really? 5%"
    assert backend.fetchone(f"SELECT '%s' AS s FROM entities {where}") == {"s": "%s"}
    assert backend.fetchone(
        "SELECT name FROM entities WHERE type = ? AND '%' = '%' /* ? */", ("100%",)
    )
    backend.rollback()


def test_many_threads_write_at_once(backend: KGBackend) -> None:
    def write(thread: int) -> None:
        for i in range(20):
            with backend.transaction():
                backend.fetchone(COUNT)
                backend.execute(INSERT, (f"thread {thread}", str(i)))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(backend) == 200


def test_the_transaction_of_a_thread_that_ended_is_undone(backend: KGBackend) -> None:
    assert in_thread(lambda: backend.execute(INSERT, ("file", "a"))) == 1
    backend.execute(INSERT, ("file", "a"))  # Would wait for a lock that nobody gives back.
    backend.commit()
    assert rows(backend) == 1


def test_per_thread_gives_back_at_the_end_of_the_thread() -> None:
    mine: PerThread[str] = PerThread()
    released: list[str] = []

    def work() -> bool:
        mine.set("kept", released.append)
        return mine.get() == "kept"

    mine.set("main", released.append)
    assert in_thread(work)
    assert released == ["kept"]
    assert mine.take() == "main"
    assert mine.get() is None


def test_a_lost_connection_ends_in_an_error_and_a_fresh_start(postgres: Any) -> None:
    with get_backend("postgres", **postgres.parameters, pool_size=1, max_overflow=0) as backend:
        pid = backend.fetchone("SELECT pg_backend_pid() AS pid")
        backend.execute("SELECT 1")
        assert pid is not None
        postgres.rows("SELECT pg_terminate_backend(%s, 5000)", (pid["pid"],))
        with pytest.raises(psycopg2.Error):
            backend.execute("SELECT 1")
        with pytest.raises(psycopg2.Error):
            backend.commit()
        assert not backend.in_transaction
        assert backend.fetchone("SELECT 1 AS one") == {"one": 1}
