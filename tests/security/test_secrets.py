"""Passwords are nowhere but where they belong: a whole run, every log as talkative as can be."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.migration.graphs import entity, small_graph, write_graph
from tests.servers import Database
from tests.workers.kg import KG, Kg, wait_for


@contextmanager
def watched_command_lines() -> Iterator[set[str]]:
    """Collect the command lines of all processes below this one, as ``ps`` shows them."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for process in psutil.Process().children(recursive=True):
                try:
                    seen.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def everything_in_redis(url: str) -> bytes:
    """Return all keys of the database with all that is in them."""
    parts: list[Any] = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            read = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"list": lambda name: client.lrange(name, 0, -1),
                b"set": client.smembers,
                b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
                b"stream": client.xrange,
            }[client.type(key)]
            parts += [key, read(key), client.dump(key)]
    return repr(parts).encode()


def everything_in_the_ledger(database: Database) -> str:
    """Return all rows of all tables of ``kg_migration``."""
    tables = database.rows(
        "SELECT relname FROM pg_class WHERE relkind = 'r'"
        " AND relnamespace = 'kg_migration'::regnamespace"
    )
    assert len(tables) >= 5
    return repr(
        [database.rows(f"SELECT t::text FROM kg_migration.{name} AS t") for (name,) in tables]
    )


def test_a_run_leaves_no_password_anywhere(
    kg: Kg, postgres: Database, redis_url: str, tmp_path: Path
) -> None:
    """The run fails once on the way, because errors are what passwords slip out through."""
    redis_password = redis_url.partition("@")[0].rpartition(":")[2]
    secrets = [postgres.password, redis_password]
    assert all(len(secret) > 8 for secret in secrets)
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(row_id) for row_id in range(1, 200)] + [entity(300, metadata="{")],
    )
    said: list[str] = []
    log = tmp_path / "worker.log"
    with (
        watched_command_lines() as command_lines,
        log.open("wb") as out,
        subprocess.Popen(
            [*KG, "--debug", "worker", "--concurrency", "1", "--loglevel", "DEBUG"],
            env=kg._environment() | {"PGCONNECT_TIMEOUT": "5"},
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        ) as worker,
    ):
        try:
            wait_for(lambda: b"ready" in log.read_bytes())
            for command in (
                ("migrate", source, "--json", "--local-workers", "1"),
                ("doctor", "--json"),
            ):
                done = kg("--debug", *command)
                said += [done.out, done.err]
            run_id = kg("progress", "--json").json["run_id"]
            done = kg("--debug", "resume", run_id, "--max-rejects", "1", "--json")
            said += [done.out, done.err]
            assert done.json["state"] == "done"
            in_redis, in_ledger = everything_in_redis(redis_url), everything_in_the_ledger(postgres)
        finally:
            worker.terminate()
            worker.wait(30)
    said.append(log.read_text())
    assert run_id.encode() in in_redis
    assert run_id in in_ledger
    assert "DEBUG" in said[-1]
    assert any("celery" in line for line in command_lines)
    for secret in secrets:
        assert secret.encode() not in in_redis
        assert secret not in in_ledger
        assert not [line for line in command_lines if secret in line]
        for text in said:
            assert secret not in text, text[max(text.find(secret) - 300, 0) :][:400]
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or not any(s.encode() in path.read_bytes() for s in secrets)


def test_wrong_passwords_do_not_show_either(kg: Kg, tmp_path: Path) -> None:
    """A mistyped password is most of the right one."""
    source = small_graph(tmp_path / "graph.db")
    host = kg.environment["KG_REDIS_URL"].rpartition("@")[2]
    for wrong in (
        {"PG_PASSWORD": "alm0st-right"},
        {"KG_REDIS_URL": f"redis://:alm0st-right@{host}"},
        {"KG_REDIS_URL": "redis://:alm0st-right@127.0.0.1:1/0"},
        {"PG_HOST": "postgresql://u:alm0st-right@h/d", "PG_PASSWORD": "alm0st-right"},
    ):
        done = Kg(kg.environment | wrong, tmp_path)("--debug", "migrate", source)
        assert done.code != 0
        assert "alm0st-right" not in done.out + done.err


def test_a_password_that_tears_the_url_apart_does_not_show(kg: Kg, tmp_path: Path) -> None:
    """What stands behind it would be taken for a port, a database or a fragment."""
    for mark in "/#?":
        torn = {"KG_REDIS_URL": f"redis://:alm0st{mark}right@127.0.0.1:1/0"}
        done = Kg(kg.environment | torn, tmp_path)("--debug", "progress")
        assert done.code == 2, done.err
        assert "must be percent-encoded" in done.err
        assert "alm0st" not in done.out + done.err
        assert "right" not in done.out + done.err
