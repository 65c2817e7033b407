"""The part of packets: measure, write the result, draw the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import engine, machine, plots, points
from bench.check import WrongVerdict
from bench.load import LoadError
from bench.measure import measure
from bench.page import write_page

ROOT = Path(__file__).resolve().parents[1]


def main(*, quick: bool, draw: bool) -> int:
    """0, or 1 with the reason why the run is worth nothing."""
    path = ROOT / "build" / "bench-quick.json" if quick else ROOT / "docs" / "benchmarks.json"
    if not draw:
        try:
            result = run(quick=quick)
        except (LoadError, WrongVerdict) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, separators=(",", ":")).replace('},{"axis"', '},\n{"axis"') + "\n")
    result = json.loads(path.read_text())
    folder = path.parent if quick else ROOT / "docs"
    page = folder / ("bench-quick.md" if quick else "benchmarks.md")
    write_page(result, page)
    if not quick:
        plots.draw(result, ROOT / "docs" / "img")
    print(f"bench: wrote {page.relative_to(ROOT)}")
    return 0


def run(*, quick: bool) -> dict[str, object]:
    """Everything, in order; the machine's state around it."""
    watch = machine.Watch()
    chosen = points.quick() if quick else points.full()
    measured, checks = measure(chosen)
    result = {
        "quick": quick,
        "machine": machine.describe(),
        "points": measured,
        "checks": checks,
        "runs": engine.runs(),
        "verifier": engine.verifier(),
        "tables": engine.tables(),
        "compile": engine.compile_times(),
    }
    return result | watch.result()
