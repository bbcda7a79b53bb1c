"""One migration from its command to its end, with what strikes it in between, and the proof."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg2

from kgcore.sample.synthetic import make_synthetic
from tests.migration.comparer import COLUMNS, differences
from tests.soak.faults import Target, faults_of, own_stage
from tests.soak.tally import STAGES, Tally
from tests.soak.user import User
from tests.soak.world import Reader, World

Card = tuple[str, str]  # stage, fault

_LOOK_SECONDS = 0.005
_ROUND_SECONDS = 600
_CHUNK_ROWS = (5_000, 20_000, 50_000)


class BrokenPromiseError(Exception):
    """Something was not as it must be, whatever was killed."""


def make_sources(directory: Path, seed: int) -> tuple[Path, Path]:
    """Write two graphs of 300,000 rows each, so that a new table differs from the old one."""
    paths = (directory / "first.db", directory / "second.db")
    for number, path in enumerate(paths):
        make_synthetic(
            path,
            entities=80_000,
            relationships=180_000,
            missions=10_000,
            snapshots=30_000,
            seed=seed * 2 + number,
        )
    return paths


class Decks:
    """Deals hands of faults: of each stage every one, shuffled, before one comes again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._cards: dict[str, list[str]] = {stage: [] for stage in STAGES}

    def hand(self, number: int) -> list[Card]:
        """Deal so many faults, each in a stage of its own."""
        return [(stage, self._next(stage)) for stage in self._rng.sample(STAGES, number)]

    def back(self, cards: list[Card]) -> None:
        """Take back what did not strike; it comes next."""
        for stage, fault in cards:
            self._cards[stage].append(fault)

    def _next(self, stage: str) -> str:
        if not self._cards[stage]:
            self._cards[stage] = list(faults_of(stage))
            self._rng.shuffle(self._cards[stage])
        return self._cards[stage].pop()


@dataclass
class Round:
    """A migration; ``hand`` is what is to strike it, each when its stage is seen."""

    world: World
    source: Path
    hand: list[Card]
    rng: random.Random
    logs: Path
    tally: Tally
    struck: list[Card] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logs.mkdir()
        self.old = self._live()
        self._runs = {run for (run,) in self._known_runs()}
        rows = str(self.rng.choice(_CHUNK_ROWS))
        command = ("migrate", str(self.source), "--if-exists", "replace", "--chunk-rows", rows)
        self.user = User(self.world.environment, self.logs, command)

    def play(self) -> None:
        """Migrate, be struck, go on as told. Raises :class:`GaveUpError`."""
        deadline = time.monotonic() + _ROUND_SECONDS
        reader = Reader(self.world)
        self.user.begin()
        try:
            while not self.user.has_succeeded():
                if time.monotonic() > deadline:
                    raise BrokenPromiseError(f"no end after {_ROUND_SECONDS} s")
                self.world.tend()
                if any(stage == "cutover" for stage, _ in self.hand):
                    reader.hold()
                else:
                    reader.leave()
                self._strike()
                time.sleep(_LOOK_SECONDS)
        finally:
            reader.leave()
            self.user.close()

    def _strike(self) -> None:
        look = self.world.look()
        if look is not None and look.run not in self._runs and look.state != "done":
            self._require(look.live == self.old, f"live tables moved while {look.state}")
        for card in self.hand:
            stage, name = card
            held = look.of(stage) if look is not None else ()
            if held:
                target = Target(self.world, self.user, stage, *held[0])
            elif own_stage(self.world) == stage:
                target = Target(self.world, self.user, stage)
            else:
                continue
            time.sleep(self.rng.uniform(0, 0.1) if held else 0)
            try:
                struck = faults_of(stage)[name](target)
            except (psycopg2.Error, psutil.Error):  # Another fault's doing, or it ended just now.
                struck = False
            if struck:
                self.hand.remove(card)
                self.struck.append(card)
                self.tally.count(name, stage)
            return

    def check(self) -> int:
        """Require all that was promised; return how many rows were compared and found equal."""
        states = [state for state, _, _ in self._new_runs()]
        self._require(states == ["done"], f"one run was to be done, and there are {states}")
        ((_, run, archive),) = self._new_runs()
        with_database = self.world.database
        different = differences(self.source, with_database.connect())
        rows = 0
        for name in COLUMNS:
            ((count,),) = with_database.rows(f"SELECT count(*) FROM {name}")
            sums = with_database.rows(_SUMS, (run, name))
            self._require(sums == [(count, 0, count, 0)], f"{name}: {count} rows, ledger {sums}")
            rows += count
        self._require(not different, f"{len(different)} rows differ: {different[:5]}")
        live = self._live()
        self._require(not live & self.old, "old tables are still live")
        self._require(self._in_schema(archive) == self.old, "the archive is not the old tables")
        left = with_database.rows(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'kg_staging_%%'"
        )
        self._require(not left, f"staging is left: {left}")
        self._require(self._open(run) == [(0, 0)], "steps are open in the ledger")
        self._require(not self.world.copies, f"copies are left: {self.world.copies}")
        with_database.rows(f'DROP SCHEMA "{archive}" CASCADE')
        with_database.close()
        return rows

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise BrokenPromiseError(otherwise)

    def _live(self) -> frozenset[int]:
        return self._in_schema("public")

    def _in_schema(self, schema: str) -> frozenset[int]:
        rows = self.world.database.rows(
            "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE nspname = %s AND relname = ANY(%s)",
            (schema, list(COLUMNS)),
        )
        return frozenset(oid for (oid,) in rows)

    def _known_runs(self) -> list[tuple[str]]:
        database = self.world.database
        if database.rows("SELECT to_regclass('kg_migration.runs')") == [(None,)]:
            return []
        return database.rows("SELECT run_id FROM kg_migration.runs")

    def _new_runs(self) -> list[tuple[str, str, str]]:
        return self.world.database.rows(
            "SELECT state, run_id, archive_schema FROM kg_migration.runs"
            " WHERE NOT run_id = ANY(%s)",
            (list(self._runs),),
        )

    def _open(self, run: str) -> list[tuple[int, int]]:
        return self.world.database.rows(
            "SELECT (SELECT count(*) FROM kg_migration.steps WHERE run_id = %s AND NOT done),"
            " (SELECT sum(open_steps) FROM kg_migration.stages WHERE run_id = %s)",
            (run, run),
        )


_SUMS = (
    "SELECT sum(loaded_rows), sum(rejected_rows), sum(verified_rows), sum(mismatched_rows)"
    " FROM kg_migration.steps WHERE run_id = %s AND table_name = %s"
)
