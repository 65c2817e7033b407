"""One loader's connection, from its hello to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from aiohttp import WebSocketError, WSMessage, WSMsgType, web

from yett_operator import ports
from yett_operator.complaints import Complaints
from yett_operator.standing import Standing
from yett_operator.sync.auth import Caller, Denied, Gate, Unavailable
from yett_operator.sync.counters import Counters
from yett_operator.sync.pieces import Pieces
from yett_operator.sync.settings import Settings
from yett_operator.sync.stream import Stream
from yett_policy.sync import decode, encode, message
from yett_policy.sync.decode import UnknownRevision
from yett_policy.sync.frame import bundle, unbundle
from yett_policy.sync.message import Close
from yett_policy.sync.reader import Malformed

log = logging.getLogger(__name__)

_WINDOW = 10.0
_CONTROL = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)


class Ended(Exception):  # noqa: N818 - reads better
    """The connection must be closed."""

    def __init__(self, code: Close, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every connection of a server shares."""

    epoch: Callable[[], str]
    stream: Callable[[str, message.Hello], Stream]
    enter: Callable[[Session], None]
    leave: Callable[[Session], None]
    heard: Callable[[Session], None]
    unheard: Callable[[Session], None]
    acked: Callable[[Session, ports.Ack], None]
    counted: Callable[[Session, message.Counters], None]
    gate: Gate
    counters: Counters
    complaints: Complaints
    settings: Settings


