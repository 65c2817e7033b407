"""One socket that two processes may serve: the loader, and who stands in for it while it is gone.

Whoever serves has bound a socket of its own and moved it to the common path, which is one step:
clients meet the one or the other.  The loader always takes the seat; the stand-in only if nobody
answers there, and it leaves when its socket is no longer the one at the path.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Seat:
    """The socket at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        self._taken: int | None = None

    @property
    def own(self) -> Path:
        """Where to bind before the seat is taken."""
        return self._own

    @property
    def kept(self) -> bool:
        """Whether it is still ours."""
        try:
            return self._path.stat().st_ino == self._taken
        except OSError:
            return False

    def take(self, *, only_if_free: bool = False) -> bool:
        """Move the socket that is bound at `own` to the path; whether that was done."""
        with self._alone():
            if only_if_free and is_served(self._path):
                self._own.unlink(missing_ok=True)
                return False
            self._taken = self._own.stat().st_ino
            self._own.replace(self._path)
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def is_served(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
