"""The optimizer on PostgreSQL: what it finds is there, and it changes nothing unasked."""

import json
from collections.abc import Callable, Iterator

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import SettingsError
from kgcore.graph import KnowledgeGraph
from kgcore.optimizer import GraphQuery, IndexState, Optimizer
from kgcore.optimizer.server_settings import GIB
from tests.conftest import DEBIAN_15
from tests.servers import FAST, Database, fresh_database, launcher, server_directory
from workers.embedded import PostgresServer

ROWS = 20_000


@pytest.fixture(scope="module", params=["18", "15"])
def filled(
    request: pytest.FixtureRequest, postgres_servers: Callable[[str], PostgresServer]
) -> Iterator[Database]:
    """A graph of some size, with indexes that are not worth their room."""
    with (
        fresh_database(postgres_servers(request.param)) as database,
        PostgreSQLBackend(**database.parameters) as backend,
    ):
        backend.init_schema()
        database.rows(
            f"""
            INSERT INTO entities (type, name, metadata)
            SELECT CASE WHEN n % 10 = 0 THEN 'mission' ELSE 'file' END, 'name ' || n, '{{"a": 1}}'
            FROM generate_series(1, {ROWS}) n;
            INSERT INTO relationships (from_id, to_id, type)
            SELECT 1 + n * 10 % {ROWS}, 1 + n % {ROWS}, 'worked_on'
            FROM generate_series(1, {2 * ROWS}) n;
            CREATE INDEX needless ON relationships (from_id);
            CREATE INDEX partial ON relationships (from_id) WHERE type = 'x';
            CREATE INDEX "Descending" ON relationships (from_id DESC);
            CREATE TABLE hollow (id bigint, other text);
            ALTER TABLE hollow SET (autovacuum_enabled = false);
            INSERT INTO hollow SELECT n, 'text ' || n FROM generate_series(1, 200000) n;
            CREATE INDEX hollow_id ON hollow (id);
            CREATE INDEX hollow_other ON hollow (other) INCLUDE (id);
            DELETE FROM hollow WHERE id % 10 <> 0;
            ANALYZE;
            """
        )
        database.rows("VACUUM hollow")
        yield database


@pytest.fixture
def optimizer(filled: Database) -> Iterator[Optimizer]:
    with PostgreSQLBackend(**filled.parameters) as backend:
        yield Optimizer(backend, memory=16 * GIB)


def by_name(optimizer: Optimizer) -> dict[str, IndexState]:
    return {index.name: index for index in optimizer.indexes()}


def test_needless_indexes_are_named_with_the_one_that_serves(optimizer: Optimizer) -> None:
    found = by_name(optimizer)
    assert found["needless"].redundant_to == "idx_relationships_from_type"
    assert found["needless"].advice.endswith("DROP INDEX CONCURRENTLY public.needless")
    others = {name for name, index in found.items() if index.redundant_to} - {"needless"}
    assert others == set()


def test_unused_indexes_but_those_that_rules_stand_on(optimizer: Optimizer) -> None:
    found = by_name(optimizer)
    unused = {name for name, index in found.items() if index.unused}
    assert {"hollow_id", "partial", "Descending", "idx_entities_name"} <= unused
    assert (
        not {"entities_pkey", "entities_type_name_key", "mission_history_mission_id_key"} & unused
    )
    assert "init_schema() would make it again" in found["idx_entities_name"].advice
    assert found["hollow_id"].advice.count("DROP INDEX CONCURRENTLY public.hollow_id") == 1
    assert "DELETE" in found["Descending"].advice


