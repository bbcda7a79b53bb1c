"""Repairs and rejects as a user meets them on the command line."""

import csv
import io
import json
from pathlib import Path

from tests.migration.graphs import entity, relationship, write_graph
from tests.servers import Database
from tests.workers.kg import Kg


def test_rejects_are_listed_mended_and_tried_again(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            *(entity(row_id) for row_id in range(1, 60)),
            *(entity(row_id, metadata="{") for row_id in range(60, 120)),
            entity(120, name='a "b",\nc', metadata='{"a": NaN}'),
        ],
        relationships=[relationship(1, 1, 2), relationship(2, 1, 77)],
        more="INSERT INTO entities VALUES (121, 'file', CAST(x'61ff' AS TEXT), NULL,"
        " '2026-01-01', '2026-01-01');"
        "UPDATE entities SET name = '' WHERE id = 60; UPDATE entities SET name = '\\x61ff'"
        " WHERE id = 61",
    )
    with kg.workers(1):
        stopped = kg("migrate", source, "--json")
        assert stopped.code == 3, stopped.err
        run = stopped.json["run_id"]
        shown = kg("rejects", run)
        assert shown.out.count("22P02") == 50
        assert "50 of 63; --limit N shows more" in shown.err
        assert kg("rejects", run, "--limit", "2", "--table", "entities").out.count("22P02") == 2
        as_json = [json.loads(line) for line in kg("rejects", run, "--json").out.splitlines()]
        assert len(as_json) == 63
        assert as_json[61]["row"]["name"] == {"type": "text", "hex": "61ff"}
        rows = list(csv.DictReader(io.StringIO(kg("rejects", run, "--csv").out)))
        assert [(row["table"], row["id"]) for row in rows] == [
            (item["table"], str(item["id"])) for item in as_json
        ]
        assert rows[60]["row.name"] == 'a "b",\nc'
        assert [(rows[n]["row.name"], rows[n]["type.name"]) for n in (0, 1, 61)] == [
            ("", "text"),
            ("\\x61ff", "text"),
            ("\\x61ff", "text in hex"),
        ]
        assert (rows[61]["row.metadata"], rows[61]["type.metadata"]) == ("", "null")
        assert rows[61]["type.id"] == "integer"
        assert rows[62]["row.to_id"] == "77"
        assert kg("rejects", run, "--repair", "all").code == 2
        assert kg("rejects", run, "--retry", "--repair", "nonsense").code == 2
        once = kg("rejects", run, "--retry", "--repair", "nan-as-string", "--json")
        assert once.code == 3, once.err
        assert once.json["loaded"] == {"entities": 1, "relationships": 0}
        assert once.json["left"] == 62
        for item in as_json[:60]:
            item["row"]["metadata"]["value"] += "}"
        mended = tmp_path / "mended.jsonl"
        mended.write_text("".join(json.dumps(item) + "\n" for item in as_json[:60]))
        # 77 is there again now, and so the relationship to it.
        again = kg(
            *("rejects", run, "--retry", "--from", mended, "--repair", "replace-invalid-utf8")
        )
        assert again.code == 0, again.err + again.out
        assert "entities: 61 rows loaded, 0 refused again" in again.out
        assert f"kg resume {run}" in again.out
        assert kg("rejects", run).out.strip() == "no rejects"
        done = kg("resume", run, "--json")
    assert done.code == 0, done.err
    assert done.json["totals"]["verified_rows"] == done.json["totals"]["source_rows"] == 123
    assert done.json["repairs"][0] == {
        "table": "entities",
        "repair": "nan-as-string",
        "rows": 1,
        "example_ids": [120],
    }
    assert "entities: 1 rows by nan-as-string (ids 120)" in kg("report", run).out
    assert postgres.rows("SELECT metadata FROM entities WHERE id IN (60, 120) ORDER BY id") == [
        ({},),
        ({"a": "NaN"},),
    ]


def test_a_dry_run_proposes_the_repairs_that_a_run_then_makes(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2, metadata="{"), entity(3, at=1767323045)],
        relationships=[relationship(1, 1, 77)],
    )
    found = kg("migrate", source, "--dry-run")
    assert found.code == 3
    assert "entities: --repair json-as-string would save 1 rows" in found.out
    assert "relationships: --repair placeholder-entities would save 1 rows" in found.out
    proposed = kg("migrate", source, "--dry-run", "--json").json["repairs"]
    assert {"table": "entities", "repair": "epoch-timestamps", "rows": 1} in proposed
    chosen = ["--repair", "json-as-string", "--repair", "epoch-timestamps"]
    chosen += ["--repair", "drop-dangling"]
    assert kg("migrate", source, "--dry-run", *chosen).code == 0
    done = kg("migrate", source, "--local-workers", "1", *chosen)
    assert done.code == 0, done.err
    assert "relationships: 1 rows by drop-dangling (ids 1)" in done.out
    assert postgres.rows("SELECT count(*) FROM entities") == [(3,)]
    assert kg("migrate", source, "--repair", "all", "--repair", "none").code == 2
    help_text = " ".join(kg("migrate", "--help").out.replace("│", " ").split())
    assert "text that is no JSON becomes a JSON string" in help_text
