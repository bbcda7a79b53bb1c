"""A git repository made by a test, and questions to the graph that was made of it."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path


class History:
    """A repository under construction; commits are a minute apart, from 2024-01-01 12:00 +02:00."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.minutes = 0
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str | bytes, given: bytes = b"") -> str:
        when = f"2024-01-01T12:{self.minutes:02d}:00+02:00"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ann Author",
            "GIT_AUTHOR_EMAIL": "ann@example.org",
            "GIT_COMMITTER_NAME": "Carl Committer",
            "GIT_COMMITTER_EMAIL": "carl@example.org",
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_DATE": when,
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=environment,
            check=True,
            capture_output=True,
            input=given,
        )
        return done.stdout.decode(errors="replace").strip()

    def write(self, name: str | bytes, content: bytes) -> None:
        place = os.path.join(os.fsencode(self.path), os.fsencode(name))  # noqa: PTH118 - bytes
        os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        with open(place, "wb") as file:  # noqa: PTH123 - bytes
            file.write(content)

    def commit(self, subject: str | bytes, *options: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", subject, *options)
        self.minutes += 1
        return self.git("rev-parse", "HEAD")


def query(graph: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(graph)) as connection:
        return connection.execute(sql).fetchall()


def links(graph: Path, kind: str) -> set[tuple[object, ...]]:
    return set(
        query(
            graph,
            "SELECT f.name, t.name, r.metadata FROM relationships r JOIN entities f ON f.id=from_id"
            f" JOIN entities t ON t.id=to_id WHERE r.type='{kind}'",
        )
    )
