"""Names and places of everything that belongs to a lab."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from yett_lab.errors import InputError

ROOT = Path("/run/yett/lab")
NETNS = Path("/run/netns")
MARK = "YETT_LAB_PROCESS"
"""Variable in the environment of every process of a lab: its name."""

FILE_NAME_MAX = 255

# No hyphen: `yett-NAME-` is then a prefix of one lab's namespaces only.
_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,30}")


@dataclass(frozen=True, slots=True)
class Paths:
    """Of one lab."""

    name: str

    def __post_init__(self) -> None:
        if not _LAB_NAME.fullmatch(self.name):
            raise InputError(
                f"lab name {self.name!r}: write 1 to 31 lower-case letters and digits, a letter first"
            )

    @property
    def directory(self) -> Path:
        return ROOT / self.name

    @property
    def lock(self) -> Path:
        return ROOT / f".{self.name}.lock"

    @property
    def state(self) -> Path:
        return self.directory / "lab.json"

    @property
    def bpffs(self) -> Path:
        """Where this lab's own bpffs is mounted."""
        return self.directory / "bpf"

    @property
    def netns_prefix(self) -> str:
        return f"yett-{self.name}-"

    @property
    def fabric(self) -> str:
        """Namespace of the switch between the nodes."""
        return f"{self.netns_prefix}fabric"

    def node_netns(self, node: str) -> str:
        return f"{self.netns_prefix}node-{node}"

    def pod_netns(self, pod: str) -> str:
        """`pod` is namespace/name; a dot cannot be in the namespace, so the join is unambiguous."""
        name = f"{self.netns_prefix}pod-{pod.replace('/', '.', 1)}"
        if len(name) <= FILE_NAME_MAX:
            return name
        return f"{name[:200]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    def pod_directory(self, pod: str) -> Path:
        namespace, _, name = pod.partition("/")
        return self.directory / "pods" / namespace / name

    def node_directory(self, node: str) -> Path:
        return self.directory / "nodes" / node

    def api(self, node: str) -> Path:
        """Socket of the node's loader."""
        return self.directory / f"{node}.sock"


def running() -> list[str]:
    """Names of the labs that have state or a fabric, sorted: also those that came up in part."""
    found = {p.name for p in ROOT.iterdir() if p.is_dir()} if ROOT.is_dir() else set()
    if NETNS.is_dir():
        found |= {m[1] for p in NETNS.iterdir() if (m := re.fullmatch(r"yett-(.*)-fabric", p.name))}
    return sorted(name for name in found if _LAB_NAME.fullmatch(name))
