"""Processes: run one and get its output, start one that outlives us, ask whether one lives."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yett_lab.errors import LabError


@dataclass(frozen=True, slots=True)
class Process:
    """A process that we started; the start time tells it from a later one with its pid."""

    pid: int
    start: int
    """Field 22 of /proc/PID/stat: clock ticks after boot."""

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.start

    def kill(self) -> None:
        """SIGKILL, if it is still the same process."""
        if self.alive:
            signal_quietly(self.pid, signal.SIGKILL)


def identify(pid: int) -> Process:
    """The process that has this pid now."""
    start = _start_time(pid)
    return Process(pid, -1 if start is None else start)


def _start_time(pid: int) -> int | None:
    """None: there is no such process, or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def signal_quietly(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def command(argv: Sequence[str], *, what: str, stdin: str = "", timeout: float = 30) -> str:
    """Run to the end, return stdout; `what` completes "cannot ..." in the error."""
    try:
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(f"cannot {what}: {argv[0]} is not installed; run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"cannot {what}: {argv[0]} did not end within {timeout:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LabError(f"cannot {what}: {argv[0]}: {said}")
    return done.stdout


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: str = "/") -> Process:
    """Start a process in a session of its own that outlives us; output is appended to `log`.

    A shell stands between, so that the process is never our child: nobody here would reap it.
    """
    script = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), *argv],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
        env=None if env is None else dict(env),
        cwd=cwd,
    )
    return identify(int(done.stdout))


def wait_gone(pids: Sequence[int], timeout: float = 5) -> list[int]:
    """Wait for processes to be gone; those that are not, in the end."""
    deadline = time.monotonic() + timeout
    left = list(pids)
    while left := [pid for pid in left if _start_time(pid) is not None]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return left
