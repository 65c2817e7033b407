"""Writes to the API server that cost their writer little, for it shares the machine with what is measured."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from yett_operator.kube.client import ApiError, Kube

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_STREAM = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Connections that are kept, with one request at a time on each."""

    def __init__(self, server: str, tls: ssl.SSLContext, authorization: str) -> None:
        self._host, self._port = urlsplit(server).hostname, urlsplit(server).port
        self._tls = tls
        self._head = (
            f"Host: {urlsplit(server).netloc}\r\nAuthorization: {authorization}\r\n"
            "Accept: application/json\r\nContent-Type: application/json\r\n"
        )
        self._idle: list[_STREAM] = []

    @classmethod
    async def like(cls, kube: Kube) -> Wire:
        """To the same server, with the same token."""
        c = kube.configuration
        token = await c.get_api_key_with_prefix("BearerToken", "authorization")
        return cls(kube.server, ssl.create_default_context(cafile=c.ssl_ca_cert), str(token))

    def close(self) -> None:
        """All connections that nobody uses."""
        for _, writer in self._idle:
            writer.close()

    async def send(self, method: str, path: str, body: Any = None) -> None:
        """A request that is granted; ApiError if it is not."""
        text = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(text)}\r\n\r\n"
        reader, writer = await self._connection()
        try:
            writer.write(head.encode() + text)
            status, answer = await _answer(reader)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        if status >= 400:
            raise ApiError(f"{method.lower()} {path}", status, "", answer.decode(errors="replace")[:500])

    async def _connection(self) -> _STREAM:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body; its end is known by its length, or by the last chunk, for nothing follows it."""
    head = await reader.readuntil(_END)
    if length := _LENGTH.search(head):
        body = await reader.readexactly(int(length.group(1)))
    else:
        body = b""
        while not body.endswith(b"0" + _END):
            body += await reader.read(1 << 16) or _cut()
    return int(head.split(b" ", 2)[1]), body


def _cut() -> bytes:
    raise ConnectionResetError("the API server hung up within an answer")
