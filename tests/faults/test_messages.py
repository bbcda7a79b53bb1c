"""Messages that nobody should act on: late ones, strange ones, hostile ones."""

import json
import pickle
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from kombu import Connection, Queue

from kgcore.migration import runs
from kgcore.migration.model import RunState, StepRef
from tests.faults.holds import ROW
from tests.faults.scene import Scene, children
from tests.workers.kg import wait_for

# What Celery puts around a task's arguments.
_EMBEDDED = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _publish(
    scene: Scene, body: bytes, content_type: str = "application/json", **headers: Any
) -> None:
    """Send a body as it is, under headers as Celery's, or these."""
    with Connection(scene.redis_url) as connection:
        connection.Producer().publish(
            body,
            routing_key=scene.queue,
            content_type=content_type,
            content_encoding="utf-8",
            headers={"task": "kg.step", "id": str(uuid4()), "lang": "py"} | headers,
            declare=[Queue(scene.queue)],
        )


def _body(arguments: str) -> bytes:
    return f"[{arguments}, {{}}, {_EMBEDDED}]".encode()


def test_messages_of_another_time_or_run_are_refused(scene: Scene) -> None:
    scene.begin()
    cancelled, cancelled_steps = scene.run, scene.ids("true")
    runs.cancel(scene.backend.pool, cancelled)
    scene.begin(max_attempts=1)
    scene.trigger(ROW, "refuse_row()")
    ended = scene.step_here(StepRef(scene.run, scene.held_step, 1))
    assert ended.state is RunState.FAILED
    scene.untrigger()
    runs.resume(scene.backend.pool, scene.run)
    assert scene.fact("epoch") == 2
    steps = scene.ids("true")
    late = [(scene.run, step, epoch) for step in steps for epoch in (0, 1, 3)]
    late += [(cancelled, step, epoch) for step in (*cancelled_steps, *steps) for epoch in (1, 2)]
    late += [("20200101-000000-abcdef", step, 1) for step in steps]
    late += [(scene.run, step, 2) for step in cancelled_steps]
    with scene.kg.workers(1) as workers:
        before = children(*workers)
        with scene.strike():
            scene.send(*late)
            wait_for(lambda: scene.in_the_broker() == 0)
            assert scene.received() == len(late)
            assert set(scene.attempts().values()) == {0}
        with scene.follow() as coordinator:
            scene.complete(coordinator)
        assert children(*workers) == before


def test_strange_arguments_do_nothing_and_the_worker_lives(scene: Scene, tmp_path: Path) -> None:
    scene.begin()
    step = scene.held_step
    strange: list[tuple[Any, ...]] = [
        (),
        ("x",),
        (None, None, None),
        (scene.run, str(step), 1),
        (scene.run, step, "1"),
        (scene.run, float(step), 1),
        (scene.run, [step], 1),
        ([scene.run], step, 1),
        ({"run_id": scene.run}, step, 1),
        (scene.run, step, 1, 1),
        (scene.run, -1, 1),
        (scene.run, 2**63, 1),
        (scene.run, 10**400, 1),
        (scene.run, step, 10**400),
        ("\0", step, 1),
        ("\ud800", step, 1),
        ("'; DROP SCHEMA kg_migration CASCADE; --", step, 1),
        ("../../../etc/passwd", step, 1),
        ({"path": "/etc/passwd", "run_id": [[[["/"]]]]}, step, 1),
        (True, step, 1),
        ("x" * 5_000_000, step, 1),
    ]
    deep = "[" * 100_000 + "]" * 100_000
    bomb = pickle.dumps([[_Bomb(tmp_path / "exploded")], {}, {}])
    with scene.kg.workers(1) as workers:
        before = children(*workers)
        with scene.strike():
            scene.send(*strange)
            scene.send((scene.run, step, 1), task="os.system")
            _publish(scene, _body(deep))
            _publish(scene, _body(f"[{deep}, {step}, 1]"))
            _publish(scene, b"no JSON")
            _publish(scene, b"\xff\xfe")
            _publish(scene, bomb, "application/x-python-serialize")
            wait_for(lambda: scene.in_the_broker() == 0)
            assert set(scene.attempts().values()) == {0}
            assert not (tmp_path / "exploded").exists()
        with scene.follow() as coordinator:
            scene.complete(coordinator)
        assert children(*workers) == before


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"null", {}),
        (b"{}", {}),
        (b"[1]", {}),
        (_body('["x", 1, 1]'), {"id": ["no", "text"]}),
        (_body('["x", 1, 1]'), {"timelimit": "no pair"}),
        (_body('["x", 1, 1]'), {"eta": "2999-01-01T00:00:00"}),
        (_body('["x", 1, 1]'), {"expires": ["/etc/passwd"], "retries": "many"}),
        (b'[["x", 1, 1], {"path": "/etc/passwd"}, {"callbacks": "x"}]', {}),
        (b'["' + b"x" * 5_000_000 + b'"]', {}),
    ],
    ids=["null", "object", "short", "id", "timelimit", "eta", "expires", "keywords", "huge"],
)
def test_a_message_of_another_shape_does_not_kill_workers(
    body: bytes, headers: dict[str, Any], scene: Scene
) -> None:
    with scene.kg.workers(1) as (worker,):
        _publish(scene, body, **headers)
        wait_for(lambda: scene.in_the_broker() == 0 or worker.poll() is not None)
        assert scene.in_the_broker() == 0
        scene.send(("no run", 1, 1))
        wait_for(lambda: scene.in_the_broker() == 0)
        assert worker.poll() is None


