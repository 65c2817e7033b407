"""The websocket endpoint, and which stream is a node's."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Coroutine
from typing import Any, cast

from aiohttp import WSCloseCode, web

from yett_operator.complaints import Complaints
from yett_operator.ports import Ack, AckSink, Change, SnapshotSource
from yett_operator.sync.auth import Authenticator, Denied, Gate, Unavailable, bearer
from yett_operator.sync.counters import Counters
from yett_operator.sync.frames import Frames
from yett_operator.sync.history import History
from yett_operator.sync.pieces import Pieces
from yett_operator.sync.session import Session, Surroundings
from yett_operator.sync.settings import Settings
from yett_operator.sync.stream import Stream
from yett_policy.sync import message
from yett_policy.sync.frame import SUBPROTOCOL, TO_OPERATOR_LIMIT
from yett_policy.sync.message import Close

log = logging.getLogger(__name__)

PATH = "/v1/sync"
MESSAGE_LIMIT = TO_OPERATOR_LIMIT + 4
"""One frame of the greatest size and its length; small ones share a message."""
UNSENT = 16 << 10
"""Bytes that wait for a loader to read before its sender waits too.  OpenSSL keeps the room for the most that
ever waited as long as the connection lives, so what is let wait costs memory for each node."""


class SyncServer:
    """Serves every loader that may call."""

    def __init__(
        self,
        source: SnapshotSource,
        sink: AckSink,
        authenticator: Authenticator,
        settings: Settings | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._settings = settings or Settings()
        self.counters = Counters()
        self._gate = Gate(authenticator)
        self._complaints = Complaints()
        self._sessions: dict[str, Session] = {}
        """By node: the newest."""
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        """Nodes whose stream has ended a moment ago."""
        self._closing: set[asyncio.Task[None]] = set()
        self._history = History(source, self._changed)
        self._frames = Frames(self._history)
        self._around = Surroundings(
            epoch=lambda: source.epoch,
            stream=self._stream,
            enter=self._enter,
            leave=self._leave,
            heard=self._heard,
            unheard=self._unheard,
            acked=self._acked,
            counted=self._counted,
            gate=self._gate,
            counters=self.counters,
            complaints=self._complaints,
            settings=self._settings,
        )
        self._runner: web.AppRunner | None = None
        self.port = 0
        """Where it listens, once it does."""

    # -- listening -------------------------------------------------------------------------

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen; port 0 takes a free one."""
        app = web.Application()
        app.add_routes([web.get(PATH, self._sync)])
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=2.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        log.info("sync stream on %s port %d", host, self.port)

    async def stop(self) -> None:
        """Hang up on everybody; they find another replica, or this one again."""
        self._history.close()
        for timer in self._leaving.values():
            timer.cancel()
        self._leaving.clear()
        ending = [
            session.close(WSCloseCode.GOING_AWAY, "the operator stops") for session in self._sessions.values()
        ]
        await asyncio.gather(*ending, *self._closing, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _sync(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._gate.authenticate(bearer(request.headers.get("Authorization")))
        except Denied as error:
            return self._denied(request, 401, error.reason, str(error))
        except Unavailable as error:
            return self._denied(request, 503, "ReviewUnavailable", str(error))
        offered = [item.strip() for item in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            text = f"this operator speaks {SUBPROTOCOL}, the caller offers {', '.join(offered)[:80] or 'nothing'}"
            return self._denied(request, 400, "UnknownProtocol", text)
        socket = web.WebSocketResponse(
            timeout=1.0,
            autoping=False,
            protocols=(SUBPROTOCOL,),
            compress=False,  # frames are deflated already
            max_msg_size=MESSAGE_LIMIT,
            writer_limit=UNSENT,
        )
        if (transport := request.transport) is None:
            raise ConnectionResetError("the caller has hung up")
        transport.set_write_buffer_limits(UNSENT)
        pieces = Pieces(transport)
        request.protocol.transport = cast("asyncio.Transport", pieces)
        await socket.prepare(request)
        self.counters.streams += 1
        self.counters.accepted += 1
        try:
            await Session(socket, pieces, caller, self._around).run()
        finally:
            self.counters.streams -= 1
        return socket

    def _denied(self, request: web.Request, status: int, reason: str, text: str) -> web.Response:
        self.counters.refused[reason] += 1
        if (more := self._complaints.due(reason)) is not None:  # whoever calls: a flood has many addresses
            log.warning("a caller from %s is refused (%s): %r%s", request.remote, reason, text, more)
        return web.json_response({"error": text}, status=status)

    # -- streams ---------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        for session in self._sessions.values():
            if session.stream is not None:
                session.stream.changed(change)

    def _stream(self, node: str, hello: message.Hello) -> Stream:
        return Stream(self._source, self._frames, self.counters, self._settings, node, hello)

    def _enter(self, session: Session) -> None:
        old = self._sessions.get(session.node)
        self._sessions[session.node] = session
        if old is not None:
            self._later(old.close(Close.REPLACED, "a newer stream of this node has come"))
        timer = self._leaving.pop(session.node, None)
        if timer is not None:
            timer.cancel()
        self._sink.connected(session.node, session.info)
        self._sink.acked(session.node, session.known)

    def _leave(self, session: Session) -> None:
        if self._sessions.get(session.node) is not session:
            return
        del self._sessions[session.node]
        if not session.silent:
            loop = asyncio.get_running_loop()
            self._leaving[session.node] = loop.call_later(self._settings.grace, self._left, session.node)

    def _left(self, node: str) -> None:
        del self._leaving[node]
        self._sink.disconnected(node)

    def _unheard(self, session: Session) -> None:
        if self._sessions.get(session.node) is session:
            session.silent = True
            self._sink.disconnected(session.node)

    def _heard(self, session: Session) -> None:
        session.silent = False
        if self._sessions.get(session.node) is session:
            self._sink.connected(session.node, session.info)
            self._sink.acked(session.node, session.known)

    def _acked(self, session: Session, ack: Ack) -> None:
        if self._sessions.get(session.node) is session:
            self._sink.acked(session.node, ack)

    def _counted(self, session: Session, counters: message.Counters) -> None:
        if self._sessions.get(session.node) is session:
            self._sink.counted(session.node, counters.hits)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
