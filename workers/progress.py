"""The progress channel in Redis, which anyone may query.

Keys, all of which expire a week after the last write:

``kg:latest``
    the id of the run started last
``kg:run:ID``
    hash: ``state``, ``errors`` (JSON list), ``began``, ``updated`` (Redis's own clock); for each
    table ``total:T``, ``done:T`` (rows), for each worker ``rows:W``, ``steps:W``, ``seen:W``, for
    each stage ``left:S`` (steps), and for the bar ``weight`` and ``done_weight``; for each worker
    that fetches the source ``fetch:W``: bytes here, bytes in all, and when that was written
``kg:run:ID:steps``
    bitmap of counted steps, by their position in the run: a step counts once
``kg:run:ID:events``
    stream of ``step`` and ``state`` events, cut at about 10,000: a late follower replays it

The ledger is the truth. Where Redis lost the hash, the next writer builds it anew from there.
Numbers are only written by the scripts below, each of which is atomic.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from kgcore.backends import ConnectionPool
from kgcore.errors import BrokerError, RunNotFoundError
from kgcore.migration import ledger
from kgcore.migration.model import IN_PROGRESS, RunState, Stage
from kgcore.migration.pipeline import StepResult

_log = logging.getLogger(__name__)

#: By which kombu and redis say that the broker can't be used.
BROKER_ERRORS = (redis.RedisError, OperationalError, ConnectionError)

EXPIRES_SECONDS = 7 * 24 * 3600
_EVENTS = 10_000
# A step must not wait long for a Redis that is gone: the ledger has its result.
_TIMEOUT_SECONDS = 2.0

# KEYS hash, steps, events; ARGV position, table, rows, weight, worker,
# stage, expiry, length of the stream. Returns 0 where the hash is missing.
_COUNT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = redis.call('TIME')
local seconds = now[1] .. '.' .. string.format('%06d', now[2])
if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 0 then
    if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[1], 'done:' .. ARGV[2], ARGV[3]) end
    redis.call('HINCRBYFLOAT', KEYS[1], 'done_weight', ARGV[4])
    redis.call('HINCRBY', KEYS[1], 'left:' .. ARGV[6], -1)
    redis.call('HINCRBY', KEYS[1], 'rows:' .. ARGV[5], ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'steps:' .. ARGV[5], 1)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', 'event', 'step', 'stage', ARGV[6],
               'table', ARGV[2], 'rows', ARGV[3], 'worker', ARGV[5])
end
redis.call('HSET', KEYS[1], 'updated', seconds, 'seen:' .. ARGV[5], seconds)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[7]) end
return 1
"""

# KEYS hash, steps, events, latest; ARGV run, expiry, replace (0 or 1), bitmap, field, value, ….
# Builds the hash from the ledger's numbers: where it is missing, or, with replace, in any case.
_BUILD = """
if ARGV[3] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = redis.call('TIME')
local seconds = now[1] .. '.' .. string.format('%06d', now[2])
redis.call('SET', KEYS[2], ARGV[4])
local before = redis.call('HGET', KEYS[1], 'state')
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'updated', seconds)
redis.call('HSETNX', KEYS[1], 'began', seconds)
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= before then redis.call('XADD', KEYS[3], '*', 'event', 'state', 'state', state) end
redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[2])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
"""

# KEYS hash; ARGV worker, bytes that are here, bytes in all. A fetch that ended leaves nothing.
_FETCH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local field = 'fetch:' .. ARGV[1]
if ARGV[2] == ARGV[3] then return redis.call('HDEL', KEYS[1], field) end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. now[1])
return 1
"""
# A fetch of which nothing was heard for so long is not shown: its worker is gone.
_FETCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as the channel shows it. Times are Redis's clock, in seconds."""

    run_id: str
    state: str
    stage: str
    percent: float
    tables: Mapping[str, tuple[int, int]]
    rows_per_second: float
    eta_seconds: float | None
    workers: Mapping[str, tuple[int, int, float]]
    errors: tuple[str, ...]
    updated_at: float
    asked_at: float
    fetching: Mapping[str, tuple[int, int]]

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return sum(steps for _, steps, _ in self.workers.values())

    @property
    def has_ended(self) -> bool:
        """Whether the run is in one of its ends."""
        return self.state not in IN_PROGRESS

    def to_json(self) -> dict[str, Any]:
        """Return the documented object; ``fetching`` is there while someone fetches the source."""
        progress: dict[str, Any] = {
            "run_id": self.run_id,
            "state": self.state,
            "stage": self.stage,
            "percent": round(self.percent, 1),
            "tables": {
                name: {"done_rows": done, "total_rows": total}
                for name, (done, total) in self.tables.items()
            },
            "rows_per_second": round(self.rows_per_second, 1),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
            "workers": {
                name: {"rows": rows, "steps": steps, "last_seen": seen}
                for name, (rows, steps, seen) in self.workers.items()
            },
            "errors": list(self.errors),
            "updated_at": self.updated_at,
        }
        if self.fetching:
            progress["fetching"] = {
                name: {"bytes": here, "total_bytes": total}
                for name, (here, total) in self.fetching.items()
            }
        return progress


