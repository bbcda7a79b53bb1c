"""A process that writes to a graph beside others: ``python -m tests.graph.writer``."""

import json
import random
import sys
import time
from typing import Any

from kgcore.backends import get_backend
from kgcore.graph import KnowledgeGraph

NAMES = [f"e{number:02d}" for number in range(20)]
ROUNDS = 12


def write(graph: KnowledgeGraph, writer: str, rounds: int = ROUNDS) -> int:
    """Upsert entities that all writers upsert, relate them, and leave a key of its own in each."""
    chance = random.Random(writer)
    related = 0
    for number in range(rounds):
        shuffled = chance.sample(NAMES, 8)
        ids = graph.add_entities([("shared", name, {"by": writer}) for name in shuffled])
        graph.add_entity("shared", shuffled[0], {"by": writer})
        related += len(graph.add_relationships([(ids[0], other, "bulk") for other in ids[1:3]]))
        graph.add_relationship(ids[3], ids[4], "single", {"writer": writer})
        related += 1
        counter = graph.find_entity("counter", "all")
        assert counter is not None
        graph.update_entity(counter["id"], {f"{writer}/{number}": None}, merge=True)
        graph.log_mission(f"mission {number}", "success", metadata={"by": writer})
        assert graph.list_entities("shared", limit=3)
    return related


def main() -> None:
    """Open the graph that the first line of standard input describes, then write.

    Before either it says so and waits for a line: so all processes do it at the same time.
    """
    options: dict[str, Any] = json.loads(sys.stdin.readline())
    kind, name = options.pop("kind"), options.pop("writer")
    _wait()
    with get_backend(kind, **options) as backend:
        graph = KnowledgeGraph(backend)
        graph.init_schema()
        if name is not None:
            graph.add_entity("starter", name)
            _wait()
            began = time.monotonic()
            related = write(graph, name)
            sys.stdout.write(json.dumps([related, began, time.monotonic()]))


def _wait() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
