"""A line between two tap devices: 10 ms each way, and one packet in a hundred is lost.

Started as a program with the devices' names; says ``ready``, ends with its input, and says how many
packets passed and how many were lost.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

DELAY_SECONDS = 0.010
LOSS = 0.01

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000


def tap(name: str) -> int:
    """Make a tap device, which lives as long as this process; return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def main(names: list[str]) -> None:
    """Carry packets until the input ends."""
    near, far = map(tap, names)
    stdin = sys.stdin.fileno()
    other = {near: far, far: near}
    chance = random.Random(7)
    under_way: list[tuple[float, int, int, bytes]] = []
    passed = lost = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        wait = max(under_way[0][0] - time.monotonic(), 0) if under_way else None
        readable, _, _ = select.select([near, far, stdin], [], [], wait)
        if stdin in readable:
            break
        for device in readable:
            packet = os.read(device, 65536)
            if chance.random() < LOSS:
                lost += 1
                continue
            passed += 1
            arrives = time.monotonic() + DELAY_SECONDS
            heapq.heappush(under_way, (arrives, passed, other[device], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            *_, device, packet = heapq.heappop(under_way)
            try:
                os.write(device, packet)
            except OSError:  # The device is down, or its queue is full: lost on the line.
                lost += 1
    sys.stdout.write(f"{passed} {lost}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