class Channel:
    """The progress channel of all runs on one Redis."""

    def __init__(self, url: str) -> None:
        # One try: who writes progress has better things to do, who reads it may ask again.
        self._redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._count = self._redis.register_script(_COUNT)
        self._build = self._redis.register_script(_BUILD)
        self._fetch = self._redis.register_script(_FETCH)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def ping(self) -> None:
        """Raise :class:`BrokerError` unless Redis answers."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise unreachable(error) from None

    def server_version(self) -> str:
        """Return the server's version. Raises :class:`BrokerError`."""
        try:
            info = self._redis.info("server")
        except redis.RedisError as error:
            raise unreachable(error) from None
        return str(info.get("valkey_version", info["redis_version"]))

    def queue_length(self, queue: str) -> int:
        """Return how many messages wait in a Celery queue. Raises :class:`redis.RedisError`."""
        return self._redis.llen(queue)

    def publish(self, pool: ConnectionPool, result: StepResult) -> None:
        """Count a step that was done, or the end it brought. Never raises for Redis's sake."""
        step = result.step
        if step is None:
            return
        try:
            if result.outcome is not None and not self._counted(result):
                self.rebuild(pool, step.run_id)
                self._counted(result)
            if result.state is not None:
                self.rebuild(pool, step.run_id, replace=True)
        except redis.RedisError as error:
            _log.warning("progress was not published: %s", error)

    def fetching(self, run_id: str, worker: str, done: int, total: int) -> None:
        """Show how far a worker is with fetching the source. Never raises for Redis's sake."""
        try:
            self._fetch(keys=_keys(run_id)[:1], args=[worker, done, total])
        except redis.RedisError as error:
            _log.debug("the fetch was not shown: %s", error)

    def rebuild(self, pool: ConnectionPool, run_id: str, *, replace: bool = False) -> None:
        """Build the run's hash from the ledger where it is missing; ``replace`` it at a run's end.

        Raises :class:`redis.RedisError`.
        """
        fields, bitmap = _from_ledger(pool, run_id)
        flat = [part for pair in fields.items() for part in pair]
        self._build(
            keys=[*_keys(run_id), "kg:latest"],
            args=[run_id, EXPIRES_SECONDS, int(replace), bitmap, *flat],
        )

    def keep(self, pool: ConnectionPool, run_id: str, *, replace: bool = False) -> None:
        """Do :meth:`rebuild`, and only log where Redis can't be reached."""
        try:
            self.rebuild(pool, run_id, replace=replace)
        except redis.RedisError as error:
            _log.warning("progress was not published: %s", error)

    def read(self, run_id: str | None = None) -> Progress:
        """Return a run's progress, the latest one's by default, in one round trip (two for that).

        Raises :class:`BrokerError` where Redis can't be asked, :class:`RunNotFoundError` where it
        knows no such run.
        """
        try:
            wanted = run_id or cast("str | None", self._redis.get("kg:latest"))
            if wanted is None:
                raise RunNotFoundError("Redis knows of no run", "start one: kg migrate SOURCE")
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(_keys(wanted)[0])
            pipe.time()
            fields, (seconds, micros) = pipe.execute()
        except redis.RedisError as error:
            raise unreachable(error) from None
        if not fields:
            raise RunNotFoundError(
                f"Redis knows of no run {wanted!r}",
                "kg runs lists the runs in the ledger; kg resume publishes one again",
            )
        return _progress(wanted, fields, seconds + micros / 1e6)

    def events(self, run_id: str, wait_seconds: float = 1.0) -> Iterator[Mapping[str, str] | None]:
        """Yield the run's events from the first that is kept on; None where none came in time.

        Raises :class:`BrokerError`.
        """
        last = "0"
        key = _keys(run_id)[2]
        while True:
            try:
                answer = cast("Any", self._redis.xread({key: last}, 500, int(wait_seconds * 1000)))
            except redis.RedisError as error:
                raise unreachable(error) from None
            if not answer:
                yield None
                continue
            for name, event in answer[0][1]:
                last = name
                yield event

    def _counted(self, result: StepResult) -> bool:
        """Count a step once; False where the hash is missing."""
        step = result.step
        if step is None:
            return True
        rows = step.rows if step.stage is Stage.LOAD else 0
        arguments: list[str | int | float] = [
            *(step.position, step.table, rows, step.weight, result.worker, step.stage),
            *(EXPIRES_SECONDS, _EVENTS),
        ]
        return bool(self._count(keys=_keys(step.run_id), args=arguments))


