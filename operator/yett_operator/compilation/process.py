"""The compiling process as the event loop sees it."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from socket import socketpair
from typing import Concatenate, ParamSpec, TypeVar, cast

from yett_operator.compilation.batch import Batch, Outcome
from yett_operator.compilation.desk import LENGTH, PIECE, Desk, serve
from yett_policy.cluster import PodKey
from yett_policy.prefix import Packed

P = ParamSpec("P")
T = TypeVar("T")

_READ = 1 << 20
"""Bytes of an outcome that are taken from the socket before somebody asks."""


class CompilerDied(Exception):  # noqa: N818 - what happened, not what is wrong
    """The process is gone, and with it all that it was told."""


@dataclass(frozen=True, slots=True)
class _Child:
    """It and its socket.

    No thread is between it and the event loop, as `concurrent.futures` would have it: each of those waits
    for the interpreter, up to 5 ms each time when the loop is busy.
    """

    process: BaseProcess
    reader: StreamReader
    writer: StreamWriter

    @staticmethod
    async def start(forbidden: bool) -> _Child:
        ours, theirs = socketpair()
        with theirs:
            # Not forked: the parent has threads, sockets and a running event loop.
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=serve, args=(theirs, forbidden), daemon=True)
            process.start()
        return _Child(process, *await asyncio.open_connection(sock=ours, limit=_READ))

    def end(self) -> None:
        self.writer.close()
        self.process.kill()
        self.process.join()


class CompilerProcess:
    """One process that takes one batch at a time."""

    def __init__(self, *, forbidden: bool = False) -> None:
        """`forbidden`: how denied requests are answered where nobody says; see `Cluster`."""
        self._forbidden = forbidden
        self._child: _Child | None = None

    async def step(self, batch: Batch) -> Outcome:
        """`Worker.step`; the first one starts the process."""
        if self._child is None:
            self._child = await _Child.start(self._forbidden)
        pieces = batch.pieces(PIECE)
        last = next(pieces)
        for piece in pieces:
            await self._run(Desk.take, last)
            last = piece
        outcome = await self._run(Desk.step, last)
        return await self._whole(outcome, batch) if outcome.more else outcome

    async def _whole(self, outcome: Outcome, batch: Batch) -> Outcome:
        """With its rows, of which only what is new stays in memory."""
        ipcache: dict[Packed, int | None] = {}
        pods: dict[PodKey, int | None] = {}
        keys = {key: key for key in batch.pods}
        prefixes = {each: each for pod in batch.pods.values() if pod is not None for each in pod.prefixes}
        numbers: dict[int | None, int | None] = {}
        while (rows := await self._run(Desk.rows)) is not None:
            for prefix, number in rows[0].items():
                ipcache[prefixes.get(prefix, prefix)] = numbers.setdefault(number, number)
            for key, number in rows[1].items():
                pods[keys.get(key, key)] = numbers.setdefault(number, number)
        return replace(outcome, ipcache=ipcache, pods=pods, more=False)

    async def give_back(self) -> None:
        """What a big batch needed for a moment."""
        if self._child is not None:
            await self._run(Desk.give_back)

    async def _run(self, work: Callable[Concatenate[Desk, P], T], *args: P.args, **_: P.kwargs) -> T:
        child = self._child
        if child is None:
            raise CompilerDied("the compiling process was ended")
        request = pickle.dumps((work, args))
        try:
            child.writer.write(LENGTH.pack(len(request)) + request)
            await child.writer.drain()
            (size,) = LENGTH.unpack(await child.reader.readexactly(LENGTH.size))
            done, result = pickle.loads(await child.reader.readexactly(size))  # noqa: S301 - of our own child
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._end(child)
            raise CompilerDied("the compiling process died") from error
        except BaseException:
            self._end(child)  # its answer may be under way, and is not the next question's
            raise
        if not done:
            raise result
        return cast("T", result)

    def close(self) -> None:
        """End the process; a later step starts a new one that knows nothing."""
        if self._child is not None:
            self._end(self._child)

    def _end(self, child: _Child) -> None:
        child.end()
        if self._child is child:
            self._child = None
