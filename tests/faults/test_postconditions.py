"""What a run proves of itself before the cutover: a proof that fails leaves the live tables."""

import json

from tests.faults.holds import ROW
from tests.faults.scene import Scene

_SPOIL = """
CREATE FUNCTION faults.spoil_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.name := NEW.name || ' ';
    RETURN NEW;
END $$
"""


def test_a_row_that_differs_is_found_and_exits_with_4(scene: Scene) -> None:
    """Someone changes a row between the load's COPY and its commit, by a single blank."""
    scene.old_tables()
    scene.database.rows(_SPOIL)
    scene.begin(if_exists="replace")
    scene.trigger(ROW, "spoil_row()")
    with scene.watched(), scene.kg.workers(1), scene.follow() as coordinator:
        out, err = coordinator.communicate(timeout=60)
        again = scene.kg("resume", scene.run, "--json")
    assert coordinator.returncode == 4, err
    report = json.loads(out)
    assert report["state"] == "mismatch"
    assert report["totals"]["mismatched_rows"] == 1
    assert report["tables"]["entities"]["mismatched_rows"] == 1
    assert any(f"{ROW}" in text and "entities" in text for text in report["errors"])
    scene.assert_untouched()
    assert again.code == 1
    assert "differ from their source" in again.json["errors"][0]


def test_an_id_that_would_be_given_twice_keeps_the_tables_back(scene: Scene) -> None:
    scene.old_tables()
    scene.begin(if_exists="replace", max_attempts=1)
    scene.steps_here("load", "index", "key", "verify")
    staged = f'"{scene.fact("staging_schema")}".relationships'
    scene.database.rows("SELECT setval(pg_get_serial_sequence(%s, 'id'), 1, false)", (staged,))
    with scene.watched(), scene.kg.workers(1), scene.follow() as coordinator:
        out, err = coordinator.communicate(timeout=60)
    assert coordinator.returncode == 1, err
    report = json.loads(out)
    assert report["state"] == "failed"
    assert "the next insert into public.relationships would get an id" in report["errors"][0]
    scene.assert_untouched()
