"""A lab of its own for each test that needs one, and proof that nothing of it stays."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from yett_lab import down, paths


@dataclass(frozen=True)
class Machine:
    """What a lab could leave behind, of all that is named after it."""

    namespaces: frozenset[str]
    mounts: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]


def machine(name: str) -> Machine:
    """Everything on the machine that names this lab."""
    mark = f"yett-{name}-"
    own = f"{paths.ROOT}/{name}"
    commands = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in line or own in line:
                commands.add(line)
    mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    return Machine(
        frozenset(p.name for p in paths.NETNS.glob(f"{mark}*")),
        frozenset(m for m in mounts if mark in m or own in m),
        frozenset(commands),
        frozenset(str(p) for p in (paths.ROOT / name, paths.ROOT / f".{name}.lock") if p.exists()),
    )


NOTHING = Machine(frozenset(), frozenset(), frozenset(), frozenset())


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lab that is removed afterwards."""
    made = f"t{secrets.token_hex(4)}"
    yield made
    down.down(made)
    assert machine(made) == NOTHING


@pytest.fixture(scope="module")
def shared_name() -> Iterator[str]:
    """As `name`, for a lab that a module's tests share."""
    made = f"t{secrets.token_hex(4)}"
    yield made
    down.down(made)
    assert machine(made) == NOTHING
