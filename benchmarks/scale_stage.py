"""What both parts of ``make bench-scale`` stand on: servers, workers, accounts of CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from redis import Redis

from benchmarks.workers import family
from workers.embedded import PostgresServer, RedisServer


@dataclass(frozen=True)
class Stage:
    """Servers of the benchmark's own, and the environment in which ``kg`` finds them."""

    scratch: Path
    postgres: PostgresServer
    redis: RedisServer

    @property
    def environment(self) -> dict[str, str]:
        """The environment of worker and command processes."""
        return {
            **os.environ,
            **self.postgres.environment(),
            **self.redis.environment(),
            "KG_DATA_DIR": str(self.scratch / "data"),
        }

    def ask(self, sql: str, *params: Any) -> Any:
        """Return the one value that a query gives."""
        server = self.postgres
        connection = psycopg2.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=server.password,
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, params or None)
                row = cursor.fetchone()
                return row if row is None or len(row) > 1 else row[0]
        finally:
            connection.close()

    @contextmanager
    def broker(self) -> Iterator[Redis]:
        """Give a client of Redis."""
        with Redis.from_url(self.redis.url, decode_responses=True) as client:
            yield client

    def kg(self, *words: str) -> None:
        """Run a command to its end; a run that has ended meanwhile may refuse it."""
        command = [sys.executable, "-m", "workers.cli", *words]
        subprocess.run(command, env=self.environment, check=False, capture_output=True)

    def migrate(self, source: Path, *options: str) -> subprocess.Popen[str]:
        """Start ``kg migrate``."""
        command = [sys.executable, "-m", "workers.cli", "migrate", str(source), *options]
        return subprocess.Popen(
            [*command, "--if-exists", "replace", "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU that a process and its descendants used, those that have ended, too."""
    used = 0.0
    for one in family(process):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


def table(titles: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table; ``titles`` maps the rows' names to headings."""
    lines = ["| " + " | ".join(titles.values()) + " |", "| " + " | ".join(["---:"] * len(titles))]
    lines[1] += " |"
    lines += ["| " + " | ".join(row[name] for name in titles) + " |" for row in rows]
    return "\n".join(lines)
