"""A small HTTP/1 server that answers with the request as JSON: the stand-in for echo images.

Run as a file (`python3 echo.py PORT...`), standard library only.  Keep-alive, pipelining,
bodies by length and chunked; one line of log per request.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys

HEAD_MAX = 65536
BODY_MAX = 16 * 1024 * 1024


class Refused(Exception):  # noqa: N818 - it is an answer to the client
    """A request that cannot be read; the connection ends after the answer."""


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.peer: str = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]).removeprefix("::ffff:") if address else ""

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None  # noqa: S101 - for the type checker
        self.buffer += data
        try:
            while not self.transport.is_closing() and self.answer():
                pass
        except Refused as error:
            self.write("400 Bad Request", {"error": str(error)}, close=True)

    def answer(self) -> bool:
        """Answer the first request in the buffer, if it is complete."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > HEAD_MAX:
                raise Refused("request head too long")
            return False
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refused("not an HTTP/1 request line")
        method, target, version = words
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise Refused("header without colon")
            key = name.lower()
            value = value.strip(" \t")
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        taken = self.body(headers, end + 4)
        if taken is None:
            if headers.get("expect", "").lower() == "100-continue" and len(self.buffer) == end + 4:
                assert self.transport is not None  # noqa: S101 - for the type checker
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        body, after = taken
        del self.buffer[:after]
        connection = headers.get("connection", "").lower()
        close = "close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection)
        path, _, query = target.partition("?")
        self.write(
            "200 OK",
            {
                "method": method,
                "path": path,
                "query": query,
                "headers": headers,
                "body": body.decode("utf-8", "backslashreplace"),
                "hostname": HOSTNAME,
                "ip": self.peer,
                "protocol": "http",
            },
            close=close,
            bodiless=method == "HEAD",
        )
        sys.stdout.write(f"{self.peer} {json.dumps(f'{method} {target}')} {len(body)}\n")
        sys.stdout.flush()
        return True

    def body(self, headers: dict[str, str], start: int) -> tuple[bytes, int] | None:
        """The body and where it ends; None: not all here yet."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self.chunks(start)
        text = headers.get("content-length", "0")
        if not text.isdecimal() or int(text) > BODY_MAX:
            raise Refused("bad Content-Length")
        end = start + int(text)
        return None if len(self.buffer) < end else (bytes(self.buffer[start:end]), end)

    def chunks(self, at: int) -> tuple[bytes, int] | None:
        parts: list[bytes] = []
        while (end := self.buffer.find(b"\r\n", at)) >= 0:
            try:
                size = int(self.buffer[at:end].partition(b";")[0], 16)
            except ValueError:
                raise Refused("bad chunk size") from None
            at = end + 2
            if size > BODY_MAX:
                raise Refused("chunk too long")
            if size == 0:
                return self.trailers(at, b"".join(parts))
            if len(self.buffer) < at + size + 2:
                return None
            parts.append(bytes(self.buffer[at : at + size]))
            at += size + 2
        return None

    def trailers(self, at: int, body: bytes) -> tuple[bytes, int] | None:
        while (end := self.buffer.find(b"\r\n", at)) >= 0:
            if end == at:
                return body, end + 2
            at = end + 2
        return None

    def write(self, status: str, value: dict[str, object], *, close: bool, bodiless: bool = False) -> None:
        assert self.transport is not None  # noqa: S101 - for the type checker
        content = json.dumps(value, indent=2).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if bodiless else content))
        if close:
            self.transport.close()


async def serve(ports: list[int]) -> None:
    """Listen on all ports, IPv4 and IPv6, for ever."""
    loop = asyncio.get_running_loop()
    for port in ports:
        listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        await loop.create_server(Echo, sock=listener, backlog=1024)
    await loop.create_future()


HOSTNAME = os.uname().nodename

if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
