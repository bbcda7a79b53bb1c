"""Make a graph of a git history: commits are missions, paths files, authors agents, issues bugs."""

import json
import re
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from kgcore.errors import SettingsError
from kgcore.model import Table
from kgcore.sample.git_log import Change, Commit
from kgcore.sample.git_repository import BlobSizes, Repository
from kgcore.sample.writer import GraphWriter, Progress, Row, SampleCounts, make_graph
from kgcore.schema.graph import ENTITIES, FILE_SNAPSHOTS, MISSION_HISTORY, RELATIONSHIPS

_NAME_LENGTH = 12
_FIXED = re.compile(
    r"\b(?:fix(?:e[sd])?|close[sd]?|resolve[sd]?)\b:?\s+((?:(?:issues?|bugs?)\s+)?#\d+"
    r"(?:(?:\s*,\s*|\s+and\s+|\s*&\s*)#\d+)*)",
    re.ASCII | re.IGNORECASE,
)
_REVERTED = re.compile(r"This reverts commit ([0-9a-f]{12,64})")
_DOCS = re.compile(r"(^|/)(docs?|documentation)/|\.(md|rst|txt|adoc)$", re.IGNORECASE)
_TESTS = re.compile(r"(^|/)(tests?|t|spec)/|(^|/)test_[^/]*$|_test\.[^./]+$", re.IGNORECASE)
_FLUSH_ROWS = 5_000
_REPORT_COMMITS = 200
_LATEST = 253_402_300_799  # The last second of the year 9999.
# PostgreSQL refuses to index more than 2,704 bytes; a character takes four at most.
_INDEXED_CHARACTERS = 650


