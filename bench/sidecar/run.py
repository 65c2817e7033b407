"""`make bench` of the sidecar engine: measure, write the result, draw the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machine
from bench.check import WrongVerdict
from bench.load import LoadError
from bench.measure import measure
from bench.points import Point
from bench.sidecar import changes, points
from bench.sidecar.behind import Behind
from bench.sidecar.cost import cost
from bench.sidecar.kube_proxy import rules, with_kube_proxy
from bench.sidecar.page import write_page
from bench.sidecar.redirect import Redirect
from bench.sidecar.soak import soak
from bench.systems.system import System

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {"bare": System, "sidecar": Redirect, "tproxy": Behind}
_TIMES = 3
_CHANGES, _FEW_CHANGES = 100, 10
_SOAK, _SHORT_SOAK = (600, 1_000_000), (10, 1)
"""Seconds and requests, whichever takes longer."""


def main(*, quick: bool, draw: bool) -> int:
    """0, or 1 with the reason why the run is worth nothing."""
    folder, name = (ROOT / "build", "bench-sidecar-quick") if quick else (ROOT / "docs", "benchmarks-sidecar")
    path = folder / f"{name}.json"
    if not draw:
        try:
            result = run(quick=quick)
        except (LoadError, WrongVerdict) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, separators=(",", ":")).replace('},{"axis"', '},\n{"axis"') + "\n")
    result = json.loads(path.read_text())
    write_page(result, folder / f"{name}.md")
    if not quick:
        from bench.sidecar.plot import draw as draw_plot  # noqa: PLC0415 - matplotlib, only here

        draw_plot(result, folder / "img" / "bench-sidecar.svg")
    print(f"bench: wrote {folder.name}/{name}.md")
    return 0


def _measured(
    chosen: list[Point], systems: Mapping[str, Callable[[], System]], times: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each time with new processes: where their memory happens to lie is worth some percent, in all rounds alike."""
    runs = [measure(chosen, systems) for _ in range(times)]
    return [_joined(same) for same in zip(*(found for found, _ in runs), strict=True)], runs[-1][1]


def _joined(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One point, with the samples of all."""
    systems = {
        name: {what: [value for point in same for value in point["systems"][name][what]] for what in samples}
        for name, samples in same[0]["systems"].items()
    }
    return same[0] | {"systems": systems}


def run(*, quick: bool) -> dict[str, Any]:
    """Everything, in order; the machine's state around it."""
    watch = machine.Watch()
    times = 1 if quick else _TIMES
    measured, checks = _measured(points.full(), SYSTEMS, times)
    text = rules()
    kube = {name: with_kube_proxy(make, text) for name, make in SYSTEMS.items()}
    there, checked = _measured(points.kube(), kube, times)
    result: dict[str, Any] = {
        "quick": quick,
        "machine": machine.describe(),
        "points": measured + there,
        "checks": checks + [item | {"node": points.KUBE} for item in checked],
        "cost": cost(),
        "changes": changes.run(_FEW_CHANGES if quick else _CHANGES),
        "soak": asdict(soak(*(_SHORT_SOAK if quick else _SOAK))),
    }
    return result | watch.result()
