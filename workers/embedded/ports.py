"""Where private servers listen: loopback, on a port that no client is given meanwhile."""

import secrets
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"
# Below the range that the kernel gives to clients (32768 on Linux): a port from there could be
# taken by a client while its server restarts.
PORTS = range(20_000, 32_000)


def candidates(remembered: int | None) -> Iterator[int]:
    """Yield ports that are free now, the remembered one first; they may be taken a moment later."""
    if remembered is not None and is_free(remembered):
        yield remembered
    for _ in range(100):
        port = secrets.choice(PORTS)
        if is_free(port):
            yield port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As the servers do.
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
