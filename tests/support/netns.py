"""Network namespaces for tests: a client, a node that routes, and a server.

The namespaces have no name: they live as file descriptors of this process, so nothing is
left behind even if the test run is killed.  A thread enters a namespace with `with ns:`;
sockets and child processes made inside stay there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import if_nametoindex
from typing import Self

from support.capabilities import privileged

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *args: int) -> None:
    with privileged():
        errno = ctypes.get_errno() if getattr(_libc, function)(*args) != 0 else 0
    if errno:
        raise OSError(errno, f"cannot {function} a network namespace: {os.strerror(errno)}")


def _open_current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """One network namespace, entered per thread with `with`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._outer = threading.local()
        fds: list[int] = []

        def make() -> None:
            # A new thread, so that the caller's own namespace never changes.
            _call("unshare", _CLONE_NEWNET)
            fds.append(_open_current())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not fds:
            raise OSError("cannot make a network namespace: are you root?")
        self.fd = fds[0]
        with self:
            ip("link set lo up")
            sysctl("net/ipv6/conf/default/accept_dad", 0)
            sysctl("net/ipv6/conf/default/accept_ra", 0)
            sysctl("net/ipv4/conf/all/rp_filter", 0)
            sysctl("net/ipv4/conf/default/rp_filter", 0)
            # An attacker of the tests sends hundreds of odd packets a second.
            sysctl("net/ipv4/tcp_invalid_ratelimit", 0)

    @property
    def path(self) -> str:
        """A path by which other programs can name the namespace while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self) -> Self:
        stack: list[int] = self._outer.__dict__.setdefault("stack", [])
        stack.append(_open_current())
        _call("setns", self.fd, _CLONE_NEWNET)
        return self

    def __exit__(self, *_: object) -> None:
        outer = self._outer.stack.pop()
        try:
            _call("setns", outer, _CLONE_NEWNET)
        finally:
            os.close(outer)

    def run(self, argv: Sequence[str], *, timeout: float = 20) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside and wait; it may fail, the caller looks at the result."""
        with self:
            return subprocess.run(argv, capture_output=True, timeout=timeout, check=False)

    def popen(self, argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a command inside."""
        with self:
            return subprocess.Popen(argv, **options)  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        """Let go of the namespace; the kernel removes it with its last socket."""
        os.close(self.fd)


def ip(commands: str) -> None:
    """Run `ip` commands, one a line, in the namespace of the calling thread."""
    subprocess.run(
        ["ip", "-batch", "-"], input=commands.encode(), check=True, stdout=subprocess.DEVNULL, timeout=20
    )


def sysctl(name: str, value: object) -> None:
    """Set a sysctl in the namespace of the calling thread; `name` with slashes."""
    Path("/proc/sys", name).write_text(str(value))


@dataclass(frozen=True)
class Side:
    """One end of the topology: a "pod" and the node's interface towards it."""

    namespace: Namespace
    mac: bytes
    """Of eth0 in the namespace."""
    gateway_mac: bytes
    """Of the node's interface."""
    ifindex: int
    """Of the node's interface, in the node's namespace."""
    ifname: str
    v4: str
    """The address of the namespace's kernel."""
    v6: str
    raw4: str
    """An address no kernel owns: userland TCP speaks from it, without a kernel's resets."""
    raw6: str
    gateway4: str
    gateway6: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the pod may send from."""
        return (self.v4, self.v6, self.raw4, self.raw6)

    def address(self, family: int) -> str:
        """The kernel's address for IP version 4 or 6."""
        return self.v4 if family == 4 else self.v6

    def raw_address(self, family: int) -> str:
        """The userland address for IP version 4 or 6."""
        return self.raw4 if family == 4 else self.raw6


@dataclass(frozen=True)
class Topology:
    """client (10.9.1.2) -- node (.1 on both) -- server (10.9.2.2), routed, IPv4 and IPv6."""

    client: Side
    node: Namespace
    server: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both pods."""
        return self.client, self.server


def _attach(node: Namespace, label: str, number: int) -> Side:
    namespace = Namespace(label)
    mac, gateway_mac = bytes([2, 0, 0, 9, number, 2]), bytes([2, 0, 0, 9, number, 1])
    ifname = f"{label}0"
    v4, v6 = f"10.9.{number}.", f"fd00:9:{number}::"
    with node:
        ip(f"""
            link add {ifname} address {gateway_mac.hex(":")} type veth peer name eth0 address {mac.hex(":")} netns {namespace.path}
            addr add {v4}1/24 dev {ifname}
            addr add {v6}1/64 dev {ifname} nodad
            link set {ifname} up
            neigh add {v4}3 lladdr {mac.hex(":")} dev {ifname} nud permanent
            neigh add {v6}3 lladdr {mac.hex(":")} dev {ifname} nud permanent
        """)
        ifindex = if_nametoindex(ifname)
    with namespace:
        ip(f"""
            addr add {v4}2/24 dev eth0
            addr add {v6}2/64 dev eth0 nodad
            link set eth0 up
            route add default via {v4}1
            route add ::/0 via {v6}1
        """)
    return Side(
        namespace=namespace,
        mac=mac,
        gateway_mac=gateway_mac,
        ifindex=ifindex,
        ifname=ifname,
        v4=f"{v4}2",
        v6=f"{v6}2",
        raw4=f"{v4}3",
        raw6=f"{v6}3",
        gateway4=f"{v4}1",
        gateway6=f"{v6}1",
    )


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    """Make the three namespaces and remove them at the end."""
    with contextlib.ExitStack() as cleanup:
        node = Namespace("node")
        cleanup.callback(node.close)
        with node:
            sysctl("net/ipv4/ip_forward", 1)
            sysctl("net/ipv6/conf/all/forwarding", 1)
        client = _attach(node, "client", 1)
        cleanup.callback(client.namespace.close)
        server = _attach(node, "server", 2)
        cleanup.callback(server.namespace.close)
        yield Topology(client=client, node=node, server=server)
