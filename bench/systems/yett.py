"""The kernel engine: the object, the loader's code and the documents of production."""

from __future__ import annotations

import os

from bench.rules import Rule, to_spec
from bench.systems.system import System
from bench.world import PORT, UPLOAD_PORT
from support.enforce import BPFFS, Gate, compiled
from yett_policy.document import Direction


class Yett(System):
    """Ingress rules at the server's veth, and the client's veth governed too, as on a node."""

    name = "yett"
    label = "yett, both pods"
    enforces = True
    client = True

    def __init__(self) -> None:
        super().__init__()
        root = BPFFS / f"yett-test-{os.getpid()}-{self.name}"
        self.gate = Gate(self.world.topology, Direction.INGRESS, attach=False, pin_root=root)
        self.cleanup.callback(self.gate.close)
        self._attached = False

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """Compile, load and govern."""
        spec = to_spec(rules)
        self.gate.apply({PORT: spec, UPLOAD_PORT: spec})
        if not self._attached:
            self._attached = True
            with self.world.topology.node:
                for side in self.world.topology.sides:
                    if self.client or side is self.world.topology.server:
                        self.gate.datapath.attach(side.ifindex)

    @staticmethod
    def ruleset_bytes(rules: tuple[Rule, ...]) -> int:
        """Kernel memory of the compiled rules."""
        return len(compiled(to_spec(rules)).tables)


class YettServer(Yett):
    """Only the server's veth is governed: the engine without a second hook pair."""

    name = "yett-server"
    label = "yett, server's veth only"
    client = False
