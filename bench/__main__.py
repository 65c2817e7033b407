"""`python -m bench [--part PART] [--quick] [--draw]`: measure, write the results, draw their pages."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

PARTS = {"data": "bench.run", "control": "bench.control.run", "sidecar": "bench.sidecar.run"}
"""Part -> module whose `main` runs it, in this order."""


def main() -> int:
    """0, or that of the first part whose run is worth nothing; those after it do not run."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument(
        "--quick", action="store_true", help="few points and rounds; no page in docs/ is touched"
    )
    parser.add_argument("--draw", action="store_true", help="only draw the pages again from the results")
    arguments = parser.parse_args()
    for part in [arguments.part] if arguments.part else PARTS:
        status: int = import_module(PARTS[part]).main(quick=arguments.quick, draw=arguments.draw)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
