"""Runs on a machine that does not see the coordinator's disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetError
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.local import run_here
from kgcore.migration.model import Options, Run, RunState
from kgcore.migration.reports import read_report
from kgcore.migration.run_step import run_step
from kgcore.migration.sources import Sources, published
from kgcore.migration.sources.cache import Cache
from kgcore.migration.sources.served import serve
from kgcore.migration.stages.report import Report
from kgcore.migration.workplace import Workplace
from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.servers import Database


@pytest.fixture
def backend(postgres: Database) -> Iterator[PostgreSQLBackend]:
    with PostgreSQLBackend(**postgres.parameters, pool_size=1, max_overflow=9) as backend:
        yield backend


@pytest.fixture
def far(backend: PostgreSQLBackend, tmp_path: Path) -> Workplace:
    """A worker's place on a machine of its own."""
    data = tmp_path / "far"
    return Workplace(backend.pool, data, "far", Sources(data, Cache(data / "cache")))


OPTIONS = Options(chunk_rows=50)


def start(far: Workplace, tmp_path: Path, address: str | None) -> Run:
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), tmp_path / "near", OPTIONS)
    source = replace(prepared.source, address=address)
    return new_run.start(far.pool, replace(prepared, source=source), OPTIONS)


def finish(far: Workplace, run: Run) -> Report:
    run_here(far, run, 2)
    return read_report(far.pool, run.run_id)


def test_a_published_source_is_fetched_and_deleted_after_the_run(
    far: Workplace, postgres: Database, tmp_path: Path
) -> None:
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), tmp_path / "near", OPTIONS)
    address = published.publish(prepared.source.path, "memory://published")
    source = replace(prepared.source, address=address)
    told: list[tuple[str, int, int]] = []
    run = new_run.start(far.pool, replace(prepared, source=source), OPTIONS)
    report = finish(replace(far, fetching=lambda *words: told.append(words)), run)
    assert report.is_done, report.errors
    assert differences(tmp_path / "graph.db", postgres.connect()) == []
    assert not MemoryFileSystem.store
    assert told[-1] == (run.run_id, source.bytes, source.bytes)
    assert source.path.exists()  # On a machine that is not this one's.


def test_a_step_books_its_turn_once_though_its_source_has_to_be_fetched(
    far: Workplace, postgres: Database, tmp_path: Path
) -> None:
    options = replace(OPTIONS, max_rows_per_second=1000)
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), tmp_path / "near", options)
    address = published.publish(prepared.source.path, "memory://published")
    source = replace(prepared.source, address=address)
    run = new_run.start(far.pool, replace(prepared, source=source), options)
    step, *_ = runs.ready(far.pool, run)
    ((before,),) = postgres.rows(
        "UPDATE kg_migration.runs SET paced_until = clock_timestamp() + interval '2 s'"
        " RETURNING paced_until"
    )
    result = run_step(far, step)
    assert result.step is not None
    ((booked,),) = postgres.rows("SELECT paced_until FROM kg_migration.runs")
    assert (booked - before).total_seconds() == pytest.approx(result.step.chunk.rows / 1000)
    runs.cancel(far.pool, run.run_id)


def test_cancel_deletes_what_was_published(far: Workplace, tmp_path: Path) -> None:
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), tmp_path / "near", OPTIONS)
    address = published.publish(prepared.source.path, "memory://published")
    source = replace(prepared.source, address=address)
    run = new_run.start(far.pool, replace(prepared, source=source), OPTIONS)
    runs.cancel(far.pool, run.run_id)
    assert not MemoryFileSystem.store


def test_without_an_address_the_run_fails_at_once_and_goes_on_with_one(
    far: Workplace, postgres: Database, tmp_path: Path
) -> None:
    run = start(far, tmp_path, None)
    report = finish(far, run)
    assert report.run.state is RunState.FAILED
    assert "this machine has no" in (report.run.error or "")
    assert "--serve HOST:PORT" in (report.run.hint or "")
    assert "--publish URL" in (report.run.hint or "")
    with serve(run.source, "127.0.0.1", 0) as address:
        again = runs.resume(far.pool, run.run_id, address=address)
        assert finish(far, again).is_done
    assert differences(tmp_path / "graph.db", postgres.connect()) == []


def test_a_server_that_is_gone_fails_the_run_resumably(
    far: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgcore.migration.sources.fetching._TRIES", 1)
    monkeypatch.setattr("kgcore.migration.sources.fetching._pause", lambda _: 0)
    run = start(far, tmp_path, None)
    with serve(run.source, "127.0.0.1", 0) as address:
        pass
    with ledger.transaction(far.pool) as cursor:
        ledger.set_address(cursor, run.run_id, address)
    report = finish(far, run)
    assert report.run.state is RunState.FAILED
    assert "can't be fetched" in (report.run.error or "")
    assert address.rpartition("/")[2] not in (report.run.error or "")


def test_a_path_in_the_ledger_outside_the_root_is_not_read(far: Workplace, tmp_path: Path) -> None:
    """The file is there, with the right digest, but not in a folder of this machine's worker."""
    run = start(far, tmp_path, None)
    assert run.source.path.is_file()
    assert finish(far, run).run.state is RunState.FAILED


def test_a_disk_that_is_mounted_elsewhere(
    far: Workplace, postgres: Database, tmp_path: Path
) -> None:
    run = start(far, tmp_path, None)
    far.data_dir.symlink_to(tmp_path / "near", target_is_directory=True)
    assert finish(far, run).is_done
    assert not (tmp_path / "near" / "cache").exists()
    assert not list((tmp_path / "near" / "sources").iterdir())


def test_a_ledger_of_an_earlier_version(far: Workplace, postgres: Database, tmp_path: Path) -> None:
    run = start(far, tmp_path, None)
    postgres.rows(
        "ALTER TABLE kg_migration.sources DROP COLUMN address;"
        "COMMENT ON SCHEMA kg_migration IS NULL"
    )
    with pytest.raises(TargetError, match="an earlier version"):
        read_report(far.pool, run.run_id)
    with serve(run.source, "127.0.0.1", 0) as address:
        again = runs.resume(far.pool, run.run_id, address=address)
        assert again.source.address == address
        assert finish(far, again).is_done
