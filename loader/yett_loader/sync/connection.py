"""One websocket to one replica of the operator."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType

from yett_loader.errors import NotReady
from yett_loader.report import package_version
from yett_loader.sync.follower import Follower
from yett_loader.sync.replica import Refused, Replica, Update
from yett_loader.sync.settings import Times
from yett_loader.sync.target import InForce
from yett_policy.sync import decode, encode, message
from yett_policy.sync.decode import UnknownRevision
from yett_policy.sync.frame import bundle, unbundle
from yett_policy.sync.message import HITS_MAX, LOCAL_MAX, NAMED_MAX, Close, Problem
from yett_policy.sync.reader import Malformed

log = logging.getLogger(__name__)

INSTANCE = secrets.token_hex(16)
"""Of this run of the loader."""

UPDATE_LIMIT = 256 << 20
"""Bytes of one update as it comes."""
_END = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)
_HITS_AT_ONCE = min(2000, HITS_MAX)


class Broken(Exception):  # noqa: N818 - reads better
    """The connection is of no use any more; `str()` says why."""


class Connection:
    """From its hello to its end."""

    def __init__(
        self,
        socket: ClientWebSocketResponse,
        node: str,
        follower: Follower,
        token: Callable[[], str],
        times: Times,
    ) -> None:
        self._socket = socket
        self._node = node
        self._follower = follower
        self._token = token
        self._times = times
        self._epoch = ""
        self._counters_seconds = 30
        self._last = 0
        """Sequence number of the newest update that began."""
        self._taken = 0
        """Of the newest that was taken."""
        self._asked: Mapping[int, str] = {}
        """Documents that it asks for."""
        self._answered = 0
        self._update: Update | None = None
        self._update_bytes = 0
        self._skipping = False
        """The rest of an update that was refused is on its way."""
        self._committed: asyncio.Queue[tuple[int, Replica]] = asyncio.Queue()
        self._busy = False
        """An update is on its way into force."""
        self._said = InForce()
        self._changed = asyncio.Event()
        self._due = asyncio.Event()
        """An update waits for its answer."""

    async def run(self, welcomed: Callable[[], None]) -> None:
        """Until either side ends it: Broken says why."""
        await self._hello()
        welcomed()
        stop = self._follower.listen(self._changed.set)
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("sync receive", self._receive()),
                ("sync apply", self._apply()),
                ("sync report", self._report()),
                ("sync counters", self._count()),
                ("sync renew", self._renew()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- beginning -------------------------------------------------------------------------

    async def _hello(self) -> None:
        replica, self._said = self._follower.replica, self._follower.target.in_force()
        resume = message.Resume(replica.epoch, replica.revision) if replica.revision else None
        await self._send(
            encode.hello(
                message.Hello(
                    node=self._node,
                    instance=INSTANCE,
                    version=package_version()[:64],
                    kernel=os.uname().release[:256],
                    applied=self._said.applied,
                    failures=self._said.failures,
                    documents=tuple(replica.documents)[:LOCAL_MAX],
                    rulesets=tuple(replica.rulesets),
                    resume=resume,
                )
            )
        )
        try:
            async with asyncio.timeout(self._times.silent):
                while not self._epoch:
                    await self._take(await self._next())
        except TimeoutError:
            raise Broken("it does not answer the hello") from None

    # -- receiving -------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            await self._take(await self._next())

    async def _next(self) -> WSMessage:
        try:
            received: WSMessage = await self._socket.receive(timeout=self._times.silent)
        except TimeoutError:
            raise Broken(f"nothing came for {self._times.silent:.0f} s") from None
        if received.type in _END:
            raise Broken(_ended(self._socket.close_code, str(received.extra or "")))
        if received.type is WSMsgType.ERROR:
            self._count_refused("Oversize" if self._socket.close_code == 1009 else "Websocket")
            raise Broken(f"it broke the websocket protocol: {received.data}")
        return received

    async def _take(self, received: WSMessage) -> None:
        match received.type:
            case WSMsgType.BINARY:
                self._follower.numbers.received_bytes += len(received.data)
                self._update_bytes += len(received.data)
                try:
                    for frame in unbundle(received.data):
                        await self._frame(frame)
                        await asyncio.sleep(0)  # a snapshot has many, and pings must be answered
                except Malformed as error:
                    unknown = isinstance(error, UnknownRevision)
                    self._count_refused("UnknownRevision" if unknown else Problem.MALFORMED)
                    raise Broken(str(error)) from None
            case WSMsgType.PING:
                await self._socket.pong(received.data)
            case WSMsgType.PONG:
                pass
            case _:
                raise Broken("it sends text")

    async def _frame(self, frame: bytes) -> None:
        if self._skipping and not _may_begin(frame):
            return
        try:
            item = decode.from_operator(frame)
            await self._item(item)
        except Malformed as error:
            if self._skipping:
                return
            if self._update is None:
                raise
            await self._refuse(self._update.begin.seq, Problem.MALFORMED, str(error))
        except Refused as error:
            await self._refuse(self._last, error.problem, str(error))

    async def _item(self, item: message.ToLoader) -> None:
        if not self._epoch:
            if not isinstance(item, message.Welcome):
                raise Broken("a welcome must come first")
            self._epoch, self._counters_seconds = item.epoch or "?", item.counters_seconds
        elif isinstance(item, message.Welcome):
            raise Broken("a second welcome")
        elif isinstance(item, message.Begin):
            await self._begin(item)
        elif self._skipping:
            return
        elif self._update is None:
            raise Broken("a part without a beginning")
        elif isinstance(item, message.Commit):
            replica = self._update.commit(item)
            self._update = None
            self._busy = True
            self._committed.put_nowait((item.seq, replica))
        else:
            if self._update_bytes > UPDATE_LIMIT:
                raise Refused(Problem.MALFORMED, f"more than {UPDATE_LIMIT} bytes in one update")
            self._update.take(item)

    async def _begin(self, begin: message.Begin) -> None:
        if self._update is not None:
            raise Broken(f"update {begin.seq} within another")
        if begin.seq <= self._last:
            await self._refuse(begin.seq, Problem.REPLAYED, f"update {begin.seq} has been here before")
            return
        if self._busy:
            raise Broken(f"update {begin.seq} before the one before it was answered")
        expected, self._last = self._last + 1, begin.seq
        self._skipping = False
        self._update_bytes = 0
        if begin.seq != expected:
            raise Refused(Problem.GAP, f"update {begin.seq} follows {expected - 1}")
        self._update = Update(self._follower.replica, self._epoch, begin)

    async def _refuse(self, seq: int, problem: Problem, text: str) -> None:
        self._count_refused(problem)
        if self._follower.once.first(("refused", problem)):
            log.error("nothing of update %d is taken (%s): %r", seq, problem, text)
        self._skipping = True
        self._update = None
        await self._send(encode.refusal(message.Refusal(seq, problem, text[:1000])))

    async def _apply(self) -> None:
        while True:
            seq, replica = await self._committed.get()
            await self._follower.take(replica)
            self._taken, self._asked, self._busy = seq, replica.node.documents, False
            self._due.set()
            self._changed.set()

    # -- sending ---------------------------------------------------------------------------

    async def _report(self) -> None:
        """What is in force, whenever that has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._busy:
                continue  # one answer for both
            self._due.clear()
            now = self._follower.target.in_force()
            if now == self._said and self._taken == self._answered:
                continue
            before, self._said = self._said, now
            answer, self._answered = self._answered != self._taken, self._taken
            changed = {
                identity: digest
                for identity, digest in now.applied.items()
                if before.applied.get(identity) != digest
            }
            dropped = tuple(sorted(before.applied.keys() - now.applied.keys()))
            if answer and len(changed) > NAMED_MAX and now.applied == self._asked:
                ack = message.Ack(self._taken, {}, as_sent=True, failures=now.failures)
            else:
                ack = message.Ack(self._taken, changed, dropped, failures=now.failures)
            await self._send(encode.ack(ack))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.report):
                    await self._due.wait()

    async def _count(self) -> None:
        sent: Mapping[str, int] = {}
        while True:
            hits = self._follower.target.hits()
            news = [(rule, count) for rule, count in hits.items() if sent.get(rule, 0) != count]
            for start in range(0, len(news), _HITS_AT_ONCE):
                await self._send(encode.counters(message.Counters(dict(news[start : start + _HITS_AT_ONCE]))))
            sent = hits
            await asyncio.sleep(self._counters_seconds)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._times.renew)
            # A file that cannot be read now is read again later; the stream outlives some of that.
            with suppress(NotReady):
                await self._send(encode.renewal(message.Renewal(self._token())))

    async def _send(self, *frames: bytes) -> None:
        for part in bundle(frames):
            self._follower.numbers.sent_bytes += len(part)
            await self._socket.send_bytes(part)

    def _count_refused(self, reason: str) -> None:
        self._follower.numbers.refused[reason] += 1


def _may_begin(frame: bytes) -> bool:
    """Whether it is short enough for a Begin: the parts of a refused update are not even read."""
    return len(frame) < 256


def _ended(code: int | None, text: str) -> str:
    names: Iterable[Close] = (item for item in Close if item == code)
    name = next((item.name for item in names), str(code))
    return f"it hung up ({name}){f': {text!r}' if text else ''}"