def unreachable(error: Exception) -> BrokerError:
    """Return the error that says why Redis can't be used, and the mend. No password is in it."""
    text = " ".join(str(error).split())
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return BrokerError("Redis refused the login", "correct the password in KG_REDIS_URL")
    if isinstance(error, redis.OutOfMemoryError) or text.startswith("OOM"):
        return BrokerError(
            "Redis is out of memory (maxmemory, noeviction)",
            "raise maxmemory or free space; the run then goes on: kg resume RUN",
        )
    if isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in text:
        return BrokerError(
            f"Redis forbids a command or a key to this user: {text}",
            "give the user the rights that docs/security.md lists",
        )
    if "certificate" in text.lower():
        return BrokerError(
            f"the Redis server doesn't prove that it is the right one: {text}",
            "set KG_REDIS_CA_FILE to the certificate of the authority that signed the server's, and"
            " the host in KG_REDIS_URL to the name that it is for",
        )
    return BrokerError(
        f"Redis can't be reached: {text}",
        "start it, or correct KG_REDIS_URL; to try things: kg embedded up",
    )


def _keys(run_id: str) -> list[str]:
    key = f"kg:run:{run_id}"
    return [key, f"{key}:steps", f"{key}:events"]


def _from_ledger(pool: ConnectionPool, run_id: str) -> tuple[dict[str, str | float], bytes]:
    """Return the hash's fields and the bitmap, both as of one moment of the ledger."""
    with ledger.frozen_view(pool) as cursor:
        run = ledger.read_run(cursor, run_id)
        tables = ledger.table_totals(cursor, run_id)
        stages = ledger.stage_progress(cursor, run_id)
        workers = ledger.worker_totals(cursor, run_id)
        positions = ledger.done_positions(cursor, run_id)
    fields: dict[str, str | float] = {
        "state": str(run.state),
        "errors": json.dumps([run.error] if run.error else []),
        "weight": sum(stage.weight for stage in stages.values()),
        "done_weight": sum(stage.done_weight for stage in stages.values()),
    }
    for name, table in tables.items():
        fields |= {f"total:{name}": table.source_rows, f"done:{name}": table.done_rows}
    for stage, progress in stages.items():
        fields[f"left:{stage}"] = progress.steps - progress.done_steps
    for name, worker in workers.items():
        fields |= {f"rows:{name}": worker.rows, f"steps:{name}": worker.steps}
    bitmap = bytearray(max(positions, default=-1) // 8 + 1)
    for position in positions:
        bitmap[position // 8] |= 0x80 >> position % 8  # Redis counts bits from the left.
    return fields, bytes(bitmap)


def _progress(run_id: str, fields: Mapping[str, str], asked_at: float) -> Progress:
    def named(prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in fields.items()
            if name.startswith(prefix)
        }

    done, steps, seen = named("done:"), named("steps:"), named("seen:")
    tables = {name: (int(done.get(name, 0)), int(total)) for name, total in named("total:").items()}
    left = {name: int(number) for name, number in named("left:").items()}
    began, updated = float(fields["began"]), float(fields["updated"])
    running = fields["state"] == RunState.RUNNING
    seconds = max((asked_at if running else updated) - began, 1e-3)
    weight = float(fields["weight"])
    share = min(float(fields["done_weight"]) / weight, 1.0) if weight else 1.0
    return Progress(
        run_id=run_id,
        state=fields["state"],
        stage=next((str(stage) for stage in Stage if left.get(stage, 0) > 0), str(Stage.CUTOVER)),
        percent=100.0 * share,
        tables=tables,
        rows_per_second=sum(rows for rows, _ in tables.values()) / seconds,
        eta_seconds=seconds * (1 - share) / share if running and share > 0 else None,
        workers={
            name: (int(rows), int(steps.get(name, 0)), float(seen.get(name, updated)))
            for name, rows in named("rows:").items()
        },
        errors=tuple(json.loads(fields["errors"])),
        updated_at=updated,
        asked_at=asked_at,
        fetching=_fetching(named("fetch:"), asked_at),
    )


def _fetching(fields: Mapping[str, str], asked_at: float) -> dict[str, tuple[int, int]]:
    parsed = {name: tuple(map(int, value.split())) for name, value in fields.items()}
    return {
        name: (here, total)
        for name, (here, total, at) in parsed.items()
        if asked_at - at < _FETCH_SECONDS
    }
