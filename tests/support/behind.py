"""A server of TCP behind a standalone Envoy, which writes down all that it gets."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.netns import Namespace
from support.standalone import FIRST_PORT, serving
from yett_policy.http.rule import RulesetSpec

SERVER = 9000
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers every head with the same, says back in capitals what else comes; knows all bytes it got.  It ends a
    connection instead of answering more than so many heads on it.
    """

    def __init__(self, inside: Namespace, reply: bytes, heads: int) -> None:
        self.got: list[bytes] = []
        self._reply = reply
        self._heads = heads
        with inside:
            self._socket = socket.create_server(("127.0.0.1", SERVER))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        number = len(self.got)
        self.got.append(b"")
        with connection:
            while data := connection.recv(65536):
                self.got[number] += data
                if self.got[number].count(b"\r\n\r\n") > self._heads:
                    return
                connection.sendall(self._reply if data.endswith(b"\r\n\r\n") else data.upper())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@contextmanager
def through(
    spec: RulesetSpec, directory: Path, reply: bytes, *, heads: int = sys.maxsize
) -> Iterator[tuple[Namespace, Server]]:
    with serving([spec], directory, server=SERVER) as inside:
        server = Server(inside, reply, heads)
        try:
            yield inside, server
        finally:
            server.close()


def ask(inside: Namespace, request: bytes, heads: int = 1) -> bytes:
    """All that comes back until so many heads are there."""
    with inside, socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as connection:
        connection.sendall(request)
        got = b""
        while got.count(b"\r\n\r\n") < heads:
            data = connection.recv(1 << 20)
            if not data:
                break
            got += data
        return got
