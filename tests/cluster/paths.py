"""Where a cluster keeps things: a directory of its own on disk, and a cache that clusters share."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent
ROOT = Path("/var/lib/yett-cluster")
CONTROL = "control"
MARK = "YETT_CLUSTER_BOX"
"""In the environment of every process that we start: CLUSTER/BOX."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?")


CACHE_INSIDE = Path("/var/lib/cache")
"""The cache as boxes see it: their /var and /run may hide where it is."""


def cache() -> Path:
    """Binaries and images, in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "yett"


@dataclass(frozen=True, slots=True)
class Paths:
    """The places of one cluster."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"cannot use {self.name!r} as the name of a cluster: write up to 16 lower-case letters, digits and dashes"
            )

    @property
    def directory(self) -> Path:
        return ROOT / self.name

    @property
    def lock(self) -> Path:
        return ROOT / f"{self.name}.lock"

    @property
    def state(self) -> Path:
        return self.directory / "state.json"

    @property
    def certificates(self) -> Path:
        return self.directory / CONTROL / "lib" / "pki"

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator, usable from the machine's own network namespace."""
        return self.directory / "kubeconfig"

    def box(self, box: str) -> Path:
        return self.directory / box

    def cgroup(self, box: str) -> str:
        """Name of a node's directory at the top of each cgroup hierarchy."""
        return f"yett-{self.name}-{box}"
