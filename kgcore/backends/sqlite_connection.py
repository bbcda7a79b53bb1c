"""A SQLite connection of one thread that other threads may ask to be closed."""

import sqlite3
from collections.abc import Callable


class ThreadConnection:
    """A thread's connection; one that was retired closes when its work ends.

    Closed in the middle of another thread's call, it would crash the process. So each call is a
    ``with`` block after :meth:`begin_call`, and whoever retires the connection closes it only
    between calls, and outside a transaction. ``on_close`` is called with it then; twice does no
    harm.

    There is no lock, which every short read would pay for. Its thread counts a call first and then
    looks whether it is retired; whoever retires it says so first and then looks for calls. So at
    least one of them sees the other.
    """

    def __init__(
        self, connection: sqlite3.Connection, on_close: Callable[["ThreadConnection"], None]
    ) -> None:
        self._connection = connection
        self._on_close = on_close
        self._calls = 0  # Several, where parameters are made by calls of their own.
        self._retired = False

    def begin_call(self) -> bool:
        """Keep it open until the ``with`` block's end; return False if it is closed."""
        self._calls += 1
        if self._retired and not self.in_transaction:
            self.__exit__()
            return False
        return True

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if self._retired:
            self.retire()

    @property
    def in_transaction(self) -> bool:
        """Whether it has an open transaction."""
        try:
            return self._connection.in_transaction
        except sqlite3.ProgrammingError:  # It is closed.
            return False

    def retire(self) -> None:
        """Close it now or, if it is in a call or a transaction, when that ends."""
        self._retired = True
        if not self._calls and not self.in_transaction:
            self.close()

    def close(self) -> None:
        """Close it whatever it is in: for the end of its thread."""
        self._retired = True
        self._on_close(self)
        self._connection.close()
