"""Migrate again and again while processes and servers are killed; compare every row each time.

``make soak SECONDS=600 SEED=1``. The seed decides what strikes where, and how long after it was
seen there; what the machine does in between it can't decide. Ends with 1, and keeps the logs, if
anything was not as promised or if too few faults struck.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.rounds import BrokenPromiseError, Card, Decks, Round, make_sources
from tests.soak.tally import Tally
from tests.soak.user import GaveUpError
from tests.soak.world import world

_FAULTS_A_ROUND = (3, 6)


def soak(seconds: float, seed: int, logs: Path, tally: Tally) -> None:
    """Migrate for so many seconds, and end the round at hand.

    Raises :class:`BrokenPromiseError` and :class:`GaveUpError`.
    """
    rng = random.Random(seed)
    decks = Decks(rng)
    sources = make_sources(logs, seed)
    with world(logs) as place:
        began = time.monotonic()
        hand: list[Card] = []  # None in the first round, which makes the old tables.
        number = 0
        while number == 0 or time.monotonic() - began < seconds:
            now = time.monotonic()
            source = sources[number % 2]
            delays = random.Random(f"{seed} {number}")
            one = Round(place, source, hand, delays, logs / f"round-{number:03}", tally)
            one.play()
            rows = one.check()
            print(
                f"round {number}: {rows:,} rows equal, {len(one.user.commands)} commands,"
                f" {time.monotonic() - now:.0f} s; struck:"
                f" {', '.join(f'{name} in {stage}' for stage, name in one.struck) or 'nothing'}",
                flush=True,
            )
            number += 1
            decks.back(one.hand)
            hand = decks.hand(rng.randint(*_FAULTS_A_ROUND))


def main() -> int:
    """Soak; print what struck where, or what broke and how to do it again."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args()
    again = f"make soak SECONDS={chosen.seconds:g} SEED={chosen.seed}"
    logs = Path(tempfile.mkdtemp(prefix="kg-soak-"))
    logs.chmod(0o755)
    tally = Tally()
    print(f"{again}\nlogs in {logs}", flush=True)
    try:
        soak(chosen.seconds, chosen.seed, logs, tally)
        faults = tally.shortfalls(chosen.seconds)
    except (BrokenPromiseError, GaveUpError) as error:
        faults = [f"{type(error).__name__}: {error}"]
    finally:
        print(tally.table())
    if faults:
        print(*faults, f"logs in {logs}", f"to repeat it: {again}", sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(logs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
