"""The state of a psycopg2 connection: whether it lives, and how to make it as good as new."""

import select
from typing import Any

import psycopg2
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
)
from psycopg2.extensions import connection as Connection  # noqa: N812

#: For connections on which someone waits for an answer, and where nobody would notice that the
#: other side is gone: the kernel asks after 10 s, and gives up after 25. (Its own default is to ask
#: after two hours: so long a worker hung whose backend had been ended while it was cut off.)
KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # Milliseconds, for what was sent and not acknowledged.
}

# A server that ends a connection is noticed at any time. One that vanished, or a firewall that
# forgot the connection, only by asking: after so long it is worth a round trip.
_TRUSTED_SECONDS = 5.0


def is_alive(connection: Connection, idle_seconds: float) -> bool:
    """Whether a connection that was idle for so long can be used."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    # Nobody asked it anything: if there is something to read, it is most likely its farewell.
    if not poll.poll(0) and idle_seconds < _TRUSTED_SECONDS:
        return True
    try:
        connection.autocommit = True  # Else it would be three round trips: BEGIN and ROLLBACK.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except psycopg2.Error:
        return False
    return True


def reset(connection: Connection) -> bool:
    """End its transaction, undo session options; return False if it is of no more use.

    What psycopg2 was told for this connection alone (a cursor factory, an encoding, converters)
    can't be undone. Settings made with ``SET`` are the server's, and stay.
    """
    its_own: tuple[Any, ...] = (connection.cursor_factory, connection.string_types or None)
    if connection.closed or connection.encoding != "UTF8" or its_own != (None, None):
        return False
    status = connection.get_transaction_status()
    try:
        if status in {TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR}:
            connection.rollback()
        elif status != TRANSACTION_STATUS_IDLE:  # Lost, or left in the middle of a COPY.
            return False
        options = (connection.isolation_level, connection.readonly, connection.deferrable)
        if options == (None, None, None):  # To look takes a third of the time it takes to set.
            connection.autocommit = False
        else:
            connection.set_session("default", "default", "default", autocommit=False)
    except psycopg2.Error:
        return False
    return True
