"""One sample: wrk for some seconds, and what the processor time of it was."""

from __future__ import annotations

import json
import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.netns import Namespace

_SCRIPT = Path(__file__).with_name("wrk.lua")


class LoadError(Exception):
    """A load that saw no load, or an answer that must not be: the run is worth nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of wrk saw."""

    rps: float
    p50: float
    """Microseconds."""
    p99: float
    cpu: float
    """Microseconds of processor time per request: wrk's, the origin's and the peer's, kernel included."""
    requests: int = 0
    """Answered."""


def cpu_ns(pid: int) -> int:
    """Processor time of all threads of a process so far."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total


def run(
    namespace: Namespace,
    url: str,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: int,
    pids: Sequence[int],
    may_close: bool = False,
) -> Sample:
    """Load `url` with these requests in turn; LoadError unless every one was answered with 200."""
    with tempfile.NamedTemporaryFile() as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
        file.flush()
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=5s", "-s", str(_SCRIPT), url]
        with namespace:
            before, used = [cpu_ns(pid) for pid in pids], resource.getrusage(resource.RUSAGE_CHILDREN)
            output = _capture(argv, {**os.environ, "WRK_REQUESTS": file.name})
            after, spent = [cpu_ns(pid) for pid in pids], resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        seen = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        raise LoadError(f"cannot read wrk's report on {url}: it ends with {output[-300:]!r}") from None
    errors = {name: seen[name] for name in ("connect", "read", "write", "timeout", "status") if seen[name]}
    if errors and not may_close:
        raise LoadError(f"cannot measure {url}: wrk met errors, {errors}, beside {seen['requests']} answers")
    if seen["requests"] < connections or seen["requests"] < 10:
        raise LoadError(
            f"cannot measure {url}: wrk saw only {seen['requests']} answers; is it served at all?"
        )
    wrk_us = 1e6 * (spent.ru_utime - used.ru_utime + spent.ru_stime - used.ru_stime)
    cpu = wrk_us + sum(b - a for a, b in zip(before, after, strict=True)) / 1000
    return Sample(
        rps=seen["requests"] / seen["us"] * 1e6,
        p50=seen["p50"],
        p99=seen["p99"],
        cpu=cpu / seen["requests"],
        requests=seen["requests"],
    )


def _capture(argv: Sequence[str], environment: dict[str, str]) -> str:
    import subprocess  # noqa: PLC0415

    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    if done.returncode:
        raise LoadError(f"cannot run wrk: it ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
