"""A transport that can be written to in small pieces."""

from __future__ import annotations

import asyncio
from typing import Any

SIZE = 2 << 10
"""Bytes.  OpenSSL keeps the room for the most that was ever written at once for as long as the connection lives:
20 KiB for each node, if that is a message of a snapshot.  Later updates are mostly small."""


class Pieces:
    """All but writing is the transport's own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.small = False
        """What is written goes in pieces: that takes longer, 10 us for each."""

    def write(self, data: bytes) -> None:
        """As the transport's; what is written is the same."""
        if not self.small or len(data) <= SIZE:
            self._transport.write(data)
            return
        whole = memoryview(data)
        for at in range(0, len(whole), SIZE):
            self._transport.write(whole[at : at + SIZE])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
