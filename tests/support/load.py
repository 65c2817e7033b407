"""A load that counts: allowed requests that failed, denied ones that were answered."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.netns import Namespace
from support.origin import digest


@dataclass
class Tally:
    """What the load saw."""

    answered: int = 0
    denied: int = 0
    failed: list[str] = field(default_factory=list)
    """Allowed requests without their answer."""
    wrong: list[str] = field(default_factory=list)
    """Denied requests that were answered, or that ended otherwise than with a reset."""
    longest: float = 0.0
    """Seconds of the slowest answer."""


class Load:
    """Threads with keep-alive connections, threads with a new connection per request, and probes
    that must be denied; all from one namespace."""

    def __init__(
        self,
        namespace: Namespace,
        address: tuple[str, int],
        allowed: bytes,
        denied: bytes,
        *,
        pause: float = 0.001,
    ) -> None:
        self.tally = Tally()
        self._namespace = namespace
        self._address = address
        self._allowed = allowed
        self._denied = denied
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._keep_alive, self._keep_alive, self._reconnect, self._probe)
        ]

    def start(self) -> None:
        """Begin; returns when each kind was seen working."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 10
        while self.tally.answered < 20 or self.tally.denied < 3:
            if time.monotonic() > deadline or self.tally.failed or self.tally.wrong:
                raise RuntimeError(f"the load does not run: {self.tally}")
            time.sleep(0.01)

    def stop(self) -> Tally:
        """End and count."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        return self.tally

    def _connect(self) -> socket.socket:
        with self._namespace:
            return socket.create_connection(self._address, 5)

    def _ask(self, connection: socket.socket) -> None:
        begin = time.monotonic()
        connection.sendall(self._allowed)
        answer = b""
        while not answer.endswith(digest(self._allowed)):
            piece = connection.recv(4096)
            if not piece:
                raise ConnectionError(f"closed after {answer!r}")
            answer += piece
        with self._lock:
            self.tally.answered += 1
            self.tally.longest = max(self.tally.longest, time.monotonic() - begin)

    def _keep_alive(self) -> None:
        try:
            with self._connect() as connection:
                while not self._stop.wait(self._pause):
                    self._ask(connection)
        except OSError as error:
            self.tally.failed.append(f"keep-alive: {error!r}")

    def _reconnect(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                with self._connect() as connection:
                    self._ask(connection)
            except OSError as error:
                self.tally.failed.append(f"new connection: {error!r}")

    def _probe(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                with self._connect() as connection:
                    connection.sendall(self._denied)
                    answer = connection.recv(4096)
                    self.tally.wrong.append(f"answered {answer[:60]!r}")
            except ConnectionResetError:
                with self._lock:
                    self.tally.denied += 1
            except OSError as error:
                self.tally.wrong.append(f"denied, but {error!r}")


@contextlib.contextmanager
def load(namespace: Namespace, address: tuple[str, int], allowed: bytes, denied: bytes) -> Iterator[Load]:
    """Run for the time of a `with`, then nothing may have failed, and there must have been load."""
    made = Load(namespace, address, allowed, denied)
    made.start()
    try:
        yield made
    finally:
        tally = made.stop()
    assert tally.failed == []
    assert tally.wrong == []
    assert tally.answered > 100, "hardly any request was made: this test proves nothing"
    assert tally.denied > 10, "hardly any denied request was made: this test proves nothing"
