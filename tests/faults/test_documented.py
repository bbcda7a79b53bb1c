"""The page that promises names tests that are there; the soak's own judgement is right."""

import random
import re
from pathlib import Path

from tests.conftest import ROOT
from tests.soak.rounds import Decks
from tests.soak.tally import STAGES, Tally
from tests.soak.user import next_command


def test_the_page_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert named <= set(re.findall(r"def (test_\w+)\(", here))


def test_a_soak_without_enough_faults_fails() -> None:
    tally = Tally()
    assert len(tally.shortfalls(600)) == 1 + len(STAGES)
    for stage in STAGES:
        for _ in range(5):
            tally.count("kill", stage)
    assert tally.shortfalls(600) == []
    tally.struck["kill", "plan"] = 1
    assert tally.shortfalls(600) == ["only 1 faults struck in plan, at least 2 should have"]
    assert tally.shortfalls(0) == []


def test_every_fault_is_dealt_before_one_comes_again() -> None:
    decks = Decks(random.Random(1))
    dealt = [decks.hand(len(STAGES)) for _ in range(4)]
    assert len({card for hand in dealt for card in hand}) == 4 * len(STAGES)
    decks.back(dealt[-1])
    assert sorted(decks.hand(len(STAGES))) == sorted(dealt[-1])


def test_the_next_command_is_the_one_that_was_said() -> None:
    migrate = ("migrate", "graph.db")
    run, other = "20261124-014218-9c3e72", "20261124-014219-000000"
    assert next_command(migrate, "killed before a word") == migrate
    assert next_command(migrate, f"run {run}\nrunning: load, 0 %\n") == ("resume", run)
    said = f"run {run}\nerror: gone\nhint: start it; to go on: kg resume {run}; to give it up: …"
    assert next_command(migrate, said) == ("resume", run)
    assert next_command(("resume", run), "error: can't connect") == ("resume", run)
    busy = f"error: run {other} into schema public is in progress\nhint: kg resume {other}; or …"
    assert next_command(migrate, busy) == ("resume", other)
