"""What the documentation does by hand, or by a script of its own, works on real runs."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

from kgcore.migration.model import RunState, StepRef
from tests.conftest import ROOT
from tests.docs.pages import sections
from tests.docs.test_deployment import script_of_the_job
from tests.faults.scene import Scene
from tests.workers.kg import KG, wait_for


def statements(heading: str, run: str = "") -> str:
    """The SQL that stands under a heading of the operations page."""
    text = sections(ROOT / "docs" / "operations.md")[heading]
    _, _, rest = text.partition("```sql\n")
    return rest.partition("```")[0].replace("'RUN'", f"'{run}'")


def test_the_jobs_script_begins_a_run_and_goes_on_with_one(scene: Scene, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in {"kg": KG, "python": KG[:1]}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)
    script = script_of_the_job().replace("/data/knowledge_graph.db", str(scene.source))
    environment = scene.kg.environment | {
        "POD_IP": "127.0.0.1",
        "PATH": f"{programs}:{scene.kg.environment['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def job() -> None:
        done = subprocess.run(
            ["sh", "-ec", script.replace(":8765", ":0")],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def runs() -> list[tuple[str, str]]:
        return [(run["run_id"], run["state"]) for run in scene.kg("runs", "--json").json]

    with scene.kg.workers(1):
        job()
        ((first, state),) = runs()
        assert state == "done"
        scene.begin(if_exists="replace")  # Its command is gone before it has sent anything.
        job()
        assert runs() == [(scene.run, "done"), (first, "done")]


def test_a_hung_step_is_ended_and_a_failed_run_reopened(scene: Scene) -> None:
    """A stopped worker past its lease, and no command that would see to it."""
    scene.begin()
    end = statements("A step that hangs")
    with scene.held() as hold, scene.kg.workers(1) as (worker,):
        scene.send((scene.run, scene.held_step, 1))
        backend = wait_for(hold.waiting)[0]
        assert scene.database.rows(end) == []  # Its lease is renewed.
        os.killpg(worker.pid, signal.SIGSTOP)
        ended = wait_for(lambda: scene.database.rows(end))
        assert ended == [(scene.run, scene.held_step, backend, True)]
        wait_for(lambda: backend not in hold.waiting())

    scene.database.rows(
        "UPDATE kg_migration.runs SET state = 'failed', error = 'x', finished_at = now();"
        " UPDATE kg_migration.steps SET attempts = 6"
    )
    scene.database.rows(statements("A run that failed", scene.run))
    run = scene.read_run()
    assert (run.state, run.epoch, run.error) == (RunState.RUNNING, 2, None)
    assert run.options.max_attempts == 20
    assert scene.step_here(StepRef(scene.run, scene.held_step, 1)).outcome is None
    with scene.kg.workers(1), scene.follow() as coordinator:
        scene.complete(coordinator)