def test_bloat_is_near_what_a_rebuild_gives_back(optimizer: Optimizer, filled: Database) -> None:
    before = by_name(optimizer)
    assert before["hollow_id"].bloated
    assert "REINDEX INDEX CONCURRENTLY public.hollow_id" in before["hollow_id"].advice
    solid = ("entities_pkey", "relationships_pkey", "idx_relationships_type", "needless")
    for name in solid:
        assert before[name].bloat_bytes is not None
        assert not before[name].bloated
    assert before["idx_entities_metadata"].bloat_bytes is None
    filled.rows('REINDEX INDEX hollow_id; REINDEX INDEX "needless"')
    filled.rows("REINDEX INDEX hollow_other; REINDEX INDEX relationships_pkey")
    after = by_name(optimizer)
    assert not after["hollow_id"].bloated
    for name in ("hollow_id", "hollow_other", "needless", "relationships_pkey"):
        given_back = before[name].bytes - after[name].bytes
        estimate = before[name].bloat_bytes
        assert estimate is not None
        assert abs(given_back - estimate) <= 0.25 * before[name].bytes


def test_tables_and_what_they_need(optimizer: Optimizer, filled: Database) -> None:
    filled.rows(
        "CREATE TABLE neglected (id int); INSERT INTO neglected SELECT generate_series(1, 9)"
    )
    found = {table.name: table for table in optimizer.tables()}
    assert found["entities"].rows == ROWS
    assert found["entities"].bytes > 8192
    assert found["entities"].index_bytes > found["hollow"].bytes // 100
    assert found["entities"].last_analyze is not None
    assert found["entities"].last_analyze.endswith("Z")
    assert "autovacuum is off" in found["hollow"].advice
    done = optimizer.vacuum()
    assert {"entities", "neglected", "hollow"} <= set(done)
    assert optimizer.analyze() == done
    after = {table.name: table for table in optimizer.tables()}
    assert after["neglected"].rows == 9
    assert all(table.last_vacuum and table.last_analyze for table in after.values())
    filled.rows("DROP TABLE neglected")


@pytest.mark.parametrize("query", list(GraphQuery))
def test_every_named_query_is_explained(optimizer: Optimizer, query: GraphQuery) -> None:
    plans = optimizer.explain_query(query)
    assert plans
    for plan in plans:
        assert plan.ms is not None
        assert plan.hints
        assert plan.root.rows is not None
        json.dumps(plan.to_json())


def test_find_related_uses_its_index(optimizer: Optimizer) -> None:
    (plan,) = optimizer.explain_query(GraphQuery.FIND_RELATED, 11)
    assert plan.indexes & {"idx_relationships_from_type", "needless", "Descending"}
    assert "from_id = 11" in str(plan)
    assert plan.hints == ("nothing stands out",)
    with pytest.raises(SettingsError, match="no entity -5"):
        optimizer.explain_query(GraphQuery.FIND_RELATED, -5)


def test_any_call_that_reads_is_explained_and_none_that_writes(optimizer: Optimizer) -> None:
    found = optimizer.explain_call(lambda kg: kg.list_entities("file", limit=3))
    assert [plan.root.rows for plan in found] == [3]
    with pytest.raises(SettingsError, match="writes"):
        optimizer.explain_call(lambda kg: kg.add_entity("file", "never"))
    assert KnowledgeGraph(optimizer.backend).find_entity("file", "never") is None


def test_a_scan_for_a_few_rows_is_pointed_out(optimizer: Optimizer) -> None:
    plan = optimizer.explain("SELECT * FROM entities WHERE metadata ->> 'a' = ?", ("2",))
    assert "read all of entities" in str(plan)
    assert any("an index for" in hint for hint in plan.hints)


def test_a_call_is_explained_with_the_settings_it_is_sent_with(filled: Database) -> None:
    """Compiled, this would take far longer, with a hint to do what the library does anyway."""
    always = "-c jit_above_cost=0 -c jit_optimize_above_cost=0 -c jit_inline_above_cost=0"
    with PostgreSQLBackend(**filled.parameters, options=f"-c jit=on {always}") as backend:
        plans = Optimizer(backend, memory=16 * GIB).explain_query(GraphQuery.SEARCH)
    assert "jit" not in str(plans)


