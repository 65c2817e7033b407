"""What a cluster has to remember about itself, in a file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class State:
    """A change is a new value, saved whole."""

    uplink: int
    """Number of its network on the machine."""
    binaries: str
    """Name of their directory in the cache."""
    nodes: dict[int, str | None] = field(default_factory=dict)
    """Number of a node -> network of its pods, when the controllers have allotted one."""

    def save(self, path: Path) -> None:
        """Replace the file at once."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(self)))
        new.rename(path)


def load(path: Path) -> State:
    """Read the file; FileNotFoundError: there is no cluster."""
    document = json.loads(path.read_text())
    nodes = {int(index): cidr for index, cidr in document.pop("nodes").items()}
    return State(**document, nodes=nodes)
