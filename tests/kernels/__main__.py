"""Load and run the BPF programs on several kernels: make test-kernels.

usage: python -m kernels [6.1] [6.12] [running]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from kernels import boot, fetch, report
from kernels.errors import KernelsError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kernels.md"
OBJECT = ROOT / "build" / "yett.bpf.o"
RUNNING = "running"


def examine(series: str, guest: Path, directory: Path) -> report.Result:
    """One kernel; prints its line."""
    kernel = None if series == RUNNING else fetch.kernel(series)
    begin = time.monotonic()
    lines = boot.boot(kernel, guest, OBJECT, directory) if kernel else boot.here(guest, OBJECT)
    seconds = time.monotonic() - begin
    result = report.parse(lines)
    loaded = ", ".join(f"{name} {program.processed:,}" for name, program in result.programs.items())
    print(
        f"kernels: {result.release or series} in {seconds:.1f} s; loaded (instructions walked): {loaded or 'none'}"
    )
    for problem in report.problems(result):
        print(f"kernels: {result.release or series}: {problem}", file=sys.stderr)
    return result


def main(arguments: list[str]) -> int:
    """0: every program loads and denies on every kernel."""
    every = [*fetch.SUITES, RUNNING]
    kernels = arguments or every
    with tempfile.TemporaryDirectory(prefix="yett-kernels-") as name:
        try:
            guest = boot.build_guest(Path(name))
            results = [examine(kernel, guest, Path(name)) for kernel in kernels]
        except KernelsError as error:
            print(f"kernels: {error}", file=sys.stderr)
            return 1
    differences = report.differences(results)
    for difference in differences:
        print(f"kernels: {difference}", file=sys.stderr)
    if differences or any(report.problems(result) for result in results):
        return 1
    if kernels == every:
        PAGE.write_text(report.update(PAGE.read_text(), report.table(results, fetch.SUITES)))
    print(f"kernels: {len(results)} kernels passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