# Entries as anyone with the broker's password may push them; a message is an object of this kind.
_HEADERS: dict[str, Any] = {"task": "kg.step", "id": "x", "lang": "py"}
_PROPERTIES: dict[str, Any] = {
    "delivery_tag": "tag",
    "delivery_info": {"exchange": "", "routing_key": "x"},
    "body_encoding": "base64",
}
_MESSAGE: dict[str, Any] = {
    "body": "bnVsbA==",
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": _HEADERS,
    "properties": _PROPERTIES,
}


_NO_MESSAGES: list[bytes | dict[str, Any]] = [
    b"no message",
    b"\xff\xfe",
    b"",
    b"[" * 100_000,
    b"null",
    b"1e999",
    b"[]",
    b'"text"',
    b"{}",
    {"properties": None},
    {"properties": {}},
    _MESSAGE | {"properties": _PROPERTIES | {"delivery_tag": ["no", "text"]}},
    _MESSAGE | {"properties": _PROPERTIES | {"delivery_tag": {}}},
    _MESSAGE | {"properties": _PROPERTIES | {"delivery_info": "x"}},
    _MESSAGE | {"properties": _PROPERTIES | {"delivery_info": None}},
    _MESSAGE | {"properties": _PROPERTIES | {"body_encoding": "unknown"}},
    _MESSAGE | {"body": "no base64"},
    _MESSAGE | {"body": 5},
    _MESSAGE | {"body": None},
    _MESSAGE | {"headers": None},
    _MESSAGE | {"headers": []},
    _MESSAGE | {"headers": {}},
    _MESSAGE | {"headers": _HEADERS | {"task": ["no", "text"]}},
    _MESSAGE | {"headers": _HEADERS | {"task": {}}},
    _MESSAGE | {"headers": _HEADERS | {"id": None}},
    _MESSAGE | {"content-type": ["no", "text"]},
    _MESSAGE | {"content-encoding": 7},
]


def test_what_is_no_message_is_thrown_away(scene: Scene) -> None:
    scene.begin()
    with scene.kg.workers(1) as (worker,), redis.Redis.from_url(scene.redis_url) as client:
        before = children(worker)
        client.lpush(
            scene.queue,
            *(entry if isinstance(entry, bytes) else json.dumps(entry) for entry in _NO_MESSAGES),
        )
        wait_for(lambda: scene.in_the_broker() == 0 or worker.poll() is not None)
        assert (worker.poll(), scene.in_the_broker()) == (None, 0)
        with scene.follow() as coordinator:
            scene.complete(coordinator)
        assert children(worker) == before


def test_a_step_of_a_stage_whose_turn_has_not_come(scene: Scene) -> None:
    scene.begin()
    early = [(scene.run, step, 1) for step in scene.ids("stage <> 'load'")]
    with scene.kg.workers(1):
        with scene.strike():
            scene.send(*early)
            wait_for(lambda: scene.in_the_broker() == 0)
            assert scene.received() == len(early)
            assert set(scene.attempts().values()) == {0}
        with scene.follow() as coordinator:
            scene.complete(coordinator)
