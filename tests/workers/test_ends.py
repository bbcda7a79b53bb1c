"""However a command ends: its exit code, two lines on stderr, and with --json one object."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.servers import Database
from tests.workers.kg import Kg, wait_for


def failed(code: str, message: str, run: str | None = None) -> dict[str, Any]:
    """What a command prints with --json that has no other answer."""
    return {"run_id": run, "state": "failed", "code": code, "errors": [message]}


def test_without_workers_the_command_says_so_at_once(kg: Kg, tmp_path: Path) -> None:
    began = time.monotonic()
    done = kg("migrate", small_graph(tmp_path / "graph.db"))
    assert time.monotonic() - began < 15
    assert done.code == 1
    error, hint = done.err.strip().splitlines()[-2:]
    assert error == "error: no worker answers"
    assert "kg worker" in hint
    assert "--local-workers" in hint


@pytest.mark.parametrize(
    ("change", "message", "mend"),
    [
        (r"//[^/]*@([^/:]+:\d+)", "Redis refused the login", "correct the password"),
        (r"@([^/]+)/", "Redis can't be reached", "correct KG_REDIS_URL"),
    ],
    ids=["password", "address"],
)
def test_a_broker_that_can_not_be_used_is_named_at_once(
    change: str, message: str, mend: str, kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    given = kg.environment["KG_REDIS_URL"]
    wrong = {"password": r"//:not-it@\1", "address": "@127.0.0.1:1/"}
    url = re.sub(change, wrong["password" if "login" in message else "address"], given)
    assert url != given
    began = time.monotonic()
    done = Kg(kg.environment | {"KG_REDIS_URL": url}, kg.directory)(
        "migrate", small_graph(tmp_path / "graph.db")
    )
    assert time.monotonic() - began < 15
    assert done.code == 1
    error, hint = done.err.strip().splitlines()[-2:]
    assert error.startswith(f"error: {message}")
    assert mend in hint
    assert "not-it" not in done.err + done.out
    assert postgres.rows("SELECT to_regnamespace('kg_migration')") == [(None,)]


def test_cancel(kg: Kg, postgres: Database, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    with kg.workers(1) as workers:
        workers[0].send_signal(signal.SIGSTOP)  # The main process: nothing is taken from Redis.
        with kg.start("migrate", source, "--detach"):
            pass
        workers[0].send_signal(signal.SIGCONT)
    watching = ("migrate", source, "--chunk-rows", "1", "--json")
    with kg.workers(1) as workers, kg.start(*watching) as command:
        run = wait_for(lambda: [r for r in kg("runs", "--json").json if r["state"] == "running"])
        cancelled = kg("cancel", run[0]["run_id"], "--json")
        assert cancelled.code == 0, cancelled.err
        said, _ = command.communicate(timeout=30)
        assert command.returncode == 1
    ended = json.loads(said)
    assert (ended["run_id"], ended["state"]) == (run[0]["run_id"], "cancelled")
    assert ended["totals"]["verified_rows"] < ended["totals"]["source_rows"]
    assert kg("progress", "--json").json["state"] == "cancelled"
    assert postgres.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'kg_staging%'") == []
    assert postgres.rows("SELECT to_regclass('entities')") == [(None,)]
    assert kg("resume", run[0]["run_id"]).code == 1


def test_interrupted_says_how_to_go_on(kg: Kg, postgres: Database, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    command_line = ("migrate", source, "--chunk-rows", "5", "--local-workers", "1", "--json")
    with kg.start(*command_line) as command:
        wait_for(lambda: postgres.rows("SELECT to_regclass('kg_migration.steps')") != [(None,)])
        wait_for(lambda: postgres.rows("SELECT 1 FROM kg_migration.steps WHERE done"))
        command.send_signal(signal.SIGINT)
        said, err = command.communicate(timeout=40)
        assert command.returncode == 130, err
    assert "kg resume" in err, err
    (run,) = re.findall(r"kg resume (\S+);", err)
    assert json.loads(said) == failed("interrupted", "interrupted", run)
    assert kg("runs", "--json").json[0]["state"] == "running"
    done = kg("resume", run, "--local-workers", "1", "--json")
    assert done.code == 0, done.err
    assert differences(source, postgres.connect()) == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "words"),
    [
        (["migrate"], 2, "usage", "Missing argument"),
        (["migrate", "x.db", "--chunk-rows", "0"], 2, "usage", "chunk-rows"),
        (["migrate", "x.db", "--if-exists", "drop"], 2, "usage", "if-exists"),
        (["migrate", "x.db", "--dry-run"], 1, "source", "does not exist"),
        (["report", "nonsense"], 2, "run-not-found", "there is no run 'nonsense'"),
        (["progress"], 2, "run-not-found", "Redis knows of no run"),
    ],
)
def test_what_is_wrong_is_said_with_its_code(
    kg: Kg, arguments: list[str], exit_code: int, code: str, words: str
) -> None:
    done = kg(*arguments, "--json")
    assert done.code == exit_code
    assert "Traceback" not in done.err
    assert f"error: {done.json['errors'][0]}" in done.err
    assert words in done.json["errors"][0]
    assert done.json == failed(code, done.json["errors"][0])


def test_without_json_stdout_stays_empty(kg: Kg) -> None:
    done = kg("sample", "out.db", "--max-commits", "3")
    assert done.code == 2
    assert "--from-git" in done.err
    assert done.out == ""


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_what_nobody_expected_is_said_too(kg: Kg, debug: list[str]) -> None:
    broken = (
        "import workers.cli.inspect as inspect\n"
        "from workers.cli import main\n"
        "inspect.load_settings = lambda: [][0]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, *debug, "progress", "--json"],
        env=kg._environment(),
        cwd=kg.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    message = "unexpected: IndexError: list index out of range"
    assert json.loads(done.stdout) == failed("unexpected", message)
    assert done.stderr.count("Traceback") == len(debug)
    assert f"error: {message}\nhint: see more with kg --debug" in done.stderr
