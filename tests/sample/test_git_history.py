"""The history of a git repository, with everything a repository may hold, as a graph."""

import json
import shutil
from pathlib import Path

import pytest

from kgcore.errors import SettingsError, SourceError
from kgcore.sample import make_from_git
from tests.sample.history import History, links, query

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

STRANGE = ("tab\there", 'quote"d', "two\nlines", "\nfirst", "  spaces  ", "ünïcödé 🚀", ":100644 a")


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "repository")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tmp_path / "graph.db"


def test_each_commit_change_author_and_issue_becomes_its_rows(
    history: History, graph: Path
) -> None:
    history.write("src/a.py", b"one\ntwo\nthree\nfour\n")
    root = history.commit("Start")[:12]
    history.write("src/a.py", b"one\n2\n3\nthree\nfour\n")
    history.write("docs/x.md", b"# x\n")
    fix = history.commit("fix #12 and #13, closes: #7 (#99)", "--author=Bob <b@example.org>")[:12]
    history.git("mv", "src/a.py", "src/b.py")
    rename = history.commit("Move it")[:12]
    history.write("image.bin", b"\0\1\2" * 10)
    binary = history.commit("")[:12]
    history.git("rm", "-q", "docs/x.md")
    deleted = history.commit("Drop the page")[:12]

    counts = make_from_git(graph, history.path)

    assert (counts.missions, counts.snapshots, counts.bytes) == (5, 6, graph.stat().st_size)
    assert query(graph, "SELECT type, name FROM entities WHERE type<>'mission' ORDER BY 1, 2") == [
        *(("agent", name) for name in ("Ann Author", "Bob")),
        *(("bug", name) for name in ("#12", "#13", "#7")),
        *(("file", name) for name in ("docs/x.md", "image.bin", "src/a.py", "src/b.py")),
    ]
    assert counts.entities == 5 + 9
    assert links(graph, "fixed_bug") == {(fix, name, "{}") for name in ("#12", "#13", "#7")}
    assert links(graph, "created_by") == {
        (name, "Bob" if name == fix else "Ann Author", "{}")
        for name in (root, fix, rename, binary, deleted)
    }
    renamed = '{"added": 0, "removed": 0, "renamed_from": "src/a.py"}'
    assert links(graph, "worked_on") == {
        (root, "src/a.py", '{"added": 4, "removed": 0}'),
        (fix, "src/a.py", '{"added": 2, "removed": 1}'),
        (fix, "docs/x.md", '{"added": 1, "removed": 0}'),
        (rename, "src/b.py", renamed),
        (binary, "image.bin", '{"added": null, "removed": null}'),
        (deleted, "docs/x.md", '{"added": 0, "removed": 1}'),
    }
    assert counts.relationships == 3 + 5 + 6
    assert query(
        graph,
        "SELECT mission_id, file_path, size_bytes, lines_of_code, hash IS NULL FROM file_snapshots"
        " ORDER BY created_at, file_path",
    ) == [
        (root, "src/a.py", 19, 4, 0),
        (fix, "docs/x.md", 4, 1, 0),
        (fix, "src/a.py", 19, 5, 0),
        (rename, "src/b.py", 19, 5, 0),
        (binary, "image.bin", 30, None, 0),
        (deleted, "docs/x.md", None, None, 1),
    ]
    (blob,) = query(graph, "SELECT hash FROM file_snapshots WHERE file_path='src/b.py'")
    assert blob == (history.git("rev-parse", "HEAD:src/b.py"),)
    assert query(
        graph, "SELECT mission_id, status, domain, files_modified, created_at FROM mission_history"
    ) == [
        (root, "success", "coding", 1, "2024-01-01T10:00:00Z"),
        (fix, "success", "coding", 2, "2024-01-01T10:01:00Z"),
        (rename, "success", "coding", 1, "2024-01-01T10:02:00Z"),
        (binary, "success", "coding", 1, "2024-01-01T10:03:00Z"),
        (deleted, "success", "docs", 1, "2024-01-01T10:04:00Z"),
    ]
    assert query(graph, "PRAGMA foreign_key_check") == []
    assert query(graph, "PRAGMA integrity_check") == [("ok",)]
    assert query(graph, "SELECT updated_at FROM entities WHERE name='docs/x.md'") == [
        ("2024-01-01T10:04:00Z",)
    ]


def test_names_of_every_kind_come_through(history: History, graph: Path) -> None:
    for name in STRANGE:
        history.write(name, b"x\n")
    history.write(b"latin-\xe9.txt", b"x\n")
    history.commit("Names: tab\there 'quotes' \"doubled\" \\ 🚀")
    history.write("two\nlines", b"y\n")
    history.git("mv", "tab\there", "moved\tthere")
    history.commit("latin e")
    # git commit would recode the message.
    commit = history.git("cat-file", "commit", "HEAD").encode().replace(b"latin e", b"latin \xe9\n")
    written = history.git("hash-object", "-t", "commit", "-w", "--stdin", given=commit)
    history.git("reset", "-q", "--hard", written)

    counts = make_from_git(graph, history.path)

    files = {name for (name,) in query(graph, "SELECT name FROM entities WHERE type='file'")}
    assert files == {*STRANGE, "latin-\ufffd.txt", "moved\tthere"}
    assert counts.snapshots == len(STRANGE) + 1 + 2
    assert query(graph, "SELECT DISTINCT size_bytes, lines_of_code FROM file_snapshots") == [(2, 1)]
    tasks = [
        json.loads(str(text))["task"]
        for (text,) in query(
            graph, "SELECT metadata FROM entities WHERE type='mission' ORDER BY id"
        )
    ]
    assert tasks == ["Names: tab\there 'quotes' \"doubled\" \\ 🚀", "latin \ufffd"]


