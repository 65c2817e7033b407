"""An interactive command in a pod: a terminal of its own, joined to ours.

The pod has its own PID namespace, so job control there needs a session made inside it; our
terminal keeps its session, and its size is passed on.
"""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
from collections.abc import Mapping, Sequence


def inside(argv: Sequence[str]) -> list[str]:
    """The command, as leader of a session that owns the terminal."""
    return ["setsid", "--ctty", "--wait", *argv]


def spawn(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run until the command ends; its exit code."""
    stale = [True]
    before = signal.signal(signal.SIGWINCH, lambda *_: stale.append(True))

    def read(descriptor: int) -> bytes:
        if stale:
            stale.clear()
            _copy_size(descriptor)
        return os.read(descriptor, 65536)

    try:
        status = pty.spawn(["env", "-i", *(f"{key}={value}" for key, value in env.items()), *argv], read)
    finally:
        signal.signal(signal.SIGWINCH, before)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _copy_size(descriptor: int) -> None:
    size = fcntl.ioctl(sys.stdin.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
