"""The sidecar engine of production: its loader as a process, its programs, gate, Envoy and rules."""

from __future__ import annotations

import time
from pathlib import Path

from bench.rules import Rule, to_spec
from bench.sidecar.wanted import Rules, wanted
from bench.systems.system import System
from bench.world import PORT, UPLOAD_PORT
from support.daemon import LoaderDaemon
from yett_loader.sidecar.engine import open_ports


class Redirect(System):
    """Ingress rules at the server's veth; packets reach Envoy by the gate."""

    name = "sidecar"
    label = "sidecar engine"
    enforces = True

    def __init__(self) -> None:
        super().__init__()
        self.loader = LoaderDaemon(self.world.topology.node, "bench-sidecar")
        self.cleanup.callback(self._close)
        self.loader.start()

    @property
    def envoy(self) -> int:
        """The process, 0 if it does not run."""
        return int(self.loader.status()["sidecar"]["running"])

    @property
    def pids(self) -> list[int]:
        """The origin's, Envoy's and the loader's, which takes the records."""
        return [*super().pids, self.envoy, self.loader.pid]

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """The same rules on both ports."""
        spec = to_spec(rules)
        self.apply({PORT: spec, UPLOAD_PORT: spec})

    def apply(self, rules: Rules, engine: str = "Sidecar") -> float:
        """In force on return; the seconds that the loader's agent took."""
        seconds = float(self.loader.push(wanted(self.world.topology, rules, engine))["seconds"])
        deadline = time.monotonic() + 60
        while not self._listens():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Envoy does not listen: {self.loader.log()}")
            time.sleep(0.02)
        return seconds

    def _listens(self) -> bool:
        """The first Envoy may take longer than the loader waits for it."""
        status = self.loader.status()["sidecar"]
        if not status["rulesets"]:
            return True
        with self.world.topology.node:
            return bool(status["running"]) and set(status["rulesets"].values()) <= open_ports()

    def resident(self) -> int:
        """Bytes of memory that Envoy holds."""
        return resident(self.envoy)

    def _close(self) -> None:
        self.loader.close()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, without files that others map too."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")) * 1024
