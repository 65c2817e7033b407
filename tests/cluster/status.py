"""What a cluster says about itself."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.box import Box, marked
from cluster.cluster import Cluster
from cluster.errors import ClusterError


def describe(cluster: Cluster) -> str:
    """Boxes with their services and memory, then what kubectl says of the nodes."""
    if not cluster.exists:
        raise ClusterError(
            f"cannot describe cluster {cluster.paths.name}: there is none; run `scripts/cluster up`"
        )
    lines = [f"{'BOX':8} {'SERVICE':24} {'PID':>8} {'MEMORY':>9}"]
    for box in (cluster.control.box, *(node.box for node in cluster.nodes)):
        lines += _services(box)
    lines += ["", cluster.kubectl("get", "nodes", "-o", "wide")]
    return "\n".join(lines)


def _services(box: Box) -> list[str]:
    rows = []
    for pid in marked(f"{box.paths.name}/{box.name}"):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            name = Path(command).name
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:  # it ended while we looked
            continue
        if name not in ("unshare", "bash", "sleep", "env"):
            rows.append((name, pid, pages * os.sysconf("SC_PAGESIZE") >> 20))
    return [f"{box.name:8} {name:24} {pid:>8} {memory:>5} MiB" for name, pid, memory in sorted(rows)]
