"""Servers that are oracles: they say what reached the application, outside the enforced path.

`Recorder` is the strongest one: it keeps every byte that the kernel delivered, parses as
little as it can and answers 200.  The real servers are in `origins.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from support.netns import Namespace


class End(StrEnum):
    """How a connection ended, as the server's kernel told the application."""

    FIN = "fin"
    RESET = "reset"
    SERVER = "closed by the server"


@dataclass
class Conversation:
    """One connection as the application saw it."""

    peer: tuple[str, int]
    data: bytearray = field(default_factory=bytearray)
    """Every byte received, in order (the urgent byte is not among them: that is the danger)."""
    heads: list[bytes] = field(default_factory=list)
    """Request heads that were answered."""
    end: End | None = None


IPPROTO_MPTCP = 262
TCP_FASTOPEN = 23

Answer = Callable[[bytes, bytes], bytes]
"""(head, body) -> the whole response."""


def ok(head: bytes, body: bytes) -> bytes:
    """200, with a digest of what arrived, so that the client can see that nothing was changed.

    `X-Reply: N` asks for N bytes of filling in front of it.
    """
    _, found, size = head.partition(b"\r\nX-Reply: ")
    text = b"." * int(size.split(b"\r\n")[0] if found else 0) + digest(head + body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text


def digest(request: bytes) -> bytes:
    """What `ok` puts into the body for a request of these bytes."""
    return b"%d " % len(request) + hashlib.sha256(request).hexdigest()[:16].encode()


class Recorder:
    """A lenient server on one port, IPv4 and IPv6."""

    def __init__(
        self, namespace: Namespace, port: int, *, answer: Answer = ok, multipath: bool = False
    ) -> None:
        self.port = port
        self.answer = answer
        self._go = threading.Event()
        self._go.set()
        self._switch_pieces = 0
        self._conversations: dict[tuple[str, int], Conversation] = {}
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._closing = False
        with namespace:
            self._listener = socket.socket(
                socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP if multipath else 0
            )
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.bind(("::", port))
        self._listener.listen(1024)
        self._thread = threading.Thread(target=self._accept, name=f"recorder-{port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and reset what is open."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # -- what tests ask

    def conversation(self, address: str, port: int, timeout: float = 2.0) -> Conversation:
        """The connection from a client's address and port; waits until it was accepted."""
        with self._changed:
            found = self._changed.wait_for(lambda: (address, port) in self._conversations, timeout)
            if not found:
                raise TimeoutError(f"no connection from {address} port {port} reached the server")
            return self._conversations[address, port]

    def saw(self, address: str, port: int) -> bool:
        """Whether the application was ever handed this connection."""
        with self._changed:
            return (address, port) in self._conversations

    def wait(self, done: Callable[[], bool], timeout: float = 2.0) -> bool:
        """Until `done()`, looked at whenever anything arrives."""
        with self._changed:
            return self._changed.wait_for(done, timeout)

    def total(self) -> int:
        """Connections accepted so far."""
        with self._changed:
            return len(self._conversations)

    # -- how it behaves

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Read nothing, until `resume` or the end of the `with`."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def resume(self) -> None:
        """Read again."""
        self._go.set()

    @contextlib.contextmanager
    def switching(self, pieces: int) -> Iterator[None]:
        """Agree to every Upgrade (101) and CONNECT (200), the answer written in `pieces`."""
        self._switch_pieces = pieces
        try:
            yield
        finally:
            self._switch_pieces = 0

    def enable_fast_open(self) -> None:
        """Take data in the SYN (RFC 7413)."""
        self._listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 100)

    # -- serving

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, peer = self._listener.accept()
            except ConnectionAbortedError:
                continue  # reset before we looked
            except OSError:
                return
            address = peer[0].removeprefix("::ffff:")
            conversation = Conversation((address, peer[1]))
            with self._changed:
                self._conversations[address, peer[1]] = conversation
                self._open.add(connection)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(connection, conversation), daemon=True).start()

    def _serve(self, connection: socket.socket, conversation: Conversation) -> None:
        end = End.SERVER
        try:
            end = self._converse(connection, conversation)
        except ConnectionError:
            end = End.RESET
        except OSError:
            pass
        finally:
            connection.close()
            with self._changed:
                conversation.end = end
                self._open.discard(connection)
                self._changed.notify_all()

    def _converse(self, connection: socket.socket, conversation: Conversation) -> End:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read = 0
        while True:
            self._go.wait()
            piece = connection.recv(1 << 18)
            with self._changed:
                conversation.data += piece
                self._changed.notify_all()
            if not piece:
                return End.FIN
            while (size := request_size(conversation.data, read)) is not None:
                request = bytes(conversation.data[read : read + size])
                read += size
                head, _, body = request.partition(b"\r\n\r\n")
                with self._changed:
                    conversation.heads.append(head)
                if self._switch_pieces and switches(head):
                    self._switch(connection, head)
                    continue
                connection.sendall(self.answer(head + b"\r\n\r\n", body))
                if b"connection: close" in head.lower():
                    return End.SERVER

    def _switch(self, connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"CONNECT "):
            answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        else:
            answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: any\r\n\r\n"
        size = -(-len(answer) // self._switch_pieces)
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])
            if self._switch_pieces > 1:
                time.sleep(0.001)


def switches(head: bytes) -> bool:
    """Whether the request asks for another protocol."""
    return head.startswith(b"CONNECT ") or b"\r\nupgrade:" in head.lower()


def request_size(data: bytearray, start: int) -> int | None:
    """Bytes of the request at `start`, or None while it is incomplete."""
    stop = data.find(b"\r\n\r\n", start)
    if stop < 0:
        return None
    head = bytes(data[start:stop]).lower()
    at = stop + 4
    if b"transfer-encoding: chunked" in head:
        while True:
            line = data.find(b"\r\n", at)
            if line < 0:
                return None
            try:
                size = int(bytes(data[at:line]).split(b";")[0], 16)
            except ValueError:
                return None
            if size == 0:
                last = data.find(b"\r\n\r\n", line)
                return None if last < 0 else last + 4 - start
            at = line + 2 + size + 2
            if at > len(data):
                return None
    length = 0
    for field_line in head.split(b"\r\n")[1:]:
        name, _, value = field_line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            length = int(value)
    return at + length - start if at + length <= len(data) else None


@contextlib.contextmanager
def recorder(
    namespace: Namespace, port: int, *, answer: Answer = ok, multipath: bool = False
) -> Iterator[Recorder]:
    """A recorder for the time of a `with`."""
    server = Recorder(namespace, port, answer=answer, multipath=multipath)
    try:
        yield server
    finally:
        server.close()


def eventually(done: Callable[[], bool], timeout: float = 2.0) -> bool:
    """Poll until true; False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