def test_a_merge_is_a_mission_without_files(history: History, graph: Path) -> None:
    history.write("a", b"a\n")
    history.commit("a")
    history.git("checkout", "-q", "-b", "side")
    history.write("b", b"b\n")
    history.commit("b")
    history.git("checkout", "-q", "main")
    history.write("c", b"c\n")
    history.commit("c")
    history.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")

    assert make_from_git(graph, history.path).snapshots == 3
    merges = query(
        graph,
        "SELECT json_extract(metadata, '$.task') FROM entities"
        " WHERE type='mission' AND json_extract(metadata, '$.merge')",
    )
    assert merges == [("Merge side",)]
    assert query(graph, "SELECT files_modified FROM mission_history ORDER BY id DESC LIMIT 1") == [
        (0,)
    ]


def test_what_a_later_commit_reverts_has_failed(history: History, graph: Path) -> None:
    history.write("a", b"good\n")
    history.commit("good")
    history.write("a", b"bad\n")
    bad = history.commit("bad")
    history.write("a", b"good\n")
    mend = history.commit("Revert, fixes #5", "-m", f"This reverts commit {bad}.")

    make_from_git(graph, history.path)

    assert query(graph, "SELECT mission_id FROM mission_history WHERE status='failed'") == [
        (bad[:12],)
    ]
    detail = json.dumps({"reverted_by": mend[:12]})
    assert links(graph, "caused_bug") == {(bad[:12], "#5", detail)}


@pytest.fixture
def many(history: History) -> History:
    for number in range(6):
        history.write("tests/test_a.py", b"x\n" * number)
        history.commit(f"Commit {number}")
    return history


def test_only_the_oldest_commits_are_taken_where_asked(many: History, graph: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    counts = make_from_git(
        graph, many.path, max_commits=2, progress=lambda *step: seen.append(step)
    )
    assert counts.missions == 2
    assert ("commits", 2, 2) in seen
    tasks = query(graph, "SELECT json_extract(metadata, '$.task') FROM mission_history ORDER BY id")
    assert tasks == [("Commit 0",), ("Commit 1",)]


def test_a_shallow_or_bare_clone_will_do(many: History, graph: Path, tmp_path: Path) -> None:
    many.git("clone", "-q", "--bare", "--depth=2", many.path.as_uri(), str(tmp_path / "clone"))
    assert make_from_git(graph, tmp_path / "clone").missions == 2
    lines = query(graph, "SELECT lines_of_code FROM file_snapshots ORDER BY id")
    assert lines == [(4,), (5,)]


def test_the_users_git_settings_change_nothing(many: History, graph: Path, tmp_path: Path) -> None:
    make_from_git(tmp_path / "plain.db", many.path)
    for setting in ("color.ui=always", "log.showSignature=true", "log.showRoot=false"):
        many.git("config", *setting.split("="))
    make_from_git(graph, many.path)
    rows = "SELECT * FROM file_snapshots"
    assert query(graph, rows) == query(tmp_path / "plain.db", rows)


def test_git_variables_of_a_hook_do_not_lead_elsewhere(
    many: History, graph: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert make_from_git(graph, many.path).missions == 6


def test_what_is_no_repository_is_said_to_be_none(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for place in ("plain", "missing"):
        with pytest.raises(SourceError, match="not a git repository"):
            make_from_git(graph, tmp_path / place)
    assert not graph.exists()


def test_a_repository_without_commits_is_refused(history: History, graph: Path) -> None:
    with pytest.raises(SourceError, match="no commit") as refused:
        make_from_git(graph, history.path)
    assert refused.value.hint
    assert not graph.exists()


def test_git_has_to_be_there(
    many: History, graph: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="not on PATH"):
        make_from_git(graph, many.path)


def test_a_damaged_history_is_not_taken_for_a_short_one(many: History, graph: Path) -> None:
    blob = many.git("rev-parse", "HEAD~2:tests/test_a.py")
    (many.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceError, match="can't read the history"):
        make_from_git(graph, many.path)
    assert not list(graph.parent.glob(".graph.db*"))


def test_an_existing_file_is_kept_unless_told(many: History, graph: Path) -> None:
    graph.write_bytes(b"mine")
    with pytest.raises(SettingsError, match="exists"):
        make_from_git(graph, many.path)
    with pytest.raises(SettingsError, match="max_commits"):
        make_from_git(graph, many.path, max_commits=0, overwrite=True)
    assert graph.read_bytes() == b"mine"
    assert make_from_git(graph, many.path, overwrite=True).missions == 6
