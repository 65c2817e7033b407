"""A node's cgroup: a directory at the top of every hierarchy, under which its kubelet puts pods."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError

_MOUNTS = Path("/proc/self/mounts")


def hierarchies() -> list[Path]:
    """Where cgroup hierarchies are mounted, of version 1 or 2, each once."""
    found = []
    for line in _MOUNTS.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(Path(point))
    return found


def create(name: str) -> None:
    """Make the directory in every hierarchy, ready to hold processes."""
    for top in hierarchies():
        directory = top / name
        directory.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # empty ones of version 1 admit no process
            if (top / "cgroup.clone_children").exists() and (directory / file).exists():
                (directory / file).write_text((top / file).read_text())
        if (top / "cgroup.controllers").exists():
            enable = " ".join(f"+{item}" for item in (top / "cgroup.controllers").read_text().split())
            for each in (top, directory):
                if enable:
                    (each / "cgroup.subtree_control").write_text(enable)


def remove(name: str) -> None:
    """Remove the directories and all below; their processes must be gone or going."""
    for top in hierarchies():
        deadline = time.monotonic() + 5
        while (top / name).exists():
            for directory, _, _ in os.walk(top / name, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"cannot remove {top / name}: processes are left in it; end them and repeat"
                )
            time.sleep(0.01)


def names(prefix: str) -> set[str]:
    """The directories at the top of any hierarchy whose name begins so."""
    return {entry.name for top in hierarchies() for entry in top.iterdir() if entry.name.startswith(prefix)}
