"""A SQLite connection of one thread that other threads may ask to be closed."""

import sqlite3
import threading
from collections.abc import Callable


class ThreadConnection:
    """A thread's connection; one that was retired closes when its work ends.

    Closed in the middle of another thread's call, it would crash the process. So each call is a
    ``with`` block after :meth:`begin_call`, and whoever retires the connection closes it only
    between calls, and outside a transaction. ``on_close`` is called with it when it closes.
    """

    def __init__(
        self, connection: sqlite3.Connection, on_close: Callable[["ThreadConnection"], None]
    ) -> None:
        self._connection = connection
        self._on_close = on_close
        self._lock = threading.RLock()  # A signal's handler may close the backend, too.
        self._calls = 0  # Parameters may be made by calls of their own.
        self._retired = False
        self._closed = False

    def begin_call(self) -> bool:
        """Keep it open until the ``with`` block's end; return False if it is closed already."""
        with self._lock:
            if self._closed:
                return False
            self._calls += 1
            return True

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if self._retired:
                self.retire()

    @property
    def in_transaction(self) -> bool:
        """Whether it has an open transaction."""
        with self._lock:
            return not self._closed and self._connection.in_transaction

    def retire(self) -> None:
        """Close it now or, if it is in a call or a transaction, when that ends."""
        with self._lock:
            self._retired = True
            if not self._calls and not self.in_transaction:
                self.close()

    def close(self) -> None:
        """Close it now; its own thread does, outside calls, or someone after that thread's end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._on_close(self)
                self._connection.close()
