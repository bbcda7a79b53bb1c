"""Neighbours and shortest paths, next to a plain breadth-first search."""

import itertools
import random
import time
from collections import defaultdict
from typing import Any

import pytest

from kgcore.graph import KnowledgeGraph


class Plain:
    """The same graph in memory."""

    def __init__(self, edges: list[tuple[int, int, str]]) -> None:
        self.out: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.into: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for start, end, kind in edges:
            self.out[start].append((end, kind))
            self.into[end].append((start, kind))

    def levels(self, start: int, kind: str | None, direction: str) -> dict[int, int]:
        depths = {start: 0}
        frontier = [start]
        while frontier:
            following: set[int] = set()
            for node in frontier:
                ends: list[tuple[int, str]] = []
                if direction != "incoming":
                    ends += self.out[node]
                if direction != "outgoing":
                    ends += self.into[node]
                following |= {end for end, found in ends if kind in {None, found}}
            frontier = sorted(following - depths.keys())
            depth = max(depths.values()) + 1
            depths.update(dict.fromkeys(frontier, depth))
        return depths


@pytest.fixture
def tangle(graph: KnowledgeGraph) -> tuple[KnowledgeGraph, list[int], Plain]:
    chance = random.Random(3)
    ids = graph.add_entities([("node", f"{number:03d}") for number in range(120)])
    edges = [
        (chance.choice(ids), ids[int(120 * chance.random() ** 2)], chance.choice("xxy"))
        for _ in range(170)
    ]
    graph.add_relationships(edges)
    return graph, ids, Plain(edges)


@pytest.mark.parametrize("kind", [None, "x"])
@pytest.mark.parametrize("direction", ["outgoing", "incoming", "both"])
def test_walks(
    tangle: tuple[KnowledgeGraph, list[int], Plain], kind: str | None, direction: Any
) -> None:
    graph, ids, plain = tangle
    for start in ids[::23]:
        depths = plain.levels(start, kind, direction)
        expected = sorted((depth, node) for node, depth in depths.items() if depth)
        for depth, limit in ((1, 1000), (3, 1000), (50, 1000), (50, 7), (2, 1), (0, 5), (3, 0)):
            found = graph.neighbors(start, depth, kind, direction, limit)
            got = [(row["depth"], row["id"]) for row in found]
            assert got == [pair for pair in expected if pair[0] <= depth][:limit]
        for end in ids[::11]:
            path = graph.shortest_path(start, end, kind, direction, max_depth=50)
            if end not in depths:
                assert path is None
                continue
            assert path is not None
            assert (path[0]["id"], path[-1]["id"]) == (start, end)
            assert len(path) == depths[end] + 1
            for before, after in itertools.pairwise(path):
                step = after["relationship"]
                assert {step["from_id"], step["to_id"]} == {before["id"], after["id"]}
                assert kind in {None, step["type"]}
                if direction == "outgoing":
                    assert step["to_id"] == after["id"]


def test_the_form_of_results(graph: KnowledgeGraph) -> None:
    a, b, c = (graph.add_entity("node", name, {"n": name}) for name in "abc")
    edge = graph.add_relationship(a, b, "x", {"w": 1})
    assert graph.neighbors(a) == [
        {"id": b, "type": "node", "name": "b", "metadata": {"n": "b"}, "depth": 1}
    ]
    path = graph.shortest_path(b, a)
    assert path is not None
    assert path[0] == {
        "id": b,
        "type": "node",
        "name": "b",
        "metadata": {"n": "b"},
        "relationship": None,
    }
    relationship = path[1]["relationship"]
    assert relationship.pop("created_at").endswith("Z")
    assert relationship == {
        "id": edge,
        "from_id": a,
        "to_id": b,
        "type": "x",
        "metadata": {"w": 1},
    }
    alone = graph.shortest_path(c, c)
    assert alone is not None
    assert [row["id"] for row in alone] == [c]
    assert graph.shortest_path(a, c) is None
    with pytest.raises(ValueError, match="direction"):
        graph.neighbors(a, direction="up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth"):
        graph.neighbors(a, depth=-1)


def test_bounds_of_a_path(graph: KnowledgeGraph) -> None:
    ids = graph.add_entities([("node", f"{number:02d}") for number in range(30)])
    graph.add_relationships([(a, b, "next") for a, b in itertools.pairwise(ids)])
    assert graph.shortest_path(ids[0], ids[11]) is None
    found = graph.shortest_path(ids[0], ids[11], max_depth=11)
    assert found is not None
    assert [row["id"] for row in found] == ids[:12]
    assert graph.shortest_path(ids[0], ids[11], max_depth=11, max_nodes=8) is None
    assert graph.shortest_path(ids[0], ids[1], max_nodes=1) is None
    assert graph.shortest_path(ids[0], ids[0], max_nodes=1) is not None
    with pytest.raises(ValueError, match="max_nodes must be 1 or more"):
        graph.shortest_path(ids[0], ids[1], max_nodes=0)


def test_paths_are_not_counted(graph: KnowledgeGraph) -> None:
    """Between each layer and the next there are 400 relationships: 20^12 paths through all."""
    layers = [
        graph.add_entities([("node", f"{layer}-{place}") for place in range(20)])
        for layer in range(12)
    ]
    graph.add_relationships(
        [(a, b, "x") for one, two in itertools.pairwise(layers) for a in one for b in two]
    )
    began = time.monotonic()
    found = graph.neighbors(layers[0][0], depth=11)
    path = graph.shortest_path(layers[0][0], layers[11][7], max_depth=11)
    assert time.monotonic() - began < 5  # Measured: 0.1 s; by paths it would never end.
    assert len(found) == 12 * 20 - 1
    assert path is not None
    assert len(path) == 12
