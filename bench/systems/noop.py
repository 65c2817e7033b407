"""A program that does nothing, on the hooks on which yett's programs are."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.systems.system import System
from yett_loader.datapath import HOOKS
from yett_loader.kernel import Link, Object

_SOURCE = Path(__file__).parents[1] / "noop.bpf.c"


class Noop(System):
    """The cost of the hooks."""

    name = "noop"
    label = "no-op TC program"

    def __init__(self) -> None:
        super().__init__()
        image = self.world.directory / "noop.bpf.o"
        machine = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True)
        include = f"/usr/include/{machine.stdout.strip()}"
        argv = ["clang", "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-idirafter", include]
        subprocess.run([*argv, "-c", str(_SOURCE), "-o", str(image)], check=True)
        with Object.open(image) as opened, self.world.topology.node:
            opened.load()
            for side in self.world.topology.sides:
                for name, hook in HOOKS.items():
                    with opened.program(name) as program:
                        self.cleanup.callback(Link.create(program, side.ifindex, hook).close)