class Session:
    """Between the upgraded request and its end."""

    def __init__(
        self, socket: web.WebSocketResponse, pieces: Pieces, caller: Caller, around: Surroundings
    ) -> None:
        self._socket = socket
        self._pieces = pieces
        self._around = around
        self._settings = around.settings
        self.node = caller.node
        self.info = ports.NodeInfo()
        self.stream: Stream | None = None
        """None before the hello."""
        self.silent = False
        """Reported as gone, though the connection is open."""
        self.known = ports.Ack(Standing({}), whole=True)
        """All that its answers add up to."""
        self._heard = time.monotonic()
        self._valid_until = self._heard + self._settings.token
        self._window = (self._heard, 0)
        self._renewing: asyncio.Task[None] | None = None
        self._pending: list[message.ToOperator] = []

    async def run(self) -> None:
        """Until one side ends it."""
        try:
            hello = await self._hello()
        except Ended as ended:
            await self._refuse(ended)
            return
        self.stream = stream = self._around.stream(self.node, hello)
        del hello  # all that the loader had before it called: not needed for as long as it stays
        self._around.enter(self)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._send([encode.welcome(message.Welcome(self._around.epoch(), self._settings.counters))])
            tasks = [
                asyncio.create_task(self._receive(), name=f"receive {self.node}"),
                asyncio.create_task(self._watch(), name=f"watch {self.node}"),
                asyncio.create_task(stream.run(self._send), name=f"send {self.node}"),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Ended as ended:
            await self._refuse(ended)
        except OSError as error:
            log.debug("the connection of node %s broke: %s", self.node, error)
        finally:
            self._around.leave(self)
            if self._renewing is not None:
                tasks.append(self._renewing)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, code: int, reason: str) -> None:
        """End it; a peer that does not answer is not waited for long."""
        with suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(2):
                await self._socket.close(code=code, message=reason.encode()[:120])

    # -- receiving -------------------------------------------------------------------------

    async def _hello(self) -> message.Hello:
        try:
            async with asyncio.timeout(self._settings.hello):
                while not self._pending:
                    if not await self._take():
                        raise Ended(Close.PROTOCOL_ERROR, "it hung up before its hello")
        except TimeoutError:
            raise Ended(Close.SILENT, f"no hello within {self._settings.hello:.0f} s") from None
        hello = self._pending.pop(0)
        if not isinstance(hello, message.Hello):
            raise Ended(Close.PROTOCOL_ERROR, f"a hello must come first, not {type(hello).__name__}")
        if hello.node != self.node:
            raise Ended(
                Close.WRONG_NODE, f"it says that it is node {hello.node!r}, its token is of {self.node!r}"
            )
        self.info = ports.NodeInfo(hello.version, hello.kernel)
        self._know(Standing(hello.applied), _failures(hello.failures))
        return hello

    async def _receive(self) -> None:
        while True:
            while self._pending:  # and keep none of them, for the next may be hours away
                self._handle(self._pending.pop(0))
            if not await self._take():
                return

    async def _take(self) -> bool:
        """Read one websocket message into `_pending`; False at the end."""
        received: WSMessage = await self._socket.receive()
        if received.type in _CONTROL:
            return False
        self._heard = time.monotonic()
        if self.silent:
            self._around.heard(self)
        self._limit()
        match received.type:
            case WSMsgType.BINARY:
                self._around.counters.received_bytes += len(received.data)
                try:
                    self._pending += map(decode.from_loader, unbundle(received.data))
                except UnknownRevision as error:
                    raise Ended(Close.UNKNOWN_REVISION, str(error)) from None
                except Malformed as error:
                    raise Ended(Close.PROTOCOL_ERROR, str(error)) from None
            case WSMsgType.PING:
                await self._socket.pong(received.data)
            case WSMsgType.PONG:
                pass
            case WSMsgType.ERROR:
                oversize = isinstance(received.data, WebSocketError) and received.data.code == Close.OVERSIZE
                code = Close.OVERSIZE if oversize else Close.PROTOCOL_ERROR
                raise Ended(code, f"it broke the websocket protocol: {received.data}")
            case _:
                raise Ended(Close.PROTOCOL_ERROR, "messages are binary")
        return True

    def _limit(self) -> None:
        begun, count = self._window
        self._window = (begun, count + 1) if self._heard - begun < _WINDOW else (self._heard, 1)
        if self._window[1] > self._settings.messages:
            raise Ended(Close.TOO_MUCH, f"more than {self._settings.messages} messages in {_WINDOW:.0f} s")

    def _handle(self, item: message.ToOperator) -> None:
        match item:
            case message.Ack():
                self._ack(item)
            case message.Refusal(seq, problem, text):
                self._refusal(seq, problem, text)
            case message.Counters():
                self._around.counted(self, item)
            case message.Renewal(token):
                if self._renewing is not None and not self._renewing.done():
                    raise Ended(Close.TOO_MUCH, "a token came before the one before it was reviewed")
                self._renewing = asyncio.create_task(self._renew(token), name=f"renew {self.node}")
            case message.Hello():
                raise Ended(Close.PROTOCOL_ERROR, "a second hello")
            case _:
                assert_never(item)

    def _ack(self, item: message.Ack) -> None:
        self._in_order(item.seq)
        failures = _failures(item.failures)
        if item.as_sent:
            ack = ports.Ack(self._asked(item.seq), whole=True, failures=failures)
        else:
            ack = ports.Ack(item.applied, frozenset(item.dropped), failures=failures)
        standing = ack.added_to(self.known.applied)
        if len(standing) > message.LOCAL_MAX:
            raise Ended(Close.PROTOCOL_ERROR, f"more than {message.LOCAL_MAX} documents in force")
        self._know(standing, ack.failures)
        self._around.counters.acks += 1
        self._around.acked(self, replace(ack, standing=standing))
        if self.stream is not None:
            self.stream.acked(item.seq)

    def _asked(self, seq: int) -> Mapping[int, str]:
        asked = None if self.stream is None else self.stream.asked(seq)
        if asked is None:
            raise Ended(
                Close.PROTOCOL_ERROR, f"all of update {seq} in force, when no answer to it was waited for"
            )
        return asked

    def _know(self, standing: Standing, failures: tuple[ports.Failure, ...]) -> None:
        self.known = ports.Ack(standing, whole=True, failures=failures, standing=standing)

    def _refusal(self, seq: int, problem: message.Problem, text: str) -> None:
        self._in_order(seq)
        self._around.counters.problems[problem] += 1
        if (more := self._around.complaints.due((self.node, "update", problem))) is not None:
            log.error("node %s takes nothing of update %d (%s): %r%s", self.node, seq, problem, text, more)
        failure = ports.Failure(0, "ProtocolError", text)
        failures = (*self.known.failures, failure)
        self._around.acked(self, ports.Ack({}, failures=failures, standing=self.known.standing))
        if self.stream is not None:
            self.stream.refused(seq)

    def _in_order(self, seq: int) -> None:
        last = self.stream.seq if self.stream is not None else 0
        if seq > last:
            raise Ended(Close.PROTOCOL_ERROR, f"an answer to update {seq}, the last one was {last}")

    # -- the rest --------------------------------------------------------------------------

    async def _renew(self, token: str) -> None:
        """A later token of the same node keeps the connection alive; no other does."""
        try:
            caller = await self._around.gate.authenticate(token)
        except Unavailable as error:
            if (more := self._around.complaints.due((self.node, "not renewed"))) is not None:
                log.warning("the token of node %s is not renewed yet: %s%s", self.node, error, more)
        except Denied as error:
            self._valid_until = 0.0
            self._around.counters.refused[error.reason] += 1
            if (more := self._around.complaints.due((self.node, error.reason))) is not None:
                log.warning("node %s renews with a token that is refused: %s%s", self.node, error, more)
        else:
            self._valid_until = time.monotonic() + self._settings.token if caller.node == self.node else 0.0

    async def _watch(self) -> None:
        """Ping; notice silence, and tokens that have run out."""
        due = time.monotonic() + self._settings.ping
        while True:
            await asyncio.sleep(self._settings.ping)
            now = time.monotonic()
            # If we were late ourselves, what the loader sent meanwhile is unread: that is no silence.
            self._heard += max(0.0, now - due - 0.1)
            if now > self._valid_until:
                raise Ended(Close.NOT_AUTHENTICATED, "its token has run out")
            quiet = now - self._heard
            if quiet > self._settings.dead:
                raise Ended(Close.SILENT, f"no sign of life for {quiet:.0f} s")
            if quiet > self._settings.silent and not self.silent:
                self._around.unheard(self)
            if quiet > self._settings.ping / 2:  # else an answer has just said that it lives
                # Not awaited for long: a loader that reads nothing must not keep us from noticing it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.ping):
                        await self._socket.ping()
            due = time.monotonic() + self._settings.ping

    async def _send(self, frames: Sequence[bytes], *, whole: bool = False) -> None:
        self._pieces.small = whole
        for part in bundle(frames):
            self._around.counters.sent_bytes += len(part)
            await self._socket.send_bytes(part)

    async def _refuse(self, ended: Ended) -> None:
        name = ended.code.name
        self._around.counters.refused[name] += 1
        if (more := self._around.complaints.due((self.node, name))) is not None:
            log.warning("the stream of node %s is ended (%s): %s%s", self.node, name, ended, more)
        await self.close(ended.code, str(ended))


def _failures(items: Sequence[message.Failing]) -> tuple[ports.Failure, ...]:
    return tuple(ports.Failure(item.identity, item.reason, item.message) for item in items)