def make_from_git(
    path: Path,
    repository: Path,
    *,
    max_commits: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SampleCounts:
    """Write the history that leads to a repository's HEAD to the SQLite file ``path``.

    Each commit is a mission, named by the first 12 characters of its hash, with a row of
    mission_history (``failed`` if a later commit reverts it). It ``worked_on`` the files it
    changed, was ``created_by`` its author, ``fixed_bug`` for the issues its subject names, and
    ``caused_bug`` for those that the commit reverting it fixed. Each changed file has a snapshot;
    sizes, lines and hashes are NULL where git can't tell them cheaply. Costs and durations are
    computed from the size of the change. Merges change no files of their own.

    ``max_commits`` takes the oldest ones only. Raises :class:`SourceError` if there is no git, no
    repository, or no commit, and :class:`SettingsError` as :func:`make_synthetic` does.
    """
    if max_commits is not None and max_commits < 1:
        raise SettingsError(f"max_commits is {max_commits}", "give one or more, or leave it out")

    history = Repository(repository)

    def fill(writer: GraphWriter) -> None:
        total = min(history.count(), max_commits or _LATEST)
        with history.blob_sizes() as sizes, closing(history.commits()) as commits:
            graph = _Graph(writer, sizes)
            for done, commit in enumerate(islice(commits, max_commits)):
                if done % _REPORT_COMMITS == 0:
                    writer.report("commits", done, total)
                graph.add(commit)
            graph.finish()
        writer.report("commits", total, total)

    return make_graph(path, fill, overwrite=overwrite, progress=progress)


@dataclass(slots=True)
class _Entity:
    """An entity that later commits touch again; written at the end."""

    id: int
    created_at: str
    updated_at: str
    commits: int = 0


@dataclass(slots=True)
class _Graph:
    """Turns commits into rows, in their order."""

    writer: GraphWriter
    sizes: BlobSizes
    rows: dict[str, list[Row]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    entities: dict[tuple[str, str], _Entity] = field(default_factory=dict)
    missions: dict[str, int] = field(default_factory=dict)
    # Of each blob seen: lines added to and removed from a known number make the next known number.
    lines: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def add(self, commit: Commit) -> None:
        """Add a commit and what belongs to it."""
        when = _instant(commit.committed)
        name = commit.sha[:_NAME_LENGTH]
        if name in self.missions:
            name = commit.sha
        mission = self._add_mission(commit, name, when)
        self.missions[name] = mission
        author = self._touch("agent", commit.author, when)
        self._put(RELATIONSHIPS, mission, author, "created_by", "{}", when)
        bugs = [self._touch("bug", number, when) for number in _fixed(commit.subject)]
        for bug in bugs:
            self._put(RELATIONSHIPS, mission, bug, "fixed_bug", "{}", when)
        for sha in dict.fromkeys(_REVERTED.findall(commit.body)):
            self._fail(sha, name, bugs, when)
        for change in commit.changes:
            detail: dict[str, object] = {"added": change.added, "removed": change.removed}
            if change.old_path != change.path:
                detail["renamed_from" if change.status == "R" else "copied_from"] = change.old_path
            file = self._touch("file", change.path, when)
            self._put(RELATIONSHIPS, mission, file, "worked_on", json.dumps(detail), when)
        self._snapshot(commit.changes, name, when)
        self._flush(_FLUSH_ROWS)

    def finish(self) -> None:
        """Write what had to wait for the last commit."""
        for (kind, name), entity in self.entities.items():
            detail = json.dumps({"domain": "coding", "commits": entity.commits})
            row = (entity.id, kind, name, detail, entity.created_at, entity.updated_at)
            self.rows.setdefault(ENTITIES.name, []).append(row)
        self._flush(0)
        for mission in sorted(self.failed):
            self.writer.execute(
                "UPDATE mission_history SET status = 'failed' WHERE mission_id = ?", (mission,)
            )

    def _add_mission(self, commit: Commit, name: str, when: str) -> int:
        files = len(commit.changes)
        churn = sum((change.added or 0) + (change.removed or 0) for change in commit.changes)
        domain = _domain(commit.changes)
        task = {"domain": domain, "task": commit.subject, "merge": commit.parents > 1}
        by = {"task": commit.subject, "author": commit.author}
        mission = self._put(ENTITIES, "mission", name, json.dumps(task), when, when)
        self._put(
            MISSION_HISTORY,
            *(name, "success", domain),
            *(round(0.0123 * max(files, 1), 4), 1 + churn // 100, 3 + churn / 7, files),
            *(json.dumps(by), when),
        )
        return mission

    def _fail(self, sha: str, reverting: str, bugs: list[int], when: str) -> None:
        name = sha if sha in self.missions else sha[:_NAME_LENGTH]
        mission = self.missions.get(name)
        if mission is None or name == reverting:
            return
        self.failed.add(name)
        for bug in bugs:
            detail = json.dumps({"reverted_by": reverting})
            self._put(RELATIONSHIPS, mission, bug, "caused_bug", detail, when)

    def _snapshot(self, changes: tuple[Change, ...], mission: str, when: str) -> None:
        blobs = [change.blob for change in changes if change.blob is not None]
        sizes = dict(zip(blobs, self.sizes.of(blobs), strict=True))
        for change in changes:
            binary = change.added is None
            lines = self._count_lines(change)
            size = sizes[change.blob] if change.blob is not None else None
            detail = json.dumps({"binary": binary, "change": change.status})
            path = change.path[:_INDEXED_CHARACTERS]
            self._put(FILE_SNAPSHOTS, path, mission, size, lines, change.blob, when, detail)

    def _count_lines(self, change: Change) -> int | None:
        before = 0 if change.old_blob is None else self.lines.get(change.old_blob)
        if change.blob is None or None in {before, change.added, change.removed}:
            return None if change.blob is None else self.lines.get(change.blob)
        lines = (before or 0) + (change.added or 0) - (change.removed or 0)
        self.lines[change.blob] = lines
        return lines

    def _touch(self, kind: str, name: str, when: str) -> int:
        key = (kind, name[:_INDEXED_CHARACTERS])
        entity = self.entities.get(key)
        if entity is None:
            entity = self.entities[key] = _Entity(self._next_id(ENTITIES), when, when)
        entity.created_at = min(entity.created_at, when)
        entity.updated_at = max(entity.updated_at, when)
        entity.commits += 1
        return entity.id

    def _put(self, table: Table, *values: str | float | None) -> int:
        key = self._next_id(table)
        self.rows.setdefault(table.name, []).append((key, *values))
        return key

    def _next_id(self, table: Table) -> int:
        self.ids[table.name] = self.ids.get(table.name, 0) + 1
        return self.ids[table.name]

    def _flush(self, least: int) -> None:
        for table in (ENTITIES, RELATIONSHIPS, MISSION_HISTORY, FILE_SNAPSHOTS):
            rows = self.rows.get(table.name, [])
            if len(rows) > least:
                self.writer.insert(table, rows)
                self.rows[table.name] = []


def _fixed(subject: str) -> list[str]:
    """Return the issues (``#12``) that a subject says are fixed, each once."""
    found = (issue for match in _FIXED.finditer(subject) for issue in match[1].split("#")[1:])
    numbers = (re.match(r"\d+", issue, re.ASCII) for issue in found)
    return list(dict.fromkeys(f"#{number[0]}" for number in numbers if number is not None))


def _domain(changes: tuple[Change, ...]) -> str:
    for domain, pattern in (("tests", _TESTS), ("docs", _DOCS)):
        if changes and all(pattern.search(change.path) for change in changes):
            return domain
    return "coding"


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(min(seconds, _LATEST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
