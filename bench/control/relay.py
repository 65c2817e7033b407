"""Between the real loader and the operator: passes every message on, and notes when what was in force.

The loader's answer is the only sign of it outside the two processes, and TLS hides it from
everybody else.  What the relay costs counts against us.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from yett_policy.sync import decode
from yett_policy.sync.frame import SUBPROTOCOL, TO_LOADER_LIMIT, unbundle
from yett_policy.sync.message import Ack, Hello


class Relay:
    """Of one loader."""

    def __init__(self, upstream: int, tls: ssl.SSLContext) -> None:
        """`upstream`: the operator's port on loopback, and how to trust it."""
        self.applied: dict[int, str] = {}
        """Identity -> digest of the document in force, as the loader says."""
        self._upstream, self._tls = upstream, tls
        self._at = 0.0
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def serving(self, listener: socket.socket, tls: ssl.SSLContext) -> AsyncIterator[None]:
        """Calls to this socket are passed on."""
        app = web.Application()
        app.add_routes([web.get("/v1/sync", self._pass)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=tls).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def in_force(self, identity: int, other_than: str, within: float = 20.0) -> float:
        """When the loader has said that another document of an identity is in force; time.monotonic()."""

        def changed() -> bool:
            return self.applied.get(identity, other_than) != other_than

        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(changed)
            return self._at

    async def _pass(self, request: web.Request) -> web.WebSocketResponse:
        down = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), autoping=False, compress=False, max_msg_size=TO_LOADER_LIMIT + 4
        )
        await down.prepare(request)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"wss://localhost:{self._upstream}/v1/sync",
                ssl=self._tls,
                headers={"Authorization": request.headers["Authorization"]},
                protocols=(SUBPROTOCOL,),
                autoping=False,
                compress=0,
                max_msg_size=TO_LOADER_LIMIT + 4,
            ) as up,
        ):
            ways = [asyncio.create_task(self._copy(up, down)), asyncio.create_task(self._copy(down, up))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        return down

    async def _copy(
        self,
        source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    ) -> None:
        async for received in source:
            match received.type:
                case aiohttp.WSMsgType.BINARY:
                    await target.send_bytes(received.data)
                    if isinstance(source, web.WebSocketResponse):
                        await self._note(received.data)
                case aiohttp.WSMsgType.PING:
                    await target.ping(received.data)
                case aiohttp.WSMsgType.PONG:
                    await target.pong(received.data)

    async def _note(self, data: bytes) -> None:
        at = time.monotonic()
        for item in map(decode.from_loader, unbundle(data)):
            if not isinstance(item, Hello | Ack):
                continue
            async with self._news:
                self._at = at
                self.applied = {**({} if isinstance(item, Hello) else self.applied), **item.applied}
                for identity in item.dropped if isinstance(item, Ack) else ():
                    self.applied.pop(identity, None)
                self._news.notify_all()
