"""``--max-workers`` and ``--max-rows-per-second`` hold over all workers; the ledger shows it."""

from itertools import pairwise

import pytest

from kgcore.errors import SettingsError
from kgcore.migration import ledger, runs
from kgcore.migration.model import Options, Run, Stage, StepRef
from kgcore.migration.run_step import run_step
from kgcore.migration.workplace import Workplace
from tests.faults.scene import Scene

_SPANS = (
    "SELECT extract(epoch FROM started_at)::float8, extract(epoch FROM finished_at)::float8,"
    " planned_rows, stage, worker FROM kg_migration.steps WHERE run_id = %s ORDER BY started_at"
)

_SENDING = {"load", "verify"}


def _all_steps(scene: Scene, run: Run) -> list[int]:
    """Do the run one step after the other; return how many were under way at each moment."""
    place = Workplace(scene.backend.pool, scene.data_dir, "here")
    waiting, numbers = list(runs.ready(place.pool, run)), []
    while waiting:
        numbers.append(len(waiting))
        waiting += run_step(place, waiting.pop(0)).dispatch
    return numbers


@pytest.mark.parametrize(("limit", "most"), [(None, 3 * 16), (1, 1), (5, 5)])
def test_only_so_many_steps_are_sent_at_a_time(scene: Scene, limit: int | None, most: int) -> None:
    scene.begin(chunk_rows=8, max_workers=limit)
    assert len(scene.ids("stage = 'load'")) > 70
    run = scene.read_run()
    numbers = _all_steps(scene, run)
    assert max(numbers) <= most
    assert len(numbers) == len(scene.ids("true"))
    scene.assert_whole()


def test_the_more_are_at_work_the_more_are_sent(scene: Scene) -> None:
    scene.begin(chunk_rows=1)
    run, pool = scene.read_run(), scene.backend.pool
    sent = list(runs.ready(pool, run))
    assert len(sent) == 16
    with ledger.transaction(pool) as cursor:
        for ref in sent[:10]:
            assert ledger.claim(cursor, run, ref.step_id, "here") is not None
    sent += runs.ready(pool, run)
    assert len(sent) == 16 + 10 + 10
    assert runs.ready(pool, run) == ()
    assert {ref.stage for ref in sent} == {Stage.LOAD}


def test_limits_hold_over_two_workers(scene: Scene) -> None:
    with scene.kg.workers(2):
        done = scene.kg("migrate", scene.source, "--chunk-rows", "40", "--max-workers", "1")
        assert done.code == 0, done.err
        ((run,),) = scene.database.rows("SELECT run_id FROM kg_migration.runs")
        rate, wanted = 300, ("--if-exists", "replace", "--json")
        done = scene.kg("migrate", scene.source, "--max-rows-per-second", str(rate), *wanted)
        assert done.code == 0, done.err
    spans = scene.database.rows(_SPANS, (run,))
    assert len(spans) > 30
    # A step starts when it is claimed, which is after its forerunner's record was committed.
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans))
    assert len({worker for *_, worker in spans}) == 2

    scene.run = done.json["run_id"]
    assert scene.fact("options->>'max_rows_per_second'") == str(rate)
    spans = [span for span in scene.database.rows(_SPANS, (scene.run,)) if span[3] in _SENDING]
    assert sum(span[2] for span in spans) == 2 * done.json["totals"]["loaded_rows"] > 1000
    assert max(span[2] for span in spans) <= rate
    began, so_far = spans[0][0], 0
    for started, _, rows, *_ in spans:
        assert so_far <= rate * (started - began) + 1, "too early"
        so_far += rows


def test_a_step_that_waits_for_its_turn_is_not_taken_for_lost(scene: Scene) -> None:
    scene.begin(chunk_rows=50, max_rows_per_second=1)
    run, pool = scene.read_run(), scene.backend.pool
    first, second = runs.ready(pool, run)
    assert scene.step_here(first).outcome is not None
    with ledger.transaction(pool) as cursor:
        wait = ledger.book_turn(cursor, run, second.step_id)
    assert wait is not None
    assert 0 < wait <= _rows(scene, first)
    with ledger.transaction(pool) as cursor:
        assert ledger.book_turn(cursor, run, second.step_id) is None  # Delivered twice.
    assert second not in runs.sweep(pool, scene.run, grace_seconds=0.0).lost
    assert scene.attempts()[second.step_id] == 0
    runs.cancel(pool, scene.run)


def _rows(scene: Scene, ref: StepRef) -> int:
    """The rows of a step."""
    ((rows,),) = scene.database.rows(
        "SELECT planned_rows FROM kg_migration.steps WHERE step_id = %s", (ref.step_id,)
    )
    return int(rows)


@pytest.mark.parametrize("name", ["max_workers", "max_rows_per_second"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} is 0"):
        Options.from_json({name: 0})
