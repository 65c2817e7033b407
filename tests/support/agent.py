"""An agent on the running kernel, and interfaces for it that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import if_nametoindex

from support.netns import Namespace, ip
from yett_loader.agent import Agent
from yett_loader.datapath import Datapath, Sizes
from yett_loader.pins import Pins
from yett_loader.store import Store

OWN = ("10.9.1.1", "10.9.2.1", "fd00:9:1::1", "fd00:9:2::1")
"""Addresses of the node."""
SIZES = Sizes(policies=64, rulesets=8, endpoints=16, ipcache=64, flows=256)


class Node:
    """One agent at a time on one pin directory."""

    def __init__(self, bpffs: Path, state: Path, image: Path) -> None:
        self.pins = Pins(bpffs / "yett")
        self.state = state
        self.image = image

    async def start(self) -> Agent:
        agent = Agent(Datapath.start(self.pins, self.image, SIZES), Store(self.state))
        await agent.start()
        return agent


class Elsewhere:
    """A pod's network namespace, to which interfaces of the node lead."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.namespace = namespace
        self.address = address

    def appear(self, name: str) -> int:
        """Make one that the pod's address is behind; its number."""
        ip(f"""
            link add {name} type veth peer name {name}p netns {self.namespace.path}
            link set {name} up
            route add {self.address}/32 dev {name}
        """)
        return if_nametoindex(name)

    def vanish(self, name: str) -> None:
        """Take it away."""
        ip(f"link del {name}")


@contextmanager
def elsewhere(address: str = "10.70.0.1") -> Iterator[Elsewhere]:
    """The calling thread is in the node's namespace."""
    namespace = Namespace("elsewhere")
    try:
        yield Elsewhere(namespace, address)
    finally:
        namespace.close()
