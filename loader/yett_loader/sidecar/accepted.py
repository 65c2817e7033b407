"""What Envoy last accepted, on disk: whoever starts Envoy while no loader runs gives it that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Resources = Mapping[str, Mapping[str, Any]]
"""Type -> name -> resource as JSON."""


def write(directory: Path, resources: Resources) -> None:
    """Put it in the place of what was, whole or not at all; for root only."""
    new = _path(directory).with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(resources, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    new.replace(_path(directory))


def read(directory: Path) -> Resources | None:
    """None if there is none, or none that can be read: then nothing is served, and Envoy's flows are refused."""
    try:
        found = json.loads(_path(directory).read_text())
    except (OSError, ValueError):
        return None
    return (
        found if isinstance(found, dict) and all(isinstance(item, dict) for item in found.values()) else None
    )


def _path(directory: Path) -> Path:
    return directory / "accepted.json"
