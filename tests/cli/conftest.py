"""Running the command line: in a process as a user does, or in this one where that is the same."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest

from yett_cli.__main__ import main

Run = Callable[..., subprocess.CompletedProcess[str]]

IN_PROCESS = {"explain", "lint", "observe", "endpoint", "bpf", "status"}
"""They only read and print: here they save the start of an interpreter."""


def run(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """`yettctl ARGS`, without a terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("YETT")} | env
    if args and args[0] in IN_PROCESS and "--help" not in args:
        return _run_here(args, environment)
    return subprocess.run(
        [sys.executable, "-m", "yett_cli", *args],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment,
        timeout=60,
        check=False,
    )


def _run_here(args: tuple[str, ...], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["yettctl", *args]),
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    code = stop.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


@pytest.fixture(name="run")
def run_fixture() -> Run:
    return run
