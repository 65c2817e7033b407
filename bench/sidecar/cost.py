"""What of a request is ours: runs and nanoseconds of the programs, by the kernel's own statistics."""

from __future__ import annotations

import contextlib

from bench import load, stats
from bench.request import Shape, requests
from bench.sidecar.points import KEPT, NEW, ONE
from bench.sidecar.redirect import Redirect
from bench.world import PORT
from yett_loader.kernel import Program


def cost() -> dict[str, dict[str, dict[str, float]]]:
    """Connections kept or new -> program -> runs for a request, nanoseconds of a run."""
    with contextlib.ExitStack() as cleanup:
        system = Redirect()
        cleanup.callback(system.close)
        system.configure(ONE.rules)
        programs = {
            name: cleanup.enter_context(contextlib.closing(Program.open(system.loader.pins.programs / name)))
            for name in ("from_pod", "to_pod", "gate")
        }
        return {
            KEPT: _counted(system, programs, close=False),
            NEW: _counted(system, programs, close=True),
        }


def _counted(system: Redirect, programs: dict[str, Program], *, close: bool) -> dict[str, dict[str, float]]:
    with stats.counting():
        before = {name: stats.runs(program) for name, program in programs.items()}
        sample = load.run(
            system.world.topology.client.namespace,
            f"http://{system.world.address}:{PORT}",
            requests(ONE.rules, Shape(close=close)),
            connections=32,
            seconds=2,
            pids=system.pids,
        )
        after = {name: stats.runs(program) for name, program in programs.items()}
    return {
        name: {
            "runs": round((after[name][0] - before[name][0]) / sample.requests, 2),
            "ns": round((after[name][1] - before[name][1]) / max(1, after[name][0] - before[name][0])),
        }
        for name in programs
    }
