"""`python -m bench [--quick] [--draw]`: measure, write the result, draw the page."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench import engine, machine, points
from bench.check import WrongVerdict
from bench.load import LoadError
from bench.measure import measure
from bench.page import write_page
from bench.plots import draw

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """0, or 1 with the reason why the run is worth nothing."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few points and rounds; the page is not touched")
    parser.add_argument("--draw", action="store_true", help="only draw the page again from the result")
    arguments = parser.parse_args()
    path = ROOT / "build" / "bench-quick.json" if arguments.quick else ROOT / "docs" / "benchmarks.json"
    if not arguments.draw:
        try:
            result = run(quick=arguments.quick)
        except (LoadError, WrongVerdict) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, separators=(",", ":")).replace('},{"axis"', '},\n{"axis"') + "\n")
    result = json.loads(path.read_text())
    folder = path.parent if arguments.quick else ROOT / "docs"
    page = folder / ("bench-quick.md" if arguments.quick else "benchmarks.md")
    write_page(result, page)
    if not arguments.quick:
        draw(result, ROOT / "docs" / "img")
    print(f"bench: wrote {page.relative_to(ROOT)}")
    return 0


def run(*, quick: bool) -> dict[str, object]:
    """Everything, in order; the machine's state around it."""
    begin, before, own = time.monotonic(), machine.processor_time(), machine.own_time()
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
    spent, after = time.monotonic() - begin, machine.processor_time()
    result["seconds"] = round(spent)
    total = sum(after.values()) - sum(before.values())
    idle = sum(after[name] - before[name] for name in ("idle", "iowait", "steal"))
    result["steal"] = round((after["steal"] - before["steal"]) / total, 4)
    result["others"] = round(max(0, total - idle - (machine.own_time() - own)) / total, 4)
    return result


if __name__ == "__main__":
    sys.exit(main())
