"""Between the real loader and the operator: passes every message on, and notes when what was in force.

The loader's answer is the only sign of it outside the two processes, and TLS hides it from
everybody else.  What the relay costs counts against us; in a process of its own it does at least
not wait for the simulated loaders, with which no real one shares anything.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

from yett_policy.sync import decode
from yett_policy.sync.frame import SUBPROTOCOL, TO_LOADER_LIMIT, unbundle
from yett_policy.sync.message import Ack, Hello


class Relay:
    """Of one loader."""

    def __init__(self) -> None:
        self.applied: dict[int, str] = {}
        """Identity -> digest of the document in force, as the loader says."""
        self._at = 0.0
        self._news = asyncio.Event()

    @asynccontextmanager
    async def serving(
        self, listener: socket.socket, chain: tuple[Path, Path], upstream: int, authority: str
    ) -> AsyncIterator[None]:
        """Calls to this socket, with this certificate and key, are passed on to the operator's port on
        loopback; `authority`: whom to trust there.
        """
        context = multiprocessing.get_context("spawn")
        news, tell = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve, args=(listener, chain, upstream, authority, tell), daemon=True
        )
        await asyncio.to_thread(process.start)
        loop = asyncio.get_running_loop()
        loop.add_reader(news.fileno(), self._hear, news)
        try:
            yield
        finally:
            loop.remove_reader(news.fileno())
            process.terminate()
            await asyncio.to_thread(process.join)

    async def in_force(self, identity: int, other_than: str, within: float = 20.0) -> float:
        """When the loader has said that another document of an identity is in force; time.monotonic()."""
        async with asyncio.timeout(within):
            while self.applied.get(identity, other_than) == other_than:
                self._news.clear()
                await self._news.wait()
        return self._at

    def _hear(self, news: Connection) -> None:
        while news.poll():
            at, item = news.recv()
            self._at = at
            self.applied = {**({} if isinstance(item, Hello) else self.applied), **item.applied}
            for identity in item.dropped if isinstance(item, Ack) else ():
                self.applied.pop(identity, None)
        self._news.set()


class _Passage:
    """In the process of the relay."""

    def __init__(self, upstream: int, tls: ssl.SSLContext, tell: Connection) -> None:
        self._upstream, self._tls, self._tell = upstream, tls, tell

    async def serve(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """For ever."""
        app = web.Application()
        app.add_routes([web.get("/v1/sync", self._pass)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=tls).start()
        await asyncio.Event().wait()

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
                    at = time.monotonic()
                    await target.send_bytes(received.data)
                    if isinstance(source, web.WebSocketResponse):
                        self._note(received.data, at)
                case aiohttp.WSMsgType.PING:
                    await target.ping(received.data)
                case aiohttp.WSMsgType.PONG:
                    await target.pong(received.data)

    def _note(self, data: bytes, at: float) -> None:
        for item in map(decode.from_loader, unbundle(data)):
            if isinstance(item, Hello | Ack):
                self._tell.send((at, item))


def _serve(
    listener: socket.socket, chain: tuple[Path, Path], upstream: int, authority: str, tell: Connection
) -> None:
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(*chain)
    passage = _Passage(upstream, ssl.create_default_context(cadata=authority), tell)
    asyncio.run(passage.serve(listener, own))
