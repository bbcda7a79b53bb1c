"""A value for each thread, given back when its thread ends."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerThread(Generic[T]):
    """Holds at most one value for each thread.

    A thread that ends with its value still set (a transaction it never ended) has the value given
    back by the ``release`` it was set with. In a forked child all values are forgotten, and none is
    given back: they are the parent's.
    """

    def __init__(self) -> None:
        self._local: _Local[T] = _Local()
        _ALL.add(self)

    def get(self) -> T | None:
        """Return this thread's value, or None."""
        slot = self._local.slot
        return None if slot is None else slot.value

    def set(self, value: T, release: Callable[[T], None]) -> None:
        """Set this thread's value; it has none."""
        self._local.slot = _Slot(value, release)

    def take(self) -> T | None:
        """Return this thread's value, or None, and forget it; it is the caller's now."""
        slot = self._local.slot
        if slot is None:
            return None
        value, slot.value = slot.value, None
        return value

    def after_fork_in_child(self) -> None:
        """Forget all values. The interpreter calls it in a forked child; nobody else should."""
        self._local = _Local()


class _Slot(Generic[T]):
    # A thread's end drops its thread-local values, and this is how that is noticed.

    value: T | None = None  # Ctrl-C may come before there is another.

    def __init__(self, value: T, release: Callable[[T], None]) -> None:
        self.pid = os.getpid()
        self.release = release
        self.value = value

    def __del__(self) -> None:
        if self.value is not None and self.pid == os.getpid():
            self.release(self.value)


class _Local(threading.local, Generic[T]):
    # Of the class: each call asks, and an attribute that is missing takes six times as long.
    slot: _Slot[T] | None = None


_ALL: "weakref.WeakSet[PerThread[Any]]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for values in list(_ALL):
        values.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
