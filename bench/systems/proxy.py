"""A proxy process on the node, restarted with a new configuration for each rule set."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.rules import Rule
from bench.systems.system import System
from bench.systems.tproxy import PROXY_PORT, divert
from bench.world import await_port, spawn, stop


class Proxy(System, ABC):
    """The base of HAProxy and Envoy."""

    enforces = True
    replies = True
    """Whether it connects to the server from the client's address."""

    def __init__(self) -> None:
        super().__init__()
        divert(self.world.topology, replies=self.replies)
        self._process: subprocess.Popen[bytes] | None = None
        self.cleanup.callback(self._stop)

    @property
    def pids(self) -> list[int]:
        """The origin's and the proxy's."""
        return [*super().pids, *([self._process.pid] if self._process else [])]

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """Write the configuration and restart."""
        self._stop()
        argv = self.argv(rules, self.world.directory)
        log = self.world.directory / f"{self.name}.log"
        node = self.world.topology.node
        self._process = spawn(node, argv, log)
        await_port(node, ("127.0.0.1", PROXY_PORT), self._process, log)

    @abstractmethod
    def argv(self, rules: tuple[Rule, ...], directory: Path) -> Sequence[str]:
        """The command, its files written below `directory`."""

    def _stop(self) -> None:
        if self._process:
            stop(self._process)
            self._process = None
