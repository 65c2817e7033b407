"""What Envoy last accepted, on disk: whoever starts Envoy while no loader runs gives it that."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yett_loader.memo import Memo

Texts = Memo[Any, bytes]
"""Resources as JSON, of which most were written the last time: all of them take a second or more."""
Resources = Mapping[str, Mapping[str, Any]]
"""Type -> name -> resource as JSON."""


def texts() -> Texts:
    """Without any."""
    return Memo(_json)


def write(directory: Path, resources: Resources, known: Texts | None = None) -> None:
    """Put it in the place of what was, whole or not at all; for root only.

    `known` remembers the texts of the same objects from one time to the next.
    """
    found = iter((known or texts()).of(value for named in resources.values() for value in named.values()))
    body = _object(
        (kind, _object((name, next(found)) for name in named)) for kind, named in resources.items()
    )
    new = _path(directory).with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(body)
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


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _object(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(_json(name) + b":" + text for name, text in members) + b"}"


def _path(directory: Path) -> Path:
    return directory / "accepted.json"
