"""The compiling process as the event loop sees it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TypeVar

from yett_operator.compilation import worker
from yett_operator.compilation.batch import Batch, Outcome
from yett_operator.memory import give_back
from yett_operator.ports import PodKey

T = TypeVar("T")


class CompilerDied(Exception):  # noqa: N818 - what happened, not what is wrong
    """The process is gone, and with it all that it was told."""


class CompilerProcess:
    """One process that takes one batch at a time."""

    def __init__(self, *, forbidden: bool = False) -> None:
        """`forbidden`: how denied requests are answered where nobody says; see `Cluster`."""
        self._forbidden = forbidden
        self._pool: ProcessPoolExecutor | None = None

    async def step(self, batch: Batch) -> Outcome:
        """`Worker.step`; the first one starts the process."""
        if self._pool is None:
            # Not forked: the parent has threads, sockets and a running event loop.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                1, mp_context=context, initializer=worker.start, initargs=(self._forbidden,)
            )
        *pieces, last = batch.pieces(worker.PIECE)
        for piece in pieces:
            await self._run(worker.take, piece)
        outcome = await self._run(worker.step, last)
        return await self._whole(outcome, batch) if outcome.more else outcome

    async def _whole(self, outcome: Outcome, batch: Batch) -> Outcome:
        """With its rows, of which only what is new stays in memory."""
        ipcache: dict[str, int | None] = {}
        pods: dict[PodKey, int | None] = {}
        keys = {key: key for key in batch.pods}
        texts = {text: text for pod in batch.pods.values() if pod is not None for text in pod.prefixes}
        numbers: dict[int | None, int | None] = {}
        while (rows := await self._run(worker.rows)) is not None:
            for prefix, number in rows[0].items():
                ipcache[texts.get(prefix, prefix)] = numbers.setdefault(number, number)
            for key, number in rows[1].items():
                pods[keys.get(key, key)] = numbers.setdefault(number, number)
        return replace(outcome, ipcache=ipcache, pods=pods, more=False)

    async def give_back(self) -> None:
        """What a big batch needed for a moment."""
        if self._pool is not None:
            await self._run(give_back)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except BrokenProcessPool as error:
            self.close()
            raise CompilerDied("the compiling process died") from error

    def close(self) -> None:
        """End the process; a later step starts a new one that knows nothing."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
