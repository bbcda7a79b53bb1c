"""The pools' numbers, scraped over HTTP as Prometheus does it."""

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from kgcore.backends import get_backend
from kgcore.backends.metrics import HasPool, PoolCollector
from kgcore.graph import KnowledgeGraph
from tests.conftest import ROOT
from tests.servers import Database

Numbers = dict[tuple[str, str], float]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Iterator[Callable[[], Numbers]]:
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def numbers() -> Numbers:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        return {
            (sample.labels["pool"], sample.name): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels["server"] == "primary"
        }

    yield numbers
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_scrape_sees_what_the_pool_does(
    postgres: Database, registry: CollectorRegistry, scrape: Callable[[], Numbers], tmp_path: Path
) -> None:
    with (
        get_backend("postgres", **postgres.parameters, pool_size=1, max_overflow=1) as backend,
        KnowledgeGraph(db_path=tmp_path / "kg.db") as on_sqlite,
    ):
        pools: dict[str, HasPool] = {"graph": KnowledgeGraph(backend), "raw": backend}
        pools["lite"] = on_sqlite
        registry.register(PoolCollector(pools))
        with backend.pool.connection(), backend.pool.connection():
            waiter = threading.Thread(target=backend.fetchone, args=("SELECT 1",))
            waiter.start()
            while scrape()["graph", "kg_pool_waiting_threads"] == 0:
                assert waiter.is_alive()
            seen = scrape()
        waiter.join()
        assert {name for name, _ in seen} == {"graph", "raw"}
        expected = {"connections": 2, "available": 0, "in_use": 2, "idle": 0}
        expected |= {"waiting_threads": 1, "opened_total": 2, "closed_total": 0}
        for pool in ("graph", "raw"):
            assert {name: seen[pool, f"kg_pool_{name}"] for name in expected} == expected
        later = scrape()
        assert later["raw", "kg_pool_waiting_threads"] == 0
        assert later["raw", "kg_pool_waited_seconds_total"] > 0
        assert later["raw", "kg_pool_connections"] == 1
        assert later["raw", "kg_pool_closed_total"] == 1


def test_the_pools_of_replicas_are_seen_beside_the_primarys(postgres: Database) -> None:
    # Nobody listens there, so the primary is read from.
    with get_backend("postgres", **postgres.parameters, replicas=["127.0.0.1:1"]) as backend:
        graph = KnowledgeGraph(backend)
        graph.init_schema()
        assert graph.get_entity(1) is None
        assert graph.replica_pool_stats()["127.0.0.1:1"].size == 0
        registry = CollectorRegistry()
        registry.register(PoolCollector({"graph": graph}))
        sizes = {
            server: registry.get_sample_value(
                "kg_pool_connections", {"pool": "graph", "server": server}
            )
            for server in ("primary", "127.0.0.1:1", "other")
        }
        assert sizes == {"primary": 1.0, "127.0.0.1:1": 0.0, "other": None}


def test_a_second_collector_in_a_registry_is_refused(registry: CollectorRegistry) -> None:
    registry.register(PoolCollector({}))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PoolCollector({}))


def test_without_the_package_the_error_names_the_extra() -> None:
    script = (
        "import sys\n"
        "sys.modules['prometheus_client'] = None\n"
        "import kgcore\n"
        "from kgcore.errors import SettingsError\n"
        "try:\n"
        "    import kgcore.backends.metrics\n"
        "except SettingsError as error:\n"
        "    print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "install it with: pip install 'jarvis-kg[metrics]'"