def test_explaining_changes_nothing(optimizer: Optimizer, filled: Database) -> None:
    for sql in ("DELETE FROM entities", "SELECT 1; DELETE FROM entities", "VACUUM"):
        with pytest.raises(SettingsError, match="only one statement"):
            optimizer.explain(sql)
    filled.rows(
        "CREATE OR REPLACE FUNCTION meddle() RETURNS int LANGUAGE sql AS"
        " 'DELETE FROM hollow RETURNING 1'"
    )
    for sql in ("SELECT meddle()", "WITH d AS (DELETE FROM hollow RETURNING 1) TABLE d"):
        with pytest.raises(SettingsError, match=r"writes: cannot execute .* read-only"):
            optimizer.explain(sql)
    assert filled.rows("SELECT count(*) FROM hollow") == [(20_000,)]
    with pytest.raises(SettingsError, match="writes"):
        optimizer.explain("WITH d AS (DELETE FROM hollow RETURNING 1) TABLE d", run=False)
    plan = optimizer.explain("SELECT pg_sleep(100)", run=False)
    assert plan.ms is None


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT naem FROM entities", 'column "naem" does not exist'),
        ("SELECT 1 +", "syntax error"),
        ("SELECT 1 / (id - id) FROM entities", "division by zero"),
        ("SELECT ?", "more parameters than"),
    ],
)
def test_what_is_refused_says_why(optimizer: Optimizer, sql: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        optimizer.explain(sql)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_statements_with_numbered_parameters(optimizer: Optimizer) -> None:
    sql = "SELECT * FROM entities WHERE name = $1"
    if optimizer.backend.fetchone("SHOW server_version_num")["server_version_num"] < "160000":  # type: ignore[index]
        with pytest.raises(SettingsError, match=r"\$1"):
            optimizer.explain(sql)
        return
    plan = optimizer.explain(sql)
    assert plan.ms is None
    assert "idx_entities_name" in plan.indexes


def test_settings_fit_the_memory(optimizer: Optimizer) -> None:
    found = {setting.name: setting for setting in optimizer.settings()}
    assert found["effective_cache_size"].suggested == "12GB"
    assert found["effective_cache_size"].current == "4GB"
    assert found["maintenance_work_mem"].command == (
        "ALTER SYSTEM SET maintenance_work_mem = '1GB';"
    )
    assert found["random_page_cost"].suggested == "1.1"
    assert not found["autovacuum"].change
    assert all(setting.why for setting in found.values())
    asked = {setting.name for setting in Optimizer(optimizer.backend).settings()}
    assert "shared_buffers" in asked, "to a superuser the server says how much memory it has"


def test_without_statistics_of_statements_it_says_how(optimizer: Optimizer) -> None:
    found = optimizer.slow_queries()
    assert not found.available
    assert "shared_preload_libraries" in found.note
    assert "CREATE EXTENSION pg_stat_statements" in found.note


@pytest.mark.parametrize("bin_dir", [None, DEBIAN_15])
def test_slow_queries(bin_dir: object) -> None:
    if bin_dir is not None and not DEBIAN_15.exists():
        pytest.skip("there is no PostgreSQL 15")
    settings = FAST | {"shared_preload_libraries": "pg_stat_statements"}
    with (
        server_directory() as directory,
        PostgresServer(directory, bin_dir, settings, launcher()) as server,  # type: ignore[arg-type]
        fresh_database(server) as database,
        PostgreSQLBackend(**database.parameters) as backend,
    ):
        optimizer = Optimizer(backend)
        assert "no view of them: CREATE EXTENSION" in optimizer.slow_queries().note
        database.rows("CREATE EXTENSION pg_stat_statements")
        database.rows("SELECT pg_sleep(0.2)")
        found = optimizer.slow_queries(min_mean_ms=150)
        assert found.available
        (slowest,) = found.queries
        assert slowest.query.startswith("SELECT pg_sleep($1)")
        assert slowest.calls == 1
        assert slowest.mean_ms >= 200
        assert 0 < slowest.share <= 1


def test_the_whole_report_is_json(optimizer: Optimizer) -> None:
    report = json.loads(json.dumps(optimizer.report().to_json()))
    assert report["backend"] == "postgres"
    assert {table["name"] for table in report["tables"]} >= {"entities", "relationships"}
    assert any("bloat is estimated" in note for note in report["notes"])
