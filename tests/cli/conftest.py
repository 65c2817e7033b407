"""Running the command line as a user does: in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """`yettctl ARGS`, without a terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("YETT")}
    return subprocess.run(
        [sys.executable, "-m", "yett_cli", *args],
        capture_output=True,
        text=True,
        input=stdin,
        env={**environment, **env},
        timeout=60,
        check=False,
    )


@pytest.fixture(name="run")
def run_fixture() -> Run:
    return run
