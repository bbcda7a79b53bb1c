"""How bulk writes are cut into statements."""

import json

from kgcore.graph import KnowledgeGraph
from kgcore.graph.bulk import BATCH_CHARACTERS, BATCH_ROWS, batches


def test_batches_are_cut_by_rows_and_by_size() -> None:
    assert list(batches([])) == []
    small = [[number, "ä"] for number in range(2 * BATCH_ROWS + 1)]
    found = [json.loads(batch) for batch in batches(small)]
    assert [len(batch) for batch in found] == [BATCH_ROWS, BATCH_ROWS, 1]
    assert [row for batch in found for row in batch] == small
    # PostgreSQL refuses more than 256 MiB of elements in an array: these would be 300.
    large = "x" * 60_000
    sizes = [len(batch) for batch in batches([large] * BATCH_ROWS)]
    assert len(sizes) > 70
    assert max(sizes) <= BATCH_CHARACTERS + BATCH_ROWS
    longer = "y" * (BATCH_CHARACTERS + 1)  # What is larger than that goes alone.
    assert [len(json.loads(batch)) for batch in batches(["a", longer, "b", "c"])] == [1, 1, 2]


def test_large_rows_arrive(graph: KnowledgeGraph) -> None:
    documents = [{"text": f"{number}" * 1_500_000} for number in range(3)]
    ids = graph.add_entities([("file", str(n), found) for n, found in enumerate(documents)])
    assert [graph.get_entity(entity_id)["metadata"] for entity_id in ids] == documents  # type: ignore[index]
    edges = [(ids[0], ids[n], "x", found) for n, found in enumerate(documents)]
    assert len(set(graph.add_relationships(edges))) == 3
    assert [r["metadata"] for _, r in graph.find_related(ids[0])] == documents
