"""Hosts made of network namespaces, each with a file tree of its own, on one bridge.

The fourth host, with PostgreSQL and Redis, is the namespace of the test itself.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import unavailable
from tests.servers import launcher
from tests.workers.kg import Kg


@dataclass(frozen=True)
class Network:
    """A bridge with an address of the test's own; hosts are plugged into it."""

    name: str
    subnet: str
    directory: Path

    @property
    def address(self) -> str:
        """Where the servers of the fourth host are reached."""
        return f"{self.subnet}.1"


@dataclass(frozen=True)
class Host:
    """A network namespace, and the folder that processes in it see as ``/…/host``."""

    network: Network
    number: int

    @property
    def namespace(self) -> str:
        return f"{self.network.name}-{self.number}"

    @property
    def address(self) -> str:
        return f"{self.network.subnet}.{self.number + 10}"

    @property
    def tree(self) -> Path:
        """The host's own folder, as the test sees it."""
        return self.network.directory / "trees" / str(self.number)

    @property
    def home(self) -> Path:
        """The host's own folder, as it sees it itself: the same path on every host."""
        return self.network.directory / "host"

    def command(self) -> list[str]:
        """What is put before a command to run it on this host, where other trees are hidden."""
        # `ip netns exec` makes a mount namespace, too: what is mounted in it stays there.
        hide = (
            f"mount --bind {self.tree} {self.home}"
            f" && mount -t tmpfs tmpfs {self.network.directory / 'trees'}"
            f' && cd {self.home} && exec "$@"'
        )
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", hide, "sh"]

    def kg(self, environment: dict[str, str]) -> Kg:
        """The command ``kg`` on this host."""
        own = {"HOME": str(self.home), "KG_DATA_DIR": str(self.home / "data")}
        return OnHost(environment | own, self.network.directory, self)

    def cut(self) -> None:
        """Take the host off the network: nothing comes or goes, and nobody is told."""
        ip("link", "set", self.namespace, "down")

    def plug_in(self) -> None:
        """Put it back."""
        ip("link", "set", self.namespace, "up")


@dataclass(frozen=True)
class OnHost(Kg):
    """The command ``kg`` on a host."""

    host: Host

    @property
    def command(self) -> list[str]:
        return [*self.host.command(), *super().command]


def ip(*arguments: str) -> None:
    """Run iproute2's ``ip``."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def network(directory: Path) -> Iterator[Network]:
    """Make a bridge. Skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        unavailable("hosts made of network namespaces need root and iproute2")
    name = f"kg{secrets.token_hex(3)}"
    subnet = f"10.{77 + secrets.randbelow(100)}.{secrets.randbelow(256)}"
    made = subprocess.run(
        ["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        unavailable(f"network devices can't be made here: {made.stderr.strip()}")
    directory.chmod(0o755)
    (directory / "host").mkdir()
    try:
        ip("address", "add", f"{subnet}.1/24", "dev", name)
        ip("link", "set", name, "up")
        yield Network(name, subnet, directory)
    finally:
        ip("link", "delete", name)


@contextmanager
def host(network: Network, number: int, *, slow: bool = False) -> Iterator[Host]:
    """Make a host and plug it in; with ``slow``, over a long line that loses packets."""
    made = Host(network, number)
    made.tree.mkdir(parents=True)
    (made.tree / "data").mkdir()
    with ExitStack() as stack:
        ip("netns", "add", made.namespace)
        stack.callback(ip, "netns", "delete", made.namespace)
        if slow:
            stack.enter_context(_long_line(made))
        else:
            ip(
                *("link", "add", made.namespace, "type", "veth"),
                *("peer", "name", "eth0", "netns", made.namespace),
            )
        ip("link", "set", made.namespace, "master", network.name, "up")
        ip("-n", made.namespace, "link", "set", "lo", "up")
        ip("-n", made.namespace, "link", "set", "eth0", "up")
        ip("-n", made.namespace, "address", "add", f"{made.address}/24", "dev", "eth0")
        yield made


@contextmanager
def _long_line(host: Host) -> Iterator[None]:
    """Join two taps by a process that delays packets and loses some.

    `tc netem` would do the same, but many kernels are built without it.
    """
    if not Path("/dev/net/tun").exists():
        unavailable("this kernel has no /dev/net/tun")
    program = Path(__file__).with_name("long_line.py")
    line = subprocess.Popen(
        [*launcher(), sys.executable, str(program), host.namespace, f"{host.namespace}e"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert line.stdout
        assert line.stdout.readline() == "ready\n"
        ip("link", "set", f"{host.namespace}e", "netns", host.namespace, "name", "eth0")
        yield
    finally:
        said, _ = line.communicate("\n", timeout=30)
    passed, lost = map(int, said.split())
    assert passed > 100
    assert lost > 0, f"none of {passed} packets was lost"
